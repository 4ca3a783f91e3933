"""The wire protocol between kiosk and hub: topics, messages, and their compact binary form.

Pure: bytes in, messages out. The one module of the kiosk that the hub imports with `sdp` and `settings`.
`docs/protocol.md` tells who sends what when; this module is where it is true.

A message is a msgpack array `[version, kind, id, consult, seq, sent_at_ms, body, stamp?]`; the body is an array too, so
that a later release may append fields (older readers ignore them, newer ones take the default). What goes through the
broker is this, signed and sealed by `edge_agent.core.trust`. A *durable*
message stands in its sender's store until the far end's `Receipt` names its id; all others are state that is
sent again when asked for, and losing one costs time only.
"""

from __future__ import annotations

import re
import secrets
import struct
from typing import Any, ClassVar, Literal

import msgspec

VERSION = 1
TOPIC_ROOT = "tc1"
MAX_MESSAGE_BYTES = 128 * 1024  # the largest chunk with room to spare; anything longer is refused unread
MAX_SDP_BYTES = 800  # compressed; at 18 kbit/s that is 0.36 s
CHUNK_BYTES = 16 * 1024  # link-adaptive sizes come with the store-and-forward work
CONSULT_ID_BYTES = 16
MESSAGE_ID_BYTES = 8
DIGEST_BYTES = 32
FILE_KEY_BYTES = 32
BOOT_BYTES = 4
MAX_TURN_PARTS = 64
MAX_PART_PACKETS = 256
MAX_OPUS_BYTES = 1275
NONCE_BYTES = 8
MAX_RENDITION_NAME = 20
MAX_CURRENCY = 8
MAX_TOLD_CONSULTS = 20

_KIOSK_ID = re.compile(r"[a-z0-9][a-z0-9-]{1,30}[a-z0-9]")


class WireError(ValueError):
    """Root of what decoding may raise."""


class MalformedMessage(WireError):
    """Not a message of this protocol: count it, drop it."""


class UnknownMessage(WireError):
    """A message of a newer version or of an unknown kind: log once a kind, drop it."""

    def __init__(self, version: int, kind: int) -> None:
        super().__init__(f"message of version {version}, kind {kind}")
        self.version, self.kind = version, kind


# --- identifiers


def new_consult_id() -> bytes:
    return secrets.token_bytes(CONSULT_ID_BYTES)


def new_message_id() -> bytes:
    """Also names calls and advice."""
    return secrets.token_bytes(MESSAGE_ID_BYTES)


def new_file_key() -> bytes:
    return secrets.token_bytes(FILE_KEY_BYTES)


def is_kiosk_id(text: str) -> bool:
    """A kiosk's id is its MQTT user name and a topic level: 3 to 32 of a-z, 0-9 and inner hyphens."""
    return _KIOSK_ID.fullmatch(text) is not None


# --- topics
# tc1/<kiosk>/u/<channel> from the kiosk, tc1/<kiosk>/d/<channel> to it. Channels keep what must not wait apart
# from what may, so that a subscription or a broker's rule can tell them apart without opening a payload.

Channel = Literal["s", "c", "e", "f"]  # status (retained), call signalling, events of a consult, file chunks
ALL_KIOSKS = "_"  # not a valid kiosk id; the hub's processes announce themselves on tc1/_/d/h/<process>


def up_topic(kiosk: str, channel: Channel) -> str:
    return f"{TOPIC_ROOT}/{kiosk}/u/{channel}"


def down_topic(kiosk: str, channel: Channel) -> str:
    return f"{TOPIC_ROOT}/{kiosk}/d/{channel}"


def hub_topic(process: str) -> str:
    """Retained, with a last will: while any process says online, the hub is reachable."""
    return f"{TOPIC_ROOT}/{ALL_KIOSKS}/d/h/{process}"


def parse_up_topic(topic: str) -> tuple[str, str]:
    """`(kiosk id, channel)` of a topic that a kiosk publishes on; raises MalformedMessage."""
    parts = topic.split("/")
    if len(parts) != 4 or parts[0] != TOPIC_ROOT or parts[2] != "u" or not is_kiosk_id(parts[1]):
        raise MalformedMessage(f"not an uplink topic: {topic[:80]!r}")
    return parts[1], parts[3]


# --- messages


class Body(msgspec.Struct, frozen=True, array_like=True):
    """What a message carries. `KIND` is its number for ever, `CHANNEL` where it travels."""

    KIND: ClassVar[int]
    CHANNEL: ClassVar[Channel]
    DURABLE: ClassVar[bool] = False


Digest = bytes
Urgency = Literal["routine", "soon", "urgent", "emergency"]
FileRole = Literal["voice", "photo", "clip", "reply"]
Outcome = Literal[
    "answered",  # they talked and one side hung up
    "cancelled",  # the patient or worker took it back
    "declined",  # a doctor said no
    "unanswered",  # nobody took it in time
    "link_lost",  # the link died and did not come back within a minute
    "doctor_gone",  # the doctor's browser did not come back within a minute
]
CallPhase = Literal[
    "ringing",  # the hub has it and it rings at a console
    "claimed",  # a doctor has taken it; media is being connected and held
    "answered",  # the doctor speaks
    "ended",  # over; `outcome` says how
    "calling_kiosk",  # the doctor rings the kiosk
]


# ... from the kiosk


class Status(Body, frozen=True, array_like=True):
    """Retained on u/s, and the kiosk's last will with `online=False`. No patient data."""

    KIND = 1
    CHANNEL = "s"
    online: bool
    software: str = ""
    boot: bytes = b""  # random, one a start of the agent
    clock_trusted: bool = False
    missing: tuple[str, ...] = ()  # "camera", "microphone", "speaker", "button", "lamp"
    warnings: tuple[str, ...] = ()  # "button_stuck", "disk_low", …
    call: bytes = b""  # the call under way, b"" for none
    language: str = "en"
    session: bytes = b""  # random, one a connection to the broker: what was sent on an earlier one may be lost


class ConsultOpened(Body, frozen=True, array_like=True):
    KIND = 2
    CHANNEL = "e"
    DURABLE = True
    opened_at_ms: int
    opened_by: str  # "patient", or the health worker's id


class CallRequested(Body, frozen=True, array_like=True):
    """The press. Sent again with `emergency=True` when the button is held on."""

    KIND = 3
    CHANNEL = "c"
    DURABLE = True
    call: bytes
    requested_at_ms: int
    emergency: bool = False


class CallEnded(Body, frozen=True, array_like=True):
    """The kiosk's side of the end; `answered_at_ms` is 0 where nobody spoke."""

    KIND = 4
    CHANNEL = "c"
    DURABLE = True
    call: bytes
    outcome: Outcome
    answered_at_ms: int
    ended_at_ms: int


class CallAccepted(Body, frozen=True, array_like=True):
    """The patient presses while the doctor rings the kiosk."""

    KIND = 5
    CHANNEL = "c"
    call: bytes


class Offer(Body, frozen=True, array_like=True):
    """`leg` counts the media connections within a call from 1; `sdp` as in `edge_agent.core.sdp`. The same leg's
    again, or its `Answer`'s, differs in nothing but more candidates: a STUN or TURN server took its time."""

    KIND = 6
    CHANNEL = "c"
    call: bytes
    leg: int
    sdp: bytes


class MediaState(Body, frozen=True, array_like=True):
    KIND = 7
    CHANNEL = "c"
    call: bytes
    leg: int
    # turns: nothing live fits, or the line did not come back while the hub is reached; "connected" ends it
    state: Literal["connected", "stalled", "lost", "turns"]


class CaseNote(Body, frozen=True, array_like=True):
    """What was asked and tapped; the last one by seq counts, earlier ones stay in the record."""

    KIND = 8
    CHANNEL = "e"
    DURABLE = True
    entered_by: str
    entered_at_ms: int
    urgency: Urgency = "routine"
    complaints: tuple[str, ...] = ()  # codes of the kiosk's pictograms, e.g. "fever", "cough"
    text: str = ""
    patient: str = ""  # how the clinic names the patient; empty for an anonymous press


class Manifest(Body, frozen=True, array_like=True):
    """A file of this consult is on the sender's disk. The far end answers with `Have`. Both directions.

    A photo may come in several qualities, each a file of its own; a smaller or larger one names the photo in `of`. An
    older reader takes it for one photo more."""

    KIND = 9
    CHANNEL = "e"
    DURABLE = True
    digest: Digest  # SHA-256 of the whole file
    role: FileRole
    mime: str
    size: int
    captured_at_ms: int
    captured_by: str
    duration_ms: int = 0
    key: bytes = msgspec.field(default_factory=new_file_key)  # that its chunks are sealed with
    of: Digest = b""  # the photo that this is a rendition of
    rendition: str = ""  # "thumbnail", "preview" or "original"; "" for the photo itself
    original_bytes: int = 0  # of a photo: what its original has, which stays there until `FileWanted`


class Chunk(Body, frozen=True, array_like=True):
    """Bytes of a file in place. Both directions. On the wire as `encode_chunk` says: its key names consult and file."""

    KIND = 10
    CHANNEL = "f"
    digest: Digest
    offset: int
    data: bytes


class Have(Body, frozen=True, array_like=True):
    """What the receiver of a file holds, as sorted disjoint half-open ranges. Both directions. `complete` only
    after the digest was verified and the file committed; empty and not complete asks for all of it."""

    KIND = 11
    CHANNEL = "e"
    digest: Digest
    ranges: tuple[tuple[int, int], ...]
    complete: bool


class CaseSaved(Body, frozen=True, array_like=True):
    """The guided message is finished: these files and the last note make the case."""

    KIND = 12
    CHANNEL = "e"
    DURABLE = True
    saved_at_ms: int
    files: tuple[Digest, ...]


class AdviceHeard(Body, frozen=True, array_like=True):
    KIND = 13
    CHANNEL = "e"
    DURABLE = True
    advice: bytes
    heard_at_ms: int


class Receipt(Body, frozen=True, array_like=True):
    """These messages are committed here. Both directions; frees them at their sender."""

    KIND = 14
    CHANNEL = "e"
    ids: tuple[bytes, ...]


class TurnPart(Body, frozen=True, array_like=True):
    """Some of what is being said in a call that goes in turns, while it is said. Both directions."""

    KIND = 16
    CHANNEL = "c"
    DURABLE = True
    call: bytes
    turn: bytes
    part: int  # from 0
    packets: tuple[bytes, ...]  # of Opus, in order
    last: bool = False


class TurnHeard(Body, frozen=True, array_like=True):
    """Played to its end. Both directions."""

    KIND = 17
    CHANNEL = "c"
    DURABLE = True
    call: bytes
    turn: bytes


class FileGone(Body, frozen=True, array_like=True):
    """The original that was wanted of this photo is no longer at the kiosk."""

    KIND = 18
    CHANNEL = "e"
    DURABLE = True
    digest: Digest


class Spent(Body, frozen=True, array_like=True):
    """What a metered link has carried, as the kiosk counts it: hourly, and when what may go changes."""

    KIND = 23
    CHANNEL = "s"
    day_bytes: int
    month_bytes: int
    day_limit: int = 0  # 0: none
    month_limit: int = 0
    month_cost: float = 0.0
    currency: str = ""
    held: Literal["", "cheap_hours", "day", "month"] = ""  # photos and the like wait for this
    held_until_ms: int = 0
    consults: tuple[tuple[bytes, int, float], ...] = ()  # some that it went up for since: bytes and money in all


class TimeAsked(Body, frozen=True, array_like=True):
    """What time is it? Asked whenever the hub is reached; `nonce` makes sure that the answer is no older one."""

    KIND = 15
    CHANNEL = "s"
    nonce: bytes


# ... from the hub


class HubStatus(Body, frozen=True, array_like=True):
    """Retained on `hub_topic`, last will with `online=False`. `time_ms` is the hub's clock when sent."""

    KIND = 40
    CHANNEL = "s"
    online: bool
    software: str = ""
    time_ms: int = 0
    session: bytes = b""  # as in Status
    # The hub was restored from a backup: a random name of that, and when the backup was made, by the hub's clock.
    epoch: bytes = b""
    lost_since_ms: int = 0


class Presence(Body, frozen=True, array_like=True):
    """To one kiosk: who would answer now. Sent on every change and when the kiosk comes online."""

    KIND = 41
    CHANNEL = "s"
    state: Literal["here", "busy", "nobody"]
    position: int = 0  # this kiosk's place in the queue, from 1; with "busy" and no call, the place it would get
    until: str = ""  # "hh:mm" local to the hub's site: when somebody is expected, where known


class IceServer(msgspec.Struct, frozen=True, array_like=True):
    urls: tuple[str, ...]
    username: str = ""
    credential: str = ""


class CallState(Body, frozen=True, array_like=True):
    """Where the hub says a call stands. Idempotent: sent on every change, and again for every `CallRequested`,
    `Offer` or reconnecting kiosk, so that either side may have restarted."""

    KIND = 42
    CHANNEL = "c"
    call: bytes
    phase: CallPhase
    doctor: str = ""  # display name
    outcome: Outcome | None = None
    ice_servers: tuple[IceServer, ...] = ()
    everyone: bool = False  # an emergency rings every doctor by now


class Answer(Body, frozen=True, array_like=True):
    KIND = 43
    CHANNEL = "c"
    call: bytes
    leg: int
    sdp: bytes


class NewLegWanted(Body, frozen=True, array_like=True):
    """The browser lost or reloaded its side: make a fresh offer with a leg above `leg`."""

    KIND = 44
    CHANNEL = "c"
    call: bytes
    leg: int


class Advice(Body, frozen=True, array_like=True):
    KIND = 45
    CHANNEL = "e"
    DURABLE = True
    advice: bytes
    given_by: str
    given_at_ms: int
    text: str
    reply: Digest = b""  # a voice reply whose Manifest (role "reply") follows


class Progress(Body, frozen=True, array_like=True):
    """A step that a person waits for: the doctor has opened the case, or closed it."""

    KIND = 46
    CHANNEL = "e"
    DURABLE = True
    step: Literal["seen", "closed"]
    at_ms: int


class FileWanted(Body, frozen=True, array_like=True):
    """A doctor asks for the original of this photo. Answered with its `Manifest`, or with `FileGone`."""

    KIND = 48
    CHANNEL = "e"
    DURABLE = True
    digest: Digest


class CourierReceipt(Body, frozen=True, array_like=True):
    """What a courier has brought is committed here: these messages, and these files whole, each by consult and digest.
    It travels as the bundle did and may be days old, so unlike `Receipt` it does not expire; it frees the same."""

    KIND = 49
    CHANNEL = "e"
    DURABLE = True
    ids: tuple[bytes, ...] = ()
    files: tuple[tuple[bytes, Digest], ...] = ()


class TimeTold(Body, frozen=True, array_like=True):
    KIND = 47
    CHANNEL = "s"
    nonce: bytes
    time_ms: int  # of the hub's clock


BODIES: dict[int, type[Body]] = {
    body.KIND: body
    for body in (
        Status, ConsultOpened, CallRequested, CallEnded, CallAccepted, Offer, MediaState, CaseNote, Manifest,
        Chunk, Have, CaseSaved, AdviceHeard, Receipt, TimeAsked, TurnPart, TurnHeard, Spent,
        FileGone,
        HubStatus, Presence, CallState, Answer, NewLegWanted, Advice, Progress, TimeTold, FileWanted, CourierReceipt,
    )
}  # fmt: skip


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """When a kiosk's durable message was made, by what its clocks were worth then. `boot` and `mono_ms` order what
    happened, whatever the wall clock said: they are the start of the machine and its monotonic clock. The times in the
    body are right where `clock_trusted`; where not, but `same_boot`, they are by the clock that `sent_at_ms` is by,
    and so tell how long ago it was; else nobody knows."""

    boot: bytes
    mono_ms: int
    clock_trusted: bool
    same_boot: bool = True


class Message(msgspec.Struct, frozen=True):
    """A body with its address. `consult` is b"" where it belongs to none; `seq` counts the durable messages of
    one sender within one consult from 1, and is 0 for all others."""

    body: Body
    consult: bytes = b""
    id: bytes = msgspec.field(default_factory=new_message_id)
    seq: int = 0
    sent_at_ms: int = 0
    stamp: Stamp | None = None


class _Envelope(msgspec.Struct, array_like=True):
    version: int
    kind: int
    id: bytes
    consult: bytes
    seq: int
    sent_at_ms: int
    body: msgspec.Raw
    stamp: Stamp | None = None


_encoder = msgspec.msgpack.Encoder()
_envelope_decoder = msgspec.msgpack.Decoder(_Envelope)
_body_decoders: dict[int, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(body) for kind, body in BODIES.items()
}


def encode(message: Message) -> bytes:
    body = message.body
    head = (VERSION, body.KIND, message.id, message.consult, message.seq, message.sent_at_ms, body)
    return _encoder.encode(head if message.stamp is None else (*head, message.stamp))


def decode(payload: bytes) -> Message:
    """Raises MalformedMessage or UnknownMessage, nothing else."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise MalformedMessage(f"{len(payload)} bytes, at most {MAX_MESSAGE_BYTES} are taken")
    try:
        envelope = _envelope_decoder.decode(payload)
        if envelope.version > VERSION or (envelope.version == VERSION and envelope.kind not in BODIES):
            raise UnknownMessage(envelope.version, envelope.kind)
        _check(envelope)
        body = _body_decoders[envelope.kind].decode(envelope.body)
        _check_body(body)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedMessage(str(error)) from None
    return Message(body, envelope.consult, envelope.id, envelope.seq, envelope.sent_at_ms, envelope.stamp)


_OFFSET = struct.Struct(">I")


def encode_chunk(chunk: Chunk) -> bytes:
    """Offset and bytes, and nothing else: there are four a second on the thinnest link."""
    return _OFFSET.pack(chunk.offset) + chunk.data


def decode_chunk(payload: bytes, consult: bytes, digest: Digest) -> Message:
    """Of the file whose key opened it. Raises MalformedMessage."""
    return Message(Chunk(digest, *split_chunk(payload)), consult)


def split_chunk(payload: bytes) -> tuple[int, bytes]:
    """Offset and bytes. Raises MalformedMessage."""
    if not _OFFSET.size < len(payload) <= MAX_MESSAGE_BYTES:
        raise MalformedMessage("a chunk without bytes, or with too many")
    (offset,) = _OFFSET.unpack_from(payload)
    return offset, payload[_OFFSET.size :]


def _check(envelope: _Envelope) -> None:
    if envelope.version != VERSION:
        raise MalformedMessage(f"version {envelope.version}")
    if len(envelope.id) != MESSAGE_ID_BYTES:
        raise MalformedMessage("message id of a wrong length")
    if len(envelope.consult) not in (0, CONSULT_ID_BYTES):
        raise MalformedMessage("consult id of a wrong length")
    if not 0 <= envelope.seq < 2**32 or not 0 <= envelope.sent_at_ms < 2**53:
        raise MalformedMessage("number out of range")
    stamp = envelope.stamp
    if stamp is not None and (len(stamp.boot) != BOOT_BYTES or not 0 <= stamp.mono_ms < 2**53):
        raise MalformedMessage("stamp out of range")


def _check_body(body: Body) -> None:
    """What the types alone do not say: lengths of identifiers and files that could not be stored."""
    call = getattr(body, "call", None)
    if call is not None and len(call) not in (
        (0, MESSAGE_ID_BYTES) if isinstance(body, Status) else (MESSAGE_ID_BYTES,)
    ):
        raise MalformedMessage("call id of a wrong length")
    if isinstance(body, (Manifest, Chunk, Have, FileWanted, FileGone)) and len(body.digest) != DIGEST_BYTES:
        raise MalformedMessage("digest of a wrong length")
    if isinstance(body, Manifest) and (not 0 < body.size <= 2**32 or len(body.key) != FILE_KEY_BYTES):
        raise MalformedMessage("file size or key out of range")
    if isinstance(body, Manifest) and (
        len(body.of) not in (0, DIGEST_BYTES)
        or body.of == body.digest
        or len(body.rendition) > MAX_RENDITION_NAME
        or not 0 <= body.original_bytes <= 2**32
    ):
        raise MalformedMessage("rendition out of range")
    if isinstance(body, (TimeAsked, TimeTold)) and len(body.nonce) != NONCE_BYTES:
        raise MalformedMessage("nonce of a wrong length")
    if isinstance(body, HubStatus) and (len(body.epoch) > MESSAGE_ID_BYTES or not 0 <= body.lost_since_ms < 2**53):
        raise MalformedMessage("epoch out of range")
    if isinstance(body, Spent) and not (
        all(0 <= count < 2**53 for count in (body.day_bytes, body.month_bytes, body.day_limit, body.month_limit))
        and 0 <= body.month_cost < 1e12
        and 0 <= body.held_until_ms < 2**53
        and len(body.currency) <= MAX_CURRENCY
        and len(body.consults) <= MAX_TOLD_CONSULTS
        and all(
            len(id) == CONSULT_ID_BYTES and 0 <= count < 2**53 and 0 <= cost < 1e12 for id, count, cost in body.consults
        )
    ):
        raise MalformedMessage("what was spent is out of range")
    if isinstance(body, TimeTold) and not 0 <= body.time_ms < 2**53:
        raise MalformedMessage("time out of range")
    if isinstance(body, Chunk) and (not 0 <= body.offset < 2**32 or not body.data):
        raise MalformedMessage("chunk out of range")
    if isinstance(body, (Offer, Answer)) and (len(body.sdp) > MAX_SDP_BYTES or not 0 < body.leg < 2**16):
        raise MalformedMessage("session description too long, or leg out of range")
    if isinstance(body, (TurnPart, TurnHeard)) and len(body.turn) != MESSAGE_ID_BYTES:
        raise MalformedMessage("turn id of a wrong length")
    if isinstance(body, TurnPart) and (
        not 0 <= body.part < MAX_TURN_PARTS
        or len(body.packets) > MAX_PART_PACKETS
        or not all(0 < len(packet) <= MAX_OPUS_BYTES for packet in body.packets)
    ):
        raise MalformedMessage("part of a turn out of range")
    if isinstance(body, CaseSaved) and any(len(digest) != DIGEST_BYTES for digest in body.files):
        raise MalformedMessage("digest of a wrong length")
    if isinstance(body, (Advice, AdviceHeard)) and len(body.advice) != MESSAGE_ID_BYTES:
        raise MalformedMessage("advice id of a wrong length")
    if isinstance(body, CourierReceipt) and any(
        (len(consult), len(digest)) != (CONSULT_ID_BYTES, DIGEST_BYTES) for consult, digest in body.files
    ):
        raise MalformedMessage("file of a wrong length")
    if isinstance(body, (Receipt, CourierReceipt)) and any(len(id) != MESSAGE_ID_BYTES for id in body.ids):
        raise MalformedMessage("message id of a wrong length")
