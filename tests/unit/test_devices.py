"""Devices are opened by the names the configuration uses; a name that means nothing says what would."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hardware import devices
from hardware.api import (
    BLOCK_SAMPLES,
    Board,
    BoardUnavailable,
    CameraUnavailable,
    HardwareError,
    SoundUnavailable,
)
from hardware.devices import open_camera, open_microphone, open_speaker
from hardware.numbered import read_number
from hardware.simulated import SimulatedBoard


def open_board(spec: str) -> Board:
    return devices.open_board(spec, button_gpio=17, lamp_red_gpio=22, lamp_green_gpio=23, lamp_blue_gpio=24)


def test_what_needs_no_hardware_works(tmp_path: Path) -> None:
    camera = open_camera("synthetic", 160, 120, 50)
    assert read_number(camera.read().pixels) == 0
    microphone = open_microphone("synthetic")
    block = microphone.read()
    assert (block.dtype, block.shape) == (np.int16, (BLOCK_SAMPLES,))
    file = tmp_path / "out: with a colon.wav"
    for spec in ("null", f"wav:{file}"):
        speaker = open_speaker(spec)
        speaker.write(block)
        speaker.close()
    again = open_microphone(f"wav:{file}")
    assert np.array_equal(again.read(), block)
    board = open_board("simulated")
    assert isinstance(board, SimulatedBoard)
    for device in (camera, microphone, again, board):
        device.close()


@pytest.mark.parametrize("spec", ["", "webcam", "device", "device:", "file:", "wav:x.wav", "AUTO", "synthetic:1"])
def test_a_camera_that_means_nothing(spec: str) -> None:
    with pytest.raises(
        HardwareError, match=r"devices\.camera may be one of: auto, none, synthetic, device:<"
    ) as caught:
        open_camera(spec, 160, 120, 15)
    assert not isinstance(caught.value, OSError)


@pytest.mark.parametrize("spec", ["", "null", "device:", "wav:", "file:x.wav"])
def test_a_microphone_that_means_nothing(spec: str) -> None:
    with pytest.raises(HardwareError, match=r"devices\.microphone may be one of: auto, none, synthetic, device:<name>"):
        open_microphone(spec)


@pytest.mark.parametrize("spec", ["", "synthetic", "device:", "wav:", "null:x"])
def test_a_speaker_that_means_nothing(spec: str) -> None:
    with pytest.raises(HardwareError, match=r"devices\.speaker may be one of: auto, none, null, device:<name>, wav:<"):
        open_speaker(spec)


@pytest.mark.parametrize("spec", ["", "pins", "gpio:17"])
def test_a_board_that_means_nothing(spec: str) -> None:
    with pytest.raises(HardwareError, match=r"devices\.board may be one of: auto, none, gpio, simulated"):
        open_board(spec)


def test_none_is_never_opened() -> None:
    with pytest.raises(CameraUnavailable):
        open_camera("none", 160, 120, 15)
    with pytest.raises(SoundUnavailable):
        open_microphone("none")
    with pytest.raises(SoundUnavailable):
        open_speaker("none")
    with pytest.raises(BoardUnavailable):
        open_board("none")


def test_auto_takes_the_machines_own_or_says_what_to_plug_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from hardware import camera

    found: list[Path] = []
    monkeypatch.setattr(camera, "device_paths", lambda: found)
    with pytest.raises(CameraUnavailable, match="no camera: plug in"):
        open_camera("auto", 160, 120, 15)
    found += [tmp_path / "video0", tmp_path / "video1"]
    with pytest.raises(CameraUnavailable, match="video0"):
        open_camera("auto", 160, 120, 15)


def test_auto_board_uses_whatever_pins_gpiozero_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpiozero.Device.pin_factory", None)
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "mock")
    board = open_board("auto")
    assert (board.has_button, board.has_lamp) == (True, True)
    board.close()
    monkeypatch.setattr("gpiozero.Device.pin_factory", None)
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "none-here")
    with pytest.raises(BoardUnavailable, match="python3-lgpio"):
        open_board("auto")


def test_a_machine_without_portaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError("PortAudio library not found")

    monkeypatch.setattr(importlib, "import_module", missing)
    for spec in ("auto", "device:headset"):
        with pytest.raises(SoundUnavailable, match="libportaudio2"):
            open_microphone(spec)
        with pytest.raises(SoundUnavailable, match="libportaudio2"):
            open_speaker(spec)
    assert devices.list_devices().speakers == ()


def test_a_process_that_opens_only_the_board_loads_no_media() -> None:
    code = (
        "import sys\nfrom hardware.devices import open_board\n"
        "open_board('simulated', button_gpio=1, lamp_red_gpio=2, lamp_green_gpio=3, lamp_blue_gpio=4)\n"
        "print(sorted({'cv2', 'av', 'sounddevice', 'gpiozero'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
