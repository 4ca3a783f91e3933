"""The guided message in virtual time: by the button, by the screen, without devices, interrupted, left alone."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.core import draft as d
from edge_agent.core.draft import Draft, DraftFlow, Step

CONSULT = b"k" * 16
IDLE_S = 180.0


def flow(draft: Draft | None = None, *, microphone: bool = True, camera: bool = True) -> DraftFlow:
    return DraftFlow(draft or Draft(CONSULT), IDLE_S, microphone=microphone, camera=camera)


def kinds(effects: list[d.DraftEffect]) -> list[type]:
    return [type(effect) for effect in effects]


def said(effects: list[d.DraftEffect]) -> list[str]:
    return [effect.key for effect in effects if isinstance(effect, d.SayPrompt)]


def test_by_the_button_alone():
    it = flow()
    assert said(it.begin(0)) == ["speak_after_tone"]
    assert kinds(it.handle(d.PromptSpoken(), 5)) == [d.StartRecording]
    assert it.recording
    assert kinds(it.handle(d.ButtonPressed(), 20)) == [d.StopRecording]
    assert it.handle(d.ButtonPressed(), 20.1) == []  # impatient
    effects = it.handle(d.VoiceKept("v", 15_000), 21)
    assert said(effects) == ["photo_prompt"]
    assert effects[0] == d.KeepDraft(it.draft)
    assert kinds(it.handle(d.ButtonPressed(), 25)) == [d.TakePhoto]
    assert said(it.handle(d.PhotoKept("p"), 26)) == ["complaint_prompt"]
    assert said(it.handle(d.ButtonPressed(), 30)) == ["urgency_prompt"]
    assert said(it.handle(d.ButtonPressed(), 32)) == ["review_prompt"]
    effects = it.handle(d.ButtonPressed(), 35)
    assert effects == [d.SaveCase(Draft(CONSULT, step=Step.REVIEW, voice="v", voice_ms=15_000, photos=("p",)))]
    assert it.finished
    assert it.handle(d.ButtonPressed(), 36) == []
    assert it.next_deadline() is None


def test_a_recording_starts_by_itself_for_a_patient_who_has_touched_nothing():
    worker = flow(Draft(CONSULT, by="worker"))
    worker.begin(0)
    assert worker.handle(d.PromptSpoken(), 5) == []
    touched = flow()
    touched.begin(0)
    touched.handle(d.ComplaintToggled("fever"), 1)
    assert touched.handle(d.PromptSpoken(), 5) == []
    spoken = flow(Draft(CONSULT, voice="v"))
    spoken.begin(0)
    assert spoken.handle(d.PromptSpoken(), 5) == []
    pressed = flow()
    pressed.begin(0)
    pressed.handle(d.ButtonPressed(), 1)
    assert pressed.handle(d.PromptSpoken(), 5) == []
    assert pressed.recording


def test_by_the_screen():
    it = flow(Draft(CONSULT, by="worker"))
    it.begin(0)
    it.handle(d.StepChosen(Step.COMPLAINT), 1)
    it.handle(d.ComplaintToggled("fever"), 2)
    it.handle(d.ComplaintToggled("cough"), 2)
    it.handle(d.ComplaintToggled("fever"), 3)
    it.handle(d.UrgencySet("urgent"), 4)
    it.handle(d.TextSet("x" * 5000), 5)
    it.handle(d.PatientSet("A 12"), 6)
    assert it.draft == Draft(
        CONSULT, "worker", Step.COMPLAINT, complaints=("cough",), urgency="urgent", text="x" * 4000, patient="A 12"
    )
    assert kinds(it.handle(d.SaveChosen(), 7)) == [d.SaveCase]


def test_saving_waits_for_the_recording():
    it = flow()
    it.begin(0)
    it.handle(d.RecordToggled(), 1)
    assert kinds(it.handle(d.SaveChosen(), 9)) == [d.StopRecording]
    assert not it.finished
    effects = it.handle(d.VoiceKept("v", 8000), 10)
    assert kinds(effects) == [d.SaveCase]
    assert effects[0].draft.voice == "v"


def test_leaving_the_step_keeps_the_recording():
    it = flow()
    it.begin(0)
    it.handle(d.RecordToggled(), 1)
    assert kinds(it.handle(d.StepChosen(Step.REVIEW), 9)) == [d.StopRecording]
    assert it.draft.step is Step.VOICE
    it.handle(d.VoiceKept("v", 8000), 10)
    assert (it.draft.step, it.draft.voice) == (Step.REVIEW, "v")


def test_recording_anew_forgets_the_old_file_when_the_new_one_is_there():
    it = flow(Draft(CONSULT, voice="old", voice_ms=5))
    it.begin(0)
    assert kinds(it.handle(d.RecordToggled(), 1)) == [d.StartRecording]
    it.handle(d.RecordToggled(), 2)
    effects = it.handle(d.VoiceKept("new", 1000), 3)
    assert d.ForgetFile("old") in effects
    assert it.draft.voice == "new"
    assert d.ForgetFile("new") in it.handle(d.VoiceDiscarded(), 4)
    assert it.draft.voice == ""


def test_photos():
    it = flow(Draft(CONSULT, step=Step.PHOTO))
    it.begin(0)
    for number in range(d.MAX_PHOTOS):
        assert kinds(it.handle(d.PhotoAsked(), number)) == [d.TakePhoto]
        assert it.handle(d.PhotoAsked(), number) == []  # one at a time
        it.handle(d.PhotoKept(f"p{number}"), number)
    assert it.handle(d.PhotoAsked(), 9) == []
    effects = it.handle(d.PhotoDiscarded("p1"), 10)
    assert d.ForgetFile("p1") in effects
    assert it.draft.photos == ("p0", "p2", "p3")
    assert it.handle(d.PhotoDiscarded("p1"), 11) == []


def test_the_same_picture_twice_is_one_file():
    it = flow(Draft(CONSULT, step=Step.PHOTO))
    it.begin(0)
    for now in (1, 2):
        it.handle(d.PhotoAsked(), now)
        it.handle(d.PhotoKept("p"), now)
    assert it.draft.photos == ("p",)


@pytest.mark.parametrize(
    ("microphone", "camera", "steps"),
    [
        (False, True, [Step.PHOTO, Step.COMPLAINT, Step.URGENCY, Step.REVIEW]),
        (True, False, [Step.VOICE, Step.COMPLAINT, Step.URGENCY, Step.REVIEW]),
        (False, False, [Step.COMPLAINT, Step.URGENCY, Step.REVIEW]),
    ],
)
def test_steps_without_their_device_are_passed_over(microphone, camera, steps):
    it = flow(microphone=microphone, camera=camera)
    it.begin(0)
    seen = [it.draft.step]
    while not it.finished:
        it.handle(d.NextChosen(), 1)
        seen.append(it.draft.step)
    assert seen == [*steps, Step.REVIEW]


@pytest.mark.parametrize("step", [Step.VOICE, Step.PHOTO])
def test_the_button_goes_on_from_a_step_whose_device_is_missing(step):
    it = flow(microphone=False, camera=False)
    it.begin(0)
    it.handle(d.StepChosen(step), 1)
    it.handle(d.ButtonPressed(), 2)
    assert it.draft.step is not step


def test_a_device_that_goes_is_passed_over_and_one_that_returns_is_used():
    it = flow()
    it.begin(0)
    assert said(it.devices(False, False, 1)) == ["complaint_prompt"]
    assert it.devices(True, True, 2) == []
    it.handle(d.StepChosen(Step.PHOTO), 3)
    assert kinds(it.handle(d.PhotoAsked(), 4)) == [d.TakePhoto]


def test_a_capture_that_fails_is_said_and_twice_is_enough():
    it = flow()
    it.begin(0)
    it.handle(d.ButtonPressed(), 1)
    assert said(it.handle(d.CaptureFailed(), 2)) == ["try_again"]
    assert it.draft.step is Step.VOICE
    it.handle(d.ButtonPressed(), 3)
    assert said(it.handle(d.CaptureFailed(), 4)) == ["try_again", "photo_prompt"]


def test_left_alone_it_is_saved_with_what_it_has():
    it = flow()
    it.begin(0)
    it.handle(d.ComplaintToggled("fever"), 10)
    assert it.next_deadline() == 10 + IDLE_S
    assert it.tick(189.9) == []
    assert kinds(it.tick(190)) == [d.SaveCase]


def test_left_alone_with_nothing_in_it_is_dropped():
    it = flow()
    it.begin(0)
    assert it.tick(IDLE_S) == [d.DropDraft(CONSULT)]


def test_left_alone_while_recording_keeps_the_recording():
    it = flow()
    it.begin(0)
    it.handle(d.RecordToggled(), 1)
    assert kinds(it.tick(1 + IDLE_S)) == [d.StopRecording]
    assert kinds(it.handle(d.VoiceKept("v", 9), 182)) == [d.SaveCase]


def test_interrupted_it_waits_without_a_clock_and_goes_on():
    it = flow()
    it.begin(0)
    it.handle(d.RecordToggled(), 1)
    assert kinds(it.interrupt(5)) == [d.StopRecording]
    it.handle(d.VoiceKept("v", 4000), 6)
    assert it.next_deadline() is None
    assert it.tick(10_000) == []
    effects = it.begin(10_000)
    assert said(effects) == ["speak_after_tone"]
    assert it.draft.voice == "v"
    assert it.next_deadline() == 10_000 + IDLE_S


def test_a_draft_survives_the_disk():
    draft = Draft(CONSULT, "worker", Step.REVIEW, "v", 5, ("p", "q"), ("fever",), "urgent", "text", "A 12")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(draft), type=Draft) == draft


HANDS = st.sampled_from(
    [
        d.ButtonPressed(), d.PromptSpoken(), d.RecordToggled(), d.VoiceDiscarded(), d.PhotoAsked(),
        d.PhotoDiscarded("f1"), d.ComplaintToggled("fever"), d.UrgencySet("urgent"), d.TextSet("t"),
        d.PatientSet("p"), d.StepChosen(Step.VOICE), d.StepChosen(Step.PHOTO), d.StepChosen(Step.REVIEW),
        d.NextChosen(), d.SaveChosen(),
    ]
)  # fmt: skip
WORLD = st.sampled_from(["captured", "failed", "devices", "interrupt", "begin", "tick"])


@settings(max_examples=300, deadline=None)
@given(
    events=st.lists(st.one_of(HANDS, WORLD), max_size=40),
    microphone=st.booleans(),
    camera=st.booleans(),
)
def test_whatever_hands_do_nothing_captured_is_lost(events, microphone, camera):
    it = flow(microphone=microphone, camera=camera)
    names = (f"f{number}" for number in itertools.count(1))
    kept: set[str] = set()
    out: set[str] = set()
    capturing = ""
    now = 0.0
    on_disk = Draft(CONSULT)
    ended: list[d.DraftEffect] = []

    def carry_out(effects: list[d.DraftEffect]) -> None:
        nonlocal capturing, on_disk
        for effect in effects:
            match effect:
                case d.StartRecording():
                    assert not capturing
                    capturing = "recording"
                case d.TakePhoto():
                    assert not capturing
                    capturing = "photo"
                case d.StopRecording():
                    assert capturing == "recording"
                    capturing = "voice"
                case d.ForgetFile(file):
                    assert file in kept
                    kept.discard(file)
                    out.add(file)
                case d.KeepDraft(draft):
                    on_disk = draft
                case d.SaveCase() | d.DropDraft():
                    ended.append(effect)

    carry_out(it.begin(now))
    for event in events:
        now += 1.0
        if event == "captured" and capturing in ("voice", "photo"):
            name = next(names)
            kept.add(name)
            what, capturing = capturing, ""
            carry_out(it.handle(d.VoiceKept(name, 5) if what == "voice" else d.PhotoKept(name), now))
        elif event == "failed" and capturing:
            capturing = ""
            carry_out(it.handle(d.CaptureFailed(), now))
        elif event == "devices":
            carry_out(it.devices(camera, microphone, now))
        elif event == "interrupt":
            carry_out(it.interrupt(now))
        elif event == "begin" and not it.finished:
            carry_out(it.begin(now))
        elif event == "tick":
            now += IDLE_S
            carry_out(it.tick(now))
        elif isinstance(event, d.DraftEvent):
            carry_out(it.handle(event, now))
        assert len(ended) <= 1
        assert it.finished == bool(ended)
        if not it.finished:
            assert it.draft == on_disk
        assert {file for file in (it.draft.voice, *it.draft.photos) if file} == kept
    # left alone, it ends by itself
    if not it.finished:
        carry_out(it.begin(now))
        for _ in range(3):
            now += IDLE_S
            carry_out(it.tick(now))
            if capturing and not it.finished:
                name = next(names)
                kept.add(name)
                carry_out(it.handle(d.PhotoKept(name) if capturing == "photo" else d.VoiceKept(name, 5), now))
                capturing = ""
    assert it.finished
    assert isinstance(ended[0], d.DropDraft if it.draft.empty else d.SaveCase)
