"""What the loudspeaker played, read again at the microphone's pace: the reference of the echo canceller.

Pure. Two sound cards have two clocks, some ten millionths apart; so it is read between the samples, each block a little
faster or slower, as the canceller's `Timing` asks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hardware.api import SAMPLE_RATE_HZ

Sound = NDArray[np.float32]  # mono, 48 kHz, 1.0 is full scale

LEAD_SAMPLES = 20 * SAMPLE_RATE_HZ // 1000  # kept ready: callbacks of two devices do not come in turn
MOST_SAMPLES = 200 * SAMPLE_RATE_HZ // 1000  # the microphone stood still: older sound is of no use
LATE_SAMPLES = 100 * SAMPLE_RATE_HZ // 1000  # a callback may come late; after this the loudspeaker is closed

_EDGE = 2  # samples on each side that reading between samples needs


class PlayedSound:
    def __init__(self) -> None:
        self._samples: Sound = np.zeros(0, np.float32)
        self._position = 0.0  # of the next sample to read, in `_samples`; past its end while a callback is late
        self._running = False
        self.starts = 0  # how often the two devices' timing has been a new one

    def add(self, samples: Sound) -> None:
        """What the loudspeaker has taken, silence included."""
        self._samples = np.concatenate([self._samples, samples])
        if len(self._samples) - self._position > MOST_SAMPLES:
            self._running = False
            self._samples = self._samples[-MOST_SAMPLES:]

    def is_late(self, count: int, speed: float, shift: float) -> bool:
        """Whether a callback is: what `read` would give is not there yet, but may come."""
        return self._running and self._end(count, speed, shift) > len(self._samples)

    def read(self, count: int, speed: float, shift: float) -> Sound:
        """The next `count` samples of the microphone's time: `shift` samples further on, then `speed` of the
        loudspeaker's for one of the microphone's. Silence where nothing is played."""
        if not self._running:
            start = len(self._samples) - count - LEAD_SAMPLES
            if start < 0:
                return np.zeros(count, np.float32)
            self._position, self._running = float(start), True
            self.starts += 1
        begin = max(float(_EDGE), self._position + shift)
        late = self._end(count, speed, shift) - len(self._samples)
        self._position = begin + count * speed
        if late > 0:
            if late > LATE_SAMPLES:
                self._running = False
                self._samples = self._samples[:0]
            return np.zeros(count, np.float32)
        sound = _between(self._samples, begin + np.arange(count) * speed)
        done = int(self._position) - _EDGE
        self._samples, self._position = self._samples[done:], self._position - done
        return sound

    def _end(self, count: int, speed: float, shift: float) -> float:
        return max(float(_EDGE), self._position + shift) + count * speed + _EDGE


def _between(samples: Sound, at: NDArray[np.floating]) -> Sound:
    """Cubic interpolation (Lagrange, four points)."""
    whole = at.astype(np.int64)
    part = (at - whole).astype(np.float32)
    before, here, after, beyond = (samples[whole + offset] for offset in (-1, 0, 1, 2))
    less, more, most = part - 1, part + 1, part - 2
    sound = more * most * (less * here - part * after) / 2 + part * less * (more * beyond - most * before) / 6
    return sound.astype(np.float32, copy=False)
