"""Redundant audio (RED, RFC 2198): a packet that carries older frames again before its own.

Pure: bytes in, blocks out, and back. What cannot be parsed raises RedError and nothing else. `Repeater` is the sending
side's memory: which frames go again with the one that is due.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from edge_agent.core import opuspacket

MOST_OFFSET = (1 << 14) - 1  # samples at 48 kHz: 341 ms, the furthest back that a block can point
MOST_BLOCK_BYTES = (1 << 10) - 1  # of an older frame; the packet's own may be of any length
MOST_BLOCKS = 32
REMEMBERED_FRAMES = 32  # of those sent
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


class Repeater:
    """Picks the older frames that travel with each frame, and the pauses that need not travel at all."""

    def __init__(self) -> None:
        self._coded: deque[tuple[int, bytes]] = deque(maxlen=REMEMBERED_FRAMES)  # position, frame; pauses too

    def older(self, position: int, frame: bytes, depth: int, distance: int) -> tuple[Older, ...] | None:
        """What goes with `frame`, oldest first; None where nothing need be sent.

        Of a pause (DTX) the first packet is sent, and those that still carry voice again: the last word before a
        pause is protected like any other.
        """
        again = [self._coded[-back] for back in range(distance, depth * distance + 1, distance)
                 if back <= len(self._coded)]  # fmt: skip
        copies = tuple(
            Older(position - at, copy)
            for at, copy in reversed(again)
            if not opuspacket.is_pause(copy) and 0 < position - at <= MOST_OFFSET
        )
        pausing = bool(self._coded) and opuspacket.is_pause(self._coded[-1][1])
        self._coded.append((position, frame))
        if pausing and not copies and opuspacket.is_pause(frame):
            return None
        return copies
