"""What a kiosk has on its disk, for tests that look into it while its agent runs."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlcipher3 import dbapi2 as sqlcipher

from edge_agent.core import wire
from edge_agent.storage import sealed_files
from edge_agent.storage.database import _MIGRATIONS, connect
from edge_agent.storage.store_key import read_key

PLAIN_MIGRATIONS = 2  # of a release before encryption


def read_rows(state_dir: Path, query: str, values: Sequence[object] = ()) -> list[Any]:
    """Rows by column name. Raises OSError while there is no store."""
    path = state_dir / "store" / "kiosk.db"
    if not path.exists():
        raise FileNotFoundError(path)
    with contextlib.closing(connect(path, read_key(state_dir).database, read_only=True)) as database:
        database.row_factory = sqlcipher.Row
        return database.execute(query, values).fetchall()  # type: ignore[no-any-return]


def path_of(state_dir: Path, digest: bytes) -> Path:
    (row,) = read_rows(state_dir, "SELECT name FROM content WHERE digest = ?", (digest,))
    return state_dir / "store" / "media" / str(row["name"])


def read_file(state_dir: Path, digest: bytes) -> bytes:
    (row,) = read_rows(state_dir, "SELECT key, size FROM content WHERE digest = ?", (digest,))
    data = sealed_files.read_sealed(path_of(state_dir, digest), row["size"], row["key"], digest, 0, row["size"])
    assert hashlib.sha256(data).digest() == digest
    return data


def saved_files(state_dir: Path, consult: str) -> list[tuple[str, bytes]]:
    """(role or rendition, bytes) of the consult's files, each checked against the digest it is kept under."""
    rows = read_rows(state_dir, "SELECT role, rendition, digest FROM file WHERE consult = ?", (bytes.fromhex(consult),))
    return [(row["rendition"] or row["role"], read_file(state_dir, row["digest"])) for row in rows]


def unsent(state_dir: Path) -> list[str]:
    """Messages and files that have no receipt from the hub yet."""
    payloads = read_rows(state_dir, "SELECT payload FROM outbox")
    messages = [wire.decode(row["payload"]) for row in payloads]
    files = read_rows(
        state_dir,
        "SELECT consult, role FROM file WHERE NOT delivered AND consult NOT IN (SELECT consult FROM draft)",
    )
    return [f"{type(message.body).__name__} of {message.consult.hex()}" for message in messages] + [
        f"{row['role']} of {row['consult'].hex()}" for row in files
    ]


def found_in(folder: Path, words: Sequence[bytes]) -> list[str]:
    """Which of these bytes stand anywhere in the files below a folder, as whoever has the card would search it."""
    found = []
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # it went meanwhile
            data = path.read_bytes() if path.is_file() else b""
            found += [f"{word!r} in {path.relative_to(folder)}" for word in words if word in data]
    return found


def make_plain_store(folder: Path, name: str, note: str, photo: bytes) -> tuple[wire.Message, set[bytes]]:
    """As the release before encryption left it: a note and a photo that wait, a photo that the hub has, parts 0-50 and
    100-150 of a voice reply of `bytes(range(200))`. Gives the note's message and the waiting photo's digest."""
    for part in ("files", "arriving", "captures"):
        (folder / part).mkdir(parents=True)
    consult, reply = b"k" * 16, bytes(range(200))
    message = wire.Message(wire.CaseNote("patient", 8, text=note, patient=name), consult, seq=1)
    with contextlib.closing(sqlite3.connect(folder / "kiosk.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        for number, migration in enumerate(_MIGRATIONS[:PLAIN_MIGRATIONS], 1):
            db.executescript(f"BEGIN; {migration} PRAGMA user_version = {number}; COMMIT;")
        db.execute(
            "INSERT INTO consult (id, opened_at_ms, opened_by, patient) VALUES (?, 7, 'patient', ?)", (consult, name)
        )
        db.execute(
            "INSERT INTO outbox (id, consult, seq, payload) VALUES (?, ?, 1, ?)",
            (message.id, consult, wire.encode(message)),
        )
        for data, delivered in ((photo, 0), (b"sent " + photo, 1)):
            digest = hashlib.sha256(data).digest()
            (folder / "files" / digest.hex()).write_bytes(data)
            db.execute(
                "INSERT INTO file VALUES (?, ?, 'photo', 'image/jpeg', ?, 9, 'patient', 0, ?)",
                (consult, digest, len(data), delivered),
            )
        digest = hashlib.sha256(reply).digest()
        (folder / "arriving" / digest.hex()).write_bytes(reply[:50] + bytes(50) + reply[100:150])
        db.execute("INSERT INTO reply VALUES (?, ?, 'audio/ogg', 200, '0-50 100-150', 0, x'aa')", (consult, digest))
    return message, {hashlib.sha256(photo).digest()}
