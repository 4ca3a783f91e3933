"""Consults as records: whose they are, what was noted, opened, answered and closed.

Every function works in the caller's transaction and says in `out` what must follow its commit.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from edge_agent.core import wire
from hub import downlink
from hub.files import FileStore
from hub.outgoing import Outgoing
from hub.records import AdviceGiven, Call, CaseFile, Consult, Content, Doctor, Event, Kiosk

DAY_MS = 86_400_000


class ForeignConsult(ValueError):
    """A kiosk named a consult of another kiosk."""


@dataclass(frozen=True)
class KioskClock:
    """Whether to believe a kiosk's times: its clock must say it is set, and agree with ours to a day."""

    trusted: bool
    sent_at_ms: int
    now_ms: int

    def shown(self, kiosk_ms: int) -> int:
        """The kiosk's time where it can be believed, the hub's where not. A case may be days old when it arrives."""
        set_right = self.trusted and abs(self.sent_at_ms - self.now_ms) <= DAY_MS
        near = self.trusted and abs(kiosk_ms - self.now_ms) <= DAY_MS
        return kiosk_ms if kiosk_ms > 0 and (near or (set_right and kiosk_ms <= self.now_ms)) else self.now_ms


def known_kiosk(session: Session, kiosk: str, now_ms: int) -> Kiosk:
    """The broker has let it in, so it is one of ours, even where the database was lost and begun anew."""
    row = session.get(Kiosk, kiosk)
    if row is None:
        row = Kiosk(id=kiosk, joined_at=now_ms)
        session.add(row)
        session.flush()
    return row


def own_consult(session: Session, kiosk: str, consult: str, now_ms: int) -> Consult:
    """This kiosk's consult, begun where it is new: messages may overtake the one that opens it.

    Raises ForeignConsult where it is another's.
    """
    row = session.get(Consult, consult)
    if row is None:
        known_kiosk(session, kiosk, now_ms)
        row = Consult(id=consult, kiosk_id=kiosk, arrived_at=now_ms, opened_at=now_ms)
        session.add(row)
        session.flush()
    if row.kiosk_id != kiosk:
        raise ForeignConsult(consult)
    return row


def record(session: Session, consult: str, kind: str, at_ms: int, by: str, call: str = "") -> None:
    session.add(Event(consult_id=consult, kind=kind, at=at_ms, by=by, call_id=call))


def has_case(session: Session, consult: Consult) -> bool:
    """Whether there is something to read, look at or hear, finished or not."""
    if consult.saved_at or consult.note_seq:
        return True
    from_kiosk = select(CaseFile.digest).where(CaseFile.consult_id == consult.id, CaseFile.role != "reply")
    return session.scalar(from_kiosk.limit(1)) is not None


def see(session: Session, out: Outgoing, consult: Consult, doctor: Doctor, now_ms: int) -> None:
    """A doctor has opened the case; the first time, the clinic is told."""
    if consult.seen_at or not has_case(session, consult):
        return
    consult.seen_at = now_ms
    record(session, consult.id, "seen", now_ms, doctor.name)
    downlink.send_durable(session, out, consult, wire.Progress("seen", now_ms), now_ms)
    out.cases.add(consult.id)


def close(session: Session, out: Outgoing, consult: Consult, doctor: Doctor, now_ms: int) -> None:
    if consult.closed_at:
        return
    consult.closed_at = now_ms
    record(session, consult.id, "closed", now_ms, doctor.name)
    downlink.send_durable(session, out, consult, wire.Progress("closed", now_ms), now_ms)
    out.cases.add(consult.id)


def close_after_call(session: Session, out: Outgoing, call: Call, now_ms: int) -> None:
    """They talked and there is no case to answer: the consult is over on both sides."""
    consult = session.get_one(Consult, call.consult_id)
    if call.outcome == "answered" and not consult.closed_at and not has_case(session, consult):
        consult.closed_at = now_ms
        record(session, consult.id, "closed", now_ms, "hub", call.id)
    out.cases.add(consult.id)


def reopen(session: Session, out: Outgoing, consult: Consult, now_ms: int) -> None:
    """The clinic has more to say in a consult that was closed."""
    if consult.closed_at:
        consult.closed_at = 0
        record(session, consult.id, "reopened", now_ms, consult.kiosk_id)
    out.cases.add(consult.id)


@dataclass(frozen=True)
class VoiceReply:
    data: bytes
    mime: str
    duration_ms: int = 0


def give_advice(
    session: Session,
    out: Outgoing,
    files: FileStore,
    consult: Consult,
    doctor: Doctor,
    text: str,
    voice: VoiceReply | None,
    now_ms: int,
    advice_id: bytes = b"",
) -> str:
    """Keep the advice and send it down; returns its id. A page that heard no answer sends it again with the id that
    it gave it the first time, and it stays one."""
    advice_id = advice_id or wire.new_message_id()
    given = session.get(AdviceGiven, advice_id.hex())
    if given is not None:
        if given.consult_id != consult.id:
            raise ForeignConsult(given.id)
        return given.id
    digest = ""
    if voice is not None:
        digest = files.put(consult.kiosk_id, voice.data)
        whole = [[0, len(voice.data)]]
        session.merge(
            Content(
                kiosk_id=consult.kiosk_id,
                digest=digest,
                size=len(voice.data),
                mime=voice.mime,
                ranges=whole,
                complete=True,
            )
        )
        file = CaseFile(
            consult_id=consult.id,
            digest=digest,
            role="reply",
            captured_at=now_ms,
            captured_by=doctor.name,
            duration_ms=voice.duration_ms,
        )
        session.merge(file)
        session.flush()
    body = wire.Advice(advice_id, doctor.name, now_ms, text, bytes.fromhex(digest))
    downlink_id = downlink.send_durable(session, out, consult, body, now_ms)
    session.add(
        AdviceGiven(
            id=advice_id.hex(),
            consult_id=consult.id,
            doctor_id=doctor.id,
            given_by=doctor.name,
            given_at=now_ms,
            text=text,
            reply=digest,
            downlink_id=downlink_id,
        )
    )
    if voice is not None:
        downlink.send_manifest(session, out, consult, session.get_one(CaseFile, (consult.id, digest)), now_ms)
    if not consult.seen_at:
        consult.seen_at = now_ms
    record(session, consult.id, "advice", now_ms, doctor.name)
    out.cases.add(consult.id)
    return advice_id.hex()


def advice_heard(session: Session, out: Outgoing, consult: Consult, advice: str, shown_ms: int, now_ms: int) -> None:
    row = session.get(AdviceGiven, advice)
    if row is None or row.consult_id != consult.id:
        return
    row.heard_at = row.heard_at or shown_ms
    row.delivered_at = row.delivered_at or now_ms
    record(session, consult.id, "advice_heard", now_ms, consult.kiosk_id)
    out.cases.add(consult.id)
