"""The store: what it gives back, that a kill at any instant costs nothing that was said to be saved, and bad disks."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_agent import store as module
from edge_agent.core import wire
from edge_agent.store import (
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

CONSULT = b"k" * 16
KILLS = 40


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


def test_what_is_freed_set_aside_or_gone_does_not_come_back(store):
    messages = [wire.Message(wire.CaseNote("patient", seq), CONSULT, seq=seq) for seq in range(1, 4)]
    store.commit([*map(MessageQueued, messages), DraftKept(CONSULT, b"draft")])
    store.commit([MessagesFreed((messages[0].id,)), MessageSetAside(messages[1].id), DraftGone(CONSULT)])
    contents = again(store).load()
    assert contents.waiting == [messages[2]]
    assert contents.drafts == []
    assert contents.consults[0].next_seq == 4


def test_a_transaction_is_whole_or_not_at_all(store):
    with pytest.raises(StoreBroken):
        store.commit([ValueKept("a", b"1"), DraftKept(b"?" * 16, b"of no consult")])
    assert store.load().values == {}


def test_files_are_kept_by_their_digest(store):
    kept = keep(store, b"x" * 100_000)
    assert kept.digest == hashlib.sha256(b"x" * 100_000).digest()
    assert store.file_path(kept.digest).read_bytes() == b"x" * 100_000
    assert store.read_chunk(kept.digest, 99_990, 10) == b"x" * 10
    with pytest.raises(OSError):
        store.read_chunk(kept.digest, 99_990, 11)
    with pytest.raises(OSError):
        store.read_chunk(b"?" * 32, 0, 1)
    store.commit([FileDelivered(CONSULT, kept.digest)])
    assert store.load().files == []
    assert again(store).file_path(kept.digest).exists()


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
    opened.file_path(digest).unlink()
    assert opened.original_of(CONSULT, photo.digest) is None
    opened.close()


def test_a_file_in_two_consults_goes_with_the_second(store):
    other = b"o" * 16
    store.commit([ConsultOpened(other, 8, "patient")])
    kept = keep(store, b"same")
    keep(store, b"same", other)
    store.commit([FileForgotten(CONSULT, kept.digest)])
    assert store.file_path(kept.digest).exists()
    store.commit([FileForgotten(other, kept.digest)])
    assert not store.file_path(kept.digest).exists()


def test_what_no_row_names_is_swept_at_the_start(store):
    kept = keep(store, b"kept")
    unfinished = store.new_capture(".ogg")
    unfinished.write_bytes(b"cut off")
    orphan = store.new_capture(".ogg")
    orphan.write_bytes(b"no row")
    digest, _ = store.keep_file(orphan)
    opened = again(store)
    assert not unfinished.exists()
    assert not opened.file_path(digest).exists()
    assert opened.file_path(kept.digest).read_bytes() == b"kept"


def test_a_file_that_arrives_in_pieces(store):
    data = random.Random(1).randbytes(50_000)
    digest = hashlib.sha256(data).digest()
    store.commit([ReplyFile(CONSULT, digest, "audio/ogg", len(data))])
    for offset in (30_000, 0, 10_000, 20_000, 40_000, 10_000):
        store.write_arriving(digest, offset, data[offset : offset + 10_000])
        store.sync_arriving(digest)
    opened = again(store)  # what has come so far survives
    assert opened.finish_arriving(digest)
    assert opened.file_path(digest).read_bytes() == data
    assert not opened.finish_arriving(digest)
    opened.write_arriving(digest, 0, b"damaged")
    assert not opened.finish_arriving(digest)


def test_a_damaged_database_is_set_aside_with_its_files(store, caplog):
    kept = keep(store, b"kept")
    store.close()
    path = store._folder / "kiosk.db"
    path.write_bytes(b"SQLite format 3\0" + random.Random(2).randbytes(5000))
    opened = Store(store._folder)
    assert opened.damaged
    assert opened.load().consults == []
    assert sum("store damaged" in record.message for record in caplog.records) == 1
    (aside,) = store._folder.glob("damaged-*")
    assert (aside / "files" / kept.digest.hex()).read_bytes() == b"kept"
    opened.commit([ConsultOpened(CONSULT, 1, "patient")])
    assert not again(opened).damaged


def test_a_page_that_is_damaged_is_found(store):
    for number in range(200):
        store.commit([ValueKept(f"key {number}", bytes(500))])
    store.close()
    path = store._folder / "kiosk.db"
    data = bytearray(path.read_bytes())
    data[3 * 4096 : 3 * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)
    assert Store(store._folder).damaged


def test_a_newer_release_made_it(store):
    store.close()
    with sqlite3.connect(store._folder / "kiosk.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreBroken, match="newer release"):
        Store(store._folder)
    assert not list(store._folder.glob("damaged-*"))


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
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.commit([ValueKept("small", b"1"), ValueKept("large", bytes(500_000))])
    assert set(again(store).load().values) == {"small", "large"}


def test_below_the_reserve_no_file_is_taken(store, monkeypatch):
    monkeypatch.setattr(module, "RESERVE_BYTES", 1 << 62)
    with pytest.raises(StoreFull):
        store.new_capture(".ogg")
    store.commit([ValueKept("a", b"notes still find room")])


async def test_its_thread_keeps_the_order(tmp_path):
    thread = StoreThread(tmp_path / "store")
    try:
        await asyncio.gather(
            *(thread.run(thread.store.commit, [ValueKept("last", str(number).encode())]) for number in range(50))
        )
        assert (await thread.run(thread.store.load)).values == {"last": b"49"}
    finally:
        thread.close()


def test_killed_at_any_instant_what_was_said_to_be_saved_is_there(tmp_path):
    """One store, killed again and again while it saves."""
    folder = tmp_path / "store"
    when = random.Random(20_261_124)
    consults: set[str] = set()
    files: set[tuple[str, str]] = set()
    cases: set[str] = set()
    messages: set[str] = set()
    freeing: set[str] = set()
    freed: set[str] = set()
    for seed in range(KILLS):
        writer = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.store_writer", str(folder), str(seed)],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open False\n"
        time.sleep(when.uniform(0, 0.08))  # the instant is the point
        writer.kill()
        said = [line.split() for line in writer.stdout.read().split("\n")[:-1]]
        writer.wait()
        writer.stdout.close()
        for word, *values in said:
            match word:
                case "consult":
                    consults.add(values[0])
                case "file":
                    files.add((values[0], values[1]))
                case "case":
                    cases.add(values[0])
                    messages.update(values[1:])
                case "freeing":
                    freeing.update(values)
                case "freed":
                    freed.update(values)
        store = Store(folder)
        try:
            _check(store, consults, files, cases, messages, freeing, freed)
        finally:
            store.close()
    assert len(consults) > KILLS
    assert len(cases) > KILLS
    assert len(files) > KILLS


def _check(store: Store, consults, files, cases, messages, freeing, freed) -> None:
    assert not store.damaged
    query = store._db.execute
    there = {row[0].hex(): row[1] for row in query("SELECT id, saved_at_ms FROM consult")}
    assert consults <= there.keys()
    assert all(there[consult] for consult in cases)
    kept = {(row[0].hex(), row[1].hex()) for row in query("SELECT consult, digest FROM file")}
    assert files <= kept
    for _, digest in kept:
        assert hashlib.sha256(store.file_path(bytes.fromhex(digest)).read_bytes()).hexdigest() == digest
    assert {path.name for path in store._files.iterdir()} == {digest for _, digest in kept}
    assert not list(store._captures.iterdir())
    waiting = [message.id.hex() for message in store.load().waiting]
    assert len(waiting) == len(set(waiting))
    assert messages - set(waiting) <= freeing
    assert not freed & set(waiting)
    drafts = {row[0].hex() for row in query("SELECT consult FROM draft")}
    assert not drafts & cases
    assert os.path.getsize(store._folder / "kiosk.db") > 0
