"""The code by which a kiosk joins a hub, and the one question and answer that follow. Pure; used by both ends.

A code is the fingerprint of the hub's own CA and a one-time token, read out or typed in eight groups of five:

    5DYH4-X6J0Z-S1FP2-7CEJV-JZG3B-8KYPK-M6TJK-S20G7

Whoever holds a code knows whom to trust (nothing is sent to a hub whose CA is another) and is trusted once. The last
character of each group checks it, its place included, so that a mistyped code is found before anybody is asked, and
the group is named. Letters are Crockford's: no I, L, O or U, and what looks like one is read as what was meant.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import NamedTuple
from urllib.parse import parse_qs, quote

import msgspec

from edge_agent.core.release import Keys
from edge_agent.core.wire import IceServer

SERVICE_TYPE = "_teleconsult-hub._tcp.local."  # by which a hub says where it is: an address, never trust
# In every certificate of a hub's server and broker, and what a kiosk asks them for: addresses change, and the CA makes
# such certificates for the hub alone.
HUB_NAME = "hub.teleconsult.internal"
FINGERPRINT_BYTES = 10  # finding another CA with the same costs 2^80 tries
TOKEN_BYTES = 10
GROUPS = 8
DATA_CHARACTERS = 4  # of 5 bits, and one more to check them

_LINK = "teleconsult:join?"
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MEANT = str.maketrans("ILO", "110")
_WEIGHTS = (1, 3, 5, 7)  # odd: every single wrong character changes the sum modulo 32
_PLACE = 11  # odd too: two groups that changed places do not check


class CodeError(ValueError):
    """The code cannot be right; the message says which group to look at."""


class JoinCode(NamedTuple):
    fingerprint: bytes  # the first FINGERPRINT_BYTES of the SHA-256 of the CA's certificate (DER)
    token: bytes


class JoinRequest(msgspec.Struct, frozen=True):
    """JSON of `POST /join`, over TLS that ends at the CA of the code, or on loopback. The answer is an `IdentityReply`,
    or a `Waiting` with status 202 where a technician has to approve it first: then the same is asked again."""

    token: str  # hex
    request: str  # PEM, see `edge_agent.core.csr`
    kiosk: str = ""  # the id that it would like; the hub chooses one where it is empty
    site: str = ""  # where given, the hub refuses a code that is for another


class RenewRequest(msgspec.Struct, frozen=True):
    """JSON of `POST /renew`, answered like a `JoinRequest`. Where it is not time yet, with the same certificate."""

    certificate: str  # PEM
    signature: str  # hex of DER, by the certificate's key over `edge_agent.core.csr.renewal_statement`


class IdentityReply(msgspec.Struct, frozen=True):
    """JSON: who this kiosk is from now on, and whom it believes. A refusal is `{"error": text}` with a status of 4xx;
    the text is for whoever stands at the kiosk."""

    kiosk: str
    site: str
    certificate: str  # PEM
    ca: str  # PEM of the hub's CAs: for a while two
    signer: str  # PEM: the certificate of the key that the hub signs its messages with
    seal_key: str  # hex of the X25519 key that messages to the hub are sealed to
    host: str  # the broker's
    port: int
    release_keys: Keys | None = None  # the first that it is told are pinned, and no later ones


class Waiting(msgspec.Struct, frozen=True):
    waiting: str  # for whoever stands at the kiosk


class SelfTestRequest(msgspec.Struct, frozen=True):
    """JSON of `POST /selftest`: a kiosk that joined asks what its self-test needs to know."""

    certificate: str  # PEM
    signature: str  # hex of DER, over `edge_agent.core.csr.self_test_statement`


class SelfTestReply(msgspec.Struct, frozen=True):
    time_ms: int  # the hub's clock
    ice_servers: tuple[IceServer, ...] = ()  # as in a call, with credentials that are soon over


def encode_code(code: JoinCode) -> str:
    bits = int.from_bytes(code.fingerprint + code.token)
    groups = []
    for group in range(GROUPS):
        shift = 5 * DATA_CHARACTERS * (GROUPS - 1 - group)
        values = [bits >> (shift + 5 * (DATA_CHARACTERS - 1 - place)) & 31 for place in range(DATA_CHARACTERS)]
        groups.append("".join(_ALPHABET[value] for value in [*values, _check(group, values)]))
    return "-".join(groups)


def parse_code(text: str) -> JoinCode:
    """Takes lower case, blanks and missing hyphens. Raises CodeError."""
    characters = re.sub(r"[\s-]", "", text).upper().translate(_MEANT)
    size = DATA_CHARACTERS + 1
    bits = 0
    wrong: list[str] = []
    groups = [characters[start : start + size] for start in range(0, len(characters), size)]
    for number, group in enumerate(groups[:GROUPS]):
        values = [_ALPHABET.find(character) for character in group]
        if len(group) < size or -1 in values or _check(number, values[:-1]) != values[-1]:
            wrong.append(f"{number + 1} ({group})")
        for value in values[:-1]:
            bits = bits << 5 | max(value, 0)
    if len(characters) != GROUPS * size:
        first = f"; look at group {wrong[0]} first" if wrong else ""
        raise CodeError(f"the code has {GROUPS} groups of {size}; this one has {len(characters)} characters{first}")
    if wrong:
        raise CodeError(f"the code was mistyped in group {', '.join(wrong)}; compare it with what the hub printed")
    raw = bits.to_bytes(FINGERPRINT_BYTES + TOKEN_BYTES)
    return JoinCode(raw[:FINGERPRINT_BYTES], raw[FINGERPRINT_BYTES:])


def join_link(host: str, port: int, code: str) -> str:
    """What the QR code says. Without a host the hub is looked for."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"{_LINK}h={quote(address, safe=':[]')}&c={code}" if host else f"{_LINK}c={code}"


def split_link(text: str) -> tuple[str, str]:
    """`(code, address)` of a link or of a bare code, whose address is empty."""
    if not text.startswith(_LINK):
        return text, ""
    fields = parse_qs(text.removeprefix(_LINK))
    return fields.get("c", [""])[0], fields.get("h", [""])[0]


def fingerprint(ca_der: bytes) -> bytes:
    return hashlib.sha256(ca_der).digest()[:FINGERPRINT_BYTES]


def same_fingerprint(code: JoinCode, ca_der: bytes) -> bool:
    return hmac.compare_digest(code.fingerprint, fingerprint(ca_der))


def _check(group: int, values: list[int]) -> int:
    return (sum(weight * value for weight, value in zip(_WEIGHTS, values, strict=False)) + _PLACE * (group + 1)) % 32
