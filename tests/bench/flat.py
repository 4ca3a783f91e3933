"""A long call: whether the media process grows, and whether anybody is heard later and later. `scripts/prove-flat`
prints it."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from playwright.async_api import Playwright
from scipy.stats import theilslopes

from edge_agent import ipc
from tests.bench.ends import BrowserEnd, KitEnd
from tests.bench.marks import judge_voice
from tests.bench.material import Material
from tests.bench.recording import Piece, Sound, lay_out
from tests.bench.rows import Row
from tests.linklab.lab import LinkLab

MOST_GROWTH_MB = 5.0
MOST_DRIFT_MS = 20.0
CONNECTS_S = 40.0
TAIL_S = 4.0  # what was said last in a step arrives late


class Step(NamedTuple):
    """Of one step of the call, `at_s` its end since the connection."""

    at_s: float
    pss_mb: float
    buffer_ms: float  # of the kiosk's playout, median
    up_ms: float | None  # mouth-to-ear p50
    down_ms: float | None


class Trend(NamedTuple):
    """What a value has moved by over the judged steps, along the median of all slopes between two of them (Theil and
    Sen): one step that stands out says nothing."""

    what: str
    first: float
    last: float
    moved: float
    limit: float
    unit: str

    @property
    def holds(self) -> bool:
        return self.moved <= self.limit


def trends(steps: Sequence[Step], settle_s: float) -> list[Trend]:
    judged = [step for step in steps if step.at_s >= settle_s]
    found = []
    for name, what, limit, unit in (
        ("pss_mb", "media process, PSS", MOST_GROWTH_MB, "MB"),
        ("buffer_ms", "kiosk's buffer", MOST_DRIFT_MS, "ms"),
        ("up_ms", "mouth-to-ear up", MOST_DRIFT_MS, "ms"),
        ("down_ms", "mouth-to-ear down", MOST_DRIFT_MS, "ms"),
    ):
        points = [(step.at_s, value) for step in judged if (value := getattr(step, name)) is not None]
        if len(points) < max(2, 0.8 * len(judged)):  # nobody was heard
            found.append(Trend(what, 0.0, 0.0, float("inf"), limit, unit))
            continue
        times, values = zip(*points, strict=True)
        moved = float(theilslopes(values, times).slope) * (times[-1] - times[0])
        # Memory may be given back; a delay may not wander either way.
        found.append(Trend(what, values[0], values[-1], moved if unit == "MB" else abs(moved), limit, unit))
    return found


def table(steps: Sequence[Step]) -> str:
    lines = ["| after | PSS | buffer | mouth-to-ear up | down |", "|---:|---:|---:|---:|---:|"]
    for step in steps:
        up, down = ("not heard" if value is None else f"{value:.0f} ms" for value in (step.up_ms, step.down_ms))
        lines.append(f"| {step.at_s / 60:.3g} min | {step.pss_mb:.1f} MB | {step.buffer_ms:.0f} ms | {up} | {down} |")
    return "\n".join(lines)


async def prove(
    playwright: Playwright, row: Row, seconds: float, step_s: float, material: Material, folder: Path,
    said: Callable[[str], None],
) -> list[Step]:  # fmt: skip
    """One call of the kit, told what the link carries. Sound is judged when it is over: while it lasts that would take
    the processor from it."""
    (folder / "near").mkdir(parents=True)
    with LinkLab(up=row.link.up, down=row.link.down) as lab:
        async with (
            BrowserEnd.open(playwright, lab.far, folder / "far", material.doctor, material.film) as far,
            KitEnd.open(lab.near, folder / "near", material, row.kbps, paced=True) as near,
        ):
            await near.take_answer(await far.answer_as_console(await near.offer()))
            deadline = time.monotonic() + CONNECTS_S
            while await near.state() != "connected":
                assert time.monotonic() < deadline, "the call did not connect"
                await asyncio.sleep(0.05)
            began = time.monotonic()
            kept: list[tuple[float, float, float, list[Sound]]] = []  # end, PSS, buffer, four sounds
            ears = _Ears(near, far)
            for number in range(1, round(seconds / step_s) + 1):
                end = began + number * step_s
                await asyncio.sleep(end - time.monotonic())
                meter = await near.meter()
                stats = [frame.buffer_ms for at, frame in near.frames if at >= end - step_s and _is_stats(frame)]
                near.frames.clear()  # pictures among them
                assert stats, "the call has ended"
                said(f"{(end - began) / 60:.3g} min: {meter.pss_mb:.1f} MB, buffer {statistics.median(stats):.0f} ms")
                await asyncio.sleep(end + TAIL_S - time.monotonic())
                sounds = await ears.between(end - step_s, end + TAIL_S)
                kept.append((end, meter.pss_mb, statistics.median(stats), sounds))
    steps = []
    for end, pss, buffer_ms, (kiosk_said, kiosk_heard, doctor_said, doctor_heard) in kept:
        up = await asyncio.to_thread(judge_voice, kiosk_said, doctor_heard, end - step_s, end)
        down = await asyncio.to_thread(judge_voice, doctor_said, kiosk_heard, end - step_s, end)
        steps.append(Step(end - began, pss, buffer_ms, up.delay_p50_ms, down.delay_p50_ms))
    return steps


def _is_stats(frame: object) -> bool:
    return isinstance(frame, ipc.CallStats)


class _Ears:
    """What both ends said and heard, taken out bit by bit, so that nobody holds half an hour of it."""

    def __init__(self, near: KitEnd, far: BrowserEnd) -> None:
        self._near, self._far = near, far
        self._pieces: list[list[Piece]] = [[], [], [], []]

    async def between(self, begin: float, end: float) -> list[Sound]:
        """Kiosk's mouth and ear, browser's mouth and ear. What is older than `begin` is let go."""
        fresh = [*self._near.take_pieces(), *[await self._far.take_pieces(name) for name in ("mouth", "ear")]]
        for number, pieces in enumerate(fresh):
            self._pieces[number] = [piece for piece in self._pieces[number] + pieces if piece.at >= begin - 1]
        return [await asyncio.to_thread(lay_out, pieces) for pieces in self._pieces]
