"""Sound without sound hardware, in real time: WAV files in and out, a speaker into nothing, and a spoken message.

What these give and take is what `hardware.api` asks of a microphone and a speaker: mono, 48 kHz, int16.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ, SoundUnavailable
from hardware.pacing import Beat

log = logging.getLogger(__name__)

SPEAKER_QUEUE_S = 0.04
_CATCH_UP_S = 0.2  # what a late reader of a microphone still gets, as from a sound card's buffer
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_MAX_WAV_BYTES = 0xFFFF_FFFF - _HEADER.size  # the format counts in 32 bits: 12 hours
_HEADER_EVERY_S = 0.5


class SampleMicrophone:
    """Plays `sound` over and over as if somebody spoke it, `pause_s` apart."""

    def __init__(self, sound: Path | bytes, name: str, pause_s: float = 0.0) -> None:
        self._sound, self._name = sound, name
        self._pause = np.zeros(int(pause_s * SAMPLE_RATE_HZ), np.int16)
        self._pieces = self._play()
        self._rest = next(self._pieces)
        self._beat = Beat(SAMPLE_RATE_HZ / BLOCK_SAMPLES, patience_s=_CATCH_UP_S)

    def read(self) -> NDArray[np.int16]:
        if self._beat.wait() is None:
            raise SoundUnavailable("the microphone is closed")
        while len(self._rest) < BLOCK_SAMPLES:
            piece = next(self._pieces, None)
            if piece is None:  # it failed before and was read again
                raise SoundUnavailable(f"{self._name} can no longer be read", "was the file removed or overwritten?")
            self._rest = np.concatenate((self._rest, piece))
        block, self._rest = self._rest[:BLOCK_SAMPLES], self._rest[BLOCK_SAMPLES:]
        return block

    def close(self) -> None:
        self._beat.close()

    def _play(self) -> Iterator[NDArray[np.int16]]:
        while True:
            length = 0
            for samples in decode_wav(self._sound, self._name):
                length += len(samples)
                yield samples
            if length == 0:
                raise SoundUnavailable(f"{self._name} holds no sound", "record it again")
            yield self._pause


def decode_wav(sound: Path | bytes, name: str) -> Iterator[NDArray[np.int16]]:
    """A WAV of any rate, channels and sample width as mono 48 kHz int16, piece by piece. Raises SoundUnavailable."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
    try:
        source = io.BytesIO(sound) if isinstance(sound, bytes) else str(sound)
        with av.open(source, "r", format="wav") as container:
            for frame in container.decode(container.streams.audio[0]):
                frame.pts = None
                for converted in resampler.resample(frame):
                    yield converted.to_ndarray()[0]
            for converted in resampler.resample(None):
                yield converted.to_ndarray()[0]
    except FileNotFoundError:
        raise SoundUnavailable(f"there is no sound file {name}", "check the path after wav:") from None
    except (OSError, ValueError, IndexError, av.FFmpegError) as error:
        raise SoundUnavailable(f"{name} is no WAV that can be played ({error})", "give a PCM or float WAV") from None


class NullSpeaker:
    """Takes sound at the pace of a sound card and lets it go."""

    def __init__(self) -> None:
        self._closed = threading.Event()
        self._ends_at = 0.0  # monotonic time at which all that was written has been played

    def write(self, samples: NDArray[np.int16]) -> None:
        if self._closed.is_set():
            raise SoundUnavailable("the speaker is closed")
        for start in range(0, len(samples), BLOCK_SAMPLES):
            piece = samples[start : start + BLOCK_SAMPLES]
            now = time.monotonic()
            if now > self._ends_at:
                missing = now - self._ends_at if self._ends_at else 0.0
                self._keep_silence(round(missing * SAMPLE_RATE_HZ))
                self._ends_at = now
            self._keep(piece)
            self._ends_at += len(piece) / SAMPLE_RATE_HZ
            if self._closed.wait(max(0.0, self._ends_at - SPEAKER_QUEUE_S - now)):
                return

    def close(self) -> None:
        self._closed.set()

    def _keep(self, samples: NDArray[np.int16]) -> None:
        pass

    def _keep_silence(self, count: int) -> None:
        pass


class WavSpeaker(NullSpeaker):
    """Writes what a sound card would have played: what came late is preceded by the silence that was heard instead.
    The header is kept true as the file grows, so a killed process leaves a WAV that plays."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._bytes = 0
        self._header_at = 0.0
        self._lock = threading.Lock()  # close comes from another thread than write
        try:
            self._file: BinaryIO = path.open("wb")
            self._write_header()
        except OSError as error:
            raise self._unavailable(error) from None

    def close(self) -> None:
        super().close()
        with self._lock:
            if not self._file.closed:
                try:
                    self._write_header()
                    self._file.close()
                except OSError as error:
                    log.warning("sound file left incomplete path=%s error=%s", self._path, error)

    def _keep(self, samples: NDArray[np.int16]) -> None:
        self._append(samples.astype("<i2", copy=False).tobytes())

    def _keep_silence(self, count: int) -> None:
        second = bytes(SAMPLE_RATE_HZ * 2)
        for _ in range(count // SAMPLE_RATE_HZ):
            self._append(second)
        self._append(bytes(count % SAMPLE_RATE_HZ * 2))

    def _append(self, data: bytes) -> None:
        with self._lock:
            if self._file.closed:
                return
            if self._bytes + len(data) > _MAX_WAV_BYTES:
                raise SoundUnavailable(f"{self._path} is full: a WAV holds 4 GB", "restart with another file")
            try:
                self._file.write(data)
                self._bytes += len(data)
                now = time.monotonic()
                if now - self._header_at >= _HEADER_EVERY_S:
                    self._header_at = now
                    self._write_header()
            except OSError as error:
                raise self._unavailable(error) from None

    def _write_header(self) -> None:
        self._file.seek(0)
        self._file.write(_wav_header(self._bytes))
        self._file.seek(0, io.SEEK_END)
        self._file.flush()

    def _unavailable(self, error: OSError) -> SoundUnavailable:
        return SoundUnavailable(
            f"{self._path} cannot be written: {error.strerror or error}",
            "check the folder after wav: and the free disk",
        )


def _wav_header(data_bytes: int) -> bytes:
    """Mono, 48 kHz, 16 bit."""
    rate, riff_bytes = SAMPLE_RATE_HZ, data_bytes + _HEADER.size - 8
    return _HEADER.pack(b"RIFF", riff_bytes, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16, b"data", data_bytes)


# --- the synthetic microphone

SPOKEN_MESSAGE = (
    "Good day. This is the teleconsult kit, speaking in place of a patient. The picture and the sound you receive "
    "are made by the machine, so that you can try every part of a consultation."
)
_MESSAGE_PAUSE_S = 1.5
_ESPEAK_TIMEOUT_S = 20.0


def synthetic_microphone() -> SampleMicrophone:
    """A spoken message, over and over; a soft melody where espeak-ng is missing."""
    return SampleMicrophone(_spoken_message() or _soft_melody(), "the synthetic message", _MESSAGE_PAUSE_S)


def without_sound_server() -> dict[str, str]:
    """The environment for espeak-ng: it asks for PulseAudio even when it only writes a file, which makes files in the
    home folder and may start a daemon."""
    return {**os.environ, "PULSE_SERVER": "/nonexistent"}


@cache
def _spoken_message() -> bytes | None:
    try:
        done = subprocess.run(
            ["espeak-ng", "-v", "en", "-s", "150", "--stdout", SPOKEN_MESSAGE],
            capture_output=True,
            timeout=_ESPEAK_TIMEOUT_S,
            check=True,
            env=without_sound_server(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.info("no spoken message, a melody instead reason=%s", error)
        return None
    return done.stdout


@cache
def _soft_melody() -> bytes:
    seconds = np.arange(int(0.5 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    swell = np.sin(np.pi * seconds / 0.5) ** 2
    notes = [np.sin(2 * np.pi * pitch * seconds) * swell for pitch in (392.0, 523.3, 659.3, 523.3)]
    data = (np.concatenate(notes) * 6000).astype("<i2").tobytes()
    return _wav_header(len(data)) + data
