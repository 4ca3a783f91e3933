"""Stores of before encryption, keys that come and go, sealed files, and room on the card."""

from __future__ import annotations

import errno
import hashlib
import io
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core import wire
from edge_agent.storage import (
    CaseKept,
    ConsultOpened,
    FileDelivered,
    FileKept,
    MessageQueued,
    ReplyFile,
    Store,
    StoreBroken,
    StoreFull,
    ValueKept,
    database,
    sealed_files,
    store_key,
)
from edge_agent.storage import store as module
from tests.kiosk_store import found_in, make_plain_store

CONSULT = b"k" * 16
NAME, NOTE, PHOTO = "Planted Patient", "a planted note", b"planted picture " * 5000
WORDS = [NAME.encode(), NOTE.encode(), PHOTO[:32]]


def leave_case(store: Store, photo: bytes = PHOTO) -> wire.Message:
    """As the guided message leaves it; the note of it."""
    capture = store.new_capture(".jpg")
    capture.write_bytes(photo)
    digest, size = store.keep_file(capture)
    note = wire.Message(wire.CaseNote("patient", 8, text=NOTE, patient=NAME), CONSULT, seq=1)
    kept = FileKept(CONSULT, digest, "photo", "image/jpeg", size, 9, "patient")
    case = CaseKept(CONSULT, 9, NAME, ("fever",), "urgent")
    store.commit([ConsultOpened(CONSULT, 7, "patient"), kept, MessageQueued(note), case])
    return note


def digest_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


# --- of before encryption


def test_a_store_of_before_encryption_is_encrypted_in_place(tmp_path):
    folder = tmp_path / "store"
    note, _ = make_plain_store(folder, NAME, NOTE, PHOTO)
    assert len(found_in(folder, WORDS)) > 3
    store = Store(folder)
    contents = store.load()
    assert not store.damaged
    assert contents.waiting == [note]
    assert [file.digest for file in contents.files] == [digest_of(PHOTO)]
    assert store.read_file(digest_of(PHOTO)) == PHOTO
    reply = bytes(range(200))
    for start in (50, 150):
        store.write_arriving(digest_of(reply), start, reply[start : start + 50])
    assert store.finish_arriving(digest_of(reply))
    store.close()
    assert found_in(folder, WORDS) == []
    assert {path.name for path in folder.iterdir()} == {"kiosk.db", "media", "reserve"}


def test_a_damaged_store_of_before_encryption_is_rescued_and_set_aside(tmp_path):
    folder = tmp_path / "store"
    note, _ = make_plain_store(folder, NAME, NOTE, PHOTO)
    path = folder / "kiosk.db"
    pages = path.stat().st_size // 4096
    data = bytearray(path.read_bytes())
    page = next(number for number in range(2, pages) if b"image/jpeg" in data[number * 4096 : number * 4096 + 4096])
    data[page * 4096 : page * 4096 + 16] = b"\xff" * 16
    path.write_bytes(data)
    store = Store(folder)
    assert store.damaged
    assert store.load().waiting == [note]
    (aside,) = folder.glob("damaged-*")
    assert {path.name for path in (aside / "files").iterdir()} == {
        digest_of(PHOTO).hex(),
        digest_of(b"sent " + PHOTO).hex(),
    }


def test_what_the_hub_has_goes_before_the_rest_is_encrypted(tmp_path, monkeypatch):
    """Or a card that is nearly full could not be."""
    folder = tmp_path / "store"
    make_plain_store(folder, NAME, NOTE, PHOTO)

    def sealing(*_: object) -> None:
        assert [path.name for path in (folder / "files").iterdir()] == [digest_of(PHOTO).hex()]
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(sealed_files, "write_sealed", sealing)
        with pytest.raises(StoreFull):
            Store(folder)
    assert Store(folder).read_file(digest_of(PHOTO)) == PHOTO


def test_damage_is_found_from_outside_while_the_store_is_open(tmp_path):
    path = tmp_path / "store" / "kiosk.db"
    store = Store(tmp_path / "store")
    key = store_key.read_key(tmp_path)
    assert database.look_for_damage(tmp_path / "none", key, 1.0) is None
    assert database.look_for_damage(path, key, 1.0) == ""
    store.commit([ValueKept(f"key {number}", bytes(4000)) for number in range(50)])
    assert database.look_for_damage(path, key, 1.0) == ""
    store.close()
    data = bytearray(path.read_bytes())
    data[20 * 4096 : 20 * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)
    assert "damaged" in (database.look_for_damage(path, key, 1.0) or "")
    path.write_bytes(b"\xff" * 8192)
    assert "damaged" in (database.look_for_damage(path, key, 1.0) or "")


# --- its key


def give_credential(monkeypatch: pytest.MonkeyPatch, folder: Path, secret: bytes) -> None:
    folder.mkdir(exist_ok=True)
    (folder / store_key.CREDENTIAL).write_bytes(secret)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))


def test_the_key_lies_beside_the_store_where_systemd_gives_none(tmp_path, caplog):
    caplog.set_level("INFO")
    store = Store(tmp_path / "store")
    assert not store.key_is_protected
    assert (tmp_path / "store.key").stat().st_mode & 0o777 == 0o600
    assert any("whoever has the card can read it" in record.message for record in caplog.records)


def test_a_credential_that_comes_later_takes_over_and_the_file_goes(tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    note = leave_case(store)
    store.close()
    give_credential(monkeypatch, tmp_path / "credentials", bytes(range(32)))
    for _ in range(2):
        store = Store(tmp_path / "store")
        assert (store.key_is_protected, store.damaged) == (True, False)
        assert store.load().waiting == [note]
        assert store.read_file(digest_of(PHOTO)) == PHOTO
        assert not (tmp_path / "store.key").exists()
        store.close()
    give_credential(monkeypatch, tmp_path / "credentials", b"another secret of thirty-two bytes")
    store = Store(tmp_path / "store")  # nothing of it can be read: set aside, and the kiosk starts
    assert (store.damaged, store.load().waiting) == (True, [])


def test_a_credential_that_is_too_short(tmp_path, monkeypatch):
    give_credential(monkeypatch, tmp_path / "credentials", b"short")
    with pytest.raises(StoreBroken, match="has 5 bytes, at least 32"):
        Store(tmp_path / "store")


def test_a_key_file_that_is_damaged(tmp_path):
    leave_case(store := Store(tmp_path / "store"))
    store.close()
    (tmp_path / "store.key").write_bytes(b"")
    store = Store(tmp_path / "store")
    assert store.damaged
    assert len(list(tmp_path.glob("store.key.damaged-*"))) == 1


def test_who_has_the_card_finds_nothing_planted(tmp_path):
    store = Store(tmp_path / "store")
    leave_case(store)
    store.commit([ValueKept("call", NOTE.encode())])
    assert found_in(tmp_path, WORDS) == []
    assert digest_of(PHOTO).hex() not in {path.name for path in tmp_path.rglob("*")}


# --- sealed files


@given(size=st.integers(0, 200_000), cuts=st.tuples(st.integers(0, 200_000), st.integers(0, 200_000)))
def test_any_range_of_a_sealed_file(tmp_path_factory, size, cuts):
    data = random.Random(size).randbytes(size)
    path, key, digest = tmp_path_factory.mktemp("sealed") / "file", sealed_files.new_key(), digest_of(data)
    sealed_files.write_sealed(path, io.BytesIO(data), size, key, digest)
    start, end = sorted(min(cut, size) for cut in cuts)
    assert sealed_files.read_sealed(path, size, key, digest, start, end) == data[start:end]
    with pytest.raises(OSError, match="ends at"):
        sealed_files.read_sealed(path, size, key, digest, 0, size + 1)


def test_a_sealed_file_that_was_altered(tmp_path):
    size = 3 * sealed_files.FRAME_BYTES
    data = random.Random(1).randbytes(size)
    path, key, digest = tmp_path / "file", sealed_files.new_key(), digest_of(data)
    sealed_files.write_sealed(path, io.BytesIO(data), size, key, digest)
    sealed = path.read_bytes()
    frame = sealed_files.FRAME_BYTES + sealed_files.TAG_BYTES
    head, frames = sealed[:4], [sealed[4 + n * frame : 4 + (n + 1) * frame] for n in range(3)]
    altered = [
        head + frames[0] + frames[1],  # cut off
        head + frames[1] + frames[0] + frames[2],
        head + frames[0][:-1] + bytes((frames[0][-1] ^ 1,)) + frames[1] + frames[2],
        b"XXXX" + b"".join(frames),
        b"",
    ]
    for wrong in altered:
        path.write_bytes(wrong)
        with pytest.raises(OSError, match="damaged"):
            sealed_files.read_sealed(path, size, key, digest, 0, size)
    path.write_bytes(sealed)
    for other in ((sealed_files.new_key(), digest), (key, digest_of(b"another"))):
        with pytest.raises(OSError, match="damaged"):
            sealed_files.read_sealed(path, size, *other, 0, size)


def test_a_sealed_file_that_does_not_fit_leaves_nothing(tmp_path):
    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("the card is gone")

    with pytest.raises(OSError, match="gone"):
        sealed_files.write_sealed(tmp_path / "file", Breaks(), 10, sealed_files.new_key(), bytes(32))
    assert list(tmp_path.iterdir()) == []


# --- room


@pytest.fixture
def free(monkeypatch):
    """What the card says that it has free, as a test has it."""

    class Disk:
        free = 1 << 40

    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Disk)
    return Disk


def keep(store: Store, number: int) -> FileKept:
    consult = number.to_bytes(16, "big")
    capture = store.new_capture(".jpg")
    capture.write_bytes(number.to_bytes(4, "big") * 1000)
    digest, size = store.keep_file(capture)
    kept = FileKept(consult, digest, "photo", "image/jpeg", size, number, "patient")
    store.commit([ConsultOpened(consult, number, "patient"), kept])
    return kept


def test_what_the_hub_has_goes_first_the_oldest_before_others(tmp_path, free, monkeypatch):
    store = Store(tmp_path / "store")
    kept = [keep(store, number) for number in range(6)]
    store.commit([FileDelivered(file.consult, file.digest) for file in kept[:4]])
    frees = iter([0, 0, 1000])
    monkeypatch.setattr(store, "free_bytes", lambda: next(frees))
    assert store.make_room(1000) == 2
    for file in kept[:2]:
        with pytest.raises(FileNotFoundError):
            store.read_file(file.digest)
    monkeypatch.setattr(store, "free_bytes", lambda: 0)
    assert store.make_room(1000) == 2
    assert [store.read_file(file.digest)[:4] for file in kept[4:]] == [b"\0\0\0\4", b"\0\0\0\5"]
    assert {file.digest for file in store.load().files} == {file.digest for file in kept[4:]}


def test_below_the_reserve_no_file_is_taken_and_notes_are(tmp_path, free):
    store = Store(tmp_path / "store")
    free.free = module.RESERVE_BYTES - 1
    with pytest.raises(StoreFull):
        store.new_capture(".ogg")
    store.commit([ValueKept("a", b"notes still find room")])


def test_notes_take_the_room_that_is_kept_for_them(tmp_path, free):
    store = Store(tmp_path / "store")
    assert (tmp_path / "store" / "reserve").stat().st_blocks * 512 >= module.NOTES_RESERVE_BYTES
    query = store._db.execute

    class Full:
        """A card without room, until the reserve is given up."""

        in_transaction = False

        def execute(self, statement: str, *values: object) -> object:
            if statement == "COMMIT" and not store.gave_up_reserve:
                query("ROLLBACK")
                error = database.sqlcipher.OperationalError("database or disk is full")
                error.sqlite_errorcode = database.sqlcipher.SQLITE_FULL
                raise error
            return query(statement, *values)

    store._db, real = Full(), store._db  # type: ignore[assignment]
    store.commit([ValueKept("a", b"1")])
    store._db = real
    assert store.load().values == {"a": b"1"}
    free.free = module.RESERVE_BYTES
    with pytest.raises(StoreFull):  # files come back when there is room for both
        store.new_capture(".ogg")
    free.free = 1 << 40
    store.free_bytes()
    assert store.new_capture(".ogg")


DAYS, CONSULTS_A_DAY, CARD_BYTES = 30, 40, 8_000_000_000
SYSTEM_BYTES = 3_000_000_000  # Raspberry Pi OS Lite with the kit, its environment and Chromium
NOTE_BYTES, VOICE_BYTES, PHOTO_BYTES = (
    4000,
    240_000,
    1_200_000,
)  # the longest note, 120 s at 16 kbit/s, the largest photo


def test_thirty_days_of_forty_consults_fit_on_a_small_card(tmp_path):
    """None of them acknowledged: each with a note, a voice note and two photos, as large as they may be."""
    store = Store(tmp_path / "store")
    before = used(tmp_path)
    for number in range(20):
        consult, choose = number.to_bytes(16, "big"), random.Random(number)
        changes = [ConsultOpened(consult, number, "patient")]
        note = wire.CaseNote("patient", 1, text="x" * NOTE_BYTES, patient="p" * 120)
        bodies: list[wire.Body] = [note]
        for role, size in (("voice", VOICE_BYTES), ("photo", PHOTO_BYTES), ("photo", PHOTO_BYTES)):
            capture = store.new_capture("")
            capture.write_bytes(choose.randbytes(size))
            digest, _ = store.keep_file(capture)
            changes.append(FileKept(consult, digest, role, "image/jpeg", size, 1, "patient"))
            bodies.append(wire.Manifest(digest, role, "image/jpeg", size, 1, "patient"))
        changes += [MessageQueued(wire.Message(body, consult, seq=seq)) for seq, body in enumerate(bodies, 1)]
        store.commit(changes)
    a_consult = (used(tmp_path) - before) / 20
    assert a_consult < 1.01 * (NOTE_BYTES + VOICE_BYTES + 2 * PHOTO_BYTES) + 40_000
    wanted = DAYS * CONSULTS_A_DAY * a_consult + module.LOW_BYTES + module.NOTES_RESERVE_BYTES
    assert wanted < CARD_BYTES - SYSTEM_BYTES


def used(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def test_a_reply_is_not_taken_for_what_the_hub_has(tmp_path, free, monkeypatch):
    store = Store(tmp_path / "store")
    store.commit([ConsultOpened(CONSULT, 1, "patient")])
    data = b"a voice reply"
    store.write_arriving(digest_of(data), 0, data)
    assert store.finish_arriving(digest_of(data))
    store.commit([ReplyFile(CONSULT, digest_of(data), "audio/ogg", len(data), ((0, len(data)),), complete=True)])
    monkeypatch.setattr(store, "free_bytes", lambda: 0)
    assert store.make_room(1) == 0
    assert store.read_file(digest_of(data)) == data
