"""Takes the loudspeaker's sound out of the microphone's, so that the doctor does not hear himself a second late.

Pure: 20 ms as captured and 20 ms as played in, the same 20 ms without the echo out. Four parts:

- `Delay` finds how much later the room's sound comes than what is played: devices and sound server take their time.
- `EchoFilter` learns how the room turns what is played into what is captured, and subtracts it: a partitioned-block
  frequency-domain Kalman filter (Enzner & Vary 2006; Kuech, Mabande & Enzner 2014). It knows how unsure it is of each
  frequency, so a voice in the room does not lead it astray, and no detector of double talk is needed. It is slow to
  believe in another room; a second one, coarse and quick, tells it when there is one.
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

PARTITIONS = 12  # of 20 ms each: what the room's echo may take
DELAYS = 20  # so many blocks late the devices may be
HISTORY = DELAYS + PARTITIONS
TURNS = 6  # blocks, until all partitions have been tidied once
FIRST_DOUBT = 0.1  # variance of the unknown room in the first 20 ms; each later 20 ms has
DOUBT_DECAY = 0.9  # of the one before
FLOOR = 1e-7  # of a frequency's power: far below any microphone's noise
QUIET = 3e-5  # peak of a reference that is silence, one step of 16 bits

EMPHASIS = (
    0.9  # of the sample before is taken away: or the edges of what is low hide what is high, and it is not learnt
)

FORGETTING, QUICK_FORGETTING = 0.9998, 0.97  # a block: rooms change slowly, and sometimes at once
SPREAD, QUICK_SPREAD = 0.03, 1.0  # of the room's mean power: what may come up where there was nothing, meanwhile
QUICK_BLOCK = BLOCK_SAMPLES // 6  # samples of 20 ms at 8 kHz: where the voice is, at a sixth of the work
QUICK_IS_BETTER = 0.5  # of what the slow one leaves
QUICK_KEPT = 0.9  # of each power, after a block

_SIZE = 2 * BLOCK_SAMPLES
_BINS = BLOCK_SAMPLES + 1
_QUICK_BINS = QUICK_BLOCK + 1
_LOW_SCALE = np.float32(QUICK_BLOCK / BLOCK_SAMPLES)  # of a spectrum, from 48 to 8 kHz
_OMEGA: Power = (2 * np.pi * np.arange(_BINS) / _SIZE).astype(np.float32)  # radians a sample


class EchoCanceller:
    """One microphone and what is played beside it. One thread at a time."""

    def __init__(self, pace: float = 1.0) -> None:
        """`pace`: the `Timing`'s, where it is known of these two devices."""
        self.timing = Timing(pace)
        self._delay = Delay()
        self._recent: Sound = np.zeros((2, _SIZE), np.float32)  # captured, played; emphasised as all that follows
        self._last: Sound = np.zeros(2, np.float32)
        self._played: Spectrum = np.zeros((3 * HISTORY, _BINS), np.complex64)  # HISTORY of them from the newest on
        self._newest = 2 * HISTORY
        self._filter = EchoFilter(BLOCK_SAMPLES, FORGETTING, SPREAD)
        self._quick = EchoFilter(QUICK_BLOCK, QUICK_FORGETTING, QUICK_SPREAD)
        self._slow_left = self._quick_left = self._low = 0.0
        self._suppressor = Suppressor()
        self._silent_blocks = HISTORY

    @property
    def voice(self) -> float:
        """How likely it is, 0 to 1, that somebody in the room spoke in the last block."""
        return self._suppressor.voice

    def process(self, captured: Sound, reference: Sound) -> Sound:
        """Both BLOCK_SAMPLES long, of the same 20 ms; full scale is 1.0."""
        heard = self._emphasised(captured, reference)
        self._silent_blocks = 0 if np.abs(reference).max() > QUIET else self._silent_blocks + 1
        if self._silent_blocks > HISTORY:  # nothing that could echo
            self.timing.shift = 0.0
            nothing = np.zeros(BLOCK_SAMPLES, np.float32)
            return self._suppressor.process(Filtered(heard, nothing, np.zeros(_BINS, np.float32)))
        if self._newest == 0:
            self._newest = 2 * HISTORY
            self._played[self._newest :] = self._played[:HISTORY]
        self._newest -= 1
        captured_spectrum, self._played[self._newest] = _forward(self._recent)
        captured_low = _back(captured_spectrum[:_QUICK_BINS] * _LOW_SCALE)[QUICK_BLOCK:]
        if self._delay.learn(captured_low, self._played[self._newest, :_QUICK_BINS]):
            self._filter.forget()
            self._quick.forget()
        begin = self._newest + self._delay.blocks
        played = self._played[begin : begin + PARTITIONS]
        filtered = self._filter.process(heard, played)
        quick = self._quick.process(captured_low, played[:, :_QUICK_BINS] * _LOW_SCALE)
        if self._room_is_new(filtered, quick, captured_low):
            self._filter.forget()
            self._filter.learn_from(self._quick)
            filtered = self._filter.process(heard, played)
        self.timing.learn(filtered, heard)
        return self._suppressor.process(filtered)

    def _emphasised(self, captured: Sound, reference: Sound) -> Sound:
        """Steps on; what was captured, as `_recent` has it."""
        self._recent[:, :BLOCK_SAMPLES] = self._recent[:, BLOCK_SAMPLES:]
        both = np.stack([captured, reference])
        self._recent[:, BLOCK_SAMPLES:] = both
        self._recent[:, BLOCK_SAMPLES + 1 :] -= EMPHASIS * both[:, :-1]
        self._recent[:, BLOCK_SAMPLES] -= EMPHASIS * self._last
        self._last = both[:, -1]
        return self._recent[0, BLOCK_SAMPLES:]

    def _room_is_new(self, slow: Filtered, quick: Filtered, captured: Sound) -> bool:
        left = float(slow.rest_power[:_QUICK_BINS].sum() * _LOW_SCALE**2)
        self._slow_left = QUICK_KEPT * self._slow_left + (1 - QUICK_KEPT) * left
        self._quick_left = QUICK_KEPT * self._quick_left + (1 - QUICK_KEPT) * float(quick.rest_power.sum())
        self._low = QUICK_KEPT * self._low + (1 - QUICK_KEPT) * QUICK_BLOCK * float(np.dot(captured, captured))
        if self._quick_left > QUICK_IS_BETTER * min(self._slow_left, self._low):
            return False
        self._slow_left = self._quick_left = 0.0
        return True


class Delay:
    """Generalised cross-correlation (Knapp & Carter 1976) below 4 kHz: what both have in common, whatever their
    colour, adds up at one lag only, where the loudspeaker is heard first."""

    WHITENED = 0.9  # of each frequency's level, in dB, is made one
    KEPT = 0.98  # a block
    LOOKS_EVERY = 10  # blocks
    CLEAR = 9.0  # times the root mean square of all lags
    EARLY = QUICK_BLOCK // 5  # samples: the filter begins so much before

    def __init__(self) -> None:
        self.blocks = 0  # that the filter may begin later
        self._played: Spectrum = np.zeros((DELAYS, _QUICK_BINS), np.complex64)
        self._common: Spectrum = np.zeros((DELAYS, _QUICK_BINS), np.complex64)
        self._learnt_blocks = 0

    def learn(self, captured: Sound, played: Spectrum) -> bool:
        """Whether `blocks` is another now. The two at QUICK_BLOCK, `played` of the last two blocks as one."""
        self._played[1:] = self._played[:-1]
        self._played[0] = self._white(played * _LOW_SCALE)
        heard = self._white(_forward(np.concatenate([np.zeros_like(captured), captured])))
        self._common *= np.float32(self.KEPT)
        self._common += heard * np.conj(self._played)
        self._learnt_blocks += 1
        if self._learnt_blocks % self.LOOKS_EVERY:
            return False
        likely = np.abs(_back(self._common)[:, :QUICK_BLOCK]).ravel()
        lag = int(likely.argmax())
        if likely[lag] < self.CLEAR * np.sqrt(np.square(likely).mean()):
            return False
        if 0 <= lag - self.blocks * QUICK_BLOCK < 2 * QUICK_BLOCK:
            return False
        blocks = max(0, lag - self.EARLY) // QUICK_BLOCK
        before, self.blocks = self.blocks, blocks
        return blocks != before

    def _white(self, spectrum: Spectrum) -> Spectrum:
        white: Spectrum = spectrum / (np.abs(spectrum) ** np.float32(self.WHITENED) + np.float32(1e-3))
        return white


class Filtered:
    """A block after the filter, in time and frequency."""

    def __init__(self, rest: Sound, echo: Sound, doubt: Power) -> None:
        self.rest, self.echo = rest, echo  # what is left, and what was taken away
        both = np.zeros((2, 2 * len(rest)), np.float32)
        both[:, len(rest) :] = rest, echo
        self.rest_spectrum, self.echo_spectrum = _forward(both)
        self.rest_power = _power(self.rest_spectrum)
        self.doubt = doubt  # power of the echo that may be left


class EchoFilter:
    def __init__(self, block: int, forgetting: float, spread: float) -> None:
        shape = (PARTITIONS, block + 1)
        self._block = block
        self._kept, self._spread = np.float32(forgetting**2), np.float32(spread)
        self._room: Spectrum = np.zeros(shape, np.complex64)
        self._doubt: Power = np.zeros(shape, np.float32)
        self._first_doubt = FIRST_DOUBT * DOUBT_DECAY ** np.arange(PARTITIONS, dtype=np.float32)[:, np.newaxis]
        self._near: Power = np.full(block + 1, 1e-3, np.float32)
        self._turn = 0
        self.forget()

    def forget(self) -> None:
        self._room[:] = 0
        self._doubt[:] = self._first_doubt

    def learn_from(self, coarse: EchoFilter) -> None:
        """All that it knows of the lower frequencies."""
        self._room[:, : coarse._block + 1] = coarse._room
        self._doubt[:, : coarse._block + 1] = coarse._doubt

    def process(self, captured: Sound, played: Spectrum) -> Filtered:
        """`played`: for each partition, of its last two blocks as one."""
        echo = _back((played * self._room).sum(axis=0))[self._block :]
        doubts = _power(played)
        doubts *= self._doubt
        doubts /= 2  # half of a zero-padded block is nothing
        filtered = Filtered(captured - echo, echo, doubts.sum(axis=0))
        self._learn(filtered, played, doubts)
        return filtered

    def _learn(self, filtered: Filtered, played: Spectrum, doubts: Power) -> None:
        near = _smooth(np.maximum(filtered.rest_power - filtered.doubt, np.float32(0)))
        self._near += (near - self._near) / 2
        sure = np.float32(0.5) / (filtered.doubt + np.maximum(self._near, near) + np.float32(FLOOR))
        step = np.conj(played)
        step *= filtered.rest_spectrum * sure
        step *= self._doubt
        self._room += step
        doubts *= self._kept * sure
        self._doubt *= np.subtract(self._kept, doubts, out=doubts)
        self._turn = (self._turn + 1) % TURNS
        self._tidy(slice(self._turn, None, TURNS))

    def _tidy(self, some: slice) -> None:
        """What need not be done with all partitions each time: each is one block long, and the room may change."""
        rooms = _back(self._room[some])
        rooms[:, self._block :] = 0
        self._room[some] = _forward(rooms)
        power = _power(self._room[some])
        self._doubt[some] += TURNS * (1 - self._kept) * (power + self._spread * power.mean(axis=0))


class Timing:
    """A delay-locked loop: what the filter left, compared with the slope of what it took away, tells by how much the
    room's sound comes later than the filter thinks."""

    MOST = 300e-6  # crystals differ by less
    TRUST = 100.0  # is half for a block whose delay is known to ± 0.1 sample
    SHIFT = 0.2  # of the delay found, made good at once
    FIRST_SPEED, LAST_SPEED = 0.02, 0.01  # and of it, a block, by a change of pace: at first, and once that is known
    SETTLING_BLOCKS = 30

    def __init__(self, pace: float) -> None:
        self.pace = pace  # samples of the reference for one of the microphone
        self.shift = 0.0  # samples of the reference to step on, once
        self._settled_blocks = 0.0
        self._left: Power = np.full(_BINS, 1e-3, np.float32)
        self._cancelled = 0.0  # share of the captured power

    def learn(self, filtered: Filtered, captured: Sound) -> None:
        self._left = 0.8 * self._left + 0.2 * filtered.rest_power
        weight = 1 / (np.maximum(self._left, filtered.rest_power) + 10 * FLOOR)
        slope = _OMEGA * filtered.echo_spectrum
        known = float((_power(slope) * weight).sum())
        seen = -float((np.imag(filtered.rest_spectrum * np.conj(slope)) * weight).sum())
        left = float(np.dot(filtered.rest, filtered.rest)) / max(1e-9, float(np.dot(captured, captured)))
        self._cancelled = 0.9 * self._cancelled + 0.1 * max(0.0, 1 - left)
        trust = self._cancelled**2 * known / (known + self.TRUST)
        late = trust * seen / max(known, 1e-3)
        self._settled_blocks += trust
        speed = max(self.LAST_SPEED, self.FIRST_SPEED / (1 + self._settled_blocks / self.SETTLING_BLOCKS))
        drift = self.pace - 1 - speed * late / BLOCK_SAMPLES
        self.pace = 1 + min(self.MOST, max(-self.MOST, drift))
        self.shift = -self.SHIFT * late


_BANDS = np.unique(np.round(np.geomspace(1, _BINS, 24)).astype(int) - 1)[:-1]  # first bin of each
_WIDTHS = np.diff(np.append(_BANDS, _BINS))
_SPEECH = (_BANDS >= 8) & (_BANDS <= 320)  # 200 Hz to 8 kHz


_HALF_ROUND: Power = np.resize(np.array([1, -1], np.float32), _BINS)  # a block earlier, of two
_DEEMPHASIS: Spectrum = np.fft.rfft(EMPHASIS ** np.arange(_SIZE // 4), _SIZE).astype(np.complex64)


class Suppressor:
    """A Wiener filter against the echo that is left; of minimum phase, so that the voice need not wait for it."""

    TAPS = 480
    FADE = 240  # samples, from one block's filter to the next
    RIPPLES = 240  # of the gain over all frequencies, in decibels: finer ones are smoothed
    FIRST_LEAK = 0.03  # of the power that the filter takes away stays: a loudspeaker is not quite linear
    MOST_LEAK = 0.1
    LEAK_RISES, LEAK_FALLS = 1.012, 0.955  # a block: it follows the lower fifth, for voices leave gaps
    TAIL = 0.6  # of the echo's power, after 20 ms
    ECHO_DB, VOICE_DB = 4.0, 9.0  # a band's power over what echo and noise explain: nobody speaks, somebody does
    ALONE, BOTH = (20.0, 0.03), (1.0, 0.2)  # the echo left is taken for so many times more, and no gain is less
    RELEASE = 0.7  # of a voice's likelihood, after 20 ms

    def __init__(self) -> None:
        self._before: Spectrum = np.zeros(_BINS, np.complex64)  # of the last block, after the filter
        self._clean: Power = np.zeros(_BINS, np.float32)
        self._echo: Power = np.zeros(_BINS, np.float32)
        self._leak: Power = np.full(len(_BANDS), self.FIRST_LEAK, np.float32)
        self._noise: Power = np.ones(len(_BANDS), np.float32)
        self.voice = 0.0  # how likely somebody speaks, 0 to 1
        self._window: Sound = np.hanning(2 * self.TAPS + 1)[self.TAPS : -1].astype(np.float32)
        self._fold: Sound = np.zeros(BLOCK_SAMPLES, np.float32)
        self._fold[: self.RIPPLES] = 2 * np.hanning(2 * self.RIPPLES + 1)[self.RIPPLES : -1]
        self._fold[0] = 1
        self._response = self._filter_of(np.ones(_BINS, np.float32))
        self._fade: Sound = np.ones(BLOCK_SAMPLES, np.float32)
        self._fade[: self.FADE] = np.linspace(0, 1, self.FADE)

    def process(self, filtered: Filtered) -> Sound:
        both = self._before * _HALF_ROUND + filtered.rest_spectrum
        self._before = filtered.rest_spectrum
        response = self._filter_of(self._gain(filtered))
        before, after = _back(both * (np.stack([self._response, response]) * _DEEMPHASIS))[:, BLOCK_SAMPLES:]
        self._response = response
        faded: Sound = before + (after - before) * self._fade
        return faded

    def _gain(self, filtered: Filtered) -> Power:
        self._echo = np.maximum(_power(filtered.echo_spectrum), self.TAIL * self._echo)
        rest, echo, doubt = _by_band(filtered.rest_power), _by_band(self._echo), _by_band(filtered.doubt)
        self._learn(rest, echo)
        self.voice = max(
            self._voice_likely(rest / (doubt + self._leak * echo + self._noise)), self.RELEASE * self.voice
        )
        over, least = (alone + (both - alone) * self.voice for alone, both in zip(self.ALONE, self.BOTH, strict=True))
        left = over * (filtered.doubt + np.repeat(self._leak, _WIDTHS) * self._echo) + 1e-9
        clean = 0.6 * self._clean / left + 0.4 * np.maximum(filtered.rest_power / left - 1, 0)
        room = np.sqrt(self._noise / 2 / (rest + FLOOR))  # the room's own noise stays: silence would sound like a cut
        floor = np.repeat(np.minimum(np.maximum(room, least), 1), _WIDTHS)
        gain: Power = np.maximum(clean / (1 + clean), floor).astype(np.float32)
        self._clean = np.square(gain) * filtered.rest_power
        return gain

    def _voice_likely(self, above: NDArray[np.floating]) -> float:
        above_db = float((10 * np.log10(np.minimum(np.maximum(above[_SPEECH], 1), 100))).mean())
        return min(1.0, max(0.0, (above_db - self.ECHO_DB) / (self.VOICE_DB - self.ECHO_DB)))

    def _learn(self, rest: Power, echo: Power) -> None:
        self._noise = np.minimum(self._noise * np.float32(1.01), rest + np.float32(FLOOR))
        heard = echo * self.FIRST_LEAK > self._noise
        step = np.where(rest > self._leak * echo, self.LEAK_RISES, self.LEAK_FALLS)
        leak = np.where(heard, self._leak * step, self._leak)
        self._leak = np.minimum(np.maximum(leak, 1e-4), self.MOST_LEAK).astype(np.float32)

    def _filter_of(self, gain: Power) -> Spectrum:
        """By the cepstrum (Oppenheim & Schafer), of every second frequency."""
        cepstrum = _back(np.log(gain[::2]).astype(np.complex64))
        impulse = _back(np.exp(_forward(cepstrum * self._fold)))
        return _forward(np.concatenate([impulse[: self.TAPS] * self._window, np.zeros(_SIZE - self.TAPS, np.float32)]))


def _forward(sound: Sound) -> Spectrum:
    return np.fft.rfft(sound).astype(np.complex64, copy=False)


def _back(spectrum: Spectrum) -> Sound:
    return np.fft.irfft(spectrum).astype(np.float32, copy=False)


def _power(spectrum: Spectrum) -> Power:
    return np.square(spectrum.real) + np.square(spectrum.imag)


def _smooth(power: Power) -> Power:
    """Over five frequencies: in a gap between two of a voice's, it is not silent."""
    wide = np.concatenate([power[2:0:-1], power, power[-2:-4:-1]])
    smooth: Power = (wide[:-4] + wide[1:-3] + wide[2:-2] + wide[3:-1] + wide[4:]) * np.float32(0.2)
    return smooth


def _by_band(power: Power) -> Power:
    bands: Power = np.add.reduceat(power, _BANDS)
    return bands
