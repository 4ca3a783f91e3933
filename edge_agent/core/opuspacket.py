"""What an Opus packet says of itself before it is decoded (RFC 6716, section 3): how long it is, what it protects.

Pure: bytes in. Nothing here raises; bytes that are no Opus last 0 samples.
"""

from __future__ import annotations

SAMPLES_PER_MS = 48  # Opus counts at 48 kHz whatever it codes
MOST_SAMPLES = 120 * SAMPLES_PER_MS
DTX_BYTES = 2  # a packet this short is a pause: a table of contents and no sound

_SILK = (480, 960, 1920, 2880)  # configurations 0 to 11, in fours
_HYBRID = (480, 960)  # 12 to 15, in twos
_CELT = (120, 240, 480, 960)  # 16 to 31, in fours


def duration_samples(packet: bytes) -> int:
    """At 48 kHz; 0 for what is no Opus."""
    if not packet:
        return 0
    samples = _frame_samples(packet[0]) * _frames(packet)
    return samples if samples <= MOST_SAMPLES else 0


def is_pause(packet: bytes) -> bool:
    """What a coder with DTX sends when nobody talks."""
    return 0 < len(packet) <= DTX_BYTES


def has_fec(packet: bytes) -> bool:
    """Whether it carries a coarse copy of the frame before it (LBRR, section 2.1.7). CELT never does."""
    if len(packet) <= DTX_BYTES or packet[0] >= 16 << 3:
        return False
    frames = _frames(packet)
    start = _first_frame_at(packet)
    if not frames or start >= len(packet):
        return False
    # A frame of 40 or 60 ms holds two or three of SILK's, each with a voice-activity bit; the LBRR bit stands after
    # them. All are of even odds, so the range coder leaves them readable.
    silk_frames = max(1, _frame_samples(packet[0]) // 960)
    return bool(packet[start] >> (7 - silk_frames) & 1)


def _frame_samples(toc: int) -> int:
    configuration = toc >> 3
    if configuration < 12:
        return _SILK[configuration & 3]
    if configuration < 16:
        return _HYBRID[configuration & 1]
    return _CELT[configuration & 3]


def _frames(packet: bytes) -> int:
    code = packet[0] & 3
    if code < 3:
        return 1 if code == 0 else 2
    return packet[1] & 0x3F if len(packet) > 1 else 0


def _first_frame_at(packet: bytes) -> int:
    """Index of the first frame's first byte (section 3.2)."""
    code = packet[0] & 3
    if code in (0, 1):
        return 1
    if code == 2:
        return 1 + _length_bytes(packet, 1)
    at = 2
    if packet[1] & 0x40:  # padding, whose length may be told in several bytes
        while at < len(packet) and packet[at] == 255:
            at += 1
        at += 1
    if packet[1] & 0x80:  # frames of different lengths, all but the last one told
        for _ in range(_frames(packet) - 1):
            at += _length_bytes(packet, at)
    return at


def _length_bytes(packet: bytes, at: int) -> int:
    return 2 if at < len(packet) and packet[at] >= 252 else 1
