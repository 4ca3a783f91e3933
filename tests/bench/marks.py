"""What a call was worth, from what was said and shown at one end and what was played and seen at the other.

Pure. Times are seconds of one clock that both ends share, so that a lag is what a person would wait. Everything is
judged by the time at which it was *said* or *shown to the camera*, between `begin` and `end`.

- **PESQ** (P.862, mapped by P.862.1, narrow band): the mean over windows of 8 s, each against what was played at its
  own delay; a window in which nothing is recognisable counts 1.0.
- **Heard**: the share of the windows of 1 s with speech in them whose normalised correlation with what was played is at
  least 0.3 at some lag. The lag is the mouth-to-ear delay of that second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.signal import correlate

from hardware.numbered import ROW_PART, ROWS
from tests.bench.recording import Sound
from tests.e2e.speech import ALIKE, SCORE_RATE_HZ, WINDOW_S, pesq_of

MOST_LAG_S = 6.0  # later than this nobody holds a conversation
LEAST_LAG_S = -0.05  # the clocks' error
SPEECH_RMS = 300.0  # a second with less is a pause
FLOOR_RMS = 30.0  # nothing that is played more softly than this is likened to anything
FREEZE_S = 1.0

OUTAGE_WINDOW_S, OUTAGE_HOP_S, OUTAGE_ALIKE = 0.5, 0.1, 0.5  # finer, hence stricter
AFTER_OUTAGE_S = 10.0
NORMAL_WITHIN_S = 0.1  # of the call's median delay

Sighting = tuple[float, int]  # seconds, number


class VoiceMarks(NamedTuple):
    pesq: float
    heard: float  # share
    delay_p50_ms: float | None
    delay_p95_ms: float | None
    delays_ms: tuple[float | None, ...]  # of each second with speech, None where it was not heard


class OutageMarks(NamedTuple):
    """Seconds after the link was back."""

    voice_back_s: float | None
    delay_normal_s: float | None


class PictureMarks(NamedTuple):
    per_second: float  # different pictures
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    freezes: int  # of more than a second
    frozen: float  # their share of the time
    ssim: float | None


NO_PICTURES = PictureMarks(0.0, None, None, 0, 0.0, None)


def judge_voice(said: Sound, played: Sound, begin: float, end: float) -> VoiceMarks:
    delays: list[float | None] = []
    for at in np.arange(begin, end - 1.0 + 1e-6, 1.0):
        spoken = said.between(at, at + 1.0)
        if _rms(spoken) >= SPEECH_RMS:
            lag, alike = best_lag(spoken, played, at)
            delays.append(lag * 1000 if alike >= ALIKE else None)
    scores = []
    for at in np.arange(begin, end - WINDOW_S + 1e-6, WINDOW_S):
        original = said.between(at, at + WINDOW_S)
        if _rms(original) >= SPEECH_RMS / 4:  # a window of nothing but pause says nothing
            scores.append(_score(original, played, at))
    heard = [delay for delay in delays if delay is not None]
    return VoiceMarks(
        pesq=float(np.mean(scores)) if scores else 1.0,
        heard=len(heard) / len(delays) if delays else 0.0,
        delay_p50_ms=percentile(heard, 50),
        delay_p95_ms=percentile(heard, 95),
        delays_ms=tuple(None if delay is None else round(delay) for delay in delays),
    )


def best_lag(spoken: NDArray[np.float64], played: Sound, at: float) -> tuple[float, float]:
    """Where `spoken`, said from `at` on, is most like what was played: the lag in seconds, and the likeness 0…1."""
    around = played.between(at + LEAST_LAG_S, at + MOST_LAG_S + len(spoken) / SCORE_RATE_HZ)
    dots = correlate(around, spoken, mode="valid", method="fft")
    sums = np.concatenate([[0.0], np.cumsum(around**2)])
    energy = np.maximum(sums[len(spoken) :] - sums[: -len(spoken)], FLOOR_RMS**2 * len(spoken))
    likeness = dots / np.sqrt(energy * np.sum(spoken**2))
    best = int(np.argmax(likeness))
    return LEAST_LAG_S + best / SCORE_RATE_HZ, float(likeness[best])


def judge_outage(said: Sound, played: Sound, back_at: float, usual_ms: float | None) -> OutageMarks:
    """`back_at`: the link carries again. Voice is back with the first half second said since then that was heard; its
    delay is normal once every later one comes with about the usual delay."""
    heard: list[tuple[float, float]] = []
    for at in np.arange(back_at, back_at + AFTER_OUTAGE_S, OUTAGE_HOP_S):
        spoken = said.between(at, at + OUTAGE_WINDOW_S)
        if _rms(spoken) >= SPEECH_RMS:
            lag, alike = best_lag(spoken, played, at)
            if alike >= OUTAGE_ALIKE:
                heard.append((float(at), lag))
    if not heard or usual_ms is None:
        return OutageMarks(None, None)
    normal: float | None = None
    for at, lag in reversed(heard):
        if lag > usual_ms / 1000 + NORMAL_WITHIN_S:
            break
        normal = at + lag - back_at
    return OutageMarks(min(at + lag for at, lag in heard) - back_at, normal)


def judge_pictures(
    sent: Sequence[Sighting],
    shown: Iterable[Sighting],
    stills: Iterable[tuple[int, NDArray[np.uint8]]],
    originals: Sequence[NDArray[np.uint8]],
    begin: float,
    end: float,
) -> PictureMarks:
    """`sent` and `shown`: when which number was; numbers are those of `originals`, over and over. `stills`: a few of
    the pictures that were shown, in grey and at the size of the originals."""
    fresh: list[Sighting] = []
    for at, number in shown:
        if begin <= at < end and (not fresh or number != fresh[-1][1]):
            fresh.append((at, number))
    gaps = [later - earlier for earlier, later in pairwise([begin, *(at for at, _ in fresh), end])]
    freezes = [gap for gap in gaps if gap > FREEZE_S]
    latencies = [latency for at, number in fresh if (latency := _latency_ms(sent, at, number)) is not None]
    likeness = [ssim(originals[number], still) for number, still in stills]
    return PictureMarks(
        per_second=len(fresh) / (end - begin),
        latency_p50_ms=percentile(latencies, 50),
        latency_p95_ms=percentile(latencies, 95),
        freezes=len(freezes),
        frozen=sum(freezes) / (end - begin),
        ssim=float(np.mean(likeness)) if likeness else None,
    )


def ssim(original: NDArray[np.uint8], seen: NDArray[np.uint8]) -> float:
    """Of two grey pictures of one size, without the strip that carries the number (Wang et al. 2004: a Gaussian window
    of 11 and deviation 1.5)."""
    height = original.shape[0] - ROWS * (original.shape[0] // ROW_PART)
    x, y = (picture[:height].astype(np.float32) for picture in (original, seen))

    def mean(picture: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.GaussianBlur(picture, (11, 11), 1.5), np.float32)

    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similar = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((similar / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean())


def percentile(values: Sequence[float], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if len(values) else None


def _score(original: NDArray[np.float64], played: Sound, at: float) -> float:
    lag, _ = best_lag(original, played, at)
    heard = played.between(at + lag, at + lag + WINDOW_S)
    recognisable = any(
        best_lag(second, played, at + i)[1] >= ALIKE
        for i, second in enumerate(original.reshape(WINDOW_S, -1))
        if _rms(second) >= SPEECH_RMS
    )
    return pesq_of(original, heard) if recognisable else 1.0


def _latency_ms(sent: Sequence[Sighting], shown_at: float, number: int) -> float | None:
    """Against the newest time that this number had been before the camera."""
    return next(((shown_at - at) * 1000 for at, n in reversed(sent) if n == number and at <= shown_at), None)


def _rms(samples: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0
