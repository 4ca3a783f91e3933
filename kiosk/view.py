"""What the kiosk's page shows: the agent's state in the words of a language, as one `kiosk.screen.View`."""

from __future__ import annotations

import time
from dataclasses import dataclass

from edge_agent.agent import Agent
from edge_agent.core.call import State, Status
from edge_agent.core.metered import MB
from edge_agent.core.outbox import Priority
from edge_agent.storage import StoredAdvice
from kiosk.language import Language
from kiosk.screen import (
    AdviceView,
    CallView,
    ConsultView,
    DraftView,
    Notice,
    PresenceView,
    Screen,
    TurnsView,
    View,
    WorkerView,
)
from kiosk.worker import WorkerLock

COMPLAINTS = (
    "fever", "cough", "breathing", "pain", "stomach", "diarrhoea", "injury", "skin", "pregnancy", "child", "eyes",
    "other",
)  # fmt: skip
MAX_LISTED = 60

_CALLS = (State.RINGING, State.CLAIMED, State.LIVE, State.LOST, State.TURNS, State.INCOMING)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a view needs besides the agent."""

    languages: tuple[str, ...]
    emergency_instruction: str  # the clinic's own, or ""
    speaks: bool
    simulated: bool


def build_view(agent: Agent, lock: WorkerLock, around: Surroundings) -> View:
    language = Language.load(agent.language)
    status = agent.machine.status
    screen = _screen(agent)
    title, detail = _title(agent, screen)
    instruction = around.emergency_instruction or language.say("emergency_instruction")
    state, position, until = agent.hub.presence
    talked = screen == "ended" and agent.last_outcome == "answered"
    saved = b"" if talked else agent.last_saved  # nobody who has talked with the doctor waits for him to see a message
    return View(
        screen=screen,
        language=agent.language,
        words=language.words,
        title=language.title(title),
        detail=instruction if screen == "emergency" else language.detail(detail),
        light=agent.light.value,
        presence=PresenceView(
            state=state, position=position, until=until, text=language.present(state, position, until)
        ),
        online=agent.hub.reachable,
        call=_call(status) if status.state in _CALLS else None,
        turns=_turns(agent) if status.state is State.TURNS else None,
        draft=_draft(agent),
        advice=tuple(_advice(agent, stored) for stored in _patients_advice(agent)),
        saved_consult=saved.hex(),
        saved_step=agent.step(saved) if saved else None,
        saved_times=agent.records.times(saved) if saved else {},
        saved_unsent_since_ms=agent.delivery.unsent_since_ms(saved) if saved else 0,
        notices=_notices(agent, language, around.speaks),
        worker=_worker(agent, lock, language) if lock.is_open else None,
        worker_face=lock.face,
        pin_error=_pin_error(lock, language),
        complaints=COMPLAINTS,
        emergency_instruction=instruction if status.state is State.EMERGENCY or status.instructed else "",
        languages=around.languages,
        simulated=around.simulated,
    )


def _screen(agent: Agent) -> Screen:
    state = agent.machine.status.state
    if agent.advice.shown is not None and state in (State.IDLE, State.SAVED, State.ENDED):
        return "advice"
    if state is State.DRAFT and agent.drafts.shown is None:
        return "saved" if agent.records.consults[agent.machine.status.consult].saved_at_ms else "idle"
    return state.value


def _title(agent: Agent, screen: Screen) -> tuple[str, str]:
    """Keys of the title and of the sentence under it."""
    status = agent.machine.status
    key: str = screen
    if status.cancel_asked:
        key = "cancel_asked"
    elif screen == "ringing":
        heard_by = "machine" if status.heard_by == "machine" else "hub"
        key = "ringing_emergency" if status.emergency else f"ringing_{heard_by}"
    elif screen == "turns":
        seen = agent.turns.seen
        key = "turns_speaking" if seen.speaking else "turns_hearing" if seen.far == "playing" else "turns"
    elif screen == "draft" and agent.drafts.shown is not None:
        key = f"draft_{agent.drafts.seen(agent.drafts.shown).step.value}"
    elif screen == "offer" and agent.last_outcome == "declined":
        key = "offer_declined"
    elif screen == "offer" and not agent.hub.reachable:
        key = "offer_offline"
    elif screen == "ended" and agent.last_outcome == "cancelled":
        key = "ended_cancelled"
    return key, key


def _call(status: Status) -> CallView:
    media = ""
    if status.state is State.LOST:
        media = "stalled" if status.stalled else "connecting"
    elif status.leg:
        media = "flowing" if status.leg_connected else "connecting"
    return CallView(
        heard_by=status.heard_by,
        emergency=status.emergency,
        doctor=status.doctor,
        live_since_ms=status.answered_at_ms,
        cancel_asked=status.cancel_asked,
        media=media,  # type: ignore[arg-type]
    )


def _turns(agent: Agent) -> TurnsView:
    seen = agent.turns.seen
    return TurnsView(speaking=seen.speaking, far=seen.far, waiting=seen.waiting, sent=seen.sent)


def _draft(agent: Agent) -> DraftView | None:
    flow = agent.drafts.shown
    if flow is None or agent.machine.status.state is not State.DRAFT:
        return None
    draft = agent.drafts.seen(flow)
    return DraftView(
        step=draft.step.value,
        recording=flow.recording,
        level=agent.drafts.level if flow.recording else 0.0,
        elapsed_ms=agent.drafts.elapsed_ms if flow.recording else 0,
        voice_ms=draft.voice_ms,
        photos=draft.photos,
        complaints=draft.complaints,
        urgency=draft.urgency,
        text=draft.text,
        patient=draft.patient,
        busy=flow.busy or flow.finished,
    )


def _patients_advice(agent: Agent) -> list[StoredAdvice]:
    """What waits, and what is being looked at."""
    waiting = agent.records.unheard()
    shown = agent.advice.shown
    return waiting if shown is None or shown in waiting else [*waiting, shown]


def _advice(agent: Agent, stored: StoredAdvice) -> AdviceView:
    advice = stored.advice
    return AdviceView(
        id=advice.advice.hex(),
        consult=stored.consult.hex(),
        given_by=advice.given_by,
        given_at_ms=advice.given_at_ms,
        text=advice.text,
        voice=bool(advice.reply),
        voice_arrived=agent.records.voice_arrived(stored),
        playing=agent.advice.playing is stored,
        heard=bool(stored.heard_at_ms),
    )


def _notices(agent: Agent, language: Language, speaks: bool) -> tuple[Notice, ...]:
    codes = list(agent.conditions)
    if not agent.hub.reachable:
        codes.append("hub_unreachable")
    if not speaks:
        codes.append("speech_missing")
    notices = [Notice(code=code, text=language.notice(code)) for code in codes]
    if (report := agent.door.report).failed:
        notices.append(Notice(code="self_test", text=language.notice("self_test", number=report.code)))
    return tuple(notices)


def _worker(agent: Agent, lock: WorkerLock, language: Language) -> WorkerView:
    consults = sorted(agent.records.consults.values(), key=lambda consult: consult.opened_at_ms, reverse=True)
    lines = []
    for consult in consults[:MAX_LISTED]:
        step = agent.step(consult.id)
        lines.append(
            ConsultView(
                id=consult.id.hex(),
                opened_at_ms=consult.opened_at_ms,
                patient=consult.patient,
                complaints=consult.complaints,
                urgency=consult.urgency,
                step=step,
                step_text=language.words[f"step_{step}"],
                step_times=agent.records.times(consult.id),
                unsent_since_ms=agent.delivery.unsent_since_ms(consult.id),
                cost=_cost(agent, consult.id),
                set_aside=agent.delivery.set_aside_in(consult.id) > 0,
                advice=tuple(_advice(agent, stored) for stored in agent.records.advice_of(consult.id)),
            )
        )
    unsent = [at_ms for consult in consults if (at_ms := agent.delivery.unsent_since_ms(consult.id))]
    return WorkerView(
        name=language.words["worker"],
        consults=tuple(lines),
        unsent=len(unsent),
        unsent_since_ms=min(unsent, default=0),
        budget=_budget(agent, language),
        locks_at_ms=int((time.time() + (lock.next_deadline() or 0.0) - time.monotonic()) * 1000),
    )


def _cost(agent: Agent, consult: bytes) -> str:
    metering = agent.metering
    cost = metering.cost_of(consult)
    if not metering.plan.is_set or not cost.bytes:
        return ""
    text = f"{cost.bytes / MB:.2f} MB"
    return f"{text}, {cost.money:.2f} {metering.currency}".rstrip() if cost.money else text


def _budget(agent: Agent, language: Language) -> tuple[str, ...]:
    metering = agent.metering
    plan, spent, verdict = metering.plan, metering.spent, metering.verdict
    if not plan.is_set:
        return ()
    lines = [
        language.budget_line(name, carried / MB, limit / MB)
        for name, carried, limit in (
            ("day", spent.day_bytes or spent.boot_bytes, plan.day_bytes),
            ("month", spent.month_bytes, plan.month_bytes),
        )
    ]
    if spent.month_cost:
        lines.append(language.budget["cost"].format(cost=f"{spent.month_cost:.2f} {metering.currency}".rstrip()))
    if verdict.why:
        lines.append(language.held(verdict.why, metering.clock_time(verdict.until_ms)))
    if verdict.goes < Priority.VOICE:
        lines.append(language.budget["voice_too"])
    return tuple(lines)


def _pin_error(lock: WorkerLock, language: Language) -> str:
    match lock.error:
        case "wrong":
            return language.detail("pin_wrong")
        case "wait":
            return language.detail("pin_wait", seconds=max(1, round(lock.wait_s(time.monotonic()))))
        case _:
            return ""
