"""What the kit asks of its hardware: small contracts, each opened by name from the configuration.

`hardware.devices` opens them; `hardware.simulated` is a board that ships and keeps the same contracts. Blocking calls
belong in a thread of their own; nothing here knows asyncio, aiortc or the network.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from fractions import Fraction
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 48_000
BLOCK_SAMPLES = 960  # 20 ms, mono, int16: what microphones give and speakers take


class HardwareError(Exception):
    """Root of what a device may raise. `hint` tells a person in the clinic what to try."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(f"{what}: {hint}" if hint else what)
        self.what, self.hint = what, hint


class CameraUnavailable(HardwareError, OSError):
    pass


class SoundUnavailable(HardwareError, OSError):
    pass


class BoardUnavailable(HardwareError, OSError):
    pass


class Picture(NamedTuple):
    pixels: NDArray[np.uint8]  # (height, width, 3), BGR
    captured_at: float  # time.monotonic() at capture


class Camera(Protocol):
    """Opened at a size and rate; gives pictures in real time."""

    width: int
    height: int
    rate: Fraction  # pictures a second that it really gives

    def read(self) -> Picture:
        """Blocks until the next picture is due; raises CameraUnavailable when the camera is gone."""

    def close(self) -> None: ...


class Microphone(Protocol):
    def read(self) -> NDArray[np.int16]:
        """Blocks for the next BLOCK_SAMPLES in real time; raises SoundUnavailable when the device is gone."""

    def close(self) -> None: ...


class Speaker(Protocol):
    """Plays what it is given in real time through a short queue of its own."""

    def write(self, samples: NDArray[np.int16]) -> None:
        """Blocks while more than about 40 ms is queued: the caller is paced by the device's clock. Missing
        samples are silence. Raises SoundUnavailable when the device is gone."""

    def close(self) -> None: ...


class Light(Enum):
    """What the lamp says. Red flashing is kept for emergencies; a steady light never means two things."""

    READY = "ready"  # slow breathing green: press and somebody hears you
    CALLING = "calling"  # blinking amber: heard, it rings
    CLAIMED = "claimed"  # fast amber: a doctor is coming on
    LIVE = "live"  # steady green
    LOST = "lost"  # slow amber: the line is broken, it is being mended
    EMERGENCY = "emergency"  # flashing red
    MESSAGE = "message"  # breathing blue: leave a message, it records or waits for you
    WAITING = "waiting"  # double blink blue: something from the doctor waits
    FAULT = "fault"  # two short amber, pause: needs a technician
    # After a self-test, amber: the group that failed is counted, a long one for five
    GROUP_1 = "group_1"
    GROUP_2 = "group_2"
    GROUP_3 = "group_3"
    GROUP_4 = "group_4"
    GROUP_5 = "group_5"
    GROUP_6 = "group_6"
    GROUP_7 = "group_7"
    GROUP_8 = "group_8"
    GROUP_9 = "group_9"
    GROUP_10 = "group_10"
    OFF = "off"


class LightStep(NamedTuple):
    red: float
    green: float
    blue: float
    seconds: float


def _counted(number: int) -> tuple[LightStep, ...]:
    lit = [1.2] * (number // 5) + [0.25] * (number % 5)
    steps = [step for seconds in lit for step in (LightStep(1, 0.6, 0, seconds), LightStep(0, 0, 0, 0.4))]
    return (*steps[:-1], LightStep(0, 0, 0, 2.5))


LIGHT_PATTERNS: dict[Light, tuple[LightStep, ...]] = {
    # A board with one colour shows the brightest component. Repeated for ever.
    Light.READY: (LightStep(0, 0.35, 0, 1.6), LightStep(0, 0.08, 0, 1.6)),
    Light.CALLING: (LightStep(1, 0.6, 0, 0.5), LightStep(0, 0, 0, 0.5)),
    Light.CLAIMED: (LightStep(1, 0.6, 0, 0.15), LightStep(0, 0, 0, 0.15)),
    Light.LIVE: (LightStep(0, 1, 0, 3600),),
    Light.LOST: (LightStep(1, 0.6, 0, 1.2), LightStep(0, 0, 0, 0.6)),
    Light.EMERGENCY: (LightStep(1, 0, 0, 0.2), LightStep(0, 0, 0, 0.2)),
    Light.MESSAGE: (LightStep(0, 0.2, 1, 1.0), LightStep(0, 0.05, 0.25, 1.0)),
    Light.WAITING: (
        LightStep(0, 0.2, 1, 0.12), LightStep(0, 0, 0, 0.12), LightStep(0, 0.2, 1, 0.12), LightStep(0, 0, 0, 1.6),
    ),
    Light.FAULT: (
        LightStep(1, 0.6, 0, 0.12), LightStep(0, 0, 0, 0.12), LightStep(1, 0.6, 0, 0.12), LightStep(0, 0, 0, 2.5),
    ),
    **{Light(f"group_{number}"): _counted(number) for number in range(1, 11)},
    Light.OFF: (LightStep(0, 0, 0, 3600),),
}  # fmt: skip


class Board(Protocol):
    """Button and lamp. Raw contact changes go out as they come, bounce included: `hardware.gestures` reads them."""

    has_button: bool
    has_lamp: bool

    def watch_button(self, changed: Callable[[bool, float], None]) -> None:
        """Calls `changed(pressed, at)` from any thread on every raw change, `at` being time.monotonic(). The first
        call comes before this returns and says how the button stands, so that a button that is down already at
        the start is not taken for a press."""

    def show(self, light: Light) -> None:
        """Sets the lamp at once (≤ 20 ms) and keeps the pattern up until the next call."""

    def close(self) -> None: ...
