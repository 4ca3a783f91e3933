"""What the call machine is told and what it asks for: its events (past tense) and effects (imperative).

Pure data. `edge_agent.core.call` holds the machine itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from edge_agent.core import wire


class Now(NamedTuple):
    mono: float  # seconds, monotonic: all waiting
    wall_ms: int  # Unix time, possibly wrong: what is written into records


# --- events ---


class Event:
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Pressed(Event):
    by: str = "patient"


@dataclass(frozen=True, slots=True)
class Released(Event):
    """The button comes up after `Pressed`."""


@dataclass(frozen=True, slots=True)
class HeldForEmergency(Event):
    """The button held 2 s, or the screen's."""


@dataclass(frozen=True, slots=True)
class HeldToCancel(Event):
    """The button held 5 s: asks first, and cancels when it comes again while the question stands."""


@dataclass(frozen=True, slots=True)
class CancelChosen(Event):
    """On the screen: stop ringing, hang up, or send the doctor's ringing away."""


@dataclass(frozen=True, slots=True)
class MessageChosen(Event):
    pass


@dataclass(frozen=True, slots=True)
class DismissChosen(Event):
    pass


@dataclass(frozen=True, slots=True)
class NewCaseChosen(Event):
    """The worker starts a guided message without a call."""

    by: str


@dataclass(frozen=True, slots=True)
class HubReached(Event):
    pass


@dataclass(frozen=True, slots=True)
class HubLost(Event):
    pass


@dataclass(frozen=True, slots=True)
class AddressChanged(Event):
    """The hub is reached from another of our addresses than before: what was connected from the old one is dying."""


@dataclass(frozen=True, slots=True)
class HubRang(Event):
    call: bytes


@dataclass(frozen=True, slots=True)
class HubClaimed(Event):
    call: bytes
    doctor: str
    ice_servers: tuple[wire.IceServer, ...] = ()


@dataclass(frozen=True, slots=True)
class HubAnswered(Event):
    call: bytes
    doctor: str = ""
    ice_servers: tuple[wire.IceServer, ...] = ()


@dataclass(frozen=True, slots=True)
class HubEnded(Event):
    call: bytes
    outcome: wire.Outcome


@dataclass(frozen=True, slots=True)
class DoctorRang(Event):
    """A call placed by the doctor, in a consult of before."""

    call: bytes
    consult: bytes
    doctor: str
    ice_servers: tuple[wire.IceServer, ...] = ()


@dataclass(frozen=True, slots=True)
class AnswerCame(Event):
    call: bytes
    leg: int
    sdp: bytes


@dataclass(frozen=True, slots=True)
class NewLegAsked(Event):
    call: bytes
    leg: int


@dataclass(frozen=True, slots=True)
class OfferMade(Event):
    call: bytes
    leg: int
    sdp: bytes


@dataclass(frozen=True, slots=True)
class MediaConnected(Event):
    call: bytes
    leg: int


@dataclass(frozen=True, slots=True)
class MediaStalled(Event):
    call: bytes
    leg: int


@dataclass(frozen=True, slots=True)
class MediaFlowing(Event):
    call: bytes
    leg: int


@dataclass(frozen=True, slots=True)
class MediaLost(Event):
    call: bytes
    leg: int


@dataclass(frozen=True, slots=True)
class NothingLiveFits(Event):
    """By `edge_agent.core.turns`, as is `LiveFits`."""

    call: bytes


@dataclass(frozen=True, slots=True)
class LiveFits(Event):
    """The live path, which was kept, carries a call again."""

    call: bytes


@dataclass(frozen=True, slots=True)
class MediaProcessUp(Event):
    pass


@dataclass(frozen=True, slots=True)
class MediaProcessDied(Event):
    pass


@dataclass(frozen=True, slots=True)
class DraftSaved(Event):
    pass


@dataclass(frozen=True, slots=True)
class DraftDropped(Event):
    """Left with nothing in it."""


@dataclass(frozen=True, slots=True)
class HubReplyTimedOut(Event):
    pass


@dataclass(frozen=True, slots=True)
class RingTimedOut(Event):
    pass


@dataclass(frozen=True, slots=True)
class ClaimTimedOut(Event):
    pass


@dataclass(frozen=True, slots=True)
class ReconnectTimedOut(Event):
    pass


@dataclass(frozen=True, slots=True)
class TurnsTimedOut(Event):
    pass


@dataclass(frozen=True, slots=True)
class SayTurnsDue(Event):
    pass


@dataclass(frozen=True, slots=True)
class NewLegDue(Event):
    pass


@dataclass(frozen=True, slots=True)
class OfferAgainDue(Event):
    pass


@dataclass(frozen=True, slots=True)
class EmergencyAgainDue(Event):
    pass


@dataclass(frozen=True, slots=True)
class CancelQuestionExpired(Event):
    pass


@dataclass(frozen=True, slots=True)
class ScreenTimedOut(Event):
    pass


# --- effects ---


class Effect:
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class OpenConsult(Effect):
    consult: bytes
    opened_by: str


@dataclass(frozen=True, slots=True)
class Send(Effect):
    """Durable bodies go through the store in the transaction of this event, others straight out."""

    consult: bytes
    body: wire.Body


@dataclass(frozen=True, slots=True)
class Say(Effect):
    """A prompt by its key. Replaces one under way; a `loop` goes on until another or `Hush`."""

    key: str
    loop: bool = False


@dataclass(frozen=True, slots=True)
class Hush(Effect):
    pass


@dataclass(frozen=True, slots=True)
class StartMedia(Effect):
    call: bytes
    leg: int
    ice_servers: tuple[wire.IceServer, ...]
    held: bool


@dataclass(frozen=True, slots=True)
class GiveAnswer(Effect):
    call: bytes
    leg: int
    sdp: bytes


@dataclass(frozen=True, slots=True)
class UnholdMedia(Effect):
    call: bytes


@dataclass(frozen=True, slots=True)
class RestMedia(Effect):
    """Keep the connection, and send next to nothing on it: what is said in turns needs the link."""

    call: bytes


@dataclass(frozen=True, slots=True)
class Speak(Effect):
    """A turn begins, after its tone."""


@dataclass(frozen=True, slots=True)
class StopSpeaking(Effect):
    pass


@dataclass(frozen=True, slots=True)
class StopMedia(Effect):
    pass


@dataclass(frozen=True, slots=True)
class OpenDraft(Effect):
    """Show the guided message of this consult, from where it stands."""

    consult: bytes
    by: str


@dataclass(frozen=True, slots=True)
class PressDraft(Effect):
    """The button while the guided message is on: its next natural step."""
