"""A token bucket: how many bytes a second may be spent, and when the next may.

Pure. An item of any size may go while nothing is owed, so that big ones are not kept out for ever; what it takes beyond
the tokens is owed and paid back before the next. Rest saves up `BURST_S` and no more.
"""

from __future__ import annotations

BURST_S = 1.0
PAID_BYTES = 0.01  # less is rounding


class Budget:
    def __init__(self, bytes_per_s: float, now: float) -> None:
        self.bytes_per_s = bytes_per_s
        self._tokens = 0.0
        self._at = now

    def may_spend(self, now: float) -> bool:
        self._fill(now)
        return self._tokens >= -PAID_BYTES

    def spend(self, size_bytes: int, now: float) -> None:
        self._fill(now)
        self._tokens -= size_bytes

    def ready_at(self, now: float) -> float:
        self._fill(now)
        return now + max(0.0, -self._tokens) / self.bytes_per_s

    def _fill(self, now: float) -> None:
        self._tokens = min(self._tokens + (now - self._at) * self.bytes_per_s, BURST_S * self.bytes_per_s)
        self._at = now
