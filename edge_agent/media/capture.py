"""One thread a device: opened while anybody uses it, read in real time, fanned out to its users.

A device that is missing or fails is reported, tried again every few seconds, and never stops anything else. At rest it
is closed; one that was missing at its last opening is tried now and then, so that plugging it in is noticed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from hardware.api import HardwareError

log = logging.getLogger(__name__)

RETRY_S = 3.0

Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)


class Readable(Protocol[Item_co]):
    def read(self) -> Item_co: ...

    def close(self) -> None: ...


class DeviceState:
    """Whether a device can be used, as last seen; `changed` is called from its thread on every change."""

    def __init__(self, name: str, changed: Callable[[], None]) -> None:
        self.name = name
        self.error: str | None = None
        self.known = threading.Event()
        self._changed = changed

    def set(self, error: str | None) -> None:
        if self.known.is_set() and error == self.error:
            return
        if error is not None:
            log.warning("%s missing: %s", self.name, error)
        elif self.error is not None:
            log.info("%s is back", self.name)
        self.error = error
        self.known.set()
        self._changed()


class Capture(Generic[Item]):
    """A microphone or a camera. Users are callbacks, called in the device's thread with each item."""

    def __init__(
        self, name: str, open_device: Callable[[], Readable[Item]], changed: Callable[[], None], present: bool = True
    ) -> None:
        """`present=False`: the configuration says that there is none, so it is not looked for again."""
        self.state = DeviceState(name, changed)
        self._open = open_device
        self._present = present
        self._users: list[Callable[[Item], None]] = []
        self._wake = threading.Condition()
        self._try_again = False  # somebody new wants it: no waiting
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def in_use(self) -> bool:
        return bool(self._users)

    def add(self, user: Callable[[Item], None]) -> None:
        with self._wake:
            self._users = [*self._users, user]
            self._try_again = self._present
            self._wake.notify_all()

    def remove(self, user: Callable[[Item], None]) -> None:
        with self._wake:
            self._users = [other for other in self._users if other != user]

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._users = []
            self._wake.notify_all()
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        while not self._closed:
            try:
                device = self._open()
            except Exception as error:  # a driver may raise anything; the others go on
                self.state.set(describe(error))
            else:
                try:
                    self._read(device)
                except Exception as error:
                    self.state.set(describe(error))
                finally:
                    _close(device, self.state.name)
            with self._wake:
                if self.state.error is None:
                    self._wake.wait_for(lambda: self._users or self._closed)
                else:
                    self._wake.wait_for(
                        lambda: self._closed or self._try_again, timeout=RETRY_S if self._present else None
                    )
                self._try_again = False

    def _read(self, device: Readable[Item]) -> None:
        """Until nobody uses it; the first time, and after a failure, a first item shows that it works."""
        checking = self.state.error is not None or not self.state.known.is_set()
        while not self._closed and (self._users or checking):
            item = device.read()
            self.state.set(None)
            checking = False
            for user in self._users:
                try:
                    user(item)
                except Exception:
                    log.exception("a user of the %s failed", self.state.name)
                    self.remove(user)


def describe(error: Exception) -> str:
    """One line for a person in the clinic."""
    if isinstance(error, HardwareError):
        return str(error)
    return f"it failed ({type(error).__name__}: {error}): check the plug, or choose another in the configuration"


def _close(device: Readable[object], name: str) -> None:
    try:
        device.close()
    except Exception as error:
        log.warning("%s could not be closed: %s", name, error)
