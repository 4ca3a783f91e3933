"""The call machine: what a press, the hub, the media process and time do to the one consult at the screen.

Pure. `handle(event, now)` gives effects, `next_deadline()` says when `tick(now)` wants to be called; `status` is for
the screen and `snapshot()`/`restore()` carry the machine over a restart. It must not know how effects are carried
out: messages it asks to send are durable or repeatable, so a crash between event and effect costs time only.

The whole behaviour is `TABLE` at the end of the file; `docs/call-states.svg` is drawn from it. The rules:

1. One press opens one consult; everything until it is closed happens in it, whatever the link does.
2. A press while somebody is being called never ends anything: it says again that it was heard.
3. An emergency is never taken back by a timer: it rings on, or shows the clinic's own instruction.
4. A call that was live is mended for `reconnect_timeout_s`. Then people speak in turns where the hub is reached, as
   they do when nothing live fits; where it is not, the consult goes on as a message.
5. Speaking in turns is the same call: media is kept, or mended, at rest, and live goes on by itself once it fits. The
   button is for speaking, and no hold of it means anything else.
6. The hub's word on a call is idempotent; word on any other call than the current one changes nothing here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal, NamedTuple

from edge_agent.core import wire
from edge_agent.core.call_events import (
    AddressChanged,
    AnswerCame,
    CancelChosen,
    CancelQuestionExpired,
    ClaimTimedOut,
    DismissChosen,
    DoctorRang,
    DraftDropped,
    DraftSaved,
    Effect,
    EmergencyAgainDue,
    Event,
    GiveAnswer,
    HeldForEmergency,
    HeldToCancel,
    HubAnswered,
    HubClaimed,
    HubEnded,
    HubLost,
    HubRang,
    HubReached,
    HubReplyTimedOut,
    Hush,
    LiveFits,
    MediaConnected,
    MediaFlowing,
    MediaLost,
    MediaProcessDied,
    MediaProcessUp,
    MediaStalled,
    MessageChosen,
    NewCaseChosen,
    NewLegAsked,
    NewLegDue,
    NothingLiveFits,
    Now,
    OfferAgainDue,
    OfferMade,
    OpenConsult,
    OpenDraft,
    PressDraft,
    Pressed,
    ReconnectTimedOut,
    Released,
    RestMedia,
    RingTimedOut,
    Say,
    SayTurnsDue,
    ScreenTimedOut,
    Send,
    Speak,
    StartMedia,
    StopMedia,
    StopSpeaking,
    TurnsTimedOut,
    UnholdMedia,
)


class State(Enum):
    IDLE = "idle"
    RINGING = "ringing"  # a doctor is being called
    CLAIMED = "claimed"  # a doctor is coming on; media connects and is held
    LIVE = "live"
    LOST = "lost"  # the line broke in the call and is being mended
    TURNS = "turns"  # nothing live fits: people speak in turns
    INCOMING = "incoming"  # the doctor rings the kiosk
    OFFER = "offer"  # nobody could talk: a message instead?
    DRAFT = "draft"  # the guided message
    SAVED = "saved"
    ENDED = "ended"
    EMERGENCY = "emergency"  # an emergency that reaches nobody: the clinic's own instruction


class Timer(Enum):
    HUB_REPLY = "hub_reply"
    RING = "ring"
    CLAIM = "claim"
    RECONNECT = "reconnect"
    TURNS = "turns"  # without the hub no turn comes anywhere
    SAY_TURNS = "say_turns"  # the far end is told
    NEW_LEG = "new_leg"  # the leg under way did not come up: try another
    OFFER_AGAIN = "offer_again"  # the offer, or its answer, may have been lost
    EMERGENCY_AGAIN = "emergency_again"  # nobody heard it: it rings anew
    CANCEL_QUESTION = "cancel_question"
    SCREEN = "screen"  # a screen that goes away by itself


_TIMER_EVENTS: dict[Timer, Event] = {
    Timer.HUB_REPLY: HubReplyTimedOut(),
    Timer.RING: RingTimedOut(),
    Timer.CLAIM: ClaimTimedOut(),
    Timer.RECONNECT: ReconnectTimedOut(),
    Timer.TURNS: TurnsTimedOut(),
    Timer.SAY_TURNS: SayTurnsDue(),
    Timer.NEW_LEG: NewLegDue(),
    Timer.OFFER_AGAIN: OfferAgainDue(),
    Timer.EMERGENCY_AGAIN: EmergencyAgainDue(),
    Timer.CANCEL_QUESTION: CancelQuestionExpired(),
    Timer.SCREEN: ScreenTimedOut(),
}


# --- what is remembered ---


class CallTimes(NamedTuple):
    hub_reply_s: float = 8.0
    ring_s: float = 60.0
    claim_s: float = 45.0
    reconnect_s: float = 60.0
    new_leg_s: float = 12.0  # offer, answer, checks and DTLS over 1.3 s of round trip, with a loss or two
    turns_new_leg_s: float = 30.0
    say_turns_s: float = 1.5  # what was sent live has left the queue: before, the word is lost in it, and TCP waits
    stalled_new_leg_s: float = 9.0  # after the media process has called it a stall: 12 s are outlived without
    offer_again_s: float = 3.0
    emergency_again_s: float = 20.0
    cancel_question_s: float = 15.0
    ended_screen_s: float = 8.0
    offer_screen_s: float = 60.0


HeardBy = Literal["machine", "hub", "person"]


@dataclass(frozen=True, slots=True)
class Status:
    """Everything a restart must know, and all the screen shows of a call."""

    state: State = State.IDLE
    consult: bytes = b""
    call: bytes = b""
    by: str = "patient"
    heard_by: HeardBy = "machine"
    emergency: bool = False
    placed_by_doctor: bool = False
    doctor: str = ""
    ice_servers: tuple[wire.IceServer, ...] = ()
    leg: int = 0
    leg_connected: bool = False
    stalled: bool = False
    answered_at_ms: int = 0  # 0: nobody has spoken
    cancel_asked: bool = False
    speaking: bool = False  # a turn
    instructed: bool = False  # the clinic's emergency instruction is shown while it rings on
    draft_open: bool = False
    emergency_consult: bytes = b""  # an unheard emergency that waits while the doctor rings the kiosk


class CallMachine:
    """See the module. `hub_reachable` and `media_up` are inputs too, by their events."""

    def __init__(self, times: CallTimes = CallTimes()) -> None:  # noqa: B008 -- immutable
        self.status = Status()
        self.hub_reachable = False
        self.media_up = False
        self._times = times
        self._deadlines: dict[Timer, float] = {}
        self._offer: OfferMade | None = None
        self._effects: list[Effect] = []
        self._now = Now(0.0, 0)

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """The effects of an event, in the order they are to be carried out."""
        self._now = now
        self._effects = []
        self._note(event)
        if not self._concerns_another_call(event):
            for rule in TABLE[self.status.state].get(type(event), ()):
                if rule.when is None or rule.when(self, event):
                    self._take(rule, event)
                    break
        return self._effects

    def tick(self, now: Now) -> list[Effect]:
        """The effects of every timer that is due, in the order they became due."""
        effects: list[Effect] = []
        while due := min(
            ((at, timer) for timer, at in self._deadlines.items() if at <= now.mono), default=None, key=_at
        ):
            del self._deadlines[due[1]]
            effects += self.handle(_TIMER_EVENTS[due[1]], now)
        return effects

    def next_deadline(self) -> float | None:
        """Monotonic seconds, or None while nothing is waited for."""
        return min(self._deadlines.values(), default=None)

    def snapshot(self) -> Status:
        return self.status

    def restore(self, status: Status, now: Now) -> list[Effect]:
        """After a restart: take up what a `snapshot` says was under way. Deadlines start afresh."""
        self._now = now
        self._effects = []
        state = status.state
        self.status = replace(status, leg_connected=False, stalled=False, cancel_asked=False, speaking=False)
        if state is State.TURNS:
            self._enter(State.TURNS)
            self.arm(Timer.TURNS, self._times.reconnect_s)  # the hub is not reached yet
            _mend(self, HubReached())
        elif state in (State.LIVE, State.LOST) or (state is State.CLAIMED and status.placed_by_doctor):
            self._enter(State.LOST)
            _mend(self, HubReached())
        elif state in (State.RINGING, State.CLAIMED):
            self._enter(State.RINGING)
            self.set(heard_by="machine")
            _ask_hub(self, HubReached())
        elif status.emergency_consult:
            self._enter(State.EMERGENCY)
            _resume_emergency(self, HubReached())
        elif state is State.EMERGENCY:
            self._enter(State.EMERGENCY)
        elif state is State.DRAFT or status.draft_open:
            self._enter(State.DRAFT)
            self.set(draft_open=True, call=b"")
            self.emit(OpenDraft(status.consult, status.by))
        else:
            self.status = Status()
        return self._effects

    # used by the rules below

    def emit(self, effect: Effect) -> None:
        self._effects.append(effect)

    def set(self, **changes: object) -> None:
        self.status = replace(self.status, **changes)  # type: ignore[arg-type]

    def arm(self, timer: Timer, seconds: float) -> None:
        self._deadlines[timer] = self._now.mono + seconds

    def disarm(self, *timers: Timer) -> None:
        for timer in timers:
            self._deadlines.pop(timer, None)

    @property
    def times(self) -> CallTimes:
        return self._times

    @property
    def wall_ms(self) -> int:
        return self._now.wall_ms

    @property
    def pending_offer(self) -> OfferMade | None:
        return self._offer

    @pending_offer.setter
    def pending_offer(self, offer: OfferMade | None) -> None:
        self._offer = offer

    def _note(self, event: Event) -> None:
        if isinstance(event, HubReached):
            self.hub_reachable = True
        elif isinstance(event, HubLost):
            self.hub_reachable = False
        elif isinstance(event, MediaProcessUp):
            self.media_up = True
        elif isinstance(event, MediaProcessDied):
            self.media_up = False
            self.set(leg_connected=False)
        elif isinstance(event, (DraftSaved, DraftDropped)):
            self.set(draft_open=False)

    def _concerns_another_call(self, event: Event) -> bool:
        call = getattr(event, "call", None)
        return call is not None and not isinstance(event, DoctorRang) and call != self.status.call

    def _take(self, rule: Rule, event: Event) -> None:
        if rule.to is not None and rule.to is not self.status.state:
            self._enter(rule.to)
        for action in rule.do:
            action(self, event)

    def _enter(self, state: State) -> None:
        """Timers belong to the states in `_TIMERS_OF`; entering another state ends the rest."""
        for timer in tuple(self._deadlines):
            if state not in _STATES_OF[timer]:
                del self._deadlines[timer]
        self.set(state=state, cancel_asked=False, speaking=False)
        for timer, seconds in _TIMERS_OF.get(state, ()):
            if timer not in self._deadlines:
                self.arm(timer, seconds(self._times))


def _at(due: tuple[float, Timer]) -> float:
    return due[0]


# --- conditions ---


def _reachable(m: CallMachine, _: Event) -> bool:
    return m.hub_reachable


def _emergency(m: CallMachine, _: Event) -> bool:
    return m.status.emergency


def _speaking(m: CallMachine, _: Event) -> bool:
    return m.status.speaking


def _not_speaking(m: CallMachine, _: Event) -> bool:
    return not m.status.speaking


def _cancel_asked(m: CallMachine, _: Event) -> bool:
    return m.status.cancel_asked


def _placed_by_doctor(m: CallMachine, _: Event) -> bool:
    return m.status.placed_by_doctor


def _emergency_waits(m: CallMachine, _: Event) -> bool:
    return m.status.emergency_consult != b""


def _leg_down(m: CallMachine, _: Event) -> bool:
    return not m.status.leg_connected


def _leg_up(m: CallMachine, _: Event) -> bool:
    return m.status.leg_connected


def _draft_waits(m: CallMachine, _: Event) -> bool:
    return m.status.draft_open


def _they_talked(_: CallMachine, event: Event) -> bool:
    return isinstance(event, HubEnded) and event.outcome in ("answered", "cancelled")


def _current_leg(m: CallMachine, event: Event) -> bool:
    return getattr(event, "leg", 0) == m.status.leg


def _leg_connects(m: CallMachine, event: Event) -> bool:
    return _current_leg(m, event) and not m.status.leg_connected


def _newer_leg_wanted(m: CallMachine, event: Event) -> bool:
    return isinstance(event, NewLegAsked) and event.leg >= m.status.leg


# --- actions ---


def _open(m: CallMachine, event: Event) -> None:
    """A new consult; what was on the screen before is done with."""
    by = getattr(event, "by", "patient")
    m.status = Status(state=m.status.state, consult=wire.new_consult_id(), by=by)
    m.emit(OpenConsult(m.status.consult, by))
    m.emit(Send(m.status.consult, wire.ConsultOpened(m.wall_ms, by)))


def _request(m: CallMachine, event: Event) -> None:
    """A new call in the consult at hand."""
    emergency = m.status.emergency or isinstance(event, HeldForEmergency)
    m.set(
        call=wire.new_message_id(), heard_by="machine", emergency=emergency, placed_by_doctor=False, doctor="",
        leg=0, leg_connected=False, stalled=False, answered_at_ms=0, instructed=False,
    )  # fmt: skip
    m.pending_offer = None
    _ask_hub(m, event)


def _ask_hub(m: CallMachine, _: Event) -> None:
    """The request as it stands; the hub answers with the call's state, however often it hears it."""
    m.emit(Send(m.status.consult, wire.CallRequested(m.status.call, m.wall_ms, m.status.emergency)))
    if m.status.heard_by == "machine":
        m.arm(Timer.HUB_REPLY, m.times.hub_reply_s)


def _raise_emergency(m: CallMachine, event: Event) -> None:
    m.set(emergency=True)
    _ask_hub(m, event)


def _heard_by_hub(m: CallMachine, _: Event) -> None:
    m.disarm(Timer.HUB_REPLY)
    if m.status.heard_by != "hub":
        m.set(heard_by="hub")
        m.emit(Say("hub_heard"))


def _expect_hub_again(m: CallMachine, _: Event) -> None:
    m.set(heard_by="machine")
    m.arm(Timer.HUB_REPLY, m.times.hub_reply_s)


def _instruct(m: CallMachine, _: Event) -> None:
    m.set(instructed=True)
    m.emit(Say("emergency_instruction"))
    m.arm(Timer.RING, m.times.ring_s)


def _claimed(m: CallMachine, event: Event) -> None:
    assert isinstance(event, (HubClaimed, HubAnswered))  # noqa: S101 -- for the type checker
    m.disarm(Timer.HUB_REPLY)
    m.set(heard_by="person", doctor=event.doctor or m.status.doctor, ice_servers=event.ice_servers)
    _new_leg(m, event)


def _new_leg(m: CallMachine, _: Event) -> None:
    """Another media connection; the older one goes on until this one is up. Made afresh each time: an offer of before
    has addresses in it that may be gone, and lacks those that could not be asked for without a line."""
    if not m.media_up:
        return  # MediaProcessUp comes back here
    m.set(leg=m.status.leg + 1, leg_connected=False)
    m.pending_offer = None
    held = m.status.state is State.TURNS or (m.status.state is State.CLAIMED and not m.status.placed_by_doctor)
    m.emit(StartMedia(m.status.call, m.status.leg, m.status.ice_servers, held))
    m.disarm(Timer.OFFER_AGAIN)
    m.arm(Timer.NEW_LEG, m.times.turns_new_leg_s if m.status.state is State.TURNS else m.times.new_leg_s)


def _new_leg_if_down(m: CallMachine, event: Event) -> None:
    if not m.status.leg_connected:
        _new_leg(m, event)


def _mend(m: CallMachine, event: Event) -> None:
    """In LOST: another leg where that can get anywhere, else try again soon."""
    if m.hub_reachable and m.media_up:
        _new_leg(m, event)
    else:
        m.arm(Timer.NEW_LEG, m.times.stalled_new_leg_s)


def _offer(m: CallMachine, event: Event) -> None:
    """Of a leg, and again when it has more candidates."""
    assert isinstance(event, OfferMade)  # noqa: S101
    m.pending_offer = event
    _offer_again(m, event)


def _offer_again(m: CallMachine, _: Event) -> None:
    if m.pending_offer:
        offer = m.pending_offer
        m.emit(Send(m.status.consult, wire.Offer(offer.call, offer.leg, offer.sdp)))
        m.arm(Timer.OFFER_AGAIN, m.times.offer_again_s)


def _give_answer(m: CallMachine, event: Event) -> None:
    assert isinstance(event, AnswerCame)  # noqa: S101
    m.pending_offer = None
    m.disarm(Timer.OFFER_AGAIN)
    m.emit(GiveAnswer(event.call, event.leg, event.sdp))


def _connected(m: CallMachine, _: Event) -> None:
    m.set(leg_connected=True, stalled=False)
    m.pending_offer = None
    m.disarm(Timer.NEW_LEG, Timer.OFFER_AGAIN)
    m.emit(Send(m.status.consult, wire.MediaState(m.status.call, m.status.leg, "connected")))


def _take_turns(m: CallMachine, _: Event) -> None:
    m.emit(RestMedia(m.status.call))
    m.arm(Timer.SAY_TURNS, m.times.say_turns_s)


def _say_turns(m: CallMachine, _: Event) -> None:
    m.emit(Send(m.status.consult, wire.MediaState(m.status.call, max(1, m.status.leg), "turns")))


def _connected_in_turns(m: CallMachine, event: Event) -> None:
    m.set(leg_connected=True, stalled=False)
    m.pending_offer = None
    m.disarm(Timer.NEW_LEG, Timer.OFFER_AGAIN)
    m.emit(RestMedia(m.status.call))  # a leg of before was not started at rest
    _say_turns(m, event)


def _flowing_in_turns(m: CallMachine, event: Event) -> None:
    m.set(leg_connected=True, stalled=False)
    m.disarm(Timer.NEW_LEG, Timer.OFFER_AGAIN)
    m.emit(RestMedia(m.status.call))


def _stalled_in_turns(m: CallMachine, _: Event) -> None:
    m.set(stalled=True)
    m.arm(Timer.NEW_LEG, m.times.turns_new_leg_s)


def _broken_in_turns(m: CallMachine, event: Event) -> None:
    m.set(leg_connected=False)
    _mend(m, event)


def _live_again(m: CallMachine, _: Event) -> None:
    m.emit(UnholdMedia(m.status.call))
    m.emit(Send(m.status.consult, wire.MediaState(m.status.call, m.status.leg, "connected")))


def _speak(m: CallMachine, _: Event) -> None:
    m.set(speaking=True)
    m.emit(Speak())


def _stop_speaking(m: CallMachine, _: Event) -> None:
    m.set(speaking=False)
    m.emit(StopSpeaking())


def _end_turn(m: CallMachine, event: Event) -> None:
    """Before the state that it belongs to is left."""
    m.emit(StopSpeaking())


def _await_hub(m: CallMachine, _: Event) -> None:
    m.arm(Timer.TURNS, m.times.reconnect_s)


def _hub_is_back(m: CallMachine, event: Event) -> None:
    m.disarm(Timer.TURNS)
    _say_turns(m, event)  # which the hub may have missed
    if not m.status.leg_connected:
        _mend(m, event)


def _flowing(m: CallMachine, event: Event) -> None:
    """An older leg may be the one that came back; the newer one may still replace it."""
    assert isinstance(event, MediaFlowing)  # noqa: S101
    m.set(leg_connected=True, stalled=False)
    m.disarm(Timer.NEW_LEG, Timer.OFFER_AGAIN)
    m.emit(Send(m.status.consult, wire.MediaState(event.call, event.leg, "connected")))


def _stalled(m: CallMachine, _: Event) -> None:
    m.set(stalled=True)
    m.emit(Send(m.status.consult, wire.MediaState(m.status.call, m.status.leg, "stalled")))
    m.arm(Timer.NEW_LEG, m.times.stalled_new_leg_s)


def _stalled_before(m: CallMachine, _: Event) -> None:
    """The older leg went silent while the newer one is on its way."""
    m.set(stalled=True)
    m.emit(Send(m.status.consult, wire.MediaState(m.status.call, m.status.leg, "stalled")))


def _broken(m: CallMachine, event: Event) -> None:
    m.set(leg_connected=False)
    m.emit(Send(m.status.consult, wire.MediaState(m.status.call, max(1, m.status.leg), "lost")))
    _mend(m, event)


def _answered(m: CallMachine, event: Event) -> None:
    assert isinstance(event, HubAnswered)  # noqa: S101
    m.set(answered_at_ms=m.wall_ms, heard_by="person", doctor=event.doctor or m.status.doctor, instructed=False)
    m.emit(Hush())
    m.emit(UnholdMedia(m.status.call))


def _answered_after_all(m: CallMachine, _: Event) -> None:
    """A restart fell between the acceptance of the doctor's ringing and the hub's word on it."""
    m.set(answered_at_ms=m.status.answered_at_ms or m.wall_ms)


def _doctor_rang(m: CallMachine, event: Event) -> None:
    assert isinstance(event, DoctorRang)  # noqa: S101
    # Another consult's draft stays on disk and is taken up afterwards only if it is this consult's.
    draft_open = m.status.draft_open and m.status.consult == event.consult
    m.status = Status(
        state=m.status.state, consult=event.consult, call=event.call, by=m.status.by, heard_by="person",
        placed_by_doctor=True, doctor=event.doctor, ice_servers=event.ice_servers, draft_open=draft_open,
    )  # fmt: skip
    m.pending_offer = None
    m.emit(Say("incoming_call", loop=True))


def _accept(m: CallMachine, event: Event) -> None:
    if m.status.emergency_consult:  # it has reached a doctor: from here on this call is the emergency
        m.set(emergency=True, emergency_consult=b"")
    m.emit(Hush())
    _say_accepted(m, event)
    _new_leg(m, event)


def _say_accepted(m: CallMachine, _: Event) -> None:
    m.emit(Send(m.status.consult, wire.CallAccepted(m.status.call)))


def _doctor_rang_in_emergency(m: CallMachine, event: Event) -> None:
    waits = m.status.consult
    _doctor_rang(m, event)
    m.set(emergency_consult=waits)


def _resume_emergency(m: CallMachine, _: Event) -> None:
    """The doctor's ringing came to nothing; the emergency of before is still unheard."""
    draft_open = m.status.draft_open and m.status.consult == m.status.emergency_consult
    m.status = Status(
        state=m.status.state, consult=m.status.emergency_consult, by=m.status.by, emergency=True, draft_open=draft_open
    )


def _busy(m: CallMachine, event: Event) -> None:
    """Another call is refused; the current one, if the hub still rings it, was accepted and that was lost."""
    assert isinstance(event, DoctorRang)  # noqa: S101
    if event.call == m.status.call:
        if m.status.placed_by_doctor and m.status.state is not State.INCOMING:
            _say_accepted(m, event)
    else:
        m.emit(Send(event.consult, wire.CallEnded(event.call, "unanswered", 0, m.wall_ms)))


def _end(outcome: wire.Outcome) -> Action:
    def end(m: CallMachine, _: Event) -> None:
        talked = m.status.answered_at_ms > 0
        hung_up: wire.Outcome = "answered" if talked else "cancelled"
        _finish(m, hung_up if outcome in ("answered", "cancelled") else outcome)

    end.__name__ = f"end as {outcome}"
    return end


def _end_as_hub_says(m: CallMachine, event: Event) -> None:
    assert isinstance(event, HubEnded)  # noqa: S101
    _finish(m, event.outcome)


def _finish(m: CallMachine, outcome: wire.Outcome) -> None:
    status = m.status
    m.emit(StopMedia())
    m.emit(Send(status.consult, wire.CallEnded(status.call, outcome, status.answered_at_ms, m.wall_ms)))
    m.pending_offer = None
    m.set(call=b"", leg_connected=False, stalled=False, instructed=False)


def _ask_cancel(m: CallMachine, _: Event) -> None:
    m.set(cancel_asked=True)
    m.emit(Say("ask_cancel"))
    m.arm(Timer.CANCEL_QUESTION, m.times.cancel_question_s)


def _forget_question(m: CallMachine, _: Event) -> None:
    m.set(cancel_asked=False)


def _draft(m: CallMachine, event: Event) -> None:
    by = event.by if isinstance(event, NewCaseChosen) else m.status.by
    m.set(draft_open=True, by=by)
    m.emit(OpenDraft(m.status.consult, by))


def _press_draft(m: CallMachine, _: Event) -> None:
    m.emit(PressDraft())


def _set_emergency(m: CallMachine, _: Event) -> None:
    m.set(emergency=True)


def _wait_again(m: CallMachine, _: Event) -> None:
    m.arm(Timer.EMERGENCY_AGAIN, m.times.emergency_again_s)


def _clear(m: CallMachine, _: Event) -> None:
    m.status = Status(state=m.status.state)


def _say(key: str) -> Action:
    def say(m: CallMachine, _: Event) -> None:
        m.emit(Say(key))

    say.__name__ = f"say {key}"
    return say


def _say_emergency_or(key: str) -> Action:
    def say(m: CallMachine, _: Event) -> None:
        m.emit(Say("emergency_calling" if m.status.emergency else key))

    say.__name__ = f"say {key}"
    return say


def _hush(m: CallMachine, _: Event) -> None:
    m.emit(Hush())


# --- the table ---

Action = Callable[[CallMachine, Event], None]
Condition = Callable[[CallMachine, Event], bool]


class Rule(NamedTuple):
    to: State | None  # None: stay
    do: tuple[Action, ...] = ()
    when: Condition | None = None


def _to(to: State, *do: Action, when: Condition | None = None) -> Rule:
    return Rule(to, do, when)


def _stay(*do: Action, when: Condition | None = None) -> Rule:
    return Rule(None, do, when)


Rules = tuple[Rule, ...]
S = State

# What a press opens wherever nothing is under way.
_NEW_CONSULT: dict[type[Event], Rules] = {
    Pressed: (
        _to(S.RINGING, _open, _say("calling"), _request, when=_reachable),
        _to(S.DRAFT, _open, _say("offline_message"), _draft),
    ),
    HeldForEmergency: (
        _to(S.RINGING, _open, _say("emergency_calling"), _request, when=_reachable),
        _to(S.EMERGENCY, _open, _set_emergency, _say("emergency_instruction")),
    ),
    NewCaseChosen: (_to(S.DRAFT, _open, _draft),),
    DoctorRang: (_to(S.INCOMING, _doctor_rang),),
}
# Making, offering and answering media connections, the same in every state of a call that has media.
_LEGS: dict[type[Event], Rules] = {
    OfferMade: (_stay(_offer, when=_leg_connects),),
    OfferAgainDue: (_stay(_offer_again, when=_reachable),),
    AnswerCame: (_stay(_give_answer, when=_current_leg),),
    NewLegAsked: (_stay(_new_leg, when=_newer_leg_wanted),),
    MediaProcessUp: (_stay(_new_leg),),
    DoctorRang: (_stay(_busy),),
}
# Once each: the link is for what is said.
_LEGS_IN_TURNS = {event: rules for event, rules in _LEGS.items() if event is not OfferAgainDue}
_CALLING: dict[type[Event], Rules] = {
    CancelChosen: (_to(S.IDLE, _end("cancelled"), _say("cancelled"), _clear),),
    HeldToCancel: (
        _to(S.IDLE, _end("cancelled"), _say("cancelled"), _clear, when=_cancel_asked),
        _stay(_ask_cancel),
    ),
    HeldForEmergency: (
        _stay(when=_emergency),
        _stay(_say("emergency_calling"), _raise_emergency),
    ),
    HubEnded: (
        _to(S.EMERGENCY, _end_as_hub_says, _say("emergency_instruction"), when=_emergency),
        _to(S.OFFER, _end_as_hub_says, _say("declined")),
    ),
    CancelQuestionExpired: (_stay(_forget_question),),
}
_ENDING: dict[type[Event], Rules] = {
    CancelChosen: (_to(S.ENDED, _end("answered"), _say("call_ended")),),
    HeldToCancel: (
        _to(S.ENDED, _end("answered"), _say("call_ended"), when=_cancel_asked),
        _stay(_ask_cancel),
    ),
    CancelQuestionExpired: (_stay(_forget_question),),
    HubEnded: (
        _to(S.ENDED, _end_as_hub_says, _say("call_ended"), when=_they_talked),
        _to(S.EMERGENCY, _end_as_hub_says, _say("emergency_instruction"), when=_emergency),
        _to(S.DRAFT, _end_as_hub_says, _say("line_gone_message"), _draft),
    ),
}
# Holding the button is speaking: it cancels nothing, and no emergency is made of it.
_ENDING_TURNS: dict[type[Event], Rules] = {
    CancelChosen: (_to(S.ENDED, _end_turn, _end("answered"), _say("call_ended")),),
    HubEnded: tuple(Rule(rule.to, (_end_turn, *rule.do), rule.when) for rule in _ENDING[HubEnded]),
}
_SHOWN: dict[type[Event], Rules] = {
    **_NEW_CONSULT,
    DismissChosen: (_to(S.DRAFT, _draft, when=_draft_waits), _to(S.IDLE, _hush, _clear)),
    ScreenTimedOut: (_to(S.DRAFT, _draft, when=_draft_waits), _to(S.IDLE, _clear)),
}

TABLE: dict[State, dict[type[Event], Rules]] = {
    S.IDLE: {
        **_NEW_CONSULT,
    },
    S.RINGING: {
        **_CALLING,
        Pressed: (_stay(_say_emergency_or("still_calling")),),
        HubRang: (_stay(_heard_by_hub),),
        HubClaimed: (_to(S.CLAIMED, _say("doctor_coming"), _claimed),),
        HubAnswered: (_to(S.LIVE, _claimed, _answered),),
        HubLost: (_stay(_expect_hub_again),),
        HubReached: (_stay(_ask_hub),),
        HubReplyTimedOut: (
            _to(S.EMERGENCY, _end("unanswered"), _say("emergency_instruction"), when=_emergency),
            _to(S.DRAFT, _end("unanswered"), _say("offline_message"), _draft),
        ),
        RingTimedOut: (
            _stay(_instruct, when=_emergency),
            _to(S.OFFER, _end("unanswered"), _say("nobody_answers")),
        ),
        DoctorRang: (_stay(_busy),),
    },
    S.CLAIMED: {
        **_LEGS,
        **_CALLING,
        Pressed: (_stay(_say("doctor_coming")),),
        HubRang: (_to(S.RINGING, _hush, _heard_by_hub),),
        HubAnswered: (_to(S.LIVE, _answered),),
        HeldForEmergency: (_stay(_set_emergency, when=_placed_by_doctor), *_CALLING[HeldForEmergency]),
        HubReached: (_stay(_say_accepted, when=_placed_by_doctor), _stay(_ask_hub)),
        MediaConnected: (_stay(_connected, when=_current_leg),),
        MediaLost: (_stay(_new_leg, when=_current_leg),),
        AddressChanged: (_stay(_new_leg),),
        NewLegDue: (_stay(_new_leg_if_down),),
        ClaimTimedOut: (
            _to(S.RINGING, _end("unanswered"), _say("emergency_calling"), _request, when=_emergency),
            _to(S.OFFER, _end("unanswered"), _say("nobody_answers")),
        ),
    },
    S.LIVE: {
        **_LEGS,
        **_ENDING,
        MediaConnected: (_stay(_connected, when=_current_leg),),
        MediaStalled: (
            _to(S.LOST, _say("line_lost"), _stalled, when=_current_leg),
            _to(S.LOST, _say("line_lost"), _stalled_before, when=_leg_down),
        ),
        MediaLost: (
            _to(S.LOST, _say("line_lost"), _broken, when=_current_leg),
            _to(S.LOST, _say("line_lost"), when=_leg_down),
        ),
        AddressChanged: (_stay(_new_leg),),
        MediaProcessDied: (_to(S.LOST, _broken),),
        NewLegDue: (_to(S.LOST, _say("line_lost"), _mend, when=_leg_down),),
        NothingLiveFits: (_to(S.TURNS, _say("take_turns"), _take_turns, when=_reachable),),
    },
    S.LOST: {
        **_LEGS,
        **_ENDING,
        Pressed: (_stay(_say("line_lost")),),
        HeldForEmergency: (_stay(when=_emergency), _stay(_set_emergency, _say("line_lost"))),
        HubAnswered: (_stay(_answered_after_all),),
        HubReached: (_stay(_mend),),
        MediaConnected: (_to(S.LIVE, _hush, _connected, when=_current_leg),),
        MediaFlowing: (_to(S.LIVE, _hush, _flowing),),
        MediaLost: (_stay(_broken, when=_current_leg),),
        NewLegDue: (_stay(_mend),),
        NothingLiveFits: (_to(S.TURNS, _say("take_turns"), _take_turns, when=_reachable),),
        ReconnectTimedOut: (
            _to(S.TURNS, _say("take_turns"), _take_turns, _mend, when=_reachable),
            _to(S.EMERGENCY, _end("link_lost"), _say("emergency_instruction"), when=_emergency),
            _to(S.DRAFT, _end("link_lost"), _say("line_gone_message"), _draft),
        ),
    },
    S.TURNS: {
        **_LEGS_IN_TURNS,
        **_ENDING_TURNS,
        Pressed: (_stay(_speak, when=_not_speaking),),
        Released: (_stay(_stop_speaking, when=_speaking),),
        SayTurnsDue: (_stay(_say_turns),),
        LiveFits: (_to(S.LIVE, _end_turn, _say("live_again"), _live_again, when=_leg_up),),
        MediaConnected: (_stay(_connected_in_turns, when=_current_leg),),
        MediaFlowing: (_stay(_flowing_in_turns),),
        MediaStalled: (_stay(_stalled_in_turns, when=_current_leg),),
        MediaLost: (_stay(_broken_in_turns, when=_current_leg),),
        MediaProcessDied: (_stay(_stop_speaking),),
        AddressChanged: (_stay(_new_leg),),
        NewLegDue: (_stay(_mend),),
        HubAnswered: (_stay(_answered_after_all),),
        HubLost: (_stay(_await_hub),),
        HubReached: (_stay(_hub_is_back),),
        TurnsTimedOut: (
            _to(S.EMERGENCY, _end_turn, _end("link_lost"), _say("emergency_instruction"), when=_emergency),
            _to(S.DRAFT, _end_turn, _end("link_lost"), _say("line_gone_message"), _draft),
        ),
    },
    S.INCOMING: {
        Pressed: (_to(S.CLAIMED, _accept),),
        HeldForEmergency: (_to(S.CLAIMED, _accept, _set_emergency),),
        CancelChosen: (
            _to(S.EMERGENCY, _hush, _end("declined"), _resume_emergency, when=_emergency_waits),
            _to(S.DRAFT, _hush, _end("declined"), _draft, when=_draft_waits),
            _to(S.IDLE, _hush, _end("declined"), _clear),
        ),
        HubEnded: (
            _to(S.EMERGENCY, _hush, _end_as_hub_says, _resume_emergency, when=_emergency_waits),
            _to(S.DRAFT, _hush, _end_as_hub_says, _draft, when=_draft_waits),
            _to(S.IDLE, _hush, _end_as_hub_says, _clear),
        ),
        RingTimedOut: (
            _to(S.EMERGENCY, _hush, _end("unanswered"), _resume_emergency, when=_emergency_waits),
            _to(S.DRAFT, _hush, _end("unanswered"), _draft, when=_draft_waits),
            _to(S.IDLE, _hush, _end("unanswered"), _clear),
        ),
        DoctorRang: (_stay(_busy),),
    },
    S.OFFER: {
        Pressed: (_to(S.DRAFT, _draft),),
        MessageChosen: (_to(S.DRAFT, _draft),),
        HeldForEmergency: (
            _to(S.RINGING, _set_emergency, _say("emergency_calling"), _request, when=_reachable),
            _to(S.EMERGENCY, _set_emergency, _say("emergency_instruction")),
        ),
        DismissChosen: _SHOWN[DismissChosen],
        ScreenTimedOut: _SHOWN[ScreenTimedOut],
        DoctorRang: _NEW_CONSULT[DoctorRang],
    },
    S.DRAFT: {
        Pressed: (_stay(_press_draft),),
        HeldForEmergency: (
            _to(S.RINGING, _set_emergency, _say("emergency_calling"), _request, when=_reachable),
            _to(S.EMERGENCY, _set_emergency, _say("emergency_instruction")),
        ),
        DraftSaved: (_to(S.SAVED, _say("saved")),),
        DraftDropped: (_to(S.IDLE, _clear),),
        DoctorRang: (_to(S.INCOMING, _doctor_rang),),
    },
    S.SAVED: _SHOWN,
    S.ENDED: _SHOWN,
    S.EMERGENCY: {
        HubReached: (_to(S.RINGING, _say("emergency_calling"), _request),),
        Pressed: (
            _to(S.RINGING, _say("emergency_calling"), _request, when=_reachable),
            _stay(_say("emergency_instruction")),
        ),
        EmergencyAgainDue: (
            _to(S.RINGING, _say("emergency_calling"), _request, when=_reachable),
            _stay(_wait_again),
        ),
        MessageChosen: (_to(S.DRAFT, _draft),),
        DismissChosen: _SHOWN[DismissChosen],
        DoctorRang: (_to(S.INCOMING, _doctor_rang_in_emergency),),
    },
}  # fmt: skip

_TIMERS_OF: dict[State, tuple[tuple[Timer, Callable[[CallTimes], float]], ...]] = {
    # armed on entry, unless it runs already
    S.RINGING: ((Timer.RING, lambda t: t.ring_s),),
    S.CLAIMED: ((Timer.CLAIM, lambda t: t.claim_s),),
    S.LOST: ((Timer.RECONNECT, lambda t: t.reconnect_s),),
    S.INCOMING: ((Timer.RING, lambda t: t.ring_s),),
    S.OFFER: ((Timer.SCREEN, lambda t: t.offer_screen_s),),
    S.SAVED: ((Timer.SCREEN, lambda t: t.ended_screen_s),),
    S.ENDED: ((Timer.SCREEN, lambda t: t.ended_screen_s),),
    S.EMERGENCY: ((Timer.EMERGENCY_AGAIN, lambda t: t.emergency_again_s),),
}
_STATES_OF: dict[Timer, frozenset[State]] = {
    # a timer outlives a change between these
    Timer.HUB_REPLY: frozenset({S.RINGING}),
    Timer.RING: frozenset(),
    Timer.CLAIM: frozenset(),
    Timer.RECONNECT: frozenset(),
    Timer.TURNS: frozenset(),
    Timer.SAY_TURNS: frozenset(),
    Timer.NEW_LEG: frozenset({S.CLAIMED, S.LIVE, S.LOST, S.TURNS}),
    Timer.OFFER_AGAIN: frozenset({S.CLAIMED, S.LIVE, S.LOST, S.TURNS}),
    Timer.EMERGENCY_AGAIN: frozenset(),
    Timer.CANCEL_QUESTION: frozenset(),
    Timer.SCREEN: frozenset(),
}
