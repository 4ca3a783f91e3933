"""Doctors' accounts and sign-ins: argon2 for passwords, random tokens known by their hash for sessions."""

from __future__ import annotations

import functools
import hashlib
import secrets
from collections import deque

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from hub.records import Doctor, LoginSession

MIN_PASSWORD_CHARACTERS = 8
MAX_PASSWORD_CHARACTERS = 200  # argon2 over more would be work given away
_WORD_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that is read as something else

_hasher = PasswordHasher()


class AccountError(ValueError):
    """One line for whoever gave the command."""


def new_password() -> str:
    """To be read off a screen once: 75 bits in groups of five."""
    return "-".join("".join(secrets.choice(_WORD_ALPHABET) for _ in range(5)) for _ in range(3))


def add_account(session: Session, name: str, password: str, now_ms: int, role: str = "doctor") -> None:
    name = name.strip()
    if not 1 <= len(name) <= 100:
        raise AccountError("a name has 1 to 100 characters")
    if _named(session, name) is not None:
        raise AccountError(f"there is an account {name!r} already")
    session.add(Doctor(name=name, role=role, password_hash=hash_password(password), created_at=now_ms))


def set_password(session: Session, name: str, password: str) -> None:
    """Also signs the account out everywhere."""
    doctor = _existing(session, name)
    doctor.password_hash = hash_password(password)
    session.execute(delete(LoginSession).where(LoginSession.doctor_id == doctor.id))


def set_disabled(session: Session, name: str, disabled: bool) -> None:
    doctor = _existing(session, name)
    doctor.disabled = disabled
    if disabled:
        session.execute(delete(LoginSession).where(LoginSession.doctor_id == doctor.id))


def first_account(session: Session, name: str, now_ms: int) -> str | None:
    """Where there is none, make one; returns its password to be printed once."""
    if session.scalar(select(Doctor.id).limit(1)) is not None:
        return None
    password = new_password()
    add_account(session, name, password, now_ms)
    return password


def hash_password(password: str) -> str:
    if not MIN_PASSWORD_CHARACTERS <= len(password) <= MAX_PASSWORD_CHARACTERS:
        raise AccountError(f"a password has {MIN_PASSWORD_CHARACTERS} to {MAX_PASSWORD_CHARACTERS} characters")
    return _hasher.hash(password)


def stored_hash(session: Session, name: str) -> str | None:
    """None for an unknown or disabled account."""
    doctor = _named(session, name)
    return None if doctor is None or doctor.disabled else doctor.password_hash


def password_matches(stored: str | None, password: str) -> bool:
    """Slow by design (tens of milliseconds), whether or not there is an account."""
    if len(password) > MAX_PASSWORD_CHARACTERS:
        return False
    try:
        return _hasher.verify(stored or _nobodys_hash(), password) and stored is not None
    except (Argon2Error, InvalidHashError):
        return False


def begin_session(session: Session, name: str, length_s: float, now_ms: int) -> str | None:
    """A token for the cookie; None where the account went away meanwhile."""
    doctor = _named(session, name)
    if doctor is None or doctor.disabled:
        return None
    session.execute(delete(LoginSession).where(LoginSession.expires_at <= now_ms))
    token = secrets.token_urlsafe(32)
    session.add(
        LoginSession(token_hash=_token_hash(token), doctor_id=doctor.id, expires_at=now_ms + int(length_s * 1000))
    )
    return token


def end_session(session: Session, token: str) -> None:
    session.execute(delete(LoginSession).where(LoginSession.token_hash == _token_hash(token)))


def signed_in(session: Session, token: str, now_ms: int) -> Doctor | None:
    row = session.get(LoginSession, _token_hash(token))
    if row is None or row.expires_at <= now_ms:
        return None
    doctor = session.get_one(Doctor, row.doctor_id)
    return None if doctor.disabled else doctor


class FailureLimit:
    """How often a key (a name, an address) may fail within a window. Memory only: a restart forgives."""

    MAX_KEYS = 10_000

    def __init__(self, failures: int, window_s: float) -> None:
        self._failures, self._window_s = failures, window_s
        self._at: dict[str, deque[float]] = {}

    def exceeded(self, key: str, now: float) -> bool:
        at = self._at.get(key)
        while at and at[0] <= now - self._window_s:
            at.popleft()
        if not at:
            self._at.pop(key, None)
            return False
        return len(at) >= self._failures

    def failed(self, key: str, now: float) -> None:
        if key not in self._at and len(self._at) >= self.MAX_KEYS:
            self._at.pop(next(iter(self._at)))
        self._at.setdefault(key, deque(maxlen=self._failures)).append(now)

    def forgive(self, key: str) -> None:
        self._at.pop(key, None)


def _named(session: Session, name: str) -> Doctor | None:
    return session.scalar(select(Doctor).where(Doctor.name == name.strip()))


def _existing(session: Session, name: str) -> Doctor:
    doctor = _named(session, name)
    if doctor is None:
        raise AccountError(f"there is no account {name!r}; `teleconsult hub account list` shows all")
    return doctor


def _token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@functools.cache
def _nobodys_hash() -> str:
    """So that an unknown name costs as long as a known one."""
    return _hasher.hash(secrets.token_hex())
