"""The outbox in virtual time: priorities, order, pacing, gaps, poison; and random links that drop, double and swap."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge_agent.core import wire
from edge_agent.core.outbox import (
    FIRST_RESEND_S,
    JITTER,
    MESSAGE_WIRE_BYTES,
    MESSAGES_IN_FLIGHT,
    REFUSALS,
    RETRIES,
    UNANSWERED,
    Freed,
    Outbox,
    Priority,
    SendChunk,
    SendMessage,
    chunk_wire_bytes,
)
from edge_agent.core.ranges import ByteRanges
from edge_agent.core.window import FIRST_CHUNK_BYTES, Window

A, B = b"a" * 16, b"b" * 16
DIGEST = b"f" * 32


def message(body: wire.Body, consult: bytes = A, seq: int = 1) -> wire.Message:
    return wire.Message(body, consult, seq=seq)


def note(consult: bytes = A, seq: int = 1) -> wire.Message:
    return message(wire.CaseNote("patient", 0), consult, seq)


def request(consult: bytes = A, seq: int = 1) -> wire.Message:
    return message(wire.CallRequested(b"c" * 8, 0), consult, seq)


def manifest(
    size: int, digest: bytes = DIGEST, consult: bytes = A, seq: int = 1, role: wire.FileRole = "voice"
) -> wire.Message:
    return message(wire.Manifest(digest, role, "audio/ogg", size, 0, "patient"), consult, seq)


def rendition(name: str, digest: bytes, seq: int, size: int = 1000) -> wire.Message:
    body = wire.Manifest(digest, "photo", "image/webp", size, 0, "patient", of=DIGEST, rendition=name)
    return message(body, A, seq)


class Fixed(Window):
    """A link that is known: chunks of a size, so many at a time, and messages beside them."""

    def __init__(self, chunk_bytes: int, chunks: int) -> None:
        super().__init__()
        self._chunk_bytes, self._chunks = chunk_bytes, chunks

    @property
    def chunk_bytes(self) -> int:
        return self._chunk_bytes

    def has_room(self, size_bytes: int) -> bool:
        return sum(isinstance(item, SendChunk) for item in self._under_way) < self._chunks


def reached(*messages: wire.Message, window: Window | None = None) -> Outbox:
    outbox = Outbox(window or Fixed(FIRST_CHUNK_BYTES, 3))
    outbox.reached(0)
    for each in messages:
        outbox.add(each)
    return outbox


def drain(outbox: Outbox, now: float = 0) -> list[SendMessage | SendChunk]:
    items = []
    while item := outbox.next(now):
        items.append(item)
    return items


def ids(*messages: wire.Message) -> list[SendMessage]:
    return [SendMessage(each.id) for each in messages]


def test_nothing_goes_while_the_hub_is_out_of_reach():
    outbox = Outbox()
    waiting = note()
    outbox.add(waiting)
    assert outbox.next(0) is None
    assert outbox.next_deadline(0) is None
    outbox.reached(5)
    assert drain(outbox, 5) == ids(waiting)


def test_within_a_consult_the_seq_decides():
    opened, noted, called = message(wire.ConsultOpened(0, "patient"), seq=1), note(seq=2), request(seq=3)
    assert drain(reached(opened, noted, called)) == ids(opened, noted, called)


def test_a_consult_goes_with_the_most_urgent_that_waits_in_it():
    first, second = note(A, 1), note(A, 2)
    opened, called = message(wire.ConsultOpened(0, "patient"), B, 1), request(B, 2)
    heard = message(wire.AdviceHeard(b"v" * 8, 0), b"c" * 16, 1)
    assert drain(reached(first, second, heard, opened, called)) == ids(opened, called, heard, first, second)


def test_a_receipt_frees_and_a_puback_does_not():
    waiting = note()
    outbox = reached(waiting)
    (item,) = drain(outbox)
    outbox.acknowledged(item, 0.1)
    assert len(outbox) == 1
    assert outbox.receipt((waiting.id, b"?" * 8, waiting.id)) == Freed((waiting.id,))
    assert len(outbox) == 0
    assert outbox.receipt((waiting.id,)) == Freed()


def test_a_receipt_that_names_a_message_twice_frees_it_once():
    waiting = note()
    outbox = reached(waiting)
    assert outbox.receipt((waiting.id, waiting.id)) == Freed((waiting.id,))
    assert len(outbox) == 0


def test_without_a_receipt_it_goes_again_ever_more_slowly():
    waiting = note()
    outbox = reached(waiting)
    sent_at = []
    now = 0.0
    while len(sent_at) < 8:
        for item in drain(outbox, now):
            sent_at.append(now)
            outbox.acknowledged(item, now)
        now = outbox.next_deadline(now) or pytest.fail("it is forgotten")
    gaps = [after - before for before, after in itertools.pairwise(sent_at)]
    assert gaps == [10, 20, 40, 80, 160, 300, 300]


def test_a_link_that_comes_back_sends_all_at_once():
    waiting = [note(seq=seq) for seq in range(1, 4)]
    outbox = reached(*waiting)
    drain(outbox)
    outbox.lost()
    assert drain(outbox, 1) == []
    outbox.reached(2)
    assert drain(outbox, 2) == ids(*waiting)


def test_messages_in_flight_are_bounded():
    outbox = reached(*(note(seq=seq) for seq in range(1, MESSAGES_IN_FLIGHT + 5)))
    first = drain(outbox)
    assert len(first) == MESSAGES_IN_FLIGHT
    outbox.acknowledged(first[0], 0)
    assert len(drain(outbox)) == 1


def test_messages_keep_within_the_window_but_call_signalling_does_not_wait():
    outbox = reached(*(note(A, seq) for seq in range(1, 30)), window=Window(18_000))
    first = drain(outbox)
    assert len(first) < 8
    called = request(B)
    outbox.add(called)
    assert drain(outbox) == ids(called)
    for item in first:
        outbox.acknowledged(item, 1.0)
    assert drain(outbox, 1.0)


def test_no_chunk_slips_in_before_a_message_that_waits_for_room():
    told = manifest(100_000)
    outbox = reached(told, window=Window(18_000))
    (asked,) = drain(outbox)
    outbox.acknowledged(asked, 1.0)
    outbox.have(A, DIGEST, (), False, 1.0)
    under_way = drain(outbox, 1.0)
    outbox.add(note(B))
    seen: list[SendMessage | SendChunk] = []
    for tick in range(1, 20):
        outbox.acknowledged(under_way.pop(0), 1.0 + tick / 4)
        went = drain(outbox, 1.0 + tick / 4)
        seen += went
        under_way += went
        if any(isinstance(item, SendMessage) for item in seen):
            break
    assert isinstance(seen[0], SendMessage), seen


def test_an_emergency_goes_first_with_all_that_belongs_to_it():
    other, photo = manifest(4000, b"v" * 32, consult=B, role="voice"), manifest(4000, b"p" * 32, seq=2, role="photo")
    outbox = reached(other, window=Fixed(1000, 1))
    drain(outbox)
    outbox.have(B, b"v" * 32, (), False, 0)
    (chunk,) = drain(outbox)
    assert chunk.consult == B
    helped = message(wire.CallRequested(b"c" * 8, 0, emergency=True), A, 1)
    called = request(b"c" * 16)
    for each in (called, helped, photo):
        outbox.add(each)
    assert drain(outbox) == ids(helped, photo, called)
    outbox.have(A, b"p" * 32, (), False, 1)
    outbox.acknowledged(chunk, 1)
    assert [item.consult for item in drain(outbox, 1)] == [A]


def test_a_press_of_now_does_not_stand_behind_calls_that_are_over():
    old = [
        wire.Message(body, bytes([n]) * 16, seq=seq)
        for n in range(5)
        for seq, body in enumerate(
            (wire.CallRequested(bytes([n]) * 8, 0), wire.CallEnded(bytes([n]) * 8, "unanswered", 0, 0)), 1
        )
    ]
    outbox = Outbox(Fixed(100, 3))
    for each in old:
        outbox.add(each)
    pressed = request(B)
    outbox.add(pressed)
    outbox.reached(0)
    assert drain(outbox)[0] == SendMessage(pressed.id)
    ended = message(wire.CallEnded(b"c" * 8, "cancelled", 0, 1), B, 2)
    outbox.add(ended)
    assert drain(outbox, 1) == ids(ended)


def test_what_the_far_end_never_answers_is_set_aside_while_others_have_their_receipts():
    ignored = note(A)
    outbox, now, others = reached(ignored), 0.0, 0
    while not outbox.set_aside and now < 24 * 3600:
        other = note(B, others + 1)
        outbox.add(other)
        for item in drain(outbox, now):
            outbox.acknowledged(item, now)
        outbox.receipt((other.id,))
        others += 1
        now += 60
    assert outbox.set_aside == [ignored.id]
    assert outbox.waits_in(A)
    assert now > 1800
    outbox.set_aside.clear()
    outbox.reached(now)  # a line that comes and goes takes nothing up again
    assert drain(outbox, now) == []
    assert outbox.next_deadline(now) is None
    outbox.retry(ignored.id, now)
    assert drain(outbox, now) == ids(ignored)
    assert outbox.receipt((ignored.id,)).messages == (ignored.id,)


def test_what_was_set_aside_once_is_so_again_after_fewer_tries_though_nothing_else_goes():
    poison = note()
    outbox = reached()
    outbox.add(poison, aside=True)
    assert drain(outbox) == []
    outbox.retry(poison.id, 0)
    sent, now = 0, 0.0
    while not outbox.set_aside:
        for item in drain(outbox, now):
            sent += 1
            outbox.acknowledged(item, now)
        now += 30
    assert sent == RETRIES
    assert outbox.receipt((poison.id,)).messages == (poison.id,)  # by courier, as long as it stands aside


def test_while_nothing_has_a_receipt_nothing_is_set_aside():
    outbox, now = reached(note(A), note(B)), 0.0
    for _ in range(5 * UNANSWERED):
        for item in drain(outbox, now):
            outbox.acknowledged(item, now)
        now += 300
    assert outbox.set_aside == []


def test_what_failed_together_does_not_come_back_together():
    outbox = Outbox(Fixed(100, 3), itertools.cycle((0.0, 1.0, 0.5)).__next__)
    outbox.reached(0)
    for each in (note(A), note(B), note(b"c" * 16)):
        outbox.add(each)
    for item in drain(outbox):
        outbox.acknowledged(item, 0)
    early, late = FIRST_RESEND_S * (1 - JITTER), FIRST_RESEND_S * (1 + JITTER)
    assert drain(outbox, early - 0.01) == []
    assert [len(drain(outbox, at)) for at in (early, FIRST_RESEND_S, late)] == [1, 1, 1]


def test_of_two_manifests_of_one_file_the_last_asks_and_the_first_is_a_message():
    first, second = manifest(10, seq=1), manifest(10, seq=2)
    outbox = reached(first, second)
    assert drain(outbox) == ids(first, second)
    assert outbox.receipt((first.id, second.id)) == Freed((first.id,))
    outbox.have(A, DIGEST, (), False, 1)
    assert drain(outbox, 1) == [SendChunk(A, DIGEST, 0, 10)]
    assert outbox.have(A, DIGEST, (), True, 2) == Freed((second.id,), ((A, DIGEST),))
    assert len(outbox) == 0


def test_one_file_in_two_consults_goes_once():
    first, second = manifest(3000, consult=A), manifest(3000, consult=B)
    outbox = reached(first, second)
    drain(outbox)
    outbox.have(A, DIGEST, (), False, 1)
    outbox.have(B, DIGEST, (), False, 1)
    went = drain(outbox, 1)
    assert {item.consult for item in went} == {A}
    assert sum(item.length for item in went) == 3000
    outbox.have(A, DIGEST, (), True, 2)
    outbox.have(B, DIGEST, (), True, 2)
    assert len(outbox) == 0


def test_a_have_that_was_said_before_the_last_chunks_came_costs_none_of_them():
    told = manifest(5000)
    outbox = reached(told, window=Fixed(1000, 2))
    drain(outbox)
    outbox.have(A, DIGEST, (), False, 1)
    for chunk in drain(outbox, 1):
        outbox.acknowledged(chunk, 2)
    outbox.have(A, DIGEST, ((0, 1000),), False, 2)  # the second lies with the broker
    assert [chunk.offset for chunk in drain(outbox, 2)] == [2000, 3000]


def test_what_the_broker_took_and_lost_goes_again_once_the_manifest_has_asked():
    told = manifest(2000)
    outbox = reached(told, window=Fixed(1000, 2))
    drain(outbox)
    outbox.acknowledged(SendMessage(told.id), 0)
    outbox.have(A, DIGEST, (), False, 1)
    for chunk in drain(outbox, 1):
        outbox.acknowledged(chunk, 2)
    assert drain(outbox, 2 + FIRST_RESEND_S) == ids(told)
    outbox.have(A, DIGEST, ((0, 1000),), False, 13)
    assert drain(outbox, 13) == [SendChunk(A, DIGEST, 1000, 1000)]


def test_a_file_goes_by_the_gaps_that_the_far_end_tells():
    told = manifest(100)
    outbox = reached(told, window=Fixed(30, 2))
    assert drain(outbox) == ids(told)
    outbox.acknowledged(SendMessage(told.id), 0)
    assert outbox.receipt((told.id,)) == Freed()  # it asks for its `Have` until the file is there
    outbox.have(A, DIGEST, ((0, 10), (50, 90)), False, 1)
    assert drain(outbox, 1) == [SendChunk(A, DIGEST, 10, 30), SendChunk(A, DIGEST, 40, 10)]
    outbox.acknowledged(SendChunk(A, DIGEST, 10, 30), 2)
    assert drain(outbox, 2) == [SendChunk(A, DIGEST, 90, 10)]
    outbox.acknowledged(SendChunk(A, DIGEST, 40, 10), 3)
    outbox.acknowledged(SendChunk(A, DIGEST, 90, 10), 3)
    assert drain(outbox, 3) == []
    assert outbox.have(A, DIGEST, (), True, 4) == Freed((told.id,), ((A, DIGEST),))
    assert len(outbox) == 0


def test_a_manifest_asks_again_when_nobody_says_have():
    told = manifest(10)
    outbox = reached(told)
    drain(outbox)
    outbox.acknowledged(SendMessage(told.id), 0)
    outbox.receipt((told.id,))
    assert drain(outbox, FIRST_RESEND_S) == ids(told)
    outbox.acknowledged(SendMessage(told.id), 10)
    outbox.have(A, DIGEST, (), False, 11)
    (chunk,) = drain(outbox, 11)
    outbox.acknowledged(chunk, 12)
    assert drain(outbox, 12) == []
    assert drain(outbox, 12 + FIRST_RESEND_S) == ids(told)


def test_chunks_in_flight_are_not_sent_twice_when_have_comes_meanwhile():
    told = manifest(60)
    outbox = reached(told, window=Fixed(20, 2))
    drain(outbox)
    outbox.have(A, DIGEST, (), False, 1)
    assert len(drain(outbox, 1)) == 2
    outbox.have(A, DIGEST, (), False, 1.5)
    outbox.acknowledged(SendChunk(A, DIGEST, 0, 20), 2)
    assert drain(outbox, 2) == [SendChunk(A, DIGEST, 40, 20)]


def test_small_messages_pass_files_and_voice_passes_photos():
    photo, voice = manifest(100, b"p" * 32, seq=1, role="photo"), manifest(100, b"v" * 32, seq=2, role="voice")
    outbox = reached(photo, voice, window=Fixed(50, 1))
    drain(outbox)
    outbox.have(A, b"p" * 32, (), False, 1)
    outbox.have(A, b"v" * 32, (), False, 1)
    (chunk,) = drain(outbox, 1)
    assert chunk == SendChunk(A, b"v" * 32, 0, 50)
    late = request(B)
    outbox.add(late)
    assert drain(outbox, 2) == ids(late)


def test_files_go_in_rising_quality_after_the_voice():
    names = {"thumbnail": b"1" * 32, "preview": b"2" * 32, "": b"3" * 32, "voice": b"4" * 32}
    outbox = reached(
        rendition("preview", names["preview"], 1), manifest(1000, names[""], seq=2, role="photo"),
        rendition("thumbnail", names["thumbnail"], 3), manifest(1000, names["voice"], seq=4),
        window=Fixed(1000, 1),
    )  # fmt: skip
    drain(outbox)
    for digest in names.values():
        outbox.have(A, digest, (), False, 1)
    sent = []
    while chunk := outbox.next(1):
        assert isinstance(chunk, SendChunk)
        sent.append(chunk.digest)
        outbox.acknowledged(chunk, 1)
        outbox.have(A, chunk.digest, (), True, 1)
    assert sent == [names[name] for name in ("voice", "thumbnail", "preview", "")]


def test_the_same_picture_in_two_consults_is_told_and_freed_for_each():
    first, second = manifest(10, consult=A), manifest(10, consult=B)
    outbox = reached(first, second)
    drain(outbox)
    assert outbox.have(A, DIGEST, (), True, 1).files == ((A, DIGEST),)
    assert outbox.waits_in(B)
    assert not outbox.waits_in(A)
    assert outbox.have(B, DIGEST, (), True, 1).messages == (second.id,)


def test_poison_is_set_aside_and_the_rest_goes_on():
    poison, after = note(seq=1), note(seq=2)
    outbox = reached(poison, after)
    now = 0.0
    for _ in range(REFUSALS):
        assert SendMessage(poison.id) in drain(outbox, now)
        outbox.refused(SendMessage(poison.id), now)
        now += 300
    assert outbox.set_aside == [poison.id]
    outbox.receipt((after.id,))
    assert len(outbox) == 1


def test_a_file_that_cannot_be_read_is_set_aside():
    told = manifest(10)
    outbox = reached(told)
    now = 0.0
    for _ in range(REFUSALS):
        drain(outbox, now)
        outbox.acknowledged(SendMessage(told.id), now)
        outbox.have(A, DIGEST, (), False, now)
        (chunk,) = drain(outbox, now)
        outbox.refused(chunk, now)
        now += 300
    assert outbox.set_aside == [told.id]
    outbox.set_aside.clear()
    outbox.have(A, DIGEST, (), False, now)  # the hub asks for it
    assert drain(outbox, now) == []
    outbox.retry(told.id, now)  # it can be read again
    assert drain(outbox, now) == ids(told)
    outbox.acknowledged(SendMessage(told.id), now)
    outbox.have(A, DIGEST, (), False, now)
    assert drain(outbox, now) == [SendChunk(A, DIGEST, 0, 10)]
    assert outbox.have(A, DIGEST, (), True, now) == Freed((told.id,), ((A, DIGEST),))


def test_a_file_that_stands_aside_in_one_consult_goes_in_another():
    aside, other = manifest(10), manifest(10, consult=B)
    outbox = reached()
    outbox.add(aside, aside=True)
    outbox.add(other)
    assert drain(outbox) == ids(other)
    outbox.have(B, DIGEST, (), False, 0)
    assert drain(outbox) == [SendChunk(B, DIGEST, 0, 10)]


def test_a_failed_send_is_nobodys_fault():
    told = manifest(10)
    outbox = reached(told)
    for now in range(0, 100 * REFUSALS, 100):
        for item in drain(outbox, now):
            outbox.failed(item, now)
        outbox.have(A, DIGEST, (), False, now)
        for item in drain(outbox, now):
            outbox.failed(item, now)
    assert outbox.set_aside == []
    assert len(outbox) == 1


class Delivering(RuleBasedStateMachine):
    """A hub behind a link that drops, doubles and swaps, and a kiosk that crashes: everything gets there, and nothing
    is let go that is not there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.store: dict[bytes, wire.Message] = {}  # the kiosk's disk
        self.outbox = Outbox(Fixed(7, 2))
        self.to_hub: list[SendMessage | SendChunk] = []
        self.to_kiosk: list[tuple[bytes, wire.Body]] = []
        self.hub_messages: set[bytes] = set()
        self.hub_files: dict[tuple[bytes, bytes], ByteRanges] = {}
        self.sizes: dict[tuple[bytes, bytes], int] = {}
        self.seq = {A: 0, B: 0}
        self.up = False

    def _save(self, consult: bytes, body: wire.Body) -> None:
        self.seq[consult] += 1
        saved = message(body, consult, self.seq[consult])
        self.store[saved.id] = saved
        self.outbox.add(saved)

    @rule(consult=st.sampled_from([A, B]), urgent=st.booleans())
    def a_note_is_saved(self, consult: bytes, urgent: bool) -> None:
        self._save(consult, wire.CallRequested(b"c" * 8, 0) if urgent else wire.CaseNote("patient", 0))

    @rule(consult=st.sampled_from([A, B]), size=st.integers(1, 40), role=st.sampled_from(["voice", "photo"]))
    def a_file_is_saved(self, consult: bytes, size: int, role: wire.FileRole) -> None:
        digest = random.Random(len(self.store) * 1000 + size).randbytes(32)
        self.sizes[consult, digest] = size
        self._save(consult, wire.Manifest(digest, role, "audio/ogg", size, 0, "patient"))

    @rule()
    def the_link_comes(self) -> None:
        self.up = True
        self.outbox.reached(self.now)

    @rule()
    def the_link_goes(self) -> None:
        self.up = False
        self.outbox.lost()
        for item in self.to_hub:
            self.outbox.failed(item, self.now)
        self.to_hub.clear()
        self.to_kiosk.clear()

    @precondition(lambda self: self.up)
    @rule(count=st.integers(1, 8), acknowledged=st.booleans())
    def something_goes_out(self, count: int, acknowledged: bool) -> None:
        for _ in range(count):
            item = self.outbox.next(self.now)
            if item is None:
                break
            self.to_hub.append(item)
            if acknowledged:
                self.outbox.acknowledged(item, self.now)

    @precondition(lambda self: self.to_hub)
    @rule(which=st.integers(0, 100), fate=st.sampled_from(["arrives", "arrives", "twice", "dropped"]))
    def the_link_carries(self, which: int, fate: str) -> None:
        item = self.to_hub.pop(which % len(self.to_hub))
        self.outbox.acknowledged(item, self.now)
        for _ in range({"arrives": 1, "twice": 2, "dropped": 0}[fate]):
            self._arrives(item)

    def _arrives(self, item: SendMessage | SendChunk) -> None:
        if isinstance(item, SendMessage):
            came = self.store.get(item.id)
            if came is None:
                return  # freed meanwhile; an older copy on the way
            self.hub_messages.add(item.id)
            self.to_kiosk.append((came.consult, wire.Receipt((item.id,))))
            if isinstance(came.body, wire.Manifest):
                held = self.hub_files.setdefault((came.consult, came.body.digest), ByteRanges())
                self._tell((came.consult, came.body.digest), held)
        elif (item.consult, item.digest) in self.hub_files:
            held = self.hub_files[item.consult, item.digest]
            assert item.offset + item.length <= self.sizes[item.consult, item.digest]
            held.add(item.offset, item.offset + item.length)
            if held.covers(0, self.sizes[item.consult, item.digest]):
                self._tell((item.consult, item.digest), held)

    def _tell(self, key: tuple[bytes, bytes], held: ByteRanges) -> None:
        complete = held.covers(0, self.sizes[key])
        self.to_kiosk.append((key[0], wire.Have(key[1], held.as_tuple(), complete)))

    @precondition(lambda self: self.to_kiosk)
    @rule(which=st.integers(0, 100), fate=st.sampled_from(["arrives", "arrives", "twice", "dropped"]))
    def the_hub_answers(self, which: int, fate: str) -> None:
        consult, body = self.to_kiosk.pop(which % len(self.to_kiosk))
        for _ in range({"arrives": 1, "twice": 2, "dropped": 0}[fate]):
            if isinstance(body, wire.Receipt):
                freed = self.outbox.receipt(body.ids)
            else:
                assert isinstance(body, wire.Have)
                freed = self.outbox.have(consult, body.digest, body.ranges, body.complete, self.now)
            for id in freed.messages:
                assert id in self.hub_messages
                del self.store[id]
            for key in freed.files:
                assert self.hub_files[key].covers(0, self.sizes[key])

    @rule(seconds=st.sampled_from([1.0, 10.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def the_kiosk_crashes(self) -> None:
        self.up = False
        self.to_hub.clear()
        self.to_kiosk.clear()
        self.outbox = Outbox(Fixed(7, 2))
        for saved in self.store.values():
            self.outbox.add(saved)

    @invariant()
    def bounds_are_kept(self) -> None:
        assert self.outbox.chunks_in_flight <= 2
        assert self.outbox.messages_in_flight <= MESSAGES_IN_FLIGHT
        assert len(self.outbox) == len(self.store)

    @invariant()
    def something_is_due_while_anything_waits(self) -> None:
        if self.up and self.store and not self.outbox.messages_in_flight and not self.outbox.chunks_in_flight:
            ready = self.outbox.next_deadline(self.now) is not None
            assert ready or any(file.to_send for file in self.outbox._files.values())

    def teardown(self) -> None:
        """Over a good link everything gets there."""
        self.the_link_comes()
        for _ in range(400):
            while item := self.outbox.next(self.now):
                self.outbox.acknowledged(item, self.now)
                self._arrives(item)
            while self.to_kiosk:
                self.the_hub_answers(0, "arrives")
            if not self.store:
                break
            self.now = max(self.now, self.outbox.next_deadline(self.now) or self.now)
        assert not self.store
        assert all(held.covers(0, self.sizes[key]) for key, held in self.hub_files.items())
        assert self.hub_files.keys() == self.sizes.keys()


TestDelivering = Delivering.TestCase
TestDelivering.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


# --- beside a call


def test_a_budget_is_kept_and_used_by_a_file():
    outbox = reached(manifest(2_000_000), window=Fixed(16_000, 3))
    for item in drain(outbox):
        outbox.acknowledged(item, 0)
    outbox.have(A, DIGEST, (), False, 0)
    outbox.set_budget(1_000, 0)
    now, spent, longest = 0.0, 0, 0
    while now < 60:
        for item in drain(outbox, now):
            if isinstance(item, SendChunk):
                spent += chunk_wire_bytes(item.length)
                longest = max(longest, item.length)
            outbox.acknowledged(item, now)
        now = outbox.next_deadline(now) or pytest.fail("it is forgotten")
    assert 57_000 <= spent <= 63_000
    assert 1_900 <= chunk_wire_bytes(longest) <= 2_100
    outbox.set_budget(None, now)
    first, *_ = drain(outbox, now)
    assert isinstance(first, SendChunk)
    assert first.length > longest


def test_call_signalling_does_not_wait_for_the_budget():
    outbox = reached()
    outbox.set_budget(100, 0)
    noted, called = note(A, 1), request(B, 1)
    outbox.add(noted)
    assert drain(outbox) == ids(noted)
    later = note(A, 2)
    outbox.add(later)
    outbox.add(called)
    assert drain(outbox) == ids(called)
    assert outbox.next_deadline(0) == pytest.approx(free_at := 2 * MESSAGE_WIRE_BYTES / 100)
    assert drain(outbox, free_at - 0.1) == []
    assert drain(outbox, free_at) == ids(later)


def test_the_thinnest_budget_still_moves_a_file():
    outbox = reached(manifest(1000))
    for item in drain(outbox):
        outbox.acknowledged(item, 0)
    outbox.have(A, DIGEST, (), False, 0)
    outbox.set_budget(125, 0)
    now, held = 0.0, ByteRanges()
    while held.as_tuple() != ((0, 1000),):
        for item in drain(outbox, now):
            if isinstance(item, SendChunk):
                held.add(item.offset, item.offset + item.length)
            outbox.acknowledged(item, now)
        now = outbox.next_deadline(now) or pytest.fail("it is forgotten")
    assert now < 25


def test_on_a_metered_link_less_urgent_files_wait_but_those_of_an_emergency():
    photo, voice = manifest(10, b"p" * 32, role="photo"), manifest(10, b"v" * 32, seq=2)
    urgent = manifest(10, b"e" * 32, consult=B, role="photo")
    outbox = reached(photo, voice, urgent)
    outbox.goes = lambda under_way: Priority.VOICE
    drain(outbox)
    for told in (photo, voice, urgent):
        outbox.have(told.consult, told.body.digest, (), False, 0)
    assert drain(outbox) == [SendChunk(A, b"v" * 32, 0, 10)]
    outbox.emergency(B)
    assert drain(outbox) == [SendChunk(B, b"e" * 32, 0, 10)]
    outbox.goes = lambda under_way: Priority.CLIP
    assert drain(outbox) == [SendChunk(A, b"p" * 32, 0, 10)]


def test_beside_a_call_what_is_held_on_a_metered_link_sets_no_alarm():
    photo = manifest(10, role="photo")
    outbox = reached(photo)
    outbox.set_budget(1000.0, 0)
    drain(outbox)
    outbox.acknowledged(SendMessage(photo.id), 0.1)
    outbox.have(A, DIGEST, (), False, 0.1)
    outbox.goes = lambda under_way: Priority.VOICE
    assert drain(outbox, 0.1) == []
    assert outbox.next_deadline(0.1) is None
    outbox.goes = lambda under_way: Priority.CLIP
    assert outbox.next_deadline(0.1) == pytest.approx(MESSAGE_WIRE_BYTES / 1000)
