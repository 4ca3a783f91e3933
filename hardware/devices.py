"""Opens the kit's devices by the names that the configuration uses, and lists the names that this machine offers.

    camera      auto | synthetic | device:<number, path or name> | file:<video>
    microphone  auto | synthetic | device:<name> | wav:<file>
    speaker     auto | null | device:<name> | wav:<file that is written>
    board       auto | gpio | simulated

`auto` is the machine's own; `none` always raises, as what is switched off is never opened. Everything else that cannot
be opened raises the device's own …Unavailable; a name that means nothing raises HardwareError with the names allowed.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from hardware.api import (
    Board,
    BoardUnavailable,
    Camera,
    CameraUnavailable,
    HardwareError,
    Microphone,
    SoundUnavailable,
    Speaker,
)
from hardware.simulated import SimulatedBoard

# OpenCV, PyAV, PortAudio and gpiozero are imported where they are used: the agent, which opens the board, stays small.


def open_camera(spec: str, width: int, height: int, rate: float) -> Camera:
    """Raises CameraUnavailable, or HardwareError for a spec that means nothing."""
    from hardware import camera

    match _parts(spec):
        case ("none", ""):
            raise CameraUnavailable("no camera is wanted", 'set devices.camera to "auto" to use one')
        case ("auto", ""):
            return _first_that_opens(width, height, rate)
        case ("synthetic", ""):
            return camera.SyntheticCamera(width, height, rate)
        case ("device", name) if name:
            return camera.open_device(camera.find_device(name), width, height, rate)
        case ("file", name) if name:
            return camera.VideoFileCamera(Path(name).expanduser(), width, height, rate)
    raise _unknown("camera", spec, "auto, none, synthetic, device:<number, path or name>, file:<video>")


def open_microphone(spec: str) -> Microphone:
    """Raises SoundUnavailable, or HardwareError for a spec that means nothing."""
    from hardware import sound, wav

    match _parts(spec):
        case ("none", ""):
            raise SoundUnavailable("no microphone is wanted", 'set devices.microphone to "auto" to use one')
        case ("auto", ""):
            return sound.open_microphone_device(None)
        case ("synthetic", ""):
            return wav.synthetic_microphone()
        case ("device", name) if name:
            return sound.open_microphone_device(name)
        case ("wav", name) if name:
            return wav.SampleMicrophone(Path(name).expanduser(), name)
    raise _unknown("microphone", spec, "auto, none, synthetic, device:<name>, wav:<file>")


def open_speaker(spec: str) -> Speaker:
    """Raises SoundUnavailable, or HardwareError for a spec that means nothing."""
    from hardware import sound, wav

    match _parts(spec):
        case ("none", ""):
            raise SoundUnavailable("no speaker is wanted", 'set devices.speaker to "auto" to use one')
        case ("auto", ""):
            return sound.open_speaker_device(None)
        case ("null", ""):
            return wav.NullSpeaker()
        case ("device", name) if name:
            return sound.open_speaker_device(name)
        case ("wav", name) if name:
            return wav.WavSpeaker(Path(name).expanduser())
    raise _unknown("speaker", spec, "auto, none, null, device:<name>, wav:<file that is written>")


def open_board(spec: str, *, button_gpio: int, lamp_red_gpio: int, lamp_green_gpio: int, lamp_blue_gpio: int) -> Board:
    """Pins are BCM numbers, -1 for one that is not wired; a lamp of one colour has just one of the three. Raises
    BoardUnavailable, or HardwareError for a spec that means nothing."""
    match _parts(spec):
        case ("none", ""):
            raise BoardUnavailable("no board is wanted", 'set devices.board to "auto" to use one')
        case ("simulated", ""):
            return SimulatedBoard()
        case ("auto" | "gpio", ""):
            from hardware.gpio import GpioBoard

            return GpioBoard(button_gpio, lamp_red_gpio, lamp_green_gpio, lamp_blue_gpio)
    raise _unknown("board", spec, "auto, none, gpio, simulated")


class DeviceNames(NamedTuple):
    """What `device:` may be followed by on this machine, the machine's own choice first."""

    cameras: tuple[str, ...]
    microphones: tuple[str, ...]
    speakers: tuple[str, ...]


def list_devices() -> DeviceNames:
    """Never raises: what cannot be asked is empty."""
    from hardware import camera, sound

    cameras = tuple(path.name if "by-id" in path.parts else str(path) for path in camera.device_paths())
    try:
        return DeviceNames(cameras, tuple(sound.device_names("input")), tuple(sound.device_names("output")))
    except SoundUnavailable:
        return DeviceNames(cameras, (), ())


def _first_that_opens(width: int, height: int, rate: float) -> Camera:
    from hardware import camera

    problems: list[CameraUnavailable] = []
    for path in camera.device_paths():
        try:
            return camera.open_device(path, width, height, rate)
        except CameraUnavailable as problem:
            problems.append(problem)
    raise problems[0] if problems else CameraUnavailable("this machine has no camera", "plug in a USB camera")


def _parts(spec: str) -> tuple[str, str]:
    kind, _, name = spec.strip().partition(":")
    return kind, name.strip()


def _unknown(kind: str, spec: str, allowed: str) -> HardwareError:
    return HardwareError(f"{spec!r} is no {kind}", f"devices.{kind} may be one of: {allowed}")
