"""The echo canceller in a simulated room: what the doctor says does not come back, what the patient says does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.core.echo import EchoCanceller
from edge_agent.core.played import LATE_SAMPLES, LEAD_SAMPLES, PlayedSound
from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ
from tests import room
from tests.e2e import speech
from tests.room import Recording, Samples, Scene, erle_db, near_pesq, processed, without_echo

SHORT = Scene(alone_s=7, both_s=9)


class Cancelled:
    """The canceller as the microphone's thread runs it."""

    def __init__(self) -> None:
        self.played = PlayedSound()
        self.canceller = EchoCanceller()
        self.paces: list[float] = []

    def __call__(self, captured: Samples, played: Samples) -> Samples:
        timing = self.canceller.timing
        self.played.add(played.astype(np.float32) / np.float32(32768))
        reference = self.played.read(BLOCK_SAMPLES, timing.pace, timing.shift)
        clean = self.canceller.process(captured.astype(np.float32) / np.float32(32768), reference)
        self.paces.append(timing.pace)
        return np.clip(clean * 32768, -32768, 32767).astype(np.int16)


class Voices:
    def __init__(self, folder: Path) -> None:
        self.doctor = [speech.speak(*speech.DOCTOR, folder / "doctor.wav").astype(float)]
        self.patient = [speech.speak(*speech.PATIENT, folder / "patient.wav").astype(float)]

    def record(self, scene: Scene) -> Recording:
        return room.record(scene, self.doctor, self.patient)


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Voices:
    return Voices(tmp_path_factory.mktemp("voices"))


@pytest.mark.parametrize(("delay_ms", "echo_db", "drift_ppm"), [(20, -6, 50), (100, -12, -50), (250, -6, 50)])
def test_the_doctors_echo_goes_and_the_patients_voice_stays(
    voices: Voices, delay_ms: float, echo_db: float, drift_ppm: float
) -> None:
    recording = voices.record(replace(SHORT, delay_ms=delay_ms, echo_db=echo_db, drift_ppm=drift_ppm))
    clean = processed(recording, Cancelled())
    assert erle_db(recording, clean, 4, 7) >= 30
    alone = near_pesq(recording, processed(without_echo(recording), Cancelled()))
    both = near_pesq(recording, clean)
    assert both >= alone - 0.5, f"PESQ {alone:.2f} alone, {both:.2f} while both speak"
    assert near_pesq(recording, recording.captured) < alone - 1  # that there is something to take out


def test_the_first_words_hardly_echo(voices: Voices) -> None:
    recording = voices.record(SHORT)
    assert erle_db(recording, processed(recording, Cancelled()), 0.5, 2) >= 12


def test_the_devices_clocks_are_followed(voices: Voices) -> None:
    cancelled = Cancelled()
    processed(voices.record(replace(SHORT, drift_ppm=100)), cancelled)
    assert (cancelled.paces[-1] - 1) * 1e6 == pytest.approx(100, abs=5)


@pytest.mark.parametrize("other", [{"loudspeaker": (2.6, 0.9, 1.6)}, {"delay_ms": 115}, {"delay_ms": 75}])
def test_another_room_or_delay_is_learnt_anew(voices: Voices, other: dict[str, float]) -> None:
    scene = replace(SHORT, alone_s=14, both_s=1)
    recording = room.joined(voices.record(scene), voices.record(replace(scene, **other)), 7)
    clean = processed(recording, Cancelled())
    assert erle_db(recording, clean, 5, 7) >= 30
    assert erle_db(recording, clean, 11, 14) >= 20


def test_who_has_a_headset_is_heard_nearly_as_without_a_canceller(voices: Voices) -> None:
    recording = voices.record(replace(SHORT, echo_db=-200))
    assert near_pesq(recording, processed(recording, Cancelled())) >= near_pesq(recording, recording.captured) - 0.3


def test_where_nothing_is_played_the_sound_stays_as_it_is_and_does_not_wait() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * BLOCK_SAMPLES).astype(np.float32)
    canceller, silence = EchoCanceller(), np.zeros(BLOCK_SAMPLES, np.float32)
    clean = np.concatenate([canceller.process(block, silence) for block in noise.reshape(-1, BLOCK_SAMPLES)])
    assert clean == pytest.approx(noise, abs=1e-4)


# --- what is played

FIRST = 2  # samples: reading between them needs some on each side


def wave(count: int, hz: float = 1000.0) -> NDArray[np.float32]:
    return np.sin(2 * np.pi * hz / SAMPLE_RATE_HZ * np.arange(count)).astype(np.float32)


def test_what_is_played_is_read_between_its_samples() -> None:
    played, whole = PlayedSound(), wave(100 * BLOCK_SAMPLES)
    read = []
    for block in whole.reshape(-1, BLOCK_SAMPLES):
        played.add(block)
        read.append(played.read(BLOCK_SAMPLES, 1.0001, 0.0))
    heard = np.concatenate(read)[LEAD_SAMPLES:]
    expected = np.sin(2 * np.pi * 1000 / SAMPLE_RATE_HZ * (FIRST + np.arange(len(heard)) * 1.0001))
    assert heard == pytest.approx(expected, abs=0.001)


def test_a_late_callback_leaves_the_time_as_it_is() -> None:
    played, blocks = PlayedSound(), wave(20 * BLOCK_SAMPLES).reshape(-1, BLOCK_SAMPLES)
    for block in blocks[:2]:
        played.add(block)
    assert played.read(BLOCK_SAMPLES, 1.0, 0.0)[:-FIRST] == pytest.approx(blocks[0][FIRST:], abs=1e-4)
    played.read(BLOCK_SAMPLES, 1.0, 0.0)
    assert played.is_late(BLOCK_SAMPLES, 1.0, 0.0)
    assert not played.read(BLOCK_SAMPLES, 1.0, 0.0).any()
    for block in blocks[2:5]:
        played.add(block)
    late = played.read(BLOCK_SAMPLES, 1.0, 0.0)
    assert late[:-FIRST] == pytest.approx(blocks[3][FIRST:], abs=1e-4)
    assert played.starts == 1


def test_a_loudspeaker_that_is_opened_again_has_another_timing() -> None:
    played, block = PlayedSound(), wave(BLOCK_SAMPLES)
    for _ in range(2):
        played.add(block)
    for _ in range(3 + LATE_SAMPLES // BLOCK_SAMPLES):
        played.read(BLOCK_SAMPLES, 1.0, 0.0)
    assert not played.read(BLOCK_SAMPLES, 1.0, 0.0).any()
    for _ in range(2):
        played.add(block)
    assert played.read(BLOCK_SAMPLES, 1.0, 0.0).any()
    assert played.starts == 2


def test_a_microphone_that_stood_still_does_not_hear_the_past() -> None:
    played = PlayedSound()
    for number in range(100):
        played.add(np.full(BLOCK_SAMPLES, number, np.float32))
    assert played.read(BLOCK_SAMPLES, 1.0, 0.0).min() >= 97
