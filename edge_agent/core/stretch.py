"""Time-stretching of speech by one period at a time (waveform similarity, WSOLA): shorter or longer, at the same pitch.

Pure. The period is the shift at which the sound is most like itself; the seam is a cross-fade over the whole of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SAMPLES_PER_MS = 48
LEAST_PERIOD = 120  # 2.5 ms: a child's voice
MOST_PERIOD = 720  # 15 ms: a deep one
NEEDED_SAMPLES = 2 * MOST_PERIOD

_THIN = 8  # the search is done at 6 kHz, then refined
_TEMPLATE = 80  # thinned samples: 13 ms

Samples = NDArray[np.int16]


class Period(NamedTuple):
    samples: int
    likeness: float  # of one period to the next, -1 to 1


def find_period(sound: Samples) -> Period:
    """Of the first NEEDED_SAMPLES of `sound`, which must be as many."""
    wide = sound[:NEEDED_SAMPLES].astype(np.float32)
    thin = wide.reshape(-1, _THIN).mean(axis=1)
    coarse, _ = _best(thin, _TEMPLATE, LEAST_PERIOD // _THIN, MOST_PERIOD // _THIN)
    around = coarse * _THIN
    fine, _ = _best(wide, 480, max(LEAST_PERIOD, around - _THIN), min(MOST_PERIOD, around + _THIN))
    one, other = wide[:fine], wide[fine : 2 * fine]
    return Period(fine, float(one @ other / np.sqrt((one @ one + 1.0) * (other @ other + 1.0))))


def shorten(sound: Samples, period: int) -> Samples:
    """Without one period: the first two become one."""
    return np.concatenate([_cross_fade(sound[:period], sound[period : 2 * period]), sound[2 * period :]])


def lengthen(sound: Samples, period: int) -> Samples:
    """With one period more, between the first and the second."""
    return np.concatenate(
        [sound[:period], _cross_fade(sound[period : 2 * period], sound[:period]), sound[period:]]
    )  # fmt: skip


def _best(sound: NDArray[np.float32], width: int, least: int, most: int) -> tuple[int, float]:
    windows = np.lib.stride_tricks.sliding_window_view(sound[: most + width], width)[least : most + 1]
    template = sound[:width]
    likeness = windows @ template / np.sqrt(np.einsum("ij,ij->i", windows, windows) * (template @ template) + 1.0)
    best = int(np.argmax(likeness))
    return least + best, float(likeness[best])


def _cross_fade(out: Samples, into: Samples) -> Samples:
    ramp = np.linspace(0.0, 1.0, len(out), dtype=np.float32)
    return np.rint(out + (into.astype(np.float32) - out) * ramp).astype(np.int16)
