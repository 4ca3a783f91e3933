"""Echo through the whole media process: what it plays is what its microphone hears, by a null sink and its monitor."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent import ipc
from hardware.api import SAMPLE_RATE_HZ
from hardware.devices import open_speaker
from tests.adapters.media_bench import MediaBench
from tests.e2e import speech
from tests.sound_server import sound_server
from tests.timing import in_real_time

DEVICES = {
    "camera": "none",
    "board": "none",
    "microphone": "device:clinic_microphone",
    "speaker": "device:clinic_speaker",
}
SETTLED_S, ALONE_S, BOTH_S = 3, 6, 9


@pytest.fixture(scope="module", autouse=True)
def cards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with sound_server(tmp_path_factory.mktemp("pulse")):
        yield


async def captured(folder: Path, echo: str, doctor: Path, seconds: float) -> NDArray[np.int16]:
    """What the microphone gave while the speaker played the doctor's voice, from its first sound on."""
    note = folder / f"{echo}.ogg"
    async with MediaBench(folder, DEVICES, settings={"sound": {"echo": echo}}).running() as bench:
        await bench.expect(ipc.MediaReady)
        bench.send(ipc.Play("doctor", str(doctor), loop=True))
        bench.send(ipc.StartRecording("note", str(note), max_seconds=seconds))
        recorded = await bench.expect(ipc.Recorded, within_s=seconds + 10)
    assert recorded.error == ""
    with av.open(str(note)) as container:
        return np.concatenate([np.frombuffer(frame, np.int16) for frame in _mono(container)])


def _mono(container: av.container.InputContainer) -> Iterator[bytes]:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
    for frame in container.decode(audio=0):
        yield from (converted.to_ndarray()[0].tobytes() for converted in resampler.resample(frame))


def level_db(sound: NDArray[np.int16]) -> float:
    return float(10 * np.log10(np.square(sound[SETTLED_S * SAMPLE_RATE_HZ :], dtype=np.float64).mean() + 1e-3))


@in_real_time
def test_what_is_played_is_taken_out_of_what_is_captured(tmp_path: Path) -> None:
    doctor = tmp_path / "doctor.wav"
    speech.speak(*speech.DOCTOR, doctor)
    with_echo, clean = (
        level_db(asyncio.run(captured(tmp_path, echo, doctor, ALONE_S))) for echo in ("none", "software")
    )
    assert with_echo > 50  # of 90: it was heard
    assert clean <= with_echo - 20


@in_real_time
def test_who_speaks_in_the_room_is_heard_all_the_same(tmp_path: Path) -> None:
    doctor = tmp_path / "doctor.wav"
    speech.speak(*speech.DOCTOR, doctor)
    patient = speech.speak(*speech.PATIENT, tmp_path / "patient.wav")

    def speak_later() -> None:
        """Into the same sink, past the media process: its microphone hears both."""
        speaker = open_speaker("device:clinic_speaker")
        speaker.write(np.concatenate([np.zeros(SETTLED_S * SAMPLE_RATE_HZ, np.int16), patient]))
        speaker.close()

    speaking = threading.Thread(target=speak_later)
    speaking.start()
    sound = asyncio.run(captured(tmp_path, "software", doctor, SETTLED_S + BOTH_S))
    speaking.join()
    assert speech.heard(patient, sound[SETTLED_S * SAMPLE_RATE_HZ :]).share >= 0.9
