"""What goes out next: the durable messages and file chunks that wait for the hub.

Pure. It holds addresses and sizes, never contents: the store is the queue, and whoever carries a `SendMessage` or
`SendChunk` out reads it there. The rules:

1. Within a consult messages go in the order of their seq; a consult goes with the most urgent that waits in it.
2. Messages are small and pass files; chunks are few in flight, so that no message waits long behind them.
3. A broker's PUBACK paces, and frees nothing. The far end's `Receipt` frees a message, a complete `Have` a file.
4. A file's `Manifest` goes first; chunks go for the gaps that `Have` tells. Without one, the manifest asks again.
5. What is refused `REFUSALS` times is set aside; what stands behind it goes on.
6. With a budget, as in a call, all but call signalling keeps within it, in chunks that hold nobody up for long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from edge_agent.core import wire
from edge_agent.core.budget import Budget
from edge_agent.core.ranges import ByteRanges, Range

REFUSALS = 5
FIRST_RESEND_S = 10.0  # well above a round trip on the worst link that can still carry anything
MAX_RESEND_S = 300.0

# On the wire, with MQTT, TLS, TCP and IP around them and the acknowledgements on their way: as measured.
MESSAGE_WIRE_BYTES = 600
CHUNK_AROUND_BYTES = 500
CHUNK_SEGMENTS = 1.5  # TCP's headers on a thin link's short packets
SHORTEST_CHUNK_BYTES = 1024  # each is answered with 700 bytes, which the far end's voice has to bear
CHUNK_S = 2.0  # of the budget


def chunk_wire_bytes(length: int) -> int:
    return int(length * CHUNK_SEGMENTS) + CHUNK_AROUND_BYTES


class Priority(IntEnum):
    CALL = 0  # call signalling and emergencies, and what is said in turns
    ADVICE = 1  # what closes the loop with the doctor
    NOTE = 2
    VOICE = 3
    THUMBNAIL = 4
    PHOTO = 5
    CLIP = 6


class Limits(NamedTuple):
    """What may be under way at once. A scheduler that knows the link sets these anew as it changes."""

    chunk_bytes: int = wire.CHUNK_BYTES
    chunks: int = 3
    messages: int = 16


@dataclass(frozen=True, slots=True)
class SendMessage:
    id: bytes


@dataclass(frozen=True, slots=True)
class SendChunk:
    consult: bytes
    digest: bytes
    offset: int
    length: int


Item = SendMessage | SendChunk


class Freed(NamedTuple):
    """What the far end holds now, and the store may let go."""

    messages: tuple[bytes, ...] = ()
    files: tuple[tuple[bytes, bytes], ...] = ()  # consult and digest


def priority_of(body: wire.Body) -> Priority:
    match body:
        case wire.CallRequested() | wire.CallEnded() | wire.TurnPart() | wire.TurnHeard():
            return Priority.CALL
        case wire.AdviceHeard():
            return Priority.ADVICE
        case _:
            return Priority.NOTE


_ROLE_PRIORITY: dict[wire.FileRole, Priority] = {
    "voice": Priority.VOICE,
    "reply": Priority.VOICE,
    "photo": Priority.PHOTO,
    "clip": Priority.CLIP,
}


def file_priority(manifest: wire.Manifest) -> Priority:
    return Priority.THUMBNAIL if manifest.rendition == "thumbnail" else _ROLE_PRIORITY[manifest.role]


FileKey = tuple[bytes, bytes]  # consult and digest: the same picture may stand in two consults


@dataclass(slots=True)
class _Message:
    id: bytes
    consult: bytes
    seq: int
    priority: Priority
    order: int
    due: float | None = 0.0  # None: it is up to chunks and `Have`
    in_flight: bool = False  # given out and not acknowledged by the broker
    sends: int = 0
    refusals: int = 0
    file: FileKey | None = None  # of a manifest


@dataclass(slots=True)
class _File:
    size: int
    priority: Priority
    manifest: bytes
    order: int
    to_send: ByteRanges = field(default_factory=ByteRanges)  # the gaps that were told, less what went out since
    in_flight: dict[int, int] = field(default_factory=dict)  # offset: length
    refusals: int = 0
    asked: int = 0  # times that the manifest was to ask again since anything was heard


class Outbox:
    """See the module. Everything waits while the hub is out of reach."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 -- immutable
        self.limits = limits
        self.set_aside: list[bytes] = []  # ids of messages, for the owner to record and clear
        self.holds_files = False  # no more chunks for now
        self._messages: dict[bytes, _Message] = {}
        self._files: dict[FileKey, _File] = {}
        self._reachable = False
        self._order = 0
        self._budget: Budget | None = None

    # what waits

    def add(self, message: wire.Message) -> None:
        """A durable message that is in the store. Those of one consult come in the order of their seq."""
        if message.id in self._messages:
            return
        self._order += 1
        body = message.body
        entry = _Message(message.id, message.consult, message.seq, priority_of(body), self._order)
        if isinstance(body, wire.Manifest):
            key = (message.consult, body.digest)
            if key not in self._files:
                entry.file = key
                self._files[key] = _File(body.size, file_priority(body), message.id, self._order)
        self._messages[message.id] = entry

    def waits_in(self, consult: bytes) -> bool:
        """Whether anything of this consult is not at the hub yet."""
        return any(message.consult == consult for message in self._messages.values())

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def messages_in_flight(self) -> int:
        return sum(message.in_flight for message in self._messages.values())

    @property
    def chunks_in_flight(self) -> int:
        return sum(len(file.in_flight) for file in self._files.values())

    # the link

    def reached(self, now: float) -> None:
        """The hub is reachable again: what it has not confirmed is sent anew, manifests to learn the gaps."""
        self._end_flights()
        self._reachable = True
        for message in self._messages.values():
            message.due, message.sends = now, 0
        for file in self._files.values():
            file.to_send, file.asked = ByteRanges(), 0

    def lost(self) -> None:
        self._end_flights()
        self._reachable = False

    def set_budget(self, bytes_per_s: float | None, now: float) -> None:
        """What may go out, headers included; None: all that the link takes."""
        if bytes_per_s is None:
            self._budget = None
        elif self._budget is None or self._budget.bytes_per_s != bytes_per_s:
            self._budget = Budget(bytes_per_s, now)

    # what goes

    def next(self, now: float) -> Item | None:
        """The one item that goes out now, or None. It is in flight until `acknowledged`, `failed` or `refused`."""
        if not self._reachable:
            return None
        message = self._next_message(now)
        if message is not None:
            message.in_flight = True
            message.sends += 1
            message.due = now + _backoff(message.sends)
            if self._budget is not None:
                self._budget.spend(MESSAGE_WIRE_BYTES, now)
            return SendMessage(message.id)
        if self._budget is None:
            return self._next_chunk(self.limits.chunk_bytes)
        if not self._budget.may_spend(now):
            return None
        longest = int((self._budget.bytes_per_s * CHUNK_S - CHUNK_AROUND_BYTES) / CHUNK_SEGMENTS)
        chunk = self._next_chunk(min(self.limits.chunk_bytes, max(SHORTEST_CHUNK_BYTES, longest)))
        if chunk is not None:
            self._budget.spend(chunk_wire_bytes(chunk.length), now)
        return chunk

    def next_deadline(self, now: float) -> float | None:
        """When `next` may have something without anything else having happened."""
        if not self._reachable:
            return None
        due = min((m.due for m in self._messages.values() if m.due is not None and not m.in_flight), default=None)
        if self._budget is None or self._budget.may_spend(now):
            return due
        chunks_may_go = not self.holds_files and self.chunks_in_flight < self.limits.chunks
        if chunks_may_go and any(file.to_send for file in self._files.values()):
            due = now if due is None else min(due, now)
        return None if due is None else max(due, self._budget.ready_at(now))

    def acknowledged(self, item: Item, now: float) -> None:
        """The broker has it (PUBACK)."""
        self._landed(item)
        if isinstance(item, SendChunk) and (file := self._files.get((item.consult, item.digest))):
            file.refusals = 0
            self._ask_when_all_went(file, now)

    def failed(self, item: Item, now: float) -> None:
        """It did not get through for a reason of the link's: it goes again, nothing is counted against it."""
        self._landed(item)
        if isinstance(item, SendMessage):
            if message := self._messages.get(item.id):
                message.due = now + FIRST_RESEND_S
        elif file := self._files.get((item.consult, item.digest)):
            file.to_send = ByteRanges()
            self._ask_when_all_went(file, now)

    def refused(self, item: Item, now: float) -> None:
        """The broker will not take it, or the store cannot give it."""
        self._landed(item)
        if isinstance(item, SendMessage):
            message = self._messages.get(item.id)
            if message is not None:
                message.refusals += 1
                message.due = now + _backoff(message.refusals)
                if message.refusals >= REFUSALS:
                    self._put_aside(message)
        elif file := self._files.get((item.consult, item.digest)):
            file.refusals += 1
            file.to_send = ByteRanges()
            if file.refusals >= REFUSALS:
                self._put_aside(self._messages[file.manifest])
            else:
                self._ask_when_all_went(file, now)

    # what the far end says

    def receipt(self, ids: tuple[bytes, ...]) -> Freed:
        """A manifest stays: it asks for its `Have` until the file is there."""
        known = dict.fromkeys(id for id in ids if id in self._messages)  # one may be named twice
        freed = tuple(id for id in known if self._messages[id].file is None)
        for id in freed:
            del self._messages[id]
        return Freed(freed)

    def have(self, consult: bytes, digest: bytes, ranges: tuple[Range, ...], complete: bool, now: float) -> Freed:
        key = (consult, digest)
        file = self._files.get(key)
        if file is None:
            return Freed()
        if complete:
            del self._files[key], self._messages[file.manifest]
            return Freed((file.manifest,), (key,))
        held = ByteRanges(ranges)
        for offset, length in file.in_flight.items():
            held.add(offset, offset + length)
        file.to_send = ByteRanges(held.missing(file.size))
        file.asked = 0
        self._messages[file.manifest].due = None
        self._ask_when_all_went(file, now)
        return Freed()

    # within

    def _next_message(self, now: float) -> _Message | None:
        if self.messages_in_flight >= self.limits.messages:
            return None
        heads: dict[bytes, _Message] = {}
        urgency: dict[bytes, Priority] = {}
        for message in self._messages.values():
            if message.due is None or message.due > now or message.in_flight:
                continue
            head = heads.get(message.consult)
            if head is None or message.seq < head.seq:
                heads[message.consult] = message
            urgency[message.consult] = min(urgency.get(message.consult, message.priority), message.priority)
        if self._budget is not None and not self._budget.may_spend(now):
            heads = {consult: head for consult, head in heads.items() if urgency[consult] is Priority.CALL}
        return min(heads.values(), key=lambda m: (urgency[m.consult], m.order), default=None)

    def _next_chunk(self, longest_bytes: int) -> SendChunk | None:
        if self.holds_files or self.chunks_in_flight >= self.limits.chunks:
            return None
        waiting = [(file.priority, file.order, key) for key, file in self._files.items() if file.to_send]
        if not waiting:
            return None
        key = min(waiting)[2]
        file = self._files[key]
        gaps = file.to_send.as_tuple()
        start, end = gaps[0]
        length = min(end - start, longest_bytes)
        file.to_send = ByteRanges(((start + length, end), *gaps[1:]) if start + length < end else gaps[1:])
        file.in_flight[start] = length
        return SendChunk(key[0], key[1], start, length)

    def _landed(self, item: Item) -> None:
        if isinstance(item, SendMessage):
            if message := self._messages.get(item.id):
                message.in_flight = False
        elif file := self._files.get((item.consult, item.digest)):
            file.in_flight.pop(item.offset, None)

    def _end_flights(self) -> None:
        for message in self._messages.values():
            message.in_flight = False
        for file in self._files.values():
            file.in_flight.clear()

    def _ask_when_all_went(self, file: _File, now: float) -> None:
        """Everything that was asked for is out: `Have` should say so. If it does not, the manifest asks."""
        if not file.to_send and not file.in_flight:
            file.asked += 1
            self._messages[file.manifest].due = now + _backoff(file.asked)

    def _put_aside(self, message: _Message) -> None:
        self.set_aside.append(message.id)
        del self._messages[message.id]
        if message.file is not None:
            del self._files[message.file]


def _backoff(attempts: int) -> float:
    return min(FIRST_RESEND_S * 2.0 ** (attempts - 1), MAX_RESEND_S)
