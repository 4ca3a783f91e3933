"""A picture that comes in rising quality over a data channel, a few hundred bytes at a time.

Pure. Each message is a head and some of one stage's bytes: photo, stage, number of stages (a byte each), offset and
length of the whole stage (four bytes each, big-endian). A stage is a picture of its own, which stands for those before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

_HEAD = struct.Struct("!BBBII")
AROUND_BYTES = 28 + 37 + 12 + 16 + _HEAD.size  # IP and UDP, DTLS, SCTP, its chunk, and the head
# The longest side of each stage, in pixels: what all is about, to be recognised, as sharp as it is.
SIDES = (160, 640, 4096)
STAGE_BYTES = (2_000, 12_000, 30_000)  # at most, on thin links
SHARPEST_S = 30.0  # of what the link has for it; the last stage may take so long
MOST_BYTES = 400_000


def most_bytes(stage: int, room_bps: float) -> int:
    """Of a stage, where the link has `room_bps` for it."""
    if stage < len(STAGE_BYTES) - 1:
        return STAGE_BYTES[stage]
    return max(STAGE_BYTES[-1], min(MOST_BYTES, int(room_bps * SHARPEST_S / 8)))


def messages(photo: int, stages: Sequence[bytes], longest_packet_bytes: int) -> Iterator[bytes]:
    """In packets of no more than that on the wire."""
    room = max(64, longest_packet_bytes - AROUND_BYTES)
    for stage, data in enumerate(stages):
        for offset in range(0, len(data), room):
            head = _HEAD.pack(photo & 0xFF, stage, len(stages), offset, len(data))
            yield head + data[offset : offset + room]
