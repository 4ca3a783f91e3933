"""The kit's figures, measured on a whole kit as it runs: `scripts/bench-flows` and `scripts/pi-check` print them.

Times are taken by whoever stands at the end that counts: the panel that sees the lamp, the page that rings, the page
that hears and shows, the agent that is told by its media process what went to the speaker and the screen.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hub import console
from tests.e2e.doctor import Doctor
from tests.e2e.kiosk import Kiosk
from tests.e2e.kit import DOCTOR, Kit
from tests.e2e.pictures import make_camera_file
from tests.e2e.speech import DOCTOR as DOCTORS_WORDS
from tests.e2e.speech import PATIENT as PATIENTS_WORDS
from tests.e2e.speech import Samples, speak, write_wav
from tests.e2e.tap import open_browser

Said = Callable[[str], None]


class Figure(NamedTuple):
    what: str
    limit: float
    unit: str
    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def holds(self) -> bool:
        return self.median <= self.limit


def table(figures: list[Figure]) -> str:
    """Markdown: what, limit, median, worst, runs."""
    lines = ["| figure | limit | median | worst | of | |", "|---|---:|---:|---:|---:|---|"]
    for figure in figures:
        lines.append(
            f"| {figure.what} | {figure.limit:g} {figure.unit} | {figure.median:.3g} {figure.unit} "
            f"| {max(figure.values):.3g} {figure.unit} | {len(figure.values)} | {'' if figure.holds else 'missed'} |"
        )
    return "\n".join(lines)


async def measure(runs: int, said: Said) -> list[Figure]:
    """All of them, one after the other, on a kit of its own in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="teleconsult-figures-") as folder:
        home = Path(folder)
        # Speech without its pauses: what is timed is the line, not when the next word happens to come.
        write_wav(home / "patient.wav", without_pauses(speak(*PATIENTS_WORDS, home / "patient.wav")))
        write_wav(home / "doctor.wav", without_pauses(speak(*DOCTORS_WORDS, home / "doctor.wav")))
        make_camera_file(home / "doctor.y4m")
        kit = Kit(home)
        try:
            await kit.start()
            kiosk = await kit.add_kiosk(
                "kiosk-one", home / "patient.wav", {"call": {"ended_screen_s": 1.0}, "log": {"level": "debug"}}
            )
            said("at rest")
            figures = await at_rest(kiosk)
            async with open_browser(home / "doctor.wav", home / "doctor.y4m") as browser:
                doctor = await Doctor.sit_down(browser, kit.url, DOCTOR, kit.password)
                figures = await calls(kit, kiosk, doctor, runs, said) + figures
                await doctor.leave()
            return figures + await messages(kit, kiosk, runs, said)
        finally:
            await kit.stop()


def without_pauses(samples: Samples) -> Samples:
    block = 960
    blocks = samples[: len(samples) // block * block].reshape(-1, block)
    return blocks[np.abs(blocks.astype(np.int32)).max(axis=1) > 1500].reshape(-1)


async def at_rest(kiosk: Kiosk, seconds: float = 20.0) -> list[Figure]:
    """The agent with its page and panel connected and nothing to do."""
    await asyncio.sleep(5)  # what a start brings with it is over
    spent, began = cpu_seconds(kiosk.agent.pid), time.monotonic()
    await asyncio.sleep(seconds)
    share = (cpu_seconds(kiosk.agent.pid) - spent) / (time.monotonic() - began) * 100
    return [
        Figure("agent at rest, of a core", 3.0, "%", [share]),
        Figure("agent at rest, PSS", 120.0, "MB", [pss_mb(kiosk.agent.pid)]),
    ]


async def calls(kit: Kit, kiosk: Kiosk, doctor: Doctor, runs: int, said: Said) -> list[Figure]:
    lamp, rings, heard_here, heard_there, seen_here, seen_there, memory = ([] for _ in range(7))
    for run in range(1, runs + 1):
        said(f"call {run} of {runs}")
        await kit.settle()
        await doctor.watch_for_ringing()
        since = len(kiosk.board.lamps)
        pressed = await kiosk.board.down()
        lit = await kiosk.board.until_light("calling", since=since)
        await kiosk.board.up()
        lamp.append((lit.at - pressed) * 1000)
        await doctor.until_rings()
        rings.append((await doctor.rang_at() - pressed) * 1000)
        await doctor.claim()
        await doctor.until_held()
        logged = len(kiosk.agent.lines)
        answered = await doctor.talk()
        await doctor.until_state("live")
        heard_there.append(await doctor.first_sound() - answered)
        seen_there.append(await doctor.first_sighting(answered) - answered)
        heard_here.append(await kiosk.first("heard", logged) - answered)
        seen_here.append((await kiosk.screen.until_sees(answered))[0] - answered)
        await asyncio.sleep(2)  # into the call
        assert kiosk.media_pid is not None
        memory.append(pss_mb(kiosk.media_pid))
        await doctor.hang_up()
        await kiosk.screen.until(lambda view: view.screen in ("ended", "idle"), "the end")
    return [
        Figure("press → lamp", 100, "ms", lamp),
        Figure("press → console rings", 500, "ms", rings),
        Figure("answer → first sound at the doctor", 0.5, "s", heard_there),
        Figure("answer → first sound at the kiosk", 0.5, "s", heard_here),
        Figure("answer → first picture at the doctor", 1.5, "s", seen_there),
        Figure("answer → first picture at the kiosk", 1.5, "s", seen_here),
        Figure("media in a call, PSS", 190, "MB", memory),
    ]


async def messages(kit: Kit, kiosk: Kiosk, runs: int, said: Said) -> list[Figure]:
    """A consult with a voice note of 2 s: from "saved" on the screen to the inbox, complete."""
    took = []
    watcher = await kit.watcher()
    nobody = await kit.console(available=False)
    await nobody.send(console.SetAvailable(available=True))
    for run in range(1, runs + 1):
        said(f"message {run} of {runs}")
        await kit.settle()
        mark = len(nobody.got)
        await kiosk.board.press()
        ring = await nobody.until_rings(mark)
        await nobody.send(console.Decline(call=ring.call))
        await kiosk.screen.until(lambda view: view.screen == "offer", "the offer of a message")
        await kiosk.screen.act("leave_message")
        mark, seen = len(watcher.got), len(kiosk.screen.views)
        consult = await kiosk.leave_message(voice_s=2.0)
        saved = await kiosk.screen.when(lambda view: view.screen == "saved", "saved", since=seen)
        arrived = await watcher.when_complete(consult, mark)
        took.append(max(0.0, arrived - saved.at))
    return [Figure("saved → in the inbox, with a 2 s voice note", 1.0, "s", took)]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its children not counted."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_mb(pid: int) -> float:
    """Proportional set size: shared pages counted in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000 * 1.024
    raise OSError(f"no Pss of process {pid}")
