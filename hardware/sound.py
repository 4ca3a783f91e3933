"""Sound cards through PortAudio, opened by a name that stays the same from one start to the next, never by index.

PortAudio freezes its list of devices when it starts, so it is started afresh when the machine's cards have changed or
an opening fails, which can only be done while no stream is open. Its callbacks keep a short queue; a device that stops
calling is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ, SoundUnavailable

log = logging.getLogger(__name__)

BLOCK_S = BLOCK_SAMPLES / SAMPLE_RATE_HZ
SPEAKER_QUEUE_S = 0.04
MICROPHONE_QUEUE_BLOCKS = 10  # 200 ms for a reader that comes late; older sound is dropped
DEVICE_LATENCY_S = 0.04  # asked of the device: less makes Python's callbacks come late on a Pi
SILENT_DEVICE_S = 2.0  # no callback for this long: the device is gone

_CARD_PLACE = re.compile(r"\s*\(hw:\d+,\d+\)$")  # the card's number changes from one start to the next


class SoundDevice(NamedTuple):
    name: str  # stable
    number: int  # of PortAudio, good until it is started afresh
    rate: int  # the one it likes best


class DeviceMicrophone:
    def __init__(self, device: SoundDevice, rate: int, channels: int) -> None:
        self._name = device.name
        self._changed = threading.Condition()
        self._blocks: deque[NDArray[np.int16]] = deque(maxlen=MICROPHONE_QUEUE_BLOCKS)
        self._convert = (
            None if (rate, channels) == (SAMPLE_RATE_HZ, 1) else _Converter(rate, channels, SAMPLE_RATE_HZ, 1)
        )
        self._rest = np.empty(0, np.int16)
        self._stream = _Stream("RawInputStream", device, rate, channels, self._take, self._changed)

    def read(self) -> NDArray[np.int16]:
        while True:
            if len(self._rest) >= BLOCK_SAMPLES:
                block, self._rest = self._rest[:BLOCK_SAMPLES], self._rest[BLOCK_SAMPLES:]
                return block
            samples = self._next_block()
            if self._convert is not None:
                samples = self._convert(samples)
            self._rest = np.concatenate((self._rest, samples)) if len(self._rest) else samples

    def close(self) -> None:
        self._stream.close()

    def _next_block(self) -> NDArray[np.int16]:
        with self._changed:
            self._changed.wait_for(lambda: self._blocks or self._stream.over, SILENT_DEVICE_S)
            if self._stream.closed:
                raise SoundUnavailable("the microphone is closed")
            if not self._blocks:
                raise _gone("microphone", self._name)
            return self._blocks.popleft()

    def _take(self, data: Any, _frames: int, _time: Any, _status: Any) -> None:
        block = np.frombuffer(bytes(data), np.int16)
        with self._changed:
            self._blocks.append(block)
            self._changed.notify()


class DeviceSpeaker:
    def __init__(self, device: SoundDevice, rate: int, channels: int) -> None:
        self._name = device.name
        self._changed = threading.Condition()
        self._queue = bytearray()
        self._limit_bytes = int(SPEAKER_QUEUE_S * rate) * channels * 2
        self._convert = (
            None if (rate, channels) == (SAMPLE_RATE_HZ, 1) else _Converter(SAMPLE_RATE_HZ, 1, rate, channels)
        )
        self._convert_back = None if self._convert is None else _Converter(rate, channels, SAMPLE_RATE_HZ, 1)
        self.tap: Callable[[NDArray[np.int16]], None] | None = None
        """Is told what the device has taken, silence included, as mono 48 kHz; in the device's own thread."""
        self._stream = _Stream("RawOutputStream", device, rate, channels, self._give, self._changed)

    def write(self, samples: NDArray[np.int16]) -> None:
        for start in range(0, len(samples), BLOCK_SAMPLES):
            piece = np.ascontiguousarray(samples[start : start + BLOCK_SAMPLES])
            if self._convert is not None:
                piece = self._convert(piece)
            with self._changed:
                fits = self._changed.wait_for(
                    lambda: len(self._queue) <= self._limit_bytes or self._stream.over, SILENT_DEVICE_S
                )
                if self._stream.closed:
                    raise SoundUnavailable("the speaker is closed")
                if not fits or self._stream.over:
                    raise _gone("speaker", self._name)
                self._queue += piece.tobytes()

    def close(self) -> None:
        self._stream.close()

    def _give(self, out: Any, _frames: int, _time: Any, _status: Any) -> None:
        with self._changed:
            count = min(len(out), len(self._queue))
            out[:count] = self._queue[:count]
            del self._queue[:count]
            self._changed.notify()
        if count < len(out):
            out[count:] = bytes(len(out) - count)
        if self.tap is not None:
            taken = np.frombuffer(bytes(out), np.int16)
            self.tap(taken if self._convert_back is None else self._convert_back(taken))


class _Converter:
    """Between rates and channels, int16 in and out, whatever the length of the pieces."""

    def __init__(self, from_rate: int, from_channels: int, to_rate: int, to_channels: int) -> None:
        self._rate = from_rate
        self._layout = _layout(from_channels)
        self._resampler = av.AudioResampler(format="s16", layout=_layout(to_channels), rate=to_rate)

    def __call__(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=self._layout)
        frame.sample_rate = self._rate
        parts = [converted.to_ndarray()[0] for converted in self._resampler.resample(frame)]
        return np.concatenate(parts) if parts else np.empty(0, np.int16)


def _layout(channels: int) -> str:
    return "mono" if channels == 1 else "stereo"


def _gone(kind: str, name: str) -> SoundUnavailable:
    return SoundUnavailable(f"the {kind} {name!r} is gone", "plug it in again, or try another socket")


# --- PortAudio

_opening = threading.Lock()  # between two starts of PortAudio its device numbers stand still
_counting = threading.Lock()
_open_streams = 0
_failed: set[str] = set()  # the kinds whose last opening failed
_cards_at_start: str | None = None  # what the kernel's list was when PortAudio made its own


class _Stream:
    """A started stream of PortAudio, counted so that its device list can be made afresh between streams. `changed` is
    notified when it is over: closed here, or ended by PortAudio because the device failed."""

    def __init__(
        self, kind: str, device: SoundDevice, rate: int, channels: int, callback: Any, changed: threading.Condition
    ) -> None:
        global _open_streams
        portaudio = _portaudio()
        self.over = False
        self.closed = False
        self._name = device.name
        self._changed = changed
        self._stream = getattr(portaudio, kind)(
            samplerate=rate,
            blocksize=round(rate * BLOCK_S),
            device=device.number,
            channels=channels,
            dtype="int16",
            latency=DEVICE_LATENCY_S,
            callback=callback,
            finished_callback=self._end,
        )
        try:
            self._stream.start()
        except portaudio.PortAudioError:
            self._stream.close()
            raise
        with _counting:
            _open_streams += 1

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._end()
        # PortAudio can hang over a device that was pulled out; that must not hang the caller.
        closing = threading.Thread(target=self._close, name="sound-close", daemon=True)
        closing.start()
        closing.join(timeout=1.0)
        if closing.is_alive():
            log.warning("sound device does not close device=%r", self._name)
            atexit.unregister(_portaudio()._exit_handler)  # it would close the stream again, and hang the exit

    def _close(self) -> None:
        global _open_streams
        self._stream.abort()
        self._stream.close()
        with _counting:
            _open_streams -= 1

    def _end(self) -> None:
        with self._changed:
            self.over = True
            self._changed.notify_all()


def open_microphone_device(name: str | None) -> DeviceMicrophone:
    """By its stable name or a part of it; None is the system's own choice, or the first that opens."""
    return _open(name, "input", DeviceMicrophone)


def open_speaker_device(name: str | None) -> DeviceSpeaker:
    """As `open_microphone_device`."""
    return _open(name, "output", DeviceSpeaker)


def device_names(kind: str) -> list[str]:
    """Stable names of the `input` or `output` devices, the system's own choice first."""
    with _opening:
        _start_afresh()
        return [device.name for device in _devices(kind)]


_Opened = TypeVar("_Opened", DeviceMicrophone, DeviceSpeaker)


def _open(name: str | None, kind: str, opened: type[_Opened]) -> _Opened:
    with _opening, _stderr_silenced() if kind in _failed else contextlib.nullcontext():
        _failed.add(kind)
        if _cards() != _cards_at_start:
            _start_afresh()
        try:
            device = _open_now(name, kind, opened)
        except SoundUnavailable:
            # Perhaps something was plugged in, or a sound server came up, that /proc does not tell of.
            if not _start_afresh():
                raise
            device = _open_now(name, kind, opened)
        _failed.remove(kind)
        return device


@contextlib.contextmanager
def _stderr_silenced() -> Iterator[None]:
    """ALSA and PortAudio write pages to stderr when an opening fails: once is enough, not at every new attempt. Lines
    of other threads are lost meanwhile, so it is not done while all is well."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _open_now(name: str | None, kind: str, opened: type[_Opened]) -> _Opened:
    what = "microphone" if kind == "input" else "speaker"
    devices = _devices(kind)
    candidates = devices if name is None else [_find(name, devices, what)]
    if not candidates:
        raise SoundUnavailable(f"this machine has no {what}", f"plug in a USB {what} or headset")
    reasons = []
    for device in candidates:
        for rate, channels in dict.fromkeys(
            ((SAMPLE_RATE_HZ, 1), (SAMPLE_RATE_HZ, 2), (device.rate, 1), (device.rate, 2))
        ):
            try:
                return opened(device, rate, channels)
            except (_portaudio().PortAudioError, ValueError) as error:
                reasons.append(str(error))
    raise SoundUnavailable(
        f"the {what} {candidates[0].name!r} cannot be opened ({reasons[0]})",
        "close other programs that use it, or add this user to the group `audio`",
    )


def _find(name: str, devices: list[SoundDevice], what: str) -> SoundDevice:
    wanted = _stable(name).casefold()
    for device in devices:
        if device.name.casefold() == wanted:
            return device  # of two cards of the same make the first: nothing stable tells them apart
    matches = [device for device in devices if wanted in device.name.casefold()]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(repr(device.name) for device in matches or devices) or "none"
    problem = f"several {what}s match" if matches else f"there is no {what} called"
    raise SoundUnavailable(f"{problem} {name!r}", f"plug it in, or name one of those found: {known}")


def _devices(kind: str) -> list[SoundDevice]:
    portaudio = _portaudio()
    default = next(
        (api[f"default_{kind}_device"] for api in portaudio.query_hostapis() if api[f"default_{kind}_device"] >= 0), -1
    )
    found = [
        SoundDevice(_stable(entry["name"]), entry["index"], int(entry["default_samplerate"]))
        for entry in portaudio.query_devices()
        if entry[f"max_{kind}_channels"] > 0
    ]
    return sorted(found, key=lambda device: device.number != default)


def _stable(name: str) -> str:
    return _CARD_PLACE.sub("", name.strip())


def _portaudio() -> Any:
    try:
        return importlib.import_module("sounddevice")
    except OSError as error:
        raise SoundUnavailable(f"PortAudio is missing ({error})", "sudo apt install libportaudio2") from None
    except Exception as error:  # its own PortAudioError, which cannot be named before the import
        raise _does_not_start(error) from None


def _start_afresh() -> bool:
    """False where open streams forbid it. It takes PortAudio a while to try all devices, so not at every opening."""
    global _cards_at_start
    portaudio = _portaudio()
    with _counting:
        if _open_streams:
            return False
    _cards_at_start = _cards()
    try:
        portaudio._terminate()
        portaudio._initialize()
    except portaudio.PortAudioError as error:
        raise _does_not_start(error) from None
    return True


def _cards() -> str:
    try:
        return Path("/proc/asound/cards").read_text()
    except OSError:
        return ""


def _does_not_start(error: Exception) -> SoundUnavailable:
    return SoundUnavailable(f"the sound system does not start ({error})", "restart the kiosk")
