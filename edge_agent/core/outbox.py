"""What goes out next: the durable messages and file chunks that wait for the hub.

Pure. It holds addresses and sizes, never contents: the store is the queue, and whoever carries a `SendMessage` or
`SendChunk` out reads it there. The rules:

1. Within a consult messages go in the order of their seq; a consult goes with the most urgent that waits in it, and
   that of an emergency, files and all, before any other.
2. Messages pass files. What is under way keeps within the `Window`, but for call signalling, which never waits.
3. A broker's PUBACK paces, and frees nothing. The far end's `Receipt` frees a message, a complete `Have` a file.
4. A file's `Manifest` goes first; chunks go for the gaps that `Have` tells, less what the broker has already taken.
   Without a `Have`, the manifest asks again, and then nothing is taken for granted.
5. What is refused `REFUSALS` times, or sent `UNANSWERED` times without a receipt while later ones have theirs, is set
   aside; what stands behind it goes on. `retry` takes it up again, for fewer tries than the first time.
6. Nothing expires, as all of it is somebody's record, but urgency does: that of a call which was over when the hub came
   back in reach. A press of now does not stand behind those of yesterday.
7. With a budget, as in a call, all but call signalling keeps within it, in chunks that hold nobody up for long.
8. On a metered link files that are less urgent than `goes` says wait, but for those of an emergency.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from edge_agent.core import wire
from edge_agent.core.budget import Budget
from edge_agent.core.ranges import ByteRanges, Range
from edge_agent.core.window import Window

REFUSALS = 5
UNANSWERED = 12
RETRIES = 3  # sends of what was set aside before, whether or not others have their receipts
FIRST_RESEND_S = 10.0  # well above a round trip on the worst link that can still carry anything
MAX_RESEND_S = 300.0
JITTER = 0.25  # so that what failed together does not come back together
MESSAGES_IN_FLIGHT = 16
BESIDE_CALL_CHUNKS = 3

# On the wire, with MQTT, TLS, TCP and IP around them and the acknowledgements on their way: as measured.
MESSAGE_WIRE_BYTES = 600
CHUNK_AROUND_BYTES = 500
CHUNK_SEGMENTS = 1.5  # TCP's headers on a thin link's short packets
SHORTEST_CHUNK_BYTES = 1024  # each is answered with 700 bytes, which the far end's voice has to bear
CHUNK_S = 2.0  # of the budget
AROUND_MESSAGE_BYTES = 190  # signature, seal, topic, MQTT and TLS: what a window counts
AROUND_CHUNK_BYTES = 100
TCP_AND_RECEIPT_BYTES = 350  # of a message on its own


def chunk_wire_bytes(length: int) -> int:
    return int(length * CHUNK_SEGMENTS) + CHUNK_AROUND_BYTES


def message_wire_bytes(message: wire.Message) -> int:
    """With everything around it, and its receipt."""
    return len(wire.encode(message)) + AROUND_MESSAGE_BYTES + TCP_AND_RECEIPT_BYTES


class Priority(IntEnum):
    EMERGENCY = 0  # whatever belongs to its consult
    CALL = 1  # call signalling, and what is said in turns
    ADVICE = 2  # what closes the loop with the doctor
    NOTE = 3
    VOICE = 4
    THUMBNAIL = 5
    PHOTO = 6
    CLIP = 7


def all_goes(under_way_bytes: int) -> Priority:
    """The least urgent file that may go, with so much of files under way: on a link that nobody pays by the byte."""
    return Priority.CLIP


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


def is_emergency(body: wire.Body) -> bool:
    match body:
        case wire.CallRequested(emergency=True) | wire.CaseNote(urgency="emergency"):
            return True
        case _:
            return False


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
    size_bytes: int
    call: bytes = b""  # that it belongs to
    due: float | None = 0.0  # None: it is up to chunks and `Have`
    in_flight: bool = False  # given out and not acknowledged by the broker
    sends: int = 0
    sent_after: int = 0  # receipts that had come when it went last
    unanswered: int = 0
    refusals: int = 0
    file: FileKey | None = None  # of the manifest that asks for it
    aside: bool = False
    retried: bool = False


@dataclass(slots=True)
class _File:
    size: int
    priority: Priority
    manifest: bytes
    order: int
    to_send: ByteRanges = field(default_factory=ByteRanges)  # the gaps that were told, less what went out since
    in_flight: dict[int, int] = field(default_factory=dict)  # offset: length
    taken: ByteRanges = field(default_factory=ByteRanges)  # by the broker; a `Have` may have been said before that
    refusals: int = 0
    asked: int = 0  # times that the manifest was to ask again since anything was heard


class Outbox:
    """See the module. Everything waits while the hub is out of reach. `random` gives 0 to 1."""

    def __init__(self, window: Window | None = None, random: Callable[[], float] = lambda: 0.5) -> None:
        self.window = window or Window()
        self.set_aside: list[bytes] = []  # ids of messages, for the owner to record and clear
        self.holds_files = False  # no more chunks for now
        self.goes = all_goes
        self._random = random
        self._messages: dict[bytes, _Message] = {}
        self._files: dict[FileKey, _File] = {}
        self._emergencies: set[bytes] = set()  # consults
        self._ended_calls: set[bytes] = set()
        self._reachable = False
        self._order = 0
        self._receipts = 0
        self._budget: Budget | None = None

    # what waits

    def add(self, message: wire.Message, aside: bool = False) -> None:
        """A durable message that is in the store. Those of one consult come in the order of their seq. `aside`: it was
        set aside before this start."""
        if message.id in self._messages:
            return
        self._order += 1
        body = message.body
        entry = _Message(
            message.id, message.consult, message.seq, priority_of(body), self._order,
            len(wire.encode(message)) + AROUND_MESSAGE_BYTES, getattr(body, "call", b""), aside=aside,
        )  # fmt: skip
        self._messages[message.id] = entry
        if is_emergency(body):
            self.emergency(message.consult)
        if isinstance(body, wire.CallEnded):
            self._ended_calls.add(body.call)
        if isinstance(body, wire.Manifest):
            self._add_file(entry, body)

    def _add_file(self, entry: _Message, body: wire.Manifest) -> None:
        """Of several manifests of one file the last asks for it, since its key is the one that the far end goes by."""
        entry.file = key = (entry.consult, body.digest)
        file = self._files.get(key)
        if file is None:
            self._files[key] = _File(body.size, file_priority(body), entry.id, entry.order)
            return
        self._messages[file.manifest].file = None
        if self._messages[file.manifest].due is None:
            self._messages[file.manifest].due = 0.0
        file.manifest, file.to_send = entry.id, ByteRanges()

    def emergency(self, consult: bytes) -> None:
        """All that waits in it, now or later, goes first."""
        self._emergencies.add(consult)

    def retry(self, id: bytes, now: float) -> None:
        """What was set aside is tried again."""
        message = self._messages.get(id)
        if message is None or not message.aside:
            return
        message.aside, message.retried, message.due, message.sends = False, True, now, 0
        message.unanswered, message.refusals = UNANSWERED - RETRIES, REFUSALS - 1
        if message.file is not None:
            file = self._files[message.file]
            file.to_send, file.taken, file.asked, file.refusals = ByteRanges(), ByteRanges(), 0, REFUSALS - 1

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
            if message.call in self._ended_calls:
                message.priority = max(message.priority, Priority.NOTE)
        for file in self._files.values():
            file.to_send, file.taken, file.asked = ByteRanges(), ByteRanges(), 0

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
        message, may_go = self._next_message(now)
        if message is not None:
            return self._give(message, now) if may_go else None  # no chunk slips in before it
        if self._budget is not None:
            return self._next_chunk_within(self._budget, now)
        length = self.window.chunk_bytes
        if not self.window.has_room(length + AROUND_CHUNK_BYTES) or self.window.pauses(now):
            return None
        chunk = self._next_chunk(length, now)
        if chunk is None and self.messages_in_flight < MESSAGES_IN_FLIGHT:
            self.window.ran_dry()
        return chunk

    def next_deadline(self, now: float) -> float | None:
        """When `next` may have something without anything else having happened."""
        if not self._reachable:
            return None
        dues = [m.due for m in self._messages.values() if m.due is not None and not m.in_flight and not m.aside]
        due = min(dues, default=None)
        if self._budget is None or self._budget.may_spend(now):
            if due is not None and due <= now and (self.messages_in_flight or self.chunks_in_flight):
                return min((later for later in dues if later > now), default=None)  # what is under way makes room
            return due
        chunks_may_go = not self.holds_files and self.chunks_in_flight < BESIDE_CALL_CHUNKS
        goes = self.goes(self._bytes_in_flight)
        if chunks_may_go and any(file.to_send and self._may_go(key, file, goes) for key, file in self._files.items()):
            due = now if due is None else min(due, now)
        return None if due is None else max(due, self._budget.ready_at(now))

    def acknowledged(self, item: Item, now: float) -> None:
        """The broker has it (PUBACK)."""
        self.window.acknowledged(item, now)
        self._landed(item)
        if isinstance(item, SendChunk) and (file := self._files.get((item.consult, item.digest))):
            file.refusals = 0
            file.taken.add(item.offset, item.offset + item.length)
            self._ask_when_all_went(file, now)

    def failed(self, item: Item, now: float) -> None:
        """It did not get through for a reason of the link's: it goes again, nothing is counted against it."""
        self.window.gone(item)
        self._landed(item)
        if isinstance(item, SendMessage):
            if message := self._messages.get(item.id):
                message.due = now + self._backoff(1)
        elif file := self._files.get((item.consult, item.digest)):
            file.to_send = ByteRanges()
            self._ask_when_all_went(file, now)

    def refused(self, item: Item, now: float) -> None:
        """The broker will not take it, or the store cannot give it."""
        self.window.gone(item)
        self._landed(item)
        if isinstance(item, SendMessage):
            message = self._messages.get(item.id)
            if message is not None:
                message.refusals += 1
                message.due = now + self._backoff(message.refusals)
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
        self._receipts += bool(known)
        return Freed(freed)

    def have(self, consult: bytes, digest: bytes, ranges: tuple[Range, ...], complete: bool, now: float) -> Freed:
        key = (consult, digest)
        file = self._files.get(key)
        if file is None:
            return Freed()
        if complete:
            del self._files[key], self._messages[file.manifest]
            return Freed((file.manifest,), (key,))
        manifest = self._messages[file.manifest]
        if manifest.aside:
            return Freed()
        held = ByteRanges((*ranges, *file.taken))
        for offset, length in file.in_flight.items():
            held.add(offset, offset + length)
        file.to_send = ByteRanges(held.missing(file.size))
        file.asked = 0
        manifest.due, manifest.unanswered, manifest.retried = None, 0, False
        self._ask_when_all_went(file, now)
        return Freed()

    # within

    def _give(self, message: _Message, now: float) -> SendMessage:
        message.in_flight = True
        message.sends += 1
        message.due = now + self._backoff(message.sends)
        message.sent_after = self._receipts
        if message.file is not None:
            self._files[message.file].taken = ByteRanges()  # it asks what the hub really has
        if self._budget is not None:
            self._budget.spend(MESSAGE_WIRE_BYTES, now)
        item = SendMessage(message.id)
        self.window.sent(item, message.size_bytes, now)
        return item

    def _next_message(self, now: float) -> tuple[_Message | None, bool]:
        """And whether it may go now."""
        if self.messages_in_flight >= MESSAGES_IN_FLIGHT:
            return None, False
        heads: dict[bytes, _Message] = {}
        urgency: dict[bytes, Priority] = {}
        for message in list(self._messages.values()):
            if message.due is None or message.due > now or message.in_flight or message.aside:
                continue
            if not self._is_worth_sending(message):
                continue
            head = heads.get(message.consult)
            if head is None or message.seq < head.seq:
                heads[message.consult] = message
            priority = Priority.EMERGENCY if message.consult in self._emergencies else message.priority
            urgency[message.consult] = min(urgency.get(message.consult, priority), priority)
        chosen = min(heads.values(), key=lambda m: (urgency[m.consult], m.order), default=None)
        if chosen is None or urgency[chosen.consult] <= Priority.CALL or self._has_room_for(chosen, now):
            return chosen, True
        return chosen, False

    def _has_room_for(self, message: _Message, now: float) -> bool:
        if self._budget is not None and not self._budget.may_spend(now):
            return False
        return self.window.has_room(message.size_bytes)

    def _is_worth_sending(self, message: _Message) -> bool:
        """Sent often, and others have their receipts since: the far end does not take it."""
        if message.sends and (self._receipts > message.sent_after or message.retried):
            message.unanswered += 1
            message.sent_after = self._receipts
            if message.unanswered >= UNANSWERED:
                self._put_aside(message)
                return False
        return True

    def _next_chunk_within(self, budget: Budget, now: float) -> SendChunk | None:
        if not budget.may_spend(now) or self.chunks_in_flight >= BESIDE_CALL_CHUNKS:
            return None
        longest = int((budget.bytes_per_s * CHUNK_S - CHUNK_AROUND_BYTES) / CHUNK_SEGMENTS)
        chunk = self._next_chunk(min(self.window.chunk_bytes, max(SHORTEST_CHUNK_BYTES, longest)), now)
        if chunk is not None:
            budget.spend(chunk_wire_bytes(chunk.length), now)
        return chunk

    def _next_chunk(self, longest_bytes: int, now: float) -> SendChunk | None:
        if self.holds_files:
            return None
        goes = self.goes(self._bytes_in_flight)
        first: dict[bytes, tuple[bool, Priority, int, FileKey]] = {}  # of one file in two consults the first goes
        for key, file in self._files.items():
            if self._messages[file.manifest].aside or not self._may_go(key, file, goes):
                continue
            rank = (key[0] not in self._emergencies, file.priority, file.order, key)
            first[key[1]] = min(rank, first.get(key[1], rank))
        waiting = [rank for rank in first.values() if self._files[rank[3]].to_send]
        if not waiting:
            return None
        key = min(waiting)[3]
        file = self._files[key]
        gaps = file.to_send.as_tuple()
        start, end = gaps[0]
        length = min(end - start, longest_bytes)
        file.to_send = ByteRanges(((start + length, end), *gaps[1:]) if start + length < end else gaps[1:])
        file.in_flight[start] = length
        chunk = SendChunk(key[0], key[1], start, length)
        self.window.sent(chunk, length + AROUND_CHUNK_BYTES, now)
        return chunk

    @property
    def _bytes_in_flight(self) -> int:
        return sum(length for file in self._files.values() for length in file.in_flight.values())

    def _may_go(self, key: FileKey, file: _File, goes: Priority) -> bool:
        return file.priority <= goes or key[0] in self._emergencies

    def _landed(self, item: Item) -> None:
        if isinstance(item, SendMessage):
            if message := self._messages.get(item.id):
                message.in_flight = False
        elif file := self._files.get((item.consult, item.digest)):
            file.in_flight.pop(item.offset, None)

    def _end_flights(self) -> None:
        self.window.restart()
        for message in self._messages.values():
            message.in_flight = False
        for file in self._files.values():
            file.in_flight.clear()

    def _ask_when_all_went(self, file: _File, now: float) -> None:
        """Everything that was asked for is out: `Have` should say so. If it does not, the manifest asks."""
        if not file.to_send and not file.in_flight:
            file.asked += 1
            self._messages[file.manifest].due = now + self._backoff(file.asked)

    def _put_aside(self, message: _Message) -> None:
        if not message.aside:
            message.aside = True
            self.set_aside.append(message.id)

    def _backoff(self, attempts: int) -> float:
        return min(FIRST_RESEND_S * 2.0 ** (attempts - 1), MAX_RESEND_S) * (1 + JITTER * (2 * self._random() - 1))
