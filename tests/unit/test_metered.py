"""What a link paid for by the byte has carried, and what may go over it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edge_agent.config import read_kiosk_settings
from edge_agent.core.metered import MB, Cost, Hours, Meter, Moment, Plan, Spent, Verdict
from edge_agent.core.outbox import Priority
from edge_agent.core.settings import SettingsError

A, B = b"a" * 16, b"b" * 16
BOOT, LATER_BOOT = b"1234", b"5678"
NIGHT = Hours(22 * 60, 6 * 60)


def at(minute: int = 600, day: str = "2026-03-31", wall_ms: int = 0) -> Moment:
    return Moment(wall_ms, day, minute)


def meter(spent: Spent | None = None, boot: bytes = BOOT, **plan: object) -> Meter:
    return Meter(Plan(**plan), spent or Spent(boot=BOOT), boot)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("used_mb", "goes"),
    [
        (7.99, Priority.CLIP),
        (8.0, Priority.THUMBNAIL),
        (9.0, Priority.VOICE),
        (9.5, Priority.NOTE),
        (500.0, Priority.NOTE),
    ],
)
def test_the_largest_are_held_first_and_words_never(used_mb: float, goes: Priority):
    one = meter(day_bytes=10 * MB)
    one.count(round(used_mb * MB), at())
    why = "" if goes is Priority.CLIP else "day"
    assert one.verdict(at()) == Verdict(goes, why, 840 * 60_000 if why else 0)


def test_a_day_and_a_month_begin_anew():
    one = meter(day_bytes=10 * MB, month_bytes=15 * MB)
    one.count(9 * MB, at(day="2026-03-30"))
    one.count(8 * MB, at())
    assert (one.spent.day_bytes, one.spent.month_bytes) == (8 * MB, 17 * MB)
    assert one.verdict(at()) == Verdict(Priority.NOTE, "month", 0)
    assert one.verdict(at(day="2026-04-01")) == Verdict()
    assert (one.spent.day_bytes, one.spent.month_bytes) == (0, 0)


def test_what_waits_goes_in_the_cheap_hours_over_midnight():
    one = meter(cheap=NIGHT)
    assert one.verdict(at(21 * 60 + 59)) == Verdict(Priority.THUMBNAIL, "cheap_hours", 60_000)
    assert one.verdict(at(22 * 60)) == Verdict()
    assert one.verdict(at(0)) == Verdict()
    assert one.verdict(at(5 * 60 + 59)) == Verdict()
    assert one.verdict(at(6 * 60)) == Verdict(Priority.THUMBNAIL, "cheap_hours", 16 * 3_600_000)
    assert meter(cheap=NIGHT, held_from=Priority.VOICE).verdict(at()).goes is Priority.NOTE


def test_of_two_reasons_the_one_that_lasts_longer_is_told():
    one = meter(cheap=NIGHT, day_bytes=10 * MB)
    one.count(8 * MB, at(wall_ms=5))
    assert one.verdict(at(wall_ms=5)) == Verdict(Priority.THUMBNAIL, "day", 5 + 840 * 60_000)
    assert one.verdict(at(23 * 60)).why == "day"


def test_until_the_time_is_known_no_hour_is_cheap_and_a_start_has_a_day_s_bytes():
    one = meter(cheap=Hours(0, 23 * 60), day_bytes=10 * MB, price_per_mb=2.0, cheap_price_per_mb=1.0)
    assert one.verdict(None) == Verdict(Priority.THUMBNAIL, "cheap_hours", 0)
    one.count(9_500_000, None)
    assert one.verdict(None).goes is Priority.NOTE
    assert one.spent.day_bytes == 0
    again = meter(msgspec.convert(msgspec.to_builtins(one.spent), Spent), LATER_BOOT, day_bytes=10 * MB)
    assert again.verdict(None) == Verdict()  # another start
    assert again.spent.month_bytes == 9_500_000
    one.count(MB, at())
    assert (one.spent.day_bytes, one.spent.boot_bytes) == (10_500_000, 0)
    assert one.spent.day_cost == pytest.approx(9.5 * 2 + 1)  # what was of no known hour at the full price


def test_a_consult_pays_for_what_was_handed_over_of_it_with_what_goes_around():
    one = meter(price_per_mb=10.0)
    one.handed_over(A, 3000)
    one.handed_over(B, 1000)
    one.handed_over(b"", 1000)
    assert one.count(6000, at()) == {A: Cost(3600, pytest.approx(0.036)), B: Cost(1200, pytest.approx(0.012))}
    assert one.count(300, at()) == {}  # on its way
    one.rest()
    one.handed_over(A, 250)
    assert one.count(0, at()) == {A: Cost(300, pytest.approx(0.003))}
    one.handed_over(A, 100)
    assert one.count(8700, at()) == {A: Cost(200, 0.002)}
    one.rest()
    one.rest()  # a connection that idles
    one.handed_over(A, 100)
    assert one.count(0, at()) == {}
    assert one.count_call(MB, at()) == Cost(MB, 10.0)
    assert one.spent.day_bytes == 6000 + 9000 + MB


def read(tmp_path: Path, text: str):
    file = tmp_path / "kiosk.toml"
    file.write_text(f"[budget]\n{text}\n")
    return read_kiosk_settings(file).budget


def test_a_budget_is_read(tmp_path: Path):
    budget = read(
        tmp_path,
        'day_mb = 20\nmonth_mb = 500.5\nprice_per_mb = 0.02\ncurrency = "KES"\ncheap_hours = "22:00-06:00"\n'
        'cheap_hours_hold = "media"\ntime_zone = "Africa/Nairobi"',
    )
    assert budget.plan == Plan(20 * MB, 500_500_000, 0.02, 0.02, NIGHT, Priority.VOICE)
    assert not read(tmp_path, "").plan.is_set


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("day_mb = -1", "budget.day_mb: found -1"),
        ("day_mb = 20\nmonth_mb = 10", "budget.day_mb: found 20; a day may not have more than the month"),
        ('cheap_hours = "22-6"', "budget.cheap_hours: found '22-6'"),
        ('cheap_hours = "22:00-24:00"', "budget.cheap_hours: found '22:00-24:00'"),
        ('cheap_hours = "06:00-06:00"', "budget.cheap_hours: found '06:00-06:00'; they begin when they end"),
        ('time_zone = "Mars/Olympus"', "budget.time_zone: found 'Mars/Olympus'; expected a name of the time zone"),
        ('time_zone = "../etc"', "budget.time_zone: found '../etc'; expected"),
        ("price = 3", "budget.price: unknown key; known here: day_mb"),
        ('currency = "Kenyan shillings"', "budget.currency: found 'Kenyan shillings'"),
    ],
)
def test_a_wrong_budget_is_one_clear_line(tmp_path: Path, text: str, says: str):
    with pytest.raises(SettingsError) as refused:
        read(tmp_path, text)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
