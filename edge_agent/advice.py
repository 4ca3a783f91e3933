"""The doctor's answers at the screen: shown, played, and told to the doctor as heard.

Heard means played to the end, voice and text, or text that stood on the screen long enough to be read and was closed by
a hand.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from edge_agent.core import wire
from edge_agent.records import Records
from edge_agent.sounds import Clip, Prompt, Recording, Spoken
from edge_agent.storage import Change, StoredAdvice, StoreThread

log = logging.getLogger(__name__)

READ_S = 3.0
LEFT_ALONE_S = 120.0  # a screen that nobody closes does not show it to whoever comes next


class AdviceOwner(Protocol):
    def mono(self) -> float: ...

    def wall_ms(self) -> int: ...

    def play(self, clips: list[Clip], done: Callable[[bool], None] | None = None) -> None: ...

    def hush(self) -> None: ...

    def send_durable(self, consult: bytes, body: wire.Body, changes: list[Change]) -> None: ...

    def advice_changed(self) -> None: ...


class AdviceDesk:
    def __init__(self, store: StoreThread, records: Records, owner: AdviceOwner) -> None:
        self._store, self._records, self._owner = store, records, owner
        self.shown: StoredAdvice | None = None
        self.playing: StoredAdvice | None = None
        self._shown_at = 0.0
        self._run: object = None  # of the last `play`

    def show(self, id: bytes) -> None:
        """On the screen, and played at once: whoever touches it may not read."""
        stored = self._records.advice.get(id)
        if stored is None:
            return
        if self.shown is not stored:
            self.shown, self._shown_at = stored, self._owner.mono()
            self._owner.advice_changed()
        answer = self._clips(stored)
        if not answer:
            return

        run = self._run = object()

        def done(whole: bool) -> None:
            if self._run is run:
                self.playing = None
            if whole:
                self._heard(stored)
                self._owner.play([Prompt("advice_end")])
            self._shown_at = self._owner.mono()
            self._owner.advice_changed()

        self._owner.play([Prompt("advice_intro"), *answer], done)
        self.playing = stored
        self._owner.advice_changed()

    def close(self) -> None:
        """By a hand."""
        stored = self.shown
        if stored is None:
            return
        read = self._owner.mono() - self._shown_at >= READ_S
        if read and stored.advice.text and not stored.advice.reply:
            self._heard(stored)
        self.interrupt()
        self._owner.hush()

    def interrupt(self) -> None:
        """Something else takes the screen."""
        if self.shown is not None or self.playing is not None:
            self.shown = self.playing = None
            self._owner.advice_changed()

    def next_deadline(self) -> float | None:
        return None if self.shown is None or self.playing else self._shown_at + LEFT_ALONE_S

    def tick(self) -> None:
        deadline = self.next_deadline()
        if deadline is not None and deadline <= self._owner.mono():
            self.interrupt()

    def _clips(self, stored: StoredAdvice) -> list[Clip]:
        """The doctor's voice, where it has arrived, then the text: who cannot read misses neither."""
        clips: list[Clip] = []
        if self._records.voice_arrived(stored):
            store, reply = self._store, stored.advice.reply
            clips.append(Recording(lambda: store.run(store.store.open_copy, reply)))
        if stored.advice.text.strip():
            clips.append(Spoken(stored.advice.text))
        return clips

    def _heard(self, stored: StoredAdvice) -> None:
        if stored.heard_at_ms:
            return
        if stored.advice.reply and not self._records.voice_arrived(stored):
            return  # its other half is still on the way
        now = self._owner.wall_ms()
        log.info("advice heard consult=%s advice=%s", stored.consult.hex(), stored.advice.advice.hex())
        change = self._records.heard(stored.advice.advice, now)
        self._owner.send_durable(stored.consult, wire.AdviceHeard(stored.advice.advice, now), [change])
