"""What one action of a person changes in the store, and what is read from it at the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from edge_agent.core import wire
from edge_agent.core.ranges import Range
from edge_agent.core.retries import SetAside

# --- what may be changed


@dataclass(frozen=True, slots=True)
class ConsultOpened:
    consult: bytes
    opened_at_ms: int
    opened_by: str


@dataclass(frozen=True, slots=True)
class MessageQueued:
    message: wire.Message


@dataclass(frozen=True, slots=True)
class MessagesFreed:
    """The hub has them. They stay for `KEPT_MS`, in case that it loses them."""

    ids: tuple[bytes, ...]
    at_ms: int


@dataclass(frozen=True, slots=True)
class MessageSetAside:
    """Sent no more for now; when it is tried again is told by how often, and when, that was."""

    id: bytes
    aside: SetAside


@dataclass(frozen=True, slots=True)
class FileKept:
    """The file is on the disk already, see `Store.keep_file`."""

    consult: bytes
    digest: bytes
    role: wire.FileRole
    mime: str
    size: int
    captured_at_ms: int
    captured_by: str
    duration_ms: int = 0
    of: bytes = b""  # the photo that this is a rendition of
    rendition: str = ""  # as in `wire.Manifest`


@dataclass(frozen=True, slots=True)
class FileForgotten:
    consult: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class FileDelivered:
    """The hub has it. A photo's original, which nobody has asked for, counts with it: it may go when room is short."""

    consult: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class FileAsked:
    """It is to be delivered after all."""

    consult: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class DraftKept:
    consult: bytes
    content: bytes


@dataclass(frozen=True, slots=True)
class DraftGone:
    consult: bytes


@dataclass(frozen=True, slots=True)
class CaseKept:
    consult: bytes
    saved_at_ms: int
    patient: str
    complaints: tuple[str, ...]
    urgency: str


@dataclass(frozen=True, slots=True)
class ProgressCame:
    consult: bytes
    step: str  # "received", "seen" or "closed"
    at_ms: int


@dataclass(frozen=True, slots=True)
class ConsultCost:
    """What the link has carried for it so far, and at what price."""

    consult: bytes
    wire_bytes: int
    cost: float


@dataclass(frozen=True, slots=True)
class AdviceCame:
    consult: bytes
    advice: wire.Advice


@dataclass(frozen=True, slots=True)
class AdviceWasHeard:
    advice: bytes
    heard_at_ms: int


@dataclass(frozen=True, slots=True)
class ReplyFile:
    """How far a file from the hub has come."""

    consult: bytes
    digest: bytes
    mime: str
    size: int
    ranges: tuple[Range, ...] = ()
    complete: bool = False
    key: bytes = b""  # that its chunks are sealed with


@dataclass(frozen=True, slots=True)
class ValueKept:
    key: str
    value: bytes


Change = (
    ConsultOpened | MessageQueued | MessagesFreed | MessageSetAside | FileKept | FileForgotten | FileDelivered
    | FileAsked | ConsultCost | DraftKept | DraftGone | CaseKept | ProgressCame | AdviceCame | AdviceWasHeard
    | ReplyFile | ValueKept
)  # fmt: skip


# --- what is read at the start


@dataclass(slots=True)
class Consult:
    id: bytes
    opened_at_ms: int
    opened_by: str
    next_seq: int = 1
    saved_at_ms: int = 0
    seen_at_ms: int = 0
    closed_at_ms: int = 0
    patient: str = ""
    complaints: tuple[str, ...] = ()
    urgency: str = "routine"
    received_at_ms: int = 0  # nothing of it was without the hub's receipt then
    wire_bytes: int = 0
    cost: float = 0.0  # in the currency of the kiosk's budget
    emergency: bool = False  # a call or note of it was one, whether or not that is at the hub already


@dataclass(slots=True)
class StoredAdvice:
    consult: bytes
    advice: wire.Advice
    heard_at_ms: int = 0


class Contents(NamedTuple):
    consults: list[Consult]
    waiting: list[wire.Message]  # in the order they were queued
    set_aside: dict[bytes, SetAside]  # of those, by id
    files: list[FileKept]  # not yet at the hub
    drafts: list[tuple[bytes, bytes]]
    advice: list[StoredAdvice]
    replies: list[ReplyFile]
    values: dict[str, bytes]
