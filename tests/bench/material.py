"""What is said and shown in a measured call: known speech, and a film whose pictures carry their numbers.

By default both are made on the spot. A folder of recordings (`--corpus`: `speech/*.wav`, `video/*`) gives real speech,
and a real film behind the numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hardware.numbered import draw_number
from hardware.wav import decode_wav
from tests.e2e.pictures import HEIGHT, LOOP, RATE, WIDTH
from tests.e2e.speech import DOCTOR, LOOP_BLOCK, PATIENT, RATE_HZ, Samples, speak, write_wav

Grey = NDArray[np.uint8]

_RMS = 2600.0  # of what is spoken: -22 dB of full scale, a voice at a headset
_PAUSE_S = 0.3
_LEAST_S = 12.0  # a loop must be longer than any lag that is looked for

_PATIENT_GOES_ON = (
    "en-gb-scotland",
    "She was here in March as well, with the same cough. Your colleague gave us syrup and it went away in a week. "
    "This morning she vomited twice. Her little brother is healthy, and nobody else in our house is ill.",
)
_DOCTOR_GOES_ON = (
    "en-gb+f2",
    "I would like to hear her chest. Could the nurse count how often she breathes while she is quiet? "
    "If it is more than forty, or if the skin between her ribs is drawn in, we will send her to the hospital today.",
)


class Material(NamedTuple):
    patient: Path  # WAV, looped by whoever says it
    doctor: Path
    film: Path  # Y4M of LOOP pictures
    originals: list[Grey]  # the same, as a perfect link would show them
    name: str


def prepare(folder: Path, corpus: Path | None) -> Material:
    """In `folder`, once."""
    folder.mkdir(parents=True, exist_ok=True)
    patient, doctor, film = folder / "patient.wav", folder / "doctor.wav", folder / "film.y4m"
    name = "espeak-ng and a drawn face"
    recordings = sorted((corpus / "speech").glob("*.wav")) if corpus else []
    if corpus and len(recordings) < 2:
        raise ValueError(f"{corpus}: two or more recordings are needed as {corpus}/speech/*.wav")
    if recordings:
        name = f"{len(recordings)} recordings of speech"
        _write_speech(patient, [_read(path) for path in recordings[0::2]])
        _write_speech(doctor, [_read(path) for path in recordings[1::2]])
    else:
        _write_speech(patient, [speak(*text, patient) for text in (PATIENT, _PATIENT_GOES_ON)])
        _write_speech(doctor, [speak(*text, doctor) for text in (DOCTOR, _DOCTOR_GOES_ON)])
    films = sorted((corpus / "video").glob("*.*")) if corpus else []
    if films:
        name += f", the film {films[0].stem}"
    originals = _write_film(film, _recorded(films[0]) if films else _drawn())
    return Material(patient, doctor, film, originals, name)


def picture_at(film: Path, number: int) -> NDArray[np.uint8]:
    """As BGR."""
    with film.open("rb") as file:
        heading = len(file.readline())
        size = WIDTH * HEIGHT * 3 // 2
        file.seek(heading + number % LOOP * (size + len(b"FRAME\n")) + len(b"FRAME\n"))
        planes = np.frombuffer(file.read(size), np.uint8).reshape(HEIGHT * 3 // 2, WIDTH)
    return np.asarray(cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420), np.uint8)


def grey(picture: NDArray[np.uint8]) -> Grey:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)


def _read(path: Path) -> Samples:
    return np.concatenate(list(decode_wav(path, path.name)))


def _write_speech(path: Path, parts: list[Samples]) -> None:
    """All at one loudness, over and over until it is long enough."""
    pause = np.zeros(int(_PAUSE_S * RATE_HZ))
    spoken: list[NDArray[np.float64]] = []
    for part in itertools.cycle(parts):
        if sum(map(len, spoken)) >= _LEAST_S * RATE_HZ and len(spoken) >= 2 * len(parts):
            break
        spoken += [_at_level(part.astype(np.float64)), pause]
    whole = np.concatenate(spoken)
    whole = np.pad(whole, (0, -len(whole) % LOOP_BLOCK))
    write_wav(path, np.clip(whole, -32768, 32767).astype(np.int16))


def _at_level(part: NDArray[np.float64]) -> NDArray[np.float64]:
    blocks = part[: len(part) // LOOP_BLOCK * LOOP_BLOCK].reshape(-1, LOOP_BLOCK)
    rms = np.sqrt((blocks**2).mean(axis=1))
    return part * (_RMS / rms[rms > rms.max() / 10].mean())


def _write_film(path: Path, pictures: Iterator[NDArray[np.uint8]]) -> list[Grey]:
    originals = []
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{RATE}:1 Ip A1:1 C420jpeg\n".encode())
        for number, picture in enumerate(itertools.islice(pictures, LOOP)):
            draw_number(picture, number)
            planes = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420)
            file.write(b"FRAME\n" + planes.tobytes())
            originals.append(grey(np.asarray(cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420), np.uint8)))
    return originals


def _recorded(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Every second picture of a film of 25 to 30 a second, forwards and backwards so that the loop has no seam."""
    capture = cv2.VideoCapture(str(path))
    pictures = []
    while len(pictures) < 2 * LOOP:
        good, picture = capture.read()
        if not good:
            break
        pictures.append(cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))
    capture.release()
    if len(pictures) < 8:
        raise ValueError(f"{path} is no film that can be shown")
    there = pictures[::2]
    for picture in itertools.cycle(there + there[-2:0:-1]):
        yield np.asarray(picture, np.uint8).copy()


def _drawn() -> Iterator[NDArray[np.uint8]]:
    """A face that nods and speaks before a wall with some texture, taken by a camera with some noise."""
    random = np.random.default_rng(7)
    wall = np.linspace(70, 150, WIDTH, dtype=np.float32)[np.newaxis, :, np.newaxis] + np.zeros(
        (HEIGHT, 1, 3), np.float32
    )
    wall += cv2.GaussianBlur(random.normal(0, 60, (HEIGHT, WIDTH, 3)).astype(np.float32), (0, 0), 3)
    skin, dark, red = (120, 150, 205), (40, 40, 50), (90, 80, 190)
    for number in range(LOOP):
        turn = 2 * np.pi * number / LOOP
        picture = wall.clip(0, 255).astype(np.uint8)
        x = round(WIDTH * (0.5 + 0.06 * np.sin(2 * turn)))
        y = round(HEIGHT * (0.42 + 0.03 * np.sin(5 * turn)))
        cv2.ellipse(picture, (x, HEIGHT), (WIDTH // 4, HEIGHT // 3), 0, 0, 360, (110, 70, 60), -1, cv2.LINE_AA)
        cv2.ellipse(picture, (x, y), (WIDTH // 9, HEIGHT // 5), 4 * np.sin(3 * turn), 0, 360, skin, -1, cv2.LINE_AA)
        for side in (-1, 1):
            cv2.circle(picture, (x + side * WIDTH // 24, y - HEIGHT // 24), 9, (235, 235, 235), -1, cv2.LINE_AA)
            cv2.circle(picture, (x + side * WIDTH // 24 + round(3 * np.sin(turn)), y - HEIGHT // 24), 4, dark, -1)
        mouth = 4 + round(8 * abs(np.sin(11 * turn)))
        cv2.ellipse(picture, (x, y + HEIGHT // 12), (26, mouth), 0, 0, 360, red, -1, cv2.LINE_AA)
        noise = random.normal(0, 2.0, picture.shape)
        yield (picture + noise).clip(0, 255).astype(np.uint8)
