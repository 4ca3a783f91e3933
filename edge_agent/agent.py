"""The agent: one event loop that feeds the pure machines and carries out what they ask for.

A press must be felt at once: lamp and sound come first, then what the media process and the hub are told in passing,
and the disk last, in order and in a thread of its own. Durable messages go out after their commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from edge_agent import ipc
from edge_agent.advice import AdviceDesk
from edge_agent.clock import LOOK_S, KioskClock
from edge_agent.config import KioskSettings
from edge_agent.core import call as core
from edge_agent.core import call_events as events
from edge_agent.core import wire
from edge_agent.core.courier import Sealed
from edge_agent.core.draft import ButtonPressed, DraftEvent
from edge_agent.core.outbox import Freed
from edge_agent.core.retries import SetAside
from edge_agent.core.split import messages_bps, pacing_bps, turns_pacing_bps, turns_window_bytes
from edge_agent.courier import CourierDesk
from edge_agent.delivery import Delivery
from edge_agent.door import AgentState, AgentStatus, Door, Report, door_path
from edge_agent.downlink import Downlink
from edge_agent.drafts import Drafts
from edge_agent.hub_side import HubSide
from edge_agent.journal import Journal
from edge_agent.lamp import FAULTS, QUIET, light
from edge_agent.media_process import MediaProcess
from edge_agent.metering import Metering
from edge_agent.records import ConsultStep, Records
from edge_agent.sounds import (
    TONE_INCOMING,
    TONE_PRESS,
    TONE_RINGING,
    Clip,
    Prompt,
    Sounds,
    Spoken,
    Tone,
    Voice,
)
from edge_agent.status import waiting_items
from edge_agent.storage import (
    LOW_BYTES,
    RESERVE_BYTES,
    Change,
    FileDelivered,
    MessageQueued,
    MessageSetAside,
    MessagesFreed,
    StoreError,
    StoreFull,
    StoreThread,
    ValueKept,
)
from edge_agent.turntaking import TurnTaking
from hardware.api import Board, Light
from hardware.gestures import ButtonGestures, Gesture, Held, Pressed, Released, Stuck
from hardware.gestures import Freed as ButtonFreed

log = logging.getLogger(__name__)

State = core.State
DISK_CHECK_S = 60.0
FULL_DISK_CHECK_S = 5.0
SAVE_CLOCK_S = 300.0
TELL_SPENT_S = 3600.0
FLUSH_S = 5.0
EMERGENCY_HOLD_S, CANCEL_HOLD_S = 2.0, 5.0
KEPT_ENDED_CALLS = 32
LINK_MOVED = 0.1  # of what it carried: MQTT's share is another

OLD_WISH_MS = 5000  # for a new leg: the line has come back since, or the browser asks again
_NEEDS_THE_HUB = (State.RINGING, State.CLAIMED, State.LOST)  # a call that gets no further without it
_USES_THE_LINK = (State.CLAIMED, State.LIVE, State.LOST)  # sound and pictures do, or are about to
_NEEDS_THE_LINK = (*_USES_THE_LINK, State.TURNS)  # for people: nothing that can wait begins
_CONNECTS = (State.CLAIMED, State.LOST, State.TURNS)  # over a link that files would fill
_LOOPS: dict[State, Sequence[Clip]] = {
    State.RINGING: (Tone(TONE_RINGING),),
    State.CLAIMED: (Tone(TONE_RINGING),),
    State.INCOMING: (Tone(TONE_INCOMING), Prompt("incoming_call")),
}

PictureFrame = ipc.FarPicture | ipc.OwnPicture

_status_decoder = msgspec.msgpack.Decoder(core.Status)


class Agent:
    """Everything here is called on its event loop, but for the board's callback."""

    def __init__(
        self,
        settings: KioskSettings,
        store: StoreThread,
        voice: Voice,
        board: Board | None,
        media_argv: Sequence[str],
        software: str = "",
    ) -> None:
        call = settings.call
        self.settings, self.board, self.store = settings, board, store
        self.machine = core.CallMachine(
            core.CallTimes(
                hub_reply_s=call.hub_reply_timeout_s,
                ring_s=call.ring_timeout_s,
                claim_s=call.claim_timeout_s,
                reconnect_s=call.reconnect_timeout_s,
                ended_screen_s=call.ended_screen_s,
            )
        )
        self.language = settings.kiosk.language
        self.missing: tuple[str, ...] = ()
        self.light = Light.OFF
        self.last_saved = b""  # the consult whose message was saved last, until another opens
        self.last_outcome: wire.Outcome | None = None  # of the call that ended last
        self._conditions: dict[str, None] = {}  # notice codes, in the order they came
        self._software, self._boot = software, secrets.token_bytes(8)
        self._media_missing: tuple[str, ...] = ()
        self._pictures_as = ""
        self._ended_calls: list[bytes] = []
        self._kept_status = core.Status()
        self._batch: tuple[list[Change], list[Callable[[], None]]] | None = None
        self._listeners: list[Callable[[PictureFrame | None], None]] = []
        self._disk_filled = asyncio.Event()  # just now: it is looked at more often
        self._view_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._offering: set[asyncio.Task[None]] = set()
        self._gestures = ButtonGestures((EMERGENCY_HOLD_S, CANCEL_HOLD_S))

        contents = store.store.load()
        self._hub_epoch = contents.values.get("hub_epoch", b"")  # of the hub's restore that was answered last
        self.clock = KioskClock(contents.values.get("clock", b""))
        self.records = Records(contents, self.clock.stamp)
        self.media = MediaProcess(media_argv, settings.state_dir / "run", self)
        self.sounds = Sounds(voice, self.media.send)
        self._journal = Journal(store, self._store_trouble, self._unwritten)
        last_will = wire.Status(online=False, software=software, boot=self._boot, language=self.language)
        self.hub = HubSide(settings, self, self.clock, contents.values.get("counters", b""), last_will)
        self._save_clock_at_once()
        self.condition("not_joined", self.hub.link is None)
        self._link_bps = settings.link.up_kbps * 1000.0  # until a call has measured it; 0: unknown
        link = self.hub.link
        self.metering = Metering(
            settings.budget, self.clock, link.carried_bytes if link is not None else lambda: 0,
            contents.values.get("spent", b""), contents.consults,
        )  # fmt: skip
        self._spent_told_at = 0.0
        self._last_receipt_ms = int(contents.values.get("last_receipt", b"0"))
        self.delivery = Delivery(store, link, self.clock, self._link_bps, self._freed, self._set_aside, self._carried)
        self.delivery.outbox.goes = self.metering.goes
        self.downlink = Downlink(store, self.records, self)
        if self.hub.sealing is not None:
            self.hub.sealing.file_keys = self.downlink.key_named
        self.drafts = Drafts(store, self.records, self, call.draft_idle_s, call.max_voice_note_s)
        self.advice = AdviceDesk(store, self.records, self)
        self.turns = TurnTaking(self)
        self.door = Door(self, door_path(settings.state_dir))
        self._on_disk = contents  # until `start` takes it up

    # --- life

    def start(self) -> None:
        """Takes up what was under way, and runs until `stop`."""
        contents = self._on_disk
        del self._on_disk
        if (code := contents.values.get("language", b"").decode()) in self.settings.kiosk.languages:
            self.language = code
        self.sounds.language = self.language
        self.condition("store_damaged", self.store.store.damaged)
        self._hardware_missing()
        urgent = [consult.id for consult in contents.consults if consult.emergency]
        self.delivery.load(contents.waiting, contents.set_aside, urgent)
        self._tell_set_aside()
        self.drafts.load(contents.drafts, contents.files)
        self._spawn(self._journal.run(), "journal")
        self._restore(contents.values.get("call", b""))
        if self.board is not None:
            loop = asyncio.get_running_loop()

            def contact(pressed: bool, at: float) -> None:
                loop.call_soon_threadsafe(self._contact, pressed, at)

            self.board.watch_button(contact)
        self._media_task = self._spawn(self.media.run(), "media")
        self._spawn(self.downlink.run(), "downlink")
        self._spawn(self._watch_disk(), "disk")
        self._spawn(self._watch_clock(), "clock")
        self._spawn(self.door.run(), "door")
        if self.hub.link is not None:
            self._spawn(self.hub.link.run(), "link")
        if self.hub.renewal is not None:
            self._spawn(self.hub.renewal.run(), "renewal")
        if self.hub.sealing is not None:
            desk = CourierDesk(
                self.hub.sealing.kiosk, self.settings.state_dir / "run", self.store, self.delivery,
                self._for_courier, self._from_courier,
            )  # fmt: skip
            self._spawn(desk.run(), "courier")

    async def failed(self) -> None:
        """Raises what ended one of the agent's tasks; none of them should ever end."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def alive(self) -> bool:
        """Whether the store's thread takes work and the MQTT client runs. An answer at all says that the loop does."""
        await self.store.run(_nothing)
        return self.hub.link is None or self.hub.link.alive

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._media_task.cancel()  # first: whoever stops the whole service may have ended the process already
        await self.hub.say_goodbye(self._status(online=False))
        self.metering.look()
        self.commit(self.metering.to_save(), _nothing)
        await self._journal.flush(FLUSH_S)
        self.delivery.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.board is not None:
            self.board.close()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        return task

    def _restore(self, content: bytes) -> None:
        status = core.Status()
        if content:
            try:
                status = _status_decoder.decode(content)
            except msgspec.DecodeError as error:
                log.error("call state unreadable reason=%s", error)
        before = self.machine.status
        self._kept_status = status
        effects = self.machine.restore(status, self._now())
        self._carry_out(effects, before)
        if self.machine.status.state is not State.IDLE:
            log.info("taken up state=%s call=%s", self.machine.status.state.value, self.machine.status.call.hex())

    # --- what a person does

    def press(self, by: str = "patient") -> None:
        self.tell_call(events.Pressed(by), felt=True)

    def release(self) -> None:
        self.tell_call(events.Released())

    def tell_call(self, event: events.Event, felt: bool = False) -> None:
        """`felt`: a hand pressed, and hears that it was noticed."""
        before = self.machine.status
        effects = self.machine.handle(event, self._now())
        self._carry_out(effects, before, felt)

    def tell_draft(self, event: DraftEvent) -> None:
        clips = self.drafts.tell(event)
        if clips:
            self.play(clips)
        self._arm()

    def set_language(self, code: str) -> None:
        if code in self.settings.kiosk.languages:
            self.language = self.sounds.language = code
            self.commit([ValueKept("language", code.encode())], _nothing)
            self.changed()

    def show_pictures_as(self, kind: str) -> None:
        self._pictures_as = kind
        self.media.send(ipc.SendPicturesAs(kind))

    # --- what the screen shows

    def subscribe(self, changed: Callable[[PictureFrame | None], None]) -> Callable[[], None]:
        """`changed(None)` when anything is different, `changed(frame)` for a picture."""
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    @property
    def conditions(self) -> tuple[str, ...]:
        """Codes of what is out of order."""
        return tuple(self._conditions)

    def step(self, consult: bytes) -> ConsultStep:
        return self.records.step(consult, drafted=self.drafts.is_open(consult), unsent=self.delivery.waits_in(consult))

    def changed(self) -> None:
        """The view is made once for all that happens in one turn of the event loop."""
        if not self._view_due:
            self._view_due = True
            asyncio.get_running_loop().call_soon(self._tell_listeners)

    def _tell_listeners(self) -> None:
        self._view_due = False
        self._show_light()
        self.hub.publish_status(self._status(online=True))
        self._arm()
        for listener in tuple(self._listeners):
            listener(None)

    # --- effects

    def _carry_out(self, effects: list[events.Effect], before: core.Status, felt: bool = False) -> None:
        status, wall = self.machine.status, self.wall_ms()
        self._show_light()
        if status.state not in QUIET:
            self.advice.interrupt()
        clips: list[Clip] = []
        hush = False
        self._begin_batch()
        if status.state is not State.DRAFT or any(
            isinstance(e, (events.OpenConsult, events.OpenDraft)) for e in effects
        ):
            self.drafts.leave(status.consult)
        for effect in effects:
            match effect:
                case events.Say(key):
                    clips.append(self._prompt(key))
                case events.Hush():
                    hush = True
                case events.StartMedia(call, leg, ice_servers, held):
                    self.media.send(ipc.StartCall(call, leg, ice_servers, held))
                case events.GiveAnswer(call, leg, sdp):
                    self.media.send(ipc.TakeAnswer(call, leg, sdp))
                case events.UnholdMedia(call):
                    self.media.send(ipc.Unhold(call))
                case events.RestMedia(call):
                    self.media.send(ipc.Rest(call))
                case events.Speak():
                    self.turns.speak()
                case events.StopSpeaking():
                    self.turns.stop_speaking()
                case events.StopMedia():
                    self.media.send(ipc.StopCall())
                case events.OpenConsult(consult, by):
                    self.last_saved = b""
                    self.commit(self.records.ensure(consult, wall, by), _nothing)
                case events.Send(consult, body) if body.DURABLE:
                    self.send_durable(consult, body, [])
                case events.Send(consult, body):
                    self.publish(consult, body)
                case events.OpenDraft(consult, by):
                    self.commit(self.records.ensure(consult, wall, by), _nothing)
                    clips += self.drafts.show(consult, by)
                case events.PressDraft():
                    clips += self.drafts.tell(ButtonPressed())
        if status.state is State.TURNS:
            self.turns.begin(status.consult, status.call)
        else:
            self.turns.end(live=status.state in (State.LIVE, State.LOST))
        if self.hub.link is not None:
            cut_off = status.state is State.TURNS and not self.hub.reachable
            self.hub.link.hurry(status.state in _NEEDS_THE_HUB or cut_off)
        if status.state not in QUIET:
            self.door.call_began()
        if status.state is not before.state:
            self._share_link()
            if self.hub.renewal is not None:
                self.hub.renewal.hold(status.state in _NEEDS_THE_LINK)
        self.delivery.hold_files(status.state in _CONNECTS)
        self._keep_status()
        self._end_batch()
        self._sound(clips, hush, before.state, felt)
        if status.state is not before.state:
            log.info(
                "state=%s was=%s consult=%s call=%s",
                status.state.value, before.state.value, status.consult.hex(), (status.call or before.call).hex(),
            )  # fmt: skip
        self.changed()

    def _share_link(self) -> None:
        """What MQTT may have of it."""
        state = self.machine.status.state
        self.delivery.share_link(messages_bps(self._link_bps) if state in _USES_THE_LINK else None)
        if self.hub.link is not None:
            in_turns = state is State.TURNS
            pace_bps = turns_pacing_bps(self._link_bps) if in_turns else None
            self.hub.link.pace(pacing_bps(self._link_bps) if state is State.LIVE else pace_bps)
            window = turns_window_bytes(self._link_bps) if in_turns else None
            self.hub.link.bound_window(window)
            self.hub.link.limit_timeouts(in_turns and window is None)

    def _link_measured(self, up_bps: float) -> None:
        if abs(up_bps - self._link_bps) > LINK_MOVED * self._link_bps:
            self._link_bps = up_bps
            self._share_link()

    def _sound(self, clips: list[Clip], hush: bool, before: core.State, felt: bool) -> None:
        state = self.machine.status.state
        loop = _LOOPS.get(state, ())
        if clips or loop != _LOOPS.get(before, ()):
            if felt and (clips or state is not before):
                clips = [Tone(TONE_PRESS), *clips]
            if state is State.INCOMING:
                clips = []  # its loop says the same
            if clips or loop:
                self.play(clips, then_loop=loop)
            else:
                self.sounds.hush()
        elif hush:
            self.sounds.hush()

    def _prompt(self, key: str) -> Clip:
        own = self.settings.kiosk.emergency_instruction
        return Spoken(own) if key == "emergency_instruction" and own else Prompt(key)

    def _show_light(self) -> None:
        wanted = light(
            self.machine.status,
            advice_waits=bool(self.records.unheard()),
            faulty=not FAULTS.isdisjoint(self._conditions) or self._faulty_devices(),
            reachable=self.hub.reachable,
            tested=self.door.light,
        )
        if wanted is not self.light:
            self.light = wanted
            if self.board is not None:
                self.board.show(wanted)

    def _faulty_devices(self) -> bool:
        """Missing, though nobody said that there is none."""
        return any(getattr(self.settings.devices, name, "") != "none" for name in self._media_missing)

    # --- the disk

    def commit(self, changes: list[Change], after: Callable[[], None]) -> None:
        """One transaction, or a part of the one that is being put together."""
        if self._batch is not None:
            self._batch[0].extend(changes)
            self._batch[1].append(after)
        elif changes:
            self._journal.commit(changes, lambda: self._committed(changes, [after]))
        else:
            after()

    def send_durable(self, consult: bytes, body: wire.Body, changes: list[Change]) -> None:
        wall = self.wall_ms()
        first = self.records.ensure(consult, wall, "")
        self.commit([*first, *changes, self.records.queue(consult, body, wall)], _nothing)
        if isinstance(body, wire.CallEnded):
            self.last_outcome = body.outcome
            self._ended_calls = [*self._ended_calls, body.call][-KEPT_ENDED_CALLS:]
            log.info("call ended call=%s outcome=%s", body.call.hex(), body.outcome)

    def _begin_batch(self) -> None:
        assert self._batch is None  # noqa: S101
        self._batch = ([], [])

    def _end_batch(self) -> None:
        assert self._batch is not None  # noqa: S101
        (changes, afters), self._batch = self._batch, None
        if changes:
            self._journal.commit(changes, lambda: self._committed(changes, afters))
        else:
            for after in afters:
                after()

    def _committed(self, changes: list[Change], afters: list[Callable[[], None]]) -> None:
        self.delivery.add(*(change.message for change in changes if isinstance(change, MessageQueued)))
        if self.store.store.gave_up_reserve:
            self._disk_is_full(True)
        for after in afters:
            after()
        self.changed()

    def _keep_status(self) -> None:
        status = self.machine.snapshot()
        if status != self._kept_status:
            self._kept_status = status
            self.commit([ValueKept("call", msgspec.msgpack.encode(status))], _nothing)

    def _unwritten(self, changes: list[Change]) -> None:
        """The disk does not take it now: a call for help goes out all the same."""
        messages = [change.message for change in changes if isinstance(change, MessageQueued)]
        if any(isinstance(message.body, wire.CallRequested | wire.CallEnded) for message in messages):
            self.delivery.add(*messages)

    def _store_trouble(self, error: StoreError | None) -> None:
        """Not even a note is written, or all is well again."""
        self.condition("disk_broken", error is not None)

    def _disk_is_full(self, full: bool) -> None:
        """Of files; notes still find room."""
        if full and "disk_full" not in self._conditions:
            self._disk_filled.set()
        self.condition("disk_full", full)
        self.drafts.full(full)

    def store_fails(self) -> bool:
        return self._journal.fails

    def store_failed(self, error: StoreError) -> None:
        if isinstance(error, StoreFull):
            self._disk_is_full(True)
        else:
            self.condition("disk_broken", True)

    def _freed(self, freed: Freed) -> None:
        delivered = [FileDelivered(consult, digest) for consult, digest in freed.files]
        whole = [
            self.records.progress(consult.id, "received", self.wall_ms())
            for consult in self.records.consults.values()
            if consult.saved_at_ms
            and not consult.received_at_ms
            and not self.drafts.is_open(consult.id)  # until what is to be sent of it is on the disk
            and not self.delivery.waits_in(consult.id)
        ]
        self._last_receipt_ms = self.wall_ms()
        last = ValueKept("last_receipt", b"%d" % self._last_receipt_ms)
        self.commit([MessagesFreed(freed.messages, self._last_receipt_ms), *delivered, *whole, last], _nothing)
        self._tell_set_aside()
        status = self.machine.status
        if status.state is State.SAVED and not self.delivery.waits_in(status.consult) and self.sounds.silent:
            self.play([Prompt("sent")])
        self.changed()

    def _set_aside(self, id: bytes, aside: SetAside) -> None:
        log.error("message set aside id=%s times=%d: it is tried again later", id.hex(), aside.times)
        self.commit([MessageSetAside(id, aside)], _nothing)
        self._tell_set_aside()

    def _tell_set_aside(self) -> None:
        self.condition("messages_set_aside", self.delivery.set_aside > 0)

    async def _watch_disk(self) -> None:
        while True:
            try:
                store = self.store.store
                free = await self.store.run(store.free_bytes)
                if free < LOW_BYTES and await self.store.run(store.make_room, LOW_BYTES):
                    free = await self.store.run(store.free_bytes)
                full = free < RESERVE_BYTES or store.gave_up_reserve
                self._disk_is_full(full)
                self.condition("disk_low", not full and free < LOW_BYTES)
            except OSError as error:
                log.warning("disk not asked reason=%s", error)
            self._disk_filled.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FULL_DISK_CHECK_S if "disk_full" in self._conditions else DISK_CHECK_S):
                    await self._disk_filled.wait()

    # --- the clock, and the counters of signed messages

    async def _watch_clock(self) -> None:
        saved_at = self.mono()
        while True:
            await asyncio.sleep(LOOK_S)
            changed = self.clock.look()
            self.hub.watch_clock(self.mono())
            self.delivery.tick()
            self._meter_link()
            if changed or self.mono() - saved_at >= SAVE_CLOCK_S:
                saved_at = self.mono()
                self._save_clock()
                self.changed()

    def clock_told(self) -> None:
        self._save_clock()
        self.changed()

    def _save_clock(self) -> None:
        changes, after = self._clock_to_save()
        self.commit([*changes, *self.metering.to_save()], after)

    def _save_clock_at_once(self) -> None:
        """Before the first message: no number of the last start is used again."""
        changes, after = self._clock_to_save()
        try:
            self.store.store.commit(changes)
        except StoreError as error:
            log.error("counters not saved reason=%s", error)
            if self.clock.trusted:
                after()  # by a clock that is right they are above all earlier ones anyway
        else:
            after()

    def _clock_to_save(self) -> tuple[list[Change], Callable[[], None]]:
        changes: list[Change] = [ValueKept("clock", self.clock.to_save())]
        if self.hub.sealing is None:
            return changes, _nothing
        counters, after = self.hub.sealing.to_save()
        return [*changes, ValueKept("counters", counters)], after

    # --- what the link carries

    def _carried(self, consult: bytes, size_bytes: int) -> None:
        self.metering.handed_over(consult, size_bytes)
        if self.metering.look():
            self._held_or_let_go()
        if self.metering.wants_saving_at_once:
            self.commit(self.metering.to_save(), _nothing)

    def _meter_link(self) -> None:
        if self.metering.look():
            self._held_or_let_go()
        self.metering.rest()
        if self.metering.wants_saving:
            self.commit(self.metering.to_save(), _nothing)
            self.changed()
        if self.metering.plan.is_set and self.mono() - self._spent_told_at >= TELL_SPENT_S:
            self._tell_spent()

    def _held_or_let_go(self) -> None:
        self.delivery.let_go()
        self._tell_spent()
        self.changed()

    def _tell_spent(self) -> None:
        if self.hub.reachable:
            self._spent_told_at = self.mono()
            self.publish(b"", self.metering.report())

    # --- for drafts and advice

    def mono(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return self.clock.wall_ms()

    def play(
        self,
        clips: Sequence[Clip],
        done: Callable[[bool], None] | None = None,
        then_loop: Sequence[Clip] = (),
    ) -> None:
        self.sounds.play(clips, then_loop=then_loop, done=done or self._spoken)

    def _spoken(self, whole: bool) -> None:
        if self.machine.status.state is State.DRAFT and self.machine.media_up:
            self.drafts.spoken()
            self._arm()
        self.turns.spoken()

    def hush(self) -> None:
        self.sounds.hush()

    def media_is_up(self) -> bool:
        return self.media.up

    def send_media(self, frame: ipc.ToMedia) -> bool:
        return self.media.send(frame)

    def case_saved(self, consult: bytes, changes: list[Change]) -> None:
        """The draft's end and the machine's memory of it are one transaction."""
        if consult == self.machine.status.consult and self.machine.status.state is State.DRAFT:
            self._kept_status = core.Status()
            changes.append(ValueKept("call", msgspec.msgpack.encode(self._kept_status)))

    def draft_finished(self, consult: bytes, saved: bool) -> None:
        if consult == self.machine.status.consult:
            self.last_saved = consult if saved else b""
            self.tell_call(events.DraftSaved() if saved else events.DraftDropped())
        self.changed()

    def draft_changed(self) -> None:
        self.changed()

    def advice_changed(self) -> None:
        self.changed()

    def records_changed(self) -> None:
        self.changed()

    def file_waits(self, consult: bytes, digest: bytes) -> bool:
        return self.delivery.file_waits(consult, digest)

    def advice_came(self, advice: bytes) -> None:
        if self.machine.status.state in QUIET and self.advice.shown is None and self.sounds.silent:
            self.play([Tone(TONE_PRESS), Prompt("advice_waiting")])
        self.changed()

    # --- for turns

    def is_silent(self) -> bool:
        return self.sounds.silent

    def unsent(self, consult: bytes) -> bool:
        return self.delivery.says_in(consult)

    def nothing_live_fits(self, call: bytes) -> None:
        self.tell_call(events.NothingLiveFits(call))

    def live_fits(self, call: bytes) -> None:
        self.tell_call(events.LiveFits(call))

    def turns_changed(self) -> None:
        self._arm()
        self.changed()

    # --- the button

    def _contact(self, pressed: bool, at: float) -> None:
        for gesture in self._gestures.changed(pressed, at):
            self._gesture(gesture)
        self._arm()

    def _gesture(self, gesture: Gesture) -> None:
        match gesture:
            case _ if self.door.takes(gesture):
                pass
            case Pressed():
                self.press()
            case Released():
                self.release()
            case Held(seconds) if seconds == EMERGENCY_HOLD_S:
                self.tell_call(events.HeldForEmergency())
            case Held(seconds) if seconds == CANCEL_HOLD_S:
                self.tell_call(events.HeldToCancel())
            case Stuck():
                log.warning("button stuck")
                self.condition("button_stuck", True)
            case ButtonFreed():
                log.info("button free")
                self.condition("button_stuck", False)

    # --- for self-tests

    def own_state(self) -> AgentState:
        board = self.board
        return AgentState(
            quiet=self.machine.status.state in QUIET,
            media_up=self.media.up,
            broker_up=self.hub.link is not None and self.hub.link.up,
            clock_trusted=self.clock.trusted,
            clock_wrong=self.clock.wrong,
            conditions=self.conditions,
            unsent_since_ms=self.delivery.oldest_ms(),
            wall_ms=self.wall_ms(),
            button_down_s=self._gestures.down_s(self.mono()),
            board="" if board is not None or self.settings.devices.board == "none" else "its pins cannot be used",
            has_button=board is not None and board.has_button,
            has_lamp=board is not None and board.has_lamp,
            version=self._software,
        )

    def own_status(self) -> AgentStatus:
        verdict = self.metering.verdict
        urgent = {consult.id for consult in self.records.consults.values() if consult.emergency}
        return AgentStatus(
            release=self._software,
            broker_up=self.hub.link is not None and self.hub.link.up,
            hub_reached=self.hub.reachable,
            clock_trusted=self.clock.trusted,
            conditions=self.conditions,
            waiting=waiting_items(self.delivery.waiting(), urgent),
            set_aside=self.delivery.set_aside,
            last_receipt_ms=self._last_receipt_ms,
            spent=self.metering.spent,
            held=verdict.why,
            held_until_ms=verdict.until_ms,
            key_is_protected=self.store.store.key_is_protected,
        )

    def try_again(self) -> None:
        self.delivery.try_again()

    def light_changed(self) -> None:
        self._show_light()

    def tell_report(self, report: Report) -> None:
        if report.failed and self.machine.status.state in QUIET and self.sounds.silent:
            self.play(
                [
                    Prompt("self_test_failed"),
                    Spoken(", ".join(report.code.replace(" ", ""))),
                ]
            )
        self.changed()

    # --- time

    def _now(self) -> events.Now:
        return events.Now(time.monotonic(), self.wall_ms())

    def _arm(self) -> None:
        parts = (self.machine, self.drafts, self._gestures, self.advice, self.turns)
        due = min((at for part in parts if (at := part.next_deadline()) is not None), default=None)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if due is None else asyncio.get_running_loop().call_at(due, self._tick)

    def _tick(self) -> None:
        now = self._now()
        for gesture in self._gestures.tick(now.mono):
            self._gesture(gesture)
        before = self.machine.status
        effects = self.machine.tick(now)
        if effects or self.machine.status != before:
            self._carry_out(effects, before)
        self.drafts.tick()
        self.advice.tick()
        self.turns.tick()
        self._arm()

    # --- the media process

    def media_frame(self, frame: Any) -> None:
        match frame:
            case ipc.FarPicture() | ipc.OwnPicture():
                for listener in tuple(self._listeners):
                    listener(frame)
            case ipc.MediaReady(missing, details):
                self._media_ready(missing, details)
            case ipc.OfferMade(call, leg, sdp):
                self.tell_call(events.OfferMade(call, leg, sdp))
            case ipc.MediaConnected(call, leg):
                self.tell_call(events.MediaConnected(call, leg))
            case ipc.MediaStalled(call, leg):
                self.tell_call(events.MediaStalled(call, leg))
            case ipc.MediaFlowing(call, leg):
                self.tell_call(events.MediaFlowing(call, leg))
            case ipc.MediaLost(call, leg, reason):
                log.info("media lost call=%s leg=%d reason=%s", call.hex(), leg, reason)
                self.tell_call(events.MediaLost(call, leg))
            case ipc.Played():
                self.sounds.played(frame)
            case ipc.Recorded():
                self.drafts.recorded(frame)
            case ipc.RecordingLevel():
                self.drafts.recording_level(frame)
            case ipc.PhotoTaken():
                self.drafts.photo_taken(frame)
            case ipc.FirstHeard(call):
                log.info("first heard call=%s", call.hex())
            case ipc.FirstSeen(call):
                log.info("first seen call=%s", call.hex())
            case ipc.CallStats():
                log.debug("call stats %s", frame)
                if self.machine.status.consult:
                    self.metering.call(self.machine.status.consult, frame)
                if frame.link_known:
                    self._link_measured(frame.up_bps)
                self.turns.stats(frame, judged=self.machine.status.state in (State.LIVE, State.LOST))
            case ipc.TurnSound():
                self.turns.sound(frame)
            case ipc.LiveProbed():
                self.turns.probed(frame)
                self._arm()

    def _media_ready(self, missing: tuple[str, ...], details: tuple[str, ...]) -> None:
        for line in details:
            log.warning("device missing %s", line)
        self._media_missing = missing
        self.condition("media_missing", False)
        self._hardware_missing()
        self.drafts.devices(missing)
        if not self.machine.media_up:
            log.info("media process ready pid=%d", self.media.pid)
            if self._pictures_as:
                self.media.send(ipc.SendPicturesAs(self._pictures_as))
            self.tell_call(events.MediaProcessUp())
            status = self.machine.status
            if loop := _LOOPS.get(status.state):
                self.play([], then_loop=loop)
            elif status.state is State.DRAFT and self.sounds.silent:
                self.play(self.drafts.prompt())

    def media_died(self) -> None:
        self.condition("media_missing", True)
        self.sounds.media_died()
        self.drafts.media_died()
        self.turns.media_died()
        self.tell_call(events.MediaProcessDied())

    def _hardware_missing(self) -> None:
        board: tuple[str, ...] = ("button", "lamp")
        if self.board is not None:
            board = tuple(
                name for name, has in (("button", self.board.has_button), ("lamp", self.board.has_lamp)) if not has
            )
        self.missing = (*self._media_missing, *board)
        for name in ("camera", "microphone", "speaker", "button", "lamp"):
            self.condition(f"{name}_missing", name in self.missing)

    # --- the hub

    def hub_reached(self) -> None:
        self.door.hub_reached()
        self.tell_call(events.HubReached())
        self.delivery.reached()
        self.downlink.reached()

    def hub_went_back(self, epoch: bytes, since_ms: int) -> None:
        if epoch != self._hub_epoch:
            self._hub_epoch = epoch
            task = asyncio.get_running_loop().create_task(self._offer_again(epoch, since_ms))
            self._offering.add(task)
            task.add_done_callback(self._offering.discard)

    async def _offer_again(self, epoch: bytes, since_ms: int) -> None:
        """Killed on the way, it is done again: what waits once more is in the store, and the epoch is noted last."""
        await self._journal.flush(FLUSH_S)
        try:
            messages = await self.store.run(self.store.store.take_back, since_ms)
        except StoreError as error:
            self._hub_epoch = b""
            self.store_failed(error)
            return
        log.info("hub was restored, offered again messages=%d", len(messages))
        self.delivery.add(*messages)
        self.commit([ValueKept("hub_epoch", epoch)], _nothing)

    def hub_is_new(self, other_release: bool) -> None:
        self.delivery.hub_is_new(other_release)

    def address_changed(self) -> None:
        log.info("own address changed")
        self.tell_call(events.AddressChanged())

    def hub_lost(self) -> None:
        self.delivery.lost()
        self.tell_call(events.HubLost())

    def hub_told(self, message: wire.Message) -> None:
        consult, body = message.consult, message.body
        match body:
            case wire.CallState():
                self._call_state(consult, body)
            case wire.Answer(call, leg, sdp):
                self.tell_call(events.AnswerCame(call, leg, sdp))
            case wire.NewLegWanted(call, leg):
                if self.clock.trusted and self.wall_ms() - message.sent_at_ms > OLD_WISH_MS:
                    log.info("new leg wanted long ago call=%s leg=%d", call.hex(), leg)
                else:
                    self.tell_call(events.NewLegAsked(call, leg))
            case wire.Receipt():
                self.delivery.receipt(body)
            case wire.Have():
                self.delivery.have(consult, body)
            case wire.CourierReceipt(ids, files):
                self.delivery.receipt(wire.Receipt(ids))
                for of_consult, digest in files:
                    self.delivery.have(of_consult, wire.Have(digest, (), True))
            case wire.TurnPart() | wire.TurnHeard():
                self.turns.take(message)
            case wire.Advice() | wire.Progress() | wire.Manifest() | wire.FileWanted() | wire.Chunk():
                self.downlink.take(message, self.wall_ms())
            case _:
                log.warning("message not for a kiosk kind=%d", body.KIND)

    def _call_state(self, consult: bytes, state: wire.CallState) -> None:
        call = state.call
        match state.phase:
            case "ringing":
                self.tell_call(events.HubRang(call))
            case "claimed":
                self.tell_call(events.HubClaimed(call, state.doctor, state.ice_servers))
            case "answered":
                self.tell_call(events.HubAnswered(call, state.doctor, state.ice_servers))
            case "ended":
                self.tell_call(events.HubEnded(call, state.outcome or "unanswered"))
            case "calling_kiosk" if call not in self._ended_calls and consult:
                self.tell_call(events.DoctorRang(call, consult, state.doctor, state.ice_servers))

    def _for_courier(self, message: wire.Message, file_key: bytes) -> Sealed:
        assert self.hub.sealing is not None  # noqa: S101 -- the desk is open only then
        return Sealed(*self.hub.sealing.seal(self.clock.for_sending(message), file_key))

    async def _from_courier(self, said: Sealed) -> None:
        self.hub.link_message(said.topic, said.payload)
        await self.downlink.settled()
        await self._journal.flush(FLUSH_S)

    def publish(self, consult: bytes, body: wire.Body) -> None:
        self.hub.publish(consult, body)

    def _status(self, *, online: bool) -> wire.Status:
        warnings = tuple(code for code in self._conditions if not code.endswith("_missing"))
        return wire.Status(
            online=online,
            software=self._software,
            boot=self._boot,
            clock_trusted=self.clock.trusted,
            missing=self.missing,
            warnings=warnings,
            call=self.machine.status.call,
            language=self.language,
        )

    def condition(self, code: str, holds: bool) -> None:
        if holds == (code in self._conditions):
            return
        if holds:
            self._conditions[code] = None
        else:
            del self._conditions[code]
        self.changed()


def _nothing() -> None:
    pass
