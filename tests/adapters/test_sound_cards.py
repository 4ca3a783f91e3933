"""Sound cards against a real sound server: a private PulseAudio with null sinks."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from hardware import sound
from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ, SoundUnavailable
from hardware.devices import list_devices, open_microphone, open_speaker
from hardware.sound import DeviceMicrophone, DeviceSpeaker
from tests.sound_server import PulseAudio, sound_server
from tests.timing import in_real_time


@pytest.fixture(scope="module")
def pulse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulseAudio]:
    with sound_server(tmp_path_factory.mktemp("pulse")) as server:
        yield server


def tone(seconds: float, pitch: float = 1000.0) -> NDArray[np.int16]:
    times = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (np.sin(2 * np.pi * pitch * times) * 8000).astype(np.int16)


class Listener:
    """Reads a microphone in a thread until told to stop; `heard` is what came, from `started` on."""

    def __init__(self, microphone: DeviceMicrophone) -> None:
        self._microphone = microphone
        self._blocks = [microphone.read()]
        self.started = time.monotonic() - BLOCK_SAMPLES / SAMPLE_RATE_HZ
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._stop.is_set():
            self._blocks.append(self._microphone.read())

    def stop(self) -> NDArray[np.int16]:
        self._stop.set()
        self._thread.join()
        self._microphone.close()
        return np.concatenate(self._blocks)


def read_for(microphone: DeviceMicrophone, seconds: float) -> None:
    for _ in range(round(seconds * 50)):
        microphone.read()


def loud_part(heard: NDArray[np.int16]) -> tuple[int, int]:
    loud = np.flatnonzero(np.abs(heard) > 1000)
    return (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (0, 0)


def pitch_of(samples: NDArray[np.int16]) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * SAMPLE_RATE_HZ / len(samples))


def play_and_hear(speaker: DeviceSpeaker, microphone: DeviceMicrophone, seconds: float) -> tuple[NDArray, float, float]:
    """What was heard, the seconds that writing took, and the seconds from the first write until it was heard."""
    listener = Listener(microphone)
    started = time.monotonic()
    speaker.write(tone(seconds))
    took_s = time.monotonic() - started
    threading.Event().wait(0.3)
    heard = listener.stop()
    speaker.close()
    return heard, took_s, listener.started + loud_part(heard)[0] / SAMPLE_RATE_HZ - started


@in_real_time
def test_what_is_played_is_heard_whole_and_soon(pulse: PulseAudio) -> None:
    heard, took_s, delay_s = play_and_hear(open_speaker("auto"), open_microphone("auto"), 1.0)
    start, end = loud_part(heard)
    assert (end - start) / SAMPLE_RATE_HZ == pytest.approx(1.0, abs=0.05)
    loud = np.convolve(np.abs(heard[start:end].astype(int)) > 500, np.ones(48), "valid") > 0
    assert (~loud).sum() / 48 < 50, "gaps in the tone"  # ms; a busy machine may miss a block or two
    assert pitch_of(heard[start:end]) == pytest.approx(1000, abs=2)
    # The card paces the writer, who runs ahead by the two short queues only.
    assert took_s == pytest.approx(1.0 - 0.08, abs=0.2)
    assert delay_s < 0.3


@in_real_time
def test_devices_are_found_by_name(pulse: PulseAudio) -> None:
    names = list_devices()
    assert {"pulse", "default", "clinic_speaker"} <= set(names.speakers)
    assert {"pulse", "default", "clinic_microphone"} <= set(names.microphones)
    elsewhere = Listener(open_microphone("device:pulse"))  # hears the sink `first`
    heard, _, _ = play_and_hear(open_speaker("device:Clinic_Sp"), open_microphone("device:clinic_microphone"), 0.3)
    assert pitch_of(heard[slice(*loud_part(heard))]) == pytest.approx(1000, abs=5)
    assert not elsewhere.stop().any()


def test_a_driver_that_hangs_over_a_lost_device_hangs_nobody_else(
    pulse: PulseAudio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    speaker = open_speaker("auto")
    stream = speaker._stream._stream
    hanging, abort = threading.Event(), stream.abort
    monkeypatch.setattr(stream, "abort", lambda: hanging.wait(30) and abort())
    kept_at_exit: list[object] = []
    monkeypatch.setattr("atexit.unregister", kept_at_exit.append)
    started = time.monotonic()
    speaker.close()
    assert time.monotonic() - started < 3
    assert "does not close" in caplog.text
    assert len(kept_at_exit) == 1  # PortAudio's own clean-up would hang at the exit as well
    with contextlib.closing(open_speaker("auto")) as again:
        again.write(tone(0.1))
    hanging.set()


@pytest.mark.parametrize(("name", "problem"), [("nobody", "there is no"), ("clinic_", "several")])
def test_a_name_that_no_device_or_more_than_one_has(pulse: PulseAudio, name: str, problem: str) -> None:
    with pytest.raises(SoundUnavailable, match=f"{problem} .*{name}.*clinic_microphone"):
        open_microphone(f"device:{name}")


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (48_000, 2), (16_000, 1), (11_025, 2)])
@in_real_time
def test_a_device_of_another_rate_or_in_stereo_is_converted(pulse: PulseAudio, rate: int, channels: int) -> None:
    sound.device_names("output")  # the numbers are good while streams are open
    speaker_device = next(device for device in sound._devices("output") if device.name == "clinic_speaker")
    microphone_device = next(device for device in sound._devices("input") if device.name == "clinic_microphone")
    speaker = DeviceSpeaker(speaker_device, rate, channels)
    heard, took_s, _ = play_and_hear(speaker, DeviceMicrophone(microphone_device, rate, channels), 0.6)
    start, end = loud_part(heard)
    assert (end - start) / SAMPLE_RATE_HZ == pytest.approx(0.6, abs=0.1)
    assert pitch_of(heard[start:end]) == pytest.approx(1000, abs=10)
    assert took_s == pytest.approx(0.55, abs=0.2)


@in_real_time
def test_a_silent_writer_is_silence(pulse: PulseAudio) -> None:
    speaker, listener = open_speaker("auto"), Listener(open_microphone("auto"))
    speaker.write(tone(0.1))
    threading.Event().wait(0.4)
    speaker.write(tone(0.1))
    threading.Event().wait(0.3)
    heard = listener.stop()
    speaker.close()
    start, end = loud_part(heard)
    assert (end - start) / SAMPLE_RATE_HZ == pytest.approx(0.5, abs=0.06)
    assert not heard[start + 9600 : end - 9600].any()


@in_real_time
def test_a_late_reader_gets_the_last_fifth_of_a_second(pulse: PulseAudio) -> None:
    with contextlib.closing(open_microphone("auto")) as microphone:
        microphone.read()
        threading.Event().wait(0.6)
        started = time.monotonic()
        read_for(microphone, 1.0)
        assert 0.7 < time.monotonic() - started < 1.2
    with pytest.raises(SoundUnavailable, match="closed"):
        microphone.read()


@in_real_time
def test_a_lost_device_is_said_and_found_again(pulse: PulseAudio, capfd: pytest.CaptureFixture[str]) -> None:
    pulse.start()
    microphone, speaker = open_microphone("auto"), open_speaker("auto")
    microphone.read()
    pulse.kill()
    started = time.monotonic()
    with pytest.raises(SoundUnavailable, match=r"microphone .* is gone") as caught:
        read_for(microphone, 60.0)
    assert caught.value.hint
    with pytest.raises(SoundUnavailable, match=r"speaker .* is gone"):
        speaker.write(tone(10.0))
    microphone.close()
    speaker.close()
    assert time.monotonic() - started < 6
    with pytest.raises(SoundUnavailable, match="no speaker"):
        open_speaker("auto")
    capfd.readouterr()
    with pytest.raises(SoundUnavailable, match="no speaker"):
        open_speaker("auto")
    assert capfd.readouterr().err == ""  # what ALSA and PortAudio have to say is said once
    assert list_devices().microphones == ()
    pulse.start()
    heard, _, _ = play_and_hear(open_speaker("auto"), open_microphone("auto"), 0.3)
    assert loud_part(heard) != (0, 0)
