"""An agent process, a real mosquitto, and a hub that speaks the wire and does what a test tells it."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import aiomqtt
import tomli_w
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_agent.core import trust, wire
from edge_agent.core.ranges import ByteRanges
from edge_agent.identity import Identity
from hub.broker import copy_certificates
from tests.adapters.identities import new_authority, new_identity
from tests.e2e.kiosk_page import BoardPanel, KioskPage
from tests.e2e.program import Program, children, command_line, free_port

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") or "mosquitto"
KIOSK = "kiosk-1"
HUB = "1"

Body = TypeVar("Body", bound=wire.Body)


class Broker:
    """`port` is the hub's, in the clear; kiosks come to `tls_port` with certificates of `authority`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.tls_port = free_port(), free_port()
        self.authority = new_authority(folder / "ca")
        copy_certificates(folder, self.authority)
        self.kiosks: list[Identity] = []  # all of one name
        self._config = folder / "mosquitto.conf"
        lines = [
            f"user {getpass.getuser()}", "allow_anonymous true", f"listener {self.port} 127.0.0.1",
            f"listener {self.tls_port} 127.0.0.1", f"cafile {folder / 'ca.pem'}", f"certfile {folder / 'hub.pem'}",
            f"keyfile {folder / 'hub.key'}", "require_certificate true", "use_identity_as_username true",
        ]  # fmt: skip
        self._config.write_text("\n".join(lines) + "\n")
        self.program = Program("mosquitto", [MOSQUITTO, "-c", str(self._config)], folder / "mosquitto.log")

    async def start(self) -> None:
        mark = len(self.program.lines)
        await self.program.start()
        await self.program.until_line(r"mosquitto version .* running", since=mark)

    async def stop(self) -> None:
        await self.program.stop()


class Hub:
    """`got` is everything that came, in order. With `takes`, it commits like a hub: receipts, ranges, chunks. Tells the
    time by its own clock, which is `ahead_ms`."""

    def __init__(self, broker: Broker) -> None:
        self._broker, self._port = broker, broker.port
        self._own = trust.OwnKeys(broker.authority.signing_key, broker.authority.seal_key)
        self._counter = trust.Counter()
        self._counter.kept(2**62)
        self._file_keys: dict[bytes, bytes] = {}  # of files to the kiosk, by digest
        self._keys: dict[tuple[bytes, bytes], bytes] = {}  # of files from it, by consult and digest
        self._heard: Identity | None = None
        self.ahead_ms = 0
        self.got: list[wire.Message] = []
        self.statuses: list[wire.Status] = []
        self.takes = True
        self.files: dict[bytes, bytearray] = {}
        self.complete: dict[bytes, bytes] = {}
        self._ranges: dict[bytes, ByteRanges] = {}
        self._client: aiomqtt.Client | None = None
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()
        self._came = asyncio.Condition()

    async def start(self) -> None:
        self._up.clear()
        self._task = asyncio.create_task(self._run())
        async with asyncio.timeout(10):
            await self._up.wait()

    async def stop(self) -> None:
        """As if killed: the last will says that it is gone."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, aiomqtt.MqttError):
                await self._task
            self._task = None

    async def send(self, body: wire.Body, consult: bytes = b"", seq: int = 0) -> wire.Message:
        message = wire.Message(body, consult, seq=seq, sent_at_ms=self.now_ms())
        await self.send_signed(body.CHANNEL, wire.encode(message))
        return message

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms

    async def send_signed(self, channel: str, encoded: bytes) -> None:
        """What may be no message of ours."""
        await self.send_raw(channel, self.wrap(channel, encoded))

    def wrap(self, channel: str, encoded: bytes, counter: int | None = None, expires_at_ms: int = 0) -> bytes:
        topic = f"tc1/{KIOSK}/d/{channel}"
        try:
            body: wire.Body | None = wire.decode(encoded).body
        except wire.WireError:
            body = None
        if isinstance(body, wire.Manifest):
            self._file_keys[body.digest] = body.key
        if isinstance(body, wire.Chunk):
            return trust.wrap_chunk(wire.encode_chunk(body), topic, self._file_keys[body.digest])
        kiosk = self._heard or self._broker.kiosks[-1]
        counter = self._counter.next(self.now_ms()) if counter is None else counter
        return trust.wrap(
            encoded, topic, self._own.signing, kiosk.seal_key.public_key(), counter=counter,
            expires_at_ms=expires_at_ms, sender=HUB,
        )  # fmt: skip

    def unwrap(self, topic: str, payload: bytes) -> wire.Message:
        """Of whichever of the kiosks of this name has said it."""
        if payload[0] == trust.CHUNK:
            consult, digest = next(
                of for of, key in self._keys.items() if trust.name_of_key(key) == trust.named_key(payload)
            )
            return wire.decode_chunk(trust.unwrap_chunk(payload, topic, self._keys[consult, digest]), consult, digest)
        for kiosk in self._broker.kiosks:
            public = kiosk.signing_key.public_key()
            with contextlib.suppress(trust.Forged):
                said = trust.unwrap(payload, topic, public, self._own.sealing, wall_ms=None, allow_open=True)
                self._heard = kiosk
                message = wire.decode(said.message)
                if isinstance(message.body, wire.Manifest):
                    self._keys[message.consult, message.body.digest] = message.body.key
                return message
        raise AssertionError(f"nobody's message on {topic}")

    def _status(self, online: bool) -> bytes:
        message = wire.encode(wire.Message(wire.HubStatus(online, time_ms=self.now_ms())))
        counter = self._counter.next(self.now_ms())
        return trust.wrap(message, wire.hub_topic(HUB), self._own.signing, None, counter=counter)

    async def send_raw(self, channel: str, payload: bytes) -> None:
        assert self._client is not None
        await self._client.publish(f"tc1/{KIOSK}/d/{channel}", payload, qos=1)

    async def until(
        self,
        kind: type[Body],
        wanted: Callable[[Body], bool] = lambda body: True,
        since: int = 0,
        timeout_s: float = 15,
    ) -> Body:
        return (await self.until_message(kind, wanted, since, timeout_s)).body  # type: ignore[return-value]

    async def until_message(
        self, kind: type[Body], wanted: Callable[[Any], bool] = lambda body: True, since: int = 0, timeout_s: float = 15
    ) -> wire.Message:
        try:
            async with asyncio.timeout(timeout_s), self._came:
                while True:
                    for message in self.got[since:]:
                        if isinstance(message.body, kind) and wanted(message.body):
                            return message
                    await self._came.wait()
        except TimeoutError:
            got = [type(message.body).__name__ for message in self.got[since:]]
            raise AssertionError(f"no {kind.__name__} as wanted in {timeout_s} s; got {got}") from None

    def all(self, kind: type[Body]) -> list[Body]:
        return [message.body for message in self.got if isinstance(message.body, kind)]

    async def _run(self) -> None:
        while True:
            try:
                await self._connection()
            except aiomqtt.MqttError:
                await asyncio.sleep(0.1)

    async def _connection(self) -> None:
        status = wire.hub_topic(HUB)
        gone, here = self._status(online=False), self._status(online=True)
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0
        async with aiomqtt.Client(
            "127.0.0.1", self._port, identifier="hub-1", protocol=aiomqtt.ProtocolVersion.V5, properties=properties,
            will=aiomqtt.Will(status, gone, qos=1, retain=True),
        ) as client:  # fmt: skip
            self._client = client
            await client.subscribe("tc1/+/u/#", qos=1)
            await client.publish(status, here, qos=1, retain=True)
            self._up.set()
            try:
                async for came in client.messages:
                    await self._take(self.unwrap(str(came.topic), bytes(came.payload)))
            except asyncio.CancelledError:
                # Not aiomqtt's orderly goodbye, which would keep the will back.
                client._client._sock_close()  # type: ignore[attr-defined]
                raise

    async def _take(self, message: wire.Message) -> None:
        body = message.body
        if isinstance(body, wire.Status):
            self.statuses.append(body)
        async with self._came:
            self.got.append(message)
            self._came.notify_all()
        if isinstance(body, wire.TimeAsked):
            await self.send(wire.TimeTold(body.nonce, self.now_ms()))
        if not self.takes:
            return
        if body.DURABLE:
            await self.send(wire.Receipt((message.id,)), message.consult)
        if isinstance(body, wire.Manifest):
            self.files.setdefault(body.digest, bytearray(body.size))
            self._ranges.setdefault(body.digest, ByteRanges())
            await self._tell(message.consult, body.digest)
        elif isinstance(body, wire.Chunk) and body.digest in self.files:
            end = body.offset + len(body.data)
            self.files[body.digest][body.offset : end] = body.data
            self._ranges[body.digest].add(body.offset, end)
            if self._ranges[body.digest].covers(0, len(self.files[body.digest])):
                self.complete[body.digest] = bytes(self.files[body.digest])
                await self._tell(message.consult, body.digest)

    async def _tell(self, consult: bytes, digest: bytes) -> None:
        ranges = self._ranges[digest]
        await self.send(wire.Have(digest, ranges.as_tuple(), ranges.covers(0, len(self.files[digest]))), consult)


class Kiosk:
    """Has joined, unless there is no `broker`."""

    def __init__(self, folder: Path, broker: Broker | None, /, **sections: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.state_dir = Path(sections.get("kiosk", {}).get("state_dir", folder / "state"))
        if broker is not None:
            identity = self.state_dir / "identity"
            broker.kiosks.append(new_identity(identity, broker.authority, KIOSK, broker.tls_port))
        self.port = free_port()
        settings: dict[str, dict[str, Any]] = {
            "kiosk": {"state_dir": str(self.state_dir), "languages": ["en"]},
            "devices": {"board": "simulated"},
            "broker": {"keepalive_s": 5},
            "screen": {"port": self.port},
            "call": {"hub_reply_timeout_s": 3.0, "reconnect_timeout_s": 5.0, "ended_screen_s": 1.0},
        }
        for name, values in sections.items():
            settings.setdefault(name, {}).update(values)
        self.toml = folder / "kiosk.toml"
        self.toml.write_text(tomli_w.dumps(settings))
        self.agent = Program(
            "agent", [sys.executable, "-m", "tests.adapters.agent.agent_main", str(self.toml)], folder / "agent.log",
            ENVIRONMENT,
        )  # fmt: skip
        self.screen = KioskPage(self.port)
        self.board = BoardPanel(self.port)

    async def start(self) -> None:
        mark = len(self.agent.lines)
        await self.agent.start()
        await self.agent.until_line("media process ready", 30.0, since=mark)
        if not self.screen.views:
            await self.screen.open()
            await self.board.open()
        await self.screen.until(lambda view: view.screen != "", "anything")

    @property
    def media_pid(self) -> int:
        return next(pid for pid in children(self.agent.pid) if any("media_peer" in part for part in command_line(pid)))

    async def stop(self) -> None:
        await self.screen.close()
        await self.board.close()
        await self.agent.stop()
        print(*(line.text for line in self.agent.lines), sep="\n")  # shown where the test fails

    async def online(self) -> None:
        await self.screen.until(lambda view: view.online, "online", 20.0)
