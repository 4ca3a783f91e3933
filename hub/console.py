"""What hub and doctor's console say to each other over the console's one WebSocket, `/console/ws`.

Text frames of JSON, each with a `type`. The server sends whole lists on a change (a hub of this kind has tens of
open calls, not thousands); files, voice replies and older cases go over HTTP (`hub.web`). Times are Unix
milliseconds, ids lower-case hex. `docs/protocol.md` shows one call message by message.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edge_agent.core.wire import MAX_OPUS_BYTES, MAX_PART_PACKETS, MAX_TURN_PARTS, Outcome, Urgency

MAX_CLIENT_BYTES = 64 * 1024


class _Json(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    pass


# --- parts


class RingCard(msgspec.Struct, frozen=True, kw_only=True):
    """A call in the waiting room, in the order it will be taken: emergencies first, then oldest first."""

    call: str
    consult: str
    kiosk: str
    site: str
    emergency: bool
    requested_at: int
    rings_me: bool  # this doctor is asked now (available, or an emergency rings everybody)
    claimed_by: str = ""  # display name, once somebody has it
    language: str = "en"
    warnings: tuple[str, ...] = ()


class Rendition(msgspec.Struct, frozen=True, kw_only=True):
    """A smaller or larger form of a photo, in a file of its own."""

    digest: str
    name: str  # "thumbnail", "preview", "original"
    size: int
    received: int
    complete: bool
    damage: Literal["", "no_picture", "too_large"] = ""


class FileCard(msgspec.Struct, frozen=True, kw_only=True):
    digest: str
    role: Literal["voice", "photo", "clip", "reply"]
    mime: str
    size: int
    received: int  # bytes here so far; equal to size when complete and verified
    complete: bool
    duration_ms: int
    captured_at: int
    damage: Literal["", "no_picture", "too_large"] = ""  # complete, and yet nothing that can be shown
    renditions: tuple[Rendition, ...] = ()  # of a photo, the smallest first; the card is of the photo itself
    original_bytes: int = 0  # of a photo: what the kiosk has beyond this
    original_asked_at: int = 0
    original_gone: bool = False  # the kiosk no longer has it


class AdviceCard(msgspec.Struct, frozen=True, kw_only=True):
    advice: str
    given_by: str
    given_at: int
    text: str
    reply: str = ""  # digest of the voice reply
    delivered_at: int = 0  # the kiosk's receipt
    heard_at: int = 0


class CallCard(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of a consult."""

    call: str
    requested_at: int
    by_doctor: bool
    doctor: str
    emergency: bool
    answered_at: int = 0
    ended_at: int = 0
    outcome: Outcome | None = None


class CaseCard(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the inbox: any consult that has a case or an unfinished call."""

    consult: str
    kiosk: str
    site: str
    opened_at: int
    urgency: Urgency
    patient: str
    complaints: tuple[str, ...]
    text: str
    state: Literal["receiving", "open", "answered", "heard", "closed"]
    photos: int
    voice_ms: int
    complete: bool  # every file named by the case is here
    seen: bool
    last_outcome: Outcome | None = None


class Case(msgspec.Struct, frozen=True, kw_only=True):
    card: CaseCard
    kiosk_online: bool
    files: tuple[FileCard, ...]
    calls: tuple[CallCard, ...]
    advice: tuple[AdviceCard, ...]
    entered_by: str = ""
    link_bytes: int = 0  # that it took of a link paid for by the byte; 0 where it is not
    link_cost: float = 0.0
    link_currency: str = ""


class DoctorCard(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    available: bool
    in_call: bool


# --- server → console


class Hello(_Json, tag="hello"):
    """First frame. `resume` is a call this doctor is still in (a reload, a hub restart): the page re-joins it."""

    name: str
    available: bool
    until: str
    now: int
    resume: str = ""
    audio_processing: bool = True  # browser echo cancellation, noise suppression, gain


class Room(_Json, tag="room"):
    queue: tuple[RingCard, ...]
    doctors: tuple[DoctorCard, ...]


class Inbox(_Json, tag="inbox"):
    cases: tuple[CaseCard, ...]


class CaseShown(_Json, tag="case"):
    """Answer to OpenCase, and again on every change while it is open here."""

    case: Case


class CallUpdate(_Json, tag="call"):
    """About the call this doctor has claimed or is placing."""

    call: str
    consult: str
    kiosk: str
    phase: Literal["calling_kiosk", "claimed", "answered", "ended"]
    kiosk_online: bool
    outcome: Outcome | None = None
    answered_at: int = 0


class KioskOffer(_Json, tag="offer"):
    """Make a new RTCPeerConnection for this leg, answer with SdpAnswer. The older one goes on until this connects."""

    call: str
    leg: int
    sdp: str
    ice_servers: tuple[dict[str, object], ...]  # as RTCConfiguration.iceServers


class KioskMedia(_Json, tag="kiosk_media"):
    """`turns`: nothing live fits, so people speak in turns until it is `connected` again."""

    call: str
    leg: int
    state: Literal["connected", "stalled", "lost", "turns"]


class TurnSound(_Json, tag="turn"):
    """A part of what the patient says, in turns; again after a reload, where nobody has said that it was heard."""

    call: str
    turn: str
    part: int
    packets: tuple[bytes, ...]  # of Opus, each in base64
    last: bool


class TurnMark(_Json, tag="turn_mark"):
    """How far what the doctor says has come: `kept` parts are in the database here, from the first."""

    call: str
    turn: str
    kept: int
    delivered: bool  # the kiosk has all of it
    heard: bool


class Refused(_Json, tag="refused"):
    """A request that can't be done, e.g. somebody else was first. `request` is its type."""

    request: str
    code: Literal["taken", "gone", "offline", "busy", "not_yours", "bad_request"]
    text: str
    call: str = ""


ToConsole = Hello | Room | Inbox | CaseShown | CallUpdate | KioskOffer | KioskMedia | TurnSound | TurnMark | Refused


# --- console → server


class SetAvailable(_Json, tag="available"):
    available: bool
    until: str = ""  # "hh:mm": when somebody is back, shown at the kiosks while nobody is here


class Claim(_Json, tag="claim"):
    """Take the call: first claim wins. Media connects and is held."""

    call: str


class Release(_Json, tag="release"):
    """Back into the waiting room, to ring on."""

    call: str


class Decline(_Json, tag="decline"):
    """No doctor will take it: the patient is offered a message. Also for a claimed call."""

    call: str


class Talk(_Json, tag="talk"):
    """Answer the claimed call: both sides are heard and seen from now."""

    call: str


class HangUp(_Json, tag="hang_up"):
    call: str


class RingKiosk(_Json, tag="ring_kiosk"):
    consult: str


class SdpAnswer(_Json, tag="answer"):
    call: str
    leg: int
    sdp: str


class WantNewLeg(_Json, tag="want_new_leg"):
    """The page lost its media, or was reloaded."""

    call: str
    leg: int


class SayTurn(_Json, tag="say_turn"):
    """Some of what the doctor says, while it is said. Answered with TurnMark; sent again where it is not."""

    call: str
    turn: str
    part: Annotated[int, msgspec.Meta(ge=0, lt=MAX_TURN_PARTS)]
    packets: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_OPUS_BYTES)], ...],
        msgspec.Meta(max_length=MAX_PART_PACKETS),
    ]
    last: bool = False


class TurnWasHeard(_Json, tag="turn_heard"):
    call: str
    turn: str


class OpenCase(_Json, tag="open_case"):
    consult: str


class LeaveCase(_Json, tag="leave_case"):
    consult: str


class AskOriginal(_Json, tag="ask_original"):
    """The kiosk is to send the original of this photo."""

    consult: str
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class CloseCase(_Json, tag="close_case"):
    consult: str


FromConsole = (
    SetAvailable | Claim | Release | Decline | Talk | HangUp | RingKiosk | SdpAnswer | WantNewLeg | SayTurn
    | TurnWasHeard | OpenCase | LeaveCase | CloseCase | AskOriginal
)  # fmt: skip

_decoder = msgspec.json.Decoder(FromConsole)


class BadRequest(ValueError):
    pass


def parse(text: str | bytes) -> FromConsole:
    """Raises BadRequest."""
    if len(text) > MAX_CLIENT_BYTES:
        raise BadRequest("too long")
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeError, RecursionError) as error:
        raise BadRequest(str(error)) from None


def encode(message: ToConsole) -> str:
    return msgspec.json.encode(message).decode()
