"""Accounts, passwords and sessions, in a real database and with a clock of the test's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from sqlalchemy.orm import Session

from hub import accounts
from hub.accounts import AccountError
from hub.database import Database
from hub.records import Doctor, LoginSession
from hub.roles import Role

PASSWORD = "correct horse battery"
HASH = accounts.hash_password(PASSWORD, "anna")
HOUR_MS = 3_600_000


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    database = Database(f"sqlite:///{tmp_path / 'hub.db'}", tmp_path)
    with Session(database._engine) as session:
        yield session
    database.close()


@pytest.fixture
def anna(session: Session) -> Doctor:
    return accounts.add_account(session, "anna", HASH, 0, by="test")


def begin(session: Session, now_ms: int = 0, **kwargs: str) -> accounts.Begun:
    begun = accounts.begin_session(session, "anna", 12 * 3600, now_ms, **kwargs)
    assert begun is not None
    return begun


def alive(session: Session, token: str, now_ms: int, uses: bool = True) -> bool:
    return accounts.signed_in(session, token, 3600, now_ms, uses=uses) is not None


def test_a_session_ends_when_nobody_uses_it(session: Session, anna: Doctor):
    token = begin(session).token
    assert alive(session, token, HOUR_MS - 1)
    assert alive(session, token, 2 * HOUR_MS - 2), "its use was noted"
    assert alive(session, token, 3 * HOUR_MS - 3, uses=False)
    assert not alive(session, token, 3 * HOUR_MS - 2), "what a page asks by itself is no use"


def test_a_session_ends_however_much_it_is_used(session: Session, anna: Doctor):
    token = begin(session).token
    for minute in range(0, 12 * 60, 30):
        assert alive(session, token, minute * 60_000)
    assert not alive(session, token, 12 * HOUR_MS)


def test_use_is_written_once_a_minute(session: Session, anna: Doctor):
    token = begin(session).token
    used = []
    for second in range(0, 180, 20):
        alive(session, token, second * 1000)
        used.append(session.query(LoginSession.used_at).scalar())
    assert len(set(used)) == 3


def test_tokens_are_kept_by_their_hash_alone(session: Session, anna: Doctor):
    begun = begin(session)
    row = session.query(LoginSession).one()
    assert begun.token not in (row.token_hash, begun.browser)
    assert len(begun.token) >= 43  # 256 bits


def test_a_known_browser_is_known_for_its_account_until_the_password_changes(session: Session, anna: Doctor):
    accounts.add_account(session, "ben", accounts.hash_password(PASSWORD, "ben"), 0, by="test")
    browser = begin(session).browser
    assert accounts.stored_hash(session, "anna", browser) == (HASH, True)
    assert accounts.stored_hash(session, "ben", browser)[1] is False
    assert begin(session, browser=browser).browser == browser
    assert begin(session, browser="made up").browser != "made up"
    accounts.set_password(session, anna, HASH, 0, by="test")
    assert accounts.stored_hash(session, "anna", browser) == (HASH, False)


@pytest.mark.parametrize(
    ("password", "name", "says"),
    [
        ("short", "anna", "10 to 200"),
        ("x" * 201, "anna", "10 to 200"),
        ("Anna Margareta", "anna margareta", "name"),
        ("annaanna1234", "anna", "name"),
        ("DrAnna2024", "dranna", "name"),
    ],
)
def test_passwords_that_are_none(password: str, name: str, says: str):
    with pytest.raises(AccountError, match=says):
        accounts.hash_password(password, name)


def test_one_password_however_the_keyboard_writes_it():
    hashed = accounts.hash_password("caf\u00e9 au lait", "anna")
    assert accounts.password_matches(hashed, "cafe\u0301 au lait")
    assert not accounts.password_matches(hashed, "cafe au lait")
    assert not accounts.password_matches(hashed, "x" * 100_000)
    assert not accounts.password_matches("not a hash", PASSWORD)


def test_an_unknown_name_costs_what_a_known_one_does():
    """In work of the processor, which is what an answer's time is made of."""
    accounts.nobodys_hash()

    def cost(stored: str | None) -> float:
        best = 10.0
        for _ in range(5):
            begun = time.thread_time()
            assert not accounts.password_matches(stored, "wrong password")
            best = min(best, time.thread_time() - begun)
        return best

    known, unknown = cost(HASH), cost(None)
    assert known > 0.005, "slow by design"
    assert 0.6 < unknown / known < 1.6


def test_an_older_hash_is_made_anew():
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    assert accounts.password_matches(old, PASSWORD)
    new = accounts.rehashed(old, PASSWORD)
    assert new is not None
    assert accounts.password_matches(new, PASSWORD)
    assert accounts.rehashed(new, PASSWORD) is None


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "a\nb", "a\0b", "a\u202eb"])
def test_names_that_are_none(session: Session, name: str):
    with pytest.raises(AccountError):
        accounts.add_account(session, name, HASH, 0, by="test")


def test_the_last_administrator_stays(session: Session, anna: Doctor):
    first = accounts.add_account(session, "root", HASH, 0, Role.ADMINISTRATOR, by="test")
    for change in (
        lambda: accounts.set_disabled(session, first, True, 0, by="test"),
        lambda: accounts.set_role(session, first, Role.DOCTOR, 0, by="test"),
    ):
        with pytest.raises(AccountError, match="only administrator"):
            change()
    accounts.add_account(session, "second", HASH, 0, Role.ADMINISTRATOR, by="test")
    accounts.set_disabled(session, first, True, 0, by="test")
    assert first.disabled
