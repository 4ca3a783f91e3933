"""The window over a link of a rate and a round trip, in virtual time: it fills the link and no more."""

from __future__ import annotations

import heapq
import itertools
import statistics

import pytest

from edge_agent.core.window import (
    FIRST_CHUNK_BYTES,
    LONGEST_CHUNK_BYTES,
    QUEUE_S,
    SHORTEST_CHUNK_BYTES,
    Window,
)


class Link:
    """First come, first served; what arrives is acknowledged half a round trip later. With `holds_s`, whatever arrives
    in that time after `holds_at` is handed over at its end, as TCP does behind a lost packet."""

    def __init__(self, bps: float, round_trip_s: float, holds: tuple[float, ...] = (), holds_s: float = 0.0) -> None:
        self.bps, self.round_trip_s = bps, round_trip_s
        self._holds, self._holds_s = holds, holds_s
        self._free_at = 0.0
        self.carried_bytes = 0
        self.acks: list[tuple[float, int]] = []  # that are on their way
        self.numbers = itertools.count()

    def carry(self, size_bytes: int, now: float) -> float:
        """When it is acknowledged."""
        self._free_at = max(self._free_at, now) + size_bytes * 8 / self.bps
        self.carried_bytes += size_bytes
        at = self._free_at + self.round_trip_s / 2
        for start in self._holds:
            if start <= at < start + self._holds_s:
                at = start + self._holds_s
        return at + self.round_trip_s / 2

    def waits_s(self, now: float) -> float:
        return max(0.0, self._free_at - now)


def transfer(window: Window, link: Link, seconds: float, begin: float = 0.0) -> tuple[float, list[float]]:
    """Of endless data: how much of the link was used in the second half, and how long it was to its end."""
    acks, numbers = link.acks, link.numbers
    now, waits, at_half, half_at = begin, [], 0, 0.0
    while now < begin + seconds:
        if not half_at and now > begin + seconds / 2:
            at_half, half_at = link.carried_bytes, now
        while window.has_room(size := window.chunk_bytes + 100) and not window.pauses(now):
            number = next(numbers)
            window.sent(number, size, now)
            heapq.heappush(acks, (link.carry(size, now), number))
        waits.append(link.waits_s(now))
        now, number = heapq.heappop(acks)
        window.acknowledged(number, now)
    return (link.carried_bytes - at_half) * 8 / link.bps / (now - half_at), waits[len(waits) // 2 :]


LINKS = [(18_000, 1.3), (32_000, 0.3), (40_000, 0.6), (64_000, 0.4), (256_000, 0.1), (2_000_000, 0.03)]


@pytest.mark.parametrize(("bps", "round_trip_s"), LINKS)
@pytest.mark.parametrize("guess_bps", [0, 18_000, 256_000])
def test_it_fills_the_link_whatever_was_guessed_and_queues_no_more_than_it_should(bps, round_trip_s, guess_bps):
    window = Window(guess_bps)
    used, waits = transfer(window, Link(bps, round_trip_s), 120)
    assert used > 0.93
    chunk_s = (window.chunk_bytes + 100) * 8 / bps
    assert statistics.median(waits) < QUEUE_S + 2 * chunk_s + 0.05
    assert max(waits) < round_trip_s + QUEUE_S + 2 * chunk_s + 0.05  # it begins, and begins again, with all of it


@pytest.mark.parametrize(("bps", "round_trip_s"), LINKS)
def test_it_finds_the_rate_and_the_round_trip(bps, round_trip_s):
    window = Window()
    transfer(window, Link(bps, round_trip_s), 90)
    assert window.rate_bytes_per_s * 8 == pytest.approx(bps, rel=0.1)
    chunk_s = (window.chunk_bytes + 100) * 8 / bps
    assert round_trip_s <= window.round_trip_s <= round_trip_s + chunk_s + 0.01


def test_a_pair_of_short_chunks_is_the_least():
    window = Window(1_000)
    assert window.chunk_bytes == SHORTEST_CHUNK_BYTES
    assert window.limit_bytes == 2 * SHORTEST_CHUNK_BYTES
    assert Window().limit_bytes == 2 * FIRST_CHUNK_BYTES
    assert Window(1e9).chunk_bytes == LONGEST_CHUNK_BYTES


def test_it_follows_a_link_that_gets_worse_and_better():
    window, link = Window(), Link(256_000, 0.3)
    transfer(window, link, 30)
    link.bps = 32_000
    used, waits = transfer(window, link, 60, begin=30)
    assert used > 0.93
    assert waits[-1] < 1.0
    link.bps = 256_000
    used, _ = transfer(window, link, 60, begin=90)
    assert used > 0.93


def test_a_longer_way_is_noticed():
    window, link = Window(), Link(64_000, 0.1)
    transfer(window, link, 30)
    link.round_trip_s = 1.3
    used, _ = transfer(window, link, 300, begin=30)
    assert used > 0.9


def test_what_tcp_hands_over_in_one_go_does_not_pass_for_a_fast_link():
    holds = tuple(10.0 + 4 * n for n in range(60))
    window = Window()
    transfer(window, Link(64_000, 0.4, holds, 1.0), 200)
    assert window.rate_bytes_per_s * 8 < 1.3 * 64_000


def test_little_to_send_tells_nothing_of_the_link():
    window, link = Window(), Link(64_000, 0.4)
    transfer(window, link, 60)
    window.restart()
    known = window.rate_bytes_per_s
    now = 100.0
    for number in range(100):
        window.ran_dry()
        window.sent(number, 300, now)
        window.acknowledged(number, link.carry(300, now))
        now += 2.0
    assert window.rate_bytes_per_s == known


def test_a_lost_connection_leaves_nothing_under_way():
    window = Window()
    window.sent("a", 500, 0.0)
    window.restart()
    assert window.in_flight_bytes == 0
    window.acknowledged("a", 5.0)
    assert window.in_flight_bytes == 0
    assert window.rate_bytes_per_s == 0
