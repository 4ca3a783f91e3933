"""Store and forward as a whole in virtual time: the real outbox, the real seals, and the hub's real intake on a real
database and disk, with a link that drops, doubles and swaps, crashes of either end, a full disk and clocks that jump.

Nothing that was said to be accepted is lost, nothing is there twice, and all of it arrives when the link heals.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import random
import shutil
import tempfile
from pathlib import Path
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edge_agent.core import trust, wire
from edge_agent.core.outbox import Item, Outbox, SendChunk, SendMessage
from edge_agent.core.window import Window
from hub.calls import Calls
from hub.config import IceSection, StoreSection
from hub.database import Database
from hub.downlink import ReplySender
from hub.files import FileStore
from hub.intake import Arrival, Intake
from hub.outgoing import Outgoing
from hub.records import CaseFile, Certificate, Content, Event, Kiosk, Uplink
from hub.sealing import Sealing

KIOSK = "kiosk-1"
CONSULTS = (b"a" * 16, b"b" * 16)
BEGAN_MS = 1_795_000_000_000
SIZES = (1, 700, 3000, 9000)


def keys() -> trust.OwnKeys:
    return trust.OwnKeys(ec.generate_private_key(ec.SECP256R1()), X25519PrivateKey.generate())


HUB_KEYS, KIOSK_KEYS = keys(), keys()
MEMORY = Path("/dev/shm")
_made: list[Path] = []


def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="store-and-forward-", dir=MEMORY if MEMORY.is_dir() else None))


def _empty_hub() -> Path:
    """A folder with a hub's database that knows the kiosk; made once and copied, since migrations take their time."""
    if not _made:
        folder = _folder()
        database = Database(f"sqlite:///{folder / 'hub.db'}", folder)
        database.do(_join)
        database.close()
        _made.append(folder)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return _made[0]


def _join(session: Session) -> None:
    public = KIOSK_KEYS.signing.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    seal = KIOSK_KEYS.sealing.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    session.add(Kiosk(id=KIOSK, joined_at=1, sign_key=public, seal_key=seal))
    session.flush()
    session.add(
        Certificate(
            serial="1", kiosk_id=KIOSK, key_hash=hashlib.sha256(public).hexdigest(), pem="", issued_at=1,
            expires_at=2**50,
        )
    )  # fmt: skip


class HubEnd:
    """What of the hub a message meets between the broker and the answer. `crash` leaves what is on its disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_ms = BEGAN_MS
        self.start()

    def start(self) -> None:
        with patch.object(Database, "_migrate"):  # its tables are up to date
            self.database = Database(f"sqlite:///{self.folder / 'hub.db'}", self.folder)
        self.files = FileStore(self.folder / "files")
        sealing = Sealing(HUB_KEYS, "1")
        floor = self.database.do(sealing.start, self.now_ms)
        sealing.counter_kept(floor)

        async def deliver(out: Outgoing) -> None:
            raise AssertionError("not used")

        self.intake = Intake(
            self.database, self.files, Calls(IceSection()), ReplySender(self.files), StoreSection(), sealing, deliver,
            lambda: self.now_ms,
        )  # fmt: skip

    def crash(self) -> None:
        self.database.close()
        self.start()

    def close(self) -> None:
        self.database.close()

    def take(self, batch: list[tuple[str, bytes]]) -> list[wire.Message]:
        """Its answers, after its commit. Raises what a disk does."""
        arrivals = [Arrival(topic, payload, lambda: None) for topic, payload in batch]
        out = self.database.do(self.intake._take_all, arrivals)
        self.intake._count_refusals()
        return [self._open(topic, payload) for topic, payload in out.sealed]

    def _open(self, topic: str, payload: bytes) -> wire.Message:
        said = trust.unwrap(payload, topic, HUB_KEYS.signing.public_key(), KIOSK_KEYS.sealing, wall_ms=None)
        return wire.decode(said.message)


class StoreAndForward(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = _folder()
        shutil.copytree(_empty_hub(), self.folder, dirs_exist_ok=True)
        self.hub = HubEnd(self.folder)
        self.now, self.wall_ms = 0.0, BEGAN_MS
        # the kiosk's disk
        self.messages: dict[bytes, wire.Message] = {}
        self.files: dict[bytes, bytes] = {}
        self.seq = dict.fromkeys(CONSULTS, 0)
        self.counter = trust.Counter()
        self.counter.kept(2**62)
        # what was promised
        self.saved: dict[bytes, wire.Message] = {}
        self.accepted: set[bytes] = set()
        self.up = False
        self.to_hub: list[tuple[str, bytes]] = []  # published, not yet taken
        self.to_kiosk: list[wire.Message] = []
        self._start_outbox()

    def _start_outbox(self) -> None:
        self.outbox = Outbox(Window(64_000), random.Random(5).random)
        for message in self.messages.values():
            self.outbox.add(message)

    # a person saves

    def _save(self, consult: bytes, body: wire.Body) -> None:
        self.seq[consult] += 1
        stamp = wire.Stamp(b"boot", int(self.now * 1000), clock_trusted=True)
        message = wire.Message(body, consult, seq=self.seq[consult], sent_at_ms=self.wall_ms, stamp=stamp)
        self.messages[message.id] = self.saved[message.id] = message
        self.outbox.add(message)

    @rule(consult=st.sampled_from(CONSULTS), urgency=st.sampled_from(["routine", "emergency"]))
    def a_note_is_saved(self, consult: bytes, urgency: wire.Urgency) -> None:
        self._save(consult, wire.CaseNote("worker-1", self.wall_ms, urgency, ("fever",), "Hot."))

    @rule(consult=st.sampled_from(CONSULTS), size=st.sampled_from(SIZES), role=st.sampled_from(["voice", "photo"]))
    def a_file_is_saved(self, consult: bytes, size: int, role: wire.FileRole) -> None:
        """The same bytes come more than once, in one consult and in two, each time with another key."""
        data = random.Random(size).randbytes(size)
        digest = hashlib.sha256(data).digest()
        self.files[digest] = data
        self._save(consult, wire.Manifest(digest, role, "image/jpeg", size, self.wall_ms, "worker-1"))

    # the link

    @rule()
    def the_link_comes(self) -> None:
        self.up = True
        self.outbox.reached(self.now)

    @rule()
    def the_link_goes(self) -> None:
        """What is with the broker stays there."""
        self.up = False
        self.outbox.lost()
        self.to_kiosk.clear()

    @precondition(lambda self: self.up)
    @rule(count=st.integers(1, 10), drop=st.integers(0, 10), twice=st.booleans())
    def it_sends(self, count: int, drop: int, twice: bool) -> None:
        """`drop`: the number of the one that the broker loses after its PUBACK."""
        for number in range(count):
            if (item := self.outbox.next(self.now)) is None:
                return
            published = self._publish(item)
            self.now += 0.05
            self.outbox.acknowledged(item, self.now)
            if number != drop:
                self.to_hub += [published] * (2 if twice else 1)

    def _publish(self, item: Item) -> tuple[str, bytes]:
        match item:
            case SendMessage(id):
                message = self.messages[id]
                topic = wire.up_topic(KIOSK, message.body.CHANNEL)
                payload = trust.wrap(
                    wire.encode(message), topic, KIOSK_KEYS.signing, HUB_KEYS.sealing.public_key(),
                    counter=self.counter.next(self.wall_ms),
                )  # fmt: skip
                return topic, payload
            case SendChunk(consult, digest, offset, length):
                manifests = [
                    m.body for m in self.messages.values()
                    if isinstance(m.body, wire.Manifest) and (m.consult, m.body.digest) == (consult, digest)
                ]  # fmt: skip
                chunk = wire.Chunk(digest, offset, self.files[digest][offset : offset + length])
                topic = wire.up_topic(KIOSK, "f")
                return topic, trust.wrap_chunk(wire.encode_chunk(chunk), topic, manifests[-1].key)

    @precondition(lambda self: self.to_hub)
    @rule(count=st.integers(1, 6), seed=st.integers(0, 9))
    def the_hub_takes(self, count: int, seed: int) -> None:
        """In any order."""
        random.Random(seed).shuffle(self.to_hub)
        batch, self.to_hub = self.to_hub[:count], self.to_hub[count:]
        answers = self.hub.take(batch)
        if self.up:
            self.to_kiosk += answers

    @precondition(lambda self: self.to_hub)
    @rule(what=st.sampled_from(["write", "sync", "complete"]))
    def its_disk_is_full(self, what: str) -> None:
        """Nothing of the batch is kept or answered, and the broker has it still."""
        full = OSError(errno.ENOSPC, "No space left on device")
        with patch.object(self.hub.files, what, side_effect=full):
            try:
                answers = self.hub.take(self.to_hub[:5])
            except OSError:
                return
        self.to_hub = self.to_hub[5:]
        if self.up:
            self.to_kiosk += answers

    @precondition(lambda self: self.to_hub)
    @rule(lost=st.booleans())
    def the_hub_crashes_after_its_commit(self, lost: bool) -> None:
        """Its answers are lost, and the broker hands it the same again."""
        self.hub.take(self.to_hub[:4])
        if not lost:
            self.to_hub = self.to_hub[4:]
        self.hub.crash()

    @rule()
    def the_broker_forgets(self) -> None:
        self.to_hub.clear()

    @precondition(lambda self: self.to_kiosk)
    @rule(which=st.integers(0, 100), fate=st.sampled_from(["arrives", "arrives", "twice", "dropped"]))
    def the_kiosk_hears(self, which: int, fate: str) -> None:
        message = self.to_kiosk.pop(which % len(self.to_kiosk))
        for _ in range({"arrives": 1, "twice": 2, "dropped": 0}[fate]):
            self._hear(message)

    def _hear(self, message: wire.Message) -> None:
        match message.body:
            case wire.Receipt(ids):
                freed = self.outbox.receipt(ids)
            case wire.Have(digest, ranges, complete):
                freed = self.outbox.have(message.consult, digest, ranges, complete, self.now)
            case _:
                return
        for id in freed.messages:
            self.accepted.add(id)
            del self.messages[id]
        for _, digest in freed.files:
            self._check_file(digest)

    def _check_file(self, digest: bytes) -> None:
        assert self.hub.files.path(KIOSK, digest.hex()).read_bytes() == self.files[digest]

    @rule()
    def the_kiosk_crashes(self) -> None:
        self.up = False
        self.to_kiosk.clear()
        self._start_outbox()

    @rule(seconds=st.sampled_from([1.0, 20.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.wall_ms += int(seconds * 1000)
        self.hub.now_ms += int(seconds * 1000)

    @rule(jump_ms=st.sampled_from([-400 * 24 * 3600_000, -5000, 5000, 400 * 24 * 3600_000]), whose=st.booleans())
    def a_clock_jumps(self, jump_ms: int, whose: bool) -> None:
        if whose:
            self.wall_ms = max(0, self.wall_ms + jump_ms)
        else:
            self.hub.now_ms = max(0, self.hub.now_ms + jump_ms)

    # what must hold

    @invariant()
    def what_is_let_go_is_there_and_all_else_is_still_here(self) -> None:
        assert self.saved.keys() == self.accepted | self.messages.keys()
        if self.accepted:
            held = self.hub.database.do(lambda session: set(session.scalars(select(Uplink.id))))
            assert {id.hex() for id in self.accepted} <= held

    def teardown(self) -> None:
        """Over a good link all of it gets there, once."""
        try:
            if not self.up:
                self.the_link_comes()
            for _ in range(300):
                while (item := self.outbox.next(self.now)) is not None:
                    self.to_hub.append(self._publish(item))
                    self.outbox.acknowledged(item, self.now)
                while self.to_hub:
                    self.to_kiosk += self.hub.take(self.to_hub[:20])
                    self.to_hub = self.to_hub[20:]
                while self.to_kiosk:
                    self._hear(self.to_kiosk.pop(0))
                if not self.messages:
                    break
                self.now = max(self.now + 0.01, self.outbox.next_deadline(self.now) or self.now)
            assert not self.messages
            assert not self.outbox.set_aside
            self.hub.database.do(self._is_there_once)
        finally:
            self.hub.close()
            shutil.rmtree(self.folder)

    def _is_there_once(self, session: Session) -> None:
        assert sorted(session.scalars(select(Uplink.id))) == sorted(id.hex() for id in self.saved)
        notes = sum(isinstance(message.body, wire.CaseNote) for message in self.saved.values())
        assert session.scalar(select(func.count()).where(Event.kind == "note")) <= notes
        named = {
            (m.consult.hex(), m.body.digest.hex()) for m in self.saved.values() if isinstance(m.body, wire.Manifest)
        }
        assert set(session.execute(select(CaseFile.consult_id, CaseFile.digest)).tuples()) == named
        assert all(session.scalars(select(Content.complete)))
        for digest in {digest for _, digest in named}:
            self._check_file(bytes.fromhex(digest))


TestStoreAndForward = StoreAndForward.TestCase
TestStoreAndForward.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
