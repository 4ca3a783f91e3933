"""What waits on the card, read without an agent: nothing is made, mended or moved, as opening the `Store` would."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from edge_agent.core import wire
from edge_agent.storage import database
from edge_agent.storage.database import DatabaseError, StoreBroken
from edge_agent.storage.store_key import read_key


class Peek(NamedTuple):
    waiting: list[wire.Message]
    set_aside: int
    emergencies: set[bytes]  # consults
    values: dict[str, bytes]
    key_is_protected: bool


def peek(state_dir: Path) -> Peek:
    """Raises OSError where there is no store, StoreBroken where it cannot be read here."""
    path = state_dir / "store" / database.NAME
    if not path.exists():
        raise FileNotFoundError(f"{state_dir}: no kiosk has stored anything here")
    try:
        key = read_key(state_dir)
    except FileNotFoundError:
        raise StoreBroken("the store's key is given to the service alone: start the agent to see what waits") from None
    try:
        with contextlib.closing(database.connect(path, key.database, read_only=True)) as db:
            rows = db.execute("SELECT payload, set_aside FROM outbox ORDER BY number").fetchall()
            urgent = {row[0] for row in db.execute("SELECT id FROM consult WHERE emergency")}
            values = dict(db.execute("SELECT key, value FROM value"))
    except DatabaseError as error:
        raise StoreBroken(f"the store cannot be read: {error}; start the agent, which mends it") from None
    waiting = []
    for payload, _ in rows:
        with contextlib.suppress(wire.WireError):  # of another release
            waiting.append(wire.decode(payload))
    return Peek(waiting, sum(bool(row[1]) for row in rows), urgent, values, key.protected)
