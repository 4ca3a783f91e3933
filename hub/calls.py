"""Calls: claimed by the first doctor, connected, answered, ended; always in the database before anybody hears of it.

A phase changes by one conditional UPDATE, so two doctors, two hub processes, or a doctor and a kiosk cannot both
be first. Each change leaves a `CallState` for the kiosk and a word for the doctor's console in `out`; a hub that is
killed and started again finds all of it where it was.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any, Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from edge_agent.core import wire
from hub import cases
from hub.config import IceSection
from hub.outgoing import Outgoing
from hub.records import Call, Consult, Doctor, Kiosk
from hub.waiting import EndCall, RingEveryone, WaitingCall

LIVE = ("ringing", "claimed", "answered", "calling_kiosk")
HELD = ("claimed", "answered")  # media is connected or about to be
RefusalCode = Literal["taken", "gone", "offline", "busy", "not_yours", "bad_request"]


class RequestRefused(Exception):
    """What a console asked for can't be done; `str()` is for the doctor to read."""

    def __init__(self, code: RefusalCode, text: str) -> None:
        super().__init__(text)
        self.code: RefusalCode = code


class Calls:
    def __init__(self, ice: IceSection) -> None:
        self._ice = ice

    # --- from the kiosk

    def requested(
        self, session: Session, out: Outgoing, consult: Consult, body: wire.CallRequested, shown_ms: int, now_ms: int
    ) -> None:
        """The press, or the press held on."""
        call_id = body.call.hex()
        call = session.get(Call, call_id)
        if call is None:
            for other in session.scalars(
                select(Call).where(Call.kiosk_id == consult.kiosk_id, Call.phase.in_(LIVE), Call.id != call_id)
            ):  # one button, one call: what was there before is over
                self._end(session, out, other, "cancelled", now_ms, None)
            call = self._new_call(session, consult, call_id, "ringing", now_ms)
            cases.record(session, consult.id, "call_requested", now_ms, consult.kiosk_id, call=call_id)
            cases.reopen(session, out, consult, now_ms)
        elif call.consult_id != consult.id:
            raise cases.ForeignConsult(call_id)
        call.kiosk_requested_at = body.requested_at_ms
        if call.phase == "ended" and not call.claimed_at:  # its end overtook it
            call.requested_at = shown_ms
        if body.emergency and not call.emergency:
            call.emergency, call.emergency_at = True, now_ms
            cases.record(session, consult.id, "emergency", now_ms, consult.kiosk_id, call=call_id)
        self.tell_kiosk(session, out, call, now_ms)
        out.room = True

    def ended_by_kiosk(
        self, session: Session, out: Outgoing, consult: Consult, body: wire.CallEnded, now_ms: int
    ) -> None:
        """The kiosk's side of the end is kept whoever was first; the first decides the outcome."""
        call_id = body.call.hex()
        call = session.get(Call, call_id)
        if call is None:  # overtook the request
            call = self._new_call(session, consult, call_id, "ringing", now_ms)
        elif call.consult_id != consult.id:
            raise cases.ForeignConsult(call_id)
        call.kiosk_outcome = body.outcome
        call.kiosk_answered_at, call.kiosk_ended_at = body.answered_at_ms, body.ended_at_ms
        session.flush()
        self._end(session, out, call, body.outcome, now_ms, consult.kiosk_id)

    def accepted(self, session: Session, out: Outgoing, kiosk: str, call_id: str, now_ms: int) -> None:
        """The patient takes the doctor's call: the doctor speaks as soon as media connects."""
        call = self._of_kiosk(session, kiosk, call_id)
        if call is None:
            return
        if self._move(session, call, ("calling_kiosk",), phase="answered", claimed_at=now_ms, answered_at=now_ms):
            cases.record(session, call.consult_id, "answered", now_ms, kiosk, call=call.id)
            out.calls.add(call.id)
            out.room = True
        self.tell_kiosk(session, out, call, now_ms)

    def offered(self, session: Session, out: Outgoing, kiosk: str, body: wire.Offer, now_ms: int) -> None:
        """Kept until the browser answers; an answer that was lost on the way is sent again, not asked for again. The
        same leg's with more candidates is a new one here: the browser adds them, and says its answer again."""
        call = self._of_kiosk(session, kiosk, body.call.hex())
        if call is None:
            return
        if call.phase in HELD and body.leg >= call.offer_leg:
            if body.leg == call.answer_leg and body.sdp == call.offer_sdp:
                answer = wire.Answer(body.call, call.answer_leg, call.answer_sdp)
                out.to_kiosk(kiosk, self._message(call, answer, now_ms))
            else:
                call.offer_leg, call.offer_sdp = body.leg, body.sdp
                call.answer_leg, call.answer_sdp = 0, b""
                out.offers.add(call.id)
        self.tell_kiosk(session, out, call, now_ms)

    def media_changed(self, session: Session, out: Outgoing, kiosk: str, body: wire.MediaState) -> None:
        call = self._of_kiosk(session, kiosk, body.call.hex())
        if call is None or call.phase not in HELD or body.leg < call.media_leg:
            return
        call.media_leg, call.media_state = body.leg, body.state
        if body.state == "connected":
            call.leg_wanted = 0
        out.media.add(call.id)
        out.room = True

    def kiosk_is_online(self, session: Session, out: Outgoing, kiosk: str, now_ms: int) -> None:
        """It may have restarted, or missed what was said: tell it where its call stands."""
        for call in live_calls_of_kiosk(session, kiosk):
            self.tell_kiosk(session, out, call, now_ms)
            out.calls.add(call.id)

    # --- from the console; each raises RequestRefused

    def claim(self, session: Session, out: Outgoing, doctor: Doctor, console: str, call_id: str, now_ms: int) -> Call:
        call = session.get(Call, call_id)
        if call is None:
            raise RequestRefused("gone", "This call is over.")
        self._refuse_second(session, doctor, call_id)
        first = self._move(
            session, call, ("ringing",), phase="claimed", doctor_id=doctor.id, console_id=console, claimed_at=now_ms
        )
        if not first:
            if call.phase == "ended":
                raise RequestRefused("gone", "This call is over.")
            if call.doctor_id != doctor.id:
                raise RequestRefused("taken", "Somebody else was first.")
            call.console_id = console  # claimed twice, as after a lost frame: it is theirs
        else:
            cases.record(session, call.consult_id, "claimed", now_ms, doctor, call=call.id)
        self._changed(session, out, call, now_ms)
        return call

    def talk(self, session: Session, out: Outgoing, doctor: Doctor, call_id: str, now_ms: int) -> Call:
        call = self.of_doctor(session, doctor, call_id)
        if self._move(session, call, ("claimed",), phase="answered", answered_at=now_ms):
            cases.record(session, call.consult_id, "answered", now_ms, doctor, call=call.id)
        elif call.phase == "ended":
            raise RequestRefused("gone", "This call is over.")
        self._changed(session, out, call, now_ms)
        return call

    def release(self, session: Session, out: Outgoing, doctor: Doctor, call_id: str, now_ms: int) -> Call:
        call = self.of_doctor(session, doctor, call_id)
        freed = self._move(
            session, call, ("claimed",),
            phase="ringing", doctor_id=None, console_id="", claimed_at=0, offer_leg=0, offer_sdp=b"",
            answer_leg=0, answer_sdp=b"", media_leg=0, media_state="", leg_wanted=0,
        )  # fmt: skip
        if not freed:
            raise RequestRefused("gone", "Only a call that waits for you to talk can go back to the waiting room.")
        cases.record(session, call.consult_id, "released", now_ms, doctor, call=call.id)
        self._changed(session, out, call, now_ms)
        return call

    def decline(self, session: Session, out: Outgoing, doctor: Doctor, call_id: str, now_ms: int) -> Call:
        call = session.get(Call, call_id)
        if call is None or call.phase == "ended":
            raise RequestRefused("gone", "This call is over.")
        if call.phase != "ringing" and call.doctor_id != doctor.id:
            raise RequestRefused("taken", "Somebody else has taken this call.")
        if call.phase not in ("ringing", "claimed"):
            raise RequestRefused("bad_request", "You are talking already: hang up instead.")
        self._end(session, out, call, "declined", now_ms, doctor)
        return call

    def hang_up(self, session: Session, out: Outgoing, doctor: Doctor, call_id: str, now_ms: int) -> Call:
        call = self.of_doctor(session, doctor, call_id)
        outcome = {"answered": "answered", "claimed": "declined", "calling_kiosk": "cancelled"}.get(call.phase)
        if outcome is not None:
            self._end(session, out, call, outcome, now_ms, doctor)
        return call

    def ring_kiosk(
        self, session: Session, out: Outgoing, doctor: Doctor, console: str, consult_id: str, now_ms: int
    ) -> Call:
        consult = session.get(Consult, consult_id)
        if consult is None:
            raise RequestRefused("gone", "There is no such case.")
        self._refuse_second(session, doctor, "")
        kiosk = session.get_one(Kiosk, consult.kiosk_id)
        if not kiosk.online:
            raise RequestRefused(
                "offline", "The clinic's kiosk can't be reached just now. Your advice will wait for it."
            )
        if session.scalar(select(Call.id).where(Call.kiosk_id == kiosk.id, Call.phase.in_(LIVE)).limit(1)):
            raise RequestRefused("busy", "The kiosk is in a call.")
        call = self._new_call(session, consult, wire.new_message_id().hex(), "calling_kiosk", now_ms)
        call.by_doctor, call.doctor_id, call.console_id = True, doctor.id, console
        cases.record(session, consult.id, "doctor_rings", now_ms, doctor, call=call.id)
        cases.reopen(session, out, consult, now_ms)
        self._changed(session, out, call, now_ms)
        return call

    def answered_media(
        self, session: Session, out: Outgoing, doctor: Doctor, console: str, call_id: str, leg: int, sdp: bytes,
        now_ms: int,
    ) -> Call:  # fmt: skip
        call = self.of_doctor(session, doctor, call_id)
        if call.phase not in HELD:
            raise RequestRefused("gone", "This call is over.")
        # An older leg's answer is of no use, and no error; the same leg's again has more candidates.
        if leg == call.offer_leg and (not call.answer_leg or sdp != call.answer_sdp):
            call.answer_leg, call.answer_sdp, call.console_id = leg, sdp, console
            out.to_kiosk(call.kiosk_id, self._message(call, wire.Answer(bytes.fromhex(call.id), leg, sdp), now_ms))
        return call

    def want_new_leg(
        self, session: Session, out: Outgoing, doctor: Doctor, console: str, call_id: str, leg: int, now_ms: int
    ) -> Call:
        call = self.of_doctor(session, doctor, call_id)
        if call.phase not in HELD:
            raise RequestRefused("gone", "This call is over.")
        call.console_id = console
        call.leg_wanted = max(leg, call.offer_leg, 1)
        if leg < call.offer_leg and not call.answer_leg:
            out.offers.add(call.id)  # the kiosk's latest, which this page has not seen
        else:
            wanted = wire.NewLegWanted(bytes.fromhex(call.id), max(leg, call.offer_leg))
            out.to_kiosk(call.kiosk_id, self._message(call, wanted, now_ms))
        out.room = True
        return call

    # --- from the clock

    def apply(self, session: Session, out: Outgoing, effect: EndCall | RingEveryone, now_ms: int) -> None:
        call = session.get(Call, effect.call)
        if call is None or call.phase == "ended":
            return
        if isinstance(effect, EndCall):
            self._end(session, out, call, effect.outcome, now_ms, None)
        elif self._move(session, call, ("ringing",), everyone=True):
            cases.record(session, call.consult_id, "everyone_rung", now_ms, None, call=call.id)
            self._changed(session, out, call, now_ms)

    # --- inside

    def tell_kiosk(self, session: Session, out: Outgoing, call: Call, now_ms: int) -> None:
        doctor = session.get(Doctor, call.doctor_id) if call.doctor_id is not None else None
        state = wire.CallState(
            call=bytes.fromhex(call.id),
            phase=call.phase,  # type: ignore[arg-type]
            doctor=doctor.name if doctor else "",
            outcome=call.outcome or None,  # type: ignore[arg-type]
            ice_servers=() if call.phase in ("ended", "ringing") else ice_servers(self._ice, call.id, now_ms),
            everyone=call.everyone,
        )
        out.to_kiosk(call.kiosk_id, self._message(call, state, now_ms))

    def _message(self, call: Call, body: wire.Body, now_ms: int) -> wire.Message:
        return wire.Message(body, bytes.fromhex(call.consult_id), sent_at_ms=now_ms)

    def _changed(self, session: Session, out: Outgoing, call: Call, now_ms: int) -> None:
        self.tell_kiosk(session, out, call, now_ms)
        out.calls.add(call.id)
        out.cases.add(call.consult_id)
        out.room = True

    def _end(
        self, session: Session, out: Outgoing, call: Call, outcome: str, now_ms: int, by: Doctor | str | None
    ) -> None:
        if self._move(session, call, LIVE, phase="ended", ended_at=now_ms, outcome=outcome):
            cases.record(session, call.consult_id, f"ended_{outcome}", now_ms, by, call=call.id)
            cases.close_after_call(session, out, call, now_ms)
        self._changed(session, out, call, now_ms)

    def _move(self, session: Session, call: Call, phases: tuple[str, ...], **values: Any) -> bool:
        """Whether the call was in one of `phases` and is now as `values` say: the one place where first wins."""
        session.flush()
        moved = session.execute(update(Call).where(Call.id == call.id, Call.phase.in_(phases)).values(**values))
        session.refresh(call)
        return bool(moved.rowcount)

    def _new_call(self, session: Session, consult: Consult, call_id: str, phase: str, now_ms: int) -> Call:
        call = Call(
            id=call_id, consult_id=consult.id, kiosk_id=consult.kiosk_id, phase=phase, requested_at=now_ms
        )  # fmt: skip
        session.add(call)
        session.flush()
        return call

    def _of_kiosk(self, session: Session, kiosk: str, call_id: str) -> Call | None:
        """None where there is no such call (yet); raises ForeignConsult where it is another kiosk's."""
        call = session.get(Call, call_id)
        if call is not None and call.kiosk_id != kiosk:
            raise cases.ForeignConsult(call_id)
        return call

    def of_doctor(self, session: Session, doctor: Doctor, call_id: str) -> Call:
        call = session.get(Call, call_id)
        if call is None:
            raise RequestRefused("gone", "This call is over.")
        if call.doctor_id != doctor.id:
            raise RequestRefused("not_yours", "This call is not yours.")
        return call

    def _refuse_second(self, session: Session, doctor: Doctor, call_id: str) -> None:
        own = select(Call.id).where(Call.doctor_id == doctor.id, Call.phase.in_(LIVE), Call.id != call_id)
        if session.scalar(own.limit(1)):
            raise RequestRefused("busy", "You are in a call already. End it first.")


def live_call_of(session: Session, doctor_id: int) -> Call | None:
    return session.scalar(select(Call).where(Call.doctor_id == doctor_id, Call.phase.in_(LIVE)).limit(1))


def live_calls_of_kiosk(session: Session, kiosk: str) -> list[Call]:
    return list(session.scalars(select(Call).where(Call.kiosk_id == kiosk, Call.phase.in_(LIVE))))


def waiting_calls(session: Session) -> list[WaitingCall]:
    """The live calls as the waiting room sees them."""
    rows = session.execute(select(Call, Kiosk).join(Kiosk, Kiosk.id == Call.kiosk_id).where(Call.phase.in_(LIVE)))
    return [
        WaitingCall(
            id=call.id,
            kiosk=kiosk.id,
            phase=call.phase,  # type: ignore[arg-type]
            requested_at_ms=call.requested_at,
            emergency_at_ms=call.emergency_at,
            everyone=call.everyone,
            doctor=call.doctor_id,
            kiosk_online=kiosk.online,
            kiosk_gone_since_ms=kiosk.gone_since,
            media_lost=bool(call.leg_wanted) or call.media_state in ("stalled", "lost", "turns"),
        )
        for call, kiosk in rows.tuples()
    ]


def ice_servers(ice: IceSection, call_id: str, now_ms: int, ttl_s: float | None = None) -> tuple[wire.IceServer, ...]:
    """For one call; TURN credentials as coturn's `use-auth-secret` checks them. `ttl_s` in place of the settings'."""
    servers = []
    if ice.stun_urls:
        servers.append(wire.IceServer(ice.stun_urls))
    if ice.turn_urls:
        username = f"{int(now_ms / 1000 + (ttl_s or ice.turn_ttl_s))}:{call_id}"
        digest = hmac.new(ice.turn_secret.encode(), username.encode(), hashlib.sha1).digest()
        servers.append(wire.IceServer(ice.turn_urls, username, base64.b64encode(digest).decode()))
    return tuple(servers)
