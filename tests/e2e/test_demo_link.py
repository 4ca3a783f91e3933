"""`teleconsult demo --link`: a kiosk behind a poor link, its hub and the doctor's browser on the machine itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Origin

from tests.e2e.doctor import Doctor
from tests.e2e.tap import open_browser
from tests.e2e.test_demo import Demo, until_nothing_is_left
from tests.linklab.lab import unavailable_reason

pytestmark = pytest.mark.e2e

REASON = unavailable_reason()
ONE_WAY_MS = 250


def addresses() -> str:
    return subprocess.run(["ip", "address"], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(REASON is not None, reason=f"no link lab here: {REASON}")
async def test_a_call_over_the_link(tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--link", f"1500,{ONE_WAY_MS}ms,1.0s")
    try:
        await demo.start()
        assert demo.find(r"Link +(.+?) *│") == f"1500, {ONE_WAY_MS} ms, 1 s"
        async with open_browser() as browser:
            doctor = await Doctor.sit_down(browser, demo.hub, "doctor", demo.find(r"name doctor +password (\S+)"))
            # A kiosk without time connects a second time once it is told it, which takes a few of these round trips.
            async with connect(
                f"{demo.screen.replace('http', 'ws')}/ws", origin=Origin(demo.screen), proxy=None
            ) as page:
                while not json.loads(await page.recv()).get("online"):
                    pass
            board = f"{demo.screen.replace('http', 'ws')}/board/ws"
            async with connect(board, origin=Origin(demo.screen), proxy=None) as button:
                await button.send(json.dumps({"do": "down"}))
                await button.recv()
                await button.send(json.dumps({"do": "up"}))
                await doctor.take_call(20)
                rtt_s = await doctor.page.evaluate(
                    """async () => {
                        for (;;) {
                            for (const report of (await __proof.connections.at(-1).getStats()).values()) {
                                if (report.type === "candidate-pair" && report.nominated && report.currentRoundTripTime)
                                    return report.currentRoundTripTime;
                            }
                            await new Promise((done) => setTimeout(done, 200));
                        }
                    }"""
                )
                assert 2 * ONE_WAY_MS / 1000 <= rtt_s < 2 * ONE_WAY_MS / 1000 + 0.5
                await doctor.first_sighting(0.0, 20)
        pids, ports = list(demo.processes()), demo.ports()
    finally:
        await demo.program.stop(20)
    await until_nothing_is_left(demo, pids, ports)
    assert "10.77.0." not in addresses()


@pytest.mark.parametrize(
    ("spec", "says"), [("fast", "'fast' is no part of a link"), ("64,trace=/nowhere", "/nowhere: No such file")]
)
async def test_what_is_no_link_is_said_in_one_line(tmp_path: Path, spec: str, says: str) -> None:
    demo = Demo(tmp_path, "--link", spec)
    await demo.program.start()
    assert await demo.program.ended(20) == 1
    (line,) = demo.program.lines
    assert line.text.startswith("teleconsult: ")
    assert says in line.text
