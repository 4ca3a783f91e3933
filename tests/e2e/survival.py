"""How soon voice is back after an outage or a change of address, and how soon it is there after the answer, on a long
link: `scripts/prove-survival` prints it.

Each side hums a tone of its own; voice is back at the first moment from which the other side hears it for a second
without a break of more than a fifth of that.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.e2e.doctor import Doctor
from tests.e2e.far_village import open_far_village
from tests.e2e.kiosk import Kiosk
from tests.e2e.kit import DOCTOR, Kit
from tests.e2e.pictures import make_camera_file
from tests.e2e.speech import RATE_HZ, Samples, write_wav
from tests.e2e.tap import open_browser

PATIENT_HZ, DOCTOR_HZ = 500.0, 700.0
FIRST_OUTAGE_S = 75.0  # from the beginning: a kit on a long link is up and in a call by then
WINDOW = RATE_HZ // 25
STEADY = 25  # windows
STEADY_SHARE = 0.8
LOUD = 300.0  # of 32767
NORMAL_S = 0.1  # more of delay than before
CALM_S = 2.0  # after the voice is back


class Back(NamedTuple):
    """Seconds from the link's return, the move or the answer to the voice at each end."""

    what: str
    at_kiosk_s: float
    at_doctor_s: float
    leg: int
    limit_s: float
    buffer_s: float = 0.0  # the browser's, before it happened
    buffer_after_s: float = 0.0  # and once 2 s of voice had been there again

    @property
    def holds(self) -> bool:
        in_time = max(self.at_kiosk_s, self.at_doctor_s) <= self.limit_s
        return in_time and self.buffer_after_s <= self.buffer_s + NORMAL_S


def table(rows: list[Back]) -> str:
    lines = [
        "| | kiosk hears | doctor hears | limit | the browser's buffer before, after 2 s | leg | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.what} | {row.at_kiosk_s:.1f} s | {row.at_doctor_s:.1f} s | {row.limit_s:.1f} s "
            f"| {row.buffer_s * 1000:.0f}, {row.buffer_after_s * 1000:.0f} ms | {row.leg} "
            f"| {'' if row.holds else 'missed'} |"
        )
    return "\n".join(lines)


async def prove(
    kbps: float, rtt_s: float, loss: float, outages_s: list[float], move: bool, said: Callable[[str], None],
    keep: Path | None = None,
) -> list[Back]:  # fmt: skip
    """One call on a link of `kbps` each way through all of it."""
    starts, at = [], FIRST_OUTAGE_S
    for seconds in outages_s:
        starts.append((at, seconds))
        at += seconds + 30.0
    rows: list[Back] = []
    with (
        tempfile.TemporaryDirectory() as made,
        open_far_village(kbps=kbps, one_way_ms=rtt_s * 500, loss=loss, outages=tuple(starts)) as village,
    ):
        folder = Path(tempfile.mkdtemp(prefix="kit-", dir=keep)) if keep else Path(made)
        patient, doctor_says, camera = folder / "patient.wav", folder / "doctor.wav", folder / "doctor.y4m"
        write_wav(patient, _hum(PATIENT_HZ))
        write_wav(doctor_says, _hum(DOCTOR_HZ))
        make_camera_file(camera)
        kit = Kit(folder, village)
        try:
            await kit.start()
            kiosk = await kit.add_kiosk("kiosk-one", patient)
            async with open_browser(doctor_says, camera) as browser:
                doctor = await Doctor.sit_down(browser, kit.url, DOCTOR, kit.password)
                await asyncio.sleep(2 + 4 * rtt_s)  # told the time, it connects once more
                await kiosk.until_ready()
                said("calling")
                rows.append(await _answered(kiosk, doctor, rtt_s))
                for (_, seconds), (begins, ends) in zip(starts, village.outages, strict=True):
                    await asyncio.sleep(begins - CALM_S - time.monotonic())
                    assert time.monotonic() < begins, "the kit was not in a call when the outage began"
                    buffer_s = await doctor.tap.buffer_s(CALM_S / 2)
                    await asyncio.sleep(ends - time.monotonic())
                    said(f"the link is back after {seconds:g} s")
                    limit_s = rtt_s + 0.5 if seconds <= 12 else 5 * rtt_s + 2
                    row = await _back(f"outage of {seconds:g} s", kiosk, doctor, limit_s)
                    if seconds <= 12 and row.at_doctor_s < math.inf:
                        await asyncio.sleep(ends + row.at_doctor_s + CALM_S - 0.25 - time.monotonic())
                        row = row._replace(buffer_s=buffer_s, buffer_after_s=await doctor.tap.buffer_s(0.5))
                    rows.append(row)
                if move:
                    await asyncio.sleep(10)  # what an outage before has left is over
                    legs = await doctor.tap.sounds()
                    village.move()
                    said("moved")
                    rows.append(await _back("another address", kiosk, doctor, 5 * rtt_s + 2, legs))
                await doctor.hang_up()
        finally:
            await kit.stop()
    return rows


async def _answered(kiosk: Kiosk, doctor: Doctor, rtt_s: float) -> Back:
    await kiosk.board.press()
    await doctor.until_rings(20)
    await doctor.claim()
    await doctor.until_held(30)
    await asyncio.sleep(3)  # a doctor reads who it is
    listener = Listener(kiosk, doctor)
    await doctor.talk()
    at_kiosk, at_doctor = await listener.until_both_hear()
    return Back("answer, held before", at_kiosk, at_doctor, 1, rtt_s + 0.5)


async def _back(what: str, kiosk: Kiosk, doctor: Doctor, limit_s: float, from_leg: int = 0) -> Back:
    """From now on; what the doctor hears of legs before `from_leg` was on its way."""
    at_kiosk, at_doctor = await Listener(kiosk, doctor, from_leg).until_both_hear()
    return Back(what, at_kiosk, at_doctor, await doctor.tap.sounds(), limit_s)


class Listener:
    """At both ends, from the moment that it is made."""

    def __init__(self, kiosk: Kiosk, doctor: Doctor, from_leg: int = 0) -> None:
        self._kiosk, self._doctor, self._from_leg = kiosk, doctor, from_leg
        self._began = time.time()

    async def until_both_hear(self, timeout_s: float = 25.0) -> tuple[float, float]:
        """Seconds from the beginning to the steady voice at the kiosk and at the doctor; infinite where it is not."""
        at_kiosk = at_doctor = math.inf
        while time.time() - self._began < timeout_s and max(at_kiosk, at_doctor) == math.inf:
            await asyncio.sleep(0.5)
            at_kiosk = steady_s(self._kiosk.heard_since(self._began), DOCTOR_HZ)
            legs = range(self._from_leg, await self._doctor.tap.sounds())
            at_doctor = min([await self._doctor_hears(leg) for leg in legs], default=math.inf)
        return at_kiosk, at_doctor

    async def _doctor_hears(self, leg: int) -> float:
        _, pieces = await self._doctor.tap.pieces("sounds", leg, self._began)
        return steady_s(_in_time(pieces, self._began), PATIENT_HZ)


def _in_time(pieces: list[tuple[float, Samples]], began: float) -> Samples:
    """From `began` on, each piece at the latest moment that it can have been heard at. A page that stood still hands
    pieces on late and in one go, and has lost some, which are silence."""
    ends: list[float] = []
    next_begins = math.inf
    for at, samples in reversed(pieces):
        ends.append(min(at, next_begins))
        next_begins = ends[-1] - len(samples) / RATE_HZ
    line = np.zeros(round((pieces[-1][0] - began) * RATE_HZ) if pieces else 0, np.int16)
    for end, (_, samples) in zip(reversed(ends), pieces, strict=True):
        to = min(round((end - began) * RATE_HZ), len(line))
        whole = samples[-to:] if to > 0 else samples[:0]
        line[to - len(whole) : to] = whole
    return line


def steady_s(samples: Samples, hz: float) -> float:
    """Where in `samples` a tone begins that goes on; infinite where none does."""
    windows = samples[: len(samples) // WINDOW * WINDOW].reshape(-1, WINDOW).astype(np.float64)
    if len(windows) < STEADY:
        return math.inf
    tone = np.exp(-2j * np.pi * hz * np.arange(WINDOW) / RATE_HZ)
    in_tone = np.abs(windows @ tone) ** 2 * 2 / WINDOW
    whole = np.sum(windows**2, axis=1)
    hums = (in_tone > 0.3 * whole) & (whole > WINDOW * LOUD**2)
    share = np.convolve(hums, np.ones(STEADY) / STEADY, "valid")
    found = np.flatnonzero((share >= STEADY_SHARE) & hums[: len(share)])
    return float(found[0]) * WINDOW / RATE_HZ if len(found) else math.inf


def _hum(hz: float) -> Samples:
    """Ten seconds that swell and ebb like speech but never end, in whole rounds."""
    at = np.arange(10 * RATE_HZ) / RATE_HZ
    loudness = 0.65 + 0.35 * np.sin(2 * np.pi * 4 * at)
    wave = np.sin(2 * np.pi * hz * at) + 0.2 * np.sin(2 * np.pi * 3 * hz * at)
    return (7000 * loudness * wave).astype(np.int16)
