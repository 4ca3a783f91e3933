"""Durable messages to kiosks, and the bytes of voice replies.

A durable message stays in the database until the kiosk's receipt; it is published when it is made, again when its
kiosk comes online, and again from time to time while the kiosk is online and silent. A reply's bytes go as its
`Have` asks for them, a few chunks at a time, so that nothing urgent waits behind a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from edge_agent.core import wire
from edge_agent.core.ranges import ByteRanges
from hub.files import FileStore
from hub.outgoing import Outgoing
from hub.records import AdviceGiven, CaseFile, Consult, Content, Downlink, Kiosk

CHUNKS_IN_FLIGHT = 3
PUMP_MS = 1_000  # a kiosk that says no `Have` between has them a few a second
RESEND_CHUNK_AFTER_MS = 60_000  # no `Have` has named it: the link dropped it
REMIND_AFTER_MS = 30_000  # no receipt from a kiosk that is online


def send_durable(session: Session, out: Outgoing, consult: Consult, body: wire.Body, now_ms: int) -> str:
    """Keep and publish; returns the message's id."""
    consult.down_seq += 1
    message = wire.Message(body, bytes.fromhex(consult.id), seq=consult.down_seq, sent_at_ms=now_ms)
    session.add(
        Downlink(
            id=message.id.hex(),
            kiosk_id=consult.kiosk_id,
            consult_id=consult.id,
            seq=message.seq,
            created_at=now_ms,
            payload=wire.encode(message),
        )
    )
    session.flush()
    out.to_kiosk(consult.kiosk_id, message)
    return message.id.hex()


def send_manifest(session: Session, out: Outgoing, consult: Consult, file: CaseFile, now_ms: int) -> None:
    send_durable(session, out, consult, manifest_of(session, consult, file), now_ms)


def manifest_of(session: Session, consult: Consult, file: CaseFile) -> wire.Manifest:
    content = session.get_one(Content, (consult.kiosk_id, file.digest))
    return wire.Manifest(
        digest=bytes.fromhex(file.digest),
        role="reply",
        mime=content.mime,
        size=content.size,
        captured_at_ms=file.captured_at,
        captured_by=file.captured_by,
        duration_ms=file.duration_ms,
        key=file.key,
    )


def receipted(session: Session, out: Outgoing, kiosk: str, ids: tuple[bytes, ...], now_ms: int) -> None:
    """The kiosk has these; only its own messages can be freed by it."""
    for message_id in {id.hex() for id in ids}:
        freed = session.execute(
            update(Downlink)
            .where(Downlink.id == message_id, Downlink.kiosk_id == kiosk, Downlink.receipted_at == 0)
            .values(receipted_at=now_ms)
        )
        if not freed.rowcount:
            continue
        out.receipted.add(message_id)
        advice = session.scalar(select(AdviceGiven).where(AdviceGiven.downlink_id == message_id))
        if advice is not None:
            advice.delivered_at = now_ms
            out.cases.add(advice.consult_id)


def resend(session: Session, out: Outgoing, kiosk: str, now_ms: int, older_than_ms: int | None = None) -> None:
    """Everything durable that this kiosk has not confirmed, in order; and manifests of replies it lacks."""
    waiting = select(Downlink).where(Downlink.kiosk_id == kiosk, Downlink.receipted_at == 0)
    if older_than_ms is not None:
        waiting = waiting.where(Downlink.created_at <= older_than_ms)
    for row in session.scalars(waiting.order_by(Downlink.created_at, Downlink.seq)):
        out.to_kiosk(kiosk, wire.decode(row.payload))
    lacking = (
        select(AdviceGiven, Consult)
        .join(Consult, Consult.id == AdviceGiven.consult_id)
        .where(Consult.kiosk_id == kiosk, AdviceGiven.reply != "", AdviceGiven.reply_delivered.is_(False))
    )
    if older_than_ms is not None:
        lacking = lacking.where(AdviceGiven.given_at <= older_than_ms)
    for advice, consult in session.execute(lacking).tuples():
        file = session.get_one(CaseFile, (consult.id, advice.reply))
        manifest = manifest_of(session, consult, file)
        out.to_kiosk(kiosk, wire.Message(manifest, bytes.fromhex(consult.id), sent_at_ms=now_ms))


def online_kiosks_with_waiting(session: Session) -> list[str]:
    kept = select(Downlink.kiosk_id).where(Downlink.receipted_at == 0)
    lacking = (
        select(Consult.kiosk_id)
        .join(AdviceGiven, AdviceGiven.consult_id == Consult.id)
        .where(AdviceGiven.reply != "", AdviceGiven.reply_delivered.is_(False))
    )
    online = select(Kiosk.id).where(Kiosk.online, Kiosk.id.in_(kept.union(lacking)))
    return list(session.scalars(online))


@dataclass
class _Transfer:
    consult: bytes
    size: int
    held: ByteRanges
    sent_at_ms: dict[int, int] = field(default_factory=dict)  # by offset
    in_flight: set[int] = field(default_factory=set)  # offsets that no `Have` has named yet
    last_ms: int = 0


class ReplySender:
    """Which chunks of replies are under way. Memory only: a kiosk's next `Have` rebuilds it."""

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self._transfers: dict[tuple[str, str], _Transfer] = {}

    @property
    def busy(self) -> bool:
        return bool(self._transfers)

    def has(self, session: Session, out: Outgoing, kiosk: str, consult: bytes, have: wire.Have, now_ms: int) -> None:
        """The kiosk says what it holds of a reply: send the next chunks, or note that it has all."""
        digest = have.digest.hex()
        advice = session.scalar(
            select(AdviceGiven)
            .join(Consult, Consult.id == AdviceGiven.consult_id)
            .where(Consult.kiosk_id == kiosk, Consult.id == consult.hex(), AdviceGiven.reply == digest)
        )
        if advice is None:
            return
        if have.complete:
            self._transfers.pop((kiosk, digest), None)
            advice.reply_delivered = True
            out.cases.add(advice.consult_id)
            return
        size = session.get_one(Content, (kiosk, digest)).size
        transfer = self._transfers.setdefault((kiosk, digest), _Transfer(consult, size, ByteRanges()))
        transfer.held = ByteRanges((start, end) for start, end in have.ranges if 0 <= start < end <= size)
        self._send_next(out, kiosk, digest, transfer, now_ms)

    def pump(self, out: Outgoing, now_ms: int) -> None:
        """From time to time: go on where no `Have` asks; forget what was sent to its end."""
        for (kiosk, digest), transfer in list(self._transfers.items()):
            if now_ms - transfer.last_ms >= PUMP_MS:
                transfer.in_flight.clear()
                self._send_next(out, kiosk, digest, transfer, now_ms)
            if now_ms - transfer.last_ms >= RESEND_CHUNK_AFTER_MS:
                del self._transfers[kiosk, digest]  # the next manifest begins it anew

    def _send_next(self, out: Outgoing, kiosk: str, digest: str, transfer: _Transfer, now_ms: int) -> None:
        transfer.in_flight = {at for at in transfer.in_flight if not transfer.held.covers(at, at + 1)}
        for offset, length in _chunks(transfer.held, transfer.size):
            if len(transfer.in_flight) >= CHUNKS_IN_FLIGHT:
                break
            if now_ms - transfer.sent_at_ms.get(offset, -RESEND_CHUNK_AFTER_MS) < RESEND_CHUNK_AFTER_MS:
                continue
            data = self._files.read(kiosk, digest, offset, length)
            chunk = wire.Chunk(bytes.fromhex(digest), offset, data)
            out.to_kiosk(kiosk, wire.Message(chunk, transfer.consult, sent_at_ms=now_ms))
            transfer.sent_at_ms[offset] = transfer.last_ms = now_ms
            transfer.in_flight.add(offset)


def _chunks(held: ByteRanges, size: int) -> list[tuple[int, int]]:
    return [
        (offset, min(wire.CHUNK_BYTES, end - offset))
        for start, end in held.missing(size)
        for offset in range(start, end, wire.CHUNK_BYTES)
    ]
