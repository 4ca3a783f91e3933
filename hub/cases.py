"""Consults as records: whose they are, what was noted, opened, answered and closed.

Every function works in the caller's transaction and says in `out` what must follow its commit.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from edge_agent.core import wire
from hub import audit, downlink
from hub.files import FileStore
from hub.outgoing import Outgoing
from hub.records import AdviceGiven, Call, CaseFile, Consult, Content, Doctor, Event, Kiosk

DAY_MS = 86_400_000


class ForeignConsult(ValueError):
    """A kiosk named a consult of another kiosk."""


@dataclass(frozen=True)
class KioskClock:
    """What a kiosk's times are worth: right where its clock is trusted and agrees with ours to a day; where not, they
    tell how long ago it was, as far as they are by the clock that the message was sent by."""

    sent_at_ms: int
    now_ms: int
    stamp: wire.Stamp | None

    def shown(self, kiosk_ms: int) -> int:
        """The time by our clock, and now where nobody can know. A case may be days old when it arrives."""
        if self.stamp is None or kiosk_ms <= 0:
            return self.now_ms
        if self.stamp.clock_trusted:
            set_right = abs(self.sent_at_ms - self.now_ms) <= DAY_MS
            near = abs(kiosk_ms - self.now_ms) <= DAY_MS
            return kiosk_ms if near or (set_right and kiosk_ms <= self.now_ms) else self.now_ms
        if self.stamp.same_boot and kiosk_ms <= self.sent_at_ms:
            return self.now_ms - (self.sent_at_ms - kiosk_ms)
        return self.now_ms


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
        row = begin(session, kiosk, consult, now_ms)
        session.flush()
    if row.kiosk_id != kiosk:
        raise ForeignConsult(consult)
    return row


def begin(session: Session, kiosk: str, consult: str, now_ms: int) -> Consult:
    """A new one; flushed by the caller."""
    known_kiosk(session, kiosk, now_ms)
    row = Consult(id=consult, kiosk_id=kiosk, arrived_at=now_ms, opened_at=now_ms)
    session.add(row)
    return row


def record(
    session: Session, consult: str, kind: str, at_ms: int, by: Doctor | str | None, *about: str, call: str = ""
) -> None:
    """Into the consult's history, and in ids into the audit log. `by` is an account, somebody at the kiosk by the name
    that it gives, or None for the hub itself."""
    if isinstance(by, Doctor):
        name, who = by.name, audit.account(by)
    elif by is None:
        name, who = "hub", "hub"
    else:
        name, who = by, f"kiosk:{session.get_one(Consult, consult).kiosk_id}"
    session.add(Event(consult_id=consult, kind=kind, at=at_ms, by=name, call_id=call))
    audit.append(session, at_ms, who, kind, f"consult:{consult}", f"call:{call}" if call else "", *about)


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
    record(session, consult.id, "seen", now_ms, doctor)
    downlink.send_durable(session, out, consult, wire.Progress("seen", now_ms), now_ms)
    out.cases.add(consult.id)


def view(session: Session, consult_id: str, account_id: int, now_ms: int) -> None:
    """An account reads the case; every time."""
    audit.append(session, now_ms, audit.account(account_id), "case_viewed", f"consult:{consult_id}")


def close(session: Session, out: Outgoing, consult: Consult, doctor: Doctor, now_ms: int) -> None:
    if consult.closed_at:
        return
    consult.closed_at = now_ms
    record(session, consult.id, "closed", now_ms, doctor)
    downlink.send_durable(session, out, consult, wire.Progress("closed", now_ms), now_ms)
    out.cases.add(consult.id)


def close_after_call(session: Session, out: Outgoing, call: Call, now_ms: int) -> None:
    """They talked and there is no case to answer: the consult is over on both sides."""
    consult = session.get_one(Consult, call.consult_id)
    if call.outcome == "answered" and not consult.closed_at and not has_case(session, consult):
        consult.closed_at = now_ms
        record(session, consult.id, "closed", now_ms, None, call=call.id)
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
        if session.get(CaseFile, (consult.id, digest)) is None:
            file = CaseFile(
                consult_id=consult.id,
                digest=digest,
                role="reply",
                captured_at=now_ms,
                captured_by=doctor.name,
                duration_ms=voice.duration_ms,
            )
            file.take_key(wire.new_file_key())
            session.add(file)
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
    record(session, consult.id, "advice", now_ms, doctor, f"advice:{advice_id.hex()}")
    out.cases.add(consult.id)
    return advice_id.hex()


def ask_original(session: Session, out: Outgoing, consult: Consult, digest: str, doctor: Doctor, now_ms: int) -> bool:
    """Ask the kiosk for a photo's original, once; False where it has none that could be asked for."""
    photo = session.get(CaseFile, (consult.id, digest))
    if photo is None or not photo.original_bytes or photo.original_gone_at:
        return False
    if not photo.original_asked_at:
        photo.original_asked_at = now_ms
        record(session, consult.id, "original_asked", now_ms, doctor, f"file:{digest}")
        downlink.send_durable(session, out, consult, wire.FileWanted(bytes.fromhex(digest)), now_ms)
        out.cases.add(consult.id)
    return True


def original_gone(session: Session, out: Outgoing, consult: Consult, digest: str, now_ms: int) -> None:
    photo = session.get(CaseFile, (consult.id, digest))
    if photo is not None:
        photo.original_gone_at = photo.original_gone_at or now_ms
        out.cases.add(consult.id)


def advice_heard(session: Session, out: Outgoing, consult: Consult, advice: str, shown_ms: int, now_ms: int) -> None:
    row = session.get(AdviceGiven, advice)
    if row is None or row.consult_id != consult.id:
        return
    row.heard_at = row.heard_at or shown_ms
    row.delivered_at = row.delivered_at or now_ms
    record(session, consult.id, "advice_heard", now_ms, consult.kiosk_id, f"advice:{advice}")
    out.cases.add(consult.id)


def spent(session: Session, kiosk: str, body: wire.Spent, now_ms: int) -> None:
    """By a metered kiosk's own count; consults of others are passed over."""
    told = msgspec.structs.asdict(body)
    del told["consults"]
    known_kiosk(session, kiosk, now_ms).spent = told | {"at_ms": now_ms}
    for id, link_bytes, cost in body.consults:
        consult = session.get(Consult, id.hex())
        if consult is not None and consult.kiosk_id == kiosk:
            consult.link_bytes, consult.link_cost, consult.link_currency = link_bytes, cost, body.currency
