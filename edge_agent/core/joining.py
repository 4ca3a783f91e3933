"""The code by which a kiosk joins a hub, and the one question and answer that follow. Pure; used by both ends.

A code is the fingerprint of the hub's own CA and a one-time token, read out or typed in seven groups of five:

    4XK2C-7Q0ZM-9TB1W-H3RDV-E85NA-KJ6PY-2G0SF

Whoever holds a code knows whom to trust (nothing is sent to a hub whose CA is another) and is trusted once. The last
character of each group checks it, its place included, so that a mistyped code is found before anybody is asked, and
the group is named. Letters are Crockford's: no I, L, O or U, and what looks like one is read as what was meant.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import NamedTuple

import msgspec

SERVICE_TYPE = "_teleconsult-hub._tcp.local."  # by which a hub says where it is: an address, never trust
FINGERPRINT_BITS = 80  # finding another CA with the same costs 2^80 tries
TOKEN_BITS = 60  # tried against a hub that counts tries, for as long as an invitation lasts
GROUPS = 7
DATA_CHARACTERS = 4  # of 5 bits, and one to check them: 140 bits in all

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MEANT = str.maketrans("ILO", "110")
_WEIGHTS = (1, 3, 5, 7)  # odd: every single wrong character changes the sum modulo 32
_PLACE = 11  # odd too: two groups that changed places do not check


class CodeError(ValueError):
    """The code cannot be right; the message says which group to look at."""


class JoinCode(NamedTuple):
    fingerprint: int  # the first FINGERPRINT_BITS of the SHA-256 of the CA's certificate (DER)
    token: int


class JoinRequest(msgspec.Struct, frozen=True):
    """JSON of `POST /join`, over TLS that ends at the CA of the code, or on loopback."""

    token: str  # `token_text`
    kiosk: str = ""  # the id that it would like; the hub chooses one where it is empty


class JoinReply(msgspec.Struct, frozen=True):
    """JSON: who this kiosk is from now on, and where its broker is. Refusals are {"error": text} with 403
    (unknown token), 410 (used or too old), 409 (the name is taken) or 429 (too many wrong tries)."""

    kiosk: str
    password: str  # of the broker, user name = kiosk
    broker_host: str
    broker_port: int
    broker_tls: bool
    ca_pem: str  # the CA that signs the broker's certificate


def encode_code(code: JoinCode) -> str:
    bits = code.fingerprint << TOKEN_BITS | code.token
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
    return JoinCode(bits >> TOKEN_BITS, bits & ((1 << TOKEN_BITS) - 1))


def fingerprint(ca_der: bytes) -> int:
    return int.from_bytes(hashlib.sha256(ca_der).digest()) >> (256 - FINGERPRINT_BITS)


def same_fingerprint(code: JoinCode, ca_der: bytes) -> bool:
    return hmac.compare_digest(code.fingerprint.to_bytes(FINGERPRINT_BITS // 8), fingerprint(ca_der).to_bytes(10))


def token_text(token: int) -> str:
    """As the request carries it and the hub stores its hash."""
    return f"{token:0{TOKEN_BITS // 4}x}"


def _check(group: int, values: list[int]) -> int:
    return (sum(weight * value for weight, value in zip(_WEIGHTS, values, strict=False)) + _PLACE * (group + 1)) % 32
