"""Trust on the wire: each message signed by who says it and sealed to who should read it, whatever the broker does.

Pure but for randomness. A payload is one byte of form, then

    OPEN    signature ‖ statement              what a broker and its other clients may read (retained status)
    SEALED  HPKE(signature ‖ statement)        everything else

    statement = msgpack [counter, expires_at_ms, message]      message as `edge_agent.core.wire` encodes it
    signature = ECDSA P-256 over SHA-256 of  CONTEXT ‖ topic ‖ 0 ‖ statement, as 64 bytes r ‖ s

The topic names kiosk, direction and channel, so a message moved elsewhere does not verify; the DTLS fingerprint in an
offer or answer is bound to its consult, call and leg, since all of them are in the message. HPKE is RFC 9180 base mode
with X25519, HKDF-SHA256 and ChaCha20-Poly1305, with the topic as its info: a broker's disk holds no patient data, but
who sent what size when. A message grows by 64 bytes for the signature and about 11 for counter and expiry, and by
48 for the seal.

Replays: messages about the state of a call count up per sender (`Replays`); durable ones are taken once by their id.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

CONTEXT = b"teleconsult signed message 1\0"
OPEN = 1
SEALED = 2
SIGNALLING_LIFE_MS = 60_000  # an offer or a call's state is worthless after this; durable messages do not expire
SEAL_BYTES = 48
SIGNATURE_BYTES = 64

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


class _Statement(msgspec.Struct, array_like=True):
    counter: int
    expires_at_ms: int  # 0: never
    message: bytes


class Verified(NamedTuple):
    message: bytes
    counter: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Statement)


class Counter:
    """Numbers a sender's statements upwards, over restarts and whatever its clock does: never below `floor`, which the
    owner keeps on disk ahead of use, and near the clock's microseconds, so that two senders with one key (the hub's
    processes) go up together."""

    def __init__(self, floor: int = 0) -> None:
        self._last = floor

    def next(self, wall_ms: int) -> int:
        self._last = max(self._last + 1, wall_ms * 1000)
        return self._last


class Replays:
    """The highest counter taken from each sender."""

    def __init__(self) -> None:
        self._highest: dict[str, int] = {}

    def check(self, sender: str, counter: int) -> None:
        """Raises Replayed; else remembers."""
        if counter <= self._highest.get(sender, -1):
            raise Replayed(f"counter {counter} after {self._highest[sender]}")
        self._highest[sender] = counter


def wrap(
    message: bytes, topic: str, signer: ec.EllipticCurvePrivateKey, reader: X25519PublicKey | None, *,
    counter: int, expires_at_ms: int = 0,
) -> bytes:  # fmt: skip
    """The payload to publish on `topic`: sealed to `reader`, or open where there is none."""
    statement = _encoder.encode(_Statement(counter, expires_at_ms, message))
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
    return Verified(said.message, said.counter)


def _signed(topic: str, statement: bytes) -> bytes:
    return CONTEXT + topic.encode() + b"\0" + statement
