"""The hub's side of a whole kit as real processes in one folder: mosquitto with the generated configuration, the hub,
and the kiosks that joined it by the kit's own commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import aiomqtt
import httpx
import tomli_w

from edge_agent.tls import BrokerTls
from hub import console
from tests.e2e.console_client import ConsoleClient
from tests.e2e.far_village import FarVillage
from tests.e2e.kiosk import CLI, ENVIRONMENT, PIN, START_TIMEOUT_S, Kiosk, Settings, lay_over, read_rows
from tests.e2e.lab import Lab
from tests.e2e.program import Program, free_port

DOCTOR = "doctor"  # the first account


class Over(NamedTuple):
    """A call that both sides have closed. Times are Unix milliseconds, each side's own clock."""

    consult: str
    outcome: str
    requested_at: int
    answered_at: int
    ended_at: int
    kiosk_outcome: str
    kiosk_answered_at: int
    kiosk_ended_at: int

    def check(self, outcome: str) -> None:
        """Both sides tell the same story."""
        assert (self.outcome, self.kiosk_outcome) == (outcome, outcome), self
        assert self.requested_at <= self.ended_at, self
        assert abs(self.ended_at - self.kiosk_ended_at) < 3000, self
        assert bool(self.answered_at) == bool(self.kiosk_answered_at) == (outcome in ("answered", "link_lost")), self
        if self.answered_at:
            assert abs(self.answered_at - self.kiosk_answered_at) < 3000, self
            assert self.requested_at <= self.answered_at <= self.ended_at, self


class Kit:
    """`settings` is the hub's configuration, section by section. In a `lab` the hub and the broker serve the town's
    address over TLS, and kiosks live in the village; otherwise all is on loopback."""

    def __init__(self, folder: Path, lab: Lab | FarVillage | None = None) -> None:
        self.folder, self.lab = folder, lab
        self.data_dir = folder / "hub"
        self.toml = folder / "hub.toml"
        self.port, self.broker_port = free_port(), free_port()
        self.host = lab.town_address if lab else "127.0.0.1"
        self.url = f"{'https' if lab else 'http'}://{self.host}:{self.port}"
        self.password = ""  # of the first account
        self.kiosks: list[Kiosk] = []
        self.settings: Settings = {
            "store": {"data_dir": str(self.data_dir)},
            "listen": {"host": self.host, "port": self.port},
            "broker": {"port": self.broker_port, "listen_host": self.host, "listen_port": free_port(self.host)},
            "authority": {"plain_key": True},
            "doctors": {"first_account": DOCTOR, "audio_processing": False},
        }
        self.hub = Program("hub", [*CLI, "hub", "run", "--config", str(self.toml)], folder / "hub.log", ENVIRONMENT)
        self.broker = Program("broker", [], folder / "broker.log")
        self._consoles: list[ConsoleClient] = []
        self._watcher: ConsoleClient | None = None

    @property
    def programs(self) -> list[Program]:
        return [self.broker, self.hub, *(kiosk.agent for kiosk in self.kiosks)]

    async def command(self, *arguments: str, typed: str = "") -> str:
        """A command of the kit where the hub runs; its standard output. Must succeed."""
        return await run_command([*CLI, *arguments], typed)

    async def start(self, over: Settings | None = None) -> None:
        lay_over(self.settings, over or {})
        self.toml.write_text(tomli_w.dumps(self.settings))
        self.broker.argv = [(await self.command("hub", "broker-config", "--config", str(self.toml))).strip()]
        await self.start_broker()
        await self.start_hub()
        printed = await self.hub.until_line(r"name (\S+)\s+password (\S+)")
        assert printed[1] == DOCTOR
        self.password = printed[2]

    async def start_broker(self) -> None:
        await self.broker.start()
        await self._until(self._broker_answers, self.broker)

    async def start_hub(self) -> None:
        """Started, answering, and connected to the broker."""
        await self.hub.start()
        await self._until(self._hub_answers, self.hub)

    async def stop(self) -> None:
        for each in (*self._consoles, *([self._watcher] if self._watcher else [])):
            await each.close()
        for kiosk in self.kiosks:
            await kiosk.stop()
        await self.hub.stop()
        await self.broker.stop()

    async def add_kiosk(self, name: str, microphone: Path, over: Settings | None = None) -> Kiosk:
        """Invited, joined, started, idle and online."""
        code = (
            await self.command("hub", "invite", "--config", str(self.toml), "--site", f"Clinic {name}", "--no-qr")
        ).strip()
        kiosk = Kiosk(self.folder / name, name, microphone, self.lab)
        lay_over(kiosk.settings, over or {})
        kiosk.write_settings()
        joining = kiosk.command(
            "join", code, "--hub", f"{self.host}:{self.port}", "--name", name, "--config", str(kiosk.toml)
        )
        await run_command(joining)
        await run_command(kiosk.command("config", "set-pin", "--config", str(kiosk.toml)), PIN + "\n")
        self.kiosks.append(kiosk)
        await kiosk.start()
        await kiosk.until_ready()
        return kiosk

    async def remove_kiosk(self, kiosk: Kiosk) -> None:
        await kiosk.to_idle()
        await kiosk.until_all_sent()
        self.kiosks.remove(kiosk)
        await kiosk.stop()

    async def add_account(self, name: str, password: str) -> None:
        await self.command("hub", "account", "add", name, "--config", str(self.toml), typed=password + "\n")

    async def console(self, available: bool = False, name: str = DOCTOR, password: str = "") -> ConsoleClient:
        """A doctor without a browser, signed in, until the kit stops."""
        client = ConsoleClient(self.url, name, password or self.password)
        self._consoles.append(client)
        await client.open(available)
        return client

    async def settle(self) -> None:
        """Everything runs, the kiosks are idle and online, and nobody waits or talks."""
        if not self.broker.running:
            await self.start_broker()
        if not self.hub.running:
            await self.start_hub()
        for kiosk in self.kiosks:
            await kiosk.to_idle()
        watcher = await self.watcher()
        await watcher.until_now(console.Room, lambda room: not room.queue, "an empty waiting room", 20.0)

    async def watcher(self) -> ConsoleClient:
        """Somebody who looks on and is never available: what the hub says to everybody."""
        if self._watcher is None:
            await self.add_account("Watcher", "only-looks-on")
            self._watcher = ConsoleClient(self.url, "Watcher", "only-looks-on")
            await self._watcher.open()
        return self._watcher

    async def until_over(self, call: str, timeout_s: float = 15.0) -> Over:
        """How a call ended, as the hub has it from both sides."""
        deadline = time.monotonic() + timeout_s
        while True:
            rows = self.rows("SELECT * FROM call WHERE id = ?", call)
            if rows and rows[0]["ended_at"] and rows[0]["kiosk_ended_at"]:
                row = rows[0]
                return Over(
                    row["consult_id"], row["outcome"], row["requested_at"], row["answered_at"], row["ended_at"],
                    row["kiosk_outcome"], row["kiosk_answered_at"], row["kiosk_ended_at"],
                )  # fmt: skip
            assert time.monotonic() < deadline, f"call {call} is not over on both sides: {[dict(row) for row in rows]}"
            await asyncio.sleep(0.05)

    def missing(self, kiosk: str) -> set[str]:
        """The parts that the hub knows this kiosk to lack."""
        return set(json.loads(self.rows("SELECT missing FROM kiosk WHERE id = ?", kiosk)[0]["missing"]))

    def as_kiosk(self, kiosk: Kiosk) -> aiomqtt.Client:
        """A stranger at the broker who has stolen a kiosk's identity; the broker thinks that it has come back."""
        return aiomqtt.Client(
            *kiosk.identity().broker, tls_context=BrokerTls.of(kiosk.identity()), protocol=aiomqtt.ProtocolVersion.V5
        )

    def as_hub(self) -> aiomqtt.Client:
        return aiomqtt.Client(
            "127.0.0.1", self.broker_port, username="_hub",
            password=(self.data_dir / "broker" / "hub.password").read_text().strip(),
            protocol=aiomqtt.ProtocolVersion.V5,
        )  # fmt: skip

    def rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        """Of the hub's database, read beside it."""
        return read_rows(self.data_dir / "hub.db", query, values)

    async def _until(self, answers: Callable[[], Awaitable[bool]], program: Program) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not await answers():
            assert program.running, f"{program.name} ended:\n{program.tail()}"
            assert time.monotonic() < deadline, f"{program.name} does not answer:\n{program.tail()}"
            await asyncio.sleep(0.05)

    async def _broker_answers(self) -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.broker_port)
            writer.close()
            return True
        return False

    async def _hub_answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(trust_env=False, timeout=2, verify=False) as http:
                answer = await http.get(f"{self.url}/health")
                return answer.status_code == 200 and answer.json()["broker"]
        return False


async def run_command(argv: Sequence[str], typed: str = "") -> str:
    """Standard output of a command that must succeed."""
    process = await asyncio.create_subprocess_exec(
        *argv, env={**os.environ, **ENVIRONMENT}, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate(typed.encode())
    assert process.returncode == 0, f"{' '.join(argv)}: {process.returncode}\n{out.decode()}{err.decode()}"
    return out.decode()
