"""Sound without sound hardware: what goes in comes out, in real time, whatever the WAV is like."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import threading
import time
import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hardware import wav
from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ, SoundUnavailable
from hardware.wav import NullSpeaker, SampleMicrophone, WavSpeaker, decode_wav, synthetic_microphone
from tests.timing import in_real_time


def tone(seconds: float, rate: int = SAMPLE_RATE_HZ, pitch: float = 440.0) -> NDArray[np.float64]:
    return np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate) * 0.5


def write_wav(path: Path, samples: NDArray[np.float64], rate: int, channels: int, width: int) -> Path:
    """`samples` in -1..1, the same in every channel; width 4 is 32-bit PCM, 0 is 32-bit float."""
    many = np.repeat(samples, channels)
    match width:
        case 0:
            data = many.astype("<f4").tobytes()
        case 1:
            data = (many * 127 + 128).astype(np.uint8).tobytes()
        case 2:
            data = (many * 32767).astype("<i2").tobytes()
        case 3:
            data = (many * 8388607).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
        case _:
            data = (many * 2147483647).astype("<i4").tobytes()
    width, kind = (width, 1) if width else (4, 3)
    frame = channels * width
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, kind, channels, rate, rate * frame, frame, width * 8)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    path.write_bytes(struct.pack("<4sI", b"RIFF", len(body)) + body)
    return path


def read_wav(path: Path) -> NDArray[np.int16]:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, SAMPLE_RATE_HZ)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def read_for(microphone: SampleMicrophone, seconds: float) -> None:
    for _ in range(round(seconds * 50)):
        microphone.read()


@pytest.mark.parametrize("width", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(("rate", "channels"), [(48_000, 1), (44_100, 2), (8_000, 1), (22_050, 2), (96_000, 6)])
def test_any_wav_becomes_48_khz_mono(tmp_path: Path, rate: int, channels: int, width: int) -> None:
    path = write_wav(tmp_path / "tone.wav", tone(0.5, rate), rate, channels, width)
    heard = np.concatenate(list(decode_wav(path, path.name)))
    assert heard.dtype == np.int16
    assert len(heard) == pytest.approx(SAMPLE_RATE_HZ * 0.5, abs=64)
    middle = heard[4800:-4800] / 32768
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * SAMPLE_RATE_HZ / len(middle) == pytest.approx(440, abs=4)
    loudness = 1.0 if channels < 6 else pytest.approx(1.0, abs=0.5)  # a mixdown of 5.1 weighs its channels
    assert np.sqrt(2 * np.mean(middle**2)) / 0.5 == (pytest.approx(1.0, abs=0.03) if channels < 6 else loudness)


@in_real_time
def test_the_microphone_speaks_in_real_time_and_over_again(tmp_path: Path) -> None:
    once = (np.arange(BLOCK_SAMPLES * 3 + 100) % 30000).astype(np.int16)
    path = tmp_path / "ramp.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        file.writeframes(once.tobytes())
    microphone = SampleMicrophone(path, path.name)
    microphone.read()
    started = time.monotonic()
    blocks = [microphone.read() for _ in range(25)]
    assert time.monotonic() - started == pytest.approx(0.5, abs=0.05)
    assert {block.shape for block in blocks} == {(BLOCK_SAMPLES,)}
    assert np.array_equal(np.concatenate(blocks), np.resize(once, BLOCK_SAMPLES * 26)[BLOCK_SAMPLES:])


@in_real_time
def test_a_late_reader_gets_what_was_said_meanwhile(tmp_path: Path) -> None:
    microphone = SampleMicrophone(write_wav(tmp_path / "t.wav", tone(1), 48_000, 1, 2), "t")
    microphone.read()
    time.sleep(0.15)
    started = time.monotonic()
    for _ in range(7):
        microphone.read()
    assert time.monotonic() - started < 0.03
    microphone.read()
    microphone.read()
    assert time.monotonic() - started > 0.02


@in_real_time
def test_close_ends_a_read_under_way(tmp_path: Path) -> None:
    microphone = SampleMicrophone(write_wav(tmp_path / "t.wav", tone(1), 48_000, 1, 2), "t")
    threading.Timer(0.1, microphone.close).start()
    started = time.monotonic()
    with pytest.raises(SoundUnavailable, match="closed"):
        read_for(microphone, 5.0)
    assert time.monotonic() - started < 1.0


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"this is a letter, not a sound", id="text"),
        pytest.param(b"RIFF\xff\xff\xff\xffWAVE", id="header only"),
        pytest.param(b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\0\0\0\0\0\0\0\0\2\0\x10\0data\0\0\0\0", id="rate of 0"),
        pytest.param(wav._wav_header(0), id="no samples"),
        pytest.param(bytes(range(256)) * 40, id="noise"),
    ],
)
def test_a_file_that_is_no_wav(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.wav"
    path.write_bytes(content)
    with pytest.raises(SoundUnavailable, match=r"broken\.wav") as caught:
        SampleMicrophone(path, path.name)
    assert caught.value.hint


def test_a_file_that_vanishes_under_way(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "t.wav", tone(0.1), 48_000, 1, 2)
    microphone = SampleMicrophone(path, path.name)
    microphone.read()
    path.unlink()
    for _ in range(2):  # and it stays so
        with pytest.raises(SoundUnavailable, match=r"t\.wav"):
            read_for(microphone, 1.0)


def test_a_file_that_is_missing_or_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.wav", tmp_path):
        with pytest.raises(SoundUnavailable):
            SampleMicrophone(path, path.name)


@in_real_time
def test_a_speaker_into_nothing_keeps_time() -> None:
    speaker = NullSpeaker()
    started = time.monotonic()
    speaker.write(np.zeros(BLOCK_SAMPLES * 25, np.int16))
    assert time.monotonic() - started == pytest.approx(0.5 - wav.SPEAKER_QUEUE_S, abs=0.04)
    speaker.close()
    with pytest.raises(SoundUnavailable):
        speaker.write(np.zeros(BLOCK_SAMPLES, np.int16))


@in_real_time
def test_the_wav_speaker_writes_what_was_played(tmp_path: Path) -> None:
    speaker = WavSpeaker(tmp_path / "out.wav")
    sound = (tone(0.3) * 20000).astype(np.int16)
    for start in range(0, len(sound), BLOCK_SAMPLES):
        speaker.write(sound[start : start + BLOCK_SAMPLES])
    speaker.close()
    speaker.close()
    assert np.array_equal(read_wav(tmp_path / "out.wav"), sound)


@in_real_time
def test_the_wav_speaker_writes_silence_for_what_was_missing(tmp_path: Path) -> None:
    speaker = WavSpeaker(tmp_path / "out.wav")
    loud = np.full(BLOCK_SAMPLES, 1000, np.int16)
    started = time.monotonic()
    speaker.write(loud)
    time.sleep(0.3)
    speaker.write(loud)
    missing_s = time.monotonic() - started - 0.02
    speaker.close()
    written = read_wav(tmp_path / "out.wav")
    silence = written[BLOCK_SAMPLES:-BLOCK_SAMPLES]
    assert np.array_equal(written[:BLOCK_SAMPLES], loud)
    assert np.array_equal(written[-BLOCK_SAMPLES:], loud)
    assert not silence.any()
    assert len(silence) / SAMPLE_RATE_HZ == pytest.approx(missing_s, abs=0.02)


@in_real_time
def test_a_killed_process_leaves_a_wav_that_plays(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    code = (
        "import sys, pathlib, numpy\nfrom hardware.wav import WavSpeaker\n"
        "speaker = WavSpeaker(pathlib.Path(sys.argv[1]))\nblock = numpy.full(960, 7, numpy.int16)\n"
        "for count in range(1000):\n    speaker.write(block)\n    if count == 60: print('played', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"played\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    written = read_wav(path)
    assert len(written) > SAMPLE_RATE_HZ / 2
    assert set(written.tolist()) <= {0, 7}  # silence only where a busy machine made the writer late
    assert (written == 7).sum() > SAMPLE_RATE_HZ / 2


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SoundUnavailable, match="cannot be written"):
        WavSpeaker(tmp_path / "no" / "such" / "folder.wav")


def test_a_full_disk() -> None:
    with pytest.raises(SoundUnavailable, match="No space left"):
        WavSpeaker(Path("/dev/full"))


def test_the_synthetic_microphone_speaks_with_pauses() -> None:
    spoken = wav._spoken_message()
    if spoken is None:
        pytest.skip("espeak-ng is not installed")
    assert sum(len(piece) for piece in decode_wav(spoken, "spoken")) > 3 * SAMPLE_RATE_HZ
    microphone = synthetic_microphone()
    heard = np.concatenate([microphone.read() for _ in range(50)])
    assert np.abs(heard).max() > 3000


def test_without_espeak_there_is_a_melody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    wav._spoken_message.cache_clear()
    try:
        microphone = synthetic_microphone()
    finally:
        wav._spoken_message.cache_clear()
    assert np.abs(np.concatenate([microphone.read() for _ in range(20)])).max() > 3000
