"""Transport-wide congestion control: which packet left when, and which arrived when.

Pure: bytes and `now` in, bytes and lists out. Packets carry a number in an RTP header extension that counts all of
them on one transport; the receiver tells in RTCP (PT 205, FMT 15) which came, and when by its own clock.
draft-holmer-rmcat-transport-wide-cc-extensions-01. What comes from outside raises ValueError and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

URI = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
RTPFB, FORMAT = 205, 15
MOST_REMEMBERED = 2048  # packets sent whose fate is not known
MOST_A_REPORT = 180  # packets; so that no report is longer than what a thin link may carry beside voice
MOST_GAP = 1000  # numbers that are told lost one by one; after more of a jump it begins anew

TICK_S = 0.000_250
REFERENCE_S = 0.064
_REFERENCES = 1 << 24
_TICKS_A_REFERENCE = 256
_LOST, _SMALL, _LARGE = 0, 1, 2
_HEADER = Struct("!HH3sB")
_ONE_BYTE_EXTENSIONS = 0xBEDE


class Fate(NamedTuple):
    """Of a packet that was sent. `received_at` is by the receiver's clock, in seconds from anywhere; None: lost, as
    far as is known by now."""

    seq: int  # counted on beyond 16 bits
    size_bytes: int
    sent_at: float
    received_at: float | None


class Departures:
    """Numbers what leaves, and joins it with what the far end reports."""

    def __init__(self) -> None:
        self._next = 1
        self._sent: dict[int, tuple[int, float]] = {}  # by number: size, when
        self._reference: int | None = None  # counted on beyond 24 bits

    def left(self, size_bytes: int, now: float) -> int:
        """The packet's number, 16 bits."""
        seq, self._next = self._next, self._next + 1
        self._sent[seq] = (size_bytes, now)
        if len(self._sent) > MOST_REMEMBERED:
            del self._sent[next(iter(self._sent))]
        return seq & 0xFFFF

    def reported(self, fci: bytes) -> list[Fate]:
        """In the order of their numbers. Each packet once; one that was told lost may still be told received."""
        base, reference, arrivals = parse(fci)
        self._reference = _unwrapped(reference, self._reference, _REFERENCES)
        began_at = self._reference * REFERENCE_S
        fates = []
        first = _unwrapped(base, self._next - 1, 1 << 16)
        for seq, ticks in enumerate(arrivals, first):
            known = self._sent.get(seq)
            if known is None:
                continue
            if ticks is not None:
                del self._sent[seq]
            fates.append(Fate(seq, *known, None if ticks is None else began_at + ticks * TICK_S))
        return fates


class Arrivals:
    """Notes what comes, and makes the reports of it. `forgiving`: what is missing between two that came is told as if
    it had come between them. A browser takes every tenth packet lost for too much sent and ends at a few kbit/s,
    whatever the link carries; whether losses speak against the rate is judged here (`farlink`), where more is known."""

    def __init__(self, forgiving: bool = False) -> None:
        self._forgiving = forgiving
        self._came: dict[int, int] = {}  # by number, counted on: ticks of the clock
        self._next: int | None = None  # the first that no report has told of
        self._newest: int | None = None
        self._count = 0

    def came(self, seq: int, now: float) -> None:
        whole = _unwrapped(seq, self._newest, 1 << 16)
        if self._newest is None or abs(whole - self._newest) > MOST_GAP:
            self._came.clear()
            self._next = self._newest = whole
        self._newest = max(self._newest, whole)
        self._came.setdefault(whole, round(now / TICK_S))

    def __len__(self) -> int:
        return len(self._came)

    def report(self) -> bytes | None:
        """The next one's FCI; None when all is told. Asked again until then."""
        if not self._came:
            return None
        earliest = min(self._came)
        base = earliest if self._next is None or earliest < self._next else self._next
        if max(self._came) - base >= MOST_A_REPORT:
            base = max(base, earliest - MOST_A_REPORT // 2)
        # The reference is a multiple of 64 ms at or before the first arrival.
        reference = self._came[earliest] // _TICKS_A_REFERENCE
        before = reference * _TICKS_A_REFERENCE
        statuses: list[int] = []
        deltas = bytearray()
        if self._forgiving:
            self._fill_gaps(base)
        for seq in range(base, min(max(self._came) + 1, base + MOST_A_REPORT)):
            at = self._came.get(seq)
            if at is None:
                statuses.append(_LOST)
                continue
            delta = at - before
            if 0 <= delta <= 0xFF:
                statuses.append(_SMALL)
                deltas.append(delta)
            elif -0x8000 <= delta <= 0x7FFF:
                statuses.append(_LARGE)
                deltas += delta.to_bytes(2, "big", signed=True)
            else:
                break  # a pause that no delta can tell: the next report begins there
            before = at
            del self._came[seq]
        while statuses and statuses[-1] == _LOST:  # what comes late is told then
            statuses.pop()
        if not statuses:
            return None
        self._next = max(self._next or 0, base + len(statuses))
        count, self._count = self._count, (self._count + 1) & 0xFF
        reference_bytes = (reference % _REFERENCES).to_bytes(3, "big")
        fci = _HEADER.pack(base & 0xFFFF, len(statuses), reference_bytes, count)
        return fci + b"".join(_chunks(statuses)) + bytes(deltas)

    def _fill_gaps(self, base: int) -> None:
        last = None
        for seq in sorted(self._came):
            first = base if last is None else last + 1
            at = self._came[seq] if last is None else (self._came[last] + self._came[seq]) // 2
            self._came.update(dict.fromkeys(range(max(first, seq - MOST_A_REPORT), seq), at))
            last = seq


# --- the format of a report


def parse(fci: bytes) -> tuple[int, int, list[int | None]]:
    """Base number, reference time in 64 ms, and for each number from the base on the ticks since then; None: lost."""
    if len(fci) < _HEADER.size:
        raise ValueError("a transport-cc report that is cut short")
    base, count, reference, _ = _HEADER.unpack_from(fci)
    statuses: list[int] = []
    at = _HEADER.size
    while len(statuses) < count:
        if at + 2 > len(fci):
            raise ValueError("a transport-cc report without all its chunks")
        statuses += _statuses_of(int.from_bytes(fci[at : at + 2], "big"))
        at += 2
    ticks = 0
    arrivals: list[int | None] = []
    for status in statuses[:count]:
        if status == _LOST:
            arrivals.append(None)
            continue
        size = 1 if status == _SMALL else 2
        if at + size > len(fci) or status not in (_SMALL, _LARGE):
            raise ValueError("a transport-cc report without all its deltas")
        ticks += int.from_bytes(fci[at : at + size], "big", signed=status == _LARGE)
        at += size
        arrivals.append(ticks)
    return base, int.from_bytes(reference, "big"), arrivals


def _statuses_of(chunk: int) -> list[int]:
    if not chunk & 0x8000:
        return [chunk >> 13 & 3] * (chunk & 0x1FFF)
    if not chunk & 0x4000:
        return [chunk >> shift & 1 for shift in range(13, -1, -1)]
    return [chunk >> shift & 3 for shift in range(12, -1, -2)]


def _chunks(statuses: list[int]) -> Iterator[bytes]:
    at = 0
    while at < len(statuses):
        run = next((n for n, status in enumerate(statuses[at:]) if status != statuses[at]), len(statuses) - at)
        fourteen, seven = statuses[at : at + 14], statuses[at : at + 7]
        if run >= 14 or (run >= 7 and _LARGE in fourteen) or at + run == len(statuses):
            chunk, took = statuses[at] << 13 | run, run
        elif _LARGE not in fourteen:
            chunk, took = 0x8000, len(fourteen)
            for number, status in enumerate(fourteen):
                chunk |= status << (13 - number)
        else:
            chunk, took = 0xC000, len(seven)
            for number, status in enumerate(seven):
                chunk |= status << (12 - 2 * number)
        yield chunk.to_bytes(2, "big")
        at += took


# --- the format of packets


def reports_in(rtcp: bytes) -> tuple[list[bytes], bytes]:
    """The FCI of each transport-cc report in a compound RTCP packet, and the rest of it: whoever takes FMT 15 for
    NACKs stumbles over its padding, and loses what stands beside it."""
    reports, rest, at = [], b"", 0
    while at + 4 <= len(rtcp):
        end = at + 4 + 4 * int.from_bytes(rtcp[at + 2 : at + 4], "big")
        if end > len(rtcp):
            break
        if rtcp[at + 1] != RTPFB or rtcp[at] & 0x1F != FORMAT:
            rest += rtcp[at:end]
        elif end - at >= 12:
            padding = rtcp[end - 1] if rtcp[at] & 0x20 else 0
            reports.append(rtcp[at + 12 : end - padding])
        at = end
    return reports, rest + rtcp[at:]


def packet_of(fci: bytes, sender_ssrc: int, media_ssrc: int) -> bytes:
    """The RTCP packet, padded as RTCP is (the last of the padding's bytes tells its length)."""
    padding = -len(fci) % 4
    tail = bytes(padding - 1) + bytes([padding]) if padding else b""
    body = sender_ssrc.to_bytes(4, "big") + media_ssrc.to_bytes(4, "big") + fci + tail
    first = 0x80 | (0x20 if padding else 0) | FORMAT
    return bytes([first, RTPFB]) + (len(body) // 4).to_bytes(2, "big") + body


def numbered(rtp: bytes, extension_id: int, seq: int) -> bytes:
    """The packet with its number in a header extension, 8 bytes longer where it has none yet, else 4."""
    element = bytes([extension_id << 4 | 1]) + seq.to_bytes(2, "big") + b"\0"
    start = 12 + 4 * (rtp[0] & 0x0F)
    if not rtp[0] & 0x10:
        heading = _ONE_BYTE_EXTENSIONS.to_bytes(2, "big") + b"\0\1"
        return bytes([rtp[0] | 0x10]) + rtp[1:start] + heading + element + rtp[start:]
    if int.from_bytes(rtp[start : start + 2], "big") != _ONE_BYTE_EXTENSIONS:
        raise ValueError("header extensions of another form")
    words = int.from_bytes(rtp[start + 2 : start + 4], "big")
    end = start + 4 + 4 * words
    return rtp[: start + 2] + (words + 1).to_bytes(2, "big") + rtp[start + 4 : end] + element + rtp[end:]


def number_in(rtp: bytes, extension_id: int) -> int | None:
    """The number that a packet carries."""
    start = 12 + 4 * (rtp[0] & 0x0F)
    if not rtp[0] & 0x10 or rtp[start : start + 2] != b"\xbe\xde":
        return None
    at, end = start + 4, start + 4 + 4 * int.from_bytes(rtp[start + 2 : start + 4], "big")
    while at < min(end, len(rtp)):
        identity, length = rtp[at] >> 4, (rtp[at] & 0x0F) + 1
        if rtp[at] == 0:
            at += 1
            continue
        if identity == extension_id and length == 2 and at + 3 <= len(rtp):
            return int.from_bytes(rtp[at + 1 : at + 3], "big")
        at += 1 + length
    return None


def _unwrapped(number: int, near: int | None, period: int) -> int:
    """The whole number nearest to `near` that has those last bits."""
    if near is None:
        return number
    away = (number - near) % period
    return near + (away if away < period // 2 else away - period)
