"""What store and forward takes over a link of the lab, from the agent's disk to the hub's database: the rows of
`scripts/bench-sync`. Real: mosquitto with mutual TLS, the agent and the hub as processes. The kiosk is in a namespace
of its own behind the link, the hub on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w

from tests.adapters.hub.rig import Broker, Hub
from tests.e2e.program import free_port
from tests.linklab.lab import FAR_ADDRESS, LinkLab
from tests.linklab.path import Loss
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
            self.lab.change(*dead(link))
            await asyncio.sleep(outage_s)
            self.lab.change(*link)
        await until(lambda: self.files_complete(consult) == 1, 900)
        after = await self.tell(sent=True)
        return (after["bytes"] - before["bytes"] - size_bytes) / after["chunk_bytes"]


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


def dead(link: Link) -> Link:
    """Nothing arrives any more."""
    return Link(*(replace(way, loss=Loss(1 - 1e-9)) for way in link))


async def until(holds: Callable[[], bool], timeout_s: float) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 -- of another process's database
            await asyncio.sleep(POLL_S)


# --- what a user would pick instead: the same files and note over the same link, without TLS


@asynccontextmanager
async def open_rival(folder: Path, link: Link) -> AsyncIterator[tuple[LinkLab, Path, int]]:
    """The lab, a folder at the far end, and a port there."""
    with LinkLab(up=link.up, down=link.down, far_is_here=True) as lab:
        far = folder / "far"
        far.mkdir()
        yield lab, far, free_port(FAR_ADDRESS)


PUBLISHER = """
import sys, paho.mqtt.client as paho
host, port, chunk, note_at = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="kiosk", protocol=paho.MQTTv311, clean_session=False)
client.connect(host, port, keepalive=30)
client.loop_start()
for path in sys.argv[5:]:
    data = open(path, "rb").read()
    for at in range(0, len(data), chunk or len(data)):
        client.publish("file", data[at : at + (chunk or len(data))], qos=1)
if note_at:
    import time
    time.sleep(note_at)
    print("note", flush=True)
    client.publish("note", b"n" * 400, qos=1)
sys.stdin.read()
"""


async def by_mqtt(folder: Path, link: Link, files: list[int], chunk: int, note_at_s: float = 0.0) -> float:
    """paho and mosquitto as they come, in pieces of `chunk` bytes or (0) each file whole. Until all is with a
    subscriber, or with `note_at_s` how long the note took that was said then."""
    import aiomqtt

    async with open_rival(folder, link) as (lab, far, port):
        config = far / "mosquitto.conf"
        config.write_text(f"listener {port} {FAR_ADDRESS}\nallow_anonymous true\nmax_packet_size 268435455\n")
        broker = lab.far.popen(["mosquitto", "-c", str(config)], stderr=subprocess.DEVNULL)
        publisher: subprocess.Popen[str] | None = None
        try:
            await until(lambda: _answers(port), 10)
            async with aiomqtt.Client(FAR_ADDRESS, port) as hub:
                await hub.subscribe([("file", 1), ("note", 1)])
                paths = _files(folder, files)
                began, came = time.monotonic(), 0
                publisher = lab.near.popen(
                    [sys.executable, "-c", PUBLISHER, FAR_ADDRESS, str(port), str(chunk), str(note_at_s), *paths],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                if note_at_s:
                    assert publisher.stdout is not None
                    await asyncio.to_thread(publisher.stdout.readline)
                    began = time.monotonic()
                async for message in hub.messages:
                    came += len(message.payload) if str(message.topic) == "file" else 0
                    if str(message.topic) == "note" or (not note_at_s and came >= sum(files)):
                        return time.monotonic() - began
        finally:
            for process in (publisher, broker):
                if process is not None:
                    process.kill()
                    process.wait()
    raise AssertionError("not reached")


async def by_rsync(folder: Path, link: Link, files: list[int], note_at_s: float = 0.0) -> float:
    """rsync to a daemon, resumed until it succeeds; the note by another beside it."""
    async with open_rival(folder, link) as (lab, far, port):
        config = far / "rsyncd.conf"
        config.write_text(
            f"port = {port}\naddress = {FAR_ADDRESS}\nuse chroot = no\n[case]\npath = {far}\nread only = no\n"
            f"uid = {os.getuid()}\ngid = {os.getgid()}\n"
        )
        daemon = lab.far.popen(["rsync", "--daemon", "--no-detach", f"--config={config}"])
        target = f"rsync://{FAR_ADDRESS}:{port}/case/"
        resumed = 'until rsync --append-verify --timeout=15 --contimeout=15 "$@" 2>/dev/null; do sleep 1; done'
        note: subprocess.Popen[bytes] | None = None
        try:
            await until(lambda: _answers(port), 10)
            paths = _files(folder, files)
            began = time.monotonic()
            sender = lab.near.popen(["sh", "-c", resumed, "sh", *paths, target], start_new_session=True)
            if note_at_s:
                await asyncio.sleep(note_at_s)
                (folder / "note").write_bytes(b"n" * 400)
                began = time.monotonic()
                note = lab.near.popen(["rsync", str(folder / "note"), target])
                await asyncio.to_thread(note.wait)
            else:
                await asyncio.to_thread(sender.wait)
            took = time.monotonic() - began
            with contextlib.suppress(ProcessLookupError):
                os.killpg(sender.pid, signal.SIGKILL)
            sender.wait()
            return took
        finally:
            daemon.kill()
            daemon.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((FAR_ADDRESS, port), 1):
        return True
    return False


def _files(folder: Path, sizes: list[int]) -> list[str]:
    paths = []
    for number, size in enumerate(sizes):
        (folder / f"file-{number}").write_bytes(os.urandom(size))
        paths.append(str(folder / f"file-{number}"))
    return paths
