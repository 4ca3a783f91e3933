"""The drafts of guided messages: carries out what `edge_agent.core.draft` asks for.

One draft is at the screen at most; others wait for their consult to come back, or finish by themselves. What is
captured is a file of the store, in the same transaction as the draft that names it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from edge_agent import ipc
from edge_agent.core import draft as core
from edge_agent.core import wire
from edge_agent.records import Records, manifest_of
from edge_agent.sounds import TONE_PHOTO, TONE_RECORD, TONE_RECORDED, Clip, Prompt, Tone
from edge_agent.store import (
    CaseKept,
    Change,
    DraftGone,
    DraftKept,
    FileForgotten,
    FileKept,
    StoreError,
    StoreThread,
)

log = logging.getLogger(__name__)

MEDIA_TIMEOUT_S = 15.0  # it may just be starting
PHOTO_TIMEOUT_S = 10.0
WRITE_TIMEOUT_S = 10.0  # from the stop of a recording, or its greatest length, to its file

_draft_decoder = msgspec.msgpack.Decoder(core.Draft)


class DraftOwner(Protocol):
    def mono(self) -> float: ...

    def wall_ms(self) -> int: ...

    def media_is_up(self) -> bool: ...

    def send_media(self, frame: ipc.ToMedia) -> bool: ...

    def commit(self, changes: list[Change], after: Callable[[], None]) -> None: ...

    def play(self, clips: list[Clip], done: Callable[[bool], None] | None = None) -> None: ...

    def case_saved(self, consult: bytes, changes: list[Change]) -> None:
        """May add to the transaction that saves, or drops, the draft."""

    def draft_finished(self, consult: bytes, saved: bool) -> None:
        """After that transaction."""

    def store_failed(self, error: StoreError) -> None: ...

    def store_fails(self) -> bool: ...

    def draft_changed(self) -> None: ...


@dataclass(slots=True)
class _Capture:
    id: str
    flow: core.DraftFlow
    kind: Literal["voice", "photo"]
    path: Path
    started: bool = False  # it waits for the media process, a recording for the end of its tone too
    timeout: asyncio.TimerHandle | None = None


class Drafts:
    def __init__(
        self, store: StoreThread, records: Records, owner: DraftOwner, idle_s: float, max_voice_s: float
    ) -> None:
        self._store, self._records, self._owner = store, records, owner
        self._idle_s, self._max_voice_s = idle_s, max_voice_s
        self._flows: dict[bytes, core.DraftFlow] = {}
        self._kept: dict[tuple[bytes, str], FileKept] = {}  # by consult and id, while a draft may name them
        self._on_disk: dict[bytes, core.Draft] = {}
        self._shown: core.DraftFlow | None = None
        self._captures: dict[str, _Capture] = {}
        self._keeping: set[asyncio.Task[None]] = set()
        self._has_microphone = self._has_camera = True
        self._count = itertools.count(1)
        self.level, self.elapsed_ms = 0.0, 0  # of the recording under way

    @property
    def shown(self) -> core.DraftFlow | None:
        return self._shown

    def seen(self, flow: core.DraftFlow) -> core.Draft:
        """What the screen shows of it: what is on the disk, so that nobody sees a tap that a power cut takes back.
        While the disk fails, which the screen says too, the message goes on all the same."""
        return flow.draft if self._owner.store_fails() else self._on_disk.get(flow.draft.consult, flow.draft)

    def is_open(self, consult: bytes) -> bool:
        return consult in self._flows

    def load(self, drafts: list[tuple[bytes, bytes]], files: list[FileKept]) -> None:
        """Drafts of before this start; they wait for `show` or `leave`."""
        self._kept = {(file.consult, file.digest.hex()): file for file in files}
        for consult, content in drafts:
            try:
                draft = _draft_decoder.decode(content)
            except msgspec.DecodeError as error:
                log.error("draft unreadable consult=%s reason=%s", consult.hex(), error)
                continue
            self._flows[consult] = self._flow(draft)
            self._on_disk[consult] = draft

    def show(self, consult: bytes, by: str) -> list[Clip]:
        """Brings this consult's draft to the screen, a new one where there is none. Gives what is said."""
        flow = self._flows.get(consult)
        if flow is None:
            flow = self._flows[consult] = self._flow(core.Draft(consult, by))
        self._shown = flow
        return self._carry_out(flow, flow.begin(self._owner.mono()), [])

    def leave(self, consult: bytes) -> None:
        """Another screen is on. The draft of `consult` waits; those of other consults are saved as they stand."""
        now = self._owner.mono()
        shown, self._shown = self._shown, None
        if shown is not None:
            self._owner.send_media(ipc.ShowOwnPicture(False))
            self._carry_out(shown, shown.interrupt(now), [])
        for other, flow in list(self._flows.items()):
            if other != consult:
                self._carry_out(flow, flow.handle(core.SaveChosen(), now), [])

    def tell(self, event: core.DraftEvent) -> list[Clip]:
        """What a person does in the draft at the screen. Gives what is said."""
        flow = self._shown
        if flow is None:
            return []
        return self._carry_out(flow, flow.handle(event, self._owner.mono()), [])

    def spoken(self) -> None:
        """Whatever was to be said is said."""
        self.tell(core.PromptSpoken())

    def prompt(self) -> list[Clip]:
        """What the step at the screen asks for, once more."""
        flow = self._shown
        return [] if flow is None or flow.recording or flow.finished else [Prompt(core.PROMPTS[flow.draft.step])]

    def next_deadline(self) -> float | None:
        deadlines = [at for flow in self._flows.values() if (at := flow.next_deadline()) is not None]
        return min(deadlines, default=None)

    def tick(self) -> None:
        now = self._owner.mono()
        for flow in list(self._flows.values()):
            self._carry_out(flow, flow.tick(now), [])

    # the media process

    def devices(self, missing: tuple[str, ...]) -> None:
        self._has_microphone, self._has_camera = "microphone" not in missing, "camera" not in missing
        for capture in self._captures.values():
            if not capture.started:
                self._start(capture)
        for flow in list(self._flows.values()):
            effects = flow.devices(self._has_microphone, self._has_camera, self._owner.mono())
            clips = self._carry_out(flow, effects, [])
            if flow is self._shown:
                self._say(clips)

    def recorded(self, frame: ipc.Recorded) -> None:
        self._captured(frame.id, frame.error, frame.duration_ms, ())

    def photo_taken(self, frame: ipc.PhotoTaken) -> None:
        self._captured(frame.id, frame.error, 0, frame.renditions)

    def recording_level(self, frame: ipc.RecordingLevel) -> None:
        if frame.id in self._captures:
            self.level, self.elapsed_ms = frame.level, frame.elapsed_ms
            self._owner.draft_changed()

    def media_died(self) -> None:
        for capture in list(self._captures.values()):
            if capture.started:
                self._fail(capture, "the media process died")

    # within

    def _flow(self, draft: core.Draft) -> core.DraftFlow:
        return core.DraftFlow(draft, self._idle_s, microphone=self._has_microphone, camera=self._has_camera)

    def _say(self, clips: list[Clip]) -> None:
        if clips:
            self._owner.play(clips)

    def _carry_out(self, flow: core.DraftFlow, effects: list[core.DraftEffect], changes: list[Change]) -> list[Clip]:
        """One transaction with `changes` and what the effects change. Gives what is to be said."""
        clips: list[Clip] = []
        consult = flow.draft.consult
        finished: bool | None = None
        for effect in effects:
            match effect:
                case core.StartRecording():
                    self._start_recording(flow)
                case core.StopRecording():
                    self._stop_recording(flow)
                case core.TakePhoto():
                    self._take_photo(flow)
                case core.ForgetFile(file):
                    changes.append(FileForgotten(consult, bytes.fromhex(file)))
                    changes += [FileForgotten(consult, each.digest) for each in self._renditions(consult, file)]
                case core.KeepDraft(draft):
                    changes.append(DraftKept(consult, msgspec.msgpack.encode(draft)))
                case core.SaveCase(draft):
                    finished = True
                    changes += self._case(draft)
                case core.DropDraft():
                    finished = False
                    changes.append(DraftGone(consult))
                case core.SayPrompt(key):
                    clips.append(Prompt(key))
        if finished is not None:
            self._owner.case_saved(consult, changes)
            self._owner.commit(changes, lambda: self._finished(flow, bool(finished)))
        elif changes:
            kept = flow.draft
            self._owner.commit(changes, lambda: self._kept_on_disk(kept))
        if flow is self._shown:
            self._owner.send_media(ipc.ShowOwnPicture(flow.draft.step is core.Step.PHOTO and not flow.finished))
        if effects:
            self._owner.draft_changed()
        return clips

    def _kept_on_disk(self, draft: core.Draft) -> None:
        if draft.consult in self._flows:
            self._on_disk[draft.consult] = draft
        self._owner.draft_changed()

    def _finished(self, flow: core.DraftFlow, saved: bool) -> None:
        consult = flow.draft.consult
        if self._flows.get(consult) is flow:
            del self._flows[consult]
        if self._shown is flow:
            self._shown = None
        self._on_disk.pop(consult, None)
        self._kept = {key: file for key, file in self._kept.items() if key[0] != consult}
        log.info("draft %s consult=%s", "saved" if saved else "dropped", consult.hex())
        self._owner.draft_finished(consult, saved)

    def _case(self, draft: core.Draft) -> list[Change]:
        """The case for the doctor: note, files, and the word that it is complete."""
        now, consult = self._owner.wall_ms(), draft.consult
        note = wire.CaseNote(draft.by, now, draft.urgency, draft.complaints, draft.text, draft.patient)
        bodies: list[wire.Body] = [note]
        files = [file for file in (draft.voice, *draft.photos) if file]
        smaller = [each for photo in draft.photos for each in self._renditions(consult, photo)]
        kept = [self._kept[consult, file] for file in files]
        by_quality = [[each for each in smaller if each.rendition == name] for name in ("thumbnail", "preview")]
        voice = [each for each in kept if each.role == "voice"]
        photos = [each for each in kept if each.role != "voice"]
        for each in (*voice, *by_quality[0], *by_quality[1], *photos):  # files of one priority go in this order
            original = self._original_bytes(consult, each.digest.hex())
            bodies.append(manifest_of(each, original))
        bodies.append(wire.CaseSaved(now, tuple(bytes.fromhex(file) for file in files)))
        case = CaseKept(consult, now, draft.patient, draft.complaints, draft.urgency)
        queued = [self._records.queue(consult, body, now) for body in bodies]
        return [*queued, self._records.case_saved(case), DraftGone(consult)]

    def _renditions(self, consult: bytes, photo: str) -> list[FileKept]:
        return [
            kept for (of_consult, _), kept in self._kept.items() if of_consult == consult and kept.of.hex() == photo
        ]

    def _original_bytes(self, consult: bytes, photo: str) -> int:
        return sum(each.size for each in self._renditions(consult, photo) if each.rendition == "original")

    # capturing

    def _start_recording(self, flow: core.DraftFlow) -> None:
        self.level, self.elapsed_ms = 0.0, 0
        self._begin(flow, "voice", ".ogg")

    def _start(self, capture: _Capture) -> None:
        """Now, or when the media process is up."""
        if not self._owner.media_is_up():
            self._expire(capture, MEDIA_TIMEOUT_S)
        elif capture.kind == "photo":
            capture.started = True
            self._expire(capture, PHOTO_TIMEOUT_S)
            self._owner.send_media(ipc.TakePhoto(capture.id, str(capture.path)))
        else:
            self._owner.play([Tone(TONE_RECORD)], lambda _: self._record(capture))

    def _record(self, capture: _Capture) -> None:
        """After its tone."""
        if self._captures.get(capture.id) is not capture or capture.started:
            return
        if not self._owner.media_is_up():
            self._fail(capture, "the media process died")
            return
        capture.started = True
        self._expire(capture, self._max_voice_s + WRITE_TIMEOUT_S)
        self._owner.send_media(ipc.StartRecording(capture.id, str(capture.path), self._max_voice_s))

    def _stop_recording(self, flow: core.DraftFlow) -> None:
        for capture in list(self._captures.values()):
            if capture.flow is flow and capture.kind == "voice":
                if capture.started and self._owner.send_media(ipc.StopRecording()):
                    self._expire(capture, WRITE_TIMEOUT_S)
                else:
                    self._fail(capture, "stopped before it began")

    def _take_photo(self, flow: core.DraftFlow) -> None:
        self._begin(flow, "photo", ".jpg")

    def _begin(self, flow: core.DraftFlow, kind: Literal["voice", "photo"], suffix: str) -> None:
        id = f"{kind}-{next(self._count)}"
        try:
            path = self._store.store.new_capture(suffix)
        except (StoreError, OSError) as error:
            if isinstance(error, StoreError):
                self._owner.store_failed(error)
            log.warning("capture failed id=%s reason=%s", id, error)
            asyncio.get_running_loop().call_soon(self._failed, flow)
            return
        capture = self._captures[id] = _Capture(id, flow, kind, path)
        self._start(capture)

    def _expire(self, capture: _Capture, seconds: float) -> None:
        if capture.timeout is not None:
            capture.timeout.cancel()
        capture.timeout = asyncio.get_running_loop().call_later(seconds, self._fail, capture, "no answer in time")

    def _fail(self, capture: _Capture, why: str) -> None:
        if self._captures.pop(capture.id, None) is None:
            return
        if capture.timeout is not None:
            capture.timeout.cancel()
        log.warning("capture failed id=%s reason=%s", capture.id, why)
        asyncio.get_running_loop().call_soon(self._failed, capture.flow)

    def _failed(self, flow: core.DraftFlow) -> None:
        clips = self._carry_out(flow, flow.handle(core.CaptureFailed(), self._owner.mono()), [])
        if flow is self._shown:
            self._say(clips)

    def _captured(self, id: str, error: str, duration_ms: int, renditions: tuple[ipc.PhotoRendition, ...]) -> None:
        capture = self._captures.get(id)
        if capture is None:
            return
        if error:
            self._fail(capture, error)
            return
        del self._captures[id]
        if capture.timeout is not None:
            capture.timeout.cancel()
        task = asyncio.get_running_loop().create_task(self._keep(capture, duration_ms, renditions))
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    async def _keep(self, capture: _Capture, duration_ms: int, renditions: tuple[ipc.PhotoRendition, ...]) -> None:
        flow, run, keep = capture.flow, self._store.run, self._store.store.keep_file
        now, by = self._owner.wall_ms(), flow.draft.by
        try:
            digest, size = await run(keep, capture.path)
            smaller = [(each, *await run(keep, Path(each.path))) for each in renditions]
        except StoreError as error:
            self._owner.store_failed(error)
            log.error("capture not kept id=%s reason=%s", capture.id, error)
            self._failed(flow)
            return
        mime = "audio/ogg" if capture.kind == "voice" else "image/jpeg"
        consult = flow.draft.consult
        files = [FileKept(consult, digest, capture.kind, mime, size, now, by, duration_ms)]
        files += [
            FileKept(consult, of_it, capture.kind, each.mime, its_size, now, by, of=digest, rendition=each.name)
            for each, of_it, its_size in smaller
        ]
        self._kept |= {(consult, file.digest.hex()): file for file in files}
        event: core.DraftEvent
        if capture.kind == "voice":
            tone, event = TONE_RECORDED, core.VoiceKept(digest.hex(), duration_ms)
        else:
            tone, event = TONE_PHOTO, core.PhotoKept(digest.hex())
        clips = self._carry_out(flow, flow.handle(event, self._owner.mono()), [*files])
        if flow is self._shown:
            self._owner.play([Tone(tone), *clips])
