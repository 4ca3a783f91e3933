"""What is said in turns: kept as it comes, passed on, and, where nobody heard it, made a message of the case.

A turn is kept until it was heard or has become a voice note: like what is said live, what was heard is not recorded.
Every function works in the caller's transaction; what the doctor's page is shown is read anew (`frames`).
"""

from __future__ import annotations

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from edge_agent.core import wire
from hub import cases, console, downlink, oggopus
from hub.calls import Calls, live_calls_of_kiosk
from hub.files import FileStore
from hub.outgoing import Outgoing
from hub.records import Call, CaseFile, Consult, Content, Doctor, Downlink, Turn, TurnPiece

HALF_MS = 60_000  # nothing new of a turn came for so long: it stays as it is
PATIENT = "patient"


# --- said and heard


def from_kiosk(session: Session, out: Outgoing, consult: Consult, body: wire.TurnPart, now_ms: int) -> None:
    _call_of(session, consult, body.call.hex())
    _keep(session, consult, body, by_doctor=False, now_ms=now_ms)
    out.turns.add(body.call.hex())


def heard_by_kiosk(session: Session, out: Outgoing, consult: Consult, body: wire.TurnHeard, now_ms: int) -> None:
    turn = session.get(Turn, body.turn.hex())
    if turn is not None and turn.consult_id == consult.id and turn.by_doctor:
        turn.heard_at = turn.heard_at or now_ms
        out.turns.add(turn.call_id)


def from_doctor(
    session: Session, out: Outgoing, calls: Calls, doctor: Doctor, said: console.SayTurn, now_ms: int
) -> None:
    """Raises RequestRefused. Also after the end: what was said before it may have been kept back."""
    call = calls.of_doctor(session, doctor, said.call)
    consult = session.get_one(Consult, call.consult_id)
    body = wire.TurnPart(bytes.fromhex(call.id), bytes.fromhex(said.turn), said.part, said.packets, said.last)
    piece = _keep(session, consult, body, by_doctor=True, now_ms=now_ms)
    if piece is not None and call.phase != "ended":
        piece.downlink_id = downlink.send_durable(session, out, consult, body, now_ms)
    out.turns.add(call.id)


def heard_by_doctor(
    session: Session, out: Outgoing, calls: Calls, doctor: Doctor, heard: console.TurnWasHeard, now_ms: int
) -> None:
    """Raises RequestRefused."""
    call = calls.of_doctor(session, doctor, heard.call)
    turn = session.get(Turn, heard.turn)
    if turn is None or turn.call_id != call.id or turn.by_doctor or turn.heard_at or turn.settled_at:
        return
    turn.heard_at = now_ms
    body = wire.TurnHeard(bytes.fromhex(call.id), bytes.fromhex(turn.id))
    downlink.send_durable(session, out, session.get_one(Consult, call.consult_id), body, now_ms)


def kiosk_came(session: Session, out: Outgoing, kiosk: str, now_ms: int) -> None:
    """Anew: what it had, and had not yet played, it may have lost. What it never confirmed is sent again anyway."""
    for call in live_calls_of_kiosk(session, kiosk):
        had = (
            select(Downlink)
            .join(TurnPiece, TurnPiece.downlink_id == Downlink.id)
            .join(Turn, Turn.id == TurnPiece.turn_id)
            .where(Turn.call_id == call.id, Turn.by_doctor, Turn.heard_at == 0, Downlink.receipted_at > 0)
            .order_by(Downlink.seq)
        )
        for row in session.scalars(had):
            out.to_kiosk(kiosk, wire.decode(row.payload))


def receipted(session: Session, out: Outgoing, downlink_id: str) -> None:
    """The kiosk has a message of ours; it may be a part of a turn."""
    call = session.scalar(
        select(Turn.call_id).join(TurnPiece, TurnPiece.turn_id == Turn.id).where(TurnPiece.downlink_id == downlink_id)
    )
    if call is not None:
        out.turns.add(call)


# --- the doctor's page


def frames(session: Session, call_id: str) -> list[console.TurnSound | console.TurnMark]:
    """What the patient said and nobody has heard, and how far the doctor's own words have come."""
    shown: list[console.TurnSound | console.TurnMark] = []
    turns = select(Turn).where(Turn.call_id == call_id, Turn.settled_at == 0).order_by(Turn.began_at, Turn.id)
    for turn in session.scalars(turns):
        pieces = _pieces(session, turn)
        if turn.by_doctor:
            shown.append(_mark(session, turn, pieces))
        elif not turn.heard_at:
            shown += [
                console.TurnSound(
                    call=call_id, turn=turn.id, part=piece.part, packets=_packets(piece), last=piece.part == turn.end
                )
                for piece in pieces
            ]
    return shown


def _mark(session: Session, turn: Turn, pieces: list[TurnPiece]) -> console.TurnMark:
    here = {piece.part for piece in pieces}
    kept = next(number for number in range(len(here) + 1) if number not in here)
    on_its_way = session.scalar(
        select(Downlink.id)
        .where(Downlink.id.in_([piece.downlink_id for piece in pieces]), Downlink.receipted_at == 0)
        .limit(1)
    )
    delivered = kept == turn.end + 1 and turn.end >= 0 and on_its_way is None
    return console.TurnMark(call=turn.call_id, turn=turn.id, kept=kept, delivered=delivered, heard=turn.heard_at > 0)


# --- what nobody heard


def settle(session: Session, out: Outgoing, files: FileStore, now_ms: int) -> None:
    """From time to time: of calls that are over, each turn that no more will come of."""
    over = (
        select(Turn, Call)
        .join(Call, Call.id == Turn.call_id)
        .where(Turn.settled_at == 0, Call.phase == "ended")
        .order_by(Turn.began_at, Turn.id)
    )
    for turn, call in session.execute(over).tuples():
        pieces = _pieces(session, turn)
        is_whole = turn.end >= 0 and len(pieces) == turn.end + 1
        if not is_whole and now_ms - turn.changed_at < HALF_MS:
            continue
        packets = [packet for piece in pieces for packet in _packets(piece)]
        if packets and not turn.heard_at:
            _make_message(session, out, files, turn, call, packets, now_ms)
        turn.settled_at = now_ms
        session.execute(delete(TurnPiece).where(TurnPiece.turn_id == turn.id))


def _make_message(
    session: Session, out: Outgoing, files: FileStore, turn: Turn, call: Call, packets: list[bytes], now_ms: int
) -> None:
    consult = session.get_one(Consult, turn.consult_id)
    data, duration_ms = oggopus.wrap(packets)
    if turn.by_doctor:
        if call.doctor_id is not None:
            voice = cases.VoiceReply(data, oggopus.MIME, duration_ms)
            doctor = session.get_one(Doctor, call.doctor_id)
            cases.give_advice(session, out, files, consult, doctor, "", voice, now_ms, bytes.fromhex(turn.id))
        return
    digest = files.put(consult.kiosk_id, data)
    session.merge(
        Content(
            kiosk_id=consult.kiosk_id, digest=digest, size=len(data), mime=oggopus.MIME, ranges=[[0, len(data)]],
            complete=True,
        )
    )  # fmt: skip
    if session.get(CaseFile, (consult.id, digest)) is None:
        file = CaseFile(
            consult_id=consult.id, digest=digest, role="voice", captured_at=turn.began_at, captured_by=PATIENT,
            duration_ms=duration_ms,
        )  # fmt: skip
        file.take_key(wire.new_file_key())
        session.add(file)
    if not consult.saved_at:  # the kiosk may add a case of its own
        consult.saved_at, consult.saved_files = now_ms, [digest]
    cases.record(session, consult.id, "turn_kept", now_ms, None, call=call.id)
    cases.reopen(session, out, consult, now_ms)


# --- inside


def _call_of(session: Session, consult: Consult, call_id: str) -> None:
    """Raises ForeignConsult, and MalformedMessage where there is no such call: what asks for one comes before."""
    call = session.get(Call, call_id)
    if call is None:
        raise wire.MalformedMessage("a turn of no call")
    if call.consult_id != consult.id:
        raise cases.ForeignConsult(call_id)


def _keep(session: Session, consult: Consult, body: wire.TurnPart, *, by_doctor: bool, now_ms: int) -> TurnPiece | None:
    """None where it is known."""
    turn = session.get(Turn, body.turn.hex())
    if turn is None:
        turn = Turn(
            id=body.turn.hex(), call_id=body.call.hex(), consult_id=consult.id, by_doctor=by_doctor, began_at=now_ms,
            changed_at=now_ms,
        )  # fmt: skip
        session.add(turn)
        session.flush()
    mine = (turn.call_id, turn.by_doctor) == (body.call.hex(), by_doctor)
    beyond = turn.end >= 0 and body.part > turn.end
    if not mine or beyond or turn.settled_at or session.get(TurnPiece, (turn.id, body.part)) is not None:
        return None
    piece = TurnPiece(turn_id=turn.id, part=body.part, packets=msgspec.msgpack.encode(body.packets))
    session.add(piece)
    turn.changed_at = now_ms
    if body.last:
        turn.end = body.part
    session.flush()
    return piece


def _pieces(session: Session, turn: Turn) -> list[TurnPiece]:
    return list(session.scalars(select(TurnPiece).where(TurnPiece.turn_id == turn.id).order_by(TurnPiece.part)))


def _packets(piece: TurnPiece) -> tuple[bytes, ...]:
    return msgspec.msgpack.decode(piece.packets, type=tuple[bytes, ...])
