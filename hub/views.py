"""What consoles are shown, read from the database in one go: waiting room, inbox, a case, a call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from hub import console, waiting
from hub.calls import LIVE, ice_servers, waiting_calls
from hub.config import IceSection
from hub.files import ranges_of
from hub.records import AdviceGiven, Call, CaseFile, Console, Consult, Content, Doctor, Kiosk
from hub.roles import Permission, may

INBOX_CASES = 500
PAGE_CASES = 50
_URGENCIES = ("emergency", "urgent", "soon", "routine")


@dataclass(frozen=True)
class Room:
    """The waiting room as everybody sees it, and what the clock and the kiosks need of it."""

    calls: list[waiting.WaitingCall]
    doctors: list[waiting.WaitingDoctor]
    kiosks_online: frozenset[str]
    cards: dict[str, console.RingCard]  # by call, `rings_me` not yet set
    doctor_cards: tuple[console.DoctorCard, ...]

    def for_doctor(self, doctor_id: int) -> console.Room:
        me = next((doctor for doctor in self.doctors if doctor.id == doctor_id), None)
        busy = waiting.in_call(self.calls)
        held = [call for call in self.calls if call.phase in ("claimed", "answered")]
        queue = [
            msgspec.structs.replace(self.cards[call.id], rings_me=me is not None and waiting.rings(call, me, busy))
            for call in [*waiting.in_order(self.calls), *sorted(held, key=lambda call: call.requested_at_ms)]
        ]
        return console.Room(queue=tuple(queue), doctors=self.doctor_cards)


def waiting_doctors(session: Session) -> list[waiting.WaitingDoctor]:
    open_consoles = set(session.scalars(select(Console.doctor_id)))
    return [
        waiting.WaitingDoctor(
            id=doctor.id,
            available=doctor.available and not doctor.disabled and may(doctor.role, Permission.TAKE_CALLS),
            connected=doctor.id in open_consoles,
            gone_since_ms=doctor.gone_since,
            until=doctor.until,
            until_at_ms=doctor.until_at,
        )
        for doctor in session.scalars(select(Doctor))
    ]


def room(session: Session) -> Room:
    calls, doctors = waiting_calls(session), waiting_doctors(session)
    names = dict(session.execute(select(Doctor.id, Doctor.name)).tuples().all())
    rows = session.execute(select(Call, Kiosk).join(Kiosk, Kiosk.id == Call.kiosk_id).where(Call.phase.in_(LIVE)))
    cards = {
        call.id: console.RingCard(
            call=call.id,
            consult=call.consult_id,
            kiosk=kiosk.id,
            site=kiosk.site or kiosk.id,
            emergency=call.emergency,
            requested_at=call.requested_at,
            rings_me=False,
            claimed_by=names.get(call.doctor_id, "") if call.doctor_id is not None else "",
            language=kiosk.language,
            warnings=tuple(kiosk.warnings),
        )
        for call, kiosk in rows.tuples()
    }
    busy = waiting.in_call(calls)
    doctor_cards = tuple(
        console.DoctorCard(name=names[doctor.id], available=doctor.available, in_call=doctor.id in busy)
        for doctor in doctors
        if doctor.connected
    )
    online = frozenset(session.scalars(select(Kiosk.id).where(Kiosk.online)))
    return Room(calls, doctors, online, cards, doctor_cards)


def inbox(session: Session) -> console.Inbox:
    """What somebody should still look at, the most pressing first."""
    consults = session.scalars(
        select(Consult).where(Consult.closed_at == 0).order_by(Consult.opened_at.desc()).limit(INBOX_CASES)
    ).all()
    cards = [card for card, belongs in _case_cards(session, consults) if belongs]
    answered = ("answered", "heard")
    cards.sort(key=lambda card: (card.state in answered, _URGENCIES.index(card.urgency), card.opened_at))
    return console.Inbox(cases=tuple(cards))


def closed_cases(session: Session, before_ms: int) -> list[console.CaseCard]:
    """Older ones, the latest first, a page at a time."""
    consults = session.scalars(
        select(Consult)
        .where(Consult.closed_at != 0, Consult.opened_at < before_ms)
        .order_by(Consult.opened_at.desc())
        .limit(PAGE_CASES)
    ).all()
    return [card for card, _ in _case_cards(session, consults)]


def case(session: Session, consult_id: str) -> console.Case | None:
    consult = session.get(Consult, consult_id)
    if consult is None:
        return None
    [(card, _)] = _case_cards(session, [consult])
    files = session.execute(
        select(CaseFile, Content)
        .join(Content, (Content.digest == CaseFile.digest) & (Content.kiosk_id == consult.kiosk_id))
        .where(CaseFile.consult_id == consult.id)
        .order_by(CaseFile.captured_at, CaseFile.digest)
    ).tuples()
    calls = session.execute(
        select(Call, Doctor.name)
        .outerjoin(Doctor, Doctor.id == Call.doctor_id)
        .where(Call.consult_id == consult.id)
        .order_by(Call.requested_at)
    ).tuples()
    advice = session.scalars(
        select(AdviceGiven).where(AdviceGiven.consult_id == consult.id).order_by(AdviceGiven.given_at)
    )
    return console.Case(
        card=card,
        kiosk_online=session.get_one(Kiosk, consult.kiosk_id).online,
        files=_file_cards(list(files)),
        calls=tuple(
            console.CallCard(
                call=call.id,
                requested_at=call.requested_at,
                by_doctor=call.by_doctor,
                doctor=doctor or "",
                emergency=call.emergency,
                answered_at=call.answered_at,
                ended_at=call.ended_at,
                outcome=call.outcome or None,  # type: ignore[arg-type]
            )
            for call, doctor in calls
        ),
        advice=tuple(
            console.AdviceCard(
                advice=row.id,
                given_by=row.given_by,
                given_at=row.given_at,
                text=row.text,
                reply=row.reply,
                delivered_at=row.delivered_at,
                heard_at=row.heard_at,
            )
            for row in advice
        ),
        entered_by=consult.entered_by or consult.opened_by,
        link_bytes=consult.link_bytes,
        link_cost=consult.link_cost,
        link_currency=consult.link_currency,
    )


def _file_cards(files: list[tuple[CaseFile, Content]]) -> tuple[console.FileCard, ...]:
    """One card a photo, with its renditions. Where they came before the photo was announced, it stands there empty."""
    renditions: dict[str, list[tuple[CaseFile, Content]]] = defaultdict(list)
    for file, content in files:
        if file.of:
            renditions[file.of].append((file, content))
    cards = [
        console.FileCard(
            digest=file.digest,
            role=file.role,  # type: ignore[arg-type]
            mime=content.mime,
            size=content.size,
            received=ranges_of(content.ranges).total_bytes,
            complete=content.complete,
            duration_ms=file.duration_ms,
            captured_at=file.captured_at,
            damage=content.damage,  # type: ignore[arg-type]
            renditions=_renditions(renditions.pop(file.digest, [])),
            original_bytes=file.original_bytes,
            original_asked_at=file.original_asked_at,
            original_gone=file.original_gone_at > 0,
        )
        for file, content in files
        if not file.of
    ]
    cards += [
        console.FileCard(
            digest=photo,
            role="photo",
            mime="",
            size=0,
            received=0,
            complete=False,
            duration_ms=0,
            captured_at=its[0][0].captured_at,
            renditions=_renditions(its),
        )
        for photo, its in renditions.items()
    ]
    return tuple(sorted(cards, key=lambda card: (card.captured_at, card.digest)))


def _renditions(files: list[tuple[CaseFile, Content]]) -> tuple[console.Rendition, ...]:
    cards = [
        console.Rendition(
            digest=file.digest,
            name=file.rendition,
            size=content.size,
            received=ranges_of(content.ranges).total_bytes,
            complete=content.complete,
            damage=content.damage,  # type: ignore[arg-type]
        )
        for file, content in files
    ]
    return tuple(sorted(cards, key=lambda card: card.size))


def call_update(session: Session, call: Call) -> console.CallUpdate | None:
    if call.phase == "ringing":
        return None
    return console.CallUpdate(
        call=call.id,
        consult=call.consult_id,
        kiosk=call.kiosk_id,
        phase=call.phase,  # type: ignore[arg-type]
        kiosk_online=session.get_one(Kiosk, call.kiosk_id).online,
        outcome=call.outcome or None,  # type: ignore[arg-type]
        answered_at=call.answered_at,
    )


def kiosk_offer(call: Call, sdp: str, ice: IceSection, now_ms: int) -> console.KioskOffer:
    servers: list[dict[str, object]] = []
    for server in ice_servers(ice, call.id, now_ms):
        entry: dict[str, object] = {"urls": list(server.urls)}
        if server.username:
            entry |= {"username": server.username, "credential": server.credential}
        servers.append(entry)
    return console.KioskOffer(call=call.id, leg=call.offer_leg, sdp=sdp, ice_servers=tuple(servers))


def _case_cards(session: Session, consults: Sequence[Consult]) -> Iterable[tuple[console.CaseCard, bool]]:
    """Each consult's card, and whether it belongs in the inbox: it has a case, or a call that came to nothing."""
    ids = [consult.id for consult in consults]
    sites = dict(session.execute(select(Kiosk.id, Kiosk.site)).tuples().all())
    files: dict[str, list[tuple[CaseFile, Content]]] = defaultdict(list)
    joined = (
        select(CaseFile, Content)
        .join(Consult, Consult.id == CaseFile.consult_id)
        .join(Content, (Content.digest == CaseFile.digest) & (Content.kiosk_id == Consult.kiosk_id))
        .where(CaseFile.consult_id.in_(ids), CaseFile.role != "reply")
    )
    for file, content in session.execute(joined).tuples():
        files[file.consult_id].append((file, content))
    calls: dict[str, list[Call]] = defaultdict(list)
    for call in session.scalars(select(Call).where(Call.consult_id.in_(ids)).order_by(Call.requested_at)):
        calls[call.consult_id].append(call)
    advice: dict[str, list[AdviceGiven]] = defaultdict(list)
    for row in session.scalars(
        select(AdviceGiven).where(AdviceGiven.consult_id.in_(ids)).order_by(AdviceGiven.given_at)
    ):
        advice[row.consult_id].append(row)
    for consult in consults:
        here = {content.digest for _, content in files[consult.id] if content.complete}
        complete = bool(consult.saved_at) and set(consult.saved_files) <= here
        ended = [call for call in calls[consult.id] if call.phase == "ended"]
        has_case = bool(consult.saved_at or consult.note_seq or files[consult.id])
        unfinished = bool(ended) and ended[-1].outcome not in ("answered", "cancelled")
        card = console.CaseCard(
            consult=consult.id,
            kiosk=consult.kiosk_id,
            site=sites[consult.kiosk_id] or consult.kiosk_id,
            opened_at=consult.opened_at,
            urgency=consult.urgency,  # type: ignore[arg-type]
            patient=consult.patient,
            complaints=tuple(consult.complaints),
            text=consult.text,
            state=_state(consult, complete, has_case, advice[consult.id]),  # type: ignore[arg-type]
            photos=len({file.of or file.digest for file, _ in files[consult.id] if file.role == "photo"}),
            voice_ms=sum(file.duration_ms for file, _ in files[consult.id] if file.role == "voice"),
            complete=complete,
            seen=bool(consult.seen_at),
            last_outcome=(ended[-1].outcome or None) if ended else None,  # type: ignore[arg-type]
        )
        yield card, has_case or unfinished or bool(advice[consult.id])


def _state(consult: Consult, complete: bool, has_case: bool, advice: list[AdviceGiven]) -> str:
    if consult.closed_at:
        return "closed"
    if advice:
        return "heard" if advice[-1].heard_at else "answered"
    return "receiving" if has_case and not complete else "open"
