"""Takes the loudspeaker's sound out of the microphone's, so that the doctor does not hear himself a second late.

Pure: 20 ms as captured and 20 ms as played in, 20 ms without the echo out, 5 ms later. Three parts:

- `EchoFilter` learns how the room turns what is played into what is captured, and subtracts it: a partitioned-block
  frequency-domain Kalman filter (Enzner & Vary 2006; Kuech, Mabande & Enzner 2014). It knows how unsure it is of each
  frequency, so a voice in the room does not lead it astray, and no detector of double talk is needed.
- `Timing` follows the two devices' clocks: how fast the reference must be read so that the filter may stand still.
- `Suppressor` turns down what the filter left, by how much it says it may have left: little when somebody speaks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_agent.core.played import Sound
from hardware.api import BLOCK_SAMPLES

Spectrum = NDArray[np.complex64]
Power = NDArray[np.float32]

PARTITIONS = 20  # of 20 ms each: what echo may take, devices and room together
FORGETTING = 0.9998  # a block: rooms change slowly
FIRST_DOUBT = 0.1  # variance of the unknown room in the first 20 ms; each later 20 ms has
DOUBT_DECAY = 0.9  # of the one before
FLOOR = 1e-6  # of a frequency's power, against division by nothing
QUIET = 1e-5  # peak of a reference that is silence

_SIZE = 2 * BLOCK_SAMPLES
_BINS = BLOCK_SAMPLES + 1
_ZEROS: Sound = np.zeros(BLOCK_SAMPLES, np.float32)
_OMEGA: Power = (2 * np.pi * np.arange(_BINS) / _SIZE).astype(np.float32)  # radians a sample


class EchoCanceller:
    """One microphone and what is played beside it. One thread at a time."""

    def __init__(self) -> None:
        self._filter = EchoFilter()
        self.timing = Timing()
        self._suppressor = Suppressor()

    def process(self, captured: Sound, reference: Sound) -> Sound:
        filtered = self._filter.process(captured, reference)
        self.timing.learn(filtered, captured)
        return self._suppressor.process(filtered)


class Filtered:
    """A block after the filter, in time and frequency."""

    def __init__(self, rest: Sound, echo: Sound, doubt: Power) -> None:
        self.rest, self.echo = rest, echo  # what is left, and what was taken away
        self.rest_spectrum = _spectrum(rest)
        self.echo_spectrum = _spectrum(echo)
        self.rest_power = _power(self.rest_spectrum)
        self.doubt = doubt  # power of the echo that may be left


class EchoFilter:
    def __init__(self) -> None:
        shape = (PARTITIONS, _BINS)
        self._recent: Sound = np.zeros(_SIZE, np.float32)
        self._played: Spectrum = np.zeros(shape, np.complex64)
        self._played_power: Power = np.zeros(shape, np.float32)
        self._room: Spectrum = np.zeros(shape, np.complex64)
        self._doubt: Power = np.zeros(shape, np.float32)
        self._near: Power = np.full(_BINS, 1e-3, np.float32)
        self._silent_blocks = PARTITIONS + 1
        self.forget()

    def forget(self) -> None:
        """The room is a new one."""
        self._room[:] = 0
        self._doubt[:] = FIRST_DOUBT * DOUBT_DECAY ** np.arange(PARTITIONS, dtype=np.float32)[:, np.newaxis]

    def process(self, captured: Sound, reference: Sound) -> Filtered:
        self._recent = np.concatenate([self._recent[BLOCK_SAMPLES:], reference])
        played = np.fft.rfft(self._recent)
        self._played[1:] = self._played[:-1]
        self._played_power[1:] = self._played_power[:-1]
        self._played[0], self._played_power[0] = played, _power(played)
        echo = np.fft.irfft((self._played * self._room).sum(axis=0))[BLOCK_SAMPLES:]
        doubt = (self._played_power * self._doubt).sum(axis=0)
        filtered = Filtered(captured - echo, echo, doubt / 2)
        self._learn(filtered, doubt)
        return filtered

    def _learn(self, filtered: Filtered, doubt: Power) -> None:
        near = np.maximum(filtered.rest_power - filtered.doubt, 0)
        self._near = (self._near + near) / 2
        gain = self._doubt / (doubt + 2 * np.maximum(self._near, near) + 2 * FLOOR)
        change = np.fft.irfft(gain * np.conj(self._played) * filtered.rest_spectrum, axis=1)
        change[:, BLOCK_SAMPLES:] = 0  # each partition is 20 ms long
        self._room += np.fft.rfft(change, axis=1)
        self._doubt *= 1 - gain * self._played_power / 2
        self._doubt *= FORGETTING**2
        self._doubt += (1 - FORGETTING**2) * _power(self._room)


class Timing:
    """A delay-locked loop: what the filter left, compared with the slope of what it took away, tells by how much the
    room's sound comes later than the filter thinks."""

    MOST = 300e-6
    TRUST = 100.0  # of a block whose delay is known to ± 0.1 sample
    SHIFT = 0.4  # of the delay found, made good at once
    FIRST, LAST = 0.1, 0.003  # and by a change of speed: at first, and at the end
    SETTLE_BLOCKS = 30

    def __init__(self) -> None:
        self.drift = 0.0  # how much faster the loudspeaker's clock is, as the reference is read
        self.shift = 0.0  # samples to step on, once
        self._settled = 0.0
        self._left = np.full(_BINS, 1e-3, np.float32)
        self._cancelled = 0.0

    def learn(self, filtered: Filtered, captured: Sound) -> None:
        self._left = 0.8 * self._left + 0.2 * filtered.rest_power
        weight = 1 / (np.maximum(self._left, filtered.rest_power) + 1e-4)
        slope = _OMEGA * filtered.echo_spectrum
        known = float((_power(slope) * weight).sum())
        seen = -float((np.imag(filtered.rest_spectrum * np.conj(slope)) * weight).sum())
        share = 1 - float(np.dot(filtered.rest, filtered.rest)) / max(1e-9, float(np.dot(captured, captured)))
        self._cancelled = 0.9 * self._cancelled + 0.1 * max(0.0, share)
        trust = self._cancelled**2 * known / (known + self.TRUST)
        late = seen / max(known, 1e-3) * trust
        self._settled += trust
        speed = max(self.LAST, self.FIRST / (1 + self._settled / self.SETTLE_BLOCKS))
        self.drift = float(np.clip(self.drift - speed * late / BLOCK_SAMPLES, -self.MOST, self.MOST))
        self.shift = -self.SHIFT * late


class Suppressor:
    LATENCY = 240  # samples; half the length of its filter
    LEAST = 0.1  # gain
    LEAK = 0.01  # power of the echo taken away that is left besides
    TAIL = 0.6

    def __init__(self) -> None:
        self._recent: Sound = np.zeros(_SIZE, np.float32)
        self._gain: Power = np.ones(_BINS, np.float32)
        self._clean: Power = np.zeros(_BINS, np.float32)
        self._echo: Power = np.zeros(_BINS, np.float32)
        self._old: Spectrum = self._response()
        ramp = np.ones(BLOCK_SAMPLES, np.float32)
        ramp[: self.LATENCY] = np.linspace(0, 1, self.LATENCY)
        self._ramp = ramp

    def process(self, filtered: Filtered) -> Sound:
        self._recent = np.concatenate([self._recent[BLOCK_SAMPLES:], filtered.rest])
        self._echo = np.maximum(_power(filtered.echo_spectrum), self.TAIL * self._echo)
        left = filtered.doubt + self.LEAK * self._echo + 1e-9
        ratio = filtered.rest_power / left
        prior = 0.6 * self._clean / left + 0.4 * np.maximum(ratio - 1, 0)
        self._gain = np.maximum(prior / (1 + prior), self.LEAST)
        self._clean = self._gain**2 * filtered.rest_power
        response = self._response()
        spectrum = np.fft.rfft(self._recent)
        before, after = np.fft.irfft(spectrum * np.stack([self._old, response]), axis=1)[:, BLOCK_SAMPLES:]
        self._old = response
        return before + (after - before) * self._ramp

    def _response(self) -> Spectrum:
        """The gain as a causal filter of 2 × LATENCY + 1 samples."""
        impulse = np.fft.irfft(self._gain)
        taps = 2 * self.LATENCY + 1
        causal = np.roll(impulse, self.LATENCY)[:taps] * np.hanning(taps + 2)[1:-1].astype(np.float32)
        return np.fft.rfft(causal, _SIZE)


def _spectrum(block: Sound) -> Spectrum:
    return np.fft.rfft(np.concatenate([_ZEROS, block]))


def _power(spectrum: Spectrum) -> Power:
    return np.square(spectrum.real) + np.square(spectrum.imag)
