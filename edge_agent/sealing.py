"""The kiosk's end of `edge_agent.core.trust`: every message to the hub is signed and sealed here, every one from it
opened and judged. Nothing else is sent, and nothing else is believed.

Counters are on disk ahead of use (`to_save`, every few minutes), and so is how far the hub's have come: what was said
before the last save is refused even after a restart without a clock.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge_agent.clock import KioskClock
from edge_agent.core import trust, wire

log = logging.getLogger(__name__)

REFUSALS_TO_SHOW = 3  # of what nobody but a stranger would say; fewer are an accident

FileKeys = Callable[[bytes], tuple[bytes, bytes, bytes] | None]


class _Saved(msgspec.Struct, array_like=True):
    counter: int = 0
    hub: bytes = b""
    heard: dict[str, int] = {}


class Sealing:
    def __init__(self, kiosk: str, own: trust.OwnKeys, hub: trust.FarKeys, clock: KioskClock, saved: bytes) -> None:
        """`saved` is what `to_save` gave last, b"" for nothing."""
        self.kiosk, self._own, self._hub, self._clock = kiosk, own, hub, clock
        self._hub_name = hub.signing.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        self.file_keys: FileKeys = lambda _name: None  # name of a key to consult, digest, key; the downlink's
        self.refused: Counter[str] = Counter()
        try:
            kept = msgspec.msgpack.decode(saved, type=_Saved) if saved else _Saved()
        except msgspec.DecodeError as error:
            log.error("saved counters unreadable reason=%s", error)
            kept = _Saved()
        self._counter = trust.Counter(kept.counter)
        self._replays = trust.Replays(kept.heard if kept.hub == self._hub_name else None)

    def to_save(self) -> tuple[bytes, Callable[[], None]]:
        """And what to call when it is on disk."""
        floor = self._counter.floor_to_keep(self._clock.wall_ms())
        saved = _Saved(floor, self._hub_name, self._replays.highest)
        return msgspec.msgpack.encode(saved), lambda: self._counter.kept(floor)

    @property
    def strangers(self) -> bool:
        """Somebody says again and again what the hub did not say."""
        return self.refused["Forged"] + self.refused["Unreadable"] >= REFUSALS_TO_SHOW

    # to the hub

    def seal(self, message: wire.Message, file_key: bytes = b"") -> tuple[str, bytes]:
        """Topic and payload. A chunk needs its file's key."""
        body = message.body
        topic = wire.up_topic(self.kiosk, body.CHANNEL)
        if isinstance(body, wire.Chunk):
            return topic, trust.wrap_chunk(wire.encode_chunk(body), topic, file_key)
        encoded = wire.encode(message)
        now_ms = self._clock.trusted_ms()
        lasts = body.DURABLE or isinstance(body, (wire.Status, wire.TimeAsked)) or now_ms is None
        return topic, trust.wrap(
            encoded, topic, self._own.signing, None if isinstance(body, wire.Status) else self._hub.sealing,
            counter=self._counter.next(self._clock.wall_ms()),
            expires_at_ms=0 if lasts or now_ms is None else now_ms + trust.SIGNALLING_LIFE_MS,
        )  # fmt: skip

    # from it

    def open(self, topic: str, payload: bytes) -> wire.Message:
        """What the hub said. Raises TrustError or WireError, nothing else; a TrustError is counted and logged here."""
        try:
            return self._open(topic, payload)
        except trust.TrustError as error:
            kind = type(error).__name__
            self.refused[kind] += 1
            if (count := self.refused[kind]) & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th, …
                log.warning("message refused kind=%s count=%d topic=%s: %s", kind.lower(), count, topic, error)
            raise

    def _open(self, topic: str, payload: bytes) -> wire.Message:
        if len(payload) > wire.MAX_MESSAGE_BYTES:
            raise wire.MalformedMessage(f"{len(payload)} bytes, at most {wire.MAX_MESSAGE_BYTES} are taken")
        process = topic.removeprefix(wire.hub_topic(""))
        if process != topic:
            return self._open_status(topic, process, payload)
        if topic == wire.down_topic(self.kiosk, "f"):
            return self._open_chunk(topic, payload)
        said = trust.unwrap(payload, topic, self._hub.signing, self._own.sealing, wall_ms=self._clock.trusted_ms())
        message = wire.decode(said.message)
        if topic != wire.down_topic(self.kiosk, message.body.CHANNEL) or isinstance(message.body, wire.Chunk):
            raise wire.MalformedMessage(f"kind {message.body.KIND} on {topic}")
        if not message.body.DURABLE:
            self._replays.check(said.sender, said.counter)
        return message

    def _open_status(self, topic: str, process: str, payload: bytes) -> wire.Message:
        """Retained, so that it comes again as often as this kiosk connects. The last word (`online` false) is signed
        before all others of its connection; whoever has it can say no more with it than by cutting the connection."""
        said = trust.unwrap(payload, topic, self._hub.signing, self._own.sealing, wall_ms=None, allow_open=True)
        message = wire.decode(said.message)
        if not isinstance(message.body, wire.HubStatus):
            raise wire.MalformedMessage(f"kind {message.body.KIND} on {topic}")
        if message.body.online and said.counter != self._replays.highest.get(f"status {process}"):
            self._replays.check(f"status {process}", said.counter)
        return message

    def _open_chunk(self, topic: str, payload: bytes) -> wire.Message:
        found = self.file_keys(trust.named_key(payload))
        if found is None:
            raise trust.Unreadable("a chunk of no file that is awaited")
        consult, digest, key = found
        return wire.decode_chunk(trust.unwrap_chunk(payload, topic, key), consult, digest)
