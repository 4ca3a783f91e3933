"""From packets of far sound to an even stream for the speaker.

Pure: packets and pulls in, 20 ms blocks out; the decoder is handed in, the puller's clock is the speaker's. Jitter is
met by a small delay that grows with each starvation and shrinks again; a far clock that runs faster or slower is met
by leaving out or repeating one period of the sound now and then (2.5 to 10 ms), never by a growing delay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ

Samples = NDArray[np.int16]
Decode = Callable[[bytes], Samples]  # 48 kHz mono; raises ValueError for what it cannot decode

MS = SAMPLE_RATE_HZ // 1000
START_SAMPLES = 80 * MS  # buffered before the first sound
SPARE_SAMPLES = 40 * MS  # the least that should stand ready at any pull
SPARE_MOST_SAMPLES = 300 * MS
SPARE_KEPT = 0.99  # of what a starvation taught, after each second
SLACK_SAMPLES = 20 * MS  # above the spare before anything is left out
CORRECT_EVERY_FRAMES = 50  # in talk; in its pauses every frame, for nobody hears it there
CATCH_UP_SAMPLES = 100 * MS  # too much by so much, after an outage: every tenth frame of talk
CATCH_UP_EVERY_FRAMES = 10
PAUSE_LEVEL = 0.1  # of the talk's own level
PAUSE_RMS = 30.0  # whatever the level
MOST_SAMPLES = 700 * MS  # a burst after an outage: older sound is dropped whole
REBUFFER_SAMPLES = 1000 * MS  # starved for longer: begin anew
JUMP_SAMPLES = 5000 * MS  # the far end's timestamps started over
WINDOW_PULLS = 50

_PERIOD_LEAST, _PERIOD_MOST, _OVERLAP = 120, 480, 240  # 2.5 ms, 10 ms, 5 ms


class Pulled(NamedTuple):
    samples: Samples
    heard: bool  # some of it is the far end's own sound


class PlayoutBuffer:
    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._packets: dict[int, bytes] = {}
        self._frame_samples = BLOCK_SAMPLES
        self._newest = 0  # unwrapped timestamps, in samples
        self._next = 0
        self._began = False
        self._filling = True
        self._ready: Samples = np.zeros(0, np.int16)
        self._last_frame: Samples = np.zeros(BLOCK_SAMPLES, np.int16)
        self._concealed_in_a_row = 0
        self._starved_samples = 0
        self._spare = SPARE_SAMPLES
        self._window_least: int | None = None
        self._window_pulls = 0
        self._since_correction = 0  # frames
        self._talk_rms = 0.0
        self._correction = 0  # samples to leave out (> 0) or to add (< 0)
        self.lost = 0
        self.late = 0
        self.starvations = 0
        self.played_samples = 0
        self.concealed_samples = 0

    @property
    def level_samples(self) -> int:
        """What stands ready, gaps included."""
        buffered = self._newest + self._frame_samples - self._next if self._packets else 0
        return len(self._ready) + max(0, buffered)

    def push(self, timestamp: int, payload: bytes) -> None:
        """An encoded packet with its RTP timestamp (48 kHz, 32 bits)."""
        if not payload:
            return
        if not self._began:
            self._begin(timestamp)
        delta = (timestamp - self._newest + 2**31) % 2**32 - 2**31
        if abs(delta) > JUMP_SAMPLES:
            self._begin(timestamp)
            delta = 0
        position = self._newest + delta
        if self._starved_samples and position > self._next:
            # What was due while nothing came has been heard as silence: it is not owed a second time.
            self._next = min(position, self._next + self._starved_samples)
        elif (
            0 < self._starved_samples <= SPARE_MOST_SAMPLES
        ):  # it came late by so much: be ready for the next such delay
            self._spare = min(SPARE_MOST_SAMPLES, self._spare + SLACK_SAMPLES + self._starved_samples)
        if self._filling and 0 < self._next - position <= START_SAMPLES:
            self._next = position  # the first packets came in another order
        if position < self._next:
            self.late += 1
            return
        self._starved_samples = 0
        self._packets[position] = payload
        self._newest = max(self._newest, position)
        if self.level_samples > MOST_SAMPLES:
            self._drop_to(START_SAMPLES + self._spare)

    def pull(self) -> Pulled | None:
        """The next 20 ms, or None while nothing is to be played."""
        if self._filling:
            if self.level_samples < START_SAMPLES:
                return None
            self._filling = False
        self._watch_level()
        heard = False
        while len(self._ready) < BLOCK_SAMPLES:
            frame = self._next_frame()
            if frame is None:
                if self._starve():
                    return None
                frame = self._conceal()
            else:
                heard = True
            self._ready = np.concatenate([self._ready, frame])
        block, self._ready = self._ready[:BLOCK_SAMPLES], self._ready[BLOCK_SAMPLES:]
        self.played_samples += BLOCK_SAMPLES
        return Pulled(block, heard)

    # --- frames

    def _begin(self, timestamp: int) -> None:
        self._packets.clear()
        self._newest = self._next = timestamp
        self._ready = self._ready[:0]
        self._began = self._filling = True
        self._starved_samples = 0
        self._window_least = None
        self._correction = 0

    def _next_frame(self) -> Samples | None:
        """Decoded, or concealed where a later packet shows that it is lost; None when nothing is there at all."""
        if not self._packets:
            return None
        payload = self._packets.pop(self._next, None)
        if payload is None:
            following = min(self._packets)
            if following - self._next < self._frame_samples:  # not a whole frame: their frame length has changed
                self._next = following
                return self._next_frame()
            self.lost += 1
            self._next += self._frame_samples
            return self._conceal()
        try:
            frame = self._decode(payload)
        except ValueError:
            frame = np.zeros(0, np.int16)
        if not len(frame):
            self._next += self._frame_samples
            return self._conceal()
        self._next += len(frame)
        self._frame_samples = len(frame)
        self._last_frame, self._concealed_in_a_row = frame, 0
        return self._corrected(frame)

    def _conceal(self) -> Samples:
        """The last frame again, fading: 20 ms are not heard as a click, and 60 ms as silence."""
        begin, end = (1.0, 0.5, 0.2, 0.0)[min(self._concealed_in_a_row, 2) :][:2]
        if self._concealed_in_a_row >= 3:
            begin = end = 0.0
        self._concealed_in_a_row += 1
        self.concealed_samples += len(self._last_frame)
        return (self._last_frame * np.linspace(begin, end, len(self._last_frame))).astype(np.int16)

    def _starve(self) -> bool:
        """Counts a block that is missing; True when it has been so long that the buffer fills anew."""
        if self._starved_samples == 0:
            self.starvations += 1
            self._correction = 0
        self._starved_samples += len(self._last_frame)
        if self._starved_samples > REBUFFER_SAMPLES:
            self._began = False
            self._filling = True
        return self._filling

    # --- delay

    def _watch_level(self) -> None:
        level = self.level_samples
        self._window_least = level if self._window_least is None else min(self._window_least, level)
        self._window_pulls += 1
        if self._window_pulls < WINDOW_PULLS:
            return
        least, self._window_least, self._window_pulls = self._window_least, None, 0
        spare = BLOCK_SAMPLES + self._spare
        if least > spare + SLACK_SAMPLES:
            self._correction = least - spare
        elif least < BLOCK_SAMPLES + SPARE_SAMPLES // 2:  # a starvation has made room by itself, a slow clock has not
            self._correction = least - BLOCK_SAMPLES - SPARE_SAMPLES
        else:
            self._correction = 0
        self._spare = max(SPARE_SAMPLES, int(self._spare * SPARE_KEPT))

    def _corrected(self, frame: Samples) -> Samples:
        rms = float(np.sqrt(np.mean(np.square(frame, dtype=np.float64))))
        self._talk_rms = max(rms, self._talk_rms * 0.995)
        pause = rms < max(PAUSE_RMS, PAUSE_LEVEL * self._talk_rms)
        self._since_correction += 1
        if len(frame) < _PERIOD_MOST + _OVERLAP or abs(self._correction) < _PERIOD_LEAST:
            return frame
        every = CATCH_UP_EVERY_FRAMES if self._correction > CATCH_UP_SAMPLES else CORRECT_EVERY_FRAMES
        if self._since_correction < every and not pause:
            return frame
        self._since_correction = 0
        changed = shorten(frame) if self._correction > 0 else lengthen(frame)
        self._correction += len(changed) - len(frame)
        return changed

    def _drop_to(self, level: int) -> None:
        excess = self.level_samples - level
        self._ready = self._ready[:0]
        self._next = max(self._next, self._next + excess - excess % self._frame_samples)
        for position in [p for p in self._packets if p < self._next]:
            del self._packets[position]
        self._correction = 0


def shorten(frame: Samples) -> Samples:
    """Without one period of its sound (2.5 to 10 ms), the seam cross-faded."""
    period = _period(frame)
    seam = _cross_fade(frame[:_OVERLAP], frame[period : period + _OVERLAP])
    return np.concatenate([seam, frame[period + _OVERLAP :]])


def lengthen(frame: Samples) -> Samples:
    """With one period of its sound twice."""
    period = _period(frame)
    seam = _cross_fade(frame[period : period + _OVERLAP], frame[:_OVERLAP])
    return np.concatenate([frame[:period], seam, frame[_OVERLAP:]])


def _period(frame: Samples) -> int:
    """The shift at which the frame is most like itself, by normalised correlation on every fourth sample."""
    thin = frame[: _PERIOD_MOST + _OVERLAP : 4].astype(np.float32)
    width, least, most = _OVERLAP // 4, _PERIOD_LEAST // 4, _PERIOD_MOST // 4
    windows = np.lib.stride_tricks.sliding_window_view(thin, width)[least : most + 1]
    likeness = windows @ thin[:width] / np.sqrt((windows**2).sum(axis=1) + 1.0)
    return 4 * (least + int(np.argmax(likeness)))


def _cross_fade(out: Samples, into: Samples) -> Samples:
    ramp = np.linspace(0.0, 1.0, len(out))
    return (out * (1.0 - ramp) + into * ramp).astype(np.int16)
