"""The agent as the kiosk's page sees it: obeys `kiosk.webapp.KioskPort`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from edge_agent import ipc
from edge_agent.agent import Agent, PictureFrame
from edge_agent.core import call_events as events
from edge_agent.core import draft
from edge_agent.core.call import State
from hardware.simulated import SimulatedBoard
from kiosk.screen import Action, PictureKind, View
from kiosk.view import COMPLAINTS, Surroundings, build_view
from kiosk.webapp import Picture
from kiosk.worker import WorkerLock

log = logging.getLogger(__name__)

WORKER = "worker"  # who made an entry at the unlocked face
PATIENT = "patient"
_URGENCIES = ("routine", "soon", "urgent")


class ScreenPort:
    def __init__(self, agent: Agent, lock: WorkerLock, around: Surroundings) -> None:
        self._agent, self._lock, self._around = agent, lock, around
        self._locking: asyncio.TimerHandle | None = None
        self._trying: asyncio.Task[None] | None = None

    # --- KioskPort

    def view(self) -> View:
        return build_view(self._agent, self._lock, self._around)

    def act(self, action: Action) -> None:
        now = time.monotonic()
        if action.do not in ("pictures_as", "key_frame"):
            self._lock.touched(now)
            self._arm()
        agent, value = self._agent, action.value
        match action.do:
            case "press":
                agent.press(self._by())
            case "release":
                agent.release()
            case "emergency":
                agent.tell_call(events.HeldForEmergency(), felt=True)
            case "cancel" | "end":
                agent.tell_call(events.CancelChosen())
            case "leave_message":
                agent.tell_call(events.MessageChosen())
            case "dismiss":
                self._dismiss()
            case "show_advice" | "play_advice":
                self._advice(value)
            case "language":
                agent.set_language(value)
            case "worker":
                self._lock.asked(now)
            case "pin":
                self._try_pin(value)
            case "lock":
                self._lock.left()
            case "new_case" if self._lock.is_open:
                agent.tell_call(events.NewCaseChosen(WORKER))
            case "send_again" if self._lock.is_open:
                agent.delivery.try_again()
            case "pictures_as":
                agent.show_pictures_as(value)
            case "key_frame":
                agent.send_media(ipc.WantKeyFrame())
            case _ if (event := self._draft_event(action)) is not None:
                agent.tell_draft(event)
        self._arm()
        agent.changed()

    def subscribe(self, changed: Callable[[Picture | None], None]) -> Callable[[], None]:
        def told(frame: PictureFrame | None) -> None:
            changed(None if frame is None else _picture(frame))

        return self._agent.subscribe(told)

    async def file(self, id: str) -> bytes | None:
        flow, store = self._agent.drafts.shown, self._agent.store
        if flow is None or id not in flow.draft.photos:
            return None
        try:
            return await store.run(store.store.read_file, bytes.fromhex(id))
        except OSError as error:
            log.warning("photo not shown reason=%s", error)
            return None

    def board(self) -> SimulatedBoard | None:
        board = self._agent.board
        return board if isinstance(board, SimulatedBoard) else None

    # --- within

    def _by(self) -> str:
        return WORKER if self._lock.is_open else PATIENT

    def _dismiss(self) -> None:
        agent = self._agent
        if agent.advice.shown is not None:
            agent.advice.close()
        elif self._lock.face == "pin":
            self._lock.left()
        elif agent.machine.status.state is State.DRAFT:
            agent.tell_draft(draft.SaveChosen())
        elif agent.machine.status.state is State.INCOMING:
            agent.tell_call(events.CancelChosen())
        else:
            agent.tell_call(events.DismissChosen())

    def _advice(self, value: str) -> None:
        """What waits is the patient's; what was heard before is shown to the worker alone."""
        agent = self._agent
        try:
            id = bytes.fromhex(value)
        except ValueError:
            return
        stored = agent.records.advice.get(id)
        if stored is None or agent.machine.status.state not in (State.IDLE, State.SAVED, State.ENDED):
            return
        if stored.heard_at_ms and not self._lock.is_open and agent.advice.shown is not stored:
            return
        agent.advice.show(id)

    def _draft_event(self, action: Action) -> draft.DraftEvent | None:
        value = action.value
        match action.do:
            case "record":
                return draft.RecordToggled()
            case "discard_voice":
                return draft.VoiceDiscarded()
            case "photo":
                return draft.PhotoAsked()
            case "discard_photo":
                return draft.PhotoDiscarded(value)
            case "complaint" if value in COMPLAINTS:
                return draft.ComplaintToggled(value)
            case "urgency" if value in _URGENCIES:
                return draft.UrgencySet(value)  # type: ignore[arg-type]  # checked just now
            case "text" if self._worker_writes():
                return draft.TextSet(value)
            case "patient" if self._worker_writes():
                return draft.PatientSet(value)
            case "step" if value in {step.value for step in draft.STEPS}:
                return draft.StepChosen(draft.Step(value))
            case "next":
                return draft.NextChosen()
            case "save":
                return draft.SaveChosen()
            case _:
                return None

    def _worker_writes(self) -> bool:
        """In the worker's own draft too, though the face has locked meanwhile."""
        flow = self._agent.drafts.shown
        return self._lock.is_open or (flow is not None and flow.draft.by != PATIENT)

    def _try_pin(self, pin: str) -> None:
        if self._trying is not None and not self._trying.done():
            return
        if self._lock.may_try(time.monotonic()):
            self._trying = asyncio.get_running_loop().create_task(self._check(pin))

    async def _check(self, pin: str) -> None:
        right = await asyncio.to_thread(self._lock.verify, pin)
        self._lock.tried(right, time.monotonic())
        log.info("worker's face %s", "opened" if right else "refused")
        self._arm()
        self._agent.changed()

    def _arm(self) -> None:
        if self._locking is not None:
            self._locking.cancel()
            self._locking = None
        deadline = self._lock.next_deadline()
        if deadline is not None:
            self._locking = asyncio.get_running_loop().call_at(deadline, self._lock_up)

    def _lock_up(self) -> None:
        if self._lock.tick(time.monotonic()):
            log.info("worker's face locked")
            self._agent.changed()
        self._arm()


def _picture(frame: PictureFrame) -> Picture:
    if isinstance(frame, ipc.OwnPicture):
        return Picture(PictureKind.OWN_JPEG, True, 0, frame.data)
    kind = PictureKind.FAR_VP8 if frame.kind == "vp8" else PictureKind.FAR_JPEG
    return Picture(kind, frame.key, frame.time_ms, frame.data, frame.still)
