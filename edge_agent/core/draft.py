"""The guided message: voice, photo, a few taps, and it is saved. One step after the other, by button or screen.

Pure. What is captured is already a file when it is told here; every change asks for `KeepDraft`, so a crash loses
at most the field in hand. A draft left alone is saved with what it has; one with nothing in it is dropped.
A patient who cannot read comes through with the button alone: speak, press, press. So a patient's recording starts by
itself when the question has been spoken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from edge_agent.core.wire import Urgency


class Step(Enum):
    VOICE = "voice"
    PHOTO = "photo"
    COMPLAINT = "complaint"
    URGENCY = "urgency"
    REVIEW = "review"


STEPS = tuple(Step)
PATIENT = "patient"  # as `by`
MAX_PHOTOS = 4
MAX_TEXT = 4000
MAX_PATIENT = 120


@dataclass(frozen=True, slots=True)
class Draft:
    """What is on disk of it. Files are ids in the store, in the order they were taken."""

    consult: bytes = b""
    by: str = "patient"
    step: Step = Step.VOICE
    voice: str = ""
    voice_ms: int = 0
    photos: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()
    urgency: Urgency = "routine"
    text: str = ""
    patient: str = ""

    @property
    def empty(self) -> bool:
        return not (self.voice or self.photos or self.complaints or self.text or self.patient)


# --- events ---


class DraftEvent:
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ButtonPressed(DraftEvent):
    pass


@dataclass(frozen=True, slots=True)
class PromptSpoken(DraftEvent):
    """What the last `SayPrompt` asked for is said, or cannot be."""


@dataclass(frozen=True, slots=True)
class RecordToggled(DraftEvent):
    pass


@dataclass(frozen=True, slots=True)
class VoiceDiscarded(DraftEvent):
    pass


@dataclass(frozen=True, slots=True)
class VoiceKept(DraftEvent):
    """The recording is a file of the store."""

    file: str
    duration_ms: int


@dataclass(frozen=True, slots=True)
class CaptureFailed(DraftEvent):
    """Recording or photo came to nothing: no device, or silence of it."""


@dataclass(frozen=True, slots=True)
class PhotoAsked(DraftEvent):
    pass


@dataclass(frozen=True, slots=True)
class PhotoKept(DraftEvent):
    file: str


@dataclass(frozen=True, slots=True)
class PhotoDiscarded(DraftEvent):
    file: str


@dataclass(frozen=True, slots=True)
class ComplaintToggled(DraftEvent):
    code: str


@dataclass(frozen=True, slots=True)
class UrgencySet(DraftEvent):
    urgency: Urgency


@dataclass(frozen=True, slots=True)
class TextSet(DraftEvent):
    text: str


@dataclass(frozen=True, slots=True)
class PatientSet(DraftEvent):
    patient: str


@dataclass(frozen=True, slots=True)
class StepChosen(DraftEvent):
    step: Step


@dataclass(frozen=True, slots=True)
class NextChosen(DraftEvent):
    pass


@dataclass(frozen=True, slots=True)
class SaveChosen(DraftEvent):
    pass


# --- effects ---


class DraftEffect:
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class StartRecording(DraftEffect):
    pass


@dataclass(frozen=True, slots=True)
class StopRecording(DraftEffect):
    pass


@dataclass(frozen=True, slots=True)
class TakePhoto(DraftEffect):
    pass


@dataclass(frozen=True, slots=True)
class ForgetFile(DraftEffect):
    file: str


@dataclass(frozen=True, slots=True)
class KeepDraft(DraftEffect):
    draft: Draft


@dataclass(frozen=True, slots=True)
class SaveCase(DraftEffect):
    """Onto the disk as a case for the doctor; the screen says "saved" only after that."""

    draft: Draft


@dataclass(frozen=True, slots=True)
class DropDraft(DraftEffect):
    consult: bytes


@dataclass(frozen=True, slots=True)
class SayPrompt(DraftEffect):
    key: str


PROMPTS = {
    Step.VOICE: "speak_after_tone",
    Step.PHOTO: "photo_prompt",
    Step.COMPLAINT: "complaint_prompt",
    Step.URGENCY: "urgency_prompt",
    Step.REVIEW: "review_prompt",
}


class DraftFlow:
    """One draft at the screen. `recording` and `busy` are the moment's, `draft` is what lasts."""

    def __init__(self, draft: Draft, idle_s: float, *, microphone: bool = True, camera: bool = True) -> None:
        self.draft = draft
        self.recording = False
        self.busy = False
        self.finished = False
        self._idle_s = idle_s
        self._has = {Step.VOICE: microphone, Step.PHOTO: camera}
        self._deadline: float | None = None
        self._after_capture: Step | None = None  # where the button goes on to once the file is there
        self._save_after_capture = False
        self._interrupted = False
        self._starts_itself = False
        self._failures = 0  # in a row

    def begin(self, now: float) -> list[DraftEffect]:
        """It is at the screen, for the first time or again."""
        self._deadline = now + self._idle_s
        self._interrupted = False
        self._starts_itself = self.draft.by == PATIENT and not self.draft.voice
        effects: list[DraftEffect] = []
        self._go(self._available(self.draft.step), effects)
        return [KeepDraft(self.draft), *effects]

    def next_deadline(self) -> float | None:
        return None if self.finished else self._deadline

    def tick(self, now: float) -> list[DraftEffect]:
        if self.finished or self._deadline is None or now < self._deadline:
            return []
        return self.handle(SaveChosen(), now)

    def interrupt(self, now: float) -> list[DraftEffect]:
        """The doctor rings, or an emergency: what is being recorded is kept, the draft waits."""
        self._deadline = None
        self._interrupted = True
        effects: list[DraftEffect] = []
        if self.recording:
            self._toggle_recording(effects)
        return effects

    def devices(self, microphone: bool, camera: bool, now: float) -> list[DraftEffect]:
        """A device is gone or is back: a step without its device is passed over."""
        self._has = {Step.VOICE: microphone, Step.PHOTO: camera}
        step = self._available(self.draft.step)
        if self.finished or self._interrupted or self._deadline is None or step is self.draft.step or self.busy:
            return []
        return self.handle(StepChosen(step), now)

    def handle(self, event: DraftEvent, now: float) -> list[DraftEffect]:
        effects: list[DraftEffect] = []
        if self.finished:
            return effects
        if not self._interrupted:
            self._deadline = now + self._idle_s
        before = self.draft
        starts_itself, self._starts_itself = self._starts_itself, False  # nobody has touched anything yet
        match event:
            case ButtonPressed():
                self._press(effects)
            case PromptSpoken():
                if starts_itself and self.draft.step is Step.VOICE and not self.recording:
                    self._toggle_recording(effects)
            case RecordToggled():
                self._toggle_recording(effects)
            case VoiceKept(file, duration_ms):
                self.recording = self.busy = False
                self._failures = 0
                if self.draft.voice and self.draft.voice != file:
                    effects.append(ForgetFile(self.draft.voice))
                self.draft = replace(self.draft, voice=file, voice_ms=duration_ms)
                self._captured(effects)
            case VoiceDiscarded() if self.draft.voice and not self.recording:
                effects.append(ForgetFile(self.draft.voice))
                self.draft = replace(self.draft, voice="", voice_ms=0)
            case CaptureFailed():
                self.recording = self.busy = False
                effects.append(SayPrompt("try_again"))
                self._failures += 1
                if self._failures >= 2:  # with the button alone nobody may be kept here
                    self._after_capture = self._after_capture or self._following(self.draft.step)
                self._captured(effects)
            case PhotoAsked():
                self._take_photo(effects)
            case PhotoKept(file):
                self.busy = False
                self._failures = 0
                if file not in self.draft.photos:
                    self.draft = replace(self.draft, photos=(*self.draft.photos, file))
                self._captured(effects)
            case PhotoDiscarded(file) if file in self.draft.photos:
                effects.append(ForgetFile(file))
                self.draft = replace(self.draft, photos=tuple(kept for kept in self.draft.photos if kept != file))
            case ComplaintToggled(code):
                codes = self.draft.complaints
                changed = tuple(kept for kept in codes if kept != code) if code in codes else (*codes, code)
                self.draft = replace(self.draft, complaints=changed)
            case UrgencySet(urgency):
                self.draft = replace(self.draft, urgency=urgency)
            case TextSet(text):
                self.draft = replace(self.draft, text=text[:MAX_TEXT])
            case PatientSet(patient):
                self.draft = replace(self.draft, patient=patient[:MAX_PATIENT])
            case StepChosen(step):
                self._leave(step, effects)
            case NextChosen():
                self._next(effects)
            case SaveChosen():
                self._save(effects)
            case _:
                pass
        if self.draft != before and not self.finished:
            effects.insert(0, KeepDraft(self.draft))
        return effects

    def _press(self, effects: list[DraftEffect]) -> None:
        """The button's next natural step."""
        step = self.draft.step
        if self.recording:
            self._toggle_recording(effects)
            self._after_capture = self._following(step)
        elif self.busy:
            pass
        elif step is Step.VOICE and not self.draft.voice and self._has[Step.VOICE]:
            self._toggle_recording(effects)
        elif step is Step.PHOTO and not self.draft.photos and self._has[Step.PHOTO]:
            self._take_photo(effects)
            self._after_capture = self._following(step)
        else:
            self._next(effects)

    def _toggle_recording(self, effects: list[DraftEffect]) -> None:
        if self.recording:
            self.recording, self.busy = False, True
            effects.append(StopRecording())
        elif not self.busy and self._has[Step.VOICE]:
            self.recording = True
            effects.append(StartRecording())

    def _take_photo(self, effects: list[DraftEffect]) -> None:
        if not self.busy and not self.recording and self._has[Step.PHOTO] and len(self.draft.photos) < MAX_PHOTOS:
            self.busy = True
            effects.append(TakePhoto())

    def _captured(self, effects: list[DraftEffect]) -> None:
        step, self._after_capture = self._after_capture, None
        if self._save_after_capture:
            self._save(effects)
        elif step is not None:
            self._go(step, effects)

    def _next(self, effects: list[DraftEffect]) -> None:
        if self.draft.step is Step.REVIEW:
            self._save(effects)
        else:
            self._leave(self._following(self.draft.step), effects)

    def _leave(self, step: Step, effects: list[DraftEffect]) -> None:
        """To another step; what is being recorded is kept first."""
        if self.recording:
            self._toggle_recording(effects)
        if self.busy:
            self._after_capture = step
        else:
            self._go(step, effects)

    def _go(self, step: Step, effects: list[DraftEffect]) -> None:
        self.draft = replace(self.draft, step=step)
        effects.append(SayPrompt(PROMPTS[step]))

    def _save(self, effects: list[DraftEffect]) -> None:
        if self.recording:
            self._toggle_recording(effects)
        self._save_after_capture = self.busy
        if self.busy:
            return
        self.finished = True
        effects.append(DropDraft(self.draft.consult) if self.draft.empty else SaveCase(self.draft))

    def _following(self, step: Step) -> Step:
        return self._available(STEPS[min(STEPS.index(step) + 1, len(STEPS) - 1)])

    def _available(self, step: Step) -> Step:
        """This step, or the next one that has the device it needs."""
        while not self._has.get(step, True):
            step = STEPS[STEPS.index(step) + 1]
        return step
