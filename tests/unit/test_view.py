"""What the page shows of each state, and who may do what on it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edge_agent.agent import Agent
from edge_agent.config import KioskSection, KioskSettings
from edge_agent.core import wire
from edge_agent.core.call import State, Status
from edge_agent.lamp import light
from edge_agent.store import CaseKept, StoreThread
from hardware.api import Light
from kiosk.language import Language
from kiosk.port import ScreenPort
from kiosk.screen import ACTIONS, Action, encode_view
from kiosk.view import COMPLAINTS, Surroundings, build_view
from kiosk.worker import WorkerLock

CONSULT, CALL, ADVICE = b"k" * 16, b"c" * 8, b"a" * 8


class Silence:
    """A voice that says nothing."""

    def tone(self, name: str) -> Path:
        return Path("/nothing")

    def ready(self, key: str, language: str) -> Path | None:
        Language.load(language).say(key)  # there must be such a sentence
        return Path("/nothing")

    path = ready

    def speak(self, text: str, language: str) -> Path | None:
        return Path("/nothing")


@pytest.fixture
async def agent(tmp_path):
    settings = KioskSettings(kiosk=KioskSection(state_dir=str(tmp_path), language="fr"))
    store = StoreThread(tmp_path / "store")
    made = Agent(settings, store, Silence(), None, ["true"])
    made.records.ensure(CONSULT, 5, "patient")
    yield made
    store.close()


@pytest.fixture
def lock():
    return WorkerLock("$hash", 120)


AROUND = Surroundings(languages=("en", "fr"), emergency_instruction="", speaks=True, simulated=False)


def show(agent: Agent, lock: WorkerLock, status: Status):
    agent.machine.status = status
    view = build_view(agent, lock, AROUND)
    assert encode_view(view)
    return view


IN_CALL = (State.RINGING, State.CLAIMED, State.LIVE, State.LOST, State.TURNS, State.INCOMING)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("more", [{}, {"emergency": True}, {"cancel_asked": True}, {"heard_by": "hub"}])
async def test_every_state_has_its_words(agent, lock, state, more):
    status = Status(state=state, consult=CONSULT, call=CALL if state in IN_CALL else b"", **more)
    if state is State.DRAFT:
        agent.drafts.show(CONSULT, "patient")
    view = show(agent, lock, status)
    assert view.screen == state.value
    assert view.title
    assert (view.call is not None) == (state in IN_CALL)
    assert (view.draft is not None) == (state is State.DRAFT)
    assert view.language == "fr"
    assert view.complaints == COMPLAINTS
    assert {f"complaint_{code}" for code in COMPLAINTS} <= view.words.keys()


@pytest.mark.parametrize(
    ("outcome", "state", "key"),
    [
        ("declined", State.OFFER, "offer_declined"),
        ("unanswered", State.OFFER, "offer_offline"),  # the hub is out of reach here
        ("answered", State.ENDED, "ended"),
        ("cancelled", State.ENDED, "ended_cancelled"),
    ],
)
async def test_the_end_says_how(agent, lock, outcome, state, key):
    agent.last_outcome = outcome
    assert show(agent, lock, Status(state=state, consult=CONSULT)).title == Language.load("fr").title(key)


@pytest.mark.parametrize(("outcome", "step"), [("answered", None), ("cancelled", "received")])
async def test_who_has_talked_waits_for_nobody_to_see_a_message(agent, lock, outcome, step):
    agent.records.consults[CONSULT].saved_at_ms = 7
    agent.last_saved, agent.last_outcome = CONSULT, outcome
    assert show(agent, lock, Status(state=State.ENDED, consult=CONSULT)).saved_step == step


async def test_the_call_in_figures(agent, lock):
    status = Status(
        state=State.LIVE, consult=CONSULT, call=CALL, heard_by="person", doctor="Dr A", leg=1, leg_connected=True,
        answered_at_ms=9,
    )  # fmt: skip
    call = show(agent, lock, status).call
    assert (call.heard_by, call.doctor, call.live_since_ms, call.media) == ("person", "Dr A", 9, "flowing")
    lost = dataclasses.replace(status, state=State.LOST, stalled=True)
    assert show(agent, lock, lost).call.media == "stalled"
    assert show(agent, lock, dataclasses.replace(lost, stalled=False)).call.media == "connecting"


async def test_the_instruction_is_the_clinics_own_where_it_has_one(agent, lock):
    agent.machine.status = Status(state=State.EMERGENCY, consult=CONSULT)
    own = dataclasses.replace(AROUND, emergency_instruction="Go to the road.")
    assert build_view(agent, lock, own).emergency_instruction == "Go to the road."
    assert build_view(agent, lock, AROUND).emergency_instruction == Language.load("fr").say("emergency_instruction")


async def test_steps_are_backed_by_the_far_ends_word(agent):
    records = agent.records
    assert records.step(CONSULT, drafted=True, unsent=True) == "draft"
    records.case_saved(CaseKept(CONSULT, 6, "", (), "routine"))
    assert records.step(CONSULT, drafted=False, unsent=True) == "saved"
    assert records.step(CONSULT, drafted=False, unsent=False) == "received"
    records.progress(CONSULT, "seen", 7)
    assert records.step(CONSULT, drafted=False, unsent=True) == "saved"  # more was added since
    assert records.step(CONSULT, drafted=False, unsent=False) == "seen"
    records.take_advice(CONSULT, wire.Advice(ADVICE, "Dr A", 8, "Rest."))
    assert records.step(CONSULT, drafted=False, unsent=False) == "answered"
    records.heard(ADVICE, 9)
    assert records.step(CONSULT, drafted=False, unsent=True) == "heard"
    records.progress(CONSULT, "closed", 10)
    assert records.step(CONSULT, drafted=False, unsent=False) == "closed"
    assert records.times(CONSULT) == {"saved": 6, "seen": 7, "answered": 8, "heard": 9, "closed": 10}


async def test_what_is_sent_after_the_case_takes_no_step_back(agent):
    records = agent.records
    records.case_saved(CaseKept(CONSULT, 6, "", (), "routine"))
    records.progress(CONSULT, "received", 7)
    assert records.step(CONSULT, drafted=False, unsent=True) == "received"  # an original that was asked for
    records.progress(CONSULT, "seen", 8)
    assert records.step(CONSULT, drafted=False, unsent=True) == "seen"
    assert records.times(CONSULT) == {"saved": 6, "received": 7, "seen": 8}
    records.case_saved(CaseKept(CONSULT, 9, "", (), "routine"))  # the patient left another message
    assert records.step(CONSULT, drafted=False, unsent=True) == "saved"
    assert "received" not in records.times(CONSULT)


async def test_everything_is_sent_is_said_only_when_nothing_waits(agent, lock):
    agent.records.case_saved(CaseKept(CONSULT, 6, "A 12", ("fever",), "urgent"))
    lock.face = "open"
    worker = show(agent, lock, Status()).worker
    assert (worker.unsent, worker.unsent_since_ms) == (0, 0)
    note = agent.records.queue(CONSULT, wire.CaseNote("worker", 1), 77).message
    agent.delivery.add(note)
    worker = show(agent, lock, Status()).worker
    assert (worker.unsent, worker.unsent_since_ms) == (1, 77)
    assert worker.consults[0].unsent_since_ms == 77
    agent.delivery.receipt(wire.Receipt((note.id,)))
    assert show(agent, lock, Status()).worker.unsent == 0


async def test_other_peoples_consults_are_behind_the_lock(agent, lock):
    agent.records.case_saved(CaseKept(CONSULT, 6, "A 12", ("fever",), "urgent"))
    agent.records.take_advice(CONSULT, wire.Advice(ADVICE, "Dr A", 8, "Rest."))
    agent.records.heard(ADVICE, 9)
    view = show(agent, lock, Status())
    assert (view.worker, view.worker_face, view.advice) == (None, "locked", ())
    assert b"A 12" not in encode_view(view).encode()
    lock.asked(0)
    lock.tried(True, 0)
    view = show(agent, lock, Status())
    assert view.worker_face == "open"
    (line,) = view.worker.consults
    assert (line.patient, line.complaints, line.urgency, line.step) == ("A 12", ("fever",), "urgent", "heard")
    assert line.advice[0].heard


async def test_what_waits_is_the_patients(agent, lock):
    agent.records.take_advice(CONSULT, wire.Advice(ADVICE, "Dr A", 8, "Rest.", b"r" * 32))
    (advice,) = show(agent, lock, Status()).advice
    assert (advice.id, advice.text, advice.voice, advice.voice_arrived) == (ADVICE.hex(), "Rest.", True, False)


async def test_notices_have_words(agent, lock):
    agent.condition("camera_missing", True)
    agent.condition("disk_full", True)
    agent.condition("disk_full", False)
    view = show(agent, lock, Status())
    codes = [notice.code for notice in view.notices]
    assert codes == ["not_joined", "camera_missing", "hub_unreachable"]
    assert all(notice.text for notice in view.notices)
    silent = build_view(agent, lock, dataclasses.replace(AROUND, speaks=False))
    assert silent.notices[-1].code == "speech_missing"


@pytest.mark.parametrize("state", [State.IDLE, State.DRAFT, State.LIVE])
async def test_no_action_of_a_page_breaks_anything(agent, lock, state):
    port = ScreenPort(agent, lock, AROUND)
    agent.machine.status = Status(state=state, consult=CONSULT, call=CALL if state is State.LIVE else b"")
    if state is State.DRAFT:
        agent.drafts.show(CONSULT, "patient")
    for do in ACTIONS:
        for value in ("", "x", "ff", "zz", "review", "urgent", "fever", "en"):
            if do != "pin":  # it would be checked in a thread
                port.act(Action(do=do, value=value))
                assert encode_view(port.view())


async def test_the_lock_guards_what_the_worker_writes(agent, lock):
    port = ScreenPort(agent, lock, AROUND)
    agent.machine.status = Status(state=State.DRAFT, consult=CONSULT, draft_open=True)
    agent.drafts.show(CONSULT, "patient")
    port.act(Action(do="patient", value="A 12"))
    assert agent.drafts.shown.draft.patient == ""
    lock.asked(0)
    lock.tried(True, 0)
    port.act(Action(do="patient", value="A 12"))
    assert agent.drafts.shown.draft.patient == "A 12"


async def test_files_are_shown_only_while_they_are_in_the_draft(agent, lock):
    port = ScreenPort(agent, lock, AROUND)
    assert port.file("ff" * 32) is None
    assert port.file("../../etc/passwd") is None


# --- the lamp


@pytest.mark.parametrize(
    ("status", "more", "wanted"),
    [
        (Status(), {}, Light.READY),
        (Status(), {"reachable": False}, Light.MESSAGE),
        (Status(), {"faulty": True, "reachable": False}, Light.FAULT),
        (Status(), {"advice_waits": True, "faulty": True}, Light.WAITING),
        (Status(state=State.SAVED), {"advice_waits": True}, Light.WAITING),
        (Status(state=State.RINGING), {"advice_waits": True, "faulty": True}, Light.CALLING),
        (Status(state=State.RINGING, emergency=True), {}, Light.EMERGENCY),
        (Status(state=State.LOST, emergency=True), {}, Light.EMERGENCY),
        (Status(state=State.CLAIMED, emergency=True), {}, Light.CLAIMED),
        (Status(state=State.LIVE, emergency=True), {}, Light.LIVE),
        (Status(state=State.LOST), {}, Light.LOST),
        (Status(state=State.INCOMING), {}, Light.CALLING),
        (Status(state=State.OFFER), {"faulty": True}, Light.MESSAGE),
        (Status(state=State.DRAFT), {}, Light.MESSAGE),
        (Status(state=State.EMERGENCY), {"advice_waits": True}, Light.EMERGENCY),
        (Status(state=State.ENDED), {}, Light.READY),
    ],
)
def test_the_lamp(status, more, wanted):
    assert light(status, **({"advice_waits": False, "faulty": False, "reachable": True} | more)) is wanted


def test_every_state_has_a_light():
    for state in State:
        for emergency in (False, True):
            light(Status(state=state, emergency=emergency), advice_waits=False, faulty=False, reachable=True)
