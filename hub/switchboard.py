"""Where changes meet the people they concern: kiosks over MQTT, doctors at the consoles this process holds.

`do` runs work in the database, then carries out what it left in its `Outgoing`. Frames about one call go out at once;
waiting room, inbox and open cases are read anew a moment after a change, once for however many changes, and sent to a
console only where they differ from what it has. The same pass looks at the clock, and tells kiosks what to expect.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from edge_agent.core import sdp, wire
from hub import accounts, audit, calls, cases, console, downlink, outgoing, turns, views, waiting
from hub.accounts import SignedIn
from hub.config import HubSettings
from hub.database import Database, explain
from hub.files import FileStore
from hub.intake import greet
from hub.outgoing import Notice, Outgoing
from hub.records import Call, Console, Doctor, Kiosk
from hub.roles import Permission, may
from hub.sealing import Sealing

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

REFRESH_PAUSE_S = 0.05  # changes within it share one reading; the first of them waits for nothing
REFRESH_REST = 2.0  # times as long as the reading took, at least, or a full inbox would keep the intake from its work
HEARTBEAT_S = 15.0
CONSOLE_LOST_AFTER_S = 60.0  # its process died without a word
NOT_SIGNED_IN = 4401  # close code of the WebSocket
_TRY_AGAIN_LATER = 1013
QUEUED_FRAMES = 500  # of a browser that does not read: it is closed and comes again


class SignedOut(Exception):
    """The page's session is over."""


class NotAllowed(Exception):
    """The page's account has not the permission."""


@dataclass(eq=False)
class OpenConsole:
    """A doctor's page whose socket this process holds."""

    id: str
    doctor_id: int
    session: str  # whose end is this page's
    close_code: int = _TRY_AGAIN_LATER
    frames: asyncio.Queue[str | None] = field(default_factory=lambda: asyncio.Queue(QUEUED_FRAMES))
    open_cases: set[str] = field(default_factory=set)
    shown: dict[str, str] = field(default_factory=dict)  # what each list said last
    offered: set[tuple[str, int, str]] = field(default_factory=set)

    def send(self, frame: console.ToConsole) -> None:
        self._queue(console.encode(frame))

    def send_if_new(self, key: str, frame: console.ToConsole) -> None:
        text = console.encode(frame)
        if self.shown.get(key) != text:
            self.shown[key] = text
            self._queue(text)

    def close(self, code: int = _TRY_AGAIN_LATER) -> None:
        self.close_code = code
        while True:
            with contextlib.suppress(asyncio.QueueFull):
                return self.frames.put_nowait(None)
            self.frames.get_nowait()

    def _queue(self, text: str) -> None:
        try:
            self.frames.put_nowait(text)
        except asyncio.QueueFull:
            log.warning("console closed, it does not read console=%s", self.id)
            self.close()


class Switchboard:
    def __init__(
        self,
        settings: HubSettings,
        database: Database,
        files: FileStore,
        sealing: Sealing,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self.settings, self.database, self.files = settings, database, files
        self.now_ms, self._sealing = now_ms, sealing
        self.calls = calls.Calls(settings.ice)
        self.replies = downlink.ReplySender(files)
        self.publish: Callable[[str, bytes], None] = lambda _topic, _payload: None  # the MQTT link's, once it is up
        self._process = settings.broker.process
        self._rules = waiting.Rules(
            everyone_after_ms=int(settings.ring.everyone_after_s * 1000),
            give_up_ms=int(settings.ring.give_up_s * 1000),
            kiosk_ring_ms=int(settings.ring.kiosk_ring_s * 1000),
            gone_ms=int(settings.ring.gone_s * 1000),
        )
        self._consoles: dict[str, OpenConsole] = {}
        self._dirty = asyncio.Event()
        self._ours = False  # the change is this process's own: it tells the kiosks
        self._told: dict[str, waiting.Expectation] = {}
        self._next_due_ms: int | None = 0
        self._pause_s = REFRESH_PAUSE_S

    # --- work and what follows it

    async def do(self, work: Callable[Concatenate[Session, Outgoing, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """One transaction, then all it leads to. Passes on what `work` raises, having changed nothing."""

        def attempt(session: Session) -> tuple[Outgoing, R]:
            out = Outgoing()
            result = work(session, out, *args, **kwargs)
            self._sealing.seal(session, out, self.now_ms())
            return out, result

        out, result = await self.database.run(attempt)
        await self.deliver(out)
        return result

    async def deliver(self, out: Outgoing) -> None:
        """Publish and show; nothing here can undo the commit, so nothing here may fail."""
        for kiosk in out.greeted:
            self._told.pop(kiosk, None)
        for topic, payload in out.sealed:
            self.publish(topic, payload)
        notice = out.notice
        if notice != outgoing.EMPTY_NOTICE:
            self.publish(outgoing.NOTICE_TOPIC, outgoing.encode_notice(notice))
            self._ours = True
            await self.noticed(notice)

    async def noticed(self, notice: Notice) -> None:
        """Something changed, here or in another process."""
        if notice.calls or notice.offers or notice.media or notice.turns:
            await self.database.run(self._about_calls, notice)
        if notice.room or notice.cases or notice.calls:
            self._dirty.set()

    # --- consoles

    async def console_opened(self, console_id: str, doctor: SignedIn) -> OpenConsole:
        """Registered, greeted, and given the call it was in if its former page is gone."""
        opened = OpenConsole(console_id, doctor.id, doctor.session)
        hello, resume = await self.do(self._open_console, console_id, doctor.id)
        opened.send(hello)
        room, inbox, _, _ = await self.database.run(self._read, frozenset(), frozenset(), True)
        opened.send_if_new("room", room.for_doctor(doctor.id))
        if inbox is not None:
            opened.send_if_new("inbox", inbox)
        self._consoles[console_id] = opened
        if resume:
            await self.database.run(self._about_calls, Notice(False, (), *((resume,),) * 4))
        self._dirty.set()  # what changed between reading and registering
        log.info("console opened console=%s doctor=%d consoles=%d", console_id, doctor.id, len(self._consoles))
        return opened

    async def console_closed(self, opened: OpenConsole) -> None:
        self._consoles.pop(opened.id, None)
        await self.do(self._close_consoles, [opened.id])
        log.info("console closed console=%s doctor=%d", opened.id, opened.doctor_id)

    async def show_case(self, opened: OpenConsole, consult: str) -> bool:
        case = await self.database.run(self._view_case, opened, consult)
        if case is None:
            return False
        opened.open_cases.add(consult)
        opened.shown.pop(consult, None)
        opened.send_if_new(consult, console.CaseShown(case=case))
        return True

    def require(self, session: Session, opened: OpenConsole, permission: Permission) -> None:
        """In the transaction of what is asked. Raises SignedOut, NotAllowed."""
        account = accounts.session_alive(session, opened.session, self.settings.doctors.idle_s, self.now_ms())
        if account is None:
            raise SignedOut
        if not may(account.role, permission):
            raise NotAllowed

    def _view_case(self, session: Session, opened: OpenConsole, consult: str) -> console.Case | None:
        self.require(session, opened, Permission.SEE_PATIENTS)
        case = views.case(session, consult)
        if case is not None:
            cases.view(session, consult, opened.doctor_id, self.now_ms())
        return case

    def close_all(self) -> None:
        for opened in self._consoles.values():
            opened.close()

    def _open_console(
        self, session: Session, out: Outgoing, console_id: str, doctor_id: int
    ) -> tuple[console.Hello, str]:
        now_ms = self.now_ms()
        doctor = session.get_one(Doctor, doctor_id)
        doctor.gone_since = 0
        audit.append(session, now_ms, audit.account(doctor), "inbox_opened")
        session.add(Console(id=console_id, process=self._process, doctor_id=doctor_id, seen_at=now_ms))
        session.flush()
        call = calls.live_call_of(session, doctor_id)
        resume = ""
        if call is not None and session.get(Console, call.console_id) is None:
            call.console_id, resume = console_id, call.id
        out.room = True
        hello = console.Hello(
            name=doctor.name,
            available=doctor.available,
            until=doctor.until if doctor.until_at > now_ms else "",
            now=now_ms,
            resume=resume,
            audio_processing=self.settings.doctors.audio_processing,
        )
        return hello, resume

    def _close_consoles(self, session: Session, out: Outgoing, ids: list[str]) -> None:
        doctors = set(session.scalars(select(Console.doctor_id).where(Console.id.in_(ids))))
        session.execute(delete(Console).where(Console.id.in_(ids)))
        still = set(session.scalars(select(Console.doctor_id).where(Console.doctor_id.in_(doctors))))
        session.execute(update(Doctor).where(Doctor.id.in_(doctors - still)).values(gone_since=self.now_ms()))
        out.room = True

    def _about_calls(self, session: Session, notice: Notice) -> None:
        """Frames about single calls, to the page that holds each."""
        for call_id in notice.calls:
            call, pages = self._pages_of(session, call_id)
            update_frame = views.call_update(session, call) if call and pages else None
            for page in pages:
                if update_frame is not None:
                    self._from_thread(page.send, update_frame)
        for call_id in notice.offers:
            call, pages = self._pages_of(session, call_id)
            if call is None or call.answer_leg or not call.offer_sdp or call.phase not in calls.HELD:
                continue
            frame = views.kiosk_offer(call, sdp.decompress(call.offer_sdp), self.settings.ice, self.now_ms())
            for page in pages:
                self._from_thread(_offer_once, page, frame)
        for call_id in notice.media:
            call, pages = self._pages_of(session, call_id)
            for page in pages:
                if call is not None and call.media_leg:
                    media = console.KioskMedia(call=call.id, leg=call.media_leg, state=call.media_state)  # type: ignore[arg-type]
                    self._from_thread(page.send, media)

        for call_id in notice.turns:
            _, pages = self._pages_of(session, call_id)
            for frame in turns.frames(session, call_id) if pages else ():
                for page in pages:
                    part = frame.part if isinstance(frame, console.TurnSound) else "mark"
                    self._from_thread(page.send_if_new, f"{frame.turn} {part}", frame)

    def _pages_of(self, session: Session, call_id: str) -> tuple[Call | None, list[OpenConsole]]:
        """The page that holds the call where it is open here; every page of the doctor here where it is gone."""
        call = session.get(Call, call_id)
        if call is None or call.doctor_id is None:
            return call, []
        pages = [page for page in list(self._consoles.values()) if page.doctor_id == call.doctor_id]
        if session.get(Console, call.console_id) is not None:
            pages = [page for page in pages if page.id == call.console_id]
        return call, pages

    def _from_thread(self, function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        self._loop.call_soon_threadsafe(lambda: function(*args, **kwargs))

    # --- the lists, the clock, the kiosks' expectations

    async def run(self) -> None:
        """For ever: after each change, and when time alone changes something."""
        self._loop = asyncio.get_running_loop()
        failed = False
        while True:
            wait_s = 3600.0
            if self._next_due_ms is not None:
                wait_s = min(wait_s, max(0.0, (self._next_due_ms - self.now_ms()) / 1000))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._dirty.wait(), wait_s)
            self._dirty.clear()
            ours, self._ours = self._ours, False
            try:
                await self._refresh(ours)
                failed = False
            except Exception as error:
                self._dirty.set()
                self._ours = self._ours or ours
                if not failed:
                    log.error("waiting room not read, trying on: %s", explain(error), exc_info=not failed)
                failed = True
                await asyncio.sleep(1)
            await asyncio.sleep(self._pause_s)

    async def _refresh(self, ours: bool) -> None:
        pages = list(self._consoles.values())
        wanted = frozenset(consult for page in pages for consult in page.open_cases)
        sessions = frozenset(page.session for page in pages)
        began = time.monotonic()
        room, inbox, cases, over = await self.database.run(self._read, wanted, sessions, bool(pages))
        self._pause_s = max(REFRESH_PAUSE_S, REFRESH_REST * (time.monotonic() - began))
        for page in pages:
            if page.session in over:
                page.close(NOT_SIGNED_IN)
                continue
            page.send_if_new("room", room.for_doctor(page.doctor_id))
            if inbox is not None:
                page.send_if_new("inbox", inbox)
            for consult in page.open_cases & cases.keys():
                page.send_if_new(consult, console.CaseShown(case=cases[consult]))
        now_ms = self.now_ms()
        by_clock = self._next_due_ms is not None and self._next_due_ms <= now_ms
        await self._tell_kiosks(room, now_ms, publish=ours or by_clock)
        due = waiting.due(room.calls, room.doctors, now_ms, self._rules)
        self._next_due_ms = waiting.next_due_ms(room.calls, room.doctors, now_ms, self._rules)
        if due:
            await self.do(self._apply, due)

    def _apply(self, session: Session, out: Outgoing, effects: list[waiting.Effect]) -> None:
        for effect in effects:
            log.info("time is up call=%s effect=%s", effect.call, type(effect).__name__)
            self.calls.apply(session, out, effect, self.now_ms())

    def _read(
        self, session: Session, wanted: frozenset[str], sessions: frozenset[str], with_inbox: bool
    ) -> tuple[views.Room, console.Inbox | None, dict[str, console.Case], set[str]]:
        """What pages are shown, and which of their sessions are over."""
        cases = {consult: views.case(session, consult) for consult in wanted}
        shown = {consult: case for consult, case in cases.items() if case is not None}
        inbox = views.inbox(session) if with_inbox else None
        return views.room(session), inbox, shown, self._over(session, sessions)

    def _over(self, session: Session, sessions: Iterable[str]) -> set[str]:
        idle_s, now_ms = self.settings.doctors.idle_s, self.now_ms()
        return {each for each in sessions if accounts.session_alive(session, each, idle_s, now_ms) is None}

    async def _tell_kiosks(self, room: views.Room, now_ms: int, publish: bool) -> None:
        """What each may expect, where it changed. A change of another process is told by that one."""
        for kiosk in self._told.keys() - room.kiosks_online:
            del self._told[kiosk]
        news: list[tuple[str, wire.Message]] = []
        for kiosk in room.kiosks_online:
            expected = waiting.expectation(kiosk, room.calls, room.doctors, now_ms)
            if self._told.get(kiosk) == expected:
                continue
            self._told[kiosk] = expected
            if publish:
                presence = wire.Presence(expected.state, expected.position, expected.until)
                news.append((kiosk, wire.Message(presence, sent_at_ms=now_ms)))
        try:
            if news:
                await self.do(lambda _session, out: out.messages.extend(news))
        except BaseException:
            for kiosk, _ in news:
                self._told.pop(kiosk, None)
            raise

    # --- beginnings and upkeep

    async def start(self) -> None:
        """Consoles of an earlier run of this process are gone; their doctors have a minute to come back."""
        self._loop = asyncio.get_running_loop()
        self._sealing.counter_kept(await self.database.run(self._sealing.start, self.now_ms()))
        await self.do(self._forget_own_consoles)

    def _forget_own_consoles(self, session: Session, out: Outgoing) -> None:
        self._close_consoles(
            session, out, list(session.scalars(select(Console.id).where(Console.process == self._process)))
        )

    async def link_up(self) -> None:
        """The broker is back: whatever was said meanwhile is said again."""
        self._told.clear()
        try:
            await self.do(self._greet_all)
        except (SQLAlchemyError, OSError) as error:
            log.error("kiosks not greeted, upkeep reminds them: %s", explain(error))

    def _greet_all(self, session: Session, out: Outgoing) -> None:
        for kiosk in session.scalars(select(Kiosk.id).where(Kiosk.online)).all():
            greet(session, out, self.calls, kiosk, self.now_ms())

    async def run_upkeep(self) -> None:
        """For ever: say that our consoles live, clear away those of dead processes, remind silent kiosks; and go on
        with replies that no `Have` asks for."""
        failed, next_upkeep = False, time.monotonic() + HEARTBEAT_S
        while True:
            await asyncio.sleep(downlink.PUMP_MS / 1000)
            try:
                if self.replies.busy:
                    await self.do(lambda _session, out: self.replies.pump(out, self.now_ms()))
                if time.monotonic() >= next_upkeep:
                    next_upkeep = time.monotonic() + HEARTBEAT_S
                    over = await self.do(self._upkeep, list(self._consoles.values()))
                    self._sealing.counter_kept(await self.database.run(self._sealing.keep_counter, self.now_ms()))
                    for page in [page for page in self._consoles.values() if page.session in over]:
                        page.close(NOT_SIGNED_IN)
                failed = False
            except Exception as error:
                if not failed:
                    log.error("upkeep failed, trying on: %s", explain(error))
                failed = True

    def _upkeep(self, session: Session, out: Outgoing, own: list[OpenConsole]) -> set[str]:
        """Returns the sessions that ended while a page of theirs is open, as by a command on this machine."""
        now_ms = self.now_ms()
        session.execute(update(Console).where(Console.id.in_([page.id for page in own])).values(seen_at=now_ms))
        lost_before = now_ms - int(CONSOLE_LOST_AFTER_S * 1000)
        if lost := list(session.scalars(select(Console.id).where(Console.seen_at < lost_before))):
            self._close_consoles(session, out, lost)
        turns.settle(session, out, self.files, now_ms)
        for kiosk in downlink.online_kiosks_with_waiting(session):
            downlink.resend(session, out, kiosk, now_ms, older_than_ms=now_ms - downlink.REMIND_AFTER_MS)
        return self._over(session, {page.session for page in own})


def _offer_once(page: OpenConsole, frame: console.KioskOffer) -> None:
    """A second peer connection for one offer would lose the first one's media."""
    key = (frame.call, frame.leg, frame.sdp)
    if key not in page.offered:
        page.offered.add(key)
        page.send(frame)
