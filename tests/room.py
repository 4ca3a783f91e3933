"""A room with a loudspeaker, a microphone and somebody who speaks, simulated; and how well the echo is taken out of it.

The room is a shoebox by the image-source method (Allen & Berkley 1979, its later images moved a little at random, as
furniture does). Loudspeaker and microphone have a clock each. Levels: everybody's speech is at -26 dBov where it is
active (P.56's usual one), the near voice as the microphone hears it, the echo so many dB beside that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from pesq import NoUtterancesError, pesq
from scipy.signal import butter, correlate, fftconvolve, resample_poly, sosfilt

from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ

Wave = NDArray[np.float64]  # in steps of 16 bits
Samples = NDArray[np.int16]
Place = tuple[float, float, float]  # metres

SPEED_OF_SOUND = 343.0
ROOM: Place = (4.0, 3.0, 2.7)
MICROPHONE: Place = (2.05, 1.5, 1.15)
LOUDSPEAKER: Place = (1.9, 1.5, 1.2)
MOUTH: Place = (2.0, 2.0, 1.3)  # 0.53 m away
RT60_S = 0.3
SPEECH_LEVEL = 32768 * 10 ** (-26 / 20)
HEARD_DB = -45.0  # full scale: there is an echo to speak of
CONVERGED_DB = 20.0
SCORE_RATE_HZ = 8000
SCORE_S = 8


@dataclass(frozen=True)
class Scene:
    """The far end speaks alone first, then both do, each with pauses."""

    delay_ms: float = 100.0  # of the devices, from where the played sound is taken to the microphone's
    echo_db: float = -6.0  # beside the near voice
    drift_ppm: float = 50.0  # how much faster the loudspeaker's clock is
    noise_db: float = -75.0  # full scale
    distorts_at: float = 0.0  # of full scale, where the loudspeaker bends (tanh); 0: it is linear
    loudspeaker: Place = LOUDSPEAKER
    alone_s: int = 14
    both_s: int = 17
    pause_s: tuple[float, float] = (0.5, 1.0)


@dataclass(frozen=True)
class Recording:
    played: Samples
    captured: Samples
    captured_without_echo: Samples
    near: Wave  # at the microphone
    alone_s: int


@cache
def impulse_response(source: Place, microphone: Place = MICROPHONE, room: Place = ROOM) -> Wave:
    sides, length = np.array(room), int(RT60_S * SAMPLE_RATE_HZ)
    surface = 2 * (sides[0] * sides[1] + sides[1] * sides[2] + sides[0] * sides[2])
    reflected = np.sqrt(np.exp(-0.161 * sides.prod() / (surface * RT60_S)))  # Eyring
    most = np.ceil(length / SAMPLE_RATE_HZ * SPEED_OF_SOUND / (2 * sides)).astype(int) + 1
    images = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in most), indexing="ij"))
    rng = np.random.default_rng(1)
    response = np.zeros(length + 1)
    for mirrored in np.ndindex(2, 2, 2):
        flip = np.array(mirrored)[:, None, None, None]
        place = (1 - 2 * flip) * np.array(source)[:, None, None, None] + 2 * images * sides[:, None, None, None]
        distance = np.sqrt(((place - np.array(microphone)[:, None, None, None]) ** 2).sum(axis=0))
        bounces = (np.abs(images - flip) + np.abs(images)).sum(axis=0)
        distance = np.where(bounces > 1, distance + rng.uniform(-0.08, 0.08, distance.shape), distance)
        at, strength = distance.ravel() / SPEED_OF_SOUND * SAMPLE_RATE_HZ, (reflected**bounces / distance).ravel()
        at, strength = at[at < length - 1], strength[at < length - 1]
        whole = at.astype(int)
        np.add.at(response, whole, strength * (1 - at + whole))
        np.add.at(response, whole + 1, strength * (at - whole))
    return sosfilt(butter(2, 80, "high", fs=SAMPLE_RATE_HZ, output="sos"), response)


def record(scene: Scene, far: Sequence[Wave], near: Sequence[Wave], seed: int = 0) -> Recording:
    """What was played and captured while the far voice said the phrases `far`, and the near one `near`."""
    rng = np.random.default_rng(seed)
    samples = (scene.alone_s + scene.both_s) * SAMPLE_RATE_HZ
    alone = scene.alone_s * SAMPLE_RATE_HZ
    played = _talk(far, samples, scene.pause_s, rng)
    spoken = np.concatenate([np.zeros(alone), _talk(near, samples - alone, scene.pause_s, rng)])
    voice = at_speech_level(fftconvolve(spoken, impulse_response(MOUTH))[:samples])
    sounding = played if not scene.distorts_at else np.tanh(played / 32768 / scene.distorts_at)
    echo = at_speech_level(fftconvolve(sounding, impulse_response(scene.loudspeaker))[:samples]) * 10 ** (
        scene.echo_db / 20
    )
    late = int(scene.delay_ms * SAMPLE_RATE_HZ / 1000)
    echo = _other_clock(np.concatenate([np.zeros(late), echo])[:samples], scene.drift_ppm)
    noise = rng.normal(0, 32768 * 10 ** (scene.noise_db / 20), samples)
    return Recording(_samples(played), _samples(voice + echo + noise), _samples(voice + noise), voice, scene.alone_s)


def joined(first: Recording, second: Recording, at_s: float) -> Recording:
    """The first up to `at_s`, then the second: both of the same voices, in another room."""
    at = int(at_s * SAMPLE_RATE_HZ)
    return replace(first, captured=np.concatenate([first.captured[:at], second.captured[at:]]))


def without_echo(recording: Recording) -> Recording:
    """Nothing is played either."""
    return replace(recording, captured=recording.captured_without_echo, played=np.zeros_like(recording.played))


def processed(
    recording: Recording, process: Callable[[Samples, Samples], Samples], block: int = BLOCK_SAMPLES
) -> Samples:
    """`process` gets 20 ms as captured and as played, at a time."""
    captured, played = recording.captured, recording.played
    blocks = range(0, len(captured) - block + 1, block)
    return np.concatenate([process(captured[at : at + block], played[at : at + block]) for at in blocks])


def erle_db(recording: Recording, clean: Samples, begin_s: float, end_s: float) -> float:
    """Echo return loss enhancement, while nobody speaks in the room."""
    part = slice(int(begin_s * SAMPLE_RATE_HZ), int(end_s * SAMPLE_RATE_HZ))
    before, after = (np.square(sound[part], dtype=np.float64).mean() for sound in (recording.captured, clean))
    return float(10 * np.log10(before / max(after, 1e-3)))


def converged_s(recording: Recording, clean: Samples) -> float:
    """After how much time every half second with echo has CONVERGED_DB of enhancement, until somebody speaks in the
    room; infinite where it never stays so."""
    begins = [at / 2 for at in range(2 * recording.alone_s)]
    heard = [at for at in begins if _level_db(recording.captured, at) > HEARD_DB]
    poor = [at for at in heard if erle_db(recording, clean, at, at + 0.5) < CONVERGED_DB]
    if not poor:
        return 0.0
    return poor[-1] + 0.5 if poor[-1] < heard[-1] else math.inf


def _level_db(sound: Samples, begin_s: float) -> float:
    """Of half a second, full scale."""
    part = sound[int(begin_s * SAMPLE_RATE_HZ) : int((begin_s + 0.5) * SAMPLE_RATE_HZ)].astype(float)
    return float(20 * np.log10(np.sqrt(np.square(part).mean()) / 32768 + 1e-9))


def near_pesq(recording: Recording, clean: Samples) -> float:
    """Of the near voice as the microphone would have it alone, where both speak."""
    start = recording.alone_s * SAMPLE_RATE_HZ + SAMPLE_RATE_HZ // 2
    return pesq_of(recording.near[start:], clean[start:])


def pesq_of(voice: Wave, heard: NDArray[np.generic]) -> float:
    """Narrow band; mean of windows of SCORE_S, each aligned."""
    down = SAMPLE_RATE_HZ // SCORE_RATE_HZ
    voice, heard = resample_poly(voice, 1, down), resample_poly(heard.astype(float), 1, down)
    size, slack = SCORE_S * SCORE_RATE_HZ, SCORE_RATE_HZ // 10
    scores = []
    for at in range(0, len(heard) - size + 1, size):
        window, around = voice[at : at + size], heard[max(0, at - slack) : at + size + slack]
        lag = int(np.argmax(correlate(around, window, mode="valid", method="fft")))
        scores.append(_pesq(window, around[lag : lag + size]))
    return float(np.mean(scores))


def _pesq(voice: Wave, heard: Wave) -> float:
    try:
        return float(pesq(SCORE_RATE_HZ, _samples(voice), _samples(heard), "nb"))
    except NoUtterancesError:
        return 1.0


def _talk(phrases: Sequence[Wave], samples: int, pause_s: tuple[float, float], rng: np.random.Generator) -> Wave:
    parts: list[Wave] = []
    while sum(map(len, parts)) < samples:
        pause = np.zeros(int(rng.uniform(*pause_s) * SAMPLE_RATE_HZ))
        parts += [at_speech_level(phrases[len(parts) // 2 % len(phrases)]), pause]
    return np.concatenate(parts)[:samples]


def at_speech_level(sound: Wave) -> Wave:
    """SPEECH_LEVEL where it is active: within 30 dB of its loudest 10 ms."""
    powers = np.square(sound[: len(sound) // 480 * 480].reshape(-1, 480)).mean(axis=1)
    return sound * (SPEECH_LEVEL / np.sqrt(powers[powers > powers.max() / 1000].mean()))


def _other_clock(sound: Wave, ppm: float) -> Wave:
    at = np.arange(len(sound)) * (1 + ppm * 1e-6)
    whole = np.clip(at.astype(int), 1, len(sound) - 3)
    part = at - whole
    before, here, after, beyond = (sound[whole + offset] for offset in (-1, 0, 1, 2))
    outer = part * (part - 1) * ((part + 1) * beyond - (part - 2) * before) / 6
    return outer + (part + 1) * (part - 2) * ((part - 1) * here - part * after) / 2


def _samples(sound: Wave) -> Samples:
    return np.clip(np.round(sound), -32768, 32767).astype(np.int16)
