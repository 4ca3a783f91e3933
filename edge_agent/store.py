"""What the kiosk keeps on its disk: one SQLite database and content-addressed files beside it.

Synchronous and single-threaded; `StoreThread` gives it a thread, so that an fsync never stalls the event loop. What one
action of a person changes is one list of `Change`s and one transaction. A file is complete under its digest before a
row names it, so SIGKILL at any instant leaves a store that opens. Nobody else knows SQL or the folders.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from edge_agent.core import wire
from edge_agent.core.ranges import Range

log = logging.getLogger(__name__)

KEPT_CONSULTS = 200  # read into memory at the start: the worker's list
RESERVE_BYTES = 16 * 1024 * 1024  # no file is taken below this, so that calls and notes still find room
LOW_BYTES = 200 * 1024 * 1024


class StoreError(Exception):
    """One line that a technician can act on."""


class StoreFull(StoreError, OSError):
    """Nothing was changed; the same again may succeed later."""


class StoreBroken(StoreError, OSError):
    """The card does not write or the database is damaged. The next start sets a damaged one aside."""


# --- what may be changed


@dataclass(frozen=True, slots=True)
class ConsultOpened:
    consult: bytes
    opened_at_ms: int
    opened_by: str


@dataclass(frozen=True, slots=True)
class MessageQueued:
    message: wire.Message


@dataclass(frozen=True, slots=True)
class MessagesFreed:
    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class MessageSetAside:
    """Kept for a technician, not sent any more."""

    id: bytes


@dataclass(frozen=True, slots=True)
class FileKept:
    """The file lies under its digest already, see `Store.keep_file`."""

    consult: bytes
    digest: bytes
    role: wire.FileRole
    mime: str
    size: int
    captured_at_ms: int
    captured_by: str
    duration_ms: int = 0
    of: bytes = b""  # the photo that this is a rendition of
    rendition: str = ""  # as in `wire.Manifest`


@dataclass(frozen=True, slots=True)
class FileForgotten:
    consult: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class FileDelivered:
    """The hub has it. A photo's original, which nobody has asked for, counts with it: it may go when room is short."""

    consult: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class FileAsked:
    """It is to be delivered after all."""

    consult: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class DraftKept:
    consult: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class DraftGone:
    consult: bytes


@dataclass(frozen=True, slots=True)
class CaseKept:
    consult: bytes
    saved_at_ms: int
    patient: str
    complaints: tuple[str, ...]
    urgency: str


@dataclass(frozen=True, slots=True)
class ProgressCame:
    consult: bytes
    step: str  # "received", "seen" or "closed"
    at_ms: int


@dataclass(frozen=True, slots=True)
class AdviceCame:
    consult: bytes
    advice: wire.Advice


@dataclass(frozen=True, slots=True)
class AdviceWasHeard:
    advice: bytes
    heard_at_ms: int


@dataclass(frozen=True, slots=True)
class ReplyFile:
    """How far a file from the hub has come."""

    consult: bytes
    digest: bytes
    mime: str
    size: int
    ranges: tuple[Range, ...] = ()
    complete: bool = False
    key: bytes = b""  # that its chunks are sealed with


@dataclass(frozen=True, slots=True)
class ValueKept:
    key: str
    value: bytes


Change = (
    ConsultOpened | MessageQueued | MessagesFreed | MessageSetAside | FileKept | FileForgotten | FileDelivered
    | FileAsked | DraftKept | DraftGone | CaseKept | ProgressCame | AdviceCame | AdviceWasHeard | ReplyFile
    | ValueKept
)  # fmt: skip


# --- what is read at the start


@dataclass(slots=True)
class Consult:
    id: bytes
    opened_at_ms: int
    opened_by: str
    next_seq: int = 1
    saved_at_ms: int = 0
    seen_at_ms: int = 0
    closed_at_ms: int = 0
    patient: str = ""
    complaints: tuple[str, ...] = ()
    urgency: str = "routine"
    received_at_ms: int = 0  # nothing of it was without the hub's receipt then


@dataclass(slots=True)
class StoredAdvice:
    consult: bytes
    advice: wire.Advice
    heard_at_ms: int = 0


class Contents(NamedTuple):
    consults: list[Consult]
    waiting: list[wire.Message]  # in the order they were queued
    files: list[FileKept]  # not yet at the hub
    drafts: list[tuple[bytes, bytes]]
    advice: list[StoredAdvice]
    replies: list[ReplyFile]
    values: dict[str, bytes]


_MIGRATIONS = (
    """
    CREATE TABLE consult (
        id BLOB PRIMARY KEY, opened_at_ms INTEGER NOT NULL, opened_by TEXT NOT NULL,
        next_seq INTEGER NOT NULL DEFAULT 1, saved_at_ms INTEGER NOT NULL DEFAULT 0,
        seen_at_ms INTEGER NOT NULL DEFAULT 0, closed_at_ms INTEGER NOT NULL DEFAULT 0,
        patient TEXT NOT NULL DEFAULT '', complaints TEXT NOT NULL DEFAULT '',
        urgency TEXT NOT NULL DEFAULT 'routine'
    ) WITHOUT ROWID;
    CREATE TABLE outbox (
        number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, consult BLOB NOT NULL REFERENCES consult(id),
        seq INTEGER NOT NULL, payload BLOB NOT NULL, set_aside INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE file (
        consult BLOB NOT NULL REFERENCES consult(id), digest BLOB NOT NULL, role TEXT NOT NULL, mime TEXT NOT NULL,
        size INTEGER NOT NULL, captured_at_ms INTEGER NOT NULL, captured_by TEXT NOT NULL,
        duration_ms INTEGER NOT NULL, delivered INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (consult, digest)
    ) WITHOUT ROWID;
    CREATE TABLE draft (consult BLOB PRIMARY KEY REFERENCES consult(id), content BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE advice (
        id BLOB PRIMARY KEY, consult BLOB NOT NULL REFERENCES consult(id), given_by TEXT NOT NULL,
        given_at_ms INTEGER NOT NULL, text TEXT NOT NULL, reply BLOB NOT NULL,
        heard_at_ms INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE reply (
        consult BLOB NOT NULL REFERENCES consult(id), digest BLOB NOT NULL, mime TEXT NOT NULL, size INTEGER NOT NULL,
        ranges TEXT NOT NULL, complete INTEGER NOT NULL, PRIMARY KEY (consult, digest)
    ) WITHOUT ROWID;
    CREATE TABLE value (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    """,
    "ALTER TABLE reply ADD COLUMN key BLOB NOT NULL DEFAULT x'';",
    """
    ALTER TABLE file ADD COLUMN of BLOB NOT NULL DEFAULT x'';
    ALTER TABLE file ADD COLUMN rendition TEXT NOT NULL DEFAULT '';
    ALTER TABLE consult ADD COLUMN received_at_ms INTEGER NOT NULL DEFAULT 0;
    """,
)


_FILE_COLUMNS = "consult, digest, role, mime, size, captured_at_ms, captured_by, duration_ms, of, rendition"


class Store:
    """`folder` is the store's own; one store at a time opens it (the caller holds the lock)."""

    def __init__(self, folder: Path) -> None:
        """Opens or makes it. A damaged database is set aside with its files, and `damaged` says so."""
        self._folder = folder
        self._files, self._arriving, self._captures = (folder / name for name in ("files", "arriving", "captures"))
        self.damaged = False
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                self._db = self._open()
            except sqlite3.DatabaseError as error:
                if _is_full(error) or (isinstance(error, sqlite3.OperationalError) and _is_io(error)):
                    raise
                self._set_aside(error)
                self._db = self._open()
            for part in (self._files, self._arriving, self._captures):
                part.mkdir(exist_ok=True, mode=0o700)
            self._sweep()
        except StoreError:
            raise
        except (OSError, sqlite3.Error) as error:
            raise StoreBroken(f"{folder}: the store cannot be opened: {error}") from error

    def close(self) -> None:
        self._db.close()

    # reading

    def load(self) -> Contents:
        query = self._db.execute
        consults = [
            Consult(*row[:8], tuple(row[8].split()), *row[9:])
            for row in query(
                "SELECT id, opened_at_ms, opened_by, next_seq, saved_at_ms, seen_at_ms, closed_at_ms, patient,"
                " complaints, urgency, received_at_ms FROM consult ORDER BY opened_at_ms DESC"
            )
        ]
        open_ones = {row[0] for row in query("SELECT consult FROM outbox UNION SELECT consult FROM draft")}
        consults = [c for number, c in enumerate(consults) if number < KEPT_CONSULTS or c.id in open_ones]
        return Contents(
            consults=consults,
            waiting=[
                wire.decode(row[0]) for row in query("SELECT payload FROM outbox WHERE NOT set_aside ORDER BY number")
            ],
            files=[
                FileKept(*row)
                for row in query(f"SELECT {_FILE_COLUMNS} FROM file WHERE NOT delivered")  # noqa: S608
            ],
            drafts=list(query("SELECT consult, content FROM draft")),
            advice=[
                StoredAdvice(row[1], wire.Advice(row[0], *row[2:6]), row[6])
                for row in query(
                    "SELECT id, consult, given_by, given_at_ms, text, reply, heard_at_ms FROM advice"
                    " ORDER BY given_at_ms"
                )
            ],
            replies=[
                ReplyFile(*row[:4], _parse_ranges(row[4]), bool(row[5]), row[6])
                for row in query("SELECT consult, digest, mime, size, ranges, complete, key FROM reply")
            ],
            values=dict(query("SELECT key, value FROM value")),
        )

    def original_of(self, consult: bytes, photo: bytes) -> FileKept | None:
        """None where it is not, or no longer, here."""
        row = self._db.execute(
            f"SELECT {_FILE_COLUMNS} FROM file WHERE consult = ? AND of = ? AND rendition = 'original'",  # noqa: S608
            (consult, photo),
        ).fetchone()
        found = FileKept(*row) if row else None
        return found if found and self.file_path(found.digest).exists() else None

    def file_path(self, digest: bytes) -> Path:
        return self._files / digest.hex()

    def read_chunk(self, digest: bytes, offset: int, length: int) -> bytes:
        """Raises OSError where the file is gone or shorter."""
        with self.file_path(digest).open("rb") as file:
            data = os.pread(file.fileno(), length, offset)
        if len(data) != length:
            raise OSError(errno.EIO, f"file {digest.hex()} ends at {offset + len(data)}")
        return data

    def free_bytes(self) -> int:
        return shutil.disk_usage(self._folder).free

    # writing

    def commit(self, changes: Sequence[Change]) -> None:
        """All or nothing, on the disk when it returns. Raises StoreFull or StoreBroken."""
        forgotten: list[bytes] = []
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for change in changes:
                    self._apply(change)
                    if isinstance(change, FileForgotten):
                        forgotten.append(change.digest)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        for digest in forgotten:
            if not self._db.execute("SELECT 1 FROM file WHERE digest = ?", (digest,)).fetchone():
                self.file_path(digest).unlink(missing_ok=True)

    def new_capture(self, suffix: str) -> Path:
        """Where the media process writes a recording or photo. Raises StoreFull below the reserve."""
        if self.free_bytes() < RESERVE_BYTES:
            raise StoreFull("the disk is full: no file is taken; remove what is not needed")
        return self._captures / f"{time.time_ns():x}{suffix}"

    def keep_file(self, path: Path) -> tuple[bytes, int]:
        """Moves a closed file under its digest, on the disk when it returns. Gives digest and size.

        A `FileKept` must follow, or the next start sweeps it away."""
        with self._errors():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
                size = os.fstat(file.fileno()).st_size
                os.fsync(file.fileno())
            os.replace(path, self.file_path(digest))
            _sync_folder(self._files)
            return digest, size

    # files from the hub

    def write_arriving(self, digest: bytes, offset: int, data: bytes) -> None:
        with self._errors():
            file = os.open(self._arriving / digest.hex(), os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(file, data, offset)
            finally:
                os.close(file)

    def sync_arriving(self, digest: bytes) -> None:
        """What was written lasts; only then may a `ReplyFile` tell of it."""
        with self._errors(), (self._arriving / digest.hex()).open("rb") as file:
            os.fdatasync(file.fileno())

    def finish_arriving(self, digest: bytes) -> bool:
        """Verifies and files it. False: the digest is not that of what came, which is thrown away."""
        path = self._arriving / digest.hex()
        try:
            with path.open("rb") as file:
                right = hashlib.file_digest(file, "sha256").digest() == digest
        except FileNotFoundError:
            return False
        if not right:
            path.unlink(missing_ok=True)
            return False
        self.keep_file(path)
        return True

    # within

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._folder / "kiosk.db", isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            if (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(found)
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > len(_MIGRATIONS):
                raise StoreBroken(
                    f"{self._folder}: made by a newer release (schema {version}); install that release or newer"
                )
            for number in range(version, len(_MIGRATIONS)):
                db.executescript(f"BEGIN; {_MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;")
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self, error: sqlite3.Error) -> None:
        self.damaged = True
        aside = self._folder / f"damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        aside.mkdir()
        for name in ("kiosk.db", "kiosk.db-wal", "kiosk.db-shm", "files"):
            if (self._folder / name).exists():
                os.replace(self._folder / name, aside / name)
        _sync_folder(self._folder)
        log.error("store damaged set_aside=%s reason=%s: a new one is begun; keep the folder for repair", aside, error)

    def _sweep(self) -> None:
        """What no row names: captures cut off, files of a transaction that never came."""
        for path in self._captures.iterdir():
            path.unlink(missing_ok=True)
        named = {row[0].hex() for row in self._db.execute("SELECT digest FROM file UNION SELECT digest FROM reply")}
        arriving = {row[0].hex() for row in self._db.execute("SELECT digest FROM reply WHERE NOT complete")}
        swept = 0
        for folder, wanted in ((self._files, named), (self._arriving, arriving)):
            for path in folder.iterdir():
                if path.name not in wanted:
                    path.unlink(missing_ok=True)
                    swept += 1
        if swept:
            log.info("store swept files=%d", swept)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if _is_full(error):
                raise StoreFull("the disk is full; remove what is not needed") from error
            raise StoreBroken(f"the store cannot be written: {error}") from error

    def _apply(self, change: Change) -> None:
        run = self._db.execute
        match change:
            case ConsultOpened(consult, at_ms, by):
                run(
                    "INSERT OR IGNORE INTO consult (id, opened_at_ms, opened_by) VALUES (?, ?, ?)", (consult, at_ms, by)
                )
            case MessageQueued(message):
                run(
                    "INSERT INTO outbox (id, consult, seq, payload) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                    (message.id, message.consult, message.seq, wire.encode(message)),
                )
                run("UPDATE consult SET next_seq = max(next_seq, ?) WHERE id = ?", (message.seq + 1, message.consult))
            case MessagesFreed(ids):
                self._db.executemany("DELETE FROM outbox WHERE id = ?", ((id,) for id in ids))
            case MessageSetAside(id):
                run("UPDATE outbox SET set_aside = 1 WHERE id = ?", (id,))
            case FileKept(consult, digest, role, mime, size, at_ms, by, duration_ms, of, rendition):
                run(
                    f"INSERT OR IGNORE INTO file ({_FILE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                    (consult, digest, role, mime, size, at_ms, by, duration_ms, of, rendition),
                )
            case FileForgotten(consult, digest):
                run("DELETE FROM file WHERE consult = ? AND digest = ?", (consult, digest))
            case FileDelivered(consult, digest):
                run(
                    "UPDATE file SET delivered = 1 WHERE consult = ?"
                    " AND (digest = ? OR (of = ? AND rendition = 'original'))",
                    (consult, digest, digest),
                )
            case FileAsked(consult, digest):
                run("UPDATE file SET delivered = 0 WHERE consult = ? AND digest = ?", (consult, digest))
            case DraftKept(consult, content):
                run("INSERT OR REPLACE INTO draft (consult, content) VALUES (?, ?)", (consult, content))
            case DraftGone(consult):
                run("DELETE FROM draft WHERE consult = ?", (consult,))
            case CaseKept(consult, at_ms, patient, complaints, urgency):
                run(
                    "UPDATE consult SET saved_at_ms = ?, received_at_ms = 0, patient = ?, complaints = ?, urgency = ?"
                    " WHERE id = ?",
                    (at_ms, patient, " ".join(complaints), urgency, consult),
                )
            case ProgressCame(consult, step, at_ms):
                column = {"received": "received_at_ms", "seen": "seen_at_ms", "closed": "closed_at_ms"}[step]
                run(f"UPDATE consult SET {column} = ? WHERE id = ?", (at_ms, consult))  # noqa: S608 -- of three names
            case AdviceCame(consult, advice):
                run(
                    "INSERT OR IGNORE INTO advice (id, consult, given_by, given_at_ms, text, reply)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (advice.advice, consult, advice.given_by, advice.given_at_ms, advice.text, advice.reply),
                )
            case AdviceWasHeard(advice, at_ms):
                run("UPDATE advice SET heard_at_ms = ? WHERE id = ? AND heard_at_ms = 0", (at_ms, advice))
            case ReplyFile(consult, digest, mime, size, ranges, complete, key):
                run(
                    "INSERT OR REPLACE INTO reply (consult, digest, mime, size, ranges, complete, key)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (consult, digest, mime, size, " ".join(f"{a}-{b}" for a, b in ranges), complete, key),
                )
            case ValueKept(key, value):
                run("INSERT OR REPLACE INTO value (key, value) VALUES (?, ?)", (key, value))


P = ParamSpec("P")
T = TypeVar("T")


class StoreThread:
    """Runs a store's methods one after the other in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self.store = self._thread.submit(Store, folder).result()

    async def run(self, method: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: method(*arguments, **named))

    def close(self) -> None:
        self._thread.submit(self.store.close).result()
        self._thread.shutdown()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_full(error: Exception) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _is_io(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_PERM,
    )  # fmt: skip


def _parse_ranges(text: str) -> tuple[Range, ...]:
    return tuple((int(start), int(end)) for start, end in (part.split("-") for part in text.split()))
