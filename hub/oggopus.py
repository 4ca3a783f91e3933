"""Opus packets in an Ogg file (RFC 3533, RFC 7845): what was said in turns, as a voice note that anything plays.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from edge_agent.core.opuspacket import SAMPLES_PER_MS, duration_samples

MIME = "audio/ogg"
_SERIAL = 1
_SKIPPED_SAMPLES = 312  # that libopus needs to get going; decoders leave them out
_LACING = 255
_PAGE_SEGMENTS = 200  # of the 255 that there may be: whole packets only
_FIRST, _LAST = 2, 4


def wrap(packets: Sequence[bytes]) -> tuple[bytes, int]:
    """The file, and how long it sounds in milliseconds. What is no Opus is left out."""
    packets = [packet for packet in packets if duration_samples(packet)]
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, _SKIPPED_SAMPLES, 48_000, 0, 0)
    tags = b"OpusTags" + struct.pack("<I", 0) + struct.pack("<I", 0)
    pages = [_page(0, 0, _FIRST, [head]), _page(1, 0, 0, [tags])]
    position = 0
    groups = list(_groups(packets))
    for number, group in enumerate(groups):
        position += sum(duration_samples(packet) for packet in group)
        flags = _LAST if number == len(groups) - 1 else 0
        pages.append(_page(number + 2, position, flags, group))
    return b"".join(pages), position // SAMPLES_PER_MS


def _groups(packets: Sequence[bytes]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    segments = 0
    for packet in packets:
        needs = len(packet) // _LACING + 1
        if group and segments + needs > _PAGE_SEGMENTS:
            yield group
            group, segments = [], 0
        group.append(packet)
        segments += needs
    if group:
        yield group


def _page(number: int, position: int, flags: int, packets: Sequence[bytes]) -> bytes:
    lacing = b"".join(
        bytes([_LACING]) * (len(packet) // _LACING) + bytes([len(packet) % _LACING]) for packet in packets
    )
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, position, _SERIAL, number, 0)
    page = bytearray(head + bytes([len(lacing)]) + lacing + b"".join(packets))
    page[22:26] = struct.pack("<I", _checksum(page))
    return bytes(page)


def _checksum(data: bytes) -> int:
    """RFC 3533, section 6: a CRC of 32 bits, not reflected."""
    value = 0
    for byte in data:
        value = (value << 8 & 0xFFFFFFFF) ^ _TABLE[value >> 24 ^ byte]
    return value


def _table() -> list[int]:
    rows = []
    for row in range(256):
        value = row << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
        rows.append(value)
    return rows


_TABLE = _table()
