"""The audit log: who did what, when, to which case, in a chain of hashes that shows every later change.

Entries hold ids alone, no names, no words of a patient. `append` works in the caller's transaction, so there is no
action without its entry and no entry without its action; they are chained as they are flushed, many at once. Triggers
in the database refuse to change or remove an entry; against whoever gets around them there is the chain:

    hash = SHA-256( previous hash ‖ JSON [seq, at, who, what, about] ), where before the first are 32 zero bytes

Somebody who can write the database can still cut the tail off, or write the whole chain anew; a head (`seq:hash`)
noted elsewhere shows that too. The hub writes its head into its log, and `teleconsult hub audit verify` prints it.

    who     account:<id>, kiosk:<id>, hub, command:<uid> (the command line), stranger (nobody signed in)
    what    a word, below
    about   ids, separated by spaces: consult:…, call:…, file:…, advice:…, account:…, kiosk:…, role:…, invitation:…,
            key:… (of a kiosk, or of releases), ca:…, release:<version>, share:<percent>
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from hub.records import AuditEntry, AuditHead, Doctor

FIRST_HASH = "0" * 64
PAGE_ENTRIES = 100
_NOTED = re.compile(r"(?:(\d{1,18}):)?([0-9a-f]{64})")
_HEAD_ID = 1
_HEAD = "audit head"  # in `Session.info`


class ChainBroken(ValueError):
    """The log is not what was written. `str()` names the first entry that shows it."""


@dataclass(frozen=True)
class Head:
    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


EMPTY = Head(0, FIRST_HASH)


def append(session: Session, now_ms: int, who: str, what: str, *about: str) -> None:
    """Add an entry in this transaction."""
    session.add(AuditEntry(at=now_ms, who=who, what=what, about=" ".join(filter(None, about))))


@event.listens_for(Session, "before_flush")
def _chain(session: Session, _context: object, _instances: object) -> None:
    """Entries get their numbers and hashes in the order in which they were appended."""
    entries = [entry for entry in session.new if isinstance(entry, AuditEntry)]
    if not entries:
        return
    last: AuditHead | None = session.info.get(_HEAD)  # held by this transaction once it is read
    if last is None or last not in session:
        last = session.get(AuditHead, _HEAD_ID, with_for_update=True)
    if last is None:
        last = AuditHead(id=_HEAD_ID, seq=0, hash=FIRST_HASH)
        session.add(last)
    session.info[_HEAD] = last
    for entry in entries:
        entry.seq = last.seq + 1
        entry.hash = chained(last.hash, entry)
        last.seq, last.hash = entry.seq, entry.hash


def account(doctor: Doctor | int) -> str:
    return f"account:{doctor if isinstance(doctor, int) else doctor.id}"


def command() -> str:
    """Whoever runs a command on the hub's machine."""
    return f"command:{os.getuid()}"


def chained(previous_hash: str, entry: AuditEntry) -> str:
    canonical = json.dumps([entry.seq, entry.at, entry.who, entry.what, entry.about], separators=(",", ":"))
    return hashlib.sha256(bytes.fromhex(previous_hash) + canonical.encode()).hexdigest()


def head(session: Session) -> Head:
    session.flush()
    last = session.get(AuditHead, _HEAD_ID)
    return EMPTY if last is None else Head(last.seq, last.hash)


def parse_head(text: str) -> Head:
    """As `verify` printed it, with or without its number (then 0). Raises ValueError."""
    match = _NOTED.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError("a head is NUMBER:HASH, as `teleconsult hub audit verify` prints it")
    return Head(int(match[1] or 0), match[2])


def verify(session: Session, noted: Head | None = None) -> Head:
    """Read the whole log; returns its head. `noted` is a head of earlier, which the log must still hold.

    Raises ChainBroken.
    """
    previous = EMPTY
    held = noted is None or noted == EMPTY
    for entry in entries(session):
        if entry.seq != previous.seq + 1:
            raise ChainBroken(f"entry {previous.seq + 1} is missing: after {previous.seq} comes {entry.seq}")
        if chained(previous.hash, entry) != entry.hash:
            raise ChainBroken(f"entry {entry.seq} is not what was written, or the one before it was changed")
        previous = Head(entry.seq, entry.hash)
        held = held or (noted is not None and noted.hash == entry.hash and noted.seq in (0, entry.seq))
    last = head(session)
    if last != previous:
        raise ChainBroken(f"entry {previous.seq + 1} is missing: the log ends before its head, {last.seq}")
    if not held:
        raise ChainBroken(f"the entry of the noted head {noted} is gone: the log's tail was cut, or written anew")
    return previous


def entries(session: Session) -> Iterator[AuditEntry]:
    """All, the first one first."""
    yield from session.scalars(select(AuditEntry).order_by(AuditEntry.seq).execution_options(yield_per=500))


def latest(session: Session, before: int = 0, count: int = PAGE_ENTRIES) -> list[AuditEntry]:
    """The last ones, newest first; `before` is a number to go on below."""
    wanted = select(AuditEntry).order_by(AuditEntry.seq.desc()).limit(count)
    return list(session.scalars(wanted.where(AuditEntry.seq < before) if before else wanted))
