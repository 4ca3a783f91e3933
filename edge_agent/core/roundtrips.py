"""Round trips, by the reports of RTCP (RFC 3550, 6.4.1): when each sender report left, and which one is answered.

Pure. aiortc remembers its newest report alone. Where the next one leaves before the answer comes, as on a link of more
than a second, it learns no round trip, or far too short a one: a report that repeats the last packet's time is taken
for it.
"""

from __future__ import annotations

from collections.abc import Iterator

SENDER_REPORT, RECEIVER_REPORT = 200, 201
MOST_REMEMBERED = 32  # of two streams, one a second each
KEPT = 0.85  # of what was known, as aiortc does


class RoundTrips:
    def __init__(self) -> None:
        self._left_at: dict[tuple[int, int], float | None] = {}  # by SSRC and time; None: two reports have that one
        self._known_s: dict[int, float] = {}  # by SSRC

    def left(self, rtcp: bytes, now: float) -> None:
        for ssrc, middle in _sender_reports(rtcp):
            self._left_at[ssrc, middle] = None if (ssrc, middle) in self._left_at else now
            if len(self._left_at) > MOST_REMEMBERED:
                del self._left_at[next(iter(self._left_at))]

    def came(self, rtcp: bytes, now: float) -> None:
        for ssrc, middle, held_s in _blocks(rtcp):
            left_at = self._left_at.get((ssrc, middle))
            if left_at is not None and (rtt_s := now - left_at - held_s) >= 0:
                self._known_s[ssrc] = KEPT * self._known_s.get(ssrc, rtt_s) + (1 - KEPT) * rtt_s

    def of(self, ssrc: int) -> float | None:
        """Seconds, smoothed; None: not known yet."""
        return self._known_s.get(ssrc)

    @property
    def shortest_s(self) -> float | None:
        """Of all streams."""
        return min(self._known_s.values(), default=None)


def _packets(rtcp: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, count and bytes of each in a compound one, which may be garbage."""
    at = 0
    while len(rtcp) - at >= 8:
        length = 4 + 4 * int.from_bytes(rtcp[at + 2 : at + 4], "big")
        yield rtcp[at + 1], rtcp[at] & 0x1F, rtcp[at : at + length]
        at += length


def _sender_reports(rtcp: bytes) -> Iterator[tuple[int, int]]:
    """SSRC and the middle 32 bits of NTP's time."""
    for kind, _, packet in _packets(rtcp):
        if kind == SENDER_REPORT and len(packet) >= 28:
            yield int.from_bytes(packet[4:8], "big"), int.from_bytes(packet[10:14], "big")


def _blocks(rtcp: bytes) -> Iterator[tuple[int, int, float]]:
    """SSRC, last sender report and seconds since then, of all report blocks that tell of one."""
    for kind, count, packet in _packets(rtcp):
        begin = {SENDER_REPORT: 28, RECEIVER_REPORT: 8}.get(kind)
        for at in range(begin, begin + 24 * count, 24) if begin else ():
            block = packet[at : at + 24]
            if len(block) == 24 and (middle := int.from_bytes(block[16:20], "big")):
                yield int.from_bytes(block[:4], "big"), middle, int.from_bytes(block[20:24], "big") / 65536
