"""What the agent remembers of its consults while it runs: the store's contents, kept in step with it.

Every method that changes something gives the `Change` that makes it last; the caller commits it. Numbers the durable
messages of a consult.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from edge_agent.core import wire
from edge_agent.core.outbox import is_emergency
from edge_agent.storage import (
    AdviceCame,
    AdviceWasHeard,
    CaseKept,
    Change,
    Consult,
    ConsultOpened,
    Contents,
    FileKept,
    MessageQueued,
    ProgressCame,
    ReplyFile,
    StoredAdvice,
)

ConsultStep = Literal["draft", "saved", "received", "seen", "answered", "heard", "closed"]


class Records:
    def __init__(self, contents: Contents, stamp: Callable[[], wire.Stamp]) -> None:
        self._stamp = stamp
        self.consults = {consult.id: consult for consult in contents.consults}
        self.advice = {stored.advice.advice: stored for stored in contents.advice}
        self.replies = {(reply.consult, reply.digest): reply for reply in contents.replies}

    # changes

    def ensure(self, consult: bytes, opened_at_ms: int, opened_by: str) -> list[Change]:
        """A consult that the hub knows and this disk may not (its database was lost) is taken up."""
        if consult in self.consults:
            return []
        self.consults[consult] = Consult(consult, opened_at_ms, opened_by)
        return [ConsultOpened(consult, opened_at_ms, opened_by)]

    def queue(self, consult: bytes, body: wire.Body, wall_ms: int) -> MessageQueued:
        """A durable message, numbered. The consult is known."""
        record = self.consults[consult]
        message = wire.Message(body, consult, seq=record.next_seq, sent_at_ms=wall_ms, stamp=self._stamp())
        record.next_seq += 1
        record.emergency = record.emergency or is_emergency(body)
        return MessageQueued(message)

    def case_saved(self, case: CaseKept) -> Change:
        record = self.consults[case.consult]
        record.saved_at_ms, record.patient = case.saved_at_ms, case.patient
        record.complaints, record.urgency = case.complaints, case.urgency
        record.received_at_ms = 0
        return case

    def progress(self, consult: bytes, step: Literal["received", "seen", "closed"], at_ms: int) -> Change:
        record = self.consults[consult]
        setattr(record, f"{step}_at_ms", at_ms)
        return ProgressCame(consult, step, at_ms)

    def take_advice(self, consult: bytes, advice: wire.Advice) -> Change:
        self.advice[advice.advice] = StoredAdvice(consult, advice)
        return AdviceCame(consult, advice)

    def heard(self, advice: bytes, at_ms: int) -> Change:
        self.advice[advice].heard_at_ms = at_ms
        return AdviceWasHeard(advice, at_ms)

    def reply(self, reply: ReplyFile) -> Change:
        self.replies[reply.consult, reply.digest] = reply
        return reply

    # what stands in them

    def advice_of(self, consult: bytes) -> list[StoredAdvice]:
        return [stored for stored in self.advice.values() if stored.consult == consult]

    def unheard(self) -> list[StoredAdvice]:
        """The oldest first."""
        waiting = [stored for stored in self.advice.values() if not stored.heard_at_ms]
        return sorted(waiting, key=lambda stored: stored.advice.given_at_ms)

    def voice_arrived(self, stored: StoredAdvice) -> bool:
        reply = self.replies.get((stored.consult, stored.advice.reply))
        return reply is not None and reply.complete

    def step(self, consult: bytes, *, drafted: bool, unsent: bool) -> ConsultStep:
        """How far it has come, each step backed by the far end's word. `unsent`: something of it waits here."""
        record = self.consults[consult]
        advice = self.advice_of(consult)
        received = record.received_at_ms > 0 or not unsent  # what is sent later, as an original, takes nothing back
        if record.closed_at_ms:
            return "closed"
        if advice:
            return "heard" if all(stored.heard_at_ms for stored in advice) else "answered"
        if record.seen_at_ms and received:
            return "seen"
        if drafted:
            return "draft"
        return "received" if received else "saved"

    def times(self, consult: bytes) -> dict[ConsultStep, int]:
        """When each step that it has come to was reached, in Unix milliseconds. Unknown ones are left out."""
        record, advice = self.consults[consult], self.advice_of(consult)
        heard = [stored.heard_at_ms for stored in advice]
        times: dict[ConsultStep, int] = {
            "saved": record.saved_at_ms,
            "received": record.received_at_ms,
            "seen": record.seen_at_ms,
            "answered": min((stored.advice.given_at_ms for stored in advice), default=0),
            "heard": max(heard) if heard and all(heard) else 0,
            "closed": record.closed_at_ms,
        }
        return {step: at_ms for step, at_ms in times.items() if at_ms}


def manifest_of(file: FileKept, original_bytes: int = 0) -> wire.Manifest:
    return wire.Manifest(
        file.digest, file.role, file.mime, file.size, file.captured_at_ms, file.captured_by, file.duration_ms,
        of=file.of, rendition=file.rendition, original_bytes=original_bytes,
    )  # fmt: skip
