"""Camera, sound and board under test: opened by the names in the configuration, used for some seconds, closed again.

A driver may hang: each runs in a thread that is given up after `DEVICE_S`. `abandon` is set when somebody needs the
devices; then everything is closed within a block of sound or a picture.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_agent.config import DevicesSection
from edge_agent.core.checks import judge_camera
from edge_agent.core.chirp import CHIRP_S, chirp, judge_sound, listen
from edge_agent.core.findings import Finding, Group, failed, untested
from hardware import devices
from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ, CameraUnavailable, HardwareError, Microphone, Speaker

Opened = TypeVar("Opened")

DEVICE_S = 14.0
PICTURES = 5
_SETTLE_PICTURES = 6  # a camera sets its exposure first
_ROOM_S = 0.4  # of silence before the chirp
_AFTER_S = 1.6  # for Bluetooth and a cathedral
_ABANDONED = "a call needs it"


def camera(section: DevicesSection, abandon: threading.Event) -> list[Finding]:
    if section.camera == "none":
        return [untested("camera", Group.CAMERA, "none is wanted")]
    try:
        opened = devices.open_camera(section.camera, section.camera_width, section.camera_height, section.camera_rate)
    except HardwareError as error:
        return [failed("camera", "camera_missing", str(error))]
    try:
        pictures: list[NDArray[np.uint8]] = []
        for number in range(_SETTLE_PICTURES + PICTURES):
            if abandon.is_set():
                return [untested("camera", Group.CAMERA, _ABANDONED)]
            picture = opened.read().pixels
            if number >= _SETTLE_PICTURES:
                pictures.append(picture.copy())
    except CameraUnavailable as error:
        return [failed("camera", "camera_missing", str(error))]
    finally:
        opened.close()
    return judge_camera(pictures)


def sound(section: DevicesSection, abandon: threading.Event, silent: bool) -> list[Finding]:
    """`silent`: make no sound, as at night."""
    microphone, mute = _open(devices.open_microphone, section.microphone)
    speaker, dumb = _open(devices.open_speaker, section.speaker)
    try:
        if microphone is None:
            found = judge_sound(None, mute, dumb, played=False)
        else:
            to_play = None if silent else speaker
            heard, played_at, mute, dumb_now = _record(microphone, to_play, abandon)
            if abandon.is_set():
                return [untested("microphone", Group.MICROPHONE, _ABANDONED),
                        untested("speaker", Group.SPEAKER, _ABANDONED)]  # fmt: skip
            reaches_the_room = section.speaker.split(":")[0] not in ("null", "wav") and not silent
            room = listen(heard, played_at) if len(heard) > played_at else None
            found = judge_sound(room, mute, dumb or dumb_now, played=reaches_the_room and speaker is not None)
    finally:
        if microphone is not None:
            microphone.close()
        if speaker is not None:
            speaker.close()
    wanted = {"microphone": section.microphone != "none", "speaker": section.speaker != "none"}
    return [each if wanted[each.check] else untested(each.check, each.group, "none is wanted") for each in found]


def _open(open_device: Callable[[str], Opened], spec: str) -> tuple[Opened | None, str]:
    try:
        return open_device(spec), ""
    except HardwareError as error:
        return None, str(error)


def _record(
    microphone: Microphone, speaker: Speaker | None, abandon: threading.Event
) -> tuple[NDArray[np.int16], int, str, str]:
    """`(heard, played_at, microphone's trouble, speaker's trouble)`. The microphone's own clock is the measure."""
    blocks: list[NDArray[np.int16]] = []
    started, trouble, dumb = time.monotonic(), "", ""
    played_at_s = _ROOM_S
    player: threading.Thread | None = None
    problems: list[str] = []

    def play() -> None:
        assert speaker is not None  # noqa: S101
        sound = chirp()
        sound = np.concatenate((sound, np.zeros(-len(sound) % BLOCK_SAMPLES + 4 * BLOCK_SAMPLES, np.int16)))
        try:
            for start in range(0, len(sound), BLOCK_SAMPLES):
                if abandon.is_set():
                    return
                speaker.write(sound[start : start + BLOCK_SAMPLES])
        except HardwareError as error:
            problems.append(str(error))

    try:
        blocks.append(microphone.read())  # the first may take as long as the device needs to start
        started = time.monotonic()
        while (now := time.monotonic() - started) < _ROOM_S + CHIRP_S + _AFTER_S and not abandon.is_set():
            if player is None and speaker is not None and now >= _ROOM_S:
                played_at_s = now
                player = threading.Thread(target=play, name="chirp", daemon=True)
                player.start()
            blocks.append(microphone.read())
    except HardwareError as error:
        trouble = str(error)
    if player is not None:
        player.join(timeout=2.0)
        dumb = problems[0] if problems else ""
    heard = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
    return heard, round((played_at_s) * SAMPLE_RATE_HZ), trouble, dumb


def in_time(work: Callable[[], list[Finding]], late: list[Finding]) -> list[Finding]:
    """What `work` finds, or `late` where a driver hangs: its thread is left behind."""
    found: list[list[Finding]] = []
    thread = threading.Thread(target=lambda: found.append(work()), name="device under test", daemon=True)
    thread.start()
    thread.join(DEVICE_S)
    return found[0] if found else late
