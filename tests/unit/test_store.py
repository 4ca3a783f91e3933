"""The store: what it gives back, that a kill at any instant costs nothing that was said to be saved, and bad disks."""

from __future__ import annotations

import asyncio
import hashlib
import random
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent.core import wire
from edge_agent.core.retries import SetAside
from edge_agent.storage import (
    AdviceCame,
    AdviceWasHeard,
    CaseKept,
    ConsultOpened,
    DraftGone,
    DraftKept,
    FileAsked,
    FileDelivered,
    FileForgotten,
    FileKept,
    MessageQueued,
    MessageSetAside,
    MessagesFreed,
    ProgressCame,
    ReplyFile,
    Store,
    StoreBroken,
    StoreFull,
    StoreThread,
    ValueKept,
)
from edge_agent.storage.database import connect

CONSULT = b"k" * 16
NOW_MS = 1_790_000_000_000
DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "store")
    opened.commit([ConsultOpened(CONSULT, 7, "patient")])
    yield opened
    opened.close()


def again(store: Store) -> Store:
    store.close()
    return Store(store._folder)


def keep(store: Store, data: bytes, consult: bytes = CONSULT) -> FileKept:
    capture = store.new_capture(".jpg")
    capture.write_bytes(data)
    digest, size = store.keep_file(capture)
    kept = FileKept(consult, digest, "photo", "image/jpeg", size, 9, "patient")
    store.commit([kept])
    return kept


def test_everything_comes_back_as_it_was_kept(store):
    messages = [wire.Message(wire.ConsultOpened(7, "patient"), CONSULT, seq=1)]
    messages.append(wire.Message(wire.CaseNote("patient", 8, text="é"), CONSULT, seq=2))
    advice = wire.Advice(b"v" * 8, "Dr A", 10, "Rest.", b"r" * 32)
    reply = ReplyFile(CONSULT, b"r" * 32, "audio/ogg", 100, ((0, 10), (20, 30)))
    file = keep(store, b"picture")
    store.commit(
        [
            *map(MessageQueued, messages),
            DraftKept(CONSULT, b"draft"),
            CaseKept(CONSULT, 11, "A 12", ("fever", "cough"), "urgent"),
            ProgressCame(CONSULT, "received", 15),
            ProgressCame(CONSULT, "seen", 12),
            ProgressCame(CONSULT, "closed", 13),
            AdviceCame(CONSULT, advice),
            AdviceCame(CONSULT, advice),
            AdviceWasHeard(advice.advice, 14),
            AdviceWasHeard(advice.advice, 99),
            reply,
            ValueKept("language", b"fr"),
        ]
    )
    contents = again(store).load()
    (consult,) = contents.consults
    assert (consult.id, consult.opened_at_ms, consult.opened_by, consult.next_seq) == (CONSULT, 7, "patient", 3)
    assert (consult.saved_at_ms, consult.seen_at_ms, consult.closed_at_ms) == (11, 12, 13)
    assert consult.received_at_ms == 15
    assert (consult.patient, consult.complaints, consult.urgency) == ("A 12", ("fever", "cough"), "urgent")
    assert contents.waiting == messages
    assert contents.files == [file]
    assert contents.drafts == [(CONSULT, b"draft")]
    assert [(stored.advice, stored.heard_at_ms) for stored in contents.advice] == [(advice, 14)]
    assert contents.replies == [reply]
    assert contents.values == {"language": b"fr"}


def test_what_is_freed_or_gone_does_not_come_back_and_what_is_set_aside_comes_back_so(store):
    messages = [wire.Message(wire.CaseNote("patient", seq), CONSULT, seq=seq) for seq in range(1, 4)]
    store.commit([*map(MessageQueued, messages), DraftKept(CONSULT, b"draft")])
    store.commit(
        [MessagesFreed((messages[0].id,), NOW_MS), MessageSetAside(messages[1].id, SetAside(2, 99)), DraftGone(CONSULT)]
    )
    contents = again(store).load()
    assert contents.waiting == messages[1:]
    assert contents.set_aside == {messages[1].id: SetAside(2, 99)}
    assert contents.drafts == []
    assert contents.consults[0].next_seq == 4


def test_what_a_restored_hub_has_lost_waits_again(store):
    here, gone = keep(store, b"here" * 100), keep(store, b"gone" * 100)
    old, *rest = messages = [
        wire.Message(body, CONSULT, seq=seq)
        for seq, body in enumerate(
            [
                wire.CaseNote("patient", 1),
                wire.CaseNote("patient", 2),
                *(wire.Manifest(file.digest, "photo", "image/jpeg", 400, 1, "patient") for file in (here, gone)),
            ],
            1,
        )
    ]
    store.commit([*map(MessageQueued, messages)])
    store.commit([MessagesFreed((old.id,), NOW_MS - 5 * DAY_MS)])
    delivered = [FileDelivered(CONSULT, file.digest) for file in (here, gone)]
    store.commit([MessagesFreed(tuple(message.id for message in rest), NOW_MS), *delivered])
    store.commit([FileForgotten(CONSULT, gone.digest)])
    store = again(store)
    assert store.load().waiting == [], "nothing of it waits by itself"
    assert store.take_back(NOW_MS + 2 * DAY_MS) == []
    assert store.take_back(NOW_MS - DAY_MS) == rest[:2], "not what the hub still has, nor a file that made room"
    contents = again(store).load()
    assert contents.waiting == rest[:2]
    assert [file.digest for file in contents.files] == [here.digest]


def test_what_was_freed_long_ago_goes(store):
    messages = [wire.Message(wire.CaseNote("patient", seq), CONSULT, seq=seq) for seq in (1, 2)]
    store.commit([*map(MessageQueued, messages)])
    store.commit([MessagesFreed((messages[0].id,), NOW_MS)])
    store.commit([MessagesFreed((messages[1].id,), NOW_MS + 15 * DAY_MS)])
    assert store.take_back(0) == messages[1:]


def test_an_emergency_is_one_after_its_call_has_its_receipt(store):
    call = wire.Message(wire.CallRequested(b"c" * 8, 1, emergency=True), CONSULT, seq=1)
    note = wire.Message(wire.CaseNote("patient", 2), CONSULT, seq=2)
    store.commit([MessageQueued(call)])
    store.commit([MessagesFreed((call.id,), NOW_MS), MessageQueued(note)])
    contents = again(store).load()
    assert contents.waiting == [note]
    assert contents.consults[0].emergency


def test_a_transaction_is_whole_or_not_at_all(store):
    with pytest.raises(StoreBroken):
        store.commit([ValueKept("a", b"1"), DraftKept(b"?" * 16, b"of no consult")])
    assert store.load().values == {}


def test_files_are_kept_by_their_digest(store):
    kept = keep(store, b"x" * 100_000)
    assert kept.digest == hashlib.sha256(b"x" * 100_000).digest()
    assert store.read_file(kept.digest) == b"x" * 100_000
    assert store.read_chunk(kept.digest, 99_990, 10) == b"x" * 10
    with pytest.raises(OSError):
        store.read_chunk(kept.digest, 99_990, 11)
    with pytest.raises(OSError):
        store.read_chunk(b"?" * 32, 0, 1)
    store.commit([FileDelivered(CONSULT, kept.digest)])
    assert store.load().files == []
    assert again(store).read_file(kept.digest)


def test_an_original_may_go_with_its_photo_until_it_is_asked_for(store):
    photo = keep(store, b"photo")
    capture = store.new_capture(".jpg")
    capture.write_bytes(b"a larger one")
    digest, size = store.keep_file(capture)
    original = FileKept(CONSULT, digest, "photo", "image/jpeg", size, 9, "patient", 0, photo.digest, "original")
    store.commit([original])
    assert store.original_of(CONSULT, photo.digest) == original
    assert store.original_of(b"o" * 16, photo.digest) is None
    store.commit([FileDelivered(CONSULT, photo.digest)])
    assert store.load().files == []
    store.commit([FileAsked(CONSULT, digest)])
    opened = again(store)
    assert opened.load().files == [original]
    opened.commit([FileDelivered(CONSULT, digest)])
    assert opened.load().files == []
    (opened._media / opened._key.name_of(digest)).unlink()
    assert opened.original_of(CONSULT, photo.digest) is None
    opened.close()


def test_a_file_in_two_consults_goes_with_the_second(store):
    other = b"o" * 16
    store.commit([ConsultOpened(other, 8, "patient")])
    kept = keep(store, b"same")
    keep(store, b"same", other)
    store.commit([FileForgotten(CONSULT, kept.digest)])
    assert store.read_file(kept.digest) == b"same"
    store.commit([FileForgotten(other, kept.digest)])
    assert not list(store._media.iterdir())


def test_what_no_row_names_is_swept_at_the_start(store):
    kept = keep(store, b"kept")
    unfinished = store.new_capture(".ogg")
    unfinished.write_bytes(b"cut off")
    orphan = store.new_capture(".ogg")
    orphan.write_bytes(b"no row")
    digest, _ = store.keep_file(orphan)
    opened = again(store)
    assert not unfinished.exists()
    with pytest.raises(FileNotFoundError):
        opened.read_file(digest)
    assert opened.read_file(kept.digest) == b"kept"
    assert len(list(opened._media.iterdir())) == 1


def test_a_file_that_arrives_in_pieces(store):
    data = random.Random(1).randbytes(50_000)
    digest = hashlib.sha256(data).digest()
    store.commit([ReplyFile(CONSULT, digest, "audio/ogg", len(data))])
    for offset in (30_000, 0, 10_000, 20_000, 40_000, 10_000):
        store.write_arriving(digest, offset, data[offset : offset + 10_000])
        store.sync_arriving(digest)
    opened = again(store)  # what has come so far survives
    for _ in range(2):  # killed before its row: once more
        assert opened.finish_arriving(digest)
        assert opened.read_file(digest) == data
        opened = again(opened)
    assert opened.finish_arriving(digest)
    opened.commit([ReplyFile(CONSULT, digest, "audio/ogg", len(data), ((0, len(data)),), complete=True)])
    assert again(opened).read_file(digest) == data


def test_a_file_that_arrives_damaged_is_thrown_away(store):
    data = b"as it was sent" * 100
    digest = hashlib.sha256(data).digest()
    store.commit([ReplyFile(CONSULT, digest, "audio/ogg", len(data))])
    assert not store.finish_arriving(digest)
    store.write_arriving(digest, 0, b"damaged" * 200)
    assert not store.finish_arriving(digest)
    store.write_arriving(digest, 0, data)
    assert store.finish_arriving(digest)


def test_a_player_gets_a_plain_file_in_memory_one_at_a_time(store):
    first, second = keep(store, b"first"), keep(store, b"second")
    copy = store.open_copy(first.digest)
    assert copy.read_bytes() == b"first"
    assert not copy.is_relative_to(store._folder)
    other = store.open_copy(second.digest)
    assert (copy.exists(), other.read_bytes()) == (False, b"second")
    store.close()
    assert not other.exists()


def test_a_file_taken_in_twice_at_once_stays_for_the_second(store):
    other = b"o" * 16
    store.commit([ConsultOpened(other, 8, "patient")])
    rows = []
    for consult in (CONSULT, other):
        capture = store.new_capture(".jpg")
        capture.write_bytes(b"the same picture")
        digest, size = store.keep_file(capture)
        rows.append(FileKept(consult, digest, "photo", "image/jpeg", size, 9, "patient"))
    store.commit([rows[0]])
    store.commit([FileForgotten(CONSULT, digest)])
    store.commit([rows[1]])
    assert again(store).read_file(digest) == b"the same picture"


def fill(store: Store, consults: int) -> None:
    for number in range(consults):
        consult = number.to_bytes(16, "big")
        note = wire.Message(wire.CaseNote("patient", number, text="x" * 500), consult, seq=1)
        store.commit([ConsultOpened(consult, number, "patient"), MessageQueued(note)])


def damage(path: Path, offset: int, length: int = 64) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * length)


def test_what_can_be_read_of_a_damaged_database_is_kept(store, caplog):
    kept = keep(store, b"kept")
    fill(store, 300)
    store.close()
    path = store._folder / "kiosk.db"
    damage(path, path.stat().st_size // 4096 * 3 // 4 * 4096)
    opened = Store(store._folder)
    assert opened.damaged
    contents = opened.load()
    lost = 300 - len(contents.waiting)
    assert 0 < lost < 20  # what lay on that page
    assert {message.consult for message in contents.waiting} <= {consult.id for consult in contents.consults}
    assert opened.read_file(kept.digest) == b"kept"
    (aside,) = store._folder.glob("damaged-*")
    assert (aside / "kiosk.db").exists()
    assert any("set_aside" in record.message for record in caplog.records)
    opened.commit([ConsultOpened(b"n" * 16, 1, "patient")])
    assert not again(opened).damaged


def test_a_database_that_cannot_be_read_at_all_is_set_aside_with_its_files(store):
    keep(store, b"kept")
    store.close()
    path = store._folder / "kiosk.db"
    path.write_bytes(random.Random(2).randbytes(path.stat().st_size))
    opened = Store(store._folder)
    assert opened.damaged
    assert opened.load().consults == []
    (aside,) = store._folder.glob("damaged-*")
    assert len(list((aside / "media").iterdir())) == 1
    opened.commit([ConsultOpened(CONSULT, 1, "patient")])
    assert not again(opened).damaged


@pytest.mark.parametrize("offset", [0, 16, 100])
def test_its_first_bytes_are_damaged(store, offset):
    """The salt is known without them; the rest of the first page is the list of tables."""
    fill(store, 3)
    store.close()
    damage(store._folder / "kiosk.db", offset, 16)
    opened = Store(store._folder)
    assert opened.damaged == (offset > 0)
    assert len(opened.load().waiting) == (3 if offset == 0 else 0)


def test_a_file_that_is_gone_is_told(store, caplog):
    keep(store, b"kept")
    for path in store._media.iterdir():
        path.unlink()
    assert again(store).damaged
    assert any("files_missing=1" in record.message for record in caplog.records)


def test_a_newer_release_made_it(store):
    store.close()
    with closing(connect(store._folder / "kiosk.db", store._key.database)) as db:
        db.execute("PRAGMA user_version = 99")
        db.execute("PRAGMA application_id = 99")  # it has changed what is there
    with pytest.raises(StoreBroken, match="newer release"):
        Store(store._folder)
    assert not list(store._folder.glob("damaged-*"))


def test_a_newer_release_that_only_added_leaves_its_store_to_this_one(store):
    """Where an update goes back."""
    keep(store, b"kept")
    store.close()
    with closing(connect(store._folder / "kiosk.db", store._key.database)) as db:
        db.executescript("CREATE TABLE later (a); ALTER TABLE file ADD COLUMN later TEXT NOT NULL DEFAULT '';")
        db.execute("PRAGMA user_version = 99")
    opened = again(store)
    keep(opened, b"kept after that")
    assert len(opened.load().files) == 2


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreBroken, match="cannot be opened"):
        Store(tmp_path / "file")


def test_a_full_disk_changes_nothing_and_can_be_tried_again(store):
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreFull, match="disk is full"):
        store.commit([ValueKept("small", b"1"), ValueKept("large", bytes(500_000))])
    assert store.load().values == {}
    assert store.gave_up_reserve  # it was no help
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.commit([ValueKept("small", b"1"), ValueKept("large", bytes(500_000))])
    assert set(again(store).load().values) == {"small", "large"}


async def test_its_thread_keeps_the_order(tmp_path):
    thread = StoreThread(tmp_path / "store")
    try:
        await asyncio.gather(
            *(thread.run(thread.store.commit, [ValueKept("last", str(number).encode())]) for number in range(50))
        )
        assert (await thread.run(thread.store.load)).values == {"last": b"49"}
    finally:
        thread.close()
