"""What a link that is paid for by the byte has carried, and what may go over it now.

Pure. Whoever measures hands in bytes as a meter of the link sees them, headers included. They count for the day and
the month, at the price of the hour, and for the consult that they were for: shared out by what was handed over of each,
no consult being charged more than `MOST_OVERHEAD` times that, since a link that idles costs too.

Words, calls and emergencies always go: a note is 1.3 kB, and a budget must not silence anybody. What is held is media,
the largest first: the last of a day's or month's bytes are kept for what tells the doctor most for its size (`SHARES`).
With cheap hours, what is at or below `Plan.held_from` waits for them.

A clock that nobody vouches for knows neither day nor hour: then no hour is cheap, and each start of the machine has a
day's bytes. They are put to the day and month once these are known, to the month alone if that was after a restart.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from edge_agent.core.outbox import Priority

MB = 1_000_000
DAY_MINUTES = 24 * 60
MOST_OVERHEAD = 2.0
SHARES = ((Priority.CLIP, 0.8), (Priority.THUMBNAIL, 0.9), (Priority.VOICE, 0.95))  # what goes while less is used

Reason = Literal["", "cheap_hours", "day", "month"]


class Hours(NamedTuple):
    """Of the day, in minutes from midnight; `end` may be the next day's."""

    start: int
    end: int

    def holds(self, minute: int) -> bool:
        return (minute - self.start) % DAY_MINUTES < (self.end - self.start) % DAY_MINUTES


class Plan(NamedTuple):
    day_bytes: int = 0  # 0: no limit
    month_bytes: int = 0
    price_per_mb: float = 0.0
    cheap_price_per_mb: float = 0.0
    cheap: Hours | None = None
    held_from: Priority = Priority.PHOTO

    @property
    def is_set(self) -> bool:
        return bool(self.day_bytes or self.month_bytes or self.price_per_mb or self.cheap)


class Moment(NamedTuple):
    """By a clock that is trusted, in the clinic's time zone."""

    wall_ms: int
    day: str  # as 2026-11-25
    minute: int  # of the day


class Spent(msgspec.Struct, array_like=True):
    day: str = ""
    day_bytes: int = 0
    day_cost: float = 0.0
    month: str = ""
    month_bytes: int = 0
    month_cost: float = 0.0
    boot: bytes = b""
    boot_bytes: int = 0  # of no known day, yet


class Cost(NamedTuple):
    bytes: int = 0
    money: float = 0.0

    def plus(self, other: Cost) -> Cost:
        return Cost(self.bytes + other.bytes, self.money + other.money)


class Verdict(NamedTuple):
    """The least urgent that may go now, and for what the rest waits; `until_ms` is 0 where it is no time."""

    goes: Priority = Priority.CLIP
    why: Reason = ""
    until_ms: int = 0


class Meter:
    """`spent` is kept by the caller; `boot` is the machine's start."""

    def __init__(self, plan: Plan, spent: Spent, boot: bytes) -> None:
        self.plan, self.spent = plan, spent
        self._handed: dict[bytes, int] = {}
        self._open_bytes = 0  # not yet any consult's: what is under way is counted before it is handed over
        self._rested = True
        if spent.boot != boot:
            self._to_month(spent.boot_bytes)
            spent.boot, spent.boot_bytes = boot, 0

    def handed_over(self, consult: bytes, size_bytes: int) -> None:
        """So much of it has left; b"" for what is no consult's."""
        self._handed[consult] = self._handed.get(consult, 0) + size_bytes
        self._rested = False

    def rest(self) -> None:
        """Every few seconds. What came while nothing was handed over is nobody's: the connection itself."""
        if self._rested:
            self._open_bytes = 0
        self._rested = True

    def count(self, size_bytes: int, now: Moment | None) -> dict[bytes, Cost]:
        """What the link has carried since the last time. Gives what it adds to consults."""
        self._add(size_bytes, now)
        self._open_bytes += size_bytes
        total = sum(self._handed.values())
        if not total:
            return {}
        shares = {
            consult: int(min(self._open_bytes * handed / total, MOST_OVERHEAD * handed))
            for consult, handed in self._handed.items()
        }
        self._handed = {}
        self._open_bytes -= sum(shares.values())
        return {consult: self._cost(share, now) for consult, share in shares.items() if consult and share}

    def count_call(self, size_bytes: int, now: Moment | None) -> Cost:
        self._add(size_bytes, now)
        return self._cost(size_bytes, now)

    def verdict(self, now: Moment | None, under_way_bytes: int = 0) -> Verdict:
        """`under_way_bytes` will count once they are there."""
        self._turn_over(now)
        plan, spent = self.plan, self.spent
        day = spent.day_bytes if now else spent.boot_bytes
        tomorrow_ms = now.wall_ms + (DAY_MINUTES - now.minute) * 60_000 if now else 0
        verdicts = [
            Verdict(),
            Verdict(_goes(day + under_way_bytes, plan.day_bytes), "day", tomorrow_ms),
            Verdict(_goes(spent.month_bytes + spent.boot_bytes + under_way_bytes, plan.month_bytes), "month"),
        ]
        if plan.cheap is not None and (now is None or not plan.cheap.holds(now.minute)):
            minutes = (plan.cheap.start - now.minute) % DAY_MINUTES if now else 0
            until_ms = now.wall_ms + minutes * 60_000 if now else 0
            verdicts.append(Verdict(Priority(plan.held_from - 1), "cheap_hours", until_ms))
        # Of several that hold the same back the month is over last, and the clock's times are as they come.
        strictest = min(verdict.goes for verdict in verdicts)
        if strictest is Priority.CLIP:
            return Verdict()
        holding = [verdict for verdict in verdicts if verdict.goes is strictest]
        return next((verdict for verdict in holding if verdict.why == "month"), None) or max(
            holding, key=lambda verdict: verdict.until_ms
        )

    def _add(self, size_bytes: int, now: Moment | None) -> None:
        self._turn_over(now)
        spent = self.spent
        if now is None:
            spent.boot_bytes += size_bytes
            return
        cost = self._cost(size_bytes, now).money
        spent.day_bytes += size_bytes
        spent.day_cost += cost
        spent.month_bytes += size_bytes
        spent.month_cost += cost

    def _turn_over(self, now: Moment | None) -> None:
        if now is None:
            return
        spent = self.spent
        if now.day != spent.day:
            spent.day, spent.day_bytes, spent.day_cost = now.day, 0, 0.0
        if now.day[:7] != spent.month:
            spent.month, spent.month_bytes, spent.month_cost = now.day[:7], 0, 0.0
        if spent.boot_bytes:
            spent.day_bytes += spent.boot_bytes
            spent.day_cost += self._cost(spent.boot_bytes, None).money
            self._to_month(spent.boot_bytes)
            spent.boot_bytes = 0

    def _to_month(self, size_bytes: int) -> None:
        self.spent.month_bytes += size_bytes
        self.spent.month_cost += self._cost(size_bytes, None).money

    def _cost(self, size_bytes: int, now: Moment | None) -> Cost:
        plan = self.plan
        is_cheap = plan.cheap is not None and now is not None and plan.cheap.holds(now.minute)
        return Cost(size_bytes, size_bytes / MB * (plan.cheap_price_per_mb if is_cheap else plan.price_per_mb))


def _goes(used_bytes: int, limit_bytes: int) -> Priority:
    if not limit_bytes:
        return Priority.CLIP
    return next((goes for goes, share in SHARES if used_bytes < share * limit_bytes), Priority.NOTE)
