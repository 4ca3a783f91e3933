"""Accounts and sign-ins: argon2 for passwords; random tokens, known by their hash alone, for sessions and browsers.

Everything that changes an account writes its entry into the audit log in the same transaction. `by` is who did it, as
`hub.audit` writes that.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
import unicodedata
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from hub import audit
from hub.records import Doctor, KnownBrowser, LoginSession
from hub.roles import Role

MIN_PASSWORD_CHARACTERS = 10
MAX_PASSWORD_CHARACTERS = 200  # argon2 over more would be work given away
MIN_BESIDE_NAME = 6  # characters of a password that are not the account's name
USED_EVERY_MS = 60_000  # a session's last use is written this often, not at each request
BROWSER_KNOWN_MS = 180 * 86_400_000
_WORD_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that is read as something else

# Of RFC 9106's second recommendation the passes, with half the memory and one lane: a tenth of a second on a small
# machine with 2 GB, and several sign-ins at once do not push it into swap. An older hash is made anew at sign-in.
_hasher = PasswordHasher(time_cost=3, memory_cost=32 * 1024, parallelism=1)


class AccountError(ValueError):
    """One line for whoever gave the command."""


@dataclass(frozen=True)
class SignedIn:
    """A request's account, by the session of its cookie."""

    id: int
    name: str
    role: str
    must_change: bool
    session: str  # its id


# --- accounts


def new_password() -> str:
    """To be read off a screen once: 75 bits in groups of five."""
    return "-".join("".join(secrets.choice(_WORD_ALPHABET) for _ in range(5)) for _ in range(3))


def add_account(
    session: Session, name: str, password_hash: str, now_ms: int, role: str = Role.DOCTOR, *,
    by: str, must_change: bool = False,
) -> Doctor:  # fmt: skip
    """Raises AccountError."""
    name = unicodedata.normalize("NFC", name).strip()
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise AccountError("a name has 1 to 100 characters, all of them to be seen")
    if _named(session, name) is not None:
        raise AccountError(f"there is an account {name!r} already")
    doctor = Doctor(
        name=name, role=Role(role), password_hash=password_hash, created_at=now_ms,
        must_change=must_change,
    )  # fmt: skip
    session.add(doctor)
    session.flush()
    audit.append(session, now_ms, by, "account_added", audit.account(doctor), f"role:{doctor.role}")
    return doctor


def set_password(
    session: Session, doctor: Doctor, password_hash: str, now_ms: int, *, by: str, must_change: bool = False
) -> None:
    """Also signs the account out everywhere, and knows none of its browsers any more."""
    _sign_out_everywhere(session, doctor)
    _store_password(session, doctor, password_hash, must_change, now_ms, by)


def _store_password(
    session: Session, doctor: Doctor, password_hash: str, must_change: bool, now_ms: int, by: str
) -> None:
    doctor.password_hash = password_hash
    doctor.must_change = must_change
    session.execute(delete(KnownBrowser).where(KnownBrowser.doctor_id == doctor.id))
    audit.append(session, now_ms, by, "password_set", audit.account(doctor))


def set_disabled(session: Session, doctor: Doctor, disabled: bool, now_ms: int, *, by: str) -> None:
    """Raises AccountError where nobody would be left to manage accounts at the console."""
    if disabled:
        _refuse_last_administrator(session, doctor)
        _sign_out_everywhere(session, doctor)
    doctor.disabled = disabled
    audit.append(session, now_ms, by, "account_disabled" if disabled else "account_enabled", audit.account(doctor))


def set_role(session: Session, doctor: Doctor, role: str, now_ms: int, *, by: str) -> None:
    """Raises AccountError, as above."""
    if doctor.role == role:
        return
    _refuse_last_administrator(session, doctor)
    doctor.role = Role(role)
    _sign_out_everywhere(session, doctor)
    audit.append(session, now_ms, by, "role_set", audit.account(doctor), f"role:{doctor.role}")


def first_account(session: Session, name: str, now_ms: int) -> str | None:
    """Where there is none, make one; returns its password to be printed once."""
    if session.scalar(select(Doctor.id).limit(1)) is not None:
        return None
    password = new_password()
    add_account(session, name, hash_password(password, name), now_ms, by="hub")
    return password


def existing(session: Session, name: str) -> Doctor:
    """Raises AccountError."""
    doctor = _named(session, name)
    if doctor is None:
        raise AccountError(f"there is no account {name!r}; `teleconsult hub account list` shows all")
    return doctor


# --- passwords


def hash_password(password: str, name: str) -> str:
    """Slow by design. Raises AccountError where the password is none."""
    password = unicodedata.normalize("NFC", password)
    if not MIN_PASSWORD_CHARACTERS <= len(password) <= MAX_PASSWORD_CHARACTERS:
        raise AccountError(f"a password has {MIN_PASSWORD_CHARACTERS} to {MAX_PASSWORD_CHARACTERS} characters")
    if len(password.casefold().replace(name.casefold(), "")) < MIN_BESIDE_NAME:
        raise AccountError("a password must not be the account's name")
    return _hasher.hash(password)


def stored_hash(session: Session, name: str, browser: str) -> tuple[str | None, bool]:
    """`(hash, whether this account signed in with this browser before)`; None for an unknown or disabled account."""
    doctor = _named(session, name)
    if doctor is None or doctor.disabled:
        return None, False
    known = session.get(KnownBrowser, (_token_hash(browser), doctor.id)) if browser else None
    return doctor.password_hash, known is not None


def password_matches(stored: str | None, password: str) -> bool:
    """Slow by design (a tenth of a second), whether or not there is an account."""
    if len(password) > MAX_PASSWORD_CHARACTERS:
        return False
    try:
        return _hasher.verify(stored or nobodys_hash(), unicodedata.normalize("NFC", password)) and stored is not None
    except (Argon2Error, InvalidHashError):
        return False


def rehashed(stored: str, password: str) -> str | None:
    """A right password's hash by today's parameters, where the stored one is of others."""
    if not _hasher.check_needs_rehash(stored):
        return None
    return _hasher.hash(unicodedata.normalize("NFC", password))


@functools.cache
def nobodys_hash() -> str:
    """So that an unknown name costs as long as a known one; made before the first sign-in for the same reason."""
    return _hasher.hash(secrets.token_hex())


# --- sessions


@dataclass(frozen=True)
class Begun:
    token: str
    browser: str


def begin_session(
    session: Session, name: str, length_s: float, now_ms: int, *,
    old_token: str = "", browser: str = "", rehash: str | None = None,
) -> Begun | None:  # fmt: skip
    """New tokens for the cookies, whatever the browser came with; the session it came with is over.

    None where the account went away meanwhile.
    """
    doctor = _named(session, name)
    if doctor is None or doctor.disabled:
        return None
    if rehash is not None:
        doctor.password_hash = rehash
    session.execute(delete(LoginSession).where(LoginSession.expires_at <= now_ms))
    session.execute(delete(LoginSession).where(LoginSession.token_hash == _token_hash(old_token)))
    audit.append(session, now_ms, audit.account(doctor), "signed_in")
    return Begun(_new_session(session, doctor, length_s, now_ms), _remember_browser(session, doctor, browser, now_ms))


def sign_in_failed(session: Session, name: str, now_ms: int) -> None:
    """The same for a known and an unknown name, but for what the log says."""
    doctor = _named(session, name)
    audit.append(session, now_ms, "stranger", "sign_in_failed", "" if doctor is None else audit.account(doctor))


def end_session(session: Session, token: str, now_ms: int) -> int | None:
    """The account whose session it was; None where it was over."""
    row = _by_token(session, token)
    if row is None:
        return None
    session.delete(row)
    audit.append(session, now_ms, audit.account(row.doctor_id), "signed_out")
    return row.doctor_id


def change_own_password(
    session: Session, who: SignedIn, old_hash: str, new_hash: str, length_s: float, now_ms: int, browser: str
) -> Begun | None:
    """Signs out everywhere but here: this session goes on, and its open page, with a new token. None where account or
    session changed meanwhile."""
    doctor, row = session.get_one(Doctor, who.id), session.get(LoginSession, who.session)
    if row is None or doctor.disabled or doctor.password_hash != old_hash:
        return None
    others = LoginSession.doctor_id == doctor.id, LoginSession.id != row.id
    session.execute(delete(LoginSession).where(*others))
    token = secrets.token_urlsafe(32)
    row.token_hash, row.used_at, row.expires_at = _token_hash(token), now_ms, now_ms + int(length_s * 1000)
    _store_password(session, doctor, new_hash, False, now_ms, audit.account(doctor))
    return Begun(token, _remember_browser(session, doctor, browser, now_ms))


def signed_in(session: Session, token: str, idle_s: float, now_ms: int, *, uses: bool = True) -> SignedIn | None:
    """Whose session this is. `uses` says that a person did something; a page that asks by itself does not."""
    return _alive(session, _by_token(session, token), idle_s, now_ms, uses)


def session_alive(session: Session, session_id: str, idle_s: float, now_ms: int) -> SignedIn | None:
    """The same for an open page: as long as its socket is held it counts as used."""
    return _alive(session, session.get(LoginSession, session_id), idle_s, now_ms, True)


def _alive(session: Session, row: LoginSession | None, idle_s: float, now_ms: int, uses: bool) -> SignedIn | None:
    if row is None or row.expires_at <= now_ms or row.used_at + int(idle_s * 1000) <= now_ms:
        return None
    doctor = session.get_one(Doctor, row.doctor_id)
    if doctor.disabled:
        return None
    if uses and now_ms - row.used_at >= USED_EVERY_MS:
        row.used_at = now_ms
    return SignedIn(doctor.id, doctor.name, doctor.role, doctor.must_change, row.id)


def _new_session(session: Session, doctor: Doctor, length_s: float, now_ms: int) -> str:
    token = secrets.token_urlsafe(32)
    session.add(
        LoginSession(
            id=secrets.token_hex(8), token_hash=_token_hash(token), doctor_id=doctor.id,
            started_at=now_ms, used_at=now_ms, expires_at=now_ms + int(length_s * 1000),
        )
    )  # fmt: skip
    return token


def _remember_browser(session: Session, doctor: Doctor, browser: str, now_ms: int) -> str:
    """Its token goes on where some account knows it; one that only the browser names is replaced."""
    session.execute(delete(KnownBrowser).where(KnownBrowser.used_at < now_ms - BROWSER_KNOWN_MS))
    ours = select(KnownBrowser.doctor_id).where(KnownBrowser.token_hash == _token_hash(browser)).limit(1)
    if not browser or session.scalar(ours) is None:
        browser = secrets.token_urlsafe(32)
    session.merge(KnownBrowser(token_hash=_token_hash(browser), doctor_id=doctor.id, used_at=now_ms))
    return browser


def _sign_out_everywhere(session: Session, doctor: Doctor) -> None:
    session.execute(delete(LoginSession).where(LoginSession.doctor_id == doctor.id))


def _refuse_last_administrator(session: Session, doctor: Doctor) -> None:
    if doctor.role != Role.ADMINISTRATOR or doctor.disabled:
        return
    others = select(Doctor.id).where(
        Doctor.role == Role.ADMINISTRATOR, Doctor.disabled.is_(False), Doctor.id != doctor.id
    )
    if session.scalar(others.limit(1)) is None:
        raise AccountError("this is the only administrator; make another one first")


def _named(session: Session, name: str) -> Doctor | None:
    if "\0" in name:  # which PostgreSQL takes in no text
        return None
    return session.scalar(select(Doctor).where(Doctor.name == unicodedata.normalize("NFC", name).strip()))


def _by_token(session: Session, token: str) -> LoginSession | None:
    return session.scalar(select(LoginSession).where(LoginSession.token_hash == _token_hash(token)))


def _token_hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()
