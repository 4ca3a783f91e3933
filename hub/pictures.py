"""What a picture's first bytes say of it, without decoding it: whether it is one that a browser may be given.

Pure. A few kilobytes can hold a picture of gigabytes; and what a kiosk calls a picture may be none.
"""

from __future__ import annotations

import struct
from typing import Literal

HEAD_BYTES = 256 * 1024  # a JPEG's EXIF data, before its size, have 64 KiB at most in each of a few segments
MAX_SIDE = 8192
MAX_PIXELS = 50_000_000  # 200 MB in a browser; the kit's own pictures have 5 million at most

Damage = Literal["", "no_picture", "too_large"]


def damage_of(head: bytes) -> Damage:
    """`head` is the file's beginning, `HEAD_BYTES` of it."""
    size = _size(head)
    if size is None or 0 in size:
        return "no_picture"
    width, height = size
    return "too_large" if max(size) > MAX_SIDE or width * height > MAX_PIXELS else ""


def _size(head: bytes) -> tuple[int, int] | None:
    try:
        if head.startswith(b"\xff\xd8\xff"):
            return _jpeg(head)
        if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
            return struct.unpack_from(">II", head, 16)
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return _webp(head)
    except (struct.error, IndexError):  # cut off
        pass
    return None


def _jpeg(head: bytes) -> tuple[int, int] | None:
    """ITU-T T.81, annex B: segments up to the frame's header."""
    at = 2
    while at < len(head):
        if head[at] != 0xFF:
            return None
        marker = head[at + 1]
        if marker == 0xFF:  # a byte that fills
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", head, at + 5)
            return width, height
        elif marker in (0xD8, 0xD9, 0xDA) or marker < 0xC0:
            return None
        else:
            at += 2 + max(2, struct.unpack_from(">H", head, at + 2)[0])
    return None


def _webp(head: bytes) -> tuple[int, int] | None:
    """RFC 9649. One that moves is no photo."""
    kind = head[12:16]
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and head[20] == 0x2F:
        bits = struct.unpack_from("<I", head, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and not head[20] & 0x02:
        sides = struct.unpack_from("<6B", head, 24)
        return sum(sides[n] << 8 * n for n in range(3)) + 1, sum(sides[n + 3] << 8 * n for n in range(3)) + 1
    return None
