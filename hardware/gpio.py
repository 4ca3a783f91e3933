"""The board on a Raspberry Pi's pins, through gpiozero and whichever pin factory it finds.

The button's changes go out raw: gpiozero's own `bounce_time` loses short presses. The lamp is three pins (red, green,
blue) or a single one, dimmed where the pin factory has PWM.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import gpiozero

from hardware.api import LIGHT_PATTERNS, BoardUnavailable, HardwareError, Light, LightStep

NOT_WIRED = -1
_REREAD_S = 0.05  # after an edge: a pin factory may miss the last one of a bounce
_BRIGHT_ENOUGH = 0.3  # what a lamp without PWM shows as on


class GpioBoard:
    """Pins by their BCM numbers, `NOT_WIRED` where there is none; the lamp has all three colours or just one. The
    button connects its pin to ground."""

    def __init__(
        self, button: int, lamp_red: int, lamp_green: int, lamp_blue: int, pin_factory: gpiozero.Factory | None = None
    ) -> None:
        self.has_button = button != NOT_WIRED
        colours = [pin for pin in (lamp_red, lamp_green, lamp_blue) if pin != NOT_WIRED]
        self.has_lamp = bool(colours)
        if len(colours) == 2:
            raise HardwareError("the lamp has two colours wired", "wire red, green and blue, or a single lamp")
        factory = pin_factory or _default_factory()
        self._button: gpiozero.DigitalInputDevice | None = None
        self._lamp: _Lamp | None = None
        self._watch_lock = threading.RLock()
        self._changed: Callable[[bool, float], None] | None = None
        self._reported = False
        self._edge_at = 0.0
        self._rereading = False
        try:
            if self.has_button:
                self._button = gpiozero.DigitalInputDevice(button, pull_up=True, pin_factory=factory)
            if self.has_lamp:
                self._lamp = _Lamp(colours, factory)
        except Exception as error:  # every pin library raises exceptions of its own
            self.close()
            raise BoardUnavailable(
                f"the pins of the board cannot be used ({error})",
                "check the GPIO numbers under [devices], and that no other program uses them",
            ) from None

    def watch_button(self, changed: Callable[[bool, float], None]) -> None:
        if self._button is None:
            return
        with self._watch_lock:  # an edge that comes meanwhile waits for the first report
            self._changed = changed
            self._button.when_activated = lambda: self._edge(True)
            self._button.when_deactivated = lambda: self._edge(False)
            self._reported = bool(self._button.is_active)
            changed(self._reported, time.monotonic())

    def show(self, light: Light) -> None:
        if self._lamp is not None:
            self._lamp.show(light)

    def close(self) -> None:
        with self._watch_lock:
            self._changed = None
        if self._button is not None:
            self._button.close()
        if self._lamp is not None:
            self._lamp.close()

    def _edge(self, pressed: bool) -> None:
        now = time.monotonic()
        with self._watch_lock:
            self._report(pressed, now)
            self._edge_at = now
            if not self._rereading:
                self._rereading = True
                self._reread_in(_REREAD_S)

    def _reread_in(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._reread)
        timer.daemon = True
        timer.start()

    def _reread(self) -> None:
        with self._watch_lock:
            if self._changed is None or self._button is None:
                return
            now = time.monotonic()
            self._report(bool(self._button.is_active), now)
            quiet_s = now - self._edge_at
            self._rereading = quiet_s < _REREAD_S
            if self._rereading:
                self._reread_in(_REREAD_S - quiet_s)

    def _report(self, pressed: bool, now: float) -> None:
        if self._changed is not None and pressed != self._reported:
            self._reported = pressed
            self._changed(pressed, now)


class _Lamp:
    """Plays a light's pattern in a thread of its own, which sleeps from step to step."""

    def __init__(self, pins: list[int], factory: gpiozero.Factory) -> None:
        self._pwm = True
        try:
            self._led = self._open(pins, factory)
        except gpiozero.PinPWMUnsupported:
            self._pwm = False
            self._led = self._open(pins, factory)
        self._changed = threading.Condition()
        self._light = Light.OFF
        self._closed = False
        self._thread = threading.Thread(target=self._play, name="lamp", daemon=True)
        self._thread.start()

    def show(self, light: Light) -> None:
        with self._changed:
            if light is not self._light and not self._closed:
                self._light = light
                self._apply(LIGHT_PATTERNS[light][0])  # here and now, not when the thread gets its turn
                self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._led.close()  # leaves the pins dark

    def _open(self, pins: list[int], factory: gpiozero.Factory) -> Any:
        if len(pins) == 3:
            return gpiozero.RGBLED(*pins, pwm=self._pwm, pin_factory=factory)
        single = gpiozero.PWMLED if self._pwm else gpiozero.LED
        return single(pins[0], pin_factory=factory)

    def _play(self) -> None:
        with self._changed:
            while not self._closed:
                light = self._light
                step_ends = time.monotonic()
                for step in cycle(LIGHT_PATTERNS[light]):
                    self._apply(step)
                    step_ends += step.seconds
                    wait_s = max(0.0, step_ends - time.monotonic())
                    if self._changed.wait_for(partial(self._is_over, light), wait_s):
                        break

    def _is_over(self, light: Light) -> bool:
        return self._closed or self._light is not light

    def _apply(self, step: LightStep) -> None:
        colours = [step.red, step.green, step.blue]
        if not self._pwm:
            colours = [float(level >= _BRIGHT_ENOUGH) for level in colours]
        self._led.value = colours if isinstance(self._led, gpiozero.RGBLED) else max(colours)


def _default_factory() -> gpiozero.Factory:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one for each pin library that is not installed
            gpiozero.Device.ensure_pin_factory()
    except Exception as error:  # every pin library raises exceptions of its own
        raise BoardUnavailable(
            f"this machine has no GPIO pins that can be used ({error})",
            "on a Raspberry Pi install python3-lgpio and add this user to the group `gpio`",
        ) from None
    return gpiozero.Device.pin_factory
