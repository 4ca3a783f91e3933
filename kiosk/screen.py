"""What the kiosk's screen is told and what it may ask: the messages of the page's WebSocket.

Text frames are JSON. The agent sends a whole `View` on every change, and the page is a function of the last one; the
page sends `Action`s. Binary frames carry pictures: one byte of `PictureKind`, one byte of flags (1 = key frame),
four bytes big-endian of milliseconds, then the picture. Texts are already in the kiosk's language: the page knows
no words of its own.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

import msgspec

Screen = Literal[
    "idle",  # the big button
    "ringing",  # heard by the machine, then by the hub
    "claimed",  # a doctor is coming on
    "live",
    "lost",  # the line broke in the call; mending it
    "turns",  # nothing live fits: the button is held to speak
    "incoming",  # the doctor rings the kiosk
    "offer",  # nobody could talk: a message instead?
    "draft",  # the guided message
    "saved",  # the message is on disk
    "ended",  # a call is over: thanks, and what comes next
    "emergency",  # offline, or nobody: the clinic's own instruction
    "advice",  # the doctor's answer is shown and played
]
DraftStep = Literal["voice", "photo", "complaint", "urgency", "review"]
ConsultStep = Literal["draft", "saved", "received", "seen", "answered", "heard", "closed"]


class PictureKind(IntEnum):
    FAR_VP8 = 1
    FAR_JPEG = 2
    OWN_JPEG = 3


# --- to the page


class PresenceView(msgspec.Struct, frozen=True, kw_only=True):
    state: Literal["here", "busy", "nobody", "offline"]
    position: int = 0
    until: str = ""
    text: str = ""  # the sentence to show, e.g. "A doctor is here"


class CallView(msgspec.Struct, frozen=True, kw_only=True):
    heard_by: Literal["machine", "hub", "person"]  # how far the press has come
    emergency: bool = False
    doctor: str = ""
    live_since_ms: int = 0  # Unix time; 0 before
    cancel_asked: bool = False  # the spoken question stands: hold again to stop
    media: Literal["", "connecting", "flowing", "stalled"] = ""


class TurnsView(msgspec.Struct, frozen=True, kw_only=True):
    """Who speaks while the call goes in turns."""

    speaking: bool  # the patient, now
    far: Literal["", "speaking", "playing"]  # the doctor: it is on its way, or is heard
    waiting: int = 0  # turns of the doctor's that are still to be heard
    sent: Literal["", "sending", "delivered", "heard"] = ""  # what the patient said last


class DraftView(msgspec.Struct, frozen=True, kw_only=True):
    step: DraftStep
    recording: bool = False
    level: float = 0.0
    elapsed_ms: int = 0
    voice_ms: int = 0  # the recorded note, 0 for none
    photos: tuple[str, ...] = ()  # file ids for /files/<id>
    complaints: tuple[str, ...] = ()
    urgency: str = "routine"
    text: str = ""
    patient: str = ""
    busy: bool = False  # a photo is being taken or a file written


class AdviceView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    consult: str
    given_by: str
    given_at_ms: int
    text: str
    voice: bool
    voice_arrived: bool
    playing: bool = False
    heard: bool = False


class ConsultView(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the worker's list."""

    id: str
    opened_at_ms: int
    patient: str
    complaints: tuple[str, ...]
    urgency: str
    step: ConsultStep
    step_text: str
    step_times: dict[ConsultStep, int] = {}  # Unix ms, of the steps that it has come to
    unsent_since_ms: int = 0  # when anything of it is not yet at the hub
    cost: str = ""  # what the link has carried for it, where that is paid for
    set_aside: bool = False  # something of it was refused; it is tried again
    advice: tuple[AdviceView, ...] = ()


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """Present while the worker's face is unlocked, and only then does it carry other people's consults."""

    name: str
    consults: tuple[ConsultView, ...]
    locks_at_ms: int
    unsent: int = 0  # consults of which something waits here, also beyond this list
    unsent_since_ms: int = 0
    budget: tuple[str, ...] = ()  # sentences: what a metered link has carried, and what waits for what


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    code: str  # "camera_missing", "button_stuck", "disk_low", "hub_unreachable", "clock_wrong", …
    text: str


class View(msgspec.Struct, frozen=True, kw_only=True):
    screen: Screen
    language: str
    words: dict[str, str]  # labels of buttons and headings in this language, by key
    title: str  # what happens now, in a few words
    detail: str = ""
    light: str = "ready"  # the lamp's pattern, to show the same on screen
    presence: PresenceView
    online: bool
    call: CallView | None = None
    turns: TurnsView | None = None
    draft: DraftView | None = None
    advice: tuple[AdviceView, ...] = ()  # waiting for the patient at the screen
    saved_consult: str = ""
    saved_step: ConsultStep | None = None
    saved_times: dict[ConsultStep, int] = {}
    saved_unsent_since_ms: int = 0
    notices: tuple[Notice, ...] = ()
    worker: WorkerView | None = None
    # "none": no worker is set up; "locked": the patient's face, with a key to touch; "pin": the keypad is asked for
    worker_face: Literal["none", "locked", "pin", "open"] = "none"
    pin_error: str = ""
    complaints: tuple[str, ...] = ()  # the pictograms on offer, by code; words has their labels
    emergency_instruction: str = ""
    languages: tuple[str, ...] = ()
    simulated: bool = False  # training banner


# --- from the page


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """One field says what is done; others go with it as the table in `ACTIONS` says."""

    do: str
    value: str = ""


ACTIONS: dict[str, str] = {
    # do: what it means
    "press": "the big button on the screen, pressed and released at once; the key Enter or space",
    "release": "the big button, or its key, let go: it is held to speak where the screen is `turns`",
    "emergency": "the big button on the screen held 2 s",
    "cancel": "stop ringing",
    "end": "hang up",
    "leave_message": "yes, leave a message (from offer, or from emergency)",
    "dismiss": "no message; or close what is shown (ended, saved, advice)",
    "record": "start recording, or stop it",
    "discard_voice": "record anew",
    "photo": "take a photo",
    "discard_photo": "value: file id",
    "complaint": "value: code; toggles",
    "urgency": "value: routine, soon or urgent",
    "text": "value: the worker's note",
    "patient": "value: how the clinic names the patient",
    "step": "value: a DraftStep, to go there",
    "next": "the next DraftStep; from review: save",
    "save": "finish the message now with what there is",
    "show_advice": "value: advice id",
    "play_advice": "value: advice id",
    "language": "value: code",
    "worker": "ask for the worker's face; while it is open, a hand is on it: not yet time to lock",
    "pin": "value: digits",
    "lock": "leave the worker's face",
    "send_again": "worker: try at once what was refused",
    "new_case": "worker: start a guided message without a call",
    "pictures_as": "value: vp8 or jpeg; sent once after connecting",
    "key_frame": "the page's decoder needs one",
}

MAX_ACTION_BYTES = 16 * 1024
_decoder = msgspec.json.Decoder(Action)


class BadAction(ValueError):
    pass


def parse_action(text: str | bytes) -> Action:
    """Raises BadAction."""
    if len(text) > MAX_ACTION_BYTES:
        raise BadAction("too long")
    try:
        action = _decoder.decode(text)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeError, RecursionError) as error:
        raise BadAction(str(error)) from None
    if action.do not in ACTIONS:
        raise BadAction(f"unknown action {action.do[:40]!r}")
    return action


def encode_view(view: View) -> str:
    return msgspec.json.encode(view).decode()


def encode_picture(kind: PictureKind, key: bool, time_ms: int, data: bytes, still: bool = False) -> bytes:
    return bytes((kind, int(key) + 2 * int(still))) + (time_ms & 0xFFFFFFFF).to_bytes(4, "big") + data
