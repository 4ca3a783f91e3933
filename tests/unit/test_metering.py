"""What is counted of connections and calls, what of it is kept, and taken up again."""

from __future__ import annotations

import time

import pytest

from edge_agent.clock import KioskClock
from edge_agent.config import BudgetSection
from edge_agent.core import wire
from edge_agent.core.metered import Cost
from edge_agent.core.outbox import Priority
from edge_agent.ipc import CallStats
from edge_agent.metering import SAVE_BYTES, Metering
from edge_agent.storage import Consult, ConsultCost, ValueKept

A = b"a" * 16
CALL = b"c" * 8


@pytest.fixture
def clock() -> KioskClock:
    clock = KioskClock(b"")
    clock.told(wire.TimeTold(clock.ask().nonce, time.time_ns() // 1_000_000))
    assert clock.trusted
    return clock


class Line:
    carried = 0

    def __call__(self) -> int:
        return self.carried


def stats(sent: int, received: int, leg: int = 1, call: bytes = CALL) -> CallStats:
    return CallStats(call, leg, 0.0, 0, 0, 0, 0, sent_bytes=sent, received_bytes=received)


def test_a_call_counts_leg_by_leg_also_while_two_go_on(clock: KioskClock):
    metering = Metering(BudgetSection(day_mb=1.0, price_per_mb=10.0), clock, Line(), b"", [])
    for frame in (stats(100, 50), stats(300, 250), stats(10, 0, leg=2), stats(400, 250), stats(20, 0, leg=2)):
        metering.call(A, frame)
    assert metering.cost_of(A) == (pytest.approx(670), pytest.approx(0.0067))
    metering.call(A, stats(5, 5, call=b"d" * 8))
    assert metering.spent.day_bytes == metering.spent.month_bytes == 680
    metering.call(A, stats(900_000, 0, call=b"d" * 8))
    assert metering.look()
    assert metering.verdict.goes is Priority.VOICE
    assert metering.goes(50_000) is Priority.NOTE
    assert not metering.look()


def test_what_is_kept_is_taken_up_and_not_kept_twice(clock: KioskClock):
    line = Line()
    metering = Metering(BudgetSection(price_per_mb=10.0), clock, line, b"", [])
    line.carried = SAVE_BYTES - 1
    metering.look()
    assert not metering.wants_saving
    metering.handed_over(A, 1000)
    line.carried = SAVE_BYTES
    metering.look()
    assert metering.wants_saving
    spent, cost = metering.to_save()
    assert isinstance(spent, ValueKept)
    assert cost == ConsultCost(A, 2000, pytest.approx(0.02))
    assert metering.to_save() == []
    again = Metering(
        BudgetSection(price_per_mb=10.0),
        clock,
        Line(),
        spent.value,
        [Consult(A, 1, "patient", wire_bytes=2000, cost=0.02)],
    )
    assert again.spent == metering.spent
    assert again.cost_of(A) == Cost(2000, 0.02)
    again.call(A, stats(1000, 0))
    assert again.to_save()[1] == ConsultCost(A, 3000, pytest.approx(0.03))


def test_a_damaged_count_begins_anew(clock: KioskClock, caplog: pytest.LogCaptureFixture):
    assert Metering(BudgetSection(), clock, Line(), b"\xc1", []).spent.day_bytes == 0
    assert "saved count of bytes unreadable" in caplog.text


def test_the_hub_is_told_what_a_person_would_ask(clock: KioskClock):
    metering = Metering(BudgetSection(day_mb=0.5, month_mb=3.0, currency="KES"), clock, Line(), b"", [])
    metering.call(A, stats(450_000, 0))
    metering.look()
    told = metering.report()
    assert (told.day_bytes, told.day_limit, told.month_limit, told.currency) == (450_000, 500_000, 3_000_000, "KES")
    assert told.held == "day"
    assert 0 < told.held_until_ms - clock.wall_ms() <= 24 * 3_600_000
    encoded = wire.encode(wire.Message(told))
    assert wire.decode(encoded).body == told
    assert len(encoded) < 140
    assert told.consults == ((A, 450_000, 0.0),)
    assert metering.report().consults == ()  # it was told
