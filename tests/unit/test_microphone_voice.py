"""Noise and level of the microphone's sound: a clean voice stays what it is, a soft one becomes loud enough."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.media.echo import EchoPath, Voice
from hardware.api import BLOCK_SAMPLES
from tests.e2e import speech
from tests.room import at_speech_level, pesq_of

SETTLED = 12 * 50  # blocks


def voice() -> Voice:
    pytest.importorskip("pywebrtc_audio")
    made = EchoPath("software").voice()
    assert made is not None
    return made


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.float64]:
    """For 24 s, at the usual level."""
    spoken = at_speech_level(
        speech.speak(*speech.PATIENT, tmp_path_factory.mktemp("voice") / "patient.wav").astype(float)
    )
    return np.resize(spoken, 2 * SETTLED * BLOCK_SAMPLES)


def processed(sound: NDArray[np.float64], likely: float = 1.0) -> NDArray[np.int16]:
    chain = voice()
    blocks = np.clip(np.round(sound), -32768, 32767).astype(np.int16).reshape(-1, BLOCK_SAMPLES)
    return np.concatenate([chain.process(block, likely) for block in blocks])


def level_db(sound: NDArray[np.generic]) -> float:
    return float(10 * np.log10(np.square(sound.astype(float)).mean() + 1e-9))


def settled(sound: NDArray[np.generic]) -> NDArray[np.generic]:
    return sound[SETTLED * BLOCK_SAMPLES :]


def test_a_clean_voice_stays_as_it_is(patient: NDArray[np.float64]) -> None:
    clean = np.round(patient + noise(len(patient), -75))
    assert pesq_of(settled(patient), settled(processed(clean))) >= pesq_of(settled(patient), settled(clean)) - 0.1


def test_a_fan_is_less_loud_beside_the_voice(patient: NDArray[np.float64]) -> None:
    with_fan = patient + noise(len(patient), -50)
    assert pesq_of(settled(patient), settled(processed(with_fan))) >= pesq_of(settled(patient), settled(with_fan)) + 0.2


def test_the_usual_voice_begins_as_loud_as_it_is(patient: NDArray[np.float64]) -> None:
    first = patient[: 50 * BLOCK_SAMPLES]
    assert level_db(processed(first)) == pytest.approx(level_db(first), abs=3)


def test_a_soft_voice_becomes_louder(patient: NDArray[np.float64]) -> None:
    soft = patient * 10 ** (-15 / 20)
    assert level_db(settled(processed(soft))) >= level_db(settled(soft)) + 9


def test_what_is_left_of_an_echo_does_not(patient: NDArray[np.float64]) -> None:
    rest = patient * 10 ** (-15 / 20)
    assert level_db(settled(processed(rest, likely=0.0))) <= level_db(settled(rest)) + 1


def test_without_the_package_it_goes_on_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    path = EchoPath("software")
    with caplog.at_level(logging.WARNING):
        assert path.voice() is None
        assert path.voice() is None
    assert caplog.text.count("pip install pywebrtc-audio") == 1


def noise(samples: int, level_db: float) -> NDArray[np.float64]:
    """Full scale."""
    return np.random.default_rng(0).normal(0, 32768 * 10 ** (level_db / 20), samples)
