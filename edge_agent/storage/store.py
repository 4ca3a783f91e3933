"""What the kiosk keeps on its card: one encrypted database and encrypted files beside it.

Synchronous and single-threaded; `StoreThread` gives it a thread, so that an fsync never stalls the event loop. What one
action of a person changes is one list of `Change`s and one transaction. A file is complete on the disk before a row
names it, so a power cut at any instant leaves a store that opens. What must be plain for a while, as a recording under
way, lies in memory (`plain_space`). Nobody else knows SQL or the folders.

    <folder>/kiosk.db     SQLCipher, see `database`
    <folder>/media/       files, see `sealed_files`
    <folder>/reserve      room that is given up when the card is full, so that notes still find some
    <folder>/damaged-…/   what could not be read, for repair
    <folder>/../store.key where systemd gives no key, see `store_key`
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import logging
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, ParamSpec, TypeVar

from edge_agent.core import wire
from edge_agent.core.outbox import is_emergency
from edge_agent.core.ranges import Range
from edge_agent.core.retries import SetAside
from edge_agent.private_files import sync_folder
from edge_agent.storage import database, sealed_files
from edge_agent.storage.changes import (
    AdviceCame,
    AdviceWasHeard,
    CaseKept,
    Change,
    Consult,
    ConsultCost,
    ConsultOpened,
    Contents,
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
    StoredAdvice,
    ValueKept,
)
from edge_agent.storage.database import DatabaseError, StoreBroken, StoreError, StoreFull
from edge_agent.storage.plain_space import make_plain_space
from edge_agent.storage.store_key import find_key, forget_earlier

log = logging.getLogger(__name__)

KEPT_CONSULTS = 200  # read into memory at the start: the worker's list
KEPT_MS = 14 * 24 * 3600 * 1000  # that a message stays after its receipt, where there is room
CLOCKS_APART_MS = 24 * 3600 * 1000  # hub's and kiosk's
RESERVE_BYTES = 16 * 1024 * 1024  # no file is taken below this, so that calls and notes still find room
NOTES_RESERVE_BYTES = 4 * 1024 * 1024  # in a file of its own: whoever else fills the card leaves it to the notes
LOW_BYTES = 200 * 1024 * 1024

_FILE_COLUMNS = "consult, digest, role, mime, size, captured_at_ms, captured_by, duration_ms, of, rendition"


class _Content(NamedTuple):
    """A file's place and key."""

    name: str
    key: bytes
    size: int


class Store:
    """`folder` is the store's own; one store at a time opens it (the caller holds the lock)."""

    def __init__(self, folder: Path) -> None:
        """Opens or makes it. What is damaged is set aside, what can be read of it is kept, and `damaged` says so."""
        self._folder, self._media, self._reserve = folder, folder / "media", folder / "reserve"
        self._fresh: dict[bytes, _Content] = {}  # files that a row is still to name, as often as `_expected` says
        self._expected: Counter[bytes] = Counter()
        self._arrived: dict[bytes, list[tuple[int, bytes]]] = {}  # not yet on the disk
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            sync_folder(folder.parent)
            self._key = find_key(folder.parent)
            self._db, self.damaged = database.open_database(folder, self._media, self._key)
            if self._key.protected:
                forget_earlier(folder.parent)
            self._media.mkdir(exist_ok=True, mode=0o700)
            self.plain_space = make_plain_space(folder)
            self._sweep()
            self._hold_reserve()
            sync_folder(folder)
        except StoreError:
            raise
        except (OSError, database.DatabaseError) as error:
            if database.is_full(error):
                raise StoreFull(f"{folder}: the disk is full; remove what is not needed") from error
            raise StoreBroken(f"{folder}: the store cannot be opened: {error}") from error
        log.info(
            "store open key=%s",
            "of the machine" if self._key.protected else "on the same card: whoever has the card can read it",
        )

    @property
    def key_is_protected(self) -> bool:
        """Whether the card alone opens nothing."""
        return self._key.protected

    @property
    def gave_up_reserve(self) -> bool:
        """The card was full, and what is written since takes the room that is kept for notes."""
        return not self._reserve.exists()

    def close(self) -> None:
        self._db.close()
        shutil.rmtree(self.plain_space, ignore_errors=True)

    # reading

    def load(self) -> Contents:
        query = self._db.execute
        consults = [
            Consult(*row[:8], tuple(row[8].split()), *row[9:13], emergency=bool(row[13]))
            for row in query(
                "SELECT id, opened_at_ms, opened_by, next_seq, saved_at_ms, seen_at_ms, closed_at_ms, patient,"
                " complaints, urgency, received_at_ms, wire_bytes, cost, emergency FROM consult"
                " ORDER BY opened_at_ms DESC"
            )
        ]
        open_ones = {row[0] for row in query("SELECT consult FROM outbox UNION SELECT consult FROM draft")}
        consults = [c for number, c in enumerate(consults) if number < KEPT_CONSULTS or c.id in open_ones]
        return Contents(
            consults=consults,
            waiting=self._waiting(),
            set_aside={
                row[0]: SetAside(*row[1:])
                for row in query("SELECT id, set_aside, set_aside_at_ms FROM outbox WHERE set_aside")
            },
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

    def _waiting(self) -> list[wire.Message]:
        messages = []
        for id, payload in self._db.execute("SELECT id, payload FROM outbox ORDER BY number"):
            try:
                messages.append(wire.decode(payload))
            except wire.WireError as error:  # of another release
                log.error("message unreadable id=%s reason=%s: it stays in the store", id.hex(), error)
        return messages

    def original_of(self, consult: bytes, photo: bytes) -> FileKept | None:
        """None where it is not, or no longer, here."""
        row = self._db.execute(
            f"SELECT {_FILE_COLUMNS} FROM file WHERE consult = ? AND of = ? AND rendition = 'original'",  # noqa: S608
            (consult, photo),
        ).fetchone()
        found = FileKept(*row) if row else None
        content = self._content(found.digest) if found else None
        return found if content and (self._media / content.name).exists() else None

    def read_chunk(self, digest: bytes, offset: int, length: int) -> bytes:
        """Raises OSError where the file is gone, damaged or shorter."""
        content = self._content(digest)
        if content is None:
            raise FileNotFoundError(errno.ENOENT, f"there is no file {digest.hex()}")
        path = self._media / content.name
        return sealed_files.read_sealed(path, content.size, content.key, digest, offset, offset + length)

    def read_file(self, digest: bytes) -> bytes:
        """The whole of it. Raises OSError where it is gone or damaged."""
        content = self._content(digest)
        return self.read_chunk(digest, 0, content.size if content else 0)

    def open_copy(self, digest: bytes) -> Path:
        """For who reads files alone, as a player does: plain, in memory, until the next is opened. Raises OSError."""
        for old in self.plain_space.glob("copy-*"):
            old.unlink(missing_ok=True)
        path = self.plain_space / f"copy-{secrets.token_hex(8)}"
        path.write_bytes(self.read_file(digest))
        return path

    def free_bytes(self) -> int:
        self._hold_reserve()
        return shutil.disk_usage(self._folder).free

    # writing

    def commit(self, changes: Sequence[Change]) -> None:
        """All or nothing, on the disk when it returns. Raises StoreFull or StoreBroken."""
        with self._errors():
            try:
                self._transact(changes)
            except DatabaseError as error:
                if not database.is_full(error) or self.gave_up_reserve:
                    raise
                self._reserve.unlink()
                sync_folder(self._folder)
                log.warning("card full: the room kept for notes is used")
                self._transact(changes)
        for change in changes:
            if isinstance(change, FileKept) or (isinstance(change, ReplyFile) and change.complete):
                self._named(change.digest)
            elif isinstance(change, FileForgotten) and self._content(change.digest) is None:
                (self._media / self._key.name_of(change.digest)).unlink(missing_ok=True)

    def take_back(self, since_ms: int) -> list[wire.Message]:
        """The hub was restored as it was then, by its clock: what it had accepted since waits again, as far as it is
        here. Its files too; a file that had to make room is not announced again."""
        rows = self._db.execute(
            "SELECT id, payload FROM freed WHERE freed_at_ms >= ? ORDER BY number",
            (since_ms - CLOCKS_APART_MS,),
        ).fetchall()
        messages = []
        with self._errors(), self._transaction():
            for id, payload in rows:
                try:
                    message = wire.decode(payload)
                except wire.WireError:  # of another release
                    continue
                if isinstance(message.body, wire.Manifest):
                    where = (message.consult, message.body.digest)
                    if not self._db.execute(
                        "UPDATE file SET delivered = 0 WHERE consult = ? AND digest = ?", where
                    ).rowcount:
                        continue
                self._db.execute(
                    "INSERT OR IGNORE INTO outbox (id, consult, seq, payload)"
                    " SELECT id, consult, seq, payload FROM freed WHERE id = ?",
                    (id,),
                )
                self._db.execute("DELETE FROM freed WHERE id = ?", (id,))
                messages.append(message)
        return messages

    def make_room(self, wanted_bytes: int) -> int:
        """Lets files go that the hub has, the oldest first, until so much is free. Gives how many."""
        gone = 0
        with self._errors():
            acknowledged = self._db.execute(
                "SELECT consult, digest FROM file WHERE delivered ORDER BY captured_at_ms"
            ).fetchall()
        for consult, digest in acknowledged:
            if self.free_bytes() >= wanted_bytes:
                break
            self.commit([FileForgotten(consult, digest)])
            gone += 1
        if gone:
            log.info("store made room files=%d: the hub has them", gone)
        return gone

    def new_capture(self, suffix: str) -> Path:
        """Where the media process writes a recording or photo. Raises StoreFull below the reserve."""
        if self.gave_up_reserve or shutil.disk_usage(self._folder).free < RESERVE_BYTES:
            raise StoreFull("the disk is full: no file is taken; remove what is not needed")
        return self.plain_space / f"{secrets.token_hex(8)}{suffix}"

    def keep_file(self, path: Path) -> tuple[bytes, int]:
        """Takes in a closed file, sealed and on the disk when it returns, and removes it. Gives digest and size.

        A `FileKept` must follow, or the next start sweeps it away."""
        with self._errors():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
                size = file.tell()
                file.seek(0)
                self._take_in(digest, size, file)
            path.unlink()
            return digest, size

    # files from the hub

    def write_arriving(self, digest: bytes, offset: int, data: bytes) -> None:
        """In memory until `sync_arriving` or `finish_arriving`."""
        self._arrived.setdefault(digest, []).append((offset, data))

    def sync_arriving(self, digest: bytes) -> None:
        """What was written lasts; only then may a `ReplyFile` tell of it."""
        pieces = self._arrived.get(digest, [])
        with self._errors(), self._transaction():
            self._db.executemany(
                "INSERT INTO arriving (digest, offset, data) VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
                " SET data = excluded.data WHERE length(excluded.data) > length(data)",
                ((digest, offset, data) for offset, data in pieces),
            )
        self._arrived.pop(digest, None)

    def finish_arriving(self, digest: bytes) -> bool:
        """Verifies and files it; a complete `ReplyFile` must follow. False: the digest is not that of what came, which
        is thrown away."""
        self.sync_arriving(digest)
        rows = self._db.execute("SELECT offset, data FROM arriving WHERE digest = ?", (digest,)).fetchall()
        whole = bytearray(max((offset + len(data) for offset, data in rows), default=0))
        for offset, data in rows:
            whole[offset : offset + len(data)] = data
        with self._errors():
            if hashlib.sha256(whole).digest() == digest:
                self._take_in(digest, len(whole), io.BytesIO(whole))
                return True
            self._db.execute("DELETE FROM arriving WHERE digest = ?", (digest,))
        return False

    # within

    def _take_in(self, digest: bytes, size: int, plain: BinaryIO) -> None:
        content = self._content(digest)
        if content is None or not (self._media / content.name).exists():
            content = _Content(self._key.name_of(digest), sealed_files.new_key(), size)
            sealed_files.write_sealed(self._media / content.name, plain, size, content.key, digest)
        self._fresh[digest] = content  # whoever else forgets it meanwhile does not take it away
        self._expected[digest] += 1

    def _named(self, digest: bytes) -> None:
        self._expected[digest] -= 1
        if self._expected[digest] <= 0:
            del self._expected[digest]
            self._fresh.pop(digest, None)

    def _content(self, digest: bytes) -> _Content | None:
        if digest in self._fresh:
            return self._fresh[digest]
        row = self._db.execute("SELECT name, key, size FROM content WHERE digest = ?", (digest,)).fetchone()
        return _Content(*row) if row else None

    def _hold_reserve(self) -> None:
        if self._reserve.exists() or shutil.disk_usage(self._folder).free < RESERVE_BYTES + NOTES_RESERVE_BYTES:
            return
        file = os.open(self._reserve, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(file, 0, NOTES_RESERVE_BYTES)
        finally:
            os.close(file)

    def _sweep(self) -> None:
        """What no row names: files of a transaction that never came, and what is left of files that are whole."""
        with self._transaction():
            self._db.execute(
                "DELETE FROM content WHERE digest NOT IN (SELECT digest FROM file UNION SELECT digest FROM reply)"
            )
            self._db.execute("DELETE FROM arriving WHERE digest NOT IN (SELECT digest FROM reply WHERE NOT complete)")
        names = {row[0] for row in self._db.execute("SELECT name FROM content")}
        there = {path.name for path in self._media.iterdir()}
        for name in there - names:
            (self._media / name).unlink(missing_ok=True)
        if swept := len(there - names):
            log.info("store swept files=%d", swept)
        missing = self._db.execute(
            "SELECT digest FROM file WHERE NOT delivered UNION SELECT digest FROM reply WHERE complete"
        ).fetchall()
        gone = [
            digest.hex()[:16]
            for (digest,) in missing
            if (content := self._content(digest)) is None or content.name not in there
        ]
        if gone:
            self.damaged = True
            log.error("store damaged files_missing=%d digests=%s", len(gone), " ".join(gone))

    def _transact(self, changes: Sequence[Change]) -> None:
        with self._transaction():
            for change in changes:
                self._apply(change)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except (database.DatabaseError, OSError) as error:
            if database.is_full(error):
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
                run(
                    "UPDATE consult SET next_seq = max(next_seq, ?), emergency = emergency OR ? WHERE id = ?",
                    (message.seq + 1, is_emergency(message.body), message.consult),
                )
            case MessagesFreed(ids, at_ms):
                self._db.executemany(
                    "INSERT OR REPLACE INTO freed (id, consult, seq, payload, freed_at_ms)"
                    " SELECT id, consult, seq, payload, ? FROM outbox WHERE id = ?",
                    ((at_ms, id) for id in ids),
                )
                self._db.executemany("DELETE FROM outbox WHERE id = ?", ((id,) for id in ids))
                run("DELETE FROM freed WHERE freed_at_ms < ?", (at_ms - KEPT_MS,))
            case MessageSetAside(id, aside):
                run("UPDATE outbox SET set_aside = ?, set_aside_at_ms = ? WHERE id = ?", (aside.times, aside.at_ms, id))
            case FileKept(consult, digest, role, mime, size, at_ms, by, duration_ms, of, rendition):
                run(
                    f"INSERT OR IGNORE INTO file ({_FILE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                    (consult, digest, role, mime, size, at_ms, by, duration_ms, of, rendition),
                )
                self._name_content(digest)
            case FileForgotten(consult, digest):
                run("DELETE FROM file WHERE consult = ? AND digest = ?", (consult, digest))
                run(
                    "DELETE FROM content WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM file WHERE digest = ?1)"
                    " AND NOT EXISTS (SELECT 1 FROM reply WHERE digest = ?1)",
                    (digest,),
                )
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
            case ConsultCost(consult, wire_bytes, cost):
                run("UPDATE consult SET wire_bytes = ?, cost = ? WHERE id = ?", (wire_bytes, cost, consult))
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
                if complete:
                    self._name_content(digest)
                    run("DELETE FROM arriving WHERE digest = ?", (digest,))
            case ValueKept(key, value):
                run("INSERT OR REPLACE INTO value (key, value) VALUES (?, ?)", (key, value))

    def _name_content(self, digest: bytes) -> None:
        """In the transaction that first names a file."""
        if (content := self._fresh.get(digest)) is not None:
            self._db.execute(
                "INSERT OR REPLACE INTO content (digest, name, key, size) VALUES (?, ?, ?, ?)", (digest, *content)
            )


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


def _parse_ranges(text: str) -> tuple[Range, ...]:
    return tuple((int(start), int(end)) for start, end in (part.split("-") for part in text.split()))
