"""A still of the far end's camera that comes over a data channel, where the link is too thin for moving pictures.

Pure. A browser's video encoder makes of a still one key frame of some kilobytes in a burst, which stands before its
own voice. So the doctor's page (`hub/static/js/still.js`) makes a WebP of it, takes out the key frame of VP8 that a
lossy one is (RFC 9649), and sends that in small messages at the pace that it is told. Each is a head and a piece of the
frame: still (a byte), offset and length of the whole (two bytes each, big-endian). The channel sends nothing again:
SCTP would pack all that was lost into one packet, longer than anything else. The kiosk asks for what it misses.
"""

from __future__ import annotations

import struct

MOST_BYTES = 3_000  # of a still: 1 s of a link of 24 kbit/s
PIECE_BYTES = 195  # of a message of 200: with its headers a tenth of a second of 24 kbit/s
MOST_WIDTH, MOST_HEIGHT = 640, 480

_HEAD = struct.Struct("!BHH")
_FRAME = struct.Struct("<3s3sHH")  # tag, start code, width and height with two bits of scale each


class StillError(ValueError):
    """What came is no still."""


class StillAssembler:
    """One still at a time: a newer one takes the place of what there is of the last."""

    def __init__(self) -> None:
        self.still = -1  # its number; -1: none yet
        self._pieces: dict[int, bytes] = {}
        self._length = 0
        self._news_at = self._asked_at = 0.0

    def add(self, message: bytes, now: float) -> bytes | None:
        """The key frame of VP8, with the last message of its still. Raises StillError."""
        if len(message) <= _HEAD.size:
            raise StillError(f"a message of {len(message)} bytes")
        still, offset, length = _HEAD.unpack_from(message)
        piece = message[_HEAD.size :]
        if length > MOST_BYTES or offset % PIECE_BYTES or len(piece) != min(PIECE_BYTES, length - offset):
            raise StillError(f"{len(piece)} bytes at {offset} of {length}, at most are {MOST_BYTES}")
        if self.still < 0 or 0 < (still - self.still) % 256 < 128:
            self.still, self._length, self._pieces = still, length, {}
            self._asked_at = now
        elif still != self.still or length != self._length:
            return None  # of one that was given up
        self._news_at = now
        count = -(-length // PIECE_BYTES)
        if len(self._pieces) == count:
            return None  # it is there
        self._pieces[offset // PIECE_BYTES] = piece
        if len(self._pieces) < count:
            return None
        frame = b"".join(self._pieces[number] for number in range(count))
        check_key_frame(frame)
        return frame

    def missing(self, now: float, wait_s: float) -> list[int]:
        """Which pieces to ask for now: those that others have overtaken, and all when none came for `wait_s`. No more
        often than that."""
        count = -(-self._length // PIECE_BYTES)
        if not 0 < len(self._pieces) < count or now - self._asked_at < wait_s:
            return []
        end = count if now - self._news_at >= wait_s else max(self._pieces)
        missing = [number for number in range(end) if number not in self._pieces]
        if missing:
            self._asked_at = now
        return missing


def check_key_frame(frame: bytes) -> None:
    """By its head (RFC 6386, 9.1): what comes of the rest is the decoder's to say. Raises StillError."""
    if len(frame) <= _FRAME.size:
        raise StillError("a key frame cut short")
    tag, start, width, height = _FRAME.unpack_from(frame)
    first = int.from_bytes(tag, "little")
    is_key, version, is_shown, first_partition_bytes = not first & 1, first >> 1 & 7, first >> 4 & 1, first >> 5
    if not is_key or version > 3 or not is_shown or start != b"\x9d\x01\x2a":
        raise StillError("no key frame of VP8")
    if first_partition_bytes > len(frame) - _FRAME.size:
        raise StillError("a key frame cut short")
    width, height = width & 0x3FFF, height & 0x3FFF  # without how it is to be scaled
    if not 0 < width <= MOST_WIDTH or not 0 < height <= MOST_HEIGHT:
        raise StillError(f"a picture of {width}×{height}, at most are {MOST_WIDTH}×{MOST_HEIGHT}")
