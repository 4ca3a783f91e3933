"""Turns put together from parts that come twice, late, in any order, or not at all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core import wire
from edge_agent.core.turn_parts import HALF_S, MOST_TURNS, PART_FRAMES, PART_S, Hearable, TurnBox

TURN, OTHER = b"t" * 8, b"o" * 8


@given(
    parts=st.lists(st.lists(st.binary(min_size=1, max_size=4), max_size=5).map(tuple), min_size=1, max_size=12),
    data=st.data(),
)
def test_however_they_come_they_are_heard_once_and_in_order(parts, data):
    order = list(range(len(parts)))
    came = data.draw(st.permutations(order + data.draw(st.lists(st.sampled_from(order), max_size=6))))
    box = TurnBox()
    for number in came:
        box.add(TURN, number, parts[number], number == len(parts) - 1, 1.0)
    assert box.next(1.0) == Hearable(TURN, tuple(packet for part in parts for packet in part))
    assert box.waiting == 1
    box.heard(TURN)
    for number in came:
        box.add(TURN, number, parts[number], number == len(parts) - 1, 2.0)
    assert box.next(100.0) is None


def test_a_half_turn_is_heard_as_far_as_it_came():
    box = TurnBox()
    box.add(TURN, 0, (b"a",), False, 1.0)
    box.add(TURN, 2, (b"c",), False, 3.0)
    assert box.is_spoken(4.0)
    assert box.next(4.0) is None
    assert box.next_deadline(4.0) == 3.0 + HALF_S
    assert box.next(3.0 + HALF_S) == Hearable(TURN, (b"a", b"c"), is_whole=False)
    assert not box.is_spoken(3.0 + HALF_S)
    assert box.next_deadline(3.0 + HALF_S) is None
    # The link was gone, not the speaker: the rest is heard when it is there, and nothing twice.
    box.heard(TURN)
    assert box.next(100.0) is None
    box.add(TURN, 2, (b"c",), False, 101.0)
    assert box.next(200.0) is None
    box.add(TURN, 3, (b"d",), True, 201.0)
    assert box.is_spoken(201.0)
    box.add(TURN, 1, (b"b",), False, 202.0)
    assert box.next(202.0) == Hearable(TURN, (b"b", b"d"), is_whole=True)
    box.heard(TURN)
    box.add(TURN, 1, (b"b",), False, 203.0)
    assert box.next(300.0) is None


def test_what_comes_while_half_a_turn_is_heard_is_heard_after_it():
    box = TurnBox()
    box.add(TURN, 0, (b"a",), False, 1.0)
    assert box.next(50.0) == Hearable(TURN, (b"a",), is_whole=False)
    box.add(TURN, 1, (b"b",), True, 51.0)
    box.heard(TURN)
    assert box.next(52.0) == Hearable(TURN, (b"b",), is_whole=True)
    box.heard(TURN)
    assert box.next(100.0) is None
    assert box.waiting == 0


def test_turns_are_heard_in_the_order_in_which_they_began():
    box = TurnBox()
    box.add(TURN, 1, (b"b",), True, 1.0)
    box.add(OTHER, 0, (b"x",), True, 2.0)
    assert box.next(2.0) == Hearable(OTHER, (b"x",))  # what is there is not kept back
    box.add(TURN, 0, (b"a",), False, 3.0)
    assert box.next(3.0) == Hearable(TURN, (b"a", b"b"))


def test_a_far_end_out_of_its_mind_fills_no_memory():
    box = TurnBox()
    for number in range(10 * MOST_TURNS):
        box.add(number.to_bytes(8, "big"), 0, (b"a",), True, 1.0)
    assert box.waiting == MOST_TURNS
    box.add(TURN, wire.MAX_TURN_PARTS, (b"a",), True, 1.0)
    box.add(TURN, -1, (b"a",), True, 1.0)
    assert box.waiting == MOST_TURNS


def test_the_longest_turn_has_room():
    from edge_agent.core.turn_parts import LONGEST_S

    assert LONGEST_S / PART_S < wire.MAX_TURN_PARTS
    assert PART_FRAMES <= wire.MAX_PART_PACKETS
