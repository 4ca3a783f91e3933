"""Redundant audio (RED, RFC 2198): a packet that carries older frames again before its own.

Pure: bytes in, blocks out, and back. What cannot be parsed raises RedError and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MOST_OFFSET = (1 << 14) - 1  # samples at 48 kHz: 341 ms, the furthest back that a block can point
MOST_BLOCK_BYTES = (1 << 10) - 1  # of an older frame; the packet's own may be of any length
MOST_BLOCKS = 32
HEADER_BYTES = 4  # for each older frame; the packet's own costs one byte


class RedError(ValueError):
    """Not a RED payload."""


class Older(NamedTuple):
    """A frame carried again."""

    offset: int  # samples before the packet's own timestamp
    payload: bytes


class Red(NamedTuple):
    payload_type: int  # of the packet's own frame
    payload: bytes
    older: tuple[Older, ...]  # oldest first, as they stand in the packet


def parse(data: bytes) -> Red:
    """Older frames of another payload type than the packet's own, and empty ones, are left out."""
    headers: list[tuple[int, int, int]] = []  # payload type, offset, length
    at = 0
    while True:
        if at >= len(data):
            raise RedError("RED without a last header")
        if not data[at] & 0x80:
            break
        if at + HEADER_BYTES > len(data):
            raise RedError("RED with half a header")
        bits = int.from_bytes(data[at + 1 : at + HEADER_BYTES], "big")
        headers.append((data[at] & 0x7F, bits >> 10, bits & MOST_BLOCK_BYTES))
        if len(headers) > MOST_BLOCKS:
            raise RedError(f"RED with more than {MOST_BLOCKS} older frames")
        at += HEADER_BYTES
    own = data[at] & 0x7F
    at += 1
    if at + sum(length for _, _, length in headers) > len(data):
        raise RedError("RED that is cut short")
    older = []
    for payload_type, offset, length in headers:
        if payload_type == own and length:
            older.append(Older(offset, data[at : at + length]))
        at += length
    return Red(own, data[at:], tuple(older))


def build(payload_type: int, payload: bytes, older: Sequence[Older] = ()) -> bytes:
    """`older`, oldest first. One that is too long or too far back to be told is left out."""
    fits = [
        block for block in older if 0 <= block.offset <= MOST_OFFSET and 0 < len(block.payload) <= MOST_BLOCK_BYTES
    ][-MOST_BLOCKS:]
    parts = [
        bytes([0x80 | payload_type]) + (block.offset << 10 | len(block.payload)).to_bytes(3, "big") for block in fits
    ]
    parts.append(bytes([payload_type]))
    parts += [block.payload for block in fits]
    return b"".join(parts) + payload
