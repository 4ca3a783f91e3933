"""When to ask the far end of a path whether it still wants our packets, and when its silence is too long (RFC 7675).

Pure. Every question is asked once and is a transaction of its own, so an answer counts however late it comes. While
answers come there is a question every five seconds; an overdue answer brings the next question forward: on a link that
loses packets thirty seconds must hold enough questions that all of them being lost means something.
"""

from __future__ import annotations

INTERVAL_S = 5.0  # RFC 7675, section 5.1, as are the spread and the expiry
SPREAD = 0.2
EXPIRES_S = 30.0
FIRST_PATIENCE_S = 1.0  # for an answer, while no round trip has been measured
LEAST_PATIENCE_S = 1.0
MOST_PATIENCE_S = 3.0


class Consent:
    """Of one path, from the moment that it was checked: `now`."""

    def __init__(self, now: float, spread: float = 0.0) -> None:
        self._last_answer = now
        self._last_asked = now
        self._answered = True  # the newest question
        self._interval_s = INTERVAL_S * (1 + SPREAD * spread)
        self._rtt_s = 0.0  # smoothed, and its deviation, as in RFC 6298
        self._rtt_deviation_s = 0.0

    @property
    def rtt_s(self) -> float:
        """Smoothed; 0 while no answer has come."""
        return self._rtt_s

    @property
    def next_question_at(self) -> float:
        return self._last_asked + (self._interval_s if self._answered else self._patience_s)

    @property
    def expires_at(self) -> float:
        return self._last_answer + EXPIRES_S

    def asked(self, now: float, spread: float = 0.0) -> None:
        """`spread` from -1 to 1, random, so that many paths do not ask in step."""
        self._last_asked = now
        self._answered = False
        self._interval_s = INTERVAL_S * (1 + SPREAD * spread)

    def answered(self, asked_at: float, now: float) -> None:
        """To the question of `asked_at`, which need not be the newest."""
        self._last_answer = max(self._last_answer, now)
        self._answered = self._answered or asked_at >= self._last_asked
        rtt_s = now - asked_at
        if self._rtt_s:
            self._rtt_deviation_s += (abs(self._rtt_s - rtt_s) - self._rtt_deviation_s) / 4
            self._rtt_s += (rtt_s - self._rtt_s) / 8
        else:
            self._rtt_s, self._rtt_deviation_s = rtt_s, rtt_s / 2

    @property
    def _patience_s(self) -> float:
        if not self._rtt_s:
            return FIRST_PATIENCE_S
        return min(max(self._rtt_s + 4 * self._rtt_deviation_s, LEAST_PATIENCE_S), MOST_PATIENCE_S)
