"""One doctor's console over its WebSocket: requests in, one at a time, each answered or refused; frames out."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.websockets import WebSocket, WebSocketDisconnect

from edge_agent.core import sdp
from hub import cases, console, turns
from hub.accounts import SignedIn
from hub.calls import Call, RequestRefused
from hub.database import explain
from hub.outgoing import Outgoing
from hub.records import Consult, Doctor
from hub.roles import Permission
from hub.switchboard import NOT_SIGNED_IN, NotAllowed, OpenConsole, SignedOut, Switchboard

log = logging.getLogger(__name__)

MAX_BAD_REQUESTS = 20  # then it is no console of ours
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_HEX_ID = re.compile(r"[0-9a-f]{16}|[0-9a-f]{32}")
_POLICY_VIOLATION = 1008

NEEDS: dict[type, Permission] = {
    console.SetAvailable: Permission.TAKE_CALLS,
    console.Claim: Permission.TAKE_CALLS,
    console.Release: Permission.TAKE_CALLS,
    console.Decline: Permission.TAKE_CALLS,
    console.Talk: Permission.TAKE_CALLS,
    console.HangUp: Permission.TAKE_CALLS,
    console.RingKiosk: Permission.TAKE_CALLS,
    console.SdpAnswer: Permission.TAKE_CALLS,
    console.WantNewLeg: Permission.TAKE_CALLS,
    console.SayTurn: Permission.TAKE_CALLS,
    console.TurnWasHeard: Permission.TAKE_CALLS,
    console.OpenCase: Permission.SEE_PATIENTS,
    console.LeaveCase: Permission.SEE_PATIENTS,
    console.CloseCase: Permission.GIVE_ADVICE,
    console.AskOriginal: Permission.GIVE_ADVICE,
}


async def serve(socket: WebSocket, switchboard: Switchboard, doctor: SignedIn) -> None:
    """From accept to close, whoever closes."""
    await socket.accept()
    opened = await switchboard.console_opened(secrets.token_hex(8), doctor)
    sender = asyncio.create_task(_send(socket, opened))
    try:
        await _receive(socket, switchboard, opened)
    except (WebSocketDisconnect, RuntimeError):  # Starlette's RuntimeError: sent after the close
        pass
    finally:
        opened.close()
        sender.cancel()
        await asyncio.shield(switchboard.console_closed(opened))


async def _send(socket: WebSocket, opened: OpenConsole) -> None:
    while (frame := await opened.frames.get()) is not None:
        try:
            await socket.send_text(frame)
        except (WebSocketDisconnect, RuntimeError):
            return
    await socket.close(opened.close_code)


async def _receive(socket: WebSocket, switchboard: Switchboard, opened: OpenConsole) -> None:
    bad_requests = 0
    while True:
        frame = await socket.receive()
        if frame["type"] == "websocket.disconnect":
            return
        try:
            request = console.parse(frame.get("text") or frame.get("bytes") or b"")
        except console.BadRequest as error:
            bad_requests += 1
            log.warning("bad request console=%s count=%d: %s", opened.id, bad_requests, error)
            opened.send(console.Refused(request="", code="bad_request", text="The hub did not understand this page."))
            if bad_requests >= MAX_BAD_REQUESTS:
                await socket.close(_POLICY_VIOLATION)
                return
            continue
        await _answer(switchboard, opened, request)


async def _answer(switchboard: Switchboard, opened: OpenConsole, request: console.FromConsole) -> None:
    name = type(request).__struct_config__.tag
    call = getattr(request, "call", "")
    try:
        await _carry_out(switchboard, opened, request)
    except RequestRefused as refusal:
        log.info("refused console=%s request=%s code=%s call=%s", opened.id, name, refusal.code, call)
        opened.send(console.Refused(request=name, code=refusal.code, text=str(refusal), call=call))
    except SignedOut:
        log.info("console closed, signed out console=%s", opened.id)
        opened.close(NOT_SIGNED_IN)
    except NotAllowed:
        log.warning("refused console=%s request=%s, not for this role", opened.id, name)
        opened.send(console.Refused(request=name, code="not_yours", text="This account may not do this.", call=call))
    except (SQLAlchemyError, OSError) as error:
        log.error("request failed console=%s request=%s: %s", opened.id, name, explain(error))
        text = f"Not done: {explain(error)}."
        opened.send(console.Refused(request=name, code="busy", text=text, call=call))


async def _carry_out(switchboard: Switchboard, opened: OpenConsole, request: console.FromConsole) -> None:
    for value in (getattr(request, name, None) for name in ("call", "consult", "turn")):
        if value is not None and not _HEX_ID.fullmatch(value):
            raise RequestRefused("bad_request", "The hub did not understand this page.")
    if isinstance(request, console.LeaveCase):
        opened.open_cases.discard(request.consult)
        return
    if isinstance(request, console.OpenCase) and not await switchboard.show_case(opened, request.consult):
        raise RequestRefused("gone", "There is no such case.")
    opened.shown.pop("room", None)  # whoever asks is told anew, also where it ends as it was
    if isinstance(request, console.SdpAnswer):
        try:
            compressed = sdp.compress(request.sdp)
        except sdp.SdpError as error:
            log.warning("answer refused console=%s call=%s: %s", opened.id, request.call, error)
            raise RequestRefused("bad_request", "This browser's answer can't be used for a call.") from None
        await switchboard.do(_apply, switchboard, opened, request, compressed)
    else:
        await switchboard.do(_apply, switchboard, opened, request, b"")


def _apply(
    session: Session,
    out: Outgoing,
    switchboard: Switchboard,
    opened: OpenConsole,
    request: console.FromConsole,
    compressed: bytes,
) -> None:
    """In the database's thread. Raises RequestRefused, SignedOut, NotAllowed."""
    switchboard.require(session, opened, NEEDS[type(request)])
    calls, now_ms = switchboard.calls, switchboard.now_ms()
    doctor = session.get_one(Doctor, opened.doctor_id)
    call: Call | None = None
    match request:
        case console.SetAvailable():
            _set_available(out, doctor, request, switchboard, now_ms)
        case console.Claim():
            call = calls.claim(session, out, doctor, opened.id, request.call, now_ms)
        case console.Release():
            call = calls.release(session, out, doctor, request.call, now_ms)
        case console.Decline():
            call = calls.decline(session, out, doctor, request.call, now_ms)
        case console.Talk():
            call = calls.talk(session, out, doctor, request.call, now_ms)
        case console.HangUp():
            call = calls.hang_up(session, out, doctor, request.call, now_ms)
        case console.RingKiosk():
            call = calls.ring_kiosk(session, out, doctor, opened.id, request.consult, now_ms)
        case console.SdpAnswer():
            calls.answered_media(session, out, doctor, opened.id, request.call, request.leg, compressed, now_ms)
        case console.WantNewLeg():
            calls.want_new_leg(session, out, doctor, opened.id, request.call, request.leg, now_ms)
        case console.SayTurn():
            turns.from_doctor(session, out, calls, doctor, request, now_ms)
        case console.TurnWasHeard():
            turns.heard_by_doctor(session, out, calls, doctor, request, now_ms)
        case console.OpenCase():
            cases.see(session, out, session.get_one(Consult, request.consult), doctor, now_ms)
        case console.CloseCase():
            consult = session.get(Consult, request.consult)
            if consult is None:
                raise RequestRefused("gone", "There is no such case.")
            cases.close(session, out, consult, doctor, now_ms)
        case console.AskOriginal():
            consult = session.get(Consult, request.consult)
            if consult is None or not cases.ask_original(session, out, consult, request.digest, doctor, now_ms):
                raise RequestRefused("gone", "The clinic has no larger photo of this one any more.")
    if call is not None:
        name = type(request).__name__
        log.info(
            "call request=%s call=%s kiosk=%s phase=%s doctor=%d", name, call.id, call.kiosk_id, call.phase, doctor.id
        )


def _set_available(
    out: Outgoing, doctor: Doctor, request: console.SetAvailable, switchboard: Switchboard, now_ms: int
) -> None:
    if request.until and not _CLOCK.fullmatch(request.until):
        raise RequestRefused("bad_request", "Write the time as hh:mm, such as 14:30.")
    doctor.available = request.available
    doctor.until = "" if request.available else request.until
    doctor.until_at = next_moment_ms(doctor.until, now_ms, switchboard) if doctor.until else 0
    out.room = True


def next_moment_ms(clock: str, now_ms: int, switchboard: Switchboard) -> int:
    """The next time a clock at the hub's site shows hh:mm."""
    zone = switchboard.settings.time_zone
    now = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(zone)
    hour, minute = (int(part) for part in clock.split(":"))
    at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if at <= now:
        at = (now + timedelta(days=1)).replace(hour=hour, minute=minute, second=0, microsecond=0)
    return int(at.timestamp() * 1000)
