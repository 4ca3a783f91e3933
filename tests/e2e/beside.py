"""What a large file that waits in the outbox does to the voice of a call over the same thin link:
`scripts/prove-file-beside-call` prints it.

Two calls of one whole kit, told what its link carries, over the same losses: one with an empty outbox, one with a
stored case of a large photo in it. Mouth-to-ear as in `tests.bench`: what was said against what was played.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edge_agent.core import wire
from edge_agent.storage import CaseKept, ConsultOpened, FileKept, MessageQueued, Store
from tests.bench.devices import EAR, MOUTH
from tests.bench.marks import VoiceMarks, judge_voice, percentile
from tests.bench.material import Material, prepare
from tests.bench.recording import Piece, Sound, lay_out, read_pieces
from tests.e2e.doctor import Doctor
from tests.e2e.far_village import FarVillage, open_far_village
from tests.e2e.kiosk import Kiosk
from tests.e2e.kit import DOCTOR, Kit
from tests.e2e.speech import SCORE_RATE_HZ, write_wav
from tests.e2e.tap import open_browser
from tests.linklab.path import PathCounts
from tests.linklab.spec import Link, parse_link

MOST_MOVED_MS = 100.0
SKIPPED_S = 10.0  # of a call that has just begun: prompts end, buffers find their length
TAIL_S = 4.0  # what was said last arrives late
PATIENCE_S = 90.0  # for what goes over the thin link: TLS and a ring behind chunks that are on their way
PHOTO_BYTES = 2_000_000
_GOOD = parse_link("20000,2ms,1s")

Said = Callable[[str], None]


class Way(NamedTuple):
    marks: VoiceMarks
    kbps: float  # of the link, all that arrived
    queue_p95_ms: float


class Call(NamedTuple):
    """`sent_bytes`: of the file, that came to the hub in the measured time."""

    up: Way
    down: Way
    sent_bytes: int
    connects: int  # to the broker, in that time


class Run(NamedTuple):
    without: Call
    beside: Call

    def moved_ms(self, way: str) -> float:
        with_it, without = (getattr(call, way).marks.delay_p95_ms for call in (self.beside, self.without))
        return float("inf") if with_it is None or without is None else with_it - without


def moved_ms(runs: list[Run], way: str) -> float:
    """The median of the runs."""
    return statistics.median(run.moved_ms(way) for run in runs)


def holds(runs: list[Run]) -> bool:
    return all(moved_ms(runs, way) <= MOST_MOVED_MS for way in ("up", "down")) and all(
        run.beside.sent_bytes > 0 for run in runs
    )


def table(runs: list[Run]) -> str:
    lines = [
        "| run | way | file | PESQ | heard | mouth-to-ear p50 / p95 | moved p95 | link | queue p95 | arrived |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for number, run in enumerate(runs, 1):
        for way in ("up", "down"):
            for name, call in (("no", run.without), ("waits", run.beside)):
                marks, kbps, queue_ms = getattr(call, way)
                moved = f"{run.moved_ms(way):+.0f} ms" if call is run.beside else ""
                arrived = f"{call.sent_bytes / 1000:.0f} kB" if call is run.beside and way == "up" else ""
                lines.append(
                    f"| {number} | {way} | {name} | {marks.pesq:.2f} | {marks.heard * 100:.0f} % "
                    f"| {marks.delay_p50_ms or 0:.0f} / {marks.delay_p95_ms or 0:.0f} ms | {moved} "
                    f"| {kbps:.1f} kbit/s | {queue_ms:.0f} ms | {arrived} |"
                )
    return "\n".join(lines)


async def prove(
    link: Link, kbps: tuple[float, float], seconds: float, runs: int, said: Said,
    photo_bytes: int = PHOTO_BYTES, corpus: Path | None = None, keep: Path | None = None,
) -> list[Run]:  # fmt: skip
    """`kbps`: what the kiosk is told of `link`, up and down. The kit is set up over a good link."""
    done: list[Run] = []
    with tempfile.TemporaryDirectory() as made, open_far_village(kbps=20_000, one_way_ms=2, outages=()) as village:
        folder = Path(tempfile.mkdtemp(prefix="kit-", dir=keep)) if keep else Path(made)
        material = prepare(folder / "material", corpus)
        kit = Kit(folder, village)
        try:
            await kit.start()
            over = {"link": {"up_kbps": kbps[0], "down_kbps": kbps[1]}}
            kiosk = await kit.add_kiosk("kiosk-one", material.patient, over)
            noted = folder / "noted"
            noted.mkdir()
            argv = [sys.executable, "-m", "tests.e2e.noting_agent"]
            kiosk.agent.argv = village.command(*argv, *map(str, (kiosk.toml, material.patient, material.film, noted)))
            async with open_browser(material.doctor, material.film) as browser:
                doctor = await Doctor.sit_down(browser, kit.url, DOCTOR, kit.password)
                for run in range(1, runs + 1):
                    calls = []
                    for waits in (False, True):
                        said(f"run {run} of {runs}, {'beside a file' if waits else 'without'}")
                        await kiosk.to_idle()
                        await kiosk.agent.stop()
                        photo = _leave_photo(kiosk, os.urandom(photo_bytes)) if waits else b""
                        village.begin(link.seeded(run))
                        await kiosk.agent.start()
                        await kiosk.until_ready(PATIENCE_S)
                        calls.append(await _call(kit, kiosk, doctor, village, material, noted, seconds, photo, said))
                        village.begin(_GOOD)
                        await kiosk.until_all_sent(PATIENCE_S)
                    done.append(Run(*calls))
        finally:
            await kit.stop()
    return done


def _leave_photo(kiosk: Kiosk, data: bytes) -> bytes:
    """A case as the guided message leaves it, in the store of an agent that does not run; the photo's digest."""
    with closing(Store(kiosk.state_dir / "store")) as store:
        path = store.new_capture(".jpg")
        path.write_bytes(data)
        digest, size = store.keep_file(path)
        consult, now = wire.new_consult_id(), int(time.time() * 1000)
        kept = FileKept(consult, digest, "photo", "image/jpeg", size, now, "patient")
        bodies = (
            wire.ConsultOpened(now, "patient"),
            wire.Manifest(digest, "photo", "image/jpeg", size, now, "patient"),
            wire.CaseSaved(now, (digest,)),
        )
        messages = (wire.Message(body, consult, seq=seq, sent_at_ms=now) for seq, body in enumerate(bodies, 1))
        store.commit(
            [
                ConsultOpened(consult, now, "patient"), kept, *map(MessageQueued, messages),
                CaseKept(consult, now, "", (), "routine"),
            ]
        )  # fmt: skip
    return digest


async def _call(
    kit: Kit, kiosk: Kiosk, doctor: Doctor, village: FarVillage, material: Material, noted: Path, seconds: float,
    photo: bytes, said: Said,
) -> Call:  # fmt: skip
    pressed = time.monotonic()
    await kiosk.board.press()
    await doctor.take_call(PATIENCE_S)
    said(f"live {time.monotonic() - pressed:.1f} s after the press")
    begin = time.monotonic() + SKIPPED_S
    end = begin + seconds
    await asyncio.sleep(begin - time.monotonic())
    had, counted, lines = (
        _arrived(kit, photo),
        [_Count.of(counts) for counts in village.counts()],
        len(kiosk.agent.lines),
    )
    await asyncio.sleep(end - time.monotonic())
    sent = _arrived(kit, photo) - had
    used = [(_Count.of(counts), counts, before) for counts, before in zip(village.counts(), counted, strict=True)]
    connects = sum("broker connected" in line.text for line in kiosk.agent.lines[lines:])
    await asyncio.sleep(TAIL_S)
    doctor_heard, doctor_said = await _browser_sound(doctor, "sounds"), await _browser_sound(doctor, "spoken")
    await doctor.hang_up()
    kiosk_heard, kiosk_said = (lay_out(read_pieces(noted / name)) for name in (EAR, MOUTH))
    ways = []
    for (now, counts, before), spoken, played in zip(
        used, (kiosk_said, doctor_said), (doctor_heard, kiosk_heard), strict=True
    ):
        marks = await asyncio.to_thread(judge_voice, spoken, played, begin, end)
        waits = counts.queue_s[before.packets : now.packets]
        queue_ms = 1000 * (percentile(waits, 95) or 0.0)
        ways.append(Way(marks, (now.delivered - before.delivered) * 8 / 1000 / seconds, queue_ms))
    sounds = {
        "kiosk-said": kiosk_said,
        "kiosk-heard": kiosk_heard,
        "doctor-said": doctor_said,
        "doctor-heard": doctor_heard,
    }
    for name, sound in sounds.items():  # kept beside the logs, for whoever asks why
        samples = sound.between(begin, end + TAIL_S).clip(-32768, 32767).astype(np.int16)
        write_wav(noted / f"{name}-{'beside' if photo else 'without'}.wav", samples, SCORE_RATE_HZ)
    for name in (EAR, MOUTH):  # the next call notes from its own beginning
        (noted / name).unlink()
    return Call(*ways, sent, connects)


class _Count(NamedTuple):
    packets: int
    delivered: int  # bytes

    @classmethod
    def of(cls, counts: PathCounts) -> _Count:
        return cls(len(counts.queue_s), counts.delivered_bytes)


async def _browser_sound(doctor: Doctor, whose: str) -> Sound:
    to_monotonic = time.monotonic() - time.time()
    rate, pieces = await doctor.tap.pieces(whose)
    return lay_out([Piece(at + to_monotonic - len(sound) / rate, rate, sound) for at, sound in pieces])


def _arrived(kit: Kit, digest: bytes) -> int:
    """Bytes of a file that the hub has on its disk."""
    rows = kit.rows("SELECT ranges FROM content WHERE digest = ?", digest.hex()) if digest else []
    return sum(end - start for row in rows for start, end in json.loads(row["ranges"]))
