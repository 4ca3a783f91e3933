"""The patient's and the doctor's turns while a call is spoken in turns: said, sent, heard; and the way back to live.

What the patient says is durable and goes out while it is said. What the doctor says is kept by the hub until it was
heard here, so this keeps it in memory alone: after a restart the hub says it again.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

from edge_agent import ipc
from edge_agent.core import wire
from edge_agent.core.turn_parts import Hearable, TurnBox
from edge_agent.core.turns import LinkSample, LiveWatch, WayBack, rests
from edge_agent.sounds import TONE_RECORD, TONE_RECORDED, Clip, Tone, Turn
from edge_agent.storage import Change

log = logging.getLogger(__name__)

KEPT_SAID = 8  # turns whose ticks may be shown
FAR_TO_REST_S = 30.0  # the far end has been told by then, or never will be
MOST_TRIES = 3  # to play one; what cannot be played is left to the hub, which keeps what nobody heard

Sent = Literal["", "sending", "delivered", "heard"]


class TurnsOwner(Protocol):
    def mono(self) -> float: ...

    def send_media(self, frame: ipc.ToMedia) -> bool: ...

    def play(self, clips: Sequence[Clip], done: Callable[[bool], None] | None = None) -> None: ...

    def is_silent(self) -> bool:
        """Nothing is being played."""

    def send_durable(self, consult: bytes, body: wire.Body, changes: list[Change]) -> None: ...

    def publish(self, consult: bytes, body: wire.Body) -> None: ...

    def unsent(self, consult: bytes) -> bool: ...

    def nothing_live_fits(self, call: bytes) -> None: ...

    def live_fits(self, call: bytes) -> None: ...

    def turns_changed(self) -> None: ...


class TurnsSeen(NamedTuple):
    """For the screen and the lamp."""

    speaking: bool  # the patient, and it is recorded
    far: Literal["", "speaking", "playing"]
    waiting: int  # of the doctor's turns
    sent: Sent  # the patient's newest


class _Saying:
    """A turn of the patient's under way."""

    def __init__(self, id: str) -> None:
        self.id, self.turn = id, wire.new_message_id()
        self.parts = 0
        self.recording = False  # its tone is over
        self.released = False


class TurnTaking:
    """`begin` and `end` with the call's state; it judges the link of a live call too."""

    def __init__(self, owner: TurnsOwner) -> None:
        self._owner = owner
        self._consult = self._call = b""
        self._on = False
        self._over = False  # the call is
        self._tries: dict[bytes, int] = {}
        self._count = itertools.count(1)
        self._saying: dict[str, _Saying] = {}  # by id; the newest may be speaking, others give their last part yet
        self._speaking: _Saying | None = None
        self._said: dict[bytes, bool] = {}  # the patient's turns in order, and whether the doctor has heard them
        self._box = TurnBox()
        self._playing: Hearable | None = None
        self._watch = LiveWatch()
        self._leg = 0
        self._sampled: tuple[float, LinkSample] | None = None  # of this leg, the last
        self._far_rests = True
        self._began_at = 0.0
        self._way_back = WayBack()

    # --- the call's state

    def begin(self, consult: bytes, call: bytes) -> None:
        """From now on people speak in turns. Safe to call again."""
        if self._on:
            return
        self._on, self._over, self._consult = True, False, consult
        self._belong_to(call)
        self._began_at = self._owner.mono()
        self._way_back.begin(self._began_at)

    def end(self, live: bool) -> None:
        """They do no more. What the doctor said last is still heard where they talk on (`live`)."""
        self._over = not live
        if not self._on:
            return
        self._on = False
        self.stop_speaking()
        self._way_back.end(self._owner.mono(), live)
        self._watch = LiveWatch()

    def _belong_to(self, call: bytes) -> None:
        if call != self._call:
            self._call = call
            self._box, self._said, self._tries = TurnBox(), {}, {}

    @property
    def seen(self) -> TurnsSeen:
        speaking = self._speaking is not None and self._speaking.recording
        far: Literal["", "speaking", "playing"] = ""
        if self._playing is not None:
            far = "playing"
        elif self._box.is_spoken(self._owner.mono()):
            far = "speaking"
        sent: Sent = ""
        if self._said:
            heard = next(reversed(self._said.values()))
            on_its_way = bool(self._saying) or self._owner.unsent(self._consult)
            sent = "heard" if heard else "sending" if on_its_way else "delivered"
        return TurnsSeen(speaking, far, self._box.waiting - (self._playing is not None), sent)

    # --- the patient speaks

    def speak(self) -> None:
        saying = self._speaking = _Saying(f"turn-{next(self._count)}")
        self._owner.play([Tone(TONE_RECORD)], lambda _: self._record(saying))
        self._playing = None  # cut off, and heard again afterwards
        self._tries.clear()
        self._owner.turns_changed()

    def _record(self, saying: _Saying) -> None:
        """After its tone."""
        if self._speaking is not saying or not self._owner.send_media(ipc.StartTurn(saying.id)):
            return
        saying.recording = True
        self._saying[saying.id] = saying
        self._send(saying, (), last=False)  # the doctor is told at once that somebody speaks
        self._owner.turns_changed()

    def stop_speaking(self) -> None:
        saying, self._speaking = self._speaking, None
        if saying is None:
            return
        if saying.recording:
            self._owner.send_media(ipc.StopTurn())
            self._owner.play([Tone(TONE_RECORDED)], lambda _: self._play_next())
        self._owner.turns_changed()

    def sound(self, frame: ipc.TurnSound) -> None:
        saying = self._saying.get(frame.id)
        if saying is None:
            return
        if frame.last:
            del self._saying[frame.id]
            if self._speaking is saying:  # the longest that there may be
                self._speaking = None
        self._send(saying, frame.packets, frame.last)
        self._owner.turns_changed()

    def _send(self, saying: _Saying, packets: tuple[bytes, ...], last: bool) -> None:
        if saying.turn not in self._said:
            self._said[saying.turn] = False
            if len(self._said) > KEPT_SAID:
                del self._said[next(iter(self._said))]
        part = wire.TurnPart(self._call, saying.turn, saying.parts, packets, last)
        saying.parts += 1
        self._owner.send_durable(self._consult, part, [])
        if last:
            log.info("turn said call=%s turn=%s parts=%d", self._call.hex(), saying.turn.hex(), saying.parts)

    def media_died(self) -> None:
        """What was said as far as it was coded is a turn."""
        self._speaking, self._playing = None, None
        for saying in list(self._saying.values()):
            self.sound(ipc.TurnSound(saying.id, (), last=True))

    # --- the doctor speaks

    def take(self, message: wire.Message) -> None:
        """A part of what the doctor says, or the word that he has heard the patient."""
        body = message.body
        self._owner.publish(message.consult, wire.Receipt((message.id,)))
        match body:
            case wire.TurnPart(call, turn, part, packets, last) if call == self._call:
                self._box.add(turn, part, packets, last, self._owner.mono())
                self._play_next()
            case wire.TurnHeard(call, turn) if call == self._call and turn in self._said:
                self._said[turn] = True
        self._owner.turns_changed()

    def _play_next(self) -> None:
        if self._speaking is not None or self._playing is not None or self._over or not self._owner.is_silent():
            return
        turn = self._box.next(self._owner.mono())
        if turn is None:
            return
        if not turn.packets:
            self._heard(turn)
            return
        self._playing = turn

        def done(whole: bool) -> None:
            if self._playing is turn:
                self._playing = None
            if whole:
                self._heard(turn)
            self._owner.turns_changed()

        tries = self._tries[turn.turn] = self._tries.get(turn.turn, 0) + 1
        if tries >= MOST_TRIES:
            self._box.heard(turn.turn)
        self._owner.play([Turn(turn.packets)], done)

    def _heard(self, turn: Hearable) -> None:
        self._box.heard(turn.turn)
        self._tries.pop(turn.turn, None)
        if turn.is_whole:  # of half a turn the hub keeps the rest, and all of it in the end
            self._owner.send_durable(self._consult, wire.TurnHeard(self._call, turn.turn), [])
        log.info("turn heard call=%s turn=%s whole=%s", self._call.hex(), turn.turn.hex(), turn.is_whole)
        self._play_next()

    def spoken(self) -> None:
        """The kiosk has said what it had to say."""
        self._play_next()

    # --- the link

    def stats(self, frame: ipc.CallStats, judged: bool) -> None:
        """Once a second of the leg that is heard. `judged`: the call is live, or was."""
        if not judged and not self._on:
            return
        if frame.leg != self._leg or frame.call != self._call:
            self._belong_to(frame.call)
            self._leg, self._watch, self._sampled = frame.leg, LiveWatch(), None
        now = self._owner.mono()
        sample = LinkSample(
            frame.sent_bytes, frame.received_bytes, frame.sound_received, frame.sound_lost, frame.lost_up,
            frame.rtt_ms / 1000,
        )  # fmt: skip
        last, self._sampled = self._sampled, (now, sample)
        self._far_rests = last is not None and rests(last[1], sample, now - last[0])
        if self._on:
            return
        if self._watch.sample(sample, now):
            log.warning(
                "nothing live fits call=%s leg=%d up_bps=%d stats=%s", frame.call.hex(), frame.leg, frame.up_bps, sample
            )
            self._watch = LiveWatch()
            self._owner.nothing_live_fits(frame.call)

    def probed(self, frame: ipc.LiveProbed) -> None:
        log.info("live probed call=%s fits=%s", frame.call.hex(), frame.fits)
        if frame.call == self._call and self._way_back.answered(frame.fits, self._owner.mono()):
            self._owner.live_fits(frame.call)

    def next_deadline(self) -> float | None:
        if not self._on:
            return None
        times = (self._way_back.next_deadline(), self._box.next_deadline(self._owner.mono()))
        return min((at for at in times if at is not None), default=None)

    def tick(self) -> None:
        if not self._on:
            return
        now = self._owner.mono()
        self._play_next()
        quiet = (
            self._speaking is None
            and not self._saying
            and not self._box.is_spoken(now)
            and not self._owner.unsent(self._consult)
            and (self._far_rests or now - self._began_at > FAR_TO_REST_S)
        )
        in_full = self._way_back.probe(now, quiet)
        if in_full is not None and not self._owner.send_media(ipc.ProbeLive(self._call, in_full)):
            self._way_back.answered(False, now)
