"""From packets of far sound to an even stream for the speaker.

Pure: packets and pulls in with their time, 20 ms blocks out; the decoder is handed in, the puller's clock is the
speaker's. `delay.ArrivalDelay` says how long a sound should wait; what is played is held at that delay by leaving out
or repeating periods of the voice, sooner and more in its pauses (`stretch`). What is lost is taken from a later packet
where one carries it (RED, or Opus' own FEC), and otherwise made up by the decoder, fading to silence. A pause of the
far end (DTX) is no loss. Whatever arrives, nothing here grows beyond its bounds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.core import opuspacket
from edge_agent.core.delay import ArrivalDelay
from edge_agent.core.red import Older
from edge_agent.core.stretch import NEEDED_SAMPLES, find_period, lengthen, shorten
from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ

Samples = NDArray[np.int16]

MS = SAMPLE_RATE_HZ // 1000
BLOCK_MS = BLOCK_SAMPLES / MS
LEAST_TARGET_MS = 40.0  # a block, and what the threads of a small computer are late
MOST_SPAN_SAMPLES = 3000 * MS  # of what waits to be played
MOST_PACKETS = 512
STEADY_PULLS = 10  # a pull may come late, never early: the least lag of these is the true one

EXCESS_MS = 20.0  # late by more: shorten until it is within CLOSE_MS
SHORTFALL_MS = 15.0  # early by more: lengthen
QUIET_OFF_MS = 8.0  # in pauses already from here
CLOSE_MS = 4.0
URGENT_MS = 80.0  # off by more: in every block, and where the voice is less alike
CALM_EVERY_SAMPLES = 60 * MS
CALM_LIKENESS, URGENT_LIKENESS = 0.85, 0.5
CUT_MS = 500.0  # late by more, after an outage: what is too old is left out whole
CUT_EVERY_S = 0.3
PAUSE_LEVEL = 0.1  # of the talk's own level
PAUSE_RMS = 30.0  # whatever the level

STARVE_SAMPLES = 10 * MS
HAIR_SAMPLES = STARVE_SAMPLES // 4
IDLE_SAMPLES = 1000 * MS  # nothing for longer: nothing is played until something comes
FADE_FROM_SAMPLES, FADE_TO_SAMPLES = 80 * MS, 280 * MS  # of concealment
SEAM_SAMPLES = 5 * MS

EARLY_MS = -150.0  # a packet that is faster than all of the last seconds by more is believed when another follows
EARLIEST_MS, LATEST_MS = -2000.0, 15_000.0  # beside these a timestamp does not belong to the far clock as known


class Decoder(Protocol):
    """Mono at 48 kHz. Counts are samples, whole 2.5 ms."""

    def decode(self, payload: bytes) -> Samples:
        """The packet's sound. Raises ValueError for what is no Opus."""

    def recover(self, payload: bytes, samples: int) -> Samples:
        """The sound before `payload`, from what it carries of it. Raises ValueError."""

    def conceal(self, samples: int) -> Samples:
        """A likely continuation. Raises ValueError."""

    def reset(self) -> None: ...


class Pulled(NamedTuple):
    samples: Samples
    heard: bool  # some of it is the far end's own sound


@dataclass
class PlayoutCounts:
    """Since the start of the leg; of sound in samples at 48 kHz."""

    lost: int = 0  # frames that had to be made up
    late: int = 0  # of these, how many came after all
    red_recovered: int = 0
    fec_recovered: int = 0
    concealed_samples: int = 0
    stretched_samples: int = 0  # left out or repeated, in talk and in pauses
    cut_samples: int = 0  # left out whole, after outages
    starvations: int = 0


class _Frame(NamedTuple):
    sequence: int
    payload: bytes
    duration: int
    redundant: bool


class PlayoutBuffer:
    def __init__(self, decoder: Decoder) -> None:
        self.counts = PlayoutCounts()
        self._decoder = decoder
        self._delay = ArrivalDelay()
        self._frames: dict[int, _Frame] = {}  # by position: unwrapped timestamp
        self._missed: deque[int] = deque(maxlen=64)  # positions that were made up
        self._ssrc: int | None = None
        self._newest = 0  # position
        self._newest_sequence = 0
        self._suspect: tuple[int, int] | None = None  # sequence and timestamp of a packet that fits nothing
        self._next = 0  # position of the first sound that is not decoded yet
        self._last_sequence: int | None = None  # of the frame decoded last
        self._last_duration = BLOCK_SAMPLES
        self._idle = True
        self._pausing = False
        self._ready: Samples = np.zeros(0, np.int16)
        self._starved_samples = 0
        self._made_up_samples = 0  # in a row
        self._fade_out: Samples = np.zeros(0, np.int16)  # of what was cut short, under what comes next
        self._talk_rms = 0.0
        self._lags: deque[float] = deque(maxlen=STEADY_PULLS)
        self._correcting = 0  # +1: shortening, -1: lengthening
        self._since_stretch = 0  # samples
        self._cut_at = -1e9

    @property
    def target_ms(self) -> float:
        return max(LEAST_TARGET_MS, BLOCK_MS + self._delay.target_ms)

    @property
    def buffer_ms(self) -> float:
        """By how much the sound played now is later than the fastest packet would have allowed; 0 while idle."""
        return max(0.0, min(self._lags)) if self._lags and not self._idle else 0.0

    @property
    def playing(self) -> tuple[int, int] | None:
        """SSRC and RTP timestamp of what the next pull gives; None while idle."""
        if self._idle or self._ssrc is None:
            return None
        return self._ssrc, (self._next - len(self._ready)) % 2**32

    @property
    def waiting_samples(self) -> int:
        """What is held here, decoded or not."""
        return len(self._ready) + sum(frame.duration for frame in self._frames.values())

    # --- packets

    def push(
        self, ssrc: int, sequence: int, timestamp: int, payload: bytes, now: float, older: Sequence[Older] = ()
    ) -> None:
        """An Opus packet under its RTP numbers (16 and 32 bits), and the older frames that RED carries with it."""
        position = self._place(ssrc, sequence, timestamp, now)
        if position is None:
            return
        number = self._newest_sequence + _wrapped(sequence - self._newest_sequence, 16)
        due = self._idle or position >= self._next or position in self._missed
        self._delay.arrived(position, now, due)
        self._newest_sequence = max(self._newest_sequence, number)
        for depth, (offset, copy) in enumerate(reversed(older), start=1):
            self._keep(position - offset, _Frame(number - depth, copy, opuspacket.duration_samples(copy), True), now)
        self._keep(position, _Frame(number, payload, opuspacket.duration_samples(payload), False), now)
        self._newest = max(self._newest, position)
        if self._frames and max(self._frames) - self._next > MOST_SPAN_SAMPLES:
            self._skip_to(max(self._frames) - int(self.target_ms * MS))

    def _place(self, ssrc: int, sequence: int, timestamp: int, now: float) -> int | None:
        """Its position, None for one that belongs to nothing known."""
        if ssrc != self._ssrc:
            self._ssrc = ssrc
            return self._begin(sequence, timestamp)
        position = self._newest + _wrapped(timestamp - self._newest, 32)
        lateness_ms = self._delay.relative_ms(position, now)
        if EARLY_MS < lateness_ms < LATEST_MS:
            self._suspect = None
            return position
        # A lone stray changes nothing; two that follow each other are a shorter path, or a far end that began anew.
        suspect, self._suspect = self._suspect, (sequence, timestamp)
        if suspect is None or (sequence - suspect[0]) % 2**16 != 1:
            return None
        if not 0 <= _wrapped(timestamp - suspect[1], 32) <= SAMPLE_RATE_HZ:
            return None
        return position if EARLIEST_MS < lateness_ms <= EARLY_MS else self._begin(sequence, timestamp)

    def _begin(self, sequence: int, timestamp: int) -> int:
        self._frames.clear()
        self._missed.clear()
        self._delay.restart()
        self._decoder.reset()
        self._newest = self._next = timestamp
        self._newest_sequence = sequence
        self._last_sequence = self._suspect = None
        self._lags.clear()
        self._idle = True
        return timestamp

    def _keep(self, position: int, frame: _Frame, now: float) -> None:
        if not frame.duration:
            return
        if position < self._next and not self._idle:
            if not frame.redundant and position in self._missed:
                self._missed.remove(position)
                self.counts.late += 1
            return
        known = self._frames.get(position)
        if known is not None and (frame.redundant or not known.redundant):
            return
        if known is None and len(self._frames) >= MOST_PACKETS:
            return
        self._frames[position] = frame
        if frame.redundant:
            self._delay.recovered(position, now)
        if opuspacket.has_fec(frame.payload):
            before = position - frame.duration
            if before >= self._next and before not in self._frames and self._last_sequence != frame.sequence - 1:
                self._delay.recovered(before, now)

    # --- pulls

    def pull(self, now: float) -> Pulled | None:
        """The next 20 ms, or None while nothing is to be played."""
        if self._idle and not self._start(now):
            return None
        self._steer(now)
        heard = self._made_up_samples == 0 and len(self._ready) > 0
        while len(self._ready) < BLOCK_SAMPLES:
            heard |= self._fill(now)
            if self._idle:
                return None
        block, self._ready = self._ready[:BLOCK_SAMPLES], self._ready[BLOCK_SAMPLES:]
        self._since_stretch += BLOCK_SAMPLES
        return Pulled(block, heard)

    def _start(self, now: float) -> bool:
        if not self._frames:
            return False
        self._next = min(self._frames)
        if self._lag_ms(now) < self.target_ms:
            return False
        self._idle = False
        self._starved_samples = self._made_up_samples = 0
        self._last_sequence = None
        self._ready = self._ready[:0]
        self._lags.clear()
        return True

    def _fill(self, now: float) -> bool:
        """Puts the next piece of sound on what is ready; True when it is the far end's own."""
        frame = self._frames.pop(self._next, None)
        if frame is not None:
            self._end_starvation(whole=True)
            return self._decode(frame)
        if not self._frames:
            self._starve()
            return False
        following = min(self._frames)
        after = self._frames[following]
        paused = self._pausing or self._last_sequence == after.sequence - 1
        if self._starved_samples or paused:
            # What was due meanwhile has been heard as something else, and is not owed a second time.
            due = self._next + round((self._lag_ms(now) - self.target_ms) * MS)
            self._next = min(following, max(self._next, due))
            self._end_starvation(whole=paused)
        gap = following - self._next
        if gap < -HAIR_SAMPLES:  # frames that lie over one another are nobody's voice
            del self._frames[following]
            return False
        if gap < HAIR_SAMPLES:  # the far end changed the length of its frames
            self._next = following
            return False
        if paused:
            length = min(gap, BLOCK_SAMPLES)
            self._make_up(length, pause=True)
            self._next += length
            return False
        return self._lose(gap, after)

    def _decode(self, frame: _Frame) -> bool:
        try:
            sound = self._decoder.decode(frame.payload)
        except ValueError:
            self._lose(frame.duration, None)
            return False
        if frame.redundant:
            self.counts.red_recovered += 1
        self._next += frame.duration
        self._last_sequence, self._last_duration = frame.sequence, frame.duration
        self._pausing = opuspacket.is_pause(frame.payload)
        self._take(sound)
        return True

    def _lose(self, gap: int, after: _Frame | None) -> bool:
        """A frame that will not come: from the next packet's FEC, or made up."""
        if after is not None and gap <= after.duration + HAIR_SAMPLES and opuspacket.has_fec(after.payload):
            try:
                sound = self._decoder.recover(after.payload, min(gap - gap % 120, after.duration))
            except ValueError:
                pass
            else:
                self.counts.fec_recovered += 1
                self._next += gap
                self._take(sound)
                return True
        length = min(gap, self._last_duration)
        if after is not None and gap > after.duration and opuspacket.has_fec(after.payload):
            length = min(length, gap - after.duration)
        self.counts.lost += 1
        self._missed.append(self._next)
        self.counts.concealed_samples += length
        self._make_up(length, pause=False)
        self._next += length
        return False

    def _starve(self) -> None:
        """Nothing is there: it may be late, lost, or a pause; the next packet will tell."""
        self._starved_samples += STARVE_SAMPLES
        if self._starved_samples > IDLE_SAMPLES:
            self._end_starvation(whole=True)
            self._idle = True
            return
        self._make_up(STARVE_SAMPLES, pause=self._pausing)

    def _end_starvation(self, whole: bool) -> None:
        """`whole`: nothing was lost by it. A pause is no starvation at all."""
        if not self._starved_samples:
            return
        if not (whole and self._pausing):
            self.counts.starvations += 1
            self.counts.concealed_samples += self._starved_samples
        self._starved_samples = 0
        self._lags.clear()

    def _make_up(self, samples: int, pause: bool) -> None:
        whole = -(-samples // 120) * 120
        try:
            sound = self._decoder.conceal(whole)[:samples]
        except ValueError:
            sound = np.zeros(samples, np.int16)
        if len(sound) < samples:
            sound = np.pad(sound, (0, samples - len(sound)))
        begin = self._made_up_samples
        if not pause:
            self._made_up_samples += samples
            if self._made_up_samples > FADE_FROM_SAMPLES:
                ramp = np.linspace(_fading(begin), _fading(self._made_up_samples), samples)
                sound = (sound * ramp).astype(np.int16)
        self._append(sound)

    def _take(self, sound: Samples) -> None:
        """Sound of the far end's own."""
        rms = float(np.sqrt(np.mean(np.square(sound, dtype=np.float32)))) if len(sound) else 0.0
        self._talk_rms = max(rms, self._talk_rms * 0.995 ** (len(sound) / BLOCK_SAMPLES))
        level = _fading(self._made_up_samples)
        if level < 1 and len(sound) >= SEAM_SAMPLES:
            sound = sound.copy()
            sound[:SEAM_SAMPLES] = sound[:SEAM_SAMPLES] * np.linspace(level, 1.0, SEAM_SAMPLES)
        self._made_up_samples = 0
        self._append(sound)

    def _append(self, sound: Samples) -> None:
        if len(self._fade_out) and len(sound) >= len(self._fade_out):
            seam = len(self._fade_out)
            ramp = np.linspace(0.0, 1.0, seam)
            sound = sound.copy()
            sound[:seam] = self._fade_out * (1 - ramp) + sound[:seam] * ramp
            self._fade_out = self._fade_out[:0]
        self._ready = np.concatenate([self._ready, sound])

    # --- delay

    def _lag_ms(self, now: float) -> float:
        """How much later than the fastest packet's the sound at `_next` will be played."""
        return self._delay.relative_ms(self._next - len(self._ready), now)

    def _steer(self, now: float) -> None:
        self._lags.append(self._lag_ms(now))
        error = min(self._lags) - self.target_ms
        if error > CUT_MS and self._frames and now - self._cut_at >= CUT_EVERY_S:
            self._cut_at = now
            self._skip_to(self._next - len(self._ready) + int(error * MS))
            return
        for _ in range(3):
            changed = self._stretch(min(self._lags) - self.target_ms)
            if not changed:
                return
            self._lags = deque((lag + changed / MS for lag in self._lags), STEADY_PULLS)

    def _stretch(self, error_ms: float) -> int:
        """Samples added (> 0) or left out (< 0) now: one period, or nothing."""
        if self._correcting * error_ms < CLOSE_MS:
            self._correcting = 1 if error_ms > EXCESS_MS else -1 if error_ms < -SHORTFALL_MS else 0
        if not self._correcting and abs(error_ms) < QUIET_OFF_MS:
            return 0
        urgent = abs(error_ms) > URGENT_MS
        while len(self._ready) < NEEDED_SAMPLES and self._next in self._frames and not self._starved_samples:
            self._decode(self._frames.pop(self._next))
        if len(self._ready) < NEEDED_SAMPLES:
            return 0
        near = self._ready[:NEEDED_SAMPLES]
        rms = float(np.sqrt(np.mean(np.square(near, dtype=np.float32))))
        quiet = rms < max(PAUSE_RMS, PAUSE_LEVEL * self._talk_rms)
        if not quiet and (
            not self._correcting or self._since_stretch < (BLOCK_SAMPLES if urgent else CALM_EVERY_SAMPLES)
        ):
            return 0
        period, likeness = find_period(near)
        if not quiet and likeness < (URGENT_LIKENESS if urgent else CALM_LIKENESS):
            return 0
        if error_ms > 0 and period / MS > error_ms + CLOSE_MS:
            return 0
        self._since_stretch = 0
        before = len(self._ready)
        self._ready = shorten(self._ready, period) if error_ms > 0 else lengthen(self._ready, period)
        self.counts.stretched_samples += period
        return len(self._ready) - before

    def _skip_to(self, position: int) -> None:
        """Goes on with the first frame at or after `position`, or with the newest."""
        later = [each for each in self._frames if each >= position]
        goal = min(later) if later else max(self._frames)
        self.counts.cut_samples += max(0, goal - self._next + len(self._ready))
        for each in [each for each in self._frames if each < goal]:
            del self._frames[each]
        self._next = goal
        self._fade_out = self._ready[:SEAM_SAMPLES]
        self._ready = self._ready[:0]
        self._end_starvation(whole=False)
        self._lags.clear()


def _fading(made_up_samples: int) -> float:
    """How loud concealment still is after so much of it."""
    return min(1.0, max(0.0, (FADE_TO_SAMPLES - made_up_samples) / (FADE_TO_SAMPLES - FADE_FROM_SAMPLES)))


def _wrapped(difference: int, bits: int) -> int:
    """The shortest way round a counter of so many bits."""
    half = 1 << (bits - 1)
    return (difference + half) % (1 << bits) - half
