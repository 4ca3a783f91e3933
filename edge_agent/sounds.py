"""What the kiosk says, one clip after the other: tones, spoken prompts, the doctor's reply.

A new sequence replaces the one under way. Paths may have to be made first (speech of a text), which happens in a
thread; until the media process is up, or without it, nothing sounds and nobody waits.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_agent import ipc

log = logging.getLogger(__name__)

TONE_PRESS = "tone_press"
TONE_RINGING = "tone_ringing"
TONE_INCOMING = "tone_incoming"
TONE_RECORD = "tone_record"
TONE_RECORDED = "tone_recorded"
TONE_PHOTO = "tone_photo"
TONE_END = "tone_end"


class Voice(Protocol):
    """Where the sounds come from: `kiosk.prompts`. `ready` never blocks, `path` and `speak` may for a while."""

    def tone(self, name: str) -> Path: ...

    def ready(self, key: str, language: str) -> Path | None: ...

    def path(self, key: str, language: str) -> Path | None: ...

    def speak(self, text: str, language: str) -> Path | None: ...


@dataclass(frozen=True, slots=True)
class Tone:
    name: str


@dataclass(frozen=True, slots=True)
class Prompt:
    key: str


@dataclass(frozen=True, slots=True)
class Spoken:
    text: str


@dataclass(frozen=True, slots=True)
class Recording:
    """`open` gives a file that can be played; raises OSError where there is none."""

    open: Callable[[], Awaitable[Path]]


@dataclass(frozen=True, slots=True)
class Turn:
    """What the doctor said while the call goes in turns."""

    packets: tuple[bytes, ...]


Clip = Tone | Prompt | Spoken | Recording | Turn


class Sounds:
    """`play` starts a sequence; `done(whole)` tells its end, with whole=False where it was cut off or a clip failed."""

    def __init__(self, voice: Voice, send: Callable[[ipc.ToMedia], bool]) -> None:
        self.language = "en"
        self._voice, self._send = voice, send
        self._count = itertools.count(1)
        self._playing = ""  # id of the clip under way
        self._rest: list[Clip] = []
        self._cycle: list[Clip] = []
        self._done: Callable[[bool], None] | None = None
        self._whole = True
        self._making: asyncio.Task[None] | None = None

    def play(
        self, clips: Sequence[Clip], *, then_loop: Sequence[Clip] = (), done: Callable[[bool], None] | None = None
    ) -> None:
        """`then_loop` repeats after `clips` until something else is played, or `hush`."""
        self._finish(False)
        self._rest, self._cycle, self._done, self._whole = list(clips), list(then_loop), done, True
        self._next()

    def hush(self) -> None:
        playing = self._playing
        self._finish(False)
        if playing:
            self._send(ipc.StopPlaying())

    @property
    def silent(self) -> bool:
        return not self._playing and self._making is None

    def played(self, frame: ipc.Played) -> None:
        if frame.id != self._playing:
            return
        self._playing = ""
        if frame.error:
            log.warning("sound not played reason=%s", frame.error)
            self._cycle = []  # it would fail for ever
        self._whole = self._whole and frame.whole and not frame.error
        self._next()

    def media_died(self) -> None:
        self._finish(False)

    def _next(self) -> None:
        if not self._rest:
            self._rest = list(self._cycle)
        if not self._rest:
            self._finish(self._whole)
            return
        clip = self._rest.pop(0)
        match clip:
            case Tone(name):
                self._start(self._voice.tone(name))
            case Turn(packets):
                id = self._new_id()
                self._begin(id, ipc.PlayTurn(id, packets))
            case Prompt(key) if ready := self._voice.ready(key, self.language):
                self._start(ready)
            case _:
                self._making = asyncio.create_task(self._make(clip))

    async def _make(self, clip: Clip) -> None:
        made = None
        if isinstance(clip, Prompt):
            made = await asyncio.to_thread(self._voice.path, clip.key, self.language)
        elif isinstance(clip, Spoken):
            made = await asyncio.to_thread(self._voice.speak, clip.text, self.language)
        elif isinstance(clip, Recording):
            try:
                made = await clip.open()
            except OSError as error:
                log.warning("recording not played reason=%s", error)
        self._making = None
        if made is None:
            self._whole = False
            self._next_unless_silent_loop()
        else:
            self._start(made)

    def _next_unless_silent_loop(self) -> None:
        if all(isinstance(clip, (Prompt, Spoken)) for clip in self._cycle):
            self._cycle = []  # nothing of it can be spoken
        self._next()

    def _start(self, path: Path) -> None:
        loop = bool(self._cycle) and not self._rest and len(self._cycle) == 1
        id = self._new_id()
        self._begin(id, ipc.Play(id, str(path), loop))

    def _new_id(self) -> str:
        return f"sound-{next(self._count)}"

    def _begin(self, id: str, frame: ipc.Play | ipc.PlayTurn) -> None:
        if self._send(frame):
            self._playing = id
        else:
            self._cycle = []
            self._finish(False)

    def _finish(self, whole: bool) -> None:
        if self._making is not None:
            self._making.cancel()
            self._making = None
        done, self._done = self._done, None
        self._playing, self._rest, self._cycle = "", [], []
        if done is not None:  # not from within: it may play something itself
            asyncio.get_running_loop().call_soon(done, whole)
