"""A call with a real browser where neither end can reach the other: between village and town stands a router that
forwards nothing, and on it a TURN server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent import ipc
from edge_agent.core import sdp
from tests.adapters.browser_far_end import browser
from tests.adapters.media_bench import CALL, MediaBench, elsewhere
from tests.adapters.turn import TURNSERVER, WAYS, Turn, servers
from tests.e2e import speech
from tests.e2e.lab import Lab, LabUnavailable, open_lab

pytestmark = pytest.mark.skipif(TURNSERVER is None, reason="turnserver is missing (apt install coturn)")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    try:
        with open_lab() as lab:
            lab.cut()
            yield lab
    except LabUnavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("way", WAYS)
async def test_a_call_through_a_relay_alone(lab: Lab, tmp_path: Path, way: str) -> None:
    page = tmp_path / "page"
    page.mkdir()
    speech.speak(*speech.PATIENT, tmp_path / "patient.wav")
    speech.speak(*speech.DOCTOR, tmp_path / "doctor.wav")
    devices = {
        "camera": "synthetic", "microphone": f"wav:{tmp_path / 'patient.wav'}",
        "speaker": f"wav:{tmp_path / 'speaker.wav'}", "board": "none",
    }  # fmt: skip
    turn = Turn(tmp_path / "turn", *lab.router_addresses, prefix=lab.router_command())
    in_town, in_village = lab.router_addresses
    await turn.start()
    try:
        bench = MediaBench(tmp_path, devices, elsewhere(lab.command()), env={"SSL_CERT_FILE": str(turn.certificate)})
        async with browser(page, tmp_path / "doctor.wav") as far, bench.running():
            began = time.monotonic()
            bench.send(ipc.StartCall(CALL, 1, servers(turn.url(way, in_village)), held=False))
            offer = await bench.expect(ipc.OfferMade, lambda frame: "typ relay" in sdp.decompress(frame.sdp))
            answer = await far.answer(offer.sdp, servers(turn.url("udp", in_town)))
            bench.send(ipc.TakeAnswer(CALL, 1, answer))
            await bench.expect(ipc.MediaConnected)
            print(f"\nconnected by {way} {time.monotonic() - began:.1f} s after the claim")
            await bench.expect(ipc.FirstHeard)
            await bench.expect_pictures(5)
            await bench.expect(ipc.CallStats, lambda frame: frame.packets_received > 100)
            assert np.abs((await far.heard()).astype(int)).max() > 1000
            assert (await far.seen())["pictures"] > 0
    finally:
        await turn.stop()
    assert f"relay found way={way}" in bench.log
