"""A call whose ends are both behind NAT: whether it connects through a TURN server, by which way, and how soon it is
heard. `scripts/prove-turn` prints it.

Kiosk and console are the kit's own code, but for the signalling between them, which takes half a round trip each way
as it would over the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from playwright.async_api import Playwright

from edge_agent import ipc
from edge_agent.core import sdp
from edge_agent.core.wire import IceServer
from tests.adapters.media_bench import CALL, MediaBench
from tests.adapters.turn import Turn, servers
from tests.bench.ends import BrowserEnd
from tests.bench.material import Material
from tests.e2e.speech import SCORE_RATE_HZ
from tests.linklab.nat import Homes

LOUD = 300.0  # of 32767
LISTENED_S = 4.0  # after the connection: both have spoken by then
ASKED_S = 0.05


class Through(NamedTuple):
    """Seconds from the claim. `way`: what the kiosk was given."""

    way: str
    rtt_s: float
    connected_s: float | None
    at_kiosk_s: float | None  # the first sound
    at_doctor_s: float | None
    pair: tuple[str, ...]  # the browser's candidate, the kiosk's
    relay: str  # the way by which the kiosk got one; "" where it did not
    srflx: tuple[bool, bool]  # whether kiosk and browser were told of their routers' outsides

    @property
    def limit_s(self) -> float:
        """As for any cold claim at 128 kbit/s or more, and what a relay adds: the kiosk's own is there after 2 round
        trips of its protocol over UDP, 3 over TCP and 5 over TLS, and the offer with it takes half another."""
        return 4 * self.rtt_s + 0.5 + {"udp": 2.5, "tcp": 3.5, "tls": 5.5}[self.way] * self.rtt_s + 0.5

    @property
    def holds(self) -> bool:
        heard = (self.at_kiosk_s, self.at_doctor_s)
        return "relay" in self.pair and all(at is not None and at <= self.limit_s for at in heard)


def table(rows: list[Through]) -> str:
    lines = [
        "| way | connected | first sound at the kiosk | at the doctor | limit | browser ↔ kiosk | |",
        "|---|---:|---:|---:|---:|---|---|",
    ]
    for row in rows:
        connected, kiosk, doctor = (
            "never" if at is None else f"{at:.1f} s" for at in (row.connected_s, row.at_kiosk_s, row.at_doctor_s)
        )
        lines.append(
            f"| {row.way} | {connected} | {kiosk} | {doctor} | {row.limit_s:.1f} s | {' ↔ '.join(row.pair)} "
            f"| {'' if row.holds else 'missed'} |"
        )
    return "\n".join(lines)


async def call_through(
    playwright: Playwright, homes: Homes, turn: Turn, way: str, rtt_s: float, material: Material, folder: Path,
    patience_s: float,
) -> Through:  # fmt: skip
    """One call, the kiosk with a TURN server by `way` and the browser by UDP. Where that is TCP or TLS, the clinic's
    router lets no UDP out: nothing but the kiosk's own relay leads anywhere. `way` "stun": neither has a server."""
    folder.mkdir()
    homes.bar_udp(way in ("tcp", "tls"))
    stun = (f"stun:{homes.world_address}:{turn.port}",)
    if way == "stun":
        at_kiosk = at_browser = servers(stun=stun)
    else:
        at_kiosk, at_browser = servers(turn.url(way), stun=stun), servers(turn.url("udp"), stun=stun)

    def command(socket_path: Path, config: Path) -> list[str]:
        program = [sys.executable, "-m", "tests.bench.kit_main", str(socket_path), str(config)]
        return homes.clinic.command([*program, str(material.patient), str(material.film), str(folder)])

    bench = MediaBench(folder, {"board": "none"}, command, env={"SSL_CERT_FILE": str(turn.certificate)})
    async with (
        BrowserEnd.open(playwright, homes.town, folder / "far", material.doctor, material.film) as far,
        bench.running(),
    ):
        await bench.expect(ipc.MediaReady)
        claimed = time.monotonic()
        bench.send(ipc.StartCall(CALL, 1, at_kiosk, held=False))
        signalling = asyncio.create_task(_signal(bench, far, at_browser, rtt_s))
        try:
            connected_s = heard_s = None
            with contextlib.suppress(TimeoutError):
                await bench.expect(ipc.MediaConnected, within_s=patience_s)
                connected_s = bench.at(ipc.MediaConnected) - claimed
                await bench.expect(ipc.FirstHeard, within_s=LISTENED_S + rtt_s)
                heard_s = bench.at(ipc.FirstHeard) - claimed
            if signalling.done():
                signalling.result()  # it never ends but by what went wrong
            if connected_s is not None:
                await asyncio.sleep(LISTENED_S)
            pair = await far.chosen_pair() if connected_s is not None else ()
            answer = await far.answer_by_now()
            ear = (await far.testimony()).heard
        finally:
            signalling.cancel()
            await asyncio.gather(signalling, return_exceptions=True)
    loud = np.flatnonzero(np.abs(ear.samples) > LOUD)
    offers = [sdp.decompress(frame.sdp) for _, frame in bench.frames if isinstance(frame, ipc.OfferMade)]
    found = re.search(r"relay found way=(\w+)", bench.log)
    return Through(
        way, rtt_s, connected_s, heard_s,
        ear.start + float(loud[0]) / SCORE_RATE_HZ - claimed if len(loud) else None,
        pair, found[1] if found else "", ("typ srflx" in offers[-1], "typ srflx" in answer),
    )  # fmt: skip


async def _signal(bench: MediaBench, far: BrowserEnd, given: tuple[IceServer, ...], rtt_s: float) -> None:
    """Carries offers and answers, each time there is more in one."""
    taken, told = 0, ""
    while True:
        offers = [(at, frame) for at, frame in bench.frames if isinstance(frame, ipc.OfferMade)]
        for at, frame in offers[taken:]:
            await asyncio.sleep(at + rtt_s / 2 - time.monotonic())
            offer = sdp.decompress(frame.sdp)
            await (far.add_candidates(offer) if taken else far.answer_as_console(offer, given))
            taken += 1
        if taken and (answer := await far.answer_by_now()) not in ("", told):
            told = answer
            asyncio.get_running_loop().call_later(rtt_s / 2, bench.send, ipc.TakeAnswer(CALL, 1, sdp.compress(answer)))
        await asyncio.sleep(ASKED_S)
