"""What a kiosk has on its disk, for tests that look into it while its agent runs."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlcipher3 import dbapi2 as sqlcipher

from edge_agent.core import wire
from edge_agent.storage import sealed_files
from edge_agent.storage.store_key import find_key


def read_rows(state_dir: Path, query: str, values: Sequence[object] = ()) -> list[Any]:
    """Rows by column name. Raises OSError while there is no store."""
    path = state_dir / "store" / "kiosk.db"
    if not path.exists():
        raise FileNotFoundError(path)
    with contextlib.closing(sqlcipher.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as database:
        database.execute(f"PRAGMA key = \"x'{find_key(state_dir).database}'\"")
        database.row_factory = sqlcipher.Row
        return database.execute(query, values).fetchall()  # type: ignore[no-any-return]


def read_file(state_dir: Path, digest: bytes) -> bytes:
    (row,) = read_rows(state_dir, "SELECT name, key, size FROM content WHERE digest = ?", (digest,))
    path = state_dir / "store" / "media" / row["name"]
    data = sealed_files.read_sealed(path, row["size"], row["key"], digest, 0, row["size"])
    assert hashlib.sha256(data).digest() == digest
    return data


def saved_files(state_dir: Path, consult: str) -> list[tuple[str, bytes]]:
    """(role, bytes) of the consult's files, each checked against the digest it is kept under."""
    rows = read_rows(state_dir, "SELECT role, digest FROM file WHERE consult = ?", (bytes.fromhex(consult),))
    return [(row["role"], read_file(state_dir, row["digest"])) for row in rows]


def unsent(state_dir: Path) -> list[str]:
    """Messages and files that have no receipt from the hub yet."""
    payloads = read_rows(state_dir, "SELECT payload FROM outbox WHERE NOT set_aside")
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
