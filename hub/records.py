"""What the hub keeps: SQLAlchemy models.

Identifiers are lower-case hex, times Unix milliseconds of the hub's clock; a kiosk's own times, which may be
wrong, have `kiosk_` before their name. `hub/migrations` makes these tables.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine

from edge_agent.core import trust

_RowId = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts only an INTEGER key up by itself


class Record(DeclarativeBase):
    type_annotation_map: dict[Any, TypeEngine[Any]] = {int: BigInteger(), list[Any]: JSON(), dict[str, Any]: JSON()}  # noqa: RUF012


class Kiosk(Record):
    __tablename__ = "kiosk"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    site: Mapped[str] = mapped_column(String(200), default="")
    joined_at: Mapped[int]
    online: Mapped[bool] = mapped_column(default=False)
    gone_since: Mapped[int] = mapped_column(default=0)
    software: Mapped[str] = mapped_column(String(100), default="")
    boot: Mapped[str] = mapped_column(String(64), default="")
    clock_trusted: Mapped[bool] = mapped_column(default=False)
    missing: Mapped[list[Any]] = mapped_column(default=list)
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    language: Mapped[str] = mapped_column(String(20), default="en")
    spent: Mapped[dict[str, Any]] = mapped_column(default=dict)  # `wire.Spent`, and when it came; empty: no budget
    sign_key: Mapped[bytes] = mapped_column(LargeBinary, default=b"")  # of its messages: SubjectPublicKeyInfo, DER
    seal_key: Mapped[bytes] = mapped_column(LargeBinary, default=b"")  # to which messages for it are sealed: X25519
    # how fast its files come (`hub.arrival`)
    arrival_bps: Mapped[int] = mapped_column(default=0)
    arrival_began_at: Mapped[int] = mapped_column(default=0)
    arrived_at: Mapped[int] = mapped_column(default=0)


class Invitation(Record):
    """A one-time token, known by its hash alone."""

    __tablename__ = "invitation"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    site: Mapped[str] = mapped_column(String(200))
    made_at: Mapped[int]
    expires_at: Mapped[int]
    withdrawn_at: Mapped[int] = mapped_column(default=0)
    used_at: Mapped[int] = mapped_column(default=0)
    key_hash: Mapped[str] = mapped_column(String(64), default="")  # of the signing key of whoever has used it
    replaces: Mapped[bool] = mapped_column(default=False)  # it is for new hardware of the kiosk
    kiosk_id: Mapped[str | None] = mapped_column(ForeignKey("kiosk.id"))


class Certificate(Record):
    """One that a kiosk was given. Renewals keep the key."""

    __tablename__ = "certificate"

    serial: Mapped[str] = mapped_column(String(40), primary_key=True)
    kiosk_id: Mapped[str] = mapped_column(ForeignKey("kiosk.id"), index=True)
    key_hash: Mapped[str] = mapped_column(String(64), index=True)
    pem: Mapped[str] = mapped_column(Text)
    issued_at: Mapped[int]
    expires_at: Mapped[int]
    revoked_at: Mapped[int] = mapped_column(default=0)
    cut_at: Mapped[int] = mapped_column(default=0)  # revoked or run out: the broker knows, the connection is gone


class Approval(Record):
    """What a kiosk has asked for and a technician has to allow."""

    __tablename__ = "approval"

    key_hash: Mapped[str] = mapped_column(String(64), primary_key=True)  # of who asks
    kiosk_id: Mapped[str] = mapped_column(ForeignKey("kiosk.id"), index=True)
    why: Mapped[str] = mapped_column(String(20))  # expired | replaced
    asked_at: Mapped[int]
    approved_at: Mapped[int] = mapped_column(default=0)
    approved_by: Mapped[str] = mapped_column(String(100), default="")
    refused_at: Mapped[int] = mapped_column(default=0)


class Doctor(Record):
    """An account, whatever its role (`hub.roles`)."""

    __tablename__ = "doctor"

    id: Mapped[int] = mapped_column(_RowId, primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    role: Mapped[str] = mapped_column(String(20), default="doctor")
    password_hash: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[int]
    disabled: Mapped[bool] = mapped_column(default=False)
    must_change: Mapped[bool] = mapped_column(default=False)  # the password was made by somebody else
    available: Mapped[bool] = mapped_column(default=True)
    until: Mapped[str] = mapped_column(String(5), default="")
    until_at: Mapped[int] = mapped_column(default=0)
    gone_since: Mapped[int] = mapped_column(default=0)  # 0 while a console is open


class LoginSession(Record):
    __tablename__ = "login_session"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    doctor_id: Mapped[int] = mapped_column(ForeignKey("doctor.id"), index=True)
    started_at: Mapped[int]
    used_at: Mapped[int]  # to a minute
    expires_at: Mapped[int]


class KnownBrowser(Record):
    """One in which this account has signed in before: a stranger's wrong guesses do not make it wait."""

    __tablename__ = "known_browser"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    doctor_id: Mapped[int] = mapped_column(ForeignKey("doctor.id"), primary_key=True, index=True)
    used_at: Mapped[int]


class Console(Record):
    """A doctor's open page, and the hub process that holds its socket."""

    __tablename__ = "console"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    process: Mapped[str] = mapped_column(String(20))
    doctor_id: Mapped[int] = mapped_column(ForeignKey("doctor.id"), index=True)
    seen_at: Mapped[int]


class Consult(Record):
    __tablename__ = "consult"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kiosk_id: Mapped[str] = mapped_column(ForeignKey("kiosk.id"), index=True)
    arrived_at: Mapped[int]
    kiosk_opened_at: Mapped[int] = mapped_column(default=0)
    opened_at: Mapped[int] = mapped_column(index=True)  # shown: the kiosk's where it can be believed
    opened_by: Mapped[str] = mapped_column(String(100), default="")
    down_seq: Mapped[int] = mapped_column(default=0)
    # the last note
    note_seq: Mapped[int] = mapped_column(default=0)
    entered_by: Mapped[str] = mapped_column(String(100), default="")
    urgency: Mapped[str] = mapped_column(String(20), default="routine")
    complaints: Mapped[list[Any]] = mapped_column(default=list)
    text: Mapped[str] = mapped_column(Text, default="")
    patient: Mapped[str] = mapped_column(String(200), default="")
    # the case
    saved_at: Mapped[int] = mapped_column(default=0)
    saved_seq: Mapped[int] = mapped_column(default=0)
    saved_files: Mapped[list[Any]] = mapped_column(default=list)
    seen_at: Mapped[int] = mapped_column(default=0)
    closed_at: Mapped[int] = mapped_column(default=0, index=True)
    # what it took of a metered link, as its kiosk counts; 0 where that has no budget
    link_bytes: Mapped[int] = mapped_column(default=0)
    link_cost: Mapped[float] = mapped_column(default=0.0)
    link_currency: Mapped[str] = mapped_column(String(8), default="")


class Call(Record):
    """One attempt of a consult. `phase` and `doctor_id` change by conditional UPDATE alone."""

    __tablename__ = "call"
    __table_args__ = (Index("call_by_phase", "phase"), Index("call_by_doctor", "doctor_id"))

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    consult_id: Mapped[str] = mapped_column(ForeignKey("consult.id"), index=True)
    kiosk_id: Mapped[str] = mapped_column(ForeignKey("kiosk.id"), index=True)
    by_doctor: Mapped[bool] = mapped_column(default=False)
    phase: Mapped[str] = mapped_column(String(20))
    requested_at: Mapped[int]
    kiosk_requested_at: Mapped[int] = mapped_column(default=0)
    emergency: Mapped[bool] = mapped_column(default=False)
    emergency_at: Mapped[int] = mapped_column(default=0)
    everyone: Mapped[bool] = mapped_column(default=False)
    doctor_id: Mapped[int | None] = mapped_column(ForeignKey("doctor.id"))
    console_id: Mapped[str] = mapped_column(String(16), default="")  # the page that holds it
    claimed_at: Mapped[int] = mapped_column(default=0)
    answered_at: Mapped[int] = mapped_column(default=0)
    ended_at: Mapped[int] = mapped_column(default=0)
    outcome: Mapped[str] = mapped_column(String(20), default="")
    # the kiosk's side of the end, stored even where the hub was first
    kiosk_outcome: Mapped[str] = mapped_column(String(20), default="")
    kiosk_answered_at: Mapped[int] = mapped_column(default=0)
    kiosk_ended_at: Mapped[int] = mapped_column(default=0)
    # the media leg
    offer_leg: Mapped[int] = mapped_column(default=0)
    offer_sdp: Mapped[bytes] = mapped_column(LargeBinary, default=b"")
    answer_leg: Mapped[int] = mapped_column(default=0)
    answer_sdp: Mapped[bytes] = mapped_column(LargeBinary, default=b"")
    media_leg: Mapped[int] = mapped_column(default=0)
    media_state: Mapped[str] = mapped_column(String(20), default="")
    leg_wanted: Mapped[int] = mapped_column(default=0)  # the console asked for one above this; 0: it did not


class Uplink(Record):
    """A durable message of a kiosk, as it came: makes intake idempotent, and keeps every note."""

    __tablename__ = "uplink"

    kiosk_id: Mapped[str] = mapped_column(ForeignKey("kiosk.id"), primary_key=True)
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    consult_id: Mapped[str] = mapped_column(ForeignKey("consult.id"), index=True)
    kind: Mapped[int]
    seq: Mapped[int]
    kiosk_sent_at: Mapped[int]
    arrived_at: Mapped[int]
    body: Mapped[bytes] = mapped_column(LargeBinary)
    # in what order things happened there, whatever its wall clock said: the machine's start and its monotonic clock
    kiosk_boot: Mapped[str] = mapped_column(String(8), default="")
    kiosk_mono_ms: Mapped[int] = mapped_column(default=0)
    clock_trusted: Mapped[bool] = mapped_column(default=False)


class Heard(Record):
    """The highest counter taken from a kiosk, for each kind of message that says how things stand."""

    __tablename__ = "heard"

    kiosk_id: Mapped[str] = mapped_column(ForeignKey("kiosk.id"), primary_key=True)
    kind: Mapped[int] = mapped_column(primary_key=True)
    counter: Mapped[int]


class HubProcess(Record):
    """No number up to `counter` is used again by this process."""

    __tablename__ = "hub_process"

    process: Mapped[str] = mapped_column(String(20), primary_key=True)
    counter: Mapped[int]


class WentBack(Record):
    """The hub was restored: what it had accepted since then may be lost, and kiosks are asked for it. One row."""

    __tablename__ = "went_back"

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=False)
    epoch: Mapped[str] = mapped_column(String(16))
    since: Mapped[int]


class Downlink(Record):
    """A durable message to a kiosk, kept until its receipt."""

    __tablename__ = "downlink"
    __table_args__ = (Index("downlink_waiting", "kiosk_id", "receipted_at"),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    kiosk_id: Mapped[str] = mapped_column(ForeignKey("kiosk.id"))
    consult_id: Mapped[str] = mapped_column(ForeignKey("consult.id"))
    seq: Mapped[int]
    created_at: Mapped[int]
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    receipted_at: Mapped[int] = mapped_column(default=0)


class Content(Record):
    """Bytes of a file from or to one kiosk. Held a kiosk each: nobody can write into another's."""

    __tablename__ = "content"

    kiosk_id: Mapped[str] = mapped_column(ForeignKey("kiosk.id"), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    size: Mapped[int]
    mime: Mapped[str] = mapped_column(String(100))
    ranges: Mapped[list[Any]] = mapped_column(default=list)
    waiting_bytes: Mapped[int] = mapped_column(default=0)  # of these, in `piece` and not yet in the file
    complete: Mapped[bool] = mapped_column(default=False)
    damage: Mapped[str] = mapped_column(String(20), default="")  # of a photo (`hub.pictures`): no browser is given it


class Piece(Record):
    """Bytes of a file on their way in (`hub.arriving`). Numbered, so that they are added at the end of the table."""

    __tablename__ = "piece"
    __table_args__ = (Index("piece_of_file", "kiosk_id", "digest"),)

    id: Mapped[int] = mapped_column(_RowId, primary_key=True)
    kiosk_id: Mapped[str] = mapped_column(String(32))
    digest: Mapped[str] = mapped_column(String(64))
    start: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)


class CaseFile(Record):
    """A file's place in a consult."""

    __tablename__ = "case_file"

    consult_id: Mapped[str] = mapped_column(ForeignKey("consult.id"), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
    role: Mapped[str] = mapped_column(String(20))
    kiosk_captured_at: Mapped[int] = mapped_column(default=0)
    captured_at: Mapped[int]
    captured_by: Mapped[str] = mapped_column(String(100), default="")
    duration_ms: Mapped[int] = mapped_column(default=0)
    # of a rendition: its photo, and which it is, as in `wire.Manifest`
    of: Mapped[str] = mapped_column(String(64), default="")
    rendition: Mapped[str] = mapped_column(String(20), default="")
    # of a photo: the original that the kiosk has
    original_bytes: Mapped[int] = mapped_column(default=0)
    original_asked_at: Mapped[int] = mapped_column(default=0)
    original_gone_at: Mapped[int] = mapped_column(default=0)
    key: Mapped[bytes] = mapped_column(LargeBinary)  # that its chunks are sealed with, by the manifest
    key_name: Mapped[str] = mapped_column(String(16), index=True)

    def take_key(self, key: bytes) -> None:
        self.key, self.key_name = key, trust.name_of_key(key).hex()


class Turn(Record):
    """Something that was said while a call went in turns (`hub.turns`)."""

    __tablename__ = "turn"
    __table_args__ = (Index("turn_unsettled", "settled_at"),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    call_id: Mapped[str] = mapped_column(String(16), index=True)
    consult_id: Mapped[str] = mapped_column(ForeignKey("consult.id"))
    by_doctor: Mapped[bool]
    began_at: Mapped[int]
    changed_at: Mapped[int]
    end: Mapped[int] = mapped_column(default=-1)  # number of its last part, once that is here
    heard_at: Mapped[int] = mapped_column(default=0)
    settled_at: Mapped[int] = mapped_column(default=0)  # the call is over, and this is a message or was heard


class TurnPiece(Record):
    __tablename__ = "turn_piece"

    turn_id: Mapped[str] = mapped_column(ForeignKey("turn.id"), primary_key=True)
    part: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    packets: Mapped[bytes] = mapped_column(LargeBinary)  # msgpack, a list of Opus packets
    downlink_id: Mapped[str] = mapped_column(String(16), default="", index=True)


class AdviceGiven(Record):
    __tablename__ = "advice"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    consult_id: Mapped[str] = mapped_column(ForeignKey("consult.id"), index=True)
    doctor_id: Mapped[int] = mapped_column(ForeignKey("doctor.id"))
    given_by: Mapped[str] = mapped_column(String(100))
    given_at: Mapped[int]
    text: Mapped[str] = mapped_column(Text)
    reply: Mapped[str] = mapped_column(String(64), default="")
    reply_delivered: Mapped[bool] = mapped_column(default=False)
    downlink_id: Mapped[str] = mapped_column(ForeignKey("downlink.id"), index=True)
    delivered_at: Mapped[int] = mapped_column(default=0)
    heard_at: Mapped[int] = mapped_column(default=0)


class AuditEntry(Record):
    """One line of the audit log (`hub.audit`). The database refuses to change or remove one."""

    __tablename__ = "audit"

    seq: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=False)
    at: Mapped[int]
    who: Mapped[str] = mapped_column(String(60))
    what: Mapped[str] = mapped_column(String(40), index=True)
    about: Mapped[str] = mapped_column(String(250))
    hash: Mapped[str] = mapped_column(String(64))


class AuditHead(Record):
    """The last entry's number and hash: where two processes add at once, the database lets one of them be first."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(_RowId, primary_key=True, autoincrement=False)
    seq: Mapped[int]
    hash: Mapped[str] = mapped_column(String(64))


class Event(Record):
    """What happened in a consult, when, by whom, in names that people read. The same goes to the audit log in ids."""

    __tablename__ = "event"

    id: Mapped[int] = mapped_column(_RowId, primary_key=True)
    consult_id: Mapped[str] = mapped_column(ForeignKey("consult.id"), index=True)
    kind: Mapped[str] = mapped_column(String(40))
    at: Mapped[int]
    by: Mapped[str] = mapped_column(String(100))
    call_id: Mapped[str] = mapped_column(String(16), default="")
