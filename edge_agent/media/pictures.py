"""From RTP packets of VP8 (RFC 7741) to whole encoded pictures that a decoder can take in turn.

Pure: packets with `now` in, pictures out. A picture goes out with its last packet; a gap is waited for while a
retransmission may fill it; past that nothing goes out until a key frame, so that nobody ever decodes garbage.
"""

from __future__ import annotations

from typing import NamedTuple

GAP_WAIT_S = 0.6  # a NACK and its retransmission
MOST_PACKETS = 2048

_VIDEO_CLOCK_PER_MS = 90


class EncodedPicture(NamedTuple):
    key: bool
    time_ms: int  # of the RTP clock, from 0 at the first picture
    data: bytes


class _Packet(NamedTuple):
    timestamp: int
    marker: bool  # last of its picture
    starts: bool  # first of its picture
    data: bytes

    @property
    def key(self) -> bool:
        """Bit 0 of a VP8 frame's first byte is 0 for a key frame (RFC 6386, 9.1)."""
        return self.starts and bool(self.data) and not self.data[0] & 1


class PictureAssembler:
    def __init__(self) -> None:
        self._packets: dict[int, _Packet] = {}
        self._newest: int | None = None
        self._next = 0
        self._waiting_since: float | None = None
        self._time_origin: int | None = None
        self._last_timestamp = 0
        self.wants_key_frame = True

    def require_key_frame(self) -> None:
        """What followed was lost further on: start again from a key frame."""
        self.wants_key_frame = True

    def add(
        self, sequence_number: int, timestamp: int, marker: bool, starts: bool, data: bytes, now: float
    ) -> list[EncodedPicture]:
        """`data` without the payload descriptor; `starts` is its S bit with partition 0."""
        if self._newest is None:
            self._newest = sequence_number
            self._next = sequence_number - 2**15  # the first packets may come in another order
        position = self._newest + (sequence_number - self._newest + 2**15) % 2**16 - 2**15
        self._newest = max(self._newest, position)
        if position < self._next:
            return []
        if len(self._packets) >= MOST_PACKETS:
            self._packets.clear()
            self.wants_key_frame = True
        self._packets[position] = _Packet(timestamp, marker, starts, data)
        return self._whole_pictures(now)

    def _whole_pictures(self, now: float) -> list[EncodedPicture]:
        pictures: list[EncodedPicture] = []
        while True:
            if self.wants_key_frame and not self._skip_to_key_frame():
                return pictures
            end = self._end_of_picture(self._next)
            if end is None:
                if not self._packets:
                    self._waiting_since = None
                    return pictures
                if self._next in self._packets and min(self._packets) == max(self._packets) - len(self._packets) + 1:
                    self._waiting_since = None  # no gap: the rest of the picture is under way
                    return pictures
                if self._skip_to_key_frame():
                    continue
                self._waiting_since = now if self._waiting_since is None else self._waiting_since
                if now - self._waiting_since > GAP_WAIT_S:
                    self.wants_key_frame = True
                    self._waiting_since = None
                    continue
                return pictures
            self._waiting_since = None
            pictures.append(self._take(end))

    def _end_of_picture(self, start: int) -> int | None:
        """The position of its last packet, when all of it is here."""
        first = self._packets.get(start)
        if first is None or not first.starts:
            return None
        position = start
        while (packet := self._packets.get(position)) is not None and packet.timestamp == first.timestamp:
            if packet.marker:
                return position
            position += 1
        return None

    def _skip_to_key_frame(self) -> bool:
        """Moves on to the first whole key frame, if one is here."""
        for position in sorted(self._packets):
            if self._packets[position].key and self._end_of_picture(position) is not None:
                self._next = position
                for older in [p for p in self._packets if p < position]:
                    del self._packets[older]
                self.wants_key_frame = False
                return True
        return False

    def _take(self, end: int) -> EncodedPicture:
        packets = [self._packets.pop(position) for position in range(self._next, end + 1)]
        self._next = end + 1
        timestamp = packets[0].timestamp
        if self._time_origin is None:
            self._time_origin = self._last_timestamp = timestamp
        self._last_timestamp += (timestamp - self._last_timestamp + 2**31) % 2**32 - 2**31
        time_ms = (self._last_timestamp - self._time_origin) // _VIDEO_CLOCK_PER_MS
        return EncodedPicture(packets[0].key, time_ms, b"".join(packet.data for packet in packets))
