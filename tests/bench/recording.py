"""Sound with the time at which each piece of it was said or played, all on this machine's CLOCK_MONOTONIC.

Pieces are stamped when a program gets round to them; the sample clock behind them is even. `lay_out` puts them back
where they sounded: a piece that was stamped late does not move, a real pause becomes silence.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from tests.e2e.speech import SCORE_RATE_HZ

Samples = NDArray[np.int16]
_HEAD = struct.Struct("<dII")  # monotonic s, samples a second, samples
PROMPT_S = 1.0  # within this time some piece is stamped promptly
PAUSE_S = 0.015  # a step of the clock by more than this is a pause


class Piece(NamedTuple):
    at: float  # when its first sample was said or played
    rate: int
    samples: Samples


class Sound(NamedTuple):
    """Even and without holes, in narrow band, as it is scored."""

    start: float
    samples: NDArray[np.float64]  # SCORE_RATE_HZ

    def between(self, begin: float, end: float) -> NDArray[np.float64]:
        """Silence where nothing was recorded."""
        first = round((begin - self.start) * SCORE_RATE_HZ)
        count = round((end - begin) * SCORE_RATE_HZ)
        cut = np.zeros(count)
        low, high = max(0, first), min(len(self.samples), first + count)
        if low < high:
            cut[low - first : high - first] = self.samples[low:high]
        return cut


SILENCE = Sound(0.0, np.zeros(0))


class PieceWriter:
    """Appends to a file, from any thread. What a killed process leaves can be read."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()

    def write(self, at: float, rate: int, samples: Samples) -> None:
        with self._lock:
            self._file.write(_HEAD.pack(at, rate, len(samples)) + samples.astype("<i2").tobytes())


def read_pieces(path: Path) -> list[Piece]:
    return read_pieces_from(path, 0)[0]


def read_pieces_from(path: Path, start: int) -> tuple[list[Piece], int]:
    """The whole ones from that byte on, and the byte behind them."""
    if not path.exists():
        return [], start
    with path.open("rb") as file:
        file.seek(start)
        data = file.read()
    pieces, offset = [], 0
    while offset + _HEAD.size <= len(data):
        at, rate, count = _HEAD.unpack_from(data, offset)
        if offset + _HEAD.size + 2 * count > len(data):
            break
        pieces.append(Piece(at, rate, np.frombuffer(data, "<i2", count, offset + _HEAD.size)))
        offset += _HEAD.size + 2 * count
    return pieces, start + offset


def lay_out(pieces: Sequence[Piece]) -> Sound:
    """One even stretch of sound. Pieces of another rate than most (a device that was still settling) are left out."""
    if not pieces:
        return SILENCE
    rates = [piece.rate for piece in pieces]
    rate = max(set(rates), key=rates.count)
    pieces = [piece for piece in pieces if piece.rate == rate]
    counts = np.array([len(piece.samples) for piece in pieces])
    stamps = np.array([piece.at for piece in pieces])
    media = (np.cumsum(counts) - counts) / rate
    # A piece is late by itself when a following one is not; when all that follow are, the sound had paused.
    following = round(PROMPT_S * rate / float(counts.mean()))
    lateness = np.pad(stamps - media, (0, following), mode="edge")
    offsets = np.lib.stride_tricks.sliding_window_view(lateness, following + 1).min(axis=1)
    start = float(offsets[0] + media[0])
    whole = np.zeros(round((float((offsets + media).max()) - start + 2.0) * rate) + int(counts.max()), np.int16)
    cursor = 0
    for piece, position in zip(pieces, np.rint((offsets + media - start) * rate).astype(int), strict=True):
        if abs(position - cursor) > PAUSE_S * rate:
            cursor = int(position)
        end = cursor + len(piece.samples)
        whole[cursor:end] = piece.samples[: len(whole) - cursor]
        cursor = end
    divisor = int(np.gcd(SCORE_RATE_HZ, rate))
    return Sound(start, resample_poly(whole[:cursor].astype(np.float64), SCORE_RATE_HZ // divisor, rate // divisor))
