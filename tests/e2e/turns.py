"""A call on a link that gets too poor to talk live, and good again: how soon both ends speak in turns, how long a turn
is on its way and what is understood of it, how soon the call is live again. `scripts/prove-turns` prints it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.e2e.doctor import Doctor
from tests.e2e.far_village import FarVillage, both_ways, open_far_village
from tests.e2e.kiosk import Kiosk
from tests.e2e.kit import DOCTOR, Kit
from tests.e2e.pictures import make_camera_file
from tests.e2e.speech import DOCTOR as DOCTORS_WORDS
from tests.e2e.speech import PATIENT as PATIENTS_WORDS
from tests.e2e.speech import RATE_HZ, Heard, Samples, heard, speak, write_wav
from tests.e2e.tap import open_browser

GOOD_KBPS = 256.0
SAID_S = 9.0  # a turn, so that a whole window of it can be scored


class Turn(NamedTuple):
    by: str
    length_s: float
    delivered_s: float  # from the press to the moment that it is heard at the other end
    understood: Heard


class Proof(NamedTuple):
    turns_at_kiosk_s: float  # from the change of the link
    turns_at_doctor_s: float
    turns: list[Turn]
    live_again_s: float  # from the link's return to the later of the two


async def prove(
    *, kbps: float, rtt_s: float, loss: float, said: Callable[[str], None] = lambda _: None, folder: Path,
    screenshots: bool = False,
) -> Proof:  # fmt: skip
    one_way_ms = rtt_s * 500
    with open_far_village(kbps=GOOD_KBPS, one_way_ms=one_way_ms, outages=()) as village:
        patient = speak(*PATIENTS_WORDS, folder / "patient.wav")
        doctor_says = speak(*DOCTORS_WORDS, folder / "doctor.wav")
        camera = folder / "doctor.y4m"
        make_camera_file(camera)
        kit = Kit(folder, village)
        try:
            await kit.start()
            link = {"link": {"up_kbps": int(GOOD_KBPS), "down_kbps": int(GOOD_KBPS)}}
            kiosk = await kit.add_kiosk("kiosk-one", folder / "patient.wav", link)
            async with open_browser(folder / "doctor.wav", camera) as browser:
                doctor = await Doctor.sit_down(browser, kit.url, DOCTOR, kit.password)
                await kiosk.until_ready()
                await kiosk.board.press()
                await doctor.take_call(30)
                await kiosk.screen.until(lambda view: view.screen == "live", "live")
                said("live")
                await asyncio.sleep(6)  # into the conversation
                return await _change(
                    village, kiosk, doctor, patient, doctor_says, kbps, one_way_ms, loss, said, screenshots
                )
        finally:
            await kit.stop()


async def _change(
    village: FarVillage, kiosk: Kiosk, doctor: Doctor, patient: Samples, doctor_says: Samples, kbps: float,
    one_way_ms: float, loss: float, said: Callable[[str], None], screenshots: bool,
) -> Proof:  # fmt: skip
    village.change(both_ways(kbps=kbps, one_way_ms=one_way_ms, loss=loss))
    changed = time.time()
    at_kiosk, at_doctor = await asyncio.gather(_kiosk_in(kiosk, "turns", 45), _doctor_in(doctor, "turns", 45))
    in_turns = (at_kiosk - changed, at_doctor - changed)
    said(f"in turns: kiosk {in_turns[0]:.1f} s, doctor {in_turns[1]:.1f} s")
    turns = [await _patient_speaks(kiosk, doctor, patient, screenshots)]
    said(str(turns[-1]))
    turns.append(await _doctor_speaks(kiosk, doctor, doctor_says, screenshots))
    said(str(turns[-1]))
    village.change(both_ways(kbps=GOOD_KBPS, one_way_ms=one_way_ms))
    changed = time.time()
    both = await asyncio.gather(_kiosk_in(kiosk, "live", 60), _doctor_in(doctor, "live", 60))
    said(f"live again after {max(both) - changed:.1f} s")
    proof = Proof(*in_turns, turns, max(both) - changed)
    await doctor.hang_up()
    return proof


async def _patient_speaks(kiosk: Kiosk, doctor: Doctor, words: Samples, screenshots: bool) -> Turn:
    sounds = await doctor.tap.sounds()
    await kiosk.board.down()
    await kiosk.screen.until(lambda view: view.turns is not None and view.turns.speaking, "that it records")
    began = time.time()
    await asyncio.sleep(SAID_S)
    await kiosk.board.up()
    length_s = time.time() - began
    if screenshots:
        await doctor.page.screenshot(path=kiosk.folder / "doctor-coming.png")
    await doctor.page.wait_for_function("count => __proof.sounds.length > count", arg=sounds, timeout=60_000)
    sound = await doctor.sound()
    if screenshots:
        await doctor.page.screenshot(path=kiosk.folder / "doctor-playing.png")
    write_wav(kiosk.folder / "turn-at-doctor.wav", sound.samples)
    understood = await asyncio.to_thread(heard, words, sound.samples)
    await doctor.page.wait_for_function(
        "() => document.querySelector('[data-test=turn-state]').dataset.now === 'quiet'", timeout=30_000
    )
    await kiosk.screen.until(
        lambda view: view.turns is not None and view.turns.sent == "heard", "that it was heard", 20
    )
    return Turn("patient", length_s, sound.started_at - began, understood)


async def _doctor_speaks(kiosk: Kiosk, doctor: Doctor, words: Samples, screenshots: bool) -> Turn:
    box = await doctor.part("turn-speak").bounding_box()
    assert box is not None
    await doctor.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    await doctor.page.mouse.down()
    began = time.time()
    await asyncio.sleep(SAID_S)
    if screenshots:
        await doctor.page.screenshot(path=kiosk.folder / "doctor-speaking.png")
    played = kiosk.heard_length()
    await doctor.page.mouse.up()
    length_s = time.time() - began
    change = await kiosk.screen.when(
        lambda view: view.turns is not None and view.turns.far == "playing", "that it plays", 60,
        since=len(kiosk.screen.views) - 1,
    )  # fmt: skip
    await kiosk.screen.until(lambda view: view.turns is not None and view.turns.far == "", "that it has played", 30)
    sound = kiosk.heard(played)
    write_wav(kiosk.folder / "turn-at-kiosk.wav", sound)
    loud = abs(sound.astype(int)) > 300
    first = int(loud.argmax())
    understood = await asyncio.to_thread(heard, words, sound[first : first + int(8.5 * RATE_HZ)])
    await doctor.page.wait_for_function(
        "() => document.querySelector('[data-test=turn-state]').dataset.sent === 'heard'", timeout=20_000
    )
    if screenshots:
        await doctor.page.screenshot(path=kiosk.folder / "doctor-heard.png")
    return Turn("doctor", length_s, change.at - began, understood)


async def _kiosk_in(kiosk: Kiosk, screen: str, timeout_s: float) -> float:
    change = await kiosk.screen.when(
        lambda view: view.screen == screen, screen, timeout_s, since=len(kiosk.screen.views) - 1
    )
    return change.at


async def _doctor_in(doctor: Doctor, state: str, timeout_s: float) -> float:
    await doctor.until_state(state, timeout_s=timeout_s)
    return time.time()


def allowed_s(turn: Turn, rtt_s: float) -> float:
    return 2 * turn.length_s + 2 * rtt_s


def table(rows: list[tuple[str, float, Proof]]) -> str:
    """`rows`: the link in words, its round trip, and what was seen."""
    lines = ["| link | in turns after | by | length | delivered | allowed | PESQ / heard | live again after |",
             "|---|---:|---|---:|---:|---:|---|---:|"]  # fmt: skip
    for link, rtt_s, proof in rows:
        for turn in proof.turns:
            lines.append(
                f"| {link} | {max(proof.turns_at_kiosk_s, proof.turns_at_doctor_s):.0f} s | {turn.by} "
                f"| {turn.length_s:.1f} s | {turn.delivered_s:.1f} s | {allowed_s(turn, rtt_s):.1f} s "
                f"| {turn.understood.pesq:.1f} / {turn.understood.share:.0%} | {proof.live_again_s:.0f} s |"
            )
    return "\n".join(lines)
