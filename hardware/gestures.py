"""Reads a button's raw contact changes, bounce included, as what a hand meant. Pure: `now` is handed in.

1. The first contact is a press, at once. Nothing that the contact does in the next moments makes a second one.
2. The button is up again when the contact has been open for `SETTLE_S` without a break, so neither bounce nor a worn
   contact that flickers under a long hold ends the press.
3. A button that is down already at the start was not pressed by anybody now; it must come up first.
4. Down for `STUCK_S`, it is stuck, which is said once, and once more when it comes free.

The owner calls `changed` for each change and `tick` at `next_deadline`; a late tick loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

SETTLE_S = 0.03  # contacts bounce for up to 20 ms; no hand opens and closes a button within 30
STUCK_S = 30.0
HOLDS_S = (2.0, 5.0)


@dataclass(frozen=True, slots=True)
class Pressed:
    pass


@dataclass(frozen=True, slots=True)
class Held:
    """Down for this long and still down; `Released` follows when it comes up."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Released:
    held_s: float  # from the first contact to the last


@dataclass(frozen=True, slots=True)
class Stuck:
    pass


@dataclass(frozen=True, slots=True)
class Freed:
    """After `Stuck`, and after the press's own `Released` if it began as a press."""


Gesture = Pressed | Held | Released | Stuck | Freed


@dataclass(slots=True)
class _Down:
    """The button is down, or was a moment ago."""

    since: float
    is_press: bool  # False: it was down at the start
    holds_left: tuple[float, ...]
    open_since: float | None = None  # the contact is open and has not settled
    stuck: bool = False


class ButtonGestures:
    """The first `changed` tells how the button stands at the start and is never a press."""

    def __init__(self, holds_s: tuple[float, ...] = HOLDS_S) -> None:
        self._holds_s = holds_s
        self._started = False
        self._down: _Down | None = None

    def changed(self, pressed: bool, now: float) -> list[Gesture]:
        """The contact closed (`pressed`) or opened; a repetition of what is known changes nothing."""
        events = self.tick(now)
        at_start, self._started = not self._started, True
        if self._down is None:
            if pressed:
                self._down = _Down(now, is_press=not at_start, holds_left=() if at_start else self._holds_s)
                if not at_start:
                    events.append(Pressed())
        elif pressed:
            self._down.open_since = None
            events += self.tick(now)
        elif self._down.open_since is None:
            self._down.open_since = now
        return events

    def down_s(self, now: float) -> float:
        """For how long it has been down; 0 where it is up."""
        return now - self._down.since if self._down is not None and self._down.open_since is None else 0.0

    def next_deadline(self) -> float | None:
        """When `tick` is due; None: not before the next change."""
        down = self._down
        if down is None:
            return None
        if down.open_since is not None:
            return down.open_since + SETTLE_S
        if down.holds_left:
            return down.since + down.holds_left[0]
        return None if down.stuck else down.since + STUCK_S

    def tick(self, now: float) -> list[Gesture]:
        """What the passing of time alone has brought about."""
        events: list[Gesture] = []
        while (deadline := self.next_deadline()) is not None and deadline <= now and self._down is not None:
            down = self._down
            if down.open_since is not None:
                self._down = None
                if down.is_press:
                    events.append(Released(down.open_since - down.since))
                if down.stuck:
                    events.append(Freed())
            elif down.holds_left:
                events.append(Held(down.holds_left[0]))
                down.holds_left = down.holds_left[1:]
            else:
                down.stuck = True
                events.append(Stuck())
        return events
