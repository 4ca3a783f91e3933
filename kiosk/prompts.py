"""What the kiosk says: WAV files for the media process to play.

A clinic's recording comes first, then espeak-ng, then nothing: tones always work. Everything with known words is made
ahead by `make_ahead`, so that a press never waits; the tones are there as soon as the object is. `path` and `speak`
may run espeak-ng for a tenth of a second: a caller on an event loop takes `ready`, or awaits them in a thread.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import threading
import wave
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from string import Formatter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hardware.wav import without_sound_server
from kiosk.language import Language

log = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 48_000
WORDS_A_MINUTE = 140  # calm; espeak-ng's own is 175
LOUDNESS = 150  # of 200
ESPEAK_TIMEOUT_S = 20.0
MAX_SPOKEN_CHARACTERS = 4_000  # about five minutes
KEPT_SPEECHES = 8  # of `speak`: they may be about a patient, so none outlives the next start either

TONE_PRESS = "tone_press"  # at once on a press: it was felt
TONE_RINGING = "tone_ringing"  # looped while it rings at the doctor's
TONE_INCOMING = "tone_incoming"  # looped while the doctor rings the kiosk
TONE_RECORD = "tone_record"  # speak now
TONE_RECORDED = "tone_recorded"
TONE_PHOTO = "tone_photo"
TONE_LOST = "tone_lost"
TONE_END = "tone_end"


class Speech(Protocol):
    """Makes speech of text; raises OSError where it cannot."""

    def __call__(self, text: str, voice: str, target: Path) -> None: ...


class Prompts:
    """`cache_dir` is this object's own. `recordings_dir/<language>/<key>.wav` replaces the spoken sentence `key`."""

    def __init__(
        self,
        cache_dir: Path,
        recordings_dir: Path | None = None,
        languages: Iterable[str] = ("en",),
        speech: Speech | None = None,
        spoken_dir: Path | None = None,
    ) -> None:
        """`spoken_dir`: where `speak` writes. Advice is for no card, so the agent gives a place in memory."""
        self._cache = cache_dir
        self._spoken_dir = spoken_dir or cache_dir / "spoken"
        self._recordings = recordings_dir
        self._languages = tuple(languages)
        self._speech: Speech | None = speech or _espeak_if_there()
        self._closed = threading.Event()
        self._maker: threading.Thread | None = None
        self._bad_recordings: set[Path] = set()
        self._speeches: list[Path] = []
        for spoken in (self._spoken_dir, cache_dir / "spoken"):
            shutil.rmtree(spoken, ignore_errors=True)
        try:
            for name, samples in _tones().items():
                if not _is_wav(self._tone_file(name)):
                    _write_wav(self._tone_file(name), samples)
        except OSError as error:  # a full disk must not keep the kiosk from starting
            log.warning("tones cannot be written, the kiosk stays silent: %s", error)
        if self._speech is None:
            log.warning("speech missing: only tones are played; install espeak-ng, or give recordings (prompts_dir)")

    @property
    def speaks(self) -> bool:
        """False where espeak-ng is missing: show the notice `speech_missing`."""
        return self._speech is not None

    def tone(self, name: str) -> Path:
        """One of the TONE_ names; there from the start."""
        return self._tone_file(name)

    def ready(self, key: str, language: str, **values: object) -> Path | None:
        """What `path` gives when it needs not make anything, else None. Never blocks."""
        if recording := self._recording(key, language):
            return recording
        file = self._prompt_file(key, language, values)
        return file if file.is_file() else None

    def path(self, key: str, language: str, **values: object) -> Path | None:
        """The sentence `key` as a WAV, made now if need be; None where nothing can speak it."""
        if there := self.ready(key, language, **values):
            return there
        spoken = Language.load(language)
        return self._make(spoken.say(key, **values), spoken.voice, self._prompt_file(key, language, values))

    def speak(self, text: str, language: str) -> Path | None:
        """Text of any length, such as a clinic's instruction or a doctor's advice; only the last few are kept."""
        voice = Language.load(language).voice
        text = text[:MAX_SPOKEN_CHARACTERS]
        file = self._spoken_dir / f"{_digest(voice, text)}.wav"
        made = file if file.is_file() else self._make(text, voice, file)
        if made:
            self._speeches = [old for old in self._speeches if old != made] + [made]
            for old in self._speeches[:-KEPT_SPEECHES]:
                old.unlink(missing_ok=True)
            self._speeches = self._speeches[-KEPT_SPEECHES:]
        return made

    def make_ahead(self) -> None:
        """Starts a thread that makes every sentence with known words, the first language first, and clears away what
        no sentence needs any more. `close` ends it."""
        if self._maker is None:
            self._maker = threading.Thread(target=self._make_all, name="prompts", daemon=True)
            self._maker.start()

    def close(self) -> None:
        self._closed.set()
        if self._maker is not None:
            self._maker.join()

    def _make_all(self) -> None:
        wanted: set[Path] = set()
        for code in self._languages:
            for key, sentence in Language.load(code).prompts.items():
                if self._closed.is_set():
                    return
                if any(field for _, field, _, _ in Formatter().parse(sentence)):
                    continue  # it waits for a name or number
                wanted.add(self._prompt_file(key, code, {}))
                self.path(key, code)
        for file in self._cache.glob("*/*.wav"):
            if file.parent not in (self._spoken_dir, self._tone_dir) and file not in wanted:
                file.unlink(missing_ok=True)
        log.info("prompts ready count=%d", len(wanted))

    def _recording(self, key: str, language: str) -> Path | None:
        if self._recordings is None:
            return None
        file = self._recordings / language / f"{key}.wav"
        if not file.is_file() or file in self._bad_recordings:
            return None
        if not _is_wav(file):
            self._bad_recordings.add(file)
            log.warning("prompt unreadable file=%s: not a WAV with sound in it; the spoken sentence is used", file)
            return None
        return file

    def _make(self, text: str, voice: str, target: Path) -> Path | None:
        if self._speech is None or not text.strip():
            return None
        part = target.with_name(f".{target.stem}-{threading.get_ident()}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._speech(text, voice, part)
            os.replace(part, target)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            log.warning("speech failed voice=%s: %s", voice, error)
            return None
        return target

    @property
    def _tone_dir(self) -> Path:
        return self._cache / "tones"

    def _tone_file(self, name: str) -> Path:
        return self._tone_dir / f"{name}.wav"

    def _prompt_file(self, key: str, language: str, values: dict[str, object]) -> Path:
        # The name holds the words: a changed sentence or voice is made anew.
        spoken = Language.load(language)
        return self._cache / language / f"{key}-{_digest(spoken.voice, spoken.say(key, **values))}.wav"


def _digest(voice: str, text: str) -> str:
    return hashlib.sha256(f"{voice}\n{WORDS_A_MINUTE}\n{text}".encode()).hexdigest()[:16]


def _espeak_if_there() -> Speech | None:
    program = shutil.which("espeak-ng")
    if program is None:
        return None

    def speak(text: str, voice: str, target: Path) -> None:
        command = [program, "-v", voice, "-s", str(WORDS_A_MINUTE), "-a", str(LOUDNESS), "-w", str(target), "--stdin"]
        try:
            # By standard input: a text that begins with a hyphen is no option. "[[" would start phonemes.
            subprocess.run(
                command, input=text.replace("[[", "[ ["), encoding="utf-8", check=True, capture_output=True,
                timeout=ESPEAK_TIMEOUT_S, env=without_sound_server(),
            )  # fmt: skip
        except subprocess.SubprocessError as error:
            raise OSError(f"espeak-ng: {error}") from error
        if not _is_wav(target):
            raise OSError(f"espeak-ng made no sound of {len(text)} characters")

    return speak


# --- sound


def _is_wav(file: Path) -> bool:
    try:
        with wave.open(str(file), "rb") as sound:
            return sound.getnframes() > 0
    except (OSError, EOFError, wave.Error):
        return False


def _write_wav(file: Path, samples: NDArray[np.float64]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.stem}-{os.getpid()}.part")
    with wave.open(str(part), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE_HZ)
        sound.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    os.replace(part, file)


def _note(frequency_hz: float, seconds: float, peak: float = 0.4) -> NDArray[np.float64]:
    """A soft bell: a sine with a little of its octave, swelling and dying away so that nothing clicks."""
    time = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    wave_form = np.sin(2 * np.pi * frequency_hz * time) + 0.25 * np.sin(4 * np.pi * frequency_hz * time)
    swell = np.minimum(time / 0.008, 1) * np.minimum((seconds - time) / 0.03, 1)
    note: NDArray[np.float64] = peak / 1.25 * wave_form * swell * np.exp(-2.0 * time)
    return note


def _silence(seconds: float) -> NDArray[np.float64]:
    return np.zeros(int(seconds * SAMPLE_RATE_HZ))


def _tones() -> dict[str, NDArray[np.float64]]:
    join = np.concatenate
    shutter = np.random.default_rng(1).normal(0, 0.25, int(0.05 * SAMPLE_RATE_HZ)) * np.linspace(1, 0, 2400) ** 2
    return {
        TONE_PRESS: join([_note(660, 0.09), _note(880, 0.16)]),
        TONE_RINGING: join([_note(440, 0.5, 0.3), _silence(0.15), _note(554, 0.5, 0.3), _silence(2.35)]),
        TONE_INCOMING: join([_note(784, 0.22), _note(988, 0.22), _note(784, 0.22), _note(988, 0.3), _silence(1.3)]),
        TONE_RECORD: _note(880, 0.35, 0.5),
        TONE_RECORDED: join([_note(880, 0.12), _note(660, 0.2)]),
        TONE_PHOTO: join([shutter, _silence(0.03), 0.6 * shutter]),
        TONE_LOST: join([_note(523, 0.2), _silence(0.05), _note(392, 0.35)]),
        TONE_END: join([_note(660, 0.15), _note(523, 0.15), _note(440, 0.35)]),
    }
