"""The call machine in virtual time: each flow as a story, every state with every event, restarts, and random lives."""

from __future__ import annotations

import dataclasses
from collections import Counter

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_agent.core import call_events as ev
from edge_agent.core import wire
from edge_agent.core.call import TABLE, CallMachine, CallTimes, State, Status, Timer

CALL, OTHER = b"c" * 8, b"d" * 8
CONSULT = b"k" * 16
WALL_MS = 1_700_000_000_000


class Story:
    """A machine at its clock."""

    def __init__(self, *, hub: bool = True, media: bool = True, times: CallTimes | None = None) -> None:
        self.now = 100.0
        self.machine = CallMachine(times or CallTimes())
        self.log: list[ev.Effect] = []
        if hub:
            self.tell(ev.HubReached())
        if media:
            self.tell(ev.MediaProcessUp())

    def at(self) -> ev.Now:
        return ev.Now(self.now, WALL_MS + int(self.now * 1000))

    def tell(self, event: ev.Event) -> list[ev.Effect]:
        effects = self.machine.handle(event, self.at())
        self.log += effects
        return effects

    def pass_(self, seconds: float) -> list[ev.Effect]:
        """Time passes; each timer is served when it is due."""
        effects, end = [], self.now + seconds
        while (due := self.machine.next_deadline()) is not None and due <= end:
            self.now = due
            effects += self.machine.tick(self.at())
        self.now = end
        self.log += effects
        return effects

    @property
    def state(self) -> State:
        return self.machine.status.state

    @property
    def call(self) -> bytes:
        return self.machine.status.call

    def rings(self) -> Story:
        self.tell(ev.Pressed())
        self.tell(ev.HubRang(self.call))
        return self

    def claimed(self) -> Story:
        self.rings()
        self.tell(ev.HubClaimed(self.call, "Dr A"))
        return self

    def live(self) -> Story:
        self.claimed()
        self.tell(ev.OfferMade(self.call, 1, b"offer"))
        self.tell(ev.AnswerCame(self.call, 1, b"answer"))
        self.tell(ev.MediaConnected(self.call, 1))
        self.tell(ev.HubAnswered(self.call, "Dr A"))
        return self


def sent(effects: list[ev.Effect], body: type) -> list[wire.Body]:
    return [effect.body for effect in effects if isinstance(effect, ev.Send) and isinstance(effect.body, body)]


def said(effects: list[ev.Effect]) -> list[str]:
    return [effect.key for effect in effects if isinstance(effect, ev.Say)]


def started(effects: list[ev.Effect]) -> list[ev.StartMedia]:
    return [effect for effect in effects if isinstance(effect, ev.StartMedia)]


# --- the flows


def test_a_press_becomes_a_call_that_the_patient_ends():
    story = Story()
    effects = story.tell(ev.Pressed())
    assert [type(effect) for effect in effects] == [ev.OpenConsult, ev.Send, ev.Say, ev.Send]
    assert said(effects) == ["calling"]
    (request,) = sent(effects, wire.CallRequested)
    assert request == wire.CallRequested(story.call, WALL_MS + 100_000, False)
    assert story.machine.status.heard_by == "machine"
    assert said(story.tell(ev.HubRang(story.call))) == ["hub_heard"]
    assert story.machine.status.heard_by == "hub"
    effects = story.tell(ev.HubClaimed(story.call, "Dr A", (wire.IceServer(("turn:x",)),)))
    assert started(effects) == [ev.StartMedia(story.call, 1, (wire.IceServer(("turn:x",)),), True)]
    assert said(effects) == ["doctor_coming"]
    assert sent(story.tell(ev.OfferMade(story.call, 1, b"o")), wire.Offer) == [wire.Offer(story.call, 1, b"o")]
    assert story.tell(ev.AnswerCame(story.call, 1, b"a")) == [ev.GiveAnswer(story.call, 1, b"a")]
    assert sent(story.tell(ev.MediaConnected(story.call, 1)), wire.MediaState)
    effects = story.tell(ev.HubAnswered(story.call, "Dr A"))
    assert effects == [ev.Hush(), ev.UnholdMedia(story.call)]
    assert story.state is State.LIVE
    call, answered = story.call, story.machine.status.answered_at_ms
    story.pass_(600)
    effects = story.tell(ev.CancelChosen())
    assert sent(effects, wire.CallEnded) == [wire.CallEnded(call, "answered", answered, WALL_MS + 700_000)]
    assert ev.StopMedia() in effects
    assert story.state is State.ENDED
    story.pass_(8)
    assert story.machine.status == Status()


def test_the_doctor_ends_the_call():
    story = Story().live()
    effects = story.tell(ev.HubEnded(story.call, "answered"))
    assert [body.outcome for body in sent(effects, wire.CallEnded)] == ["answered"]
    assert story.state is State.ENDED


def test_presses_while_it_rings_are_answered_and_end_nothing():
    story = Story().rings()
    assert [said(story.tell(ev.Pressed())) for _ in range(3)] == [["still_calling"]] * 3
    assert story.state is State.RINGING
    assert len(sent(story.log, wire.CallRequested)) == 1


def test_cancelling_by_the_button_takes_a_question():
    story = Story().rings()
    assert said(story.tell(ev.HeldToCancel())) == ["ask_cancel"]
    assert story.machine.status.cancel_asked
    story.pass_(15)
    assert not story.machine.status.cancel_asked
    story.tell(ev.HeldToCancel())
    effects = story.tell(ev.HeldToCancel())
    assert [body.outcome for body in sent(effects, wire.CallEnded)] == ["cancelled"]
    assert story.state is State.IDLE


def test_cancelling_on_the_screen():
    story = Story().rings()
    effects = story.tell(ev.CancelChosen())
    assert [body.outcome for body in sent(effects, wire.CallEnded)] == ["cancelled"]
    assert story.machine.status == Status()


def test_nobody_answers_and_a_message_is_left_in_the_same_consult():
    story = Story().rings()
    consult = story.machine.status.consult
    assert said(story.pass_(60)) == ["nobody_answers"]
    assert story.state is State.OFFER
    effects = story.tell(ev.Pressed())
    assert effects == [ev.OpenDraft(consult, "patient")]
    assert said(story.tell(ev.DraftSaved())) == ["saved"]
    assert story.state is State.SAVED
    story.pass_(8)
    assert story.machine.status == Status()


@pytest.mark.parametrize("event", [ev.HubEnded(CALL, "declined")])
def test_a_decline_is_said_and_a_message_offered(event):
    story = Story().rings()
    effects = story.tell(dataclasses.replace(event, call=story.call))
    assert said(effects) == ["declined"]
    assert [body.outcome for body in sent(effects, wire.CallEnded)] == ["declined"]
    assert story.state is State.OFFER
    story.pass_(60)
    assert story.state is State.IDLE


def test_offline_the_press_leads_to_the_message():
    story = Story(hub=False)
    effects = story.tell(ev.Pressed())
    assert said(effects) == ["offline_message"]
    assert isinstance(effects[-1], ev.OpenDraft)
    assert story.state is State.DRAFT
    assert not sent(effects, wire.CallRequested)
    story.tell(ev.HubReached())
    assert story.state is State.DRAFT
    assert story.tell(ev.Pressed()) == [ev.PressDraft()]


def test_a_silent_hub_leads_to_the_message():
    story = Story()
    story.tell(ev.Pressed())
    effects = story.pass_(8)
    assert said(effects) == ["offline_message"]
    assert [body.outcome for body in sent(effects, wire.CallEnded)] == ["unanswered"]
    assert story.state is State.DRAFT


def test_a_link_lost_while_it_rings_is_waited_for_a_while():
    story = Story().rings()
    story.tell(ev.HubLost())
    story.pass_(7)
    effects = story.tell(ev.HubReached())
    assert sent(effects, wire.CallRequested)[0].call == story.call
    story.tell(ev.HubRang(story.call))
    story.pass_(20)
    assert story.state is State.RINGING


@pytest.mark.parametrize("answer_first", [False, True])
def test_the_doctor_calls_back(answer_first):
    story = Story()
    effects = story.tell(ev.DoctorRang(CALL, CONSULT, "Dr A"))
    assert effects == [ev.Say("incoming_call", loop=True)]
    effects = story.tell(ev.Pressed())
    assert sent(effects, wire.CallAccepted) == [wire.CallAccepted(CALL)]
    assert started(effects) == [ev.StartMedia(CALL, 1, (), False)]
    if answer_first:
        story.tell(ev.HubAnswered(CALL))
        story.tell(ev.MediaConnected(CALL, 1))
    else:
        story.tell(ev.MediaConnected(CALL, 1))
        story.tell(ev.HubAnswered(CALL))
    assert story.state is State.LIVE
    assert story.machine.status.consult == CONSULT


def test_a_lost_acceptance_is_said_again():
    story = Story()
    story.tell(ev.DoctorRang(CALL, CONSULT, "Dr A"))
    assert story.tell(ev.DoctorRang(CALL, CONSULT, "Dr A")) == []
    story.tell(ev.Pressed())
    assert sent(story.tell(ev.DoctorRang(CALL, CONSULT, "Dr A")), wire.CallAccepted)
    story.tell(ev.HubLost())
    effects = story.tell(ev.HubReached())
    assert sent(effects, wire.CallAccepted)
    assert not sent(effects, wire.CallRequested)


def test_the_doctors_ringing_is_sent_away_or_runs_out():
    for event, outcome in ((ev.CancelChosen(), "declined"), (None, "unanswered")):
        story = Story()
        story.tell(ev.DoctorRang(CALL, CONSULT, "Dr A"))
        effects = story.tell(event) if event else story.pass_(60)
        assert [body.outcome for body in sent(effects, wire.CallEnded)] == [outcome]
        assert ev.Hush() in effects
        assert story.state is State.IDLE


def test_a_call_under_way_refuses_the_doctors_ringing_for_another():
    story = Story().live()
    effects = story.tell(ev.DoctorRang(OTHER, CONSULT, "Dr B"))
    assert effects == [ev.Send(CONSULT, wire.CallEnded(OTHER, "unanswered", 0, WALL_MS + 100_000))]
    assert story.state is State.LIVE


def test_a_stall_that_ends_by_itself():
    story = Story().live()
    assert said(story.tell(ev.MediaStalled(story.call, 1))) == ["line_lost"]
    assert story.state is State.LOST
    effects = story.tell(ev.MediaFlowing(story.call, 1))
    assert ev.Hush() in effects
    assert story.state is State.LIVE
    assert story.pass_(120) == []


def test_a_stall_gets_another_leg_and_the_call_comes_back():
    story = Story().live()
    story.tell(ev.MediaStalled(story.call, 1))
    assert started(story.pass_(8)) == []  # with the 3 s that it took to call it a stall: 11 s
    assert [start.leg for start in started(story.pass_(1))] == [2]
    story.tell(ev.OfferMade(story.call, 2, b"o2"))
    again = story.pass_(6)
    assert len(sent(again, wire.Offer)) == 2  # every 3 s until it is answered
    story.tell(ev.AnswerCame(story.call, 2, b"a2"))
    story.tell(ev.MediaConnected(story.call, 2))
    assert story.state is State.LIVE
    assert not sent(story.pass_(60), wire.Offer)


def test_a_stall_with_the_hub_out_of_reach_gets_its_leg_when_the_hub_is_back():
    story = Story().live()
    story.tell(ev.MediaStalled(story.call, 1))
    story.tell(ev.HubLost())
    assert started(story.pass_(30)) == []
    assert [start.leg for start in started(story.tell(ev.HubReached()))] == [2]
    story.tell(ev.OfferMade(story.call, 2, b"o2"))
    # Lost again before an answer: that offer's addresses may be gone when the hub is back.
    story.tell(ev.HubLost())
    effects = story.tell(ev.HubReached())
    assert [start.leg for start in started(effects)] == [3]
    assert not sent(effects, wire.Offer)


def test_another_address_gets_another_leg_at_once_and_the_old_one_goes_on():
    story = Story().live()
    story.tell(ev.HubLost())
    story.tell(ev.HubReached())
    effects = story.tell(ev.AddressChanged())
    assert [(start.leg, start.held) for start in started(effects)] == [(2, False)]
    assert story.state is State.LIVE
    assert said(story.tell(ev.MediaStalled(story.call, 1))) == ["line_lost"]  # it died before the new one was up
    assert story.state is State.LOST
    assert started(story.pass_(9)) == []  # that is under way
    assert started(story.tell(ev.AddressChanged())) == []
    story.tell(ev.MediaConnected(story.call, 2))
    assert story.state is State.LIVE


def test_another_address_while_a_claimed_call_connects():
    story = Story().claimed()
    assert [(start.leg, start.held) for start in started(story.tell(ev.AddressChanged()))] == [(2, True)]


def test_the_old_leg_is_lost_while_the_new_one_connects():
    story = Story().live()
    story.tell(ev.AddressChanged())
    assert started(story.tell(ev.MediaLost(story.call, 1))) == []
    assert story.state is State.LOST
    assert [start.leg for start in started(story.pass_(12))] == [3]  # the second has not come up


def test_an_offer_is_said_again_with_more_candidates_while_its_leg_connects():
    story = Story().claimed()
    assert sent(story.tell(ev.OfferMade(story.call, 1, b"o")), wire.Offer)
    story.tell(ev.AnswerCame(story.call, 1, b"a"))
    assert sent(story.tell(ev.OfferMade(story.call, 1, b"o and a relay")), wire.Offer)
    assert story.tell(ev.AnswerCame(story.call, 1, b"a")) == [ev.GiveAnswer(story.call, 1, b"a")]
    story.tell(ev.MediaConnected(story.call, 1))
    assert story.tell(ev.OfferMade(story.call, 1, b"o and another relay")) == []


def test_a_line_that_does_not_come_back_becomes_a_message():
    story = Story().live()
    call, consult = story.call, story.machine.status.consult
    story.tell(ev.MediaStalled(call, 1))
    story.tell(ev.HubLost())
    effects = story.pass_(60)
    assert said(effects) == ["line_gone_message"]
    assert [(body.call, body.outcome) for body in sent(effects, wire.CallEnded)] == [(call, "link_lost")]
    assert effects[-1] == ev.OpenDraft(consult, "patient")
    assert story.state is State.DRAFT


def test_a_call_answered_before_its_media_is_mended():
    story = Story().claimed()
    story.tell(ev.HubAnswered(story.call))
    assert story.state is State.LIVE
    assert started(story.pass_(12))[0].leg == 2
    assert story.state is State.LOST
    story.tell(ev.MediaConnected(story.call, 2))
    assert story.state is State.LIVE


def test_the_media_process_dies_in_a_call():
    story = Story().live()
    story.tell(ev.MediaProcessDied())
    assert story.state is State.LOST
    effects = story.tell(ev.MediaProcessUp())
    assert [start.leg for start in started(effects)] == [2]
    assert not started(effects)[0].held
    story.tell(ev.MediaConnected(story.call, 2))
    assert story.state is State.LIVE


def test_the_browser_asks_for_a_new_leg():
    story = Story().live()
    assert started(story.tell(ev.NewLegAsked(story.call, 1)))[0].leg == 2
    assert started(story.tell(ev.NewLegAsked(story.call, 1))) == []  # an old wish
    assert story.tell(ev.MediaConnected(story.call, 1)) == []  # an old leg


def test_word_on_another_call_changes_nothing():
    story = Story().live()
    before = story.machine.status
    for event in (
        ev.HubEnded(OTHER, "answered"), ev.HubRang(OTHER), ev.HubClaimed(OTHER, "x"), ev.HubAnswered(OTHER),
        ev.MediaLost(OTHER, 1), ev.MediaStalled(OTHER, 1), ev.OfferMade(OTHER, 1, b""), ev.AnswerCame(OTHER, 1, b""),
    ):  # fmt: skip
        assert story.tell(event) == []
    assert story.machine.status == before


def test_the_doctor_goes_before_answering():
    story = Story().claimed()
    story.tell(ev.HubRang(story.call))
    assert (story.state, story.machine.status.heard_by) == (State.RINGING, "hub")
    story.tell(ev.HubClaimed(story.call, "Dr B"))
    assert (story.state, story.machine.status.doctor) == (State.CLAIMED, "Dr B")
    assert said(story.pass_(45)) == ["nobody_answers"]
    assert story.state is State.OFFER


# --- emergencies


def test_a_hold_makes_an_emergency_of_the_call():
    story = Story().rings()
    effects = story.tell(ev.HeldForEmergency())
    assert sent(effects, wire.CallRequested) == [wire.CallRequested(story.call, WALL_MS + 100_000, True)]
    assert story.tell(ev.HeldForEmergency()) == []
    assert said(story.tell(ev.Pressed())) == ["emergency_calling"]
    story.tell(ev.HubRang(story.call))
    assert said(story.pass_(60)) == ["emergency_instruction"]
    assert story.machine.status.instructed
    assert story.state is State.RINGING  # rings on
    story.pass_(600)
    assert story.state is State.RINGING


def test_offline_an_emergency_shows_the_instruction_and_rings_when_the_hub_is_back():
    story = Story(hub=False)
    assert said(story.tell(ev.HeldForEmergency())) == ["emergency_instruction"]
    story.pass_(3600)
    assert story.state is State.EMERGENCY
    effects = story.tell(ev.HubReached())
    assert sent(effects, wire.CallRequested)[0].emergency
    assert story.state is State.RINGING


def test_an_emergency_is_raised_again_where_the_hub_is_silent():
    story = Story()
    story.tell(ev.HeldForEmergency())
    story.pass_(8)
    assert story.state is State.EMERGENCY
    effects = story.pass_(20)
    assert len(sent(effects, wire.CallRequested)) == 1
    assert story.state is State.RINGING


@pytest.mark.parametrize("way", ["claim", "decline", "doctor_gone", "reconnect"])
def test_no_timer_and_no_doctor_takes_an_emergency_back(way):
    story = Story()
    story.tell(ev.HeldForEmergency())
    story.tell(ev.HubRang(story.call))
    if way == "decline":
        story.tell(ev.HubEnded(story.call, "declined"))
    else:
        story.tell(ev.HubClaimed(story.call, "Dr A"))
        if way == "claim":
            story.pass_(45)
        else:
            story.tell(ev.MediaConnected(story.call, 1))
            story.tell(ev.HubAnswered(story.call))
            if way == "doctor_gone":
                story.tell(ev.HubEnded(story.call, "doctor_gone"))
            else:
                story.tell(ev.MediaLost(story.call, 1))
                story.tell(ev.HubLost())
                story.pass_(60)
                story.tell(ev.HubReached())
    if story.state is State.EMERGENCY:
        story.pass_(20)
    assert story.state is State.RINGING
    assert story.machine.status.emergency
    requests = sent(story.log, wire.CallRequested)
    assert requests[-1].emergency
    assert requests[-1].call == story.call


@pytest.mark.parametrize("end", [ev.CancelChosen(), None, "hub"])
def test_an_unheard_emergency_survives_the_doctors_ringing_for_another_consult(end):
    story = Story(hub=False)
    story.tell(ev.HeldForEmergency())
    consult = story.machine.status.consult
    story.tell(ev.DoctorRang(CALL, CONSULT, "Dr A"))
    assert story.state is State.INCOMING
    if end is None:
        story.pass_(60)
    else:
        story.tell(ev.HubEnded(CALL, "cancelled") if end == "hub" else end)
    assert (story.state, story.machine.status.consult) == (State.EMERGENCY, consult)
    assert story.machine.status.emergency


def test_a_hold_while_the_doctor_rings_takes_the_call():
    story = Story()
    story.tell(ev.DoctorRang(CALL, CONSULT, "Dr A"))
    effects = story.tell(ev.HeldForEmergency())
    assert sent(effects, wire.CallAccepted)
    assert (story.state, story.machine.status.emergency) == (State.CLAIMED, True)


# --- in turns


def in_turns() -> Story:
    story = Story().live()
    story.tell(ev.NothingLiveFits(story.call))
    return story


def test_where_nothing_live_fits_people_speak_in_turns_and_are_live_again_by_themselves():
    story = Story().live()
    effects = story.tell(ev.NothingLiveFits(story.call))
    assert story.state is State.TURNS
    assert said(effects) == ["take_turns"]
    assert ev.RestMedia(story.call) in effects
    assert not sent(effects, wire.MediaState)  # it would be lost in the queue
    assert sent(story.pass_(2), wire.MediaState) == [wire.MediaState(story.call, 1, "turns")]
    assert not sent(story.pass_(300), wire.MediaState)
    assert story.state is State.TURNS  # for as long as it takes
    effects = story.tell(ev.LiveFits(story.call))
    assert story.state is State.LIVE
    assert ev.UnholdMedia(story.call) in effects
    assert sent(effects, wire.MediaState) == [wire.MediaState(story.call, 1, "connected")]
    assert not sent(story.log, wire.CallEnded)


def test_the_button_is_for_speaking_while_people_speak_in_turns():
    story = in_turns()
    assert story.tell(ev.Pressed()) == [ev.Speak()]
    assert story.machine.status.speaking
    assert story.tell(ev.Pressed()) == []
    assert story.tell(ev.HeldForEmergency()) == []
    assert story.tell(ev.HeldToCancel()) == []
    assert not story.machine.status.emergency
    assert story.tell(ev.Released()) == [ev.StopSpeaking()]
    assert story.tell(ev.Released()) == []
    story.tell(ev.Pressed())
    assert ev.StopSpeaking() in story.tell(ev.LiveFits(story.call))
    assert not story.machine.status.speaking


def test_without_the_hub_nothing_would_come_of_turns():
    story = Story().live()
    story.tell(ev.HubLost())
    assert story.tell(ev.NothingLiveFits(story.call)) == []
    assert story.state is State.LIVE


@pytest.mark.parametrize("hub", [True, False])
def test_a_line_that_stays_dead_for_a_minute_leads_to_turns_or_else_to_the_message(hub):
    story = Story().live()
    story.tell(ev.MediaLost(story.call, 1))
    if not hub:
        story.tell(ev.HubLost())
    story.pass_(60)
    assert story.state is (State.TURNS if hub else State.DRAFT)


def test_turns_without_the_hub_become_the_message():
    story = in_turns()
    story.tell(ev.Pressed())
    story.tell(ev.HubLost())
    story.pass_(59)
    assert story.state is State.TURNS
    effects = story.pass_(1)
    assert story.state is State.DRAFT
    assert ev.StopSpeaking() in effects
    assert [body.outcome for body in sent(effects, wire.CallEnded)] == ["link_lost"]
    story = in_turns()
    story.tell(ev.HubLost())
    story.pass_(59)
    effects = story.tell(ev.HubReached())
    assert sent(effects, wire.MediaState) == [wire.MediaState(story.call, 1, "turns")]  # the hub may have missed it
    story.pass_(300)
    assert story.state is State.TURNS


def test_the_path_is_mended_at_rest_while_people_speak_in_turns():
    story = in_turns()
    effects = story.tell(ev.MediaLost(story.call, 1))
    assert started(effects) == [ev.StartMedia(story.call, 2, (), True)]
    assert story.tell(ev.LiveFits(story.call)) == []
    effects = story.tell(ev.MediaConnected(story.call, 2))
    assert sent(effects, wire.MediaState) == [wire.MediaState(story.call, 2, "turns")]
    story.tell(ev.LiveFits(story.call))
    assert story.state is State.LIVE


# --- drafts and calls


def test_a_draft_waits_for_the_doctors_call_in_its_consult():
    story = Story(hub=False)
    story.tell(ev.Pressed())
    consult = story.machine.status.consult
    story.tell(ev.HubReached())
    story.tell(ev.DoctorRang(CALL, consult, "Dr A"))
    effects = story.tell(ev.CancelChosen())
    assert effects[-1] == ev.OpenDraft(consult, "patient")
    assert story.state is State.DRAFT


def test_a_draft_saved_in_the_background_does_not_come_back():
    story = Story(hub=False)
    story.tell(ev.Pressed())
    story.tell(ev.HeldForEmergency())
    story.tell(ev.DraftSaved())
    story.tell(ev.DismissChosen())
    assert story.state is State.IDLE


def test_the_worker_starts_a_case():
    story = Story()
    effects = story.tell(ev.NewCaseChosen("worker"))
    assert isinstance(effects[-1], ev.OpenDraft)
    assert effects[-1].by == "worker"
    story.tell(ev.DraftDropped())
    assert story.machine.status == Status()


# --- every state, every event

EVENTS: list[ev.Event] = [
    ev.Pressed(), ev.HeldForEmergency(), ev.HeldToCancel(), ev.CancelChosen(), ev.MessageChosen(), ev.DismissChosen(),
    ev.NewCaseChosen("worker"), ev.HubReached(), ev.HubLost(), ev.HubRang(CALL), ev.HubClaimed(CALL, "Dr"),
    ev.HubAnswered(CALL), ev.HubEnded(CALL, "answered"), ev.HubEnded(CALL, "declined"),
    ev.HubEnded(CALL, "doctor_gone"),
    ev.DoctorRang(OTHER, CONSULT, "Dr"), ev.DoctorRang(CALL, CONSULT, "Dr"), ev.AnswerCame(CALL, 1, b"a"),
    ev.NewLegAsked(CALL, 1), ev.OfferMade(CALL, 1, b"o"), ev.MediaConnected(CALL, 1), ev.MediaStalled(CALL, 1),
    ev.MediaFlowing(CALL, 1), ev.MediaLost(CALL, 1), ev.MediaProcessUp(), ev.MediaProcessDied(), ev.DraftSaved(),
    ev.DraftDropped(), ev.HubReplyTimedOut(), ev.RingTimedOut(), ev.ClaimTimedOut(), ev.ReconnectTimedOut(),
    ev.NewLegDue(), ev.OfferAgainDue(), ev.EmergencyAgainDue(), ev.CancelQuestionExpired(), ev.ScreenTimedOut(),
    ev.AddressChanged(), ev.Released(), ev.NothingLiveFits(CALL), ev.LiveFits(CALL), ev.TurnsTimedOut(),
    ev.SayTurnsDue(),
]  # fmt: skip


def test_the_list_of_events_is_whole():
    # By name: a dataclass with slots leaves the class it was made from behind.
    assert {type(event).__name__ for event in EVENTS} == {kind.__name__ for kind in ev.Event.__subclasses__()}
    assert set(TABLE) == set(State)


IN_CALL = (State.RINGING, State.CLAIMED, State.LIVE, State.LOST, State.TURNS, State.INCOMING)
TALKED = (State.LIVE, State.LOST, State.TURNS)


def statuses(state: State) -> list[Status]:
    in_call = state in IN_CALL
    plain = Status(
        state=state,
        consult=b"" if state is State.IDLE else CONSULT,
        call=CALL if in_call else b"",
        leg=1 if state in (State.CLAIMED, *TALKED) else 0,
        leg_connected=state in (State.LIVE, State.TURNS),
        answered_at_ms=WALL_MS if state in TALKED else 0,
        placed_by_doctor=state is State.INCOMING,
        draft_open=state is State.DRAFT,
        emergency=state is State.EMERGENCY,
    )
    several = [plain]
    if in_call:
        several += [
            dataclasses.replace(plain, emergency=True), dataclasses.replace(plain, placed_by_doctor=True),
            dataclasses.replace(plain, cancel_asked=True), dataclasses.replace(plain, draft_open=True),
            dataclasses.replace(plain, speaking=state is State.TURNS),
        ]  # fmt: skip
    return several


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("hub", [True, False])
@pytest.mark.parametrize("media", [True, False])
def test_nothing_raises_in_any_state(state, hub, media):
    for status in statuses(state):
        for event in EVENTS:
            story = Story(hub=hub, media=media)
            story.machine.status = status
            story.tell(event)
            after = story.machine.status
            assert (after.call != b"") == (after.state in IN_CALL)
            assert after.state is State.IDLE or after.consult


# --- restarts


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("hub_first", [True, False])
def test_a_restart_takes_up_what_was_under_way(state, hub_first):
    for status in statuses(state):
        kept = msgspec.msgpack.decode(msgspec.msgpack.encode(status), type=Status)
        assert kept == status
        story = Story(hub=False, media=False)
        story.log = story.machine.restore(kept, story.at())
        for event in (ev.HubReached(), ev.MediaProcessUp()) if hub_first else (ev.MediaProcessUp(), ev.HubReached()):
            story.tell(event)
        if state in (State.LIVE, State.LOST) or (state is State.CLAIMED and status.placed_by_doctor):
            assert story.state is State.LOST
            story.pass_(3)
            assert started(story.log)[-1].leg > status.leg
            assert not started(story.log)[-1].held
            assert story.call == CALL
        elif state is State.TURNS:
            assert (story.state, story.call, story.machine.status.speaking) == (State.TURNS, CALL, False)
            story.pass_(3)
            assert started(story.log)[-1].leg > status.leg
            assert started(story.log)[-1].held
        elif state in (State.RINGING, State.CLAIMED):
            assert story.state is State.RINGING
            assert {body.call for body in sent(story.log, wire.CallRequested)} == {CALL}
        elif state is State.EMERGENCY:
            assert story.state is State.RINGING
            assert sent(story.log, wire.CallRequested)[-1].emergency
        elif status.draft_open:
            assert story.state is State.DRAFT
            assert ev.OpenDraft(CONSULT, "patient") in story.log
        else:
            assert story.machine.status == Status()
        assert not dead_end(story.machine)


def test_a_restart_keeps_the_emergency_that_waits_behind_the_doctors_ringing():
    story = Story(hub=False)
    story.tell(ev.HeldForEmergency())
    consult = story.machine.status.consult
    story.tell(ev.DoctorRang(CALL, CONSULT, "Dr A"))
    again = Story(hub=False)
    again.machine.restore(story.machine.snapshot(), again.at())
    assert (again.state, again.machine.status.consult) == (State.EMERGENCY, consult)


# --- random lives


def dead_end(machine: CallMachine) -> bool:
    """A state in which a person waits for something that no clock will ever end."""
    waits_for_a_hand = machine.status.state in (State.IDLE, State.DRAFT)  # a draft has a clock of its own
    talks = machine.status.state is State.LIVE and machine.status.leg_connected
    talks = talks or (machine.status.state is State.TURNS and machine.hub_reachable)
    comes_back = machine.status.state is State.LIVE and not machine.media_up
    return not (waits_for_a_hand or talks or comes_back) and machine.next_deadline() is None


class Life(RuleBasedStateMachine):
    """Whatever people, hub, media and crashes do: each call is ended once, an emergency is never lost, no dead end."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Story(hub=False, media=False)
        self.requested: set[bytes] = set()
        self.ended: Counter[bytes] = Counter()
        self.doctor_calls = 0
        self.seen = 0

    def _follow(self) -> None:
        for effect in self.story.log[self.seen :]:
            if isinstance(effect, ev.Send):
                if isinstance(effect.body, wire.CallRequested):
                    assert not self.ended[effect.body.call], "asked for after its end"
                    self.requested.add(effect.body.call)
                elif isinstance(effect.body, wire.CallEnded):
                    self.ended[effect.body.call] += 1
                    assert (effect.body.answered_at_ms > 0) or effect.body.outcome != "answered"
        self.seen = len(self.story.log)

    def _tell(self, event: ev.Event, by_hand: bool = False) -> None:
        before = self.story.machine.status
        self.story.tell(event)
        self._follow()
        unheard = before.state in (State.RINGING, State.EMERGENCY) and before.emergency
        after = self.story.machine.status
        if unheard and not by_hand and not isinstance(event, (ev.HubClaimed, ev.HubAnswered)):
            assert after.emergency or after.emergency_consult, event

    @initialize(hub=st.booleans(), media=st.booleans())
    def begin(self, hub: bool, media: bool) -> None:
        if hub:
            self._tell(ev.HubReached())
        if media:
            self._tell(ev.MediaProcessUp())

    @rule(fits=st.booleans())
    @precondition(lambda self: self.story.state in (State.LIVE, State.LOST, State.TURNS))
    def link_changes(self, fits: bool) -> None:
        self._tell(ev.LiveFits(self.story.call) if fits else ev.NothingLiveFits(self.story.call))

    @rule(event=st.sampled_from([ev.Pressed(), ev.Released(), ev.HeldForEmergency()]))
    def press(self, event: ev.Event) -> None:
        self._tell(event)

    @rule(
        event=st.sampled_from(
            [ev.HeldToCancel(), ev.CancelChosen(), ev.MessageChosen(), ev.DismissChosen(), ev.NewCaseChosen("worker")]
        )
    )
    def choose(self, event: ev.Event) -> None:
        self._tell(event, by_hand=True)

    @rule(event=st.sampled_from([ev.DraftSaved(), ev.DraftDropped()]))
    @precondition(lambda self: self.story.machine.status.draft_open)
    def finish_draft(self, event: ev.Event) -> None:
        self._tell(event)

    @rule(
        event=st.sampled_from(
            [ev.HubReached(), ev.HubLost(), ev.AddressChanged(), ev.MediaProcessUp(), ev.MediaProcessDied()]
        )
    )
    def parts_come_and_go(self, event: ev.Event) -> None:
        self._tell(event)

    @rule(kind=st.sampled_from(["rang", "claimed", "answered", "declined", "gone", "over", "leg", "answer"]))
    @precondition(lambda self: self.story.call != b"" and self.story.machine.hub_reachable)
    def hub_speaks(self, kind: str) -> None:
        call, leg = self.story.call, self.story.machine.status.leg
        self._tell(
            {
                "rang": ev.HubRang(call),
                "claimed": ev.HubClaimed(call, "Dr A"),
                "answered": ev.HubAnswered(call, "Dr A"),
                "declined": ev.HubEnded(call, "declined"),
                "gone": ev.HubEnded(call, "doctor_gone"),
                "over": ev.HubEnded(call, "answered" if self.story.machine.status.answered_at_ms else "cancelled"),
                "leg": ev.NewLegAsked(call, leg),
                "answer": ev.AnswerCame(call, leg, b"a"),
            }[kind],
            by_hand=kind == "over" and bool(self.story.machine.status.answered_at_ms),
        )

    @rule()
    @precondition(lambda self: self.story.machine.hub_reachable)
    def doctor_rings(self) -> None:
        self.doctor_calls += 1
        call = self.doctor_calls.to_bytes(8, "big")
        self._tell(ev.DoctorRang(call, CONSULT, "Dr B"))
        if self.story.call == call or self.ended[call]:
            self.requested.add(call)

    @rule(kind=st.sampled_from(["offer", "connected", "stalled", "flowing", "lost"]), old=st.booleans())
    @precondition(lambda self: self.story.machine.status.leg > 0 and self.story.call and self.story.machine.media_up)
    def media_speaks(self, kind: str, old: bool) -> None:
        call = self.story.call
        leg = max(1, self.story.machine.status.leg - old)
        events = {
            "offer": ev.OfferMade(call, leg, b"o"), "connected": ev.MediaConnected(call, leg),
            "stalled": ev.MediaStalled(call, leg), "flowing": ev.MediaFlowing(call, leg),
            "lost": ev.MediaLost(call, leg),
        }  # fmt: skip
        self._tell(events[kind])

    @rule(seconds=st.sampled_from([0.5, 3.0, 8.0, 20.0, 61.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        emergency = self.story.machine.status.emergency and self.story.state in (State.RINGING, State.EMERGENCY)
        self.story.pass_(seconds)
        self._follow()
        assert not emergency or self.story.machine.status.emergency

    @rule()
    def crash(self) -> None:
        """What was on the disk comes back."""
        old = self.story
        if old.state is State.INCOMING:
            self.requested.discard(old.call)  # it rings again if the hub still rings it
        self.story = Story(hub=False, media=False)
        self.story.now = old.now + 1
        self.story.log = self.story.machine.restore(old.machine.snapshot(), self.story.at())
        self.seen = 0
        self._follow()

    @invariant()
    def no_call_ends_twice(self) -> None:
        assert all(count == 1 for count in self.ended.values())

    @invariant()
    def every_call_but_the_current_one_is_ended(self) -> None:
        assert {call for call in self.requested if not self.ended[call]} <= {self.story.call}

    @invariant()
    def somebody_or_some_clock_goes_on(self) -> None:
        assert not dead_end(self.story.machine), self.story.machine.status

    @invariant()
    def timers_belong_to_the_state(self) -> None:
        assert set(self.story.machine._deadlines) <= set(Timer)
        assert self.story.state is not State.IDLE or self.story.machine.next_deadline() is None

    def teardown(self) -> None:
        """Left alone and without a hub, everything comes to rest, and every call is ended."""
        self._tell(ev.HubLost())
        for _ in range(6):
            self.story.pass_(400)
            self._follow()
            if self.story.state is State.LIVE:
                self._tell(ev.MediaProcessDied())
            elif self.story.state in (State.DRAFT, State.EMERGENCY):
                self._tell(ev.DraftDropped() if self.story.state is State.DRAFT else ev.DismissChosen(), by_hand=True)
            elif self.story.state is State.RINGING and self.story.machine.status.emergency:
                self._tell(ev.CancelChosen(), by_hand=True)
        assert self.story.machine.status == Status()
        assert all(self.ended[call] == 1 for call in self.requested)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
