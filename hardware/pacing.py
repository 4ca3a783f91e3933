"""Real time for devices that have no clock of their own: a beat off the monotonic clock that does not drift."""

from __future__ import annotations

import threading
import time


class Beat:
    """Beats `rate` times a second from the first `wait` on. A reader that comes late by more than `patience_s` has
    missed the beats in between."""

    def __init__(self, rate: float, patience_s: float) -> None:
        self._rate = rate
        self._patience = patience_s
        self._start: float | None = None
        self._next = 0
        self._closed = threading.Event()

    def wait(self) -> tuple[int, float] | None:
        """Blocks until the next beat; gives its index and the monotonic time it was due, or None once closed."""
        now = time.monotonic()
        if self._start is None:
            self._start = now
        late_s = now - self._start - self._next / self._rate
        if late_s > self._patience:
            self._next = int((now - self._start) * self._rate)
        index, due = self._next, self._start + self._next / self._rate
        self._next += 1
        if self._closed.wait(max(0.0, due - now)):
            return None
        return index, due

    def close(self) -> None:
        """Ends a `wait` under way too."""
        self._closed.set()
