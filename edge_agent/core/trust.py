"""Trust on the wire: each message signed by who says it and sealed to who should read it, whatever the broker does.

Pure but for randomness. A payload is one byte of form, then

    OPEN    signature ‖ statement                       what a broker and its other clients may read (retained status)
    SEALED  HPKE(signature ‖ statement)                 everything else but
    CHUNK   name of key ‖ nonce ‖ AEAD(key, message)    bytes of a file, whose key is in its signed and sealed Manifest

    statement = msgpack [counter, expires_at_ms, message, sender]   message as `edge_agent.core.wire` encodes it
    signature = ECDSA P-256 over SHA-256 of  CONTEXT ‖ topic ‖ 0 ‖ statement, as 64 bytes r ‖ s

The topic names kiosk, direction and channel, so a message moved elsewhere does not verify; the DTLS fingerprint in an
offer or answer is bound to its consult, call and leg, since all of them are in the message. HPKE is RFC 9180 base mode
with X25519, HKDF-SHA256 and ChaCha20-Poly1305, with the topic as its info: a broker's disk holds no patient data, but
who sent what size when. A message grows by 64 bytes for the signature and about 22 for counter, expiry and sender, and
by 49 for form and seal.

Chunks have a cheaper form, because a hub must take thousands a second and one core opens about 2,000 sealed messages in
that time, but 200,000 chunks. Only kiosk and hub know a file's key; that the bytes are the file's is then a matter of
the digest in its Manifest. The nonce is random: a chunk that is sent again is another message.

Replays: what says how things stand counts up per sender (`Replays`); durable messages are taken once by their id, and
a chunk's bytes go where they went before.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

CONTEXT = b"teleconsult signed message 1\0"
OPEN = 1
SEALED = 2
CHUNK = 3
SIGNALLING_LIFE_MS = 60_000  # an offer or a call's state is worthless after this; durable messages do not expire
SEAL_BYTES = 48
SIGNATURE_BYTES = 64
COUNTER_AHEAD = 20 * 60 * 1_000_000  # of the clock's microseconds, on disk before they are used

_CHUNK_CONTEXT = b"teleconsult chunk 1\0"
_NAME_BYTES = 8
_NONCE_BYTES = 12
_HPKE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_ECDSA = ec.ECDSA(hashes.SHA256())


class TrustError(ValueError):
    """Not what the other end signed and sealed for here. Count it, log it, drop it; start nothing."""


class Forged(TrustError):
    """The signature is of another key, another topic or another message, or the form is none of ours."""


class Unreadable(TrustError):
    """Sealed to another key, or altered on the way."""


class Expired(TrustError):
    """Older than it may be."""


class Replayed(TrustError):
    """Said before, or overtaken by a newer one."""


class OwnKeys(NamedTuple):
    """Of this end: what it signs with, and what opens messages to it."""

    signing: ec.EllipticCurvePrivateKey
    sealing: X25519PrivateKey


class FarKeys(NamedTuple):
    """Of the other end."""

    signing: ec.EllipticCurvePublicKey
    sealing: X25519PublicKey


class _Statement(msgspec.Struct, array_like=True):
    counter: int
    expires_at_ms: int  # 0: never
    message: bytes
    sender: str = ""  # which of several processes with one key


class Verified(NamedTuple):
    message: bytes
    counter: int
    sender: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Statement)


class Counter:
    """Numbers a sender's statements upwards, over restarts and whatever its clock does: never below the floor, which
    the owner has on disk ahead of use. Near the clock's microseconds as far as that is kept, so that a sender whose
    disk was lost goes on above its former numbers."""

    def __init__(self, floor: int = 0) -> None:
        self._last = self._kept = floor

    def next(self, wall_ms: int) -> int:
        by_clock = wall_ms * 1000
        self._last = max(self._last + 1, by_clock if by_clock <= self._kept else 0)
        return self._last

    def floor_to_keep(self, wall_ms: int) -> int:
        """What should be on disk now: no number up to it is used again after a restart."""
        return max(self._last, wall_ms * 1000) + COUNTER_AHEAD

    def kept(self, floor: int) -> None:
        """It is on disk."""
        self._kept = max(self._kept, floor)


class Replays:
    """The highest counter taken from each sender."""

    def __init__(self, highest: Mapping[str, int] | None = None) -> None:
        self.highest: dict[str, int] = dict(highest or {})

    def check(self, sender: str, counter: int) -> None:
        """Raises Replayed; else remembers."""
        if counter <= self.highest.get(sender, -1):
            raise Replayed(f"counter {counter} after {self.highest[sender]}")
        self.highest[sender] = counter


def wrap(
    message: bytes, topic: str, signer: ec.EllipticCurvePrivateKey, reader: X25519PublicKey | None, *,
    counter: int, expires_at_ms: int = 0, sender: str = "",
) -> bytes:  # fmt: skip
    """The payload to publish on `topic`: sealed to `reader`, or open where there is none."""
    statement = _encoder.encode(_Statement(counter, expires_at_ms, message, sender))
    r, s = utils.decode_dss_signature(signer.sign(_signed(topic, statement), _ECDSA))
    signed = r.to_bytes(32, "big") + s.to_bytes(32, "big") + statement
    if reader is None:
        return bytes((OPEN,)) + signed
    return bytes((SEALED,)) + _HPKE.encrypt(signed, reader, info=topic.encode())


def unwrap(
    payload: bytes, topic: str, signer: ec.EllipticCurvePublicKey, reader: X25519PrivateKey, *,
    wall_ms: int | None, allow_open: bool = False,
) -> Verified:  # fmt: skip
    """What `signer` said on `topic`. `wall_ms` is None while the clock is not trusted: then expiry is not judged, and
    `Replays` alone stands against old messages. Raises a TrustError, nothing else."""
    match payload[:1]:
        case b"\x01" if allow_open:
            signed = payload[1:]
        case b"\x02":
            try:
                signed = _HPKE.decrypt(payload[1:], reader, info=topic.encode())
            except (InvalidTag, ValueError):
                raise Unreadable("sealed to another key, or altered") from None
        case _:
            raise Forged("neither sealed nor signed as is asked here")
    signature, statement = signed[:SIGNATURE_BYTES], signed[SIGNATURE_BYTES:]
    if len(signature) != SIGNATURE_BYTES:
        raise Forged("too short for a signature")
    encoded = utils.encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        signer.verify(encoded, _signed(topic, statement), _ECDSA)
        said = _decoder.decode(statement)
    except InvalidSignature:
        raise Forged("the signature is of another key, topic or message") from None
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise Forged("signed, but no statement") from None
    if wall_ms is not None and said.expires_at_ms and wall_ms > said.expires_at_ms:
        raise Expired(f"{(wall_ms - said.expires_at_ms) / 1000:.1f} s too late")
    return Verified(said.message, said.counter, said.sender)


def name_of_key(key: bytes) -> bytes:
    """By which a receiver finds a chunk's key among those it was given."""
    return hashlib.sha256(_CHUNK_CONTEXT + key).digest()[:_NAME_BYTES]


def wrap_chunk(message: bytes, topic: str, key: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = ChaCha20Poly1305(key).encrypt(nonce, message, _CHUNK_CONTEXT + topic.encode())
    return bytes((CHUNK,)) + name_of_key(key) + nonce + sealed


def named_key(payload: bytes) -> bytes:
    """The name of the key that a chunk wants. Raises Forged where it is none."""
    if payload[:1] != b"\x03" or len(payload) <= 1 + _NAME_BYTES + _NONCE_BYTES:
        raise Forged("not a sealed chunk")
    return payload[1 : 1 + _NAME_BYTES]


def unwrap_chunk(payload: bytes, topic: str, key: bytes) -> bytes:
    """Raises a TrustError, nothing else."""
    named_key(payload)
    start = 1 + _NAME_BYTES
    nonce, sealed = payload[start : start + _NONCE_BYTES], payload[start + _NONCE_BYTES :]
    try:
        return ChaCha20Poly1305(key).decrypt(nonce, sealed, _CHUNK_CONTEXT + topic.encode())
    except InvalidTag:
        raise Unreadable("a chunk of another file, topic or sender, or altered") from None


def _signed(topic: str, statement: bytes) -> bytes:
    return CONTEXT + topic.encode() + b"\0" + statement
