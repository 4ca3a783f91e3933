from __future__ import annotations

import logging
import shutil
import threading
import wave
from pathlib import Path

import numpy as np
import pytest

from kiosk import prompts as prompts_module
from kiosk.language import Language
from kiosk.prompts import KEPT_SPEECHES, TONE_PRESS, TONE_RINGING, Prompts


class Voice:
    """Makes a short WAV of any text and keeps what it was asked for."""

    def __init__(self) -> None:
        self.spoken: list[tuple[str, str]] = []
        self.broken = False

    def __call__(self, text: str, voice: str, target: Path) -> None:
        self.spoken.append((text, voice))
        if self.broken:
            target.write_bytes(b"half a fi")
            raise OSError("no sound")
        write_wav(target)


def write_wav(path: Path, frames: int = 480) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(48_000)
        sound.writeframes(bytes(2 * frames))


def test_a_sentence_is_made_once_and_kept(tmp_path: Path) -> None:
    voice = Voice()
    prompts = Prompts(tmp_path, speech=voice)
    assert prompts.ready("calling", "en") is None
    first = prompts.path("calling", "en")
    assert first is not None
    assert first.is_file()
    assert prompts.path("calling", "en") == first == prompts.ready("calling", "en")
    assert Prompts(tmp_path, speech=voice).ready("calling", "en") == first
    assert voice.spoken == [(Language.load("en").say("calling"), "en-gb")]


def test_values_make_sentences_of_their_own(tmp_path: Path) -> None:
    voice = Voice()
    prompts = Prompts(tmp_path, speech=voice)
    one = prompts.path("doctor_named_coming", "sw", doctor="Dr. One")
    other = prompts.path("doctor_named_coming", "sw", doctor="Dr. Two")
    assert one != other
    assert [text for text, _ in voice.spoken] == [
        "Dr. One anakuja. Tafadhali kaa hapa.",
        "Dr. Two anakuja. Tafadhali kaa hapa.",
    ]


def test_a_recording_comes_first_in_its_language(tmp_path: Path) -> None:
    recording = tmp_path / "recordings/fr/calling.wav"
    write_wav(recording)
    prompts = Prompts(tmp_path / "cache", tmp_path / "recordings", ("en", "fr"), speech=Voice())
    assert prompts.path("calling", "fr") == recording == prompts.ready("calling", "fr")
    assert prompts.path("calling", "en") != recording


@pytest.mark.parametrize("content", [b"", b"RIFF", b"\xff\xfb mp3", b"RIFF\x24\0\0\0WAVE"])
def test_a_recording_that_is_none_is_told_once_and_spoken_instead(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / "recordings/en/calling.wav"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(content)
    prompts = Prompts(tmp_path / "cache", tmp_path / "recordings", speech=Voice())
    for _ in range(3):
        path = prompts.path("calling", "en")
        assert path is not None
        assert path != bad
    assert [r.levelno for r in caplog.records if str(bad) in r.getMessage()] == [logging.WARNING]


def test_everything_with_known_words_is_made_ahead(tmp_path: Path) -> None:
    stale = tmp_path / "en/calling-0123456789abcdef.wav"
    write_wav(stale)
    prompts = Prompts(tmp_path, languages=("sw", "en"), speech=Voice())
    prompts.make_ahead()
    prompts.close()
    # `close` ends the making, so let another one finish what is left
    finishing = Prompts(tmp_path, languages=("sw", "en"), speech=Voice())
    finishing.make_ahead()
    assert finishing._maker is not None
    finishing._maker.join(30)
    for code in ("sw", "en"):
        for key, sentence in Language.load(code).prompts.items():
            if "{" not in sentence:
                assert finishing.ready(key, code) is not None, key
    assert not stale.exists()
    assert finishing.tone(TONE_PRESS).is_file()


def test_close_does_not_wait_for_the_whole_list(tmp_path: Path) -> None:
    started, go_on = threading.Event(), threading.Event()
    spoken = []

    def slow(text: str, voice: str, target: Path) -> None:
        spoken.append(text)
        started.set()
        go_on.wait(10)
        write_wav(target)

    prompts = Prompts(tmp_path, languages=("en",), speech=slow)
    prompts.make_ahead()
    assert started.wait(10)
    closing = threading.Thread(target=prompts.close)
    closing.start()
    prompts._closed.wait(10)
    go_on.set()
    closing.join(10)
    assert not closing.is_alive()
    assert len(spoken) == 1


def test_a_failing_voice_leaves_nothing_behind(tmp_path: Path) -> None:
    voice = Voice()
    voice.broken = True
    prompts = Prompts(tmp_path, speech=voice)
    assert prompts.path("calling", "en") is None
    assert list(tmp_path.glob("en/*")) == []
    assert list(tmp_path.glob("en/.*")) == []
    voice.broken = False
    assert prompts.path("calling", "en") is not None


def test_speeches_are_few_and_do_not_outlive_a_start(tmp_path: Path) -> None:
    voice = Voice()
    prompts = Prompts(tmp_path, speech=voice)
    first = prompts.speak("Stay with the patient.", "en")
    assert first is not None
    assert prompts.speak("Stay with the patient.", "en") == first
    assert len(voice.spoken) == 1
    for number in range(KEPT_SPEECHES + 3):
        assert prompts.speak(f"Advice {number}", "en") is not None
    assert len(list((tmp_path / "spoken").glob("*.wav"))) == KEPT_SPEECHES
    assert not first.exists()
    assert prompts.speak("  \n ", "en") is None
    Prompts(tmp_path, speech=voice)
    assert not list((tmp_path / "spoken").glob("*"))


def test_without_a_voice_there_are_tones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(prompts_module.shutil, "which", lambda program: None)
    prompts = Prompts(tmp_path)
    assert not prompts.speaks
    assert prompts.path("calling", "en") is None
    assert prompts.speak("Hello", "en") is None
    assert prompts.tone(TONE_PRESS).is_file()
    assert "espeak-ng" in caplog.text


def test_a_cache_that_cannot_be_written_does_not_keep_the_kiosk_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "cache"
    in_the_way.write_text("a file, not a folder")
    prompts = Prompts(in_the_way, speech=Voice())
    assert prompts.path("calling", "en") is None
    assert "tones cannot be written" in caplog.text


@pytest.mark.parametrize("name", [value for key, value in vars(prompts_module).items() if key.startswith("TONE_")])
def test_tones_are_48_khz_loud_and_do_not_click(tmp_path: Path, name: str) -> None:
    with wave.open(str(Prompts(tmp_path, speech=Voice()).tone(name)), "rb") as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (48_000, 1, 2)
        samples = np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2").astype(float) / 32768
    assert 0.1 < np.abs(samples).max() < 0.9
    assert abs(samples[-1]) < 0.01
    if name == TONE_RINGING:
        assert samples.size / 48_000 == pytest.approx(3.5, abs=0.1)
    if name == TONE_PRESS:  # heard at once
        assert np.abs(samples[: 48_000 // 20]).max() > 0.1


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
@pytest.mark.parametrize("code", ["en", "fr", "sw"])
def test_espeak_speaks_every_language(tmp_path: Path, code: str) -> None:
    path = Prompts(tmp_path).path("calling", code)
    assert path is not None
    with wave.open(str(path), "rb") as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2")
        assert 2 < samples.size / sound.getframerate() < 10
    assert np.abs(samples).max() > 3000


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
@pytest.mark.parametrize("text", ["-f /etc/passwd", "[[h@l'oU]] <break/> & \0 end", "x" * 9000])
def test_espeak_takes_any_text_as_text(tmp_path: Path, text: str) -> None:
    path = Prompts(tmp_path).speak(text, "en")
    assert path is not None
    assert path.stat().st_size > 1000
