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


_BANDS = np.unique(np.round(np.geomspace(1, _BINS, 24)).astype(int) - 1)[:-1]  # first bin of each
_WIDTHS = np.diff(np.append(_BANDS, _BINS))
_SPEECH = (_BANDS >= 8) & (_BANDS <= 320)  # 200 Hz to 8 kHz


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
    FIRST_LEAK = 0.03  # what stays of the power that the filter takes away: a loudspeaker is not quite linear
    LEAK_RISES, LEAK_FALLS = 1.012, 0.955  # a block: follows the lower fifth, for voices leave gaps
    TAIL = 0.6  # of the echo's power, after 20 ms
    ECHO_DB, VOICE_DB = 4.0, 9.0  # a band's power over what echo and noise explain: nobody speaks, somebody does
    RELEASE = 0.7  # a block
    ALONE, BOTH = (20.0, 0.03), (1.0, 0.2)  # so the echo left is taken that many times, and no gain is less

    def __init__(self) -> None:
        self._recent: Sound = np.zeros(_SIZE, np.float32)
        self._gain: Power = np.ones(_BINS, np.float32)
        self._clean: Power = np.zeros(_BINS, np.float32)
        self._echo: Power = np.zeros(_BINS, np.float32)
        self._leak: Power = np.full(len(_BANDS), self.FIRST_LEAK, np.float32)
        self._noise: Power = np.full(len(_BANDS), 1.0, np.float32)
        self._voice = 0.0
        self._old: Spectrum = self._response()
        ramp = np.ones(BLOCK_SAMPLES, np.float32)
        ramp[: self.LATENCY] = np.linspace(0, 1, self.LATENCY)
        self._ramp = ramp

    def process(self, filtered: Filtered) -> Sound:
        self._recent = np.concatenate([self._recent[BLOCK_SAMPLES:], filtered.rest])
        self._echo = np.maximum(_power(filtered.echo_spectrum), self.TAIL * self._echo)
        rest, echo = _by_band(filtered.rest_power), _by_band(self._echo)
        self._learn(rest, echo)
        explained = _by_band(filtered.doubt) + self._leak * echo + self._noise
        above_db = np.clip(10 * np.log10((rest + FLOOR) / explained), 0, 20)[_SPEECH].mean()
        voice = float(np.clip((above_db - self.ECHO_DB) / (self.VOICE_DB - self.ECHO_DB), 0, 1))
        self._voice = max(voice, self.RELEASE * self._voice)
        over, least = (alone + (both - alone) * self._voice for alone, both in zip(self.ALONE, self.BOTH, strict=True))
        left = over * (filtered.doubt + np.repeat(self._leak, _WIDTHS) * self._echo) + 1e-9
        prior = 0.6 * self._clean / left + 0.4 * np.maximum(filtered.rest_power / left - 1, 0)
        quiet = np.sqrt(np.minimum(1, self._noise / 2 / (rest + 1e-9)))  # the room's own noise stays
        self._gain = np.maximum(prior / (1 + prior), np.repeat(np.maximum(least, quiet), _WIDTHS))
        self._clean = self._gain**2 * filtered.rest_power
        response = self._response()
        spectrum = np.fft.rfft(self._recent)
        before, after = np.fft.irfft(spectrum * np.stack([self._old, response]), axis=1)[:, BLOCK_SAMPLES:]
        self._old = response
        return before + (after - before) * self._ramp

    def _learn(self, rest: Power, echo: Power) -> None:
        self._noise = np.minimum(self._noise * 1.01, rest + FLOOR)
        heard = echo * self._leak > self._noise
        change = np.where(rest > self._leak * echo, self.LEAK_RISES, self.LEAK_FALLS)
        self._leak = np.clip(np.where(heard, self._leak * change, self._leak), 1e-4, 1.0).astype(np.float32)

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


def _by_band(power: Power) -> Power:
    return np.add.reduceat(power, _BANDS)
