"""Counts what the kiosk's link carries and says what may go: `core.metered`, fed by the kernel and a call's counters.

MQTT with its TLS is counted by the kernel's own account of its connections, a call by its transport. Not counted:
names and certificates over HTTPS (a few kB a week) and a self-test (200 kB at most).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import msgspec

from edge_agent.clock import KioskClock
from edge_agent.config import BudgetSection
from edge_agent.core import wire
from edge_agent.core.metered import Cost, Meter, Moment, Plan, Spent
from edge_agent.core.outbox import Priority
from edge_agent.ipc import CallStats
from edge_agent.storage import Change, Consult, ConsultCost, ValueKept

log = logging.getLogger(__name__)

# What a kill may take off the count: so much, or ten seconds. The card is not to wear for it.
SAVE_BYTES = 64 * 1024
SAVE_AT_ONCE_BYTES = 1_000_000
_decoder = msgspec.msgpack.Decoder(Spent)


class Metering:
    """`saved` is what `to_save` gave last, b"" for nothing; `carried` counts a connection's bytes from its start."""

    def __init__(
        self,
        budget: BudgetSection,
        clock: KioskClock,
        carried: Callable[[], int],
        saved: bytes,
        consults: Iterable[Consult],
    ) -> None:
        self.plan: Plan = budget.plan
        self.currency = budget.currency
        self._zone: tzinfo | None = ZoneInfo(budget.time_zone) if budget.time_zone else None
        self._clock, self._carried = clock, carried
        try:
            spent = _decoder.decode(saved) if saved else Spent()
        except msgspec.DecodeError as error:
            log.error("saved count of bytes unreadable reason=%s", error)
            spent = Spent()
        self._meter = Meter(self.plan, spent, clock.stamp().boot)
        self._costs = {consult.id: Cost(consult.wire_bytes, consult.cost) for consult in consults}
        self._legs: dict[tuple[bytes, int], int] = {}
        self._seen_bytes = self._unsaved_bytes = 0
        self._changed: set[bytes] = set()  # consults
        self._untold: dict[bytes, None] = {}
        self.verdict = self._meter.verdict(self._moment())

    @property
    def spent(self) -> Spent:
        return self._meter.spent

    def cost_of(self, consult: bytes) -> Cost:
        return self._costs.get(consult, Cost())

    def handed_over(self, consult: bytes, size_bytes: int) -> None:
        self._meter.handed_over(consult, size_bytes)

    def goes(self, under_way_bytes: int) -> Priority:
        """The least urgent that may go now."""
        return self._meter.verdict(self._moment(), under_way_bytes).goes if self.plan.is_set else Priority.CLIP

    def rest(self) -> None:
        self._meter.rest()

    def look(self) -> bool:
        """Whenever something has left, and now and then. Whether other things may go than before."""
        carried, now = self._carried(), self._moment()
        added = self._meter.count(carried - self._seen_bytes, now)
        self._unsaved_bytes += carried - self._seen_bytes
        self._seen_bytes = carried
        for consult, cost in added.items():
            self._charge(consult, cost)
        verdict = self._meter.verdict(now)
        changed = verdict[:2] != self.verdict[:2]
        if changed:
            log.info("budget goes=%s why=%s", verdict.goes.name.lower(), verdict.why or "-")
        self.verdict = verdict
        return changed

    def call(self, consult: bytes, stats: CallStats) -> None:
        leg = (stats.call, stats.leg)
        so_far = stats.sent_bytes + stats.received_bytes
        added = max(0, so_far - self._legs.get(leg, 0))
        if leg not in self._legs:
            self._legs = {of: count for of, count in self._legs.items() if of[0] == stats.call}
        self._legs[leg] = so_far
        self._unsaved_bytes += added
        self._charge(consult, self._meter.count_call(added, self._moment()))

    def report(self) -> wire.Spent:
        """For the hub; of consults what it was not told yet, the rest the next time."""
        told = tuple(self._untold)[: wire.MAX_TOLD_CONSULTS]
        for consult in told:
            del self._untold[consult]
        spent, plan, verdict = self.spent, self.plan, self.verdict
        return wire.Spent(
            day_bytes=spent.day_bytes or spent.boot_bytes,
            month_bytes=spent.month_bytes,
            day_limit=plan.day_bytes,
            month_limit=plan.month_bytes,
            month_cost=round(spent.month_cost, 2),
            currency=self.currency,
            held=verdict.why,
            held_until_ms=verdict.until_ms,
            consults=tuple((consult, *self.cost_of(consult)) for consult in told),
        )

    @property
    def wants_saving(self) -> bool:
        """Asked every few seconds."""
        return self._unsaved_bytes >= SAVE_BYTES

    @property
    def wants_saving_at_once(self) -> bool:
        return self._unsaved_bytes >= SAVE_AT_ONCE_BYTES

    def to_save(self) -> list[Change]:
        if not self._unsaved_bytes:
            return []
        self._unsaved_bytes = 0
        changed, self._changed = self._changed, set()
        costs = [ConsultCost(consult, *self._costs[consult]) for consult in changed]
        return [ValueKept("spent", msgspec.msgpack.encode(self.spent)), *costs]

    def _charge(self, consult: bytes, cost: Cost) -> None:
        self._costs[consult] = self.cost_of(consult).plus(cost)
        self._changed.add(consult)
        self._untold[consult] = None

    def clock_time(self, wall_ms: int) -> str:
        """The clinic's time of day; "" for 0."""
        return self._local(wall_ms).strftime("%H:%M") if wall_ms else ""

    def _local(self, wall_ms: int) -> datetime:
        return datetime.fromtimestamp(wall_ms / 1000, UTC).astimezone(self._zone)

    def _moment(self) -> Moment | None:
        wall_ms = self._clock.trusted_ms()
        if wall_ms is None:
            return None
        local = self._local(wall_ms)
        return Moment(wall_ms, local.strftime("%Y-%m-%d"), local.hour * 60 + local.minute)
