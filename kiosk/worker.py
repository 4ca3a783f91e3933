"""The health worker's face: who may see it, and for how long. Pure but for `verify`, which belongs in a thread.

`now` is monotonic seconds. Wrong PINs are answered more and more slowly, so that four digits are enough at a screen.
"""

from __future__ import annotations

from typing import Literal

PIN_DIGITS = (4, 12)
FREE_TRIES = 3
FIRST_WAIT_S = 30.0
MAX_WAIT_S = 900.0

Face = Literal["none", "locked", "pin", "open"]
PinError = Literal["", "wrong", "wait"]


class WorkerLock:
    def __init__(self, pin_hash: str, idle_s: float) -> None:
        self._hash, self._idle_s = pin_hash, idle_s
        self.face: Face = "locked" if pin_hash else "none"
        self.error: PinError = ""
        self._wrong = 0
        self._wait_until = 0.0
        self._locks_at = 0.0

    @property
    def is_open(self) -> bool:
        return self.face == "open"

    def asked(self, now: float) -> None:
        """The key to the worker's face was touched."""
        if self.face == "locked":
            self.face = "pin"
            self.error = "wait" if now < self._wait_until else ""
            self._locks_at = now + self._idle_s

    def left(self) -> None:
        if self.face in ("pin", "open"):
            self.face, self.error = "locked", ""

    def may_try(self, now: float) -> bool:
        """Whether a PIN is looked at now."""
        if self.face != "pin":
            return False
        if now < self._wait_until:
            self.error = "wait"
            return False
        return True

    def tried(self, right: bool, now: float) -> None:
        if self.face != "pin":
            return
        if right:
            self.face, self.error, self._wrong = "open", "", 0
        else:
            self._wrong += 1
            self.error = "wrong"
            if self._wrong >= FREE_TRIES:
                self._wait_until = now + min(FIRST_WAIT_S * 2 ** (self._wrong - FREE_TRIES), MAX_WAIT_S)
                self.error = "wait"
        self._locks_at = now + self._idle_s

    def wait_s(self, now: float) -> float:
        return max(0.0, self._wait_until - now)

    def touched(self, now: float) -> None:
        """Somebody is at the screen."""
        if self.face in ("pin", "open"):
            self._locks_at = now + self._idle_s

    def next_deadline(self) -> float | None:
        return self._locks_at if self.face in ("pin", "open") else None

    def tick(self, now: float) -> bool:
        """True when it has just locked."""
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return False
        self.left()
        return True

    def verify(self, pin: str) -> bool:
        """Takes a tenth of a second or more: in a thread."""
        from argon2 import PasswordHasher
        from argon2.exceptions import InvalidHashError, VerificationError

        try:
            return PasswordHasher().verify(self._hash, pin)
        except (VerificationError, InvalidHashError):
            return False


def pin_hash(pin: str) -> str:
    """What the configuration keeps. Slow on purpose, as `verify` is. Raises ValueError for what cannot be typed on the
    screen's number pad."""
    if not (pin.isascii() and pin.isdigit() and PIN_DIGITS[0] <= len(pin) <= PIN_DIGITS[1]):
        raise ValueError(f"a PIN has {PIN_DIGITS[0]} to {PIN_DIGITS[1]} digits")
    from argon2 import PasswordHasher

    return PasswordHasher().hash(pin)
