"""What the loudspeaker played, read again at the microphone's pace: the reference of the echo canceller.

Pure. Two sound cards have two clocks, some ten millionths apart; so it is read between the samples, each block a little
faster or slower, as the canceller's `Timing` asks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hardware.api import SAMPLE_RATE_HZ

Sound = NDArray[np.float32]  # mono, 48 kHz, 1.0 is full scale

LEAD_SAMPLES = 40 * SAMPLE_RATE_HZ // 1000  # kept ready: callbacks of two devices do not come in turn
MOST_SAMPLES = 200 * SAMPLE_RATE_HZ // 1000  # the microphone stood still: older sound is of no use

_EDGE = 2  # samples on each side that reading between samples needs


class PlayedSound:
    def __init__(self) -> None:
        self._samples: Sound = np.zeros(0, np.float32)
        self._position = 0.0  # of the next sample to read, in `_samples`
        self._running = False

    def add(self, samples: Sound) -> None:
        """What the loudspeaker has taken, silence included."""
        self._samples = np.concatenate([self._samples, samples])
        if len(self._samples) - self._position > MOST_SAMPLES:
            self._start()

    def read(self, count: int, speed: float, shift: float) -> Sound:
        """The next `count` samples of the microphone's time: `shift` samples further on, then `speed` of the
        loudspeaker's for one of the microphone's. Silence where nothing is played."""
        if not self._running:
            if len(self._samples) < LEAD_SAMPLES + count:
                return np.zeros(count, np.float32)
            self._start()
        begin = max(float(_EDGE), self._position + shift)
        if begin + count * speed + _EDGE > len(self._samples):
            self._running = False  # the loudspeaker is closed, or has run dry: its timing is a new one afterwards
            self._samples = np.zeros(0, np.float32)
            return np.zeros(count, np.float32)
        at = begin + np.arange(count) * speed
        self._position = begin + count * speed
        sound = _between(self._samples, at)
        done = int(self._position) - _EDGE
        self._samples, self._position = self._samples[done:], self._position - done
        return sound

    def _start(self) -> None:
        """From where as much stands ready as should."""
        self._position = max(float(_EDGE), float(len(self._samples) - 2 * LEAD_SAMPLES))
        self._running = True


def _between(samples: Sound, at: NDArray[np.float64]) -> Sound:
    """Cubic interpolation (Lagrange, four points)."""
    whole = at.astype(np.int64)
    part = (at - whole).astype(np.float32)
    before, here, after, beyond = (samples[whole + offset] for offset in (-1, 0, 1, 2))
    less, more, most = part - 1, part + 1, part - 2
    return (
        more * most * (less * here - part * after) / 2 + part * less * (more * beyond - most * before) / 6
    )  # fmt: skip
