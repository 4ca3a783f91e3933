"""From RTP packets of VP8 (RFC 7741) to whole encoded pictures that a decoder can take in turn.

Pure: packets with `now` in, pictures out. A picture goes out with its last packet; a gap is waited for while a
retransmission may fill it; past that nothing goes out until a key frame, so that nobody ever decodes garbage. What
came late in order fills the gap all the same: a key frame is asked for, and whichever comes first ends the wait.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

LEAST_GAP_WAIT_S, GAP_WAIT_RTTS = 0.3, 2.5  # two NACKs and their retransmissions
MOST_PACKETS = 2048
MOST_JUMP = 3000  # RFC 3550, A.1: a packet beyond it is of a far end that began anew, if the next one follows it
OLD_IN_A_ROW = 200  # nothing but packets of the past: what was taken for newer was none. A retransmission has up to 128
MOST_STEP_MS, USUAL_STEP_MS = 60_000, 100  # from one picture to the next; told where the far clock leaps

_VIDEO_CLOCK_PER_MS = 90


class EncodedPicture(NamedTuple):
    key: bool
    time_ms: int  # of the RTP clock, from 0 at the first picture
    data: bytes
    timestamp: int = 0  # RTP's own
    still: bool = False  # the next one may come a minute later


class HeldPictures:
    """What waits for its sound, in the order of the pictures."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, EncodedPicture]] = deque()

    def add(self, picture: EncodedPicture, due: float) -> None:
        if self._waiting:
            due = max(due, self._waiting[-1][0])
        self._waiting.append((due, picture))

    def take(self, now: float) -> EncodedPicture | None:
        return self._waiting.popleft()[1] if self._waiting and self._waiting[0][0] <= now else None

    def next_time(self) -> float | None:
        return self._waiting[0][0] if self._waiting else None

    def drop(self) -> None:
        self._waiting.clear()


class _Packet(NamedTuple):
    timestamp: int
    marker: bool  # last of its picture
    starts: bool  # first of its picture
    data: bytes

    @property
    def key(self) -> bool:
        """Bit 0 of a VP8 frame's first byte is 0 for a key frame (RFC 6386, 9.1)."""
        return self.starts and bool(self.data) and not self.data[0] & 1

    @property
    def is_padding(self) -> bool:
        """Chromium puts some between two pictures when it tries what a link carries."""
        return not self.data


class PictureAssembler:
    def __init__(self) -> None:
        self.gap_wait_s = LEAST_GAP_WAIT_S
        self._packets: dict[int, _Packet] = {}
        self._newest: int | None = None
        self._next = 0
        self._waiting_since: float | None = None
        self._last_timestamp: int | None = None
        self._ticks = 0  # of the last picture, since the first
        self._suspect: int | None = None  # sequence number of a packet that fits nothing
        self._old_in_a_row = 0
        self._since = 0  # position of the first packet
        self._only_key = True  # nothing else can be shown next
        self.wants_key_frame = True

    def restart(self) -> None:
        """The far end counts anew from the next packet on, by other numbers; the time of the pictures goes on."""
        self._packets.clear()
        self._newest = self._suspect = self._waiting_since = None
        self._old_in_a_row = 0
        self.require_key_frame()

    def require_key_frame(self) -> None:
        """What followed was lost further on: start again from a key frame."""
        self._only_key = self.wants_key_frame = True

    def still(self, frame: bytes) -> EncodedPicture:
        """A key picture that came by another way: what comes by this one goes on with a key frame of its own."""
        self.require_key_frame()
        self._ticks += USUAL_STEP_MS * _VIDEO_CLOCK_PER_MS
        return EncodedPicture(True, self._ticks // _VIDEO_CLOCK_PER_MS, frame, still=True)

    def missing(self) -> list[int]:
        """What a retransmission could still bring that is of use, by numbers counted on beyond 16 bits."""
        if self._newest is None:
            return []
        start = self._next
        if self._only_key:
            keys = [position for position, packet in self._packets.items() if packet.key]
            if not keys:  # the beginning of what may be one
                return [
                    position - 1
                    for position, packet in self._packets.items()
                    if not (packet.starts or packet.is_padding)
                    and position - 1 not in self._packets
                    and position > self._since
                ]
            start = max(keys)
        return [p for p in range(max(start, self._newest - MOST_PACKETS), self._newest) if p not in self._packets]

    def add(
        self, sequence_number: int, timestamp: int, marker: bool, starts: bool, data: bytes, now: float
    ) -> list[EncodedPicture]:
        """`data` without the payload descriptor, none in padding; `starts` is its S bit with partition 0."""
        position = self._place(sequence_number)
        if position is None:
            return []
        if len(self._packets) >= MOST_PACKETS:
            self._packets.clear()
            self.require_key_frame()
        self._packets[position] = _Packet(timestamp, marker, starts, data)
        return self._whole_pictures(now)

    def wait_over(self, now: float) -> None:
        """To be asked while nothing comes: `wants_key_frame` may have changed."""
        if self._waiting_since is not None and now - self._waiting_since > self.gap_wait_s:
            self.wants_key_frame = True

    def _place(self, sequence_number: int) -> int | None:
        """Its number counted on beyond 16 bits; None for one of the past, or that belongs to nothing known."""
        if self._newest is None:
            self._newest = self._since = sequence_number
            self._next = sequence_number - MOST_JUMP  # the first packets may come in another order
        position = self._newest + (sequence_number - self._newest + 2**15) % 2**16 - 2**15
        if abs(position - self._newest) >= MOST_JUMP:
            suspect, self._suspect = self._suspect, sequence_number
            if suspect is None or (sequence_number - suspect) % 2**16 != 1:
                return None
        else:
            self._suspect = None
            self._newest = max(self._newest, position)
            if position >= self._next:
                self._old_in_a_row = 0
                return position
            self._old_in_a_row += 1
            if self._old_in_a_row < OLD_IN_A_ROW:
                return None
        self.restart()
        return self._place(sequence_number)

    def _whole_pictures(self, now: float) -> list[EncodedPicture]:
        pictures: list[EncodedPicture] = []
        while True:
            if self._only_key and not self._skip_to_key_frame():
                return pictures
            while (packet := self._packets.get(self._next)) is not None and packet.is_padding:
                del self._packets[self._next]
                self._next += 1
            end = self._end_of_picture(self._next)
            if end is None:
                if not self._packets:
                    self._waiting_since = None
                    return pictures
                if self._is_under_way():
                    self._waiting_since = None
                    return pictures
                if self._skip_to_key_frame():
                    continue
                self._waiting_since = now if self._waiting_since is None else self._waiting_since
                if now - self._waiting_since > self.gap_wait_s:
                    self.wants_key_frame = True
                return pictures
            self._waiting_since = None
            self.wants_key_frame = False
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

    def _is_under_way(self) -> bool:
        """Whether nothing is missing of the next picture but its end."""
        first, last = self._packets.get(self._next), max(self._packets)
        if first is None or not first.starts or last - self._next + 1 != len(self._packets):
            return False
        return self._packets[last].timestamp == first.timestamp

    def _skip_to_key_frame(self) -> bool:
        """Moves on to the first whole key frame, if one is here."""
        for position in sorted(self._packets):
            if self._packets[position].key and self._end_of_picture(position) is not None:
                self._next = position
                for older in [p for p in self._packets if p < position]:
                    del self._packets[older]
                self._only_key = self.wants_key_frame = False
                return True
        return False

    def _take(self, end: int) -> EncodedPicture:
        packets = [self._packets.pop(position) for position in range(self._next, end + 1)]
        self._next = end + 1
        timestamp = packets[0].timestamp
        if self._last_timestamp is not None:
            step = (timestamp - self._last_timestamp + 2**31) % 2**32 - 2**31
            leaps = not 0 <= step <= MOST_STEP_MS * _VIDEO_CLOCK_PER_MS
            self._ticks += USUAL_STEP_MS * _VIDEO_CLOCK_PER_MS if leaps else step
        self._last_timestamp = timestamp
        return EncodedPicture(
            packets[0].key,
            self._ticks // _VIDEO_CLOCK_PER_MS,
            b"".join(packet.data for packet in packets),
            timestamp,
        )
