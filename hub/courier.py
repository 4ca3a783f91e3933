"""What a courier has brought, through the same intake as the link, and the answers that go back.

Beside a running hub or without one. What came by link and stick counts once, as whatever comes twice does. Only what is
committed is confirmed; the answers also hold what waits for the kiosk: advice, and the sound of voice replies.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import aiomqtt
from sqlalchemy import select
from sqlalchemy.orm import Session

from edge_agent.core import trust, wire
from edge_agent.core.courier import Sealed
from hub import downlink, outgoing
from hub.broker import tls_context
from hub.calls import Calls
from hub.config import HubSettings
from hub.database import Database
from hub.files import FileStore
from hub.intake import Arrival, Intake
from hub.outgoing import Outgoing
from hub.records import AdviceGiven, Consult, Content, Kiosk, Uplink
from hub.sealing import Sealing

log = logging.getLogger(__name__)

PROCESS = "courier"
IDS_A_MESSAGE = 1000
PUBLISH_S = 5.0


@dataclass
class Brought:
    """Of one kiosk."""

    messages: set[bytes] = field(default_factory=set)
    files: set[tuple[bytes, bytes]] = field(default_factory=set)  # consult and digest, by their manifests
    refused: int = 0
    confirmed: int = 0
    files_whole: int = 0


class CourierIntake:
    def __init__(
        self, settings: HubSettings, database: Database, own: trust.OwnKeys, now_ms: Callable[[], int]
    ) -> None:
        self._settings, self._database, self._now_ms = settings, database, now_ms
        self._files = FileStore(settings.data_dir / "files")
        self._sealing = Sealing(own, PROCESS)
        self._published: list[tuple[str, bytes]] = []
        self._intake = Intake(
            database, self._files, Calls(settings.ice), downlink.ReplySender(self._files), settings.store,
            self._sealing, self._deliver, now_ms,
        )  # fmt: skip
        self._brought: dict[str, Brought] = {}

    async def start(self) -> None:
        floor = await self._database.run(self._sealing.start, self._now_ms())
        self._sealing.counter_kept(floor)

    async def take(self, kiosk: str, records: Iterable[Sealed]) -> None:
        """A bundle of this kiosk, in its order."""
        brought, everything = self.result(kiosk), list(records)
        own = [record for record in everything if record.topic.startswith(f"{wire.TOPIC_ROOT}/{kiosk}/u/")]
        brought.refused += len(everything) - len(own)
        await self._database.run(self._note, brought, own)
        await self._intake.take([Arrival(record.topic, record.payload, _nothing) for record in own])

    def _note(self, session: Session, brought: Brought, records: list[Sealed]) -> None:
        """Which messages these are. A chunk names its file by a key; the manifest before it says which."""
        for record in records:
            if record.topic.endswith("/f"):
                continue
            try:
                message = self._sealing.open(session, record.topic, record.payload, self._now_ms()).message
            except (trust.TrustError, wire.WireError) as error:
                brought.refused += 1
                log.warning("courier's message refused topic=%s: %s", record.topic, error)
                continue
            if message.body.DURABLE:
                brought.messages.add(message.id)
            if isinstance(message.body, wire.Manifest):
                brought.files.add((message.consult, message.body.digest))

    async def answers(self, kiosk: str) -> list[Sealed]:
        """For the way back: what is committed of what it has brought, and what waits for it."""
        return await self._database.run(self._answers, kiosk, self.result(kiosk))

    def result(self, kiosk: str) -> Brought:
        return self._brought.setdefault(kiosk, Brought())

    def _answers(self, session: Session, kiosk: str, brought: Brought) -> list[Sealed]:
        now_ms, out = self._now_ms(), Outgoing()
        if session.get(Kiosk, kiosk) is None:
            return []
        ids = [id for id in sorted(brought.messages) if session.get(Uplink, (kiosk, id.hex())) is not None]
        whole = set(session.scalars(select(Content.digest).where(Content.kiosk_id == kiosk, Content.complete)))
        files = [file for file in sorted(brought.files) if file[1].hex() in whole]
        brought.confirmed, brought.files_whole = len(ids), len(files)
        for start in range(0, max(len(ids), len(files)), IDS_A_MESSAGE):
            part = slice(start, start + IDS_A_MESSAGE)
            receipt = wire.CourierReceipt(tuple(ids[part]), tuple(files[part]))
            out.to_kiosk(kiosk, wire.Message(receipt, sent_at_ms=now_ms))
        downlink.resend(session, out, kiosk, now_ms)
        lacking = (
            select(Consult.id, Content)
            .join(AdviceGiven, AdviceGiven.consult_id == Consult.id)
            .join(Content, (Content.kiosk_id == Consult.kiosk_id) & (Content.digest == AdviceGiven.reply))
            .where(Consult.kiosk_id == kiosk, AdviceGiven.reply != "", AdviceGiven.reply_delivered.is_(False))
        )
        for consult, content in session.execute(lacking).tuples():
            for offset in range(0, content.size, wire.CHUNK_BYTES):
                data = self._files.read(kiosk, content.digest, offset, min(wire.CHUNK_BYTES, content.size - offset))
                chunk = wire.Chunk(bytes.fromhex(content.digest), offset, data)
                out.to_kiosk(kiosk, wire.Message(chunk, bytes.fromhex(consult), sent_at_ms=now_ms))
        self._sealing.seal(session, out, now_ms)
        return [Sealed(topic, payload) for topic, payload in out.sealed]

    async def _deliver(self, out: Outgoing) -> None:
        self._published += out.sealed
        if out.notice != outgoing.EMPTY_NOTICE:
            self._published.append((outgoing.NOTICE_TOPIC, outgoing.encode_notice(out.notice)))

    async def tell(self) -> bool:
        """Running hub processes show what came; a kiosk that is online is told at once. False without a broker."""
        broker = self._settings.broker
        try:
            password = self._settings.broker_password_path.read_text(encoding="utf-8").strip()
            async with asyncio.timeout(PUBLISH_S), aiomqtt.Client(
                broker.host, broker.port, username=broker.username, password=password,
                identifier=f"hub-{PROCESS}-{secrets.token_hex(4)}", protocol=aiomqtt.ProtocolVersion.V5,
                tls_context=tls_context(broker),
            ) as client:  # fmt: skip
                for topic, payload in self._published:
                    await client.publish(topic, payload, qos=1)
        except (aiomqtt.MqttError, OSError, ValueError, TimeoutError):
            return False
        self._published.clear()
        return True


def _nothing() -> None:
    """A courier waits for no acknowledgement."""
