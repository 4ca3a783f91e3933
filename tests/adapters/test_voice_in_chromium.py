"""The kiosk's voice against a real browser: repeated frames both ways, and frames of every length within one call."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiortc.rtp import RtpPacket
from av.packet import Packet

from edge_agent import ipc
from edge_agent.core import opuspacket, red
from edge_agent.core.voice import Coding, LinkMemory, VoicePlan
from edge_agent.media import hooks
from edge_agent.media.peer import Leg
from edge_agent.media.pictures import EncodedPicture
from hardware.api import BLOCK_SAMPLES
from tests.adapters.browser_far_end import Browser, browser
from tests.e2e import speech
from tests.stock_aiortc import put_back_afterwards

EVERY = 5  # one packet in so many is dropped, each way
PHASE_S = 3.0
PLANS = (
    VoicePlan(Coding(16_000, 20, dtx=True), 4),
    VoicePlan(Coding(10_000, 60, dtx=True), 2),
    VoicePlan(Coding(10_000, 120, dtx=True), 1),
    VoicePlan(Coding(20_000, 40, fec=True, expected_loss_percent=20), 1, 3),
    VoicePlan(Coding(16_000, 20), 2, 2),
)


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    put_back_afterwards(monkeypatch)
    hooks.install()


class Owner:
    def __init__(self) -> None:
        self.up = asyncio.Event()

    def send(self, frame: ipc.FromMedia) -> None:
        pass

    def connected(self, leg: Leg) -> None:
        self.up.set()

    def over(self, leg: Leg, reason: str) -> None:
        raise AssertionError(reason)

    def far_picture(self, leg: Leg, picture: EncodedPicture) -> bool:
        return True

    def photo_wanted(self, leg: Leg) -> None:
        pass


class LossyLeg(Leg):
    """Loses one packet in `EVERY`, each way."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.arrived: Counter[tuple[int, int]] = Counter()  # payload type, older frames in it
        self.lengths_ms: set[int] = set()
        self.sent = 0
        self.losing = False
        stock = self.microphone.recv

        async def recv() -> Packet[Any]:
            while True:
                packet = await stock()
                self.sent += 1
                if not self.losing or self.sent % EVERY:
                    return packet

        self.microphone.recv = recv  # type: ignore[method-assign]

    def _obey(self, now: float) -> None:
        """The test's own plans, whatever is lost."""

    def _take_sound(self, packet: RtpPacket) -> None:
        if not packet.payload:
            return  # padding
        count = self.arrived.total()
        parsed = red.parse(packet.payload) if packet.payload_type == hooks.RED else None
        self.arrived[packet.payload_type, len(parsed.older) if parsed else 0] += 1
        self.lengths_ms.add(opuspacket.duration_samples(parsed.payload if parsed else packet.payload) // 48)
        if count % EVERY or not self.losing:
            super()._take_sound(packet)


async def run_sound(leg: Leg, said: np.ndarray) -> None:
    """In the place of the microphone's and the speaker's threads."""
    loop = asyncio.get_running_loop()
    began, done = loop.time(), 0
    while True:
        while done * 0.02 <= loop.time() - began:
            at = done * BLOCK_SAMPLES % len(said)
            leg.microphone.hear(said[at : at + BLOCK_SAMPLES])
            leg.pull_sound()
            done += 1
        await asyncio.sleep(0.01)


async def sound_stats(far: Browser) -> dict[str, float]:
    find = (
        "[...(await connection.getStats()).values()]"
        ".find(report => report.type === 'inbound-rtp' && report.kind === 'audio')"
    )
    await far.page.wait_for_function(f"async () => {find} !== undefined", timeout=3000)  # with the first packet
    return dict(await far.call(f"async () => {find}", None))


async def concealed(far: Browser, seconds: float) -> float:
    """The share of what the browser played in that time that it had to make up."""
    before = await sound_stats(far)
    await asyncio.sleep(seconds)
    after = await sound_stats(far)
    made_up = (after["concealedSamples"] - after["silentConcealedSamples"]) - (
        before["concealedSamples"] - before["silentConcealedSamples"]
    )
    return made_up / (after["totalSamplesReceived"] - before["totalSamplesReceived"])


async def test_repeated_frames_and_frames_of_every_length(tmp_path: Path) -> None:
    said = speech.speak(*speech.PATIENT, tmp_path / "patient.wav")
    speech.speak(*speech.DOCTOR, tmp_path / "doctor.wav")
    (tmp_path / "page").mkdir()
    owner = Owner()
    async with browser(tmp_path / "page", tmp_path / "doctor.wav") as far:
        leg = LossyLeg(b"callcall", 1, (), False, owner, LinkMemory(1e6, 1e6))
        sound = asyncio.create_task(run_sound(leg, said))
        try:
            await leg.take_answer(await far.answer(await leg.offer()))
            async with asyncio.timeout(10):
                await owner.up.wait()
            assert leg.microphone.opus_in_red == hooks.OPUS
            await concealed(far, 1.5)

            leg.losing = True
            repaired = []
            for plan in PLANS:
                leg.microphone.plan = plan
                await asyncio.sleep(0.5)  # what is said by the plan before is played out
                repaired.append(await concealed(far, PHASE_S))
            leg.microphone.plan = VoicePlan(Coding(16_000, 20))
            await asyncio.sleep(0.5)
            bare = await concealed(far, PHASE_S)
            print(f"made up with one packet in {EVERY} lost: {[f'{share:.3f}' for share in repaired]}, bare {bare:.3f}")
            counts = leg._sound.counts
            print(f"from the browser: {dict(leg.arrived)}, {counts}")

            assert bare >= 0.08, "nothing was lost: this proves nothing"
            assert float(np.median(repaired)) <= bare / 4
            assert {kind for kind, _ in leg.arrived} == {hooks.RED}
            assert leg.arrived[hooks.RED, 1] > 0.8 * leg.arrived.total()
            assert leg.lengths_ms == {20}
            assert counts.red_recovered > 5 * counts.lost
            at_doctor = speech.heard(said, (await far.heard())[-10 * 48_000 :])
            assert at_doctor.share >= 0.8
        finally:
            sound.cancel()
            await leg.close()


async def test_the_browser_sends_as_it_is_asked(tmp_path: Path) -> None:
    said = speech.speak(*speech.PATIENT, tmp_path / "patient.wav")
    speech.speak(*speech.DOCTOR, tmp_path / "doctor.wav")
    (tmp_path / "page").mkdir()
    owner = Owner()
    async with browser(tmp_path / "page", tmp_path / "doctor.wav") as far:
        leg = LossyLeg(b"callcall", 1, (), False, owner, LinkMemory(20e3, 20e3))
        sound = asyncio.create_task(run_sound(leg, said))
        try:
            offer = await leg.offer()
            answer = await far.answer(offer)
            assert max(len(offer), len(answer)) <= 400
            await leg.take_answer(answer)
            async with asyncio.timeout(10):
                await owner.up.wait()
            seconds = 6.0
            sent = "async () => { const all = [...(await connection.getStats()).values()]; return ['audio', 'video']" \
                ".map(kind => { const one = all.find(r => r.type === 'outbound-rtp' && r.kind === kind) ?? {};" \
                " return (one.bytesSent ?? 0) + (one.headerBytesSent ?? 0); }); }"  # fmt: skip
            before = await far.call(sent, None)
            await asyncio.sleep(seconds)
            after = await far.call(sent, None)
            voice_bps, picture_bps = (
                (later - earlier) * 8 / seconds for later, earlier in zip(after, before, strict=True)
            )
            print(f"the browser sends {voice_bps:.0f} bit/s of voice, {leg.lengths_ms} ms frames, {dict(leg.arrived)}")

            assert leg.lengths_ms == {leg._allocation.down.voice.coding.frame_ms}
            assert {kind for kind, _ in leg.arrived} == {hooks.OPUS}
            assert voice_bps <= leg._allocation.down.voice.wire_bps
            assert picture_bps == 0
        finally:
            sound.cancel()
            await leg.close()
