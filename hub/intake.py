"""What kiosks send, into the database: each message once, committed before anybody is told.

Messages that queue up share a transaction, and so an fsync: as many as take `GROUP_S`. A durable message is known by
`(kiosk, message id)`, so one that comes twice, late or out of order changes nothing and is confirmed again. What its
kiosk did not sign is counted, and so is what is malformed; what is unknown is logged once; none of it stops anything.
A full disk stops everything that can't be kept: nothing is acknowledged to the broker until there is room again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import insert, select, tuple_
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from edge_agent.core import sdp, trust, wire
from hub import cases, downlink, pictures, turns
from hub.arriving import Arriving, ChunkTooEarly
from hub.calls import Calls, live_calls_of_kiosk
from hub.cases import ForeignConsult, KioskClock
from hub.config import StoreSection
from hub.database import Database, explain, is_full
from hub.files import FileStore, ranges_of
from hub.outgoing import Outgoing
from hub.records import CaseFile, Consult, Content, Heard, Kiosk, Uplink
from hub.sealing import KnownStatus, Opened, Sealing, learn_keys

log = logging.getLogger(__name__)

GROUP_S = 0.012  # of work in a transaction, which holds up whoever waits behind it; its fsync comes on top
LEAST_GROUP, FIRST_GROUP, GREATEST_GROUP = 16, 32, 256  # fewer gain nothing: a transaction alone is a few milliseconds
DISK_RETRY_S = 5.0

_body_encoder = msgspec.msgpack.Encoder()

_uplinks = Uplink.__table__

Touched = dict[tuple[str, str, str], bool]  # kiosk, consult, digest: whether the kiosk asked what is here of it


class _Refused(Exception):
    """One of the messages that were taken together: what they changed is undone, and each is taken by itself."""


@dataclass
class _Group:
    """Of one transaction."""

    out: Outgoing
    now_ms: int
    touched: Touched = field(default_factory=dict)
    known: set[tuple[str, str]] = field(default_factory=set)  # durable messages that are here
    uplinks: list[dict[str, object]] = field(default_factory=list)
    held: list[object] = field(default_factory=list)  # rows that a session forgets when nobody holds them


@dataclass(frozen=True)
class Arrival:
    """A publication of a kiosk; `done` acknowledges it to the broker."""

    topic: str
    payload: bytes
    done: Callable[[], None]


class Intake:
    def __init__(
        self,
        database: Database,
        files: FileStore,
        calls: Calls,
        replies: downlink.ReplySender,
        store: StoreSection,
        sealing: Sealing,
        deliver: Callable[[Outgoing], Awaitable[None]],
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._database, self._files, self._calls, self._store = database, files, calls, store
        self._arriving = Arriving(files)
        self._group = FIRST_GROUP
        self._replies, self._sealing = replies, sealing
        self._deliver = deliver
        self._now_ms = now_ms
        self._queue: asyncio.Queue[Arrival] = asyncio.Queue()
        self._unknown_logged: set[str] = set()
        self._boots: dict[str, list[str]] = {}
        self._refusals: list[tuple[str, str, str]] = []  # of the transaction under way, which may be done again
        self.counters: Counter[str] = Counter()

    def put(self, arrival: Arrival) -> None:
        self._queue.put_nowait(arrival)

    async def take(self, arrivals: list[Arrival]) -> None:
        """All of it, beside what is queued; on the disk when it returns."""
        while arrivals:
            group, arrivals = arrivals[: self._group], arrivals[self._group :]
            await self._take_until_kept(group)

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    async def run(self) -> None:
        """For ever: take what has arrived, as many at once as wait."""
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self._group and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._take_until_kept(batch)

    async def _take_until_kept(self, batch: list[Arrival]) -> None:
        disk_failed = False
        while True:
            try:
                out = await self._database.run(self._take_all, batch)
            except Exception as error:
                if _is_of_the_store(error):
                    if not disk_failed:
                        log.error("intake stopped, it goes on by itself once this passes: %s", explain(error))
                    disk_failed = True
                    self.counters["intake_stopped"] += 1
                    await asyncio.sleep(DISK_RETRY_S)
                    continue
                if len(batch) > 1:
                    for arrival in batch:  # one of them is to blame: each by itself
                        await self._take_until_kept([arrival])
                    return
                self.counters["failed"] += 1
                log.exception("message dropped topic=%s", batch[0].topic)
                out, self._refusals = Outgoing(), []
            if disk_failed:
                log.info("intake goes on")
            self._count_refusals()
            await self._deliver(out)
            for arrival in batch:
                arrival.done()
            return

    def _count_refusals(self) -> None:
        """After the commit: counted once, and logged so that a flood fills no log."""
        refusals, self._refusals = self._refusals, []
        for kind, topic, reason in refusals:
            self.counters[kind] += 1
            count = self.counters[kind]
            if kind == "unknown":
                if reason not in self._unknown_logged:
                    self._unknown_logged.add(reason)
                    log.warning("unknown message ignored, its kind is logged once topic=%s: %s", topic, reason)
            elif count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th, …
                log.warning("message refused kind=%s count=%d topic=%s: %s", kind, count, topic, reason)

    # --- in the database's thread

    def _take_all(self, session: Session, batch: list[Arrival]) -> Outgoing:
        began = time.thread_time()  # who else uses the processor makes no group too large
        now_ms = self._now_ms()
        self._refusals = []
        try:
            learn_keys(session, _kiosks_of(batch), now_ms)
            opened, chunks = self._open_all(session, batch, now_ms)
            group = self._take_opened(session, opened, now_ms)
            self._take_chunks(session, group, chunks)
            for (kiosk, consult, digest), asked in sorted(group.touched.items()):
                self._answer_have(session, group.out, kiosk, consult, digest, asked, now_ms)
            self._sealing.seal(session, group.out, now_ms)
            session.flush()
            self._files.sync()
        finally:
            self._files.drop_open()
        in_time = len(batch) * GROUP_S / max(time.thread_time() - began, 1e-6)
        self._group = max(LEAST_GROUP, min(GREATEST_GROUP, round((self._group + in_time) / 2)))
        return group.out

    def _open_all(
        self, session: Session, batch: list[Arrival], now_ms: int
    ) -> tuple[list[tuple[str, Opened]], list[tuple[str, bytes]]]:
        """With their topics. Chunks come after all else: the manifest that has their key may be among it."""
        opened: list[tuple[str, Opened]] = []
        chunks: list[tuple[str, bytes]] = []
        for arrival in batch:
            if arrival.topic.endswith("/f"):
                chunks.append((arrival.topic, arrival.payload))
                continue
            if not arrival.payload and arrival.topic.endswith("/s"):
                continue  # a retained status that was cleared
            try:
                each = self._sealing.open(session, arrival.topic, arrival.payload, now_ms)
                if each.message.body.DURABLE and not each.message.consult:
                    raise wire.MalformedMessage("a durable message without a consult")
                opened.append((arrival.topic, each))
            except (trust.TrustError, wire.WireError) as error:
                self._refuse_for(arrival.topic, error)
        return opened, chunks

    def _take_opened(self, session: Session, opened: list[tuple[str, Opened]], now_ms: int) -> _Group:
        """All at once; where one of them turns out to be refused, which is rare, each in a savepoint of its own."""
        refusals = list(self._refusals)
        for together in (True, False):
            group = _Group(Outgoing(), now_ms)
            try:
                with session.begin_nested():
                    _read_ahead(session, group, [each for _, each in opened], begin=together)
                    for topic, each in opened:
                        self._take_one(session, group, topic, each, together)
                    session.flush()
                    if group.uplinks:
                        session.execute(insert(_uplinks), group.uplinks)
                break
            except _Refused:
                self._refusals = refusals
        return group

    def _take_one(self, session: Session, group: _Group, topic: str, opened: Opened, together: bool) -> None:
        try:
            self._sealing.admit(session, opened)
        except KnownStatus:
            return
        except trust.TrustError as error:
            self._refuse_for(topic, error)
            return
        try:
            if together:
                self._apply_one(session, group, opened)
            else:
                with session.begin_nested():
                    self._apply_one(session, group, opened)
        except (trust.TrustError, wire.WireError, sdp.SdpError, ForeignConsult) as error:
            if together:
                raise _Refused from error
            self._refuse_for(topic, error)

    def _apply_one(self, session: Session, group: _Group, opened: Opened) -> None:
        if opened.message.body.DURABLE:
            self._durable(session, group, opened.kiosk, opened.message)
        else:
            self._passing(session, group, opened.kiosk, opened.message)

    def _take_chunks(self, session: Session, group: _Group, chunks: list[tuple[str, bytes]]) -> None:
        if not chunks:
            return
        for file in self._arriving.take(session, chunks, group.now_ms, self._refuse_for):
            group.out.cases.add(file.consult)
            where = (file.kiosk, file.consult, file.digest)
            if file.whole or file.lost:
                group.touched[where] = group.touched.get(where, False) or file.lost
        for row in session.identity_map.values():
            if isinstance(row, Content):
                session.expire(row)  # it was changed behind the session's back

    def _refuse_for(self, topic: str, error: Exception) -> None:
        match error:
            case ChunkTooEarly():
                self._refuse("chunk_without_manifest", topic, str(error))
            case trust.TrustError():
                self._refuse(type(error).__name__.lower(), topic, str(error))
            case wire.UnknownMessage():
                self._refuse("unknown", topic, str(error))
            case ForeignConsult():
                self._refuse("foreign_consult", topic, f"of another kiosk: {error}")
            case _:
                self._refuse("malformed", topic, str(error))

    def _refuse(self, kind: str, topic: str, reason: str) -> None:
        self._refusals.append((kind, topic, reason))

    def _durable(self, session: Session, group: _Group, kiosk: str, message: wire.Message) -> None:
        body, out, now_ms = message.body, group.out, group.now_ms
        if isinstance(body, wire.Manifest) and body.size > self._store.max_file_bytes:
            raise wire.MalformedMessage(f"a file of {body.size} bytes, store.max_file_bytes allows less")
        consult = cases.own_consult(session, kiosk, message.consult.hex(), now_ms)
        name = (kiosk, message.id.hex())
        if name not in group.known:
            clock = KioskClock(message.sent_at_ms, now_ms, message.stamp)
            self._apply(session, out, consult, message, clock, now_ms)
            group.known.add(name)
            group.uplinks.append(_uplink(kiosk, message, now_ms))
            out.cases.add(consult.id)
        elif isinstance(body, wire.CallRequested):
            self._calls.requested(session, out, consult, body, now_ms, now_ms)
        elif isinstance(body, wire.Manifest):  # of two of one file, the kiosk goes by the one that it says again
            file = session.get(CaseFile, (consult.id, body.digest.hex()))
            if file is not None:
                file.take_key(body.key)
        if isinstance(body, wire.Manifest):
            group.touched[kiosk, consult.id, body.digest.hex()] = True
        out.receipt(kiosk, message.id)

    def _apply(
        self,
        session: Session,
        out: Outgoing,
        consult: Consult,
        message: wire.Message,
        clock: KioskClock,
        now_ms: int,
    ) -> None:
        match message.body:
            case wire.ConsultOpened() as body:
                consult.kiosk_opened_at = body.opened_at_ms
                consult.opened_at = clock.shown(body.opened_at_ms)
                consult.opened_by = body.opened_by[:100]
                cases.record(session, consult.id, "opened", now_ms, body.opened_by[:100])
            case wire.CallRequested() as body:
                self._calls.requested(session, out, consult, body, clock.shown(body.requested_at_ms), now_ms)
            case wire.CallEnded() as body:
                self._calls.ended_by_kiosk(session, out, consult, body, now_ms)
            case wire.CaseNote() as body if message.seq >= consult.note_seq:
                consult.note_seq = max(message.seq, 1)
                consult.entered_by = body.entered_by[:100]
                consult.urgency, consult.complaints = body.urgency, list(body.complaints)
                consult.text, consult.patient = body.text, body.patient[:200]
                cases.record(session, consult.id, "note", now_ms, body.entered_by[:100])
            case wire.Manifest() as body:
                _keep_manifest(session, consult, body, clock)
            case wire.CaseSaved() as body if message.seq >= consult.saved_seq:
                consult.saved_seq = message.seq
                consult.saved_at = clock.shown(body.saved_at_ms)
                consult.saved_files = [digest.hex() for digest in body.files]
                cases.record(session, consult.id, "case_saved", now_ms, consult.kiosk_id)
                cases.reopen(session, out, consult, now_ms)
            case wire.AdviceHeard() as body:
                cases.advice_heard(session, out, consult, body.advice.hex(), clock.shown(body.heard_at_ms), now_ms)
            case wire.FileGone() as body:
                cases.original_gone(session, out, consult, body.digest.hex(), now_ms)
            case wire.TurnPart() as body:
                turns.from_kiosk(session, out, consult, body, now_ms)
            case wire.TurnHeard() as body:
                turns.heard_by_kiosk(session, out, consult, body, now_ms)
            case wire.CaseNote() | wire.CaseSaved():
                pass  # overtaken by a later one; it stays in the record
            case other:
                raise wire.MalformedMessage(f"kind {other.KIND} does not come from a kiosk")

    def _passing(self, session: Session, group: _Group, kiosk: str, message: wire.Message) -> None:
        out, now_ms = group.out, group.now_ms
        match message.body:
            case wire.Status() as body:
                self._status(session, out, kiosk, body, now_ms)
            case wire.Spent() as body:
                cases.spent(session, kiosk, body, now_ms)
            case wire.TimeAsked() as body:
                told = wire.TimeTold(body.nonce, self._now_ms())
                out.to_kiosk(kiosk, wire.Message(told, sent_at_ms=told.time_ms))
            case wire.CallAccepted() as body:
                self._calls.accepted(session, out, kiosk, body.call.hex(), now_ms)
            case wire.Offer() as body:
                sdp.decompress(body.sdp)  # a console could do nothing with one that does not decompress
                self._calls.offered(session, out, kiosk, body, now_ms)
            case wire.MediaState() as body:
                self._calls.media_changed(session, out, kiosk, body)
            case wire.Have() as body:
                self._replies.has(session, out, kiosk, message.consult, body, now_ms)
            case wire.Receipt() as body:
                downlink.receipted(session, out, kiosk, body.ids, now_ms)
                for message_id in out.receipted:
                    turns.receipted(session, out, message_id)
                out.receipted.clear()
            case other:
                raise wire.MalformedMessage(f"kind {other.KIND} does not come from a kiosk")

    def _status(self, session: Session, out: Outgoing, kiosk: str, body: wire.Status, now_ms: int) -> None:
        row = cases.known_kiosk(session, kiosk, now_ms)
        self._warn_of_twins(kiosk, body.boot.hex())
        session_mark = (body.boot + body.session).hex()[:64]
        # A kiosk that lost its connection with the broker's memory is never seen to go: its session tells.
        came = body.online and (not row.online or row.boot != session_mark)
        if not body.online:
            if row.online:
                row.online, row.gone_since = False, now_ms
                out.calls.update(call.id for call in live_calls_of_kiosk(session, kiosk))
                out.room = True
            return
        row.online, row.gone_since = True, 0
        row.software, row.boot = body.software[:100], session_mark
        row.clock_trusted, row.language = body.clock_trusted, body.language[:20]
        row.missing, row.warnings = list(body.missing), list(body.warnings)
        out.room = True
        if came:
            greet(session, out, self._calls, kiosk, now_ms)

    def _warn_of_twins(self, kiosk: str, boot: str) -> None:
        """A boot that comes back after another: two units with one id push each other off the broker."""
        boots = self._boots.setdefault(kiosk, [])
        if boot and (not boots or boots[-1] != boot):
            if boot in boots:
                self._refuse("twin_kiosk", kiosk, "two kiosks use this id; join one of them again under its own")
            boots[:] = [*boots[-3:], boot]

    def _answer_have(
        self, session: Session, out: Outgoing, kiosk: str, consult: str, digest: str, asked: bool, now_ms: int
    ) -> None:
        """A kiosk that does not ask is told what it cannot know: that the file is here, or that its bytes are wrong.
        Each answer is signed, and takes its way back over a thin link."""
        content = session.get_one(Content, (kiosk, digest))
        completed = False
        if not content.complete and ranges_of(content.ranges).covers(0, content.size):
            if self._files.complete(kiosk, digest):
                completed = content.complete = True
                is_photo = select(CaseFile.role).where(CaseFile.digest == digest, CaseFile.role == "photo").limit(1)
                if session.scalar(is_photo):
                    content.damage = pictures.damage_of(self._files.read(kiosk, digest, 0, pictures.HEAD_BYTES))
                    if content.damage:
                        self._refuse("damaged_picture", kiosk, f"file {digest}: {content.damage}")
                log.info("file complete kiosk=%s file=%s bytes=%d", kiosk, digest, content.size)
            else:
                content.ranges, content.waiting_bytes, asked = [], 0, True
                self._refuse("wrong_digest", kiosk, f"file {digest} is not what was announced; asking for all of it")
        out.cases.add(consult)
        if completed or asked:
            session.flush()
            named = session.execute(
                select(CaseFile.consult_id, Consult.kiosk_id)
                .join(Consult, Consult.id == CaseFile.consult_id)
                .where(CaseFile.digest == digest)
            ).tuples()
            for consult_id, kiosk_id in named:
                out.cases.add(consult_id)
                if completed and kiosk_id == kiosk and consult_id != consult:
                    _send_have(out, kiosk, consult_id, content, now_ms)
        if asked or content.complete:
            _send_have(out, kiosk, consult, content, now_ms)


def greet(session: Session, out: Outgoing, calls: Calls, kiosk: str, now_ms: int) -> None:
    """A kiosk is there (again): what it has not confirmed, where its call stands, what its files lack."""
    out.greeted.add(kiosk)
    out.room = True
    calls.kiosk_is_online(session, out, kiosk, now_ms)
    downlink.resend(session, out, kiosk, now_ms)
    turns.kiosk_came(session, out, kiosk, now_ms)
    lacking = (
        select(Consult.id, Content)
        .join(CaseFile, CaseFile.consult_id == Consult.id)
        .join(Content, (Content.kiosk_id == Consult.kiosk_id) & (Content.digest == CaseFile.digest))
        .where(Consult.kiosk_id == kiosk, Content.complete.is_(False))
    )
    for consult, content in session.execute(lacking).tuples():
        _send_have(out, kiosk, consult, content, now_ms)


def _keep_manifest(session: Session, consult: Consult, body: wire.Manifest, clock: KioskClock) -> None:
    digest = body.digest.hex()
    if body.of and body.role != "photo":
        raise wire.MalformedMessage("a rendition of what is no photo")
    content = session.get(Content, (consult.kiosk_id, digest))
    if content is None:
        session.add(Content(kiosk_id=consult.kiosk_id, digest=digest, size=body.size, mime=body.mime[:100]))
    elif content.size != body.size:
        raise wire.MalformedMessage("a manifest whose size is not the one it had")
    file = session.get(CaseFile, (consult.id, digest))
    if file is None:
        file = CaseFile(
            consult_id=consult.id,
            digest=digest,
            role=body.role,
            kiosk_captured_at=body.captured_at_ms,
            captured_at=clock.shown(body.captured_at_ms),
            captured_by=body.captured_by[:100],
            duration_ms=body.duration_ms,
            of=body.of.hex(),
            rendition=body.rendition,
            original_bytes=body.original_bytes,
        )
        session.add(file)
    file.take_key(body.key)
    session.flush()


def _read_ahead(session: Session, group: _Group, opened: list[Opened], begin: bool) -> None:
    """The rows that these messages are about, in a few looks for all of them; `begin`: their consults where new."""
    kiosks = {each.kiosk for each in opened}
    group.held += session.scalars(select(Kiosk).where(Kiosk.id.in_(kiosks))).all()
    if any(not each.message.body.DURABLE for each in opened):
        group.held += session.scalars(select(Heard).where(Heard.kiosk_id.in_(kiosks))).all()
    durable = [each for each in opened if each.message.body.DURABLE]
    if not durable:
        return
    names = {(each.kiosk, each.message.id.hex()) for each in durable}
    here = session.execute(
        select(Uplink.kiosk_id, Uplink.id).where(tuple_(Uplink.kiosk_id, Uplink.id).in_(names))
    ).tuples()
    group.known.update(here)
    consults = {each.message.consult.hex(): each.kiosk for each in durable}
    found = session.scalars(select(Consult).where(Consult.id.in_(consults))).all()
    group.held += found
    if begin:
        for consult in consults.keys() - {each.id for each in found}:
            group.held.append(cases.begin(session, consults[consult], consult, group.now_ms))
        session.flush()


def _kiosks_of(batch: list[Arrival]) -> set[str]:
    parts = (arrival.topic.split("/", 2) for arrival in batch)
    return {part[1] for part in parts if len(part) == 3}


def _uplink(kiosk: str, message: wire.Message, now_ms: int) -> dict[str, object]:
    body, stamp = message.body, message.stamp
    return {
        "kiosk_id": kiosk,
        "id": message.id.hex(),
        "consult_id": message.consult.hex(),
        "kind": body.KIND,
        "seq": message.seq,
        "kiosk_sent_at": message.sent_at_ms,
        "arrived_at": now_ms,
        # What is said in turns has a place of its own, and goes once it was heard.
        "body": b"" if isinstance(body, wire.TurnPart) else _body_encoder.encode(body),
        "kiosk_boot": stamp.boot.hex() if stamp else "",
        "kiosk_mono_ms": stamp.mono_ms if stamp else 0,
        "clock_trusted": stamp.clock_trusted if stamp else False,
    }


def _send_have(out: Outgoing, kiosk: str, consult: str, content: Content, now_ms: int) -> None:
    ranges = tuple((start, end) for start, end in content.ranges)
    have = wire.Have(bytes.fromhex(content.digest), ranges, content.complete)
    out.to_kiosk(kiosk, wire.Message(have, bytes.fromhex(consult), sent_at_ms=now_ms))


def _is_of_the_store(error: Exception) -> bool:
    """The disk or the database failed, not the message: it passes, and the message must wait for that."""
    if isinstance(error, (DataError, IntegrityError)):
        return False
    return is_full(error) or isinstance(error, (OSError, OperationalError, InterfaceError))
