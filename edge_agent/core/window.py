"""How much may be under way at once, and in what pieces, so that the link stays full and nobody waits long behind it.

Pure. Whoever sends says what went (`sent`) and what the broker acknowledged (`acknowledged`); the window answers
`has_room` and `chunk_bytes`. What is under way keeps within

    delivery rate × (shortest round trip + QUEUE_S), and never under two chunks;     a chunk is CHUNK_S of that rate

A bound of rate × a second alone starves itself where the round trip is longer than that. The rate is the greatest of
the last RATE_WINDOW_S, each sample taken as in BBR (draft-ietf-ccwg-bbr, 4.1.1): what was acknowledged between an
item's sending and its acknowledgement, over the longer of the times in which it was sent and acknowledged, so that what
TCP held back behind a lost packet and then hands over in one go counts for no more than it is. The round trip is that
of what went while nothing else was under way; it holds its own time on the link too, which errs to the safe side. A
long transfer pauses for it (one round trip each PROBE_S), or its own queue would pass for distance and grow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

QUEUE_S = 0.5  # stands before the link: what is urgent waits this long behind it
CHUNK_S = 0.25
SHORTEST_CHUNK_BYTES = 512
LONGEST_CHUNK_BYTES = 64 * 1024
FIRST_CHUNK_BYTES = 1024  # while nothing is known of the link
LEAST_CHUNKS = 2
RATE_WINDOW_S = 10.0
ROUND_TRIP_WINDOW_S = 90.0
PROBE_S = 40.0
CONFIGURED_SHARE = 0.7  # of what the configuration says, to begin with: headers, and who else is on the link
UNKNOWN_ROUND_TRIP_S = 0.5


@dataclass(frozen=True, slots=True)
class _UnderWay:
    size_bytes: int
    sent_at: float
    alone: bool  # nothing else was under way
    delivered_bytes: int  # when it went
    delivered_at: float
    first_sent_at: float  # of what was acknowledged last when it went
    dry: bool  # the link was not full: there was less to send than room, or it had just begun


class _Sample(NamedTuple):
    at: float
    value: float


class Window:
    """`link_bps`: what the configuration says that the link carries, 0 for unknown; a first guess."""

    def __init__(self, link_bps: float = 0.0) -> None:
        self._guess_bytes_per_s = CONFIGURED_SHARE * link_bps / 8
        self._under_way: dict[Hashable, _UnderWay] = {}
        self._rates: deque[_Sample] = deque()  # falling
        self._round_trips: deque[_Sample] = deque()  # rising
        self._round_trip_at = 0.0
        self.in_flight_bytes = 0
        self._delivered_bytes = 0
        self._delivered_at = self._first_sent_at = 0.0
        self._dry_until_bytes = 0
        self._heard_of_any = False  # something was acknowledged since nothing was under way

    @property
    def rate_bytes_per_s(self) -> float:
        """As delivered, 0 while nobody knows."""
        return self._rates[0].value if self._rates else self._guess_bytes_per_s

    @property
    def round_trip_s(self) -> float:
        return self._round_trips[0].value if self._round_trips else UNKNOWN_ROUND_TRIP_S

    @property
    def chunk_bytes(self) -> int:
        if not (rate := self.rate_bytes_per_s):
            return FIRST_CHUNK_BYTES
        return max(SHORTEST_CHUNK_BYTES, min(LONGEST_CHUNK_BYTES, int(rate * CHUNK_S)))

    @property
    def limit_bytes(self) -> int:
        return max(int(self.rate_bytes_per_s * (self.round_trip_s + QUEUE_S)), LEAST_CHUNKS * self.chunk_bytes)

    def has_room(self, size_bytes: int) -> bool:
        """To the nearest item: cut off, two chunks on a link of more than a second never became three."""
        return len(self._under_way) < LEAST_CHUNKS or self.in_flight_bytes + size_bytes / 2 <= self.limit_bytes

    def pauses(self, now: float) -> bool:
        """Whether what can wait should: the round trip is to be taken anew, with nothing else under way."""
        return bool(self._under_way) and bool(self._round_trips) and now - self._round_trip_at > PROBE_S

    def sent(self, item: Hashable, size_bytes: int, now: float) -> None:
        self._drop(item)
        alone = not self._under_way
        if alone:
            self._first_sent_at = self._delivered_at = now
            self._heard_of_any = False
        self._under_way[item] = _UnderWay(
            size_bytes, now, alone, self._delivered_bytes, self._delivered_at, self._first_sent_at,
            not self._heard_of_any or self._delivered_bytes < self._dry_until_bytes,
        )  # fmt: skip
        self.in_flight_bytes += size_bytes

    def ran_dry(self) -> None:
        """There was room, and nothing to send: what is measured now is not what the link can do."""
        self._dry_until_bytes = self._delivered_bytes + self.in_flight_bytes

    def acknowledged(self, item: Hashable, now: float) -> None:
        if (was := self._drop(item)) is None:
            return
        self._heard_of_any = True
        self._delivered_bytes += was.size_bytes
        self._delivered_at, self._first_sent_at = now, max(self._first_sent_at, was.sent_at)
        if was.alone:
            self._take_round_trip(now - was.sent_at, now)
        took_s = max(now - was.delivered_at, was.sent_at - was.first_sent_at)
        if took_s > 0:
            self._take_rate((self._delivered_bytes - was.delivered_bytes) / took_s, was.dry, now)

    def gone(self, item: Hashable) -> None:
        """It got nowhere: nothing is learnt from it."""
        self._drop(item)

    def restart(self) -> None:
        """Another connection: nothing is under way, and the way may be another; the rate is a first guess again."""
        self._under_way.clear()
        self.in_flight_bytes = 0
        self._guess_bytes_per_s = self.rate_bytes_per_s
        self._rates.clear()
        self._round_trips.clear()

    def _drop(self, item: Hashable) -> _UnderWay | None:
        was = self._under_way.pop(item, None)
        if was is not None:
            self.in_flight_bytes -= was.size_bytes
        return was

    def _take_rate(self, rate: float, dry: bool, now: float) -> None:
        rates = self._rates
        if dry and rate <= self.rate_bytes_per_s:
            return
        while rates and rates[-1].value <= rate:
            rates.pop()
        rates.append(_Sample(now, rate))
        while rates[0].at < now - RATE_WINDOW_S:
            rates.popleft()

    def _take_round_trip(self, round_trip_s: float, now: float) -> None:
        trips = self._round_trips
        while trips and trips[-1].value >= round_trip_s:
            trips.pop()
        trips.append(_Sample(now, round_trip_s))
        while trips[0].at < now - ROUND_TRIP_WINDOW_S:
            trips.popleft()
        self._round_trip_at = now
