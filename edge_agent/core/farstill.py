"""A still of the far end's camera that comes over a data channel, where the link is too thin for moving pictures.

Pure. A browser's video encoder makes of a still one key frame of some kilobytes in a burst, which stands before its
own voice. So the doctor's page (`hub/static/js/still.js`) makes a WebP of it, takes out the key frame of VP8 that a
lossy one is (RFC 9649), and sends that in small messages at the pace that it is told. Each is a head and some of the
frame's bytes: still (a byte), offset and length of the whole (two bytes each, big-endian).
"""

from __future__ import annotations

import struct

MOST_BYTES = 3_000  # of a still: 1 s of a link of 24 kbit/s
MOST_WIDTH, MOST_HEIGHT = 640, 480

_HEAD = struct.Struct("!BHH")
_FRAME = struct.Struct("<3s3sHH")  # tag, start code, width and height with two bits of scale each


class StillError(ValueError):
    """What came is no still."""


class StillAssembler:
    """One still at a time: a new one takes the place of what there is of the last."""

    def __init__(self) -> None:
        self._still = -1
        self._data = bytearray()
        self._length = 0

    def drop(self) -> None:
        self._still = -1
        self._data.clear()

    def add(self, message: bytes) -> bytes | None:
        """The key frame of VP8, with the last message of its still. The channel is reliable and in order, so what does
        not follow what came before belongs to a still that was given up. Raises StillError."""
        if len(message) <= _HEAD.size:
            raise StillError(f"a message of {len(message)} bytes")
        still, offset, length = _HEAD.unpack_from(message)
        piece = message[_HEAD.size :]
        if length > MOST_BYTES or offset + len(piece) > length:
            self.drop()
            raise StillError(f"{len(piece)} bytes at {offset} of {length}, at most are {MOST_BYTES}")
        if offset == 0:
            self._still, self._length = still, length
            self._data.clear()
        if (still, offset, length) != (self._still, len(self._data), self._length):
            self.drop()
            return None
        self._data += piece
        if len(self._data) < length:
            return None
        frame = bytes(self._data)
        self.drop()
        check_key_frame(frame)
        return frame


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
