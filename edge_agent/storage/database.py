"""The store's database: SQLCipher in WAL, every commit on the disk. Opened, brought up to date, checked, and rescued.

What cannot be used as it is, is copied row by row into a new database, which takes its place once it is whole and on
the disk: a database that is damaged (it is set aside with a date in its name), one of before encryption, one under an
earlier key. A power cut at any point of that leaves either the old one or the new one in use.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlcipher3 import dbapi2 as sqlcipher

from edge_agent.private_files import sync_folder
from edge_agent.storage import sealed_files
from edge_agent.storage.store_key import StoreKey

log = logging.getLogger(__name__)

Connection = sqlcipher.Connection
DatabaseError = sqlcipher.DatabaseError

NAME = "kiosk.db"
_COPY, _COPIED, _RESCUED = "kiosk.db.new", "kiosk.db.copied", "kiosk.db.rescued"
_PARTS = ("-wal", "-shm", "-journal", "")
PLAIN_HEADER = b"SQLite format 3\0"
PLAIN_FOLDERS = ("files", "arriving", "captures")  # of before encryption


class StoreError(Exception):
    """One line that a technician can act on."""


class StoreFull(StoreError, OSError):
    """Nothing was changed; the same again may succeed later."""


class StoreBroken(StoreError, OSError):
    """The card does not write or the database is damaged. The next start sets a damaged one aside."""


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
    # What lies in the folder of files: under which name, and the key. What has come of a file from the hub.
    """
    CREATE TABLE content (
        digest BLOB PRIMARY KEY, name TEXT NOT NULL, key BLOB NOT NULL, size INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE arriving (
        digest BLOB NOT NULL, offset INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (digest, offset)
    );
    """,
    # `outbox.set_aside` says how often.
    """
    ALTER TABLE consult ADD COLUMN emergency INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE outbox ADD COLUMN set_aside_at_ms INTEGER NOT NULL DEFAULT 0;
    """,
    """
    ALTER TABLE consult ADD COLUMN wire_bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE consult ADD COLUMN cost REAL NOT NULL DEFAULT 0;
    """,
    # Messages with the hub's receipt: kept on for a while, for a hub that is restored from an older backup.
    """
    CREATE TABLE freed (
        number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, consult BLOB NOT NULL, seq INTEGER NOT NULL,
        payload BLOB NOT NULL, freed_at_ms INTEGER NOT NULL
    );
    CREATE INDEX freed_at ON freed (freed_at_ms);
    """,
)
# The lowest schema whose release can use a store of this one: a migration that only adds tables, or columns with a
# default, leaves it as it is; one that changes what is there raises it, and then updates cannot go back over it.
OLDEST_READER = 4
_CHILDREN = ("outbox", "file", "draft", "advice", "reply")  # of a consult


class Opened(NamedTuple):
    db: Connection
    damaged: bool  # what was there could not be read, or not all of it


def open_database(folder: Path, media: Path, key: StoreKey) -> Opened:
    """Opens or makes `folder`'s database; `media` is the folder of its files. Raises StoreBroken where a newer release
    has made it, OSError or DatabaseError where the card does not read or write."""
    path = folder / NAME
    _finish_change(folder)
    damaged = False
    if not path.exists():
        _make(folder, key)
    elif (found := _readable_with(path, key)) != key.database:
        log.warning("store is copied reason=%s", "it is not encrypted yet" if found == "" else "another key")
        damaged = _replace(folder, media, key, found)
    try:
        db = _opened(path, key.database)
    except DatabaseError as error:
        if not is_damage(error):
            raise
        log.warning("store is copied reason=it is damaged: %s", error)
        _replace(folder, media, key, key.database, rescue=True)
        return Opened(_opened(path, key.database), damaged=True)
    return Opened(db, damaged)


def look_for_damage(path: Path, key: StoreKey, seconds: float) -> str | None:
    """Changes nothing, and an agent may have it open. What is wrong, "" where it is whole, None where that cannot be
    told now: there is none, it is busy, or too large for so many seconds."""
    if not path.exists():
        return None
    until = time.monotonic() + seconds
    try:
        with contextlib.closing(connect(path, _readable_with(path, key, read_only=True), read_only=True)) as db:
            db.set_progress_handler(lambda: time.monotonic() > until, 10_000)
            said = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    except DatabaseError as error:
        if _code(error) in (
            sqlcipher.SQLITE_BUSY, sqlcipher.SQLITE_LOCKED, sqlcipher.SQLITE_INTERRUPT,
            sqlcipher.SQLITE_READONLY,  # the agent died, and its next start tidies up
        ):  # fmt: skip
            return None
        return f"it is damaged ({error})" if is_damage(error) else f"it cannot be read ({error})"
    return "" if said == "ok" else f"it is damaged ({said.splitlines()[-1]})"


def connect(path: Path, key: str, read_only: bool = False) -> Connection:
    """`key` is empty for a database that is not encrypted."""
    place = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    db = sqlcipher.connect(place, uri=True, isolation_level=None, check_same_thread=False)
    try:
        if key:
            db.execute("PRAGMA cipher_log_level = NONE")
            db.execute(f"PRAGMA key = \"x'{key}'\"")
        db.execute("PRAGMA synchronous = FULL")
    except BaseException:
        db.close()
        raise
    return db


def is_full(error: BaseException) -> bool:
    if isinstance(error, sqlcipher.Error):
        return _code(error) == sqlcipher.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_damage(error: sqlcipher.Error) -> bool:
    """Rather than a card that is full, busy, or neither reads nor writes."""
    return isinstance(error, DatabaseError) and _code(error) not in (
        sqlcipher.SQLITE_FULL, sqlcipher.SQLITE_IOERR, sqlcipher.SQLITE_CANTOPEN, sqlcipher.SQLITE_READONLY,
        sqlcipher.SQLITE_BUSY, sqlcipher.SQLITE_PERM,
    )  # fmt: skip


def _code(error: sqlcipher.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


# --- opening


def _opened(path: Path, key: str) -> Connection:
    db = connect(path, key)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA foreign_keys = ON")
        # Reads every page in use, and SQLCipher verifies the HMAC of each that is read.
        if (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise DatabaseError(found)
        _migrate(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _migrate(db: Connection, path: Path) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(_MIGRATIONS):
        # A release that did not get well leaves its store to the one before it.
        oldest_reader = db.execute("PRAGMA application_id").fetchone()[0]
        if not 0 < oldest_reader <= len(_MIGRATIONS):
            raise StoreBroken(
                f"{path.parent}: made by a newer release (schema {version}); install that release or newer"
            )
        return
    for number in range(version, len(_MIGRATIONS)):
        db.executescript(
            f"BEGIN; {_MIGRATIONS[number]} PRAGMA user_version = {number + 1}; "
            f"PRAGMA application_id = {OLDEST_READER}; COMMIT;"
        )


def _readable_with(path: Path, key: StoreKey, read_only: bool = False) -> str:
    """The database's key; the one that it should have where none fits."""
    with path.open("rb") as file:
        if file.read(len(PLAIN_HEADER)) == PLAIN_HEADER:
            return ""
    for candidate in (key.database, key.earlier):
        if candidate:
            try:
                with contextlib.closing(connect(path, candidate, read_only)) as db:
                    db.execute("SELECT count(*) FROM sqlite_master").fetchone()
                return candidate
            except DatabaseError as error:
                if not is_damage(error):
                    raise
    return key.database


# --- a new one


def _make(folder: Path, key: StoreKey) -> None:
    with _new_copy(folder, key):
        pass
    os.replace(folder / _COPY, folder / NAME)
    sync_folder(folder)


@contextlib.contextmanager
def _new_copy(folder: Path, key: StoreKey) -> Iterator[Connection]:
    """An empty database that is whole and on the disk, as `_COPY`, after the block."""
    for part in _PARTS:
        (folder / f"{_COPY}{part}").unlink(missing_ok=True)
    path = folder / _COPY
    with contextlib.closing(connect(path, key.database)) as db:
        _migrate(db, path)
        yield db
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _replace(folder: Path, media: Path, key: StoreKey, found: str, rescue: bool = False) -> bool:
    """Copies what the database under the key `found` holds, and puts the copy in its place. True where not all could
    be read; then the old one is set aside."""
    with _new_copy(folder, key) as target:
        lost = _copy_rows(folder / NAME, found, target)
        if found == "":
            _seal_plain_files(folder, media, key, target, lost)
        lost = lost or rescue
        names = {row[0] for row in target.execute("SELECT name FROM content")}
    if lost:
        aside = _aside(folder)
        for path in media.iterdir() if media.exists() else ():
            if path.name not in names:
                (aside / "media").mkdir(exist_ok=True)
                os.replace(path, aside / "media" / path.name)
    os.replace(folder / _COPY, folder / (_RESCUED if lost else _COPIED))
    sync_folder(folder)
    _finish_change(folder)
    return lost


def _finish_change(folder: Path) -> None:
    """A copy that is whole takes its place, also after a power cut in the middle of this."""
    for name in (_COPIED, _RESCUED):
        copy = folder / name
        if not copy.exists():
            continue
        aside = _aside(folder) if name == _RESCUED else None
        for part in (*(f"{NAME}{part}" for part in _PARTS), *PLAIN_FOLDERS):
            old = folder / part
            if not old.exists():
                continue
            if aside is not None:
                os.replace(old, aside / part)
            elif old.is_dir():
                shutil.rmtree(old)
            else:
                old.unlink()
        if aside is not None:
            sync_folder(aside)
            log.error("store damaged set_aside=%s: what could be read is in use; keep the folder for repair", aside)
        sync_folder(folder)  # before the new one has its name: a WAL of the old one must never lie beside it
        os.replace(copy, folder / NAME)
        sync_folder(folder)


def _aside(folder: Path) -> Path:
    aside = folder / f"damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    aside.mkdir(exist_ok=True, mode=0o700)
    return aside


# --- copying


def _copy_rows(path: Path, key: str, target: Connection) -> bool:
    """Every row that can be read; True where some could not."""
    lost = False
    target.execute("BEGIN")
    tables = [row[0] for row in target.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    copied = {}
    for table in tables:
        columns = {row[1]: row[5] for row in target.execute(f"PRAGMA table_info({table})")}
        rows, whole = _rows(path, key, table, columns)
        lost = lost or not whole
        copied[table] = len(rows)
        for names, row in rows:
            marks = ", ".join("?" * len(names))
            target.execute(f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({marks})", row)  # noqa: S608
    now_ms = time.time_ns() // 1_000_000
    for table in _CHILDREN:  # of a consult whose own row is gone
        target.execute(
            f"INSERT INTO consult (id, opened_at_ms, opened_by) SELECT DISTINCT consult, ?, '' FROM {table}"  # noqa: S608
            " WHERE consult NOT IN (SELECT id FROM consult)",
            (now_ms,),
        )
    target.execute(
        "UPDATE consult SET next_seq = max(next_seq,"
        " 1 + ifnull((SELECT max(seq) FROM outbox WHERE outbox.consult = consult.id), 0))"
    )
    target.execute("COMMIT")
    log.info("store copied rows=%s whole=%s", copied, not lost)
    return lost


def _rows(
    path: Path, key: str, table: str, columns: dict[str, int]
) -> tuple[list[tuple[Sequence[str], tuple[Any, ...]]], bool]:
    """Of one table, from both ends towards a page that cannot be read."""
    found: list[tuple[Sequence[str], tuple[Any, ...]]] = []
    primary = [name for name, position in sorted(columns.items(), key=lambda item: item[1]) if position]
    whole = True
    for direction in ("ASC", "DESC"):
        try:
            with contextlib.closing(connect(path, key)) as source:
                there = {row[1] for row in source.execute(f"PRAGMA table_info({table})")}
                names = [name for name in columns if name in there]
                if not names:
                    return found, whole
                order = ", ".join(f"{name} {direction}" for name in primary)
                for row in source.execute(f"SELECT {', '.join(names)} FROM {table} ORDER BY {order}"):  # noqa: S608
                    found.append((names, row))
            return found, whole
        except DatabaseError as error:
            if not is_damage(error):
                raise
            whole = False
    return found, whole


def _seal_plain_files(folder: Path, media: Path, key: StoreKey, target: Connection, lost: bool) -> None:
    """What the plain store kept beside its database. What the hub has already is not taken along, and goes first: the
    rest lies on the card twice for a while."""
    target.execute("BEGIN")
    target.execute("DELETE FROM file WHERE delivered")
    plain = folder / "files"
    media.mkdir(exist_ok=True, mode=0o700)
    wanted = target.execute("SELECT digest FROM file UNION SELECT digest FROM reply WHERE complete").fetchall()
    names = {digest.hex() for (digest,) in wanted}
    if not lost:
        for path in plain.glob("*"):
            if path.name not in names:
                path.unlink()
    for (digest,) in wanted:
        path = plain / digest.hex()
        if not path.exists():
            continue
        size, own_key, name = path.stat().st_size, sealed_files.new_key(), key.name_of(digest)
        with path.open("rb") as file:
            sealed_files.write_sealed(media / name, file, size, own_key, digest)
        target.execute(
            "INSERT INTO content (digest, name, key, size) VALUES (?, ?, ?, ?)", (digest, name, own_key, size)
        )
    for digest, ranges in target.execute("SELECT digest, ranges FROM reply WHERE NOT complete").fetchall():
        path = folder / "arriving" / digest.hex()
        if not path.exists():
            continue
        data = path.read_bytes()
        for start, end in (map(int, part.split("-")) for part in ranges.split()):
            piece = (digest, start, data[start:end])
            target.execute("INSERT OR IGNORE INTO arriving (digest, offset, data) VALUES (?, ?, ?)", piece)
    target.execute("COMMIT")
