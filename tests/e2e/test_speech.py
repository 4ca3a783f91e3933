"""The measure itself: clean, degraded, broken and silent recordings of known speech."""

from pathlib import Path

import numpy as np
import pytest

from tests.e2e import speech
from tests.e2e.speech import DOCTOR, LOOP_BLOCK, PATIENT, RATE_HZ, heard, read_wav, speak


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    return speak(*PATIENT, tmp_path_factory.mktemp("speech") / "patient.wav")


def looped(samples: np.ndarray, seconds: float, start_s: float = 0.0) -> np.ndarray:
    start = int(start_s * RATE_HZ)
    return np.take(samples, np.arange(start, start + int(seconds * RATE_HZ)), mode="wrap")


def test_speech_is_a_loop_of_whole_blocks(spoken):
    assert 8 * RATE_HZ <= len(spoken) <= 14 * RATE_HZ
    assert len(spoken) % LOOP_BLOCK == 0


def test_a_file_still_being_written_is_read(spoken, tmp_path: Path):
    path = tmp_path / "part.wav"
    speech.write_wav(path, spoken)
    path.write_bytes(path.read_bytes()[: 44 + 2 * RATE_HZ + 1])  # cut within a sample, length in the header too long
    assert np.array_equal(read_wav(path), spoken[:RATE_HZ])


def test_a_clean_recording_scores_full_wherever_it_starts(spoken):
    result = heard(spoken, looped(spoken, 17, start_s=7.3))
    assert result.pesq > 4.4
    assert result.share == 1.0


def test_the_delay_is_found(spoken):
    late = np.concatenate([np.zeros(int(0.18 * RATE_HZ), np.int16), looped(spoken, 16)])
    assert heard(spoken, late).mouth_to_ear_ms == pytest.approx(180, abs=2)


def test_noise_lowers_the_score_and_not_the_share(spoken):
    clean = looped(spoken, 16).astype(np.float64)
    noise = np.random.default_rng(1).normal(0, 1500, len(clean))
    result = heard(spoken, (clean + noise).clip(-32768, 32767).astype(np.int16))
    assert 1.0 < result.pesq < 3.0
    assert result.share > 0.9


def test_a_gap_is_seen_in_the_share(spoken):
    recording = looped(spoken, 16).copy()
    recording[8 * RATE_HZ :] = 0
    result = heard(spoken, recording)
    assert 0.4 <= result.share <= 0.6
    assert result.windows[-1] == 1.0


def test_silence_is_not_heard(spoken):
    result = heard(spoken, np.zeros(9 * RATE_HZ, np.int16))
    assert (result.pesq, result.share) == (1.0, 0.0)


def test_the_other_voice_is_not_taken_for_this_one(spoken, tmp_path: Path):
    other = speak(*DOCTOR, tmp_path / "doctor.wav")
    result = heard(spoken, looped(other, 16))
    assert result.pesq < 2.0
    assert result.share < 0.3


def test_a_prompt_is_found_in_what_was_played(spoken, tmp_path: Path):
    prompt = speak("en", "I have heard you.", tmp_path / "heard.wav")
    other = speak("en", "The health centre has heard you.", tmp_path / "other.wav")
    played = np.concatenate([np.zeros(30_000, np.int16), prompt, np.zeros(20_000, np.int16)])
    assert speech.holds(played, prompt)
    assert not speech.holds(played, other)
    assert not speech.holds(prompt[:1000], prompt)


def test_the_first_sound_is_timed(spoken):
    start = int(0.4 * RATE_HZ)
    recording = np.concatenate([np.zeros(start, np.int16), np.full(100, 4000, np.int16)])
    assert speech.first_sound_s(recording) == pytest.approx(0.4)
    assert speech.first_sound_s(np.zeros(100, np.int16)) is None
