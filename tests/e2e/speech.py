"""Known speech, and how much of it was heard at the other end.

The speech is spoken by espeak-ng once, looped by whoever plays it. `heard` scores a recording against the loop it
came from, wherever in the loop the recording starts: each window of 8 s is aligned by cross-correlation on its own, so
that a jitter buffer that stretches time is judged by how it sounds, not by where it stands.
"""

from __future__ import annotations

import subprocess
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pesq import NoUtterancesError, pesq
from scipy.signal import correlate, resample_poly

RATE_HZ = 48_000
SCORE_RATE_HZ = 8_000  # narrow band, P.862 with the mapping of P.862.1
WINDOW_S = 8
LOOP_BLOCK = 960  # 20 ms: a loop is a whole number of them
ALIKE = 0.3  # a second of speech with at least this normalised correlation was heard
LOCAL_LAG_S = 0.06  # how far a second of speech may stand from its window's alignment

PATIENT = (
    "en-gb-x-rp",
    "Good morning doctor. My daughter has had a fever since Tuesday evening, and she does not want to drink. "
    "She coughs at night and her breathing is quick. We walked two hours to come to the clinic.",
)
DOCTOR = (
    "en-us+f3",
    "Thank you for calling. Please hold the thermometer under her arm for a minute and tell me what it shows. "
    "Give her small sips of clean water, one spoon at a time, and let me see how she breathes.",
)

Samples = NDArray[np.int16]


class Heard(NamedTuple):
    pesq: float  # MOS-LQO, 1.0 to 4.55, mean of the windows
    windows: tuple[float, ...]  # the same of each
    share: float  # of the seconds that carry speech
    mouth_to_ear_ms: float  # median over windows; true when recording and loop began at the same instant


def speak(voice: str, text: str, path: Path) -> Samples:
    """Writes a mono 48 kHz WAV of `text`, 16 bits, with a short pause at its end; returns its samples."""
    raw = subprocess.run(
        ["espeak-ng", "-v", voice, "-s", "160", "-g", "2", "--stdout", text], capture_output=True, check=True
    ).stdout
    header = raw.index(b"data") + 8  # espeak-ng cannot know the length while it streams: read it by hand
    rate = int.from_bytes(raw[24:28], "little")
    spoken = np.frombuffer(raw[header : header + (len(raw) - header) // 2 * 2], "<i2").astype(np.float64)
    wide = resample_poly(spoken, RATE_HZ, rate)
    wide *= 0.5 * 32767 / np.abs(wide).max()
    length = -(-(len(wide) + RATE_HZ // 4) // LOOP_BLOCK) * LOOP_BLOCK
    samples = np.pad(wide, (0, length - len(wide))).astype(np.int16)
    write_wav(path, samples)
    return samples


def write_wav(path: Path, samples: Samples, rate: int = RATE_HZ) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


def read_wav(path: Path) -> Samples:
    """Mono samples, brought to 48 kHz. Takes a file that is still being written, whose header is behind."""
    raw = path.read_bytes()
    header = raw.index(b"data") + 8
    channels, rate = int.from_bytes(raw[22:24], "little"), int.from_bytes(raw[24:28], "little")
    if channels != 1:
        raise ValueError(f"{path}: {channels} channels")
    samples = np.frombuffer(raw[header : header + (len(raw) - header) // 2 * 2], "<i2")
    if rate == RATE_HZ:
        return samples
    return resample_poly(samples.astype(np.float64), RATE_HZ, rate).clip(-32768, 32767).astype(np.int16)


def heard(reference: Samples, recording: Samples) -> Heard:
    """How much of the looped `reference` is in `recording`, both mono at 48 kHz; the recording lasts ≥ 8 s."""
    loop = _narrow(np.tile(reference, 3))
    third = len(loop) // 3
    loop = loop[third : 2 * third]  # a seamless round, without the resampler's edges
    sound = _narrow(recording)
    size = WINDOW_S * SCORE_RATE_HZ
    if len(sound) < size:
        raise ValueError(f"{len(sound) / SCORE_RATE_HZ:.1f} s recorded, {WINDOW_S} s are needed")
    scores, seconds, delays = [], [], []
    for start in range(0, len(sound) - size + 1, size):
        window = sound[start : start + size]
        offset = _best_offset(loop, window)
        original = np.take(loop, np.arange(offset, offset + size), mode="wrap")
        scores.append(pesq_of(original, window))
        seconds.extend(_seconds_heard(original, window))
        delays.append((start - offset) % len(loop) / SCORE_RATE_HZ * 1000)
    return Heard(
        pesq=float(np.mean(scores)),
        windows=tuple(round(score, 2) for score in scores),
        share=float(np.mean(seconds)),
        mouth_to_ear_ms=float(np.median(delays)),
    )


def holds(recording: Samples, clip: Samples, seconds: float = 1.2) -> bool:
    """Whether the first `seconds` of `clip` that carry sound were played somewhere in `recording`, both at 48 kHz."""
    loud = np.flatnonzero(np.abs(clip.astype(np.int32)) >= 300)
    start = int(loud[0]) if len(loud) else 0
    wanted = _narrow(clip[start : start + int(seconds * RATE_HZ)])
    sound = _narrow(recording)
    if len(sound) < len(wanted):
        return False
    dots = correlate(sound, wanted, mode="valid", method="fft")
    energy = np.maximum(np.convolve(sound**2, np.ones(len(wanted)), mode="valid"), 1.0)
    return bool(np.max(dots / np.sqrt(energy * np.sum(wanted**2))) >= 0.7)


def first_sound_s(recording: Samples, threshold: int = 300) -> float | None:
    """Seconds from the recording's start to its first sound, None for silence."""
    loud = np.flatnonzero(np.abs(recording.astype(np.int32)) >= threshold)
    return float(loud[0]) / RATE_HZ if len(loud) else None


def _narrow(samples: Samples) -> NDArray[np.float64]:
    return resample_poly(samples.astype(np.float64), 1, RATE_HZ // SCORE_RATE_HZ)


def _best_offset(loop: NDArray[np.float64], window: NDArray[np.float64]) -> int:
    """Where in the loop the window begins: the peak of their circular cross-correlation."""
    tiled = np.take(loop, np.arange(len(loop) + len(window) - 1), mode="wrap")
    return int(np.argmax(correlate(tiled, window, mode="valid", method="fft")))


def pesq_of(original: NDArray[np.float64], window: NDArray[np.float64]) -> float:
    """MOS-LQO of one stretch of narrow-band sound, already aligned; 1.0 where there is nothing like speech."""
    if np.max(np.abs(window)) < 1:  # digital silence, which the package cannot score
        return 1.0
    try:
        return float(pesq(SCORE_RATE_HZ, original.astype(np.int16), window.clip(-32768, 32767).astype(np.int16), "nb"))
    except NoUtterancesError:  # nothing like speech
        return 1.0


def _seconds_heard(original: NDArray[np.float64], window: NDArray[np.float64]) -> list[bool]:
    """One verdict for each second of the original that carries speech."""
    verdicts = []
    lag = int(LOCAL_LAG_S * SCORE_RATE_HZ)
    for start in range(0, len(original), SCORE_RATE_HZ):
        spoken = original[start : start + SCORE_RATE_HZ]
        if np.sqrt(np.mean(spoken**2)) < 300:
            continue
        around = window[max(0, start - lag) : start + SCORE_RATE_HZ + lag]
        dots = correlate(around, spoken, mode="valid", method="fft")
        energy = np.convolve(around**2, np.ones(len(spoken)), mode="valid")
        alike = np.max(dots / np.sqrt(np.maximum(energy, 1.0) * np.sum(spoken**2)))
        verdicts.append(bool(alike >= ALIKE))
    return verdicts
