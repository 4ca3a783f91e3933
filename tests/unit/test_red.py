"""RED (RFC 2198): what is built is read back, and nothing that arrives breaks the reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.red import (
    MOST_BLOCK_BYTES,
    MOST_BLOCKS,
    MOST_OFFSET,
    Older,
    Red,
    RedError,
    Repeater,
    build,
    parse,
)

BLOCKS = st.lists(
    st.builds(Older, st.integers(0, MOST_OFFSET), st.binary(min_size=1, max_size=MOST_BLOCK_BYTES)), max_size=6
)


@given(st.integers(0, 127), st.binary(max_size=1500), BLOCKS)
def test_what_is_built_is_parsed(payload_type: int, payload: bytes, older: list[Older]) -> None:
    assert parse(build(payload_type, payload, older)) == Red(payload_type, payload, tuple(older))


@given(st.binary(max_size=200))
def test_nothing_but_its_own_error_comes_of_garbage(data: bytes) -> None:
    try:
        found = parse(data)
    except RedError:
        return
    assert len(found.older) <= MOST_BLOCKS
    assert len(found.payload) + sum(len(each.payload) for each in found.older) < len(data)


def test_the_bytes_are_the_rfcs() -> None:
    assert build(111, b"new", [Older(960, b"old")]).hex() == "ef0f0003" + "6f" + b"oldnew".hex()


def test_what_cannot_be_told_is_left_out() -> None:
    too_far, too_long = Older(MOST_OFFSET + 1, b"x"), Older(960, bytes(MOST_BLOCK_BYTES + 1))
    assert parse(build(111, b"new", [too_far, too_long])).older == ()


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_packet_cut_short_is_refused(cut: int) -> None:
    whole = build(111, b"", [Older(960, b"abc")])
    with pytest.raises(RedError):
        parse(whole[:-cut])


# --- what goes again


def frames(count: int) -> list[bytes]:
    return [bytes([0x08, number, 1]) for number in range(count)]


@pytest.mark.parametrize(("depth", "distance"), [(0, 1), (1, 1), (2, 1), (1, 3), (2, 3), (4, 2)])
def test_older_frames_go_again_as_planned(depth: int, distance: int) -> None:
    repeater = Repeater()
    for number, frame in enumerate(frames(20)):
        older = repeater.older(number * 960, frame, depth, distance)
        wanted = [back for back in range(depth * distance, 0, -distance) if back <= number]
        assert older == tuple(Older(back * 960, frames(20)[number - back]) for back in wanted)


def test_of_a_pause_the_first_is_sent_and_what_repeats_the_last_words() -> None:
    repeater = Repeater()
    pause = b"\x08"
    sent = [repeater.older(number * 960, frame, 1, 2) for number, frame in enumerate([*frames(3), *[pause] * 6])]

    assert [older is not None for older in sent] == [True] * 5 + [False] * 4
    assert [len(older or ()) for older in sent[3:5]] == [1, 1]


def test_what_is_too_far_back_to_be_told_is_not_repeated() -> None:
    repeater = Repeater()
    for number, frame in enumerate(frames(8)):
        older = repeater.older(number * 5760, frame, 4, 1)
        assert older is not None
        assert all(each.offset <= MOST_OFFSET for each in older)
    assert [each.offset for each in older] == [11520, 5760]
