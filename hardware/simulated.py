"""A board without hardware, kept in the same contract as the real one: the board panel and the tests press its button
and watch its lamp."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from hardware.api import Light


class SimulatedBoard:
    """`press` and `release` may be called from any thread. With `bounces` every change of the contact chatters that
    many times before it rests, as a worn button does."""

    has_button = True
    has_lamp = True

    def __init__(self, bounces: int = 0) -> None:
        self._bounces = bounces
        self._lock = threading.RLock()  # re-entrant: a watcher may press, release or show
        self._pressed = False
        self._light = Light.OFF
        self._watcher: Callable[[bool, float], None] | None = None
        self._subscribers: list[Callable[[Light, bool], None]] = []

    # --- the Board contract

    def watch_button(self, changed: Callable[[bool, float], None]) -> None:
        with self._lock:
            self._watcher = changed
            changed(self._pressed, time.monotonic())

    def show(self, light: Light) -> None:
        with self._lock:
            if light is not self._light:
                self._light = light
                self._tell_subscribers()

    def close(self) -> None:
        with self._lock:
            self._watcher = None
            self.show(Light.OFF)
            self._subscribers.clear()

    # --- the hands and eyes of whoever stands before the board

    @property
    def light(self) -> Light:
        return self._light

    @property
    def pressed(self) -> bool:
        return self._pressed

    def press(self) -> None:
        self._move(True)

    def release(self) -> None:
        self._move(False)

    def subscribe(self, changed: Callable[[Light, bool], None]) -> Callable[[], None]:
        """Calls `changed(light, pressed)` at once and then on every change, from whichever thread made it. Returns
        what ends the subscription."""
        with self._lock:
            self._subscribers.append(changed)
            changed(self._light, self._pressed)

        def end() -> None:
            with self._lock:
                if changed in self._subscribers:
                    self._subscribers.remove(changed)

        return end

    def _move(self, pressed: bool) -> None:
        with self._lock:
            if pressed == self._pressed:
                return
            self._pressed = pressed
            if self._watcher is not None:
                for _ in range(self._bounces):
                    self._watcher(pressed, time.monotonic())
                    self._watcher(not pressed, time.monotonic())
                self._watcher(pressed, time.monotonic())
            self._tell_subscribers()

    def _tell_subscribers(self) -> None:
        for changed in list(self._subscribers):
            changed(self._light, self._pressed)
