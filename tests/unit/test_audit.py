"""The audit log's chain: what cannot be changed, and what shows when it was changed all the same."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hub import audit
from hub.audit import ChainBroken, Head
from hub.database import Database
from hub.records import AuditEntry
from kiosk.cli import main


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'hub.db'}", tmp_path)
    yield database
    database.close()


def write(database: Database, count: int = 10) -> Head:
    def add(session: Session) -> Head:
        for number in range(count):
            audit.append(session, 1_000 + number, "account:1", "case_viewed", f"consult:{number:032x}", "", "call:é")
        return audit.head(session)

    return database.do(add)


def test_an_empty_log_is_intact(database: Database):
    assert database.do(audit.verify) == audit.EMPTY


def test_entries_chain(database: Database):
    head = write(database)
    assert head.seq == 10
    assert database.do(audit.verify) == head
    first = database.do(lambda session: session.get_one(AuditEntry, 1))
    assert first.about == f"consult:{0:032x} call:é"
    assert first.hash == audit.chained(audit.FIRST_HASH, first)
    # the hash is over what docs say, whoever computes it
    canonical = f'[1,1000,"account:1","case_viewed","consult:{0:032x} call:\\u00e9"]'
    assert first.hash == hashlib.sha256(bytes(32) + canonical.encode()).hexdigest()


def test_an_action_that_fails_leaves_no_entry(database: Database):
    head = write(database)

    def fails(session: Session) -> None:
        audit.append(session, 1, "hub", "closed")
        raise KeyError

    with pytest.raises(KeyError):
        database.do(fails)
    assert database.do(audit.verify) == head


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET who = 'account:2' WHERE seq = 5",
        "UPDATE audit SET at = at",
        "DELETE FROM audit WHERE seq = 10",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT seq, at, 'account:2', what, about, hash FROM audit WHERE seq = 5",
        "INSERT INTO audit SELECT 99, at, who, what, about, hash FROM audit WHERE seq = 5",
    ],
)
def test_the_database_refuses_changes(database: Database, statement: str):
    head = write(database)
    with pytest.raises(IntegrityError, match="append-only"):
        database.do(lambda session: session.execute(text(statement)) and None)
    assert database.do(audit.verify) == head


def rechain(connection: sqlite3.Connection) -> None:
    """As somebody would who knows how it is made."""
    previous = audit.FIRST_HASH
    for seq, at, who, what, about in connection.execute(
        "SELECT seq, at, who, what, about FROM audit ORDER BY seq"
    ).fetchall():
        entry = AuditEntry(seq=seq, at=at, who=who, what=what, about=about)
        previous = audit.chained(previous, entry)
        connection.execute("UPDATE audit SET hash = ? WHERE seq = ?", (previous, seq))
        connection.execute("UPDATE audit_head SET seq = ?, hash = ?", (seq, previous))


def change_one(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE audit SET who = 'account:2' WHERE seq = 5")


def change_one_and_its_hash(connection: sqlite3.Connection) -> None:
    change_one(connection)
    row = connection.execute("SELECT seq, at, who, what, about FROM audit WHERE seq = 5").fetchone()
    before = connection.execute("SELECT hash FROM audit WHERE seq = 4").fetchone()[0]
    entry = AuditEntry(**dict(zip(("seq", "at", "who", "what", "about"), row, strict=True)))
    connection.execute("UPDATE audit SET hash = ? WHERE seq = 5", (audit.chained(before, entry),))


def take_one_out(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM audit WHERE seq = 5")


def swap_two(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE audit SET seq = 100 WHERE seq = 5")
    connection.execute("UPDATE audit SET seq = 5 WHERE seq = 6")
    connection.execute("UPDATE audit SET seq = 6 WHERE seq = 100")


def cut_the_tail(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM audit WHERE seq > 7")


def cut_the_tail_and_the_head(connection: sqlite3.Connection) -> None:
    cut_the_tail(connection)
    connection.execute("UPDATE audit_head SET (seq, hash) = (SELECT seq, hash FROM audit WHERE seq = 7)")


def write_it_all_anew(connection: sqlite3.Connection) -> None:
    change_one(connection)
    rechain(connection)


@pytest.mark.parametrize(
    ("tamper", "says", "seen_without_head"),
    [
        (change_one, "entry 5 is not", True),
        (change_one_and_its_hash, "entry 6 is not", True),
        (take_one_out, "entry 5 is missing", True),
        (swap_two, "entry 5 is not", True),
        (cut_the_tail, "entry 8 is missing", True),
        (cut_the_tail_and_the_head, "tail was cut", False),
        (write_it_all_anew, "written anew", False),
    ],
)
def test_tampering_shows(
    tmp_path: Path, database: Database, capsys: pytest.CaptureFixture[str],
    tamper: Callable[[sqlite3.Connection], None], says: str, seen_without_head: bool,
):  # fmt: skip
    """By somebody who has the database's file and drops the triggers; and what `teleconsult hub audit verify` says."""
    (tmp_path / "hub.toml").write_text(f'[store]\ndata_dir = "{tmp_path}"\n')
    verify = ["hub", "audit", "verify", "--config", str(tmp_path / "hub.toml")]
    head = write(database)
    assert main([*verify, "--head", str(head)]) == 0
    assert capsys.readouterr().out == f"intact: 10 entries, head {head}\n"
    with sqlite3.connect(tmp_path / "hub.db") as connection:
        for name in ("update", "delete"):
            connection.execute(f"DROP TRIGGER audit_no_{name}")
        tamper(connection)
    if seen_without_head:
        with pytest.raises(ChainBroken, match=says):
            database.do(audit.verify)
    else:
        database.do(audit.verify)
    with pytest.raises(ChainBroken):
        database.do(audit.verify, head)
    assert main([*verify, "--head", str(head)]) == 1
    assert says in capsys.readouterr().out


def test_a_noted_head_holds_while_the_log_grows(database: Database):
    noted = write(database)
    write(database, 5)
    assert database.do(audit.verify, noted).seq == 15
    assert database.do(audit.verify, audit.parse_head(noted.hash.upper())).seq == 15
    with pytest.raises(ChainBroken):
        database.do(audit.verify, Head(9, noted.hash))


@pytest.mark.parametrize("text", ["", "x", "1:", "1:" + "0" * 63, ":" + "0" * 64, "0" * 65])
def test_what_is_no_head(text: str):
    with pytest.raises(ValueError):
        audit.parse_head(text)


def test_what_the_command_shows(tmp_path: Path, database: Database, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "hub.toml").write_text(f'[store]\ndata_dir = "{tmp_path}"\n')
    show = ["hub", "audit", "show", "--config", str(tmp_path / "hub.toml")]
    write(database)
    assert main([*show, "--last", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["9", "10", "11"]
    assert "audit_viewed" in lines[-1]
    assert main([*show, "--last", "0", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert '"what": "audit_exported"' in lines[-1]
