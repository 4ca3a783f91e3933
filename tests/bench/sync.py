"""What store and forward takes over a link of the lab, from the agent's disk to the hub's database: the rows of
`scripts/bench-sync`. Real: mosquitto with mutual TLS, the agent and the hub as processes. The kiosk is in a namespace
of its own behind the link, the hub on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from tests.adapters.hub.rig import Broker, Hub
from tests.e2e.program import free_port
from tests.linklab.lab import FAR_ADDRESS, LinkLab
from tests.linklab.path import Outage
from tests.linklab.spec import Link, parse_link

ROOT = Path(__file__).resolve().parents[2]
GOOD = parse_link("20000,2ms,1s")
KIOSK = "kiosk-one"
SETTLES_S = 15.0  # a transfer finds the link's rate, before it is judged
POLL_S = 0.02
VOICE_BYTES, PHOTO_BYTES, PHOTOS = 45_000, 50_000, 3  # an ordinary case: three renditions, 150 kB together
CLIP_BYTES = 2_000_000


class Bench:
    """A hub, and a kiosk behind a link that can be changed."""

    def __init__(self, folder: Path, lab: LinkLab, hub: Hub, told_kbps: tuple[int, int]) -> None:
        self.folder, self.lab, self.hub = folder, lab, hub
        self._told_kbps = told_kbps
        self._agent: asyncio.subprocess.Process | None = None
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._reading: asyncio.Task[None] | None = None

    async def start_agent(self) -> None:
        state = self.folder / "state"
        if not state.exists():
            state.mkdir()
            await asyncio.to_thread(self.hub.add_kiosk, KIOSK)
            shutil.copytree(self.hub.settings.data_dir.parent / KIOSK, state / "identity")
        config = self.folder / "kiosk.toml"
        up, down = self._told_kbps
        config.write_text(tomli_w.dumps({
            "kiosk": {"state_dir": str(state), "languages": ["en"]},
            "devices": {"camera": "none", "microphone": "none", "speaker": "none", "board": "none"},
            "screen": {"port": 0},
            "link": {"up_kbps": up, "down_kbps": down},
        }))  # fmt: skip
        with (self.folder / "agent.log").open("ab") as log:
            self._agent = await asyncio.create_subprocess_exec(
                *self.lab.near.command([sys.executable, "-m", "tests.bench.sync_kiosk", str(config)]),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT,
            )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        await until(lambda: self.one("SELECT online FROM kiosk WHERE id = ?", KIOSK) == 1, 60)

    async def _read(self) -> None:
        assert self._agent is not None
        assert self._agent.stdout is not None
        while line := await self._agent.stdout.readline():
            if line.startswith(b"{"):
                self._said.put_nowait(json.loads(line))

    async def stop_agent(self) -> None:
        if self._agent is not None:
            self._agent.terminate()
            await self._agent.wait()
            self._agent = None
        if self._reading is not None:
            await self._reading
            self._reading = None

    async def tell(self, **said: Any) -> dict[str, Any]:
        assert self._agent is not None
        assert self._agent.stdin is not None
        self._agent.stdin.write(json.dumps(said).encode() + b"\n")
        return await self._said.get()

    async def hand_in(
        self, files: list[tuple[str, int]] = [], note: str | None = "Hot for three days.", urgency: str = "routine"  # noqa: B006
    ) -> str:  # fmt: skip
        """On the kiosk's disk when it returns; gives the consult."""
        consult, paths = os.urandom(16).hex(), []
        for number, (role, size) in enumerate(files):
            path = self.folder / f"hand-{number}"
            path.write_bytes(os.urandom(size))
            paths.append([role, str(path)])
        await self.tell(consult=consult, note=note, urgency=urgency, files=paths)
        return consult

    # at the hub

    def one(self, query: str, *values: Any) -> Any:
        path = self.hub.settings.data_dir / "hub.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            row = database.execute(query, values).fetchone()
        return row[0] if row else None

    def held_bytes(self, consult: str) -> int:
        held = self.one(
            "SELECT json_group_array(json(ranges)) FROM content JOIN case_file USING (digest) WHERE consult_id = ?",
            consult,
        )
        return sum(end - start for ranges in json.loads(held or "[]") for start, end in ranges)

    def has_note(self, consult: str) -> bool:
        return bool(self.one("SELECT note_seq FROM consult WHERE id = ?", consult))

    def files_complete(self, consult: str) -> int:
        return self.one(
            "SELECT count(*) FROM content JOIN case_file USING (digest) WHERE consult_id = ? AND complete", consult
        ) or 0  # fmt: skip

    # what is measured

    async def urgent_note_s(self, times: int = 3) -> float:
        """The longest of some, each handed in while a clip goes out."""
        clip = await self.hand_in([("clip", CLIP_BYTES)], note=None)
        await until(lambda: self.held_bytes(clip) > 0, 60)
        await asyncio.sleep(SETTLES_S)
        took = []
        for _ in range(times):
            began = time.monotonic()
            note = await self.hand_in(urgency="urgent")
            await until(lambda note=note: self.has_note(note), 120)
            took.append(time.monotonic() - began)
            await asyncio.sleep(random.uniform(1, 4))
        return max(took)

    async def goodput_bps(self, seconds: float) -> float:
        """Of a file that is longer than that: its bytes at the hub, when it has settled."""
        clip = await self.hand_in([("clip", 8 * CLIP_BYTES)], note=None)
        await until(lambda: self.held_bytes(clip) > 0, 60)
        await asyncio.sleep(SETTLES_S)
        began, held = time.monotonic(), self.held_bytes(clip)
        await asyncio.sleep(seconds)
        return (self.held_bytes(clip) - held) * 8 / (time.monotonic() - began)

    async def ordinary_case_s(self) -> tuple[float, float]:
        """Until it can be opened, and until all of it is there."""
        began = time.monotonic()
        photos = [("photo", PHOTO_BYTES)] * PHOTOS
        consult = await self.hand_in([("voice", VOICE_BYTES), *photos])
        await until(lambda: self.has_note(consult), 60)
        openable = time.monotonic() - began
        await until(lambda: self.files_complete(consult) == PHOTOS + 1, 600)
        return openable, time.monotonic() - began

    async def resent_chunks(self, link: Link, outages_s: list[float], size_bytes: int, at: list[float]) -> float:
        """File bytes given out twice, in chunks as long as the last, for a file cut off where it is `at`."""
        before = await self.tell(sent=True)
        consult = await self.hand_in([("photo", size_bytes)], note=None)
        for share, outage_s in zip(at, outages_s, strict=True):
            await until(lambda share=share: self.held_bytes(consult) >= share * size_bytes, 600)
            dead = replace(link.up, outages=(Outage(0.0, 1e9),))
            self.lab.change(dead, replace(dead, rate=link.down.rate, seed=link.down.seed))
            await asyncio.sleep(outage_s)
            self.lab.change(*link)
        await until(lambda: self.files_complete(consult) == 1, 900)
        after = await self.tell(sent=True)
        return (after["bytes"] - before["bytes"] - size_bytes) / after["chunk_bytes"]


class Spent(NamedTuple):
    seconds: float
    link_bytes: int  # that arrived, both ways


async def spent(lab: LinkLab, work: Callable[[], Awaitable[None]]) -> Spent:
    before = lab.up_counts.delivered_bytes + lab.down_counts.delivered_bytes
    began = time.monotonic()
    await work()
    seconds = time.monotonic() - began
    return Spent(seconds, lab.up_counts.delivered_bytes + lab.down_counts.delivered_bytes - before)


@asynccontextmanager
async def open_bench(folder: Path, link: Link, told_kbps: tuple[int, int] = (0, 0)) -> AsyncIterator[Bench]:
    """The agent has connected when the link becomes what it is to be."""
    with LinkLab(up=GOOD.up, down=GOOD.down, far_is_here=True) as lab:
        hub = Hub(folder)
        hub.set("broker", f'listen_host = "{FAR_ADDRESS}"')
        hub.set("listen", f'names = ["{FAR_ADDRESS}"]')
        hub.broker = Broker(hub.settings)
        hub.broker.start()
        bench = Bench(folder, lab, hub, told_kbps)
        try:
            hub.start()
            await bench.start_agent()
            lab.change(*link)
            yield bench
        finally:
            lab.change(*GOOD)
            await bench.stop_agent()
            hub.kill()
            hub.broker.kill()


def plain_tcp_bps(link: Link, seconds: float) -> float:
    """One stream of TCP through the same link, when it has settled."""
    with LinkLab(up=link.up, down=link.down, far_is_here=True) as lab:
        port = free_port(FAR_ADDRESS)
        came = [0]

        def serve(server: socket.socket) -> None:
            connection, _ = server.accept()
            while data := connection.recv(65536):
                came[0] += len(data)

        with socket.create_server((FAR_ADDRESS, port)) as server:
            thread = threading.Thread(target=serve, args=(server,), daemon=True)
            thread.start()
            program = (
                f"import socket\ns = socket.create_connection(('{FAR_ADDRESS}', {port}))\n"
                "while True: s.sendall(bytes(65536))"
            )
            sender = lab.near.popen([sys.executable, "-c", program])
            try:
                time.sleep(SETTLES_S)
                began, at = time.monotonic(), came[0]
                time.sleep(seconds)
                return (came[0] - at) * 8 / (time.monotonic() - began)
            finally:
                sender.kill()
                sender.wait()


async def until(holds: Callable[[], bool], timeout_s: float) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(POLL_S)


def median(values: list[float]) -> float:
    return statistics.median(values)
