"""One measured call: a lab, two ends, and the marks of what went between them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from playwright.async_api import Playwright

from tests.bench.ends import SETTLE_S, BrowserEnd, KitEnd, Meter, NearEnd, StockEnd, Testimony
from tests.bench.marks import NO_PICTURES, judge_outage, judge_pictures, judge_voice, percentile
from tests.bench.material import Material
from tests.bench.results import Result, Way
from tests.bench.rows import KITS, Row, Tuning
from tests.linklab.lab import LinkLab
from tests.linklab.path import PathCounts

SKIPPED_S = 5.0  # of a call that has just begun
TAIL_S = 4.0  # recorded after the end: what was said last arrives late
POLL_S = 0.25


async def measure(
    playwright: Playwright, row: Row, peer: str, run: int, seconds: float, material: Material, folder: Path
) -> Result:
    """`seconds` from the connection on; of these the first five do not count."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "near").mkdir(parents=True)
    tuning = row.tuning if peer == "tuned" else None
    link = row.link.seeded(run)
    with LinkLab(up=link.up, down=link.down) as lab:
        async with (
            BrowserEnd.open(
                playwright, lab.far, folder / "far", material.doctor, material.film, tuning
            ) as far,
            _near(row, peer, playwright, lab, folder / "near", material, tuning) as near,
        ):  # fmt: skip
            offer = await near.offer() if peer not in KITS else ""
            lab.start_anew()
            started = time.monotonic()
            if peer in KITS:
                await near.take_answer(await far.answer_as_console(await near.offer()))
            else:
                await near.take_answer(await far.answer(offer))
            connected = await _connected(near)
            call_began = time.monotonic()
            begin, end = call_began + SKIPPED_S, call_began + seconds
            if not connected:
                begin, end = started + SKIPPED_S, call_began
            await _until(begin)
            meters_before = await near.meter(), await far.meter()
            counts_before = _Counted(lab.up_counts), _Counted(lab.down_counts)
            load = os.getloadavg()[0]
            await _until(end)
            meters_after = await near.meter(), await far.meter()
            counts_after = _Counted(lab.up_counts), _Counted(lab.down_counts)
            load = max(load, os.getloadavg()[0])
            states = await near.state(), await far.state()
            await _until(end + TAIL_S)
            far_said = await far.testimony()
            near_said = await near.testimony()
    outages = [started + outage.start_s + outage.seconds for outage in link.up.outages]
    outages = [back for back in outages if back < end - 5]
    has_pictures = tuning is None or tuning.video_bps > 0
    judge = asyncio.to_thread
    up, down = await asyncio.gather(
        judge(_way, near_said, far_said, material, has_pictures, begin, end, outages),
        judge(_way, far_said, near_said, material, has_pictures, begin, end, outages),
    )
    return Result(
        row=row.name, peer=peer, run=run, seconds=seconds, material=material.name,
        at=datetime.now(UTC).isoformat(timespec="seconds"), load=round(load, 1),
        connected_s=round(call_began - started, 2) if connected else None,
        state="→".join(dict.fromkeys(states)),
        cpu=_rate(meters_before[0].cpu_s, meters_after[0].cpu_s, end - begin) if meters_after[0].cpu_s else None,
        pss_mb=round(meters_after[0].pss_mb, 1) or None,
        up=_with_link(up, counts_before[0], counts_after[0], meters_before[1], meters_after[1], end - begin),
        down=_with_link(down, counts_before[1], counts_after[1], meters_before[0], meters_after[0], end - begin),
    )  # fmt: skip


@contextlib.asynccontextmanager
async def _near(
    row: Row,
    peer: str,
    playwright: Playwright,
    lab: LinkLab,
    folder: Path,
    material: Material,
    tuning: Tuning | None,
) -> AsyncIterator[NearEnd]:
    if peer in KITS:
        told = None if peer == "kit" else row.kbps
        opening: Any = KitEnd.open(lab.near, folder, material, told, paced=peer != "unpaced")
    elif peer == "stock":
        opening = StockEnd.open(lab.near, folder, material)
    else:
        opening = BrowserEnd.open(playwright, lab.near, folder, material.patient, material.film, tuning)
    async with opening as end:
        yield end


async def _connected(near: NearEnd) -> bool:
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        if await near.state() == "connected":
            return True
        await asyncio.sleep(POLL_S / 5)
    return False


async def _until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - time.monotonic()))


class _Counted:
    """What a path had counted by now."""

    def __init__(self, counts: PathCounts) -> None:
        self.counts = replace(counts, queue_s=counts.queue_s)  # the list is shared and only grows
        self.waits = len(counts.queue_s)


def _way(
    source: Testimony,
    ear: Testimony,
    material: Material,
    has_pictures: bool,
    begin: float,
    end: float,
    outages: list[float],
) -> Way:
    voice = judge_voice(source.said, ear.heard, begin, end)
    after = [judge_outage(source.said, ear.heard, back, voice.delay_p50_ms) for back in outages]
    pictures = NO_PICTURES
    if has_pictures:
        stills = [(number, picture) for at, number, picture in ear.stills if begin <= at < end]
        pictures = judge_pictures(source.shown, ear.seen, stills, material.originals, begin, end)
    return Way(
        pesq=round(voice.pesq, 2),
        heard=round(voice.heard, 3),
        delay_p50_ms=_whole(voice.delay_p50_ms),
        delay_p95_ms=_whole(voice.delay_p95_ms),
        delays_ms=voice.delays_ms,
        voice_back_s=_worst([marks.voice_back_s for marks in after]),
        delay_normal_s=_worst([marks.delay_normal_s for marks in after]),
        has_pictures=has_pictures,
        pictures_s=round(pictures.per_second, 2),
        picture_p50_ms=_whole(pictures.latency_p50_ms),
        picture_p95_ms=_whole(pictures.latency_p95_ms),
        freezes=pictures.freezes,
        frozen=round(pictures.frozen, 3),
        ssim=None if pictures.ssim is None else round(pictures.ssim, 3),
        size=ear.size,
    )


def _with_link(way: Way, before: _Counted, after: _Counted, ear_before: Meter, ear_after: Meter, seconds: float) -> Way:
    waits = after.counts.queue_s[before.waits : after.waits]
    played = ear_after.played - ear_before.played
    queue_p95_s = percentile(waits, 95)
    way.queue_p95_ms = None if queue_p95_s is None else round(queue_p95_s * 1000)
    way.kbps = round((after.counts.delivered_bytes - before.counts.delivered_bytes) * 8 / seconds / 1000, 1)
    way.overflowed = after.counts.overflowed - before.counts.overflowed
    way.concealed = round((ear_after.concealed - ear_before.concealed) / played, 3) if played > 0 else None
    return way


def _rate(before: float, after: float, seconds: float) -> float:
    return round((after - before) / seconds, 3)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _worst(values: list[float | None]) -> float | None:
    """None also where one never came back."""
    known = [value for value in values if value is not None]
    return round(max(known), 2) if known and len(known) == len(values) else None
