"""Microphone, speaker and camera of a measured kiosk: they obey `hardware.api`, keep real time, and note when each
sound was said or played and each picture taken."""

from __future__ import annotations

import struct
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hardware.api import SAMPLE_RATE_HZ, CameraUnavailable, Picture
from hardware.pacing import Beat
from hardware.wav import NullSpeaker, SampleMicrophone
from tests.bench.marks import Sighting
from tests.bench.material import picture_at
from tests.bench.recording import PieceWriter
from tests.e2e.pictures import HEIGHT, LOOP, RATE, WIDTH

MOUTH, EAR, LENS = "mouth.pieces", "ear.pieces", "lens.sightings"
_SIGHTING = struct.Struct("<dI")


class NotingMicrophone(SampleMicrophone):
    def __init__(self, sound: Path, notes: Path) -> None:
        super().__init__(sound, sound.name)
        self._notes = PieceWriter(notes)

    def read(self) -> NDArray[np.int16]:
        block = super().read()
        self._notes.write(time.monotonic(), SAMPLE_RATE_HZ, block)
        return block


class NotingSpeaker(NullSpeaker):
    """Sound is played when its turn in the queue has come, not when it is written."""

    def __init__(self, notes: Path) -> None:
        super().__init__()
        self._notes = PieceWriter(notes)

    def _keep(self, samples: NDArray[np.int16]) -> None:
        self._notes.write(self._ends_at, SAMPLE_RATE_HZ, samples)


class NotingCamera:
    """The film in real time; a picture that nobody reads in time is skipped."""

    def __init__(self, film: Path, notes: Path) -> None:
        self.width, self.height, self.rate = WIDTH, HEIGHT, Fraction(RATE)
        self._film = film
        self._notes = notes.open("ab", buffering=0)
        self._beat = Beat(RATE, patience_s=1 / RATE)

    def read(self) -> Picture:
        beat = self._beat.wait()
        if beat is None:
            raise CameraUnavailable("the camera is closed")
        index, due = beat
        pixels = picture_at(self._film, index)
        self._notes.write(_SIGHTING.pack(due, index % LOOP))
        return Picture(pixels, due)

    def close(self) -> None:
        self._beat.close()


def read_sightings(path: Path) -> list[Sighting]:
    data = path.read_bytes() if path.exists() else b""
    return list(_SIGHTING.iter_unpack(data[: len(data) // _SIGHTING.size * _SIGHTING.size]))
