"""In which order and at what pace packets leave for a thin link.

Pure: packets and `now` in, the packets that leave out; what a packet is, it does not know. A link's own queue is first
come, first served, so whatever is to wait for the voice must wait here:

1. Voice leaves at once. What it takes of the link is taken from the others.
2. The others leave one by one, by class, when the link is done with all that left before.
3. Reports and orders leave all the same where the voice fills the link.
4. Nothing but voice is longer than `longest_packet_bytes`, as no one can overtake what is under way.
5. What would wait too long goes: pictures as a whole, never a part of one; the rest oldest first.

All sizes are those on the wire, headers included.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

SHORTEST_LIMIT_BYTES = 250  # below this headers are most of a packet
LONGEST_LIMIT_BYTES = 1350  # what goes through any path to the internet, tunnels included
LONGEST_S = 0.060  # of the link

CREDIT_S = 0.005  # timers are late by some ms: what was not used meanwhile is used after
DONE_BITS = 1.0  # so near nothing that the rest is rounding
MOST_DEBT_S = 0.5  # so long voice alone can hold up all others, even where it is more than the link carries
MOST_PICTURES_S = 1.0  # of the link; what waits longer is of the past when it arrives
MOST_WAITING = 64  # packets of each other class
MOST_RETRANSMISSION_AGE_S = 1.0
# Where the voice takes all that there is, reports and orders leave after so long all the same, since it is by them that
# it comes to take less.
LATEST_S = 0.5


class Kind(IntEnum):
    """In the order of priority."""

    VOICE = 0
    RTCP = 1
    CONTROL = 2  # short data: what the far end is told of how to send, and what belongs to that
    REDUNDANCY = 3  # a second copy of voice that is a packet of its own
    RETRANSMISSION = 4  # what has been waited for longest, and what is sent after it is built on it
    PICTURE = 5  # what later pictures are built on
    UPPER = 6  # a picture that no other is built on
    DATA = 7


Packet = TypeVar("Packet")


@dataclass(slots=True)
class _Waiting(Generic[Packet]):
    packet: Packet
    size_bytes: int
    since: float


@dataclass(slots=True)
class _Picture(Generic[Packet]):
    id: int
    packets: deque[_Waiting[Packet]] = field(default_factory=deque)
    has_begun: bool = False


def longest_packet_bytes(rate_bps: float | None) -> int:
    """For anything but voice, on a link of that rate."""
    if rate_bps is None:
        return LONGEST_LIMIT_BYTES
    return max(SHORTEST_LIMIT_BYTES, min(LONGEST_LIMIT_BYTES, int(rate_bps * LONGEST_S / 8)))


class Pacer(Generic[Packet]):
    """See the module. `take` until it gives None; then again at `next_time`, or when something was put in."""

    def __init__(self, rate_bps: float | None, now: float) -> None:
        """`rate_bps` None: not known; everything leaves at once."""
        self.sent: Counter[Kind] = Counter()
        self.sent_bytes: Counter[Kind] = Counter()
        self.dropped: Counter[Kind] = Counter()
        self.wants_key_picture = False  # pictures that others are built on were dropped: only a key picture helps
        self._rate_bps = rate_bps
        self._is_held = False
        self._debt_bits = 0.0  # what the link is still busy with
        self._at = now
        self._others: dict[Kind, deque[_Waiting[Packet]]] = {
            kind: deque() for kind in Kind if kind not in (Kind.PICTURE, Kind.UPPER)
        }
        self._pictures: dict[Kind, deque[_Picture[Packet]]] = {Kind.PICTURE: deque(), Kind.UPPER: deque()}
        self._refused_picture: int | None = None  # the rest of it is dropped as it comes

    @property
    def rate_bps(self) -> float | None:
        return self._rate_bps

    def set_rate(self, rate_bps: float | None, now: float) -> None:
        self._drain(now)
        self._rate_bps = rate_bps
        self._bound_debt()

    def hold(self, held: bool) -> None:
        """Nothing but voice, RTCP and control leaves while enough is under way: the estimator's `has_room`."""
        self._is_held = held

    def put(self, packet: Packet, kind: Kind, size_bytes: int, now: float) -> list[Packet]:
        """Not for pictures. What is dropped for it."""
        waiting = self._others[kind]
        waiting.append(_Waiting(packet, size_bytes, now))
        if len(waiting) <= MOST_WAITING:
            return []
        self.dropped[kind] += 1
        return [waiting.popleft().packet]

    def put_picture(
        self, packet: Packet, size_bytes: int, now: float, *, picture: int, key: bool = False, upper: bool = False
    ) -> list[Packet]:
        """A packet of a picture; all of one picture come one after another. What is dropped for it, may be itself."""
        kind = Kind.UPPER if upper else Kind.PICTURE
        waiting = self._pictures[kind]
        dropped: list[Packet] = []
        if not waiting or waiting[-1].id != picture:
            if picture != self._refused_picture:
                dropped = self._make_room(kind, key, now)
                self._refused_picture = None if self._is_welcome(kind, key, now) else picture
            if picture == self._refused_picture:
                self.dropped[kind] += 1
                return [*dropped, packet]
            waiting.append(_Picture(picture))
        waiting[-1].packets.append(_Waiting(packet, size_bytes, now))
        return dropped

    def take(self, now: float) -> tuple[Kind, Packet] | None:
        self._drain(now)
        voice = self._others[Kind.VOICE]
        if voice:
            return self._gone(Kind.VOICE, voice.popleft())
        if self._debt_bits > DONE_BITS:
            return self._overdue(now)
        for kind in Kind:
            if self._is_held and kind > Kind.CONTROL:
                return None
            if (found := self._first(kind, now)) is not None:
                return self._gone(kind, found)
        return None

    def next_time(self, now: float) -> float | None:
        """When `take` gives something without anything new having been put in."""
        if self._others[Kind.VOICE]:
            return now
        first = self._others[Kind.RTCP] or self._others[Kind.CONTROL]
        if not first and (self._is_held or not self._anything_waits()):
            return None
        self._drain(now)
        return now if self._rate_bps is None else now + max(0.0, self._debt_bits) / self._rate_bps

    def _anything_waits(self) -> bool:
        return any(self._others.values()) or self.picture_packets > 0

    def waiting(self, kind: Kind) -> int:
        """Packets, not of pictures."""
        return len(self._others[kind])

    @property
    def picture_packets(self) -> int:
        return sum(len(picture.packets) for pictures in self._pictures.values() for picture in pictures)

    def picture_would_wait_s(self, now: float) -> float:
        """How long a picture that is put in now waits for those before it and for what they lost; a new one is not
        coded meanwhile, and so never keeps their retransmissions from leaving."""
        if self._rate_bps is None:
            return 0.0
        self._drain(now)
        before = self._picture_bytes()
        for kind in (Kind.RTCP, Kind.CONTROL, Kind.REDUNDANCY, Kind.RETRANSMISSION):
            before += sum(entry.size_bytes for entry in self._others[kind])
        return max(0.0, self._debt_bits + 8 * before) / self._rate_bps

    # --- within

    def _overdue(self, now: float) -> tuple[Kind, Packet] | None:
        for kind in (Kind.RTCP, Kind.CONTROL):
            waiting = self._others[kind]
            if waiting and now - waiting[0].since >= LATEST_S:
                return self._gone(kind, waiting.popleft())
        return None

    def _first(self, kind: Kind, now: float) -> _Waiting[Packet] | None:
        if kind in self._pictures:
            pictures = self._pictures[kind]
            while pictures and not pictures[0].packets and len(pictures) > 1:
                pictures.popleft()  # the last one stays, as more of it may come
            if not pictures or not pictures[0].packets:
                return None
            pictures[0].has_begun = True
            return pictures[0].packets.popleft()
        waiting = self._others[kind]
        while waiting:
            entry = waiting.popleft()
            if kind is not Kind.RETRANSMISSION or now - entry.since <= MOST_RETRANSMISSION_AGE_S:
                return entry
            self.dropped[kind] += 1
        return None

    def _gone(self, kind: Kind, entry: _Waiting[Packet]) -> tuple[Kind, Packet]:
        self.sent[kind] += 1
        self.sent_bytes[kind] += entry.size_bytes
        self._debt_bits += 8 * entry.size_bytes
        self._bound_debt()
        return kind, entry.packet

    def _drain(self, now: float) -> None:
        if self._rate_bps is None:
            self._debt_bits = 0.0
        else:
            self._debt_bits -= (now - self._at) * self._rate_bps
            self._debt_bits = max(self._debt_bits, -CREDIT_S * self._rate_bps)
        self._at = now

    def _bound_debt(self) -> None:
        if self._rate_bps is None:
            self._debt_bits = 0.0
        else:
            self._debt_bits = min(self._debt_bits, MOST_DEBT_S * self._rate_bps)

    # --- pictures that go

    def _picture_bytes(self) -> int:
        return sum(
            entry.size_bytes for pictures in self._pictures.values() for each in pictures for entry in each.packets
        )

    def _is_welcome(self, kind: Kind, key: bool, now: float) -> bool:
        if key:
            self.wants_key_picture = False
            return True
        if self.wants_key_picture:
            return False
        if self.picture_would_wait_s(now) <= MOST_PICTURES_S:
            return True
        self.wants_key_picture = kind is Kind.PICTURE
        return False

    def _make_room(self, kind: Kind, key: bool, now: float) -> list[Packet]:
        """A key picture stands for all that have not begun; another displaces what nothing is built on."""
        dropped: list[Packet] = []
        if key:
            dropped += self._drop_unbegun(Kind.PICTURE)
        if key or (kind is Kind.PICTURE and self.picture_would_wait_s(now) > MOST_PICTURES_S):
            dropped += self._drop_unbegun(Kind.UPPER)
        return dropped

    def _drop_unbegun(self, kind: Kind) -> list[Packet]:
        pictures = self._pictures[kind]
        going = [entry.packet for each in pictures if not each.has_begun for entry in each.packets]
        begun = [each for each in pictures if each.has_begun]
        pictures.clear()
        pictures.extend(begun)
        self.dropped[kind] += len(going)
        return going
