"""A hub for tests: real mosquitto with the generated configuration, the hub as a process, a kiosk and a doctor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import aiomqtt
import httpx
import msgspec
import websockets
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from websockets.asyncio.client import ClientConnection, connect

from edge_agent.core import trust, wire
from edge_agent.core.joining import IdentityReply, JoinRequest, parse_code
from edge_agent.identity import Identity, NewIdentity
from edge_agent.tls import BrokerTls
from hub import accounts, app, console, enrol
from hub.config import HubSettings, read_hub_settings
from hub.database import Database
from hub.roles import Role
from tests.e2e.program import free_port

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = "correct horse battery"
FINGERPRINT = ":".join(f"{number:02X}" for number in range(32))
B = TypeVar("B", bound=wire.Body)
C = TypeVar("C")

HUB_PROGRAM = """
import logging, sys
from pathlib import Path
from hub import app
from hub.config import read_hub_settings
logging.basicConfig(level="INFO", format="%(levelname)s %(name)s %(message)s")
app.run(read_hub_settings(Path(sys.argv[1])), ready=lambda address: print(f"READY {address}", flush=True))
"""


class Broker:
    """Mosquitto as a child, on the configuration that the hub writes."""

    def __init__(self, settings: HubSettings) -> None:
        self.settings = settings
        self.start_script = app.prepare_broker(settings)
        self.log = settings.data_dir / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([self.start_script], stderr=log)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.settings.broker.port), 1).close()
                return
            except OSError:
                assert self._process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.02)

    def send_signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None


class Hub:
    """The hub as a process of its own, so that it can be killed."""

    def __init__(self, folder: Path, extra: str = "", like: Hub | None = None, process: str = "1") -> None:
        """`like` is a hub whose data and broker this one shares, as another process."""
        self.config = folder / f"hub-{process}.toml"
        self.port = free_port()
        text = like.config.read_text() if like else (
            f'[store]\ndata_dir = "{folder / "data"}"\n[listen]\nport = 0\n'
            f'[broker]\nport = {free_port()}\nlisten_port = {free_port()}\n[authority]\nplain_key = true\n{extra}'
        )  # fmt: skip
        self.config.write_text(text)
        self.set("listen", f"port = {self.port}")
        self.set("broker", f'process = "{process}"')
        self.log = folder / f"hub-{process}.log"
        self.url = f"http://127.0.0.1:{self.port}"
        self.limits: Callable[[], None] | None = None
        self._process: subprocess.Popen[str] | None = None

    def set(self, section: str, line: str) -> None:
        """In its configuration; in force at its next start."""
        key = line.partition(" ")[0]
        lines = self.config.read_text().splitlines()
        at = lines.index(f"[{section}]") + 1
        end = next((number for number in range(at, len(lines)) if lines[number].startswith("[")), len(lines))
        lines[at:end] = [line, *(each for each in lines[at:end] if each.partition(" ")[0] != key)]
        self.config.write_text("\n".join(lines) + "\n")
        self.settings = read_hub_settings(self.config)

    broker: Broker

    def kiosk(self, kiosk: str, session_s: int = 0) -> TestKiosk:
        return TestKiosk(self.settings.broker.listen_port, self.identity(kiosk), session_s)

    def doctor(self, name: str) -> TestDoctor:
        return TestDoctor(self.url, name)

    def database(self) -> Database:
        return Database(self.settings.database_url, self.settings.data_dir)

    def do(self, work: Callable[..., C], *args: Any) -> C:
        database = self.database()
        try:
            return database.do(work, *args)
        finally:
            database.close()

    def add_doctor(self, name: str, role: Role = Role.DOCTOR) -> None:
        hashed = accounts.hash_password(PASSWORD, name)
        self.do(lambda session: accounts.add_account(session, name, hashed, app.now_ms(), role, by="test") and None)

    def add_kiosk(self, kiosk: str) -> Identity:
        """Invited and joined, without a web server between."""
        new, database = NewIdentity(self.settings.data_dir.parent / kiosk), self.database()
        try:
            enrolment = enrol.Enrolment(self.settings, database, app.open_authority(self.settings), app.now_ms)
            code = parse_code(enrolment.invite(f"Clinic {kiosk}", by="command:0"))
            reply = asyncio.run(enrolment.join(JoinRequest(code.token.hex(), new.request, kiosk)))
        finally:
            database.close()
        assert isinstance(reply, IdentityReply)
        return new.take(self.url, reply)

    def identity(self, kiosk: str) -> Identity:
        return Identity.load(self.settings.data_dir.parent / kiosk)

    def start(self) -> None:
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", HUB_PROGRAM, str(self.config)],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=self.limits,
            )  # fmt: skip
        assert self._process.stdout is not None
        while not (line := self._process.stdout.readline()).startswith("READY"):
            assert line, self.log.read_text()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


class TestKiosk:
    """Speaks wire.py, signed and sealed, and nothing by itself: a test says every word."""

    __test__ = False

    def __init__(self, port: int, identity: Identity, session_s: int = 0) -> None:
        """The broker keeps what comes for it for `session_s` after it has gone."""
        self.id = kiosk = identity.kiosk
        self.own = trust.OwnKeys(identity.signing_key, identity.seal_key)
        self.hub = trust.FarKeys(identity.hub_signing_key, identity.hub_seal_key)
        self.boot = os.urandom(8)
        self.file_keys: dict[bytes, bytes] = {}  # by digest
        self.counter = trust.Counter()
        self.counter.kept(2**62)
        self.got: list[wire.Message] = []
        self._changed = asyncio.Condition()
        will = self.wrap("s", wire.encode(wire.Message(wire.Status(online=False))))
        connect = Properties(PacketTypes.CONNECT)
        connect.SessionExpiryInterval = session_s
        self._client = aiomqtt.Client(
            "127.0.0.1", port, identifier=kiosk, tls_context=BrokerTls.of(identity),
            protocol=aiomqtt.ProtocolVersion.V5, clean_start=not session_s, properties=connect,
            will=aiomqtt.Will(wire.up_topic(kiosk, "s"), will, 1, True),
        )  # fmt: skip
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> TestKiosk:
        await self._client.__aenter__()
        await self._client.subscribe([(f"tc1/{self.id}/d/#", 1), ("tc1/_/d/#", 1)])
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._reader is not None
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        with contextlib.suppress(aiomqtt.MqttError):
            await self._client.__aexit__(None, None, None)

    async def _read(self) -> None:
        async for message in self._client.messages:
            async with self._changed:
                self.got.append(self.unwrap(str(message.topic), message.payload))
                self._changed.notify_all()

    async def online(self, **fields: Any) -> None:
        """Like the kit's agent, it speaks once a hub is there."""
        await self.until(wire.HubStatus, lambda status: status.online)
        status = wire.Status(online=True, boot=self.boot, clock_trusted=True, **fields)
        await self.publish("s", wire.encode(wire.Message(status, sent_at_ms=now_ms())), retain=True)

    def unwrap(self, topic: str, payload: bytes) -> wire.Message:
        if payload[0] == trust.CHUNK:
            digest, key = next(
                of for of in self.file_keys.items() if trust.name_of_key(of[1]) == trust.named_key(payload)
            )
            return wire.decode_chunk(trust.unwrap_chunk(payload, topic, key), b"", digest)
        said = trust.unwrap(payload, topic, self.hub.signing, self.own.sealing, wall_ms=now_ms(), allow_open=True)
        message = wire.decode(said.message)
        if isinstance(message.body, wire.Manifest):
            self.file_keys[message.body.digest] = message.body.key
        return message

    def wrap(self, channel: str, encoded: bytes, counter: int | None = None, expires_at_ms: int = 0) -> bytes:
        """Of what may be no message of ours. A file has one key, whatever its manifests say."""
        topic = f"tc1/{self.id}/u/{channel}"
        try:
            message = wire.decode(encoded)
        except wire.WireError:
            body: wire.Body | None = None
        else:
            body = message.body
        if isinstance(body, wire.Chunk):
            key = self.file_keys.setdefault(body.digest, wire.new_file_key())
            return trust.wrap_chunk(wire.encode_chunk(body), topic, key)
        if isinstance(body, wire.Manifest):
            key = self.file_keys.setdefault(body.digest, body.key)
            encoded = wire.encode(msgspec.structs.replace(message, body=msgspec.structs.replace(body, key=key)))
        reader = None if isinstance(body, wire.Status) else self.hub.sealing
        counter = self.counter.next(now_ms()) if counter is None else counter
        return trust.wrap(encoded, topic, self.own.signing, reader, counter=counter, expires_at_ms=expires_at_ms)

    async def publish(self, channel: str, encoded: bytes, retain: bool = False) -> None:
        """Signed and sealed."""
        await self.publish_raw(channel, self.wrap(channel, encoded), retain)

    async def publish_raw(self, channel: str, payload: bytes, retain: bool = False) -> None:
        await self._client.publish(f"tc1/{self.id}/u/{channel}", payload, qos=1, retain=retain)

    async def say(
        self, body: wire.Body, consult: bytes = b"", seq: int = 0, message_id: bytes | None = None
    ) -> wire.Message:
        stamp = wire.Stamp(b"boot", int(time.monotonic() * 1000), clock_trusted=True) if body.DURABLE else None
        message = wire.Message(body, consult, message_id or wire.new_message_id(), seq, now_ms(), stamp)
        await self.publish(body.CHANNEL, wire.encode(message))
        return message

    async def until(
        self, kind: type[B], wanted: Callable[[B], bool] = lambda body: True, since: int = 0, timeout_s: float = 10
    ) -> B:
        message = await self.until_message(kind, lambda message: wanted(message.body), since, timeout_s)
        return message.body  # type: ignore[return-value]

    async def until_message(
        self, kind: type[B], wanted: Callable[[Any], bool], since: int = 0, timeout_s: float = 10
    ) -> wire.Message:
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                while True:
                    for message in self.got[since:]:
                        if isinstance(message.body, kind) and wanted(message):
                            return message
                    since = len(self.got)
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"no {kind.__name__} as wanted; {[m.body for m in self.got]}") from None

    async def receipt(self, *messages: wire.Message, since: int = 0) -> None:
        for message in messages:
            await self.until(wire.Receipt, lambda body, id=message.id: id in body.ids, since=since)

    async def press(self, emergency: bool = False) -> tuple[bytes, bytes]:
        """`(consult, call)`."""
        consult, call = wire.new_consult_id(), wire.new_message_id()
        await self.say(wire.ConsultOpened(now_ms(), "patient"), consult, 1)
        await self.say(wire.CallRequested(call, now_ms(), emergency), consult, 2)
        return consult, call

    async def phase(self, call: bytes, phase: str, since: int = 0, timeout_s: float = 10) -> wire.CallState:
        return await self.until(
            wire.CallState, lambda body: body.call == call and body.phase == phase, since, timeout_s
        )


class TestDoctor:
    """Signs in over HTTP and speaks the console's WebSocket."""

    __test__ = False

    def __init__(self, url: str, name: str) -> None:
        self.name, self.url = name, url
        self.http = httpx.AsyncClient(base_url=url, headers={"Origin": url}, trust_env=False, timeout=15)
        self.got: list[Any] = []
        self.closed = asyncio.Event()
        self.close_code = 0
        self._changed = asyncio.Condition()
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> TestDoctor:
        await self.sign_in()
        await self.connect()
        return self

    async def sign_in(self, password: str = PASSWORD) -> None:
        answer = await self.http.post("/api/login", json={"name": self.name, "password": password})
        assert answer.status_code == 204, answer.text

    async def __aexit__(self, *error: object) -> None:
        await self.disconnect()
        await self.http.aclose()

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())

    async def connect(self) -> None:
        self.closed.clear()
        self._socket = await connect(
            self.url.replace("http", "ws", 1) + "/console/ws",
            additional_headers={"Cookie": self.cookie}, origin=self.url, proxy=None,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read(self._socket))

    async def disconnect(self) -> None:
        if self._socket is not None:
            await self._socket.close()
            assert self._reader is not None
            await self._reader
            self._socket = None

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async for text in socket:
                async with self._changed:
                    self.got.append(json.loads(text))
                    self._changed.notify_all()
        except websockets.ConnectionClosed:
            pass
        self.close_code = socket.close_code or 0
        self.closed.set()

    async def send(self, message: Any) -> None:
        await self.send_text(console.encode(message))

    async def send_text(self, text: str) -> None:
        assert self._socket is not None
        await self._socket.send(text)

    async def until(
        self, kind: str, wanted: Callable[[dict[str, Any]], bool] = lambda frame: True, since: int = 0,
        timeout_s: float = 10,
    ) -> dict[str, Any]:  # fmt: skip
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                while True:
                    for frame in self.got[since:]:
                        if frame["type"] == kind and wanted(frame):
                            return frame
                    since = len(self.got)
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"no {kind} as wanted; {self.got[-8:]}") from None

    async def rings(self, call: bytes, rings_me: bool = True, since: int = 0, timeout_s: float = 10) -> dict[str, Any]:
        """The card of this call in the waiting room."""

        def wanted(frame: dict[str, Any]) -> bool:
            return any(card["call"] == call.hex() and card["rings_me"] == rings_me for card in frame["queue"])

        room = await self.until("room", wanted, since, timeout_s)
        return next(card for card in room["queue"] if card["call"] == call.hex())

    async def case(
        self, consult: bytes, wanted: Callable[[dict[str, Any]], bool] = lambda case: True
    ) -> dict[str, Any]:
        since = len(self.got)
        await self.send(console.OpenCase(consult=consult.hex()))
        frame = await self.until(
            "case", lambda frame: frame["case"]["card"]["consult"] == consult.hex() and wanted(frame["case"]), since
        )
        return dict(frame["case"])


def now_ms() -> int:
    return int(time.time() * 1000)


def description(setup: str, ufrag: str = "abcd") -> str:
    """A session description with sound alone."""
    return (
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n"
        "m=audio 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=sendrecv\r\na=mid:0\r\na=rtcp-mux\r\n"
        "a=rtpmap:96 opus/48000/2\r\na=fmtp:96 minptime=10;useinbandfec=1\r\n"
        f"a=ice-ufrag:{ufrag}\r\na=ice-pwd:{'p' * 24}\r\na=fingerprint:sha-256 {FINGERPRINT}\r\na=setup:{setup}\r\n"
        "a=candidate:1 1 udp 2122260223 192.168.1.20 51472 typ host\r\n"
    )
