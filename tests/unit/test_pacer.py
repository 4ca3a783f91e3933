"""The order and the pace in which packets leave."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.pacer import (
    CREDIT_S,
    LONGEST_LIMIT_BYTES,
    MOST_PICTURES_S,
    MOST_WAITING,
    Kind,
    Pacer,
    longest_packet_bytes,
)  # fmt: skip

RATE = 64_000
FULL = longest_packet_bytes(RATE)


def drained(pacer: Pacer[str], until: float) -> list[tuple[float, str]]:
    """All that leaves by then, by following `next_time`."""
    left = []
    now = pacer._at
    while (at := pacer.next_time(now)) is not None and at <= until:
        now = max(now, at)
        while (taken := pacer.take(now)) is not None:
            left.append((now, taken[1]))
    return left


def names(left: list[tuple[float, str]]) -> list[str]:
    return [name for _, name in left]


def test_by_priority_when_all_wait_for_the_link() -> None:
    pacer: Pacer[str] = Pacer(RATE, 0.0)
    pacer.put("busy", Kind.RTCP, 400, 0.0)
    assert pacer.take(0.0) == (Kind.RTCP, "busy")
    pacer.put("data", Kind.DATA, 100, 0.0)
    pacer.put_picture("upper", 100, 0.0, picture=2, upper=True)
    pacer.put("again", Kind.RETRANSMISSION, 100, 0.0)
    pacer.put_picture("base", 100, 0.0, picture=1)
    pacer.put("copy", Kind.REDUNDANCY, 100, 0.0)
    pacer.put("report", Kind.RTCP, 100, 0.0)
    pacer.put("voice", Kind.VOICE, 100, 0.0)
    assert names(drained(pacer, 9.0)) == ["voice", "report", "copy", "again", "base", "upper", "data"]


def test_what_is_no_voice_leaves_when_the_link_is_done_with_the_last() -> None:
    pacer: Pacer[str] = Pacer(RATE, 0.0)
    for number in range(4):
        pacer.put(str(number), Kind.DATA, 400, 0.0)  # 50 ms each
    times = [at for at, _ in drained(pacer, 9.0)]
    assert times == pytest.approx([0.0, 0.05, 0.1, 0.15])


def test_voice_waits_for_nothing_and_the_others_pay() -> None:
    pacer: Pacer[str] = Pacer(RATE, 0.0)
    pacer.put("long", Kind.DATA, 480, 0.0)  # 60 ms
    pacer.put("next", Kind.DATA, 480, 0.0)
    assert names(drained(pacer, 0.01)) == ["long"]
    pacer.put("voice", Kind.VOICE, 80, 0.01)  # 10 ms
    assert pacer.take(0.01) == (Kind.VOICE, "voice")
    assert drained(pacer, 9.0) == [(pytest.approx(0.07), "next")]


def test_more_voice_than_the_link_carries_holds_reports_up_for_half_a_second_at_most() -> None:
    pacer: Pacer[str] = Pacer(8_000, 0.0)
    pacer.put("report", Kind.RTCP, 100, 0.0)
    pacer.put("voice", Kind.VOICE, 5_000, 0.0)
    assert names(drained(pacer, 0.51)) == ["voice", "report"]


def test_lateness_of_timers_costs_no_rate_and_rest_saves_none() -> None:
    pacer: Pacer[str] = Pacer(RATE, 0.0)
    for number in range(100):
        pacer.put(str(number), Kind.DATA, 80, 0.0) if number < MOST_WAITING else None
    taken, now = 0, 5.0  # a long rest before
    while taken < MOST_WAITING:
        at = pacer.next_time(now)
        assert at is not None
        now = at + 0.003
        while pacer.take(now) is not None:
            taken += 1
    assert now - 5.0 == pytest.approx((MOST_WAITING - 1) * 0.01, abs=CREDIT_S + 0.003)


def test_a_rate_that_changes_counts_from_then_on() -> None:
    pacer: Pacer[str] = Pacer(RATE, 0.0)
    pacer.put("a", Kind.DATA, 400, 0.0)
    pacer.put("b", Kind.DATA, 400, 0.0)
    assert names(drained(pacer, 0.0)) == ["a"]
    pacer.set_rate(RATE / 2, 0.025)  # 25 ms of "a" were left, now 50
    assert drained(pacer, 9.0) == [(pytest.approx(0.075), "b")]


def test_without_a_rate_everything_leaves_at_once() -> None:
    pacer: Pacer[str] = Pacer(None, 0.0)
    for number in range(20):
        pacer.put_picture(f"p{number}", 1300, 0.0, picture=number)
    pacer.put("voice", Kind.VOICE, 100, 0.0)
    assert len(drained(pacer, 0.0)) == 21


# --- pictures


def put_picture(pacer: Pacer[str], number: int, packets: int, now: float, **what: bool) -> list[str]:
    dropped: list[str] = []
    for part in range(packets):
        dropped += pacer.put_picture(f"{number}.{part}", FULL, now, picture=number, **what)
    return dropped


def test_pictures_that_would_wait_too_long_go_whole_and_only_a_key_picture_helps() -> None:
    pacer: Pacer[str] = Pacer(RATE, 0.0)
    many = int(MOST_PICTURES_S / 0.06) + 2  # packets of 60 ms
    assert put_picture(pacer, 1, many, 0.0) == []
    assert not pacer.wants_key_picture
    assert put_picture(pacer, 2, 3, 0.0) == ["2.0", "2.1", "2.2"]
    assert pacer.wants_key_picture
    left = names(drained(pacer, 5.0))
    assert left == [f"1.{part}" for part in range(many)]
    assert put_picture(pacer, 3, 2, 5.0) == ["3.0", "3.1"]  # there is room, yet it builds on the second
    assert put_picture(pacer, 4, 2, 5.0, key=True) == []
    assert not pacer.wants_key_picture
    assert put_picture(pacer, 5, 1, 5.0) == []
    assert names(drained(pacer, 9.0)) == ["4.0", "4.1", "5.0"]


def test_a_key_picture_stands_for_those_that_have_not_begun() -> None:
    pacer: Pacer[str] = Pacer(RATE, 0.0)
    put_picture(pacer, 1, 3, 0.0)
    put_picture(pacer, 2, 3, 0.0)
    put_picture(pacer, 3, 1, 0.0, upper=True)
    assert names(drained(pacer, 0.0)) == ["1.0"]
    assert put_picture(pacer, 4, 2, 0.01, key=True) == ["2.0", "2.1", "2.2", "3.0"]
    assert names(drained(pacer, 9.0)) == ["1.1", "1.2", "4.0", "4.1"]


def test_upper_pictures_go_first_and_nobody_asks_for_a_key() -> None:
    pacer: Pacer[str] = Pacer(RATE, 0.0)
    put_picture(pacer, 1, 10, 0.0)
    put_picture(pacer, 2, 10, 0.0, upper=True)
    assert put_picture(pacer, 3, 1, 0.0, upper=True) == ["3.0"]
    assert put_picture(pacer, 4, 1, 0.0) == [f"2.{part}" for part in range(10)]
    assert not pacer.wants_key_picture
    assert names(drained(pacer, 9.0)) == [*(f"1.{part}" for part in range(10)), "4.0"]


def test_a_picture_may_leave_while_it_comes() -> None:
    pacer: Pacer[str] = Pacer(RATE, 0.0)
    left = []
    for part in range(5):
        pacer.put_picture(f"1.{part}", 100, part * 0.1, picture=1)
        left += names(drained(pacer, part * 0.1))
    assert left == [f"1.{part}" for part in range(5)]
    assert pacer.next_time(1.0) is None


def test_old_retransmissions_go_and_queues_are_bounded() -> None:
    pacer: Pacer[str] = Pacer(RATE, 0.0)
    pacer.put("old", Kind.RETRANSMISSION, 100, 0.0)
    pacer.put("new", Kind.RETRANSMISSION, 100, 2.0)
    assert pacer.take(2.0) == (Kind.RETRANSMISSION, "new")
    assert pacer.dropped[Kind.RETRANSMISSION] == 1
    dropped = [each for number in range(200) for each in pacer.put(str(number), Kind.DATA, 100, 2.0)]
    assert dropped == [str(number) for number in range(200 - MOST_WAITING)]


def test_no_picture_is_wanted_while_the_lost_parts_of_others_wait() -> None:
    pacer: Pacer[str] = Pacer(RATE, 0.0)
    put_picture(pacer, 1, 1, 0.0)
    pacer.put("lost", Kind.RETRANSMISSION, FULL, 0.0)
    assert names(drained(pacer, 0.0)) == ["lost"]
    assert pacer.picture_would_wait_s(0.0) == pytest.approx(0.12)
    assert names(drained(pacer, 0.06)) == ["1.0"]
    assert pacer.picture_would_wait_s(0.06) == pytest.approx(0.06)
    assert pacer.picture_would_wait_s(0.13) == 0


# --- what the voice has of it


@pytest.mark.parametrize(
    ("rate", "longest"), [(18_000, 250), (33_000, 250), (64_000, 480), (128_000, 960), (10e6, LONGEST_LIMIT_BYTES)]
)
def test_how_long_a_packet_may_be(rate: float, longest: int) -> None:
    assert longest_packet_bytes(rate) == longest
    assert longest_packet_bytes(None) == LONGEST_LIMIT_BYTES


@pytest.mark.parametrize("rate", [18_000, 32_000, 64_000, 128_000])
def test_the_links_queue_stays_within_two_packets_whatever_is_put_in(rate: int) -> None:
    """A link of that rate behind the pacer: how long voice waits in it, with pictures that fill all the rest."""
    random_ = random.Random(rate)
    pacer: Pacer[str] = Pacer(rate, 0.0)
    voice_bytes, every_s = 100, 0.06
    free_at, waits, now, picture = 0.0, [], 0.0, 0
    for step in range(2000):
        upto = step * every_s / 3
        while (at := pacer.next_time(now)) is not None and at <= upto:
            now = max(now, at)
            while (taken := pacer.take(now)) is not None:
                kind, size = taken[0], int(taken[1])
                if kind is Kind.VOICE:
                    waits.append(max(0.0, free_at - now))
                free_at = max(free_at, now) + size * 8 / rate
        now = upto
        if step % 3 == 0:
            pacer.put(str(voice_bytes), Kind.VOICE, voice_bytes, now)
        if pacer.picture_would_wait_s(now) < 0.3:
            picture += 1
            for _ in range(random_.randrange(1, 6)):
                size = random_.randrange(60, longest_packet_bytes(rate) + 1)
                pacer.put_picture(str(size), size, now, picture=picture, key=picture % 50 == 0)
    longest_s = longest_packet_bytes(rate) * 8 / rate
    assert len(waits) > 600
    assert max(waits) <= longest_s + CREDIT_S + 1e-9
    used = sum(pacer.sent_bytes.values()) * 8 / now
    assert used > 0.9 * rate


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Kind)), st.integers(1, 1500), st.floats(0, 0.2), st.booleans(), st.integers(1, 5)
        ),
        max_size=80,
    ),
    st.sampled_from([None, 1_000.0, 18_000.0, 64_000.0, 1e6]),
)
def test_everything_leaves_or_is_told_dropped_and_pictures_leave_whole(
    comes: list[tuple[Kind, int, float, bool, int]], rate: float | None
) -> None:
    pacer: Pacer[str] = Pacer(rate, 0.0)
    now, put, left, dropped = 0.0, set(), [], []
    for number, (kind, size, pause, key, parts) in enumerate(comes):
        left += names(drained(pacer, now))
        now += pause
        for part in range(parts if kind in (Kind.PICTURE, Kind.UPPER) else 1):
            name = f"{number}.{part}"
            put.add(name)
            if kind in (Kind.PICTURE, Kind.UPPER):
                dropped += pacer.put_picture(name, size, now, picture=number, key=key, upper=kind is Kind.UPPER)
            else:
                dropped += pacer.put(name, kind, size, now)
    left += names(drained(pacer, 1e9))
    assert len(left) + len(dropped) + pacer.dropped[Kind.RETRANSMISSION] >= len(put)
    assert set(left).isdisjoint(dropped)
    assert len(set(left)) == len(left)
    for number, (kind, _, _, _, parts) in enumerate(comes):
        if kind in (Kind.PICTURE, Kind.UPPER):
            mine = [name for name in left if name.startswith(f"{number}.")]
            assert mine in ([], [f"{number}.{part}" for part in range(parts)])
