"""The telephone code: what a self-test has found in ten digits that anybody can read out.

Nine digits of data and one to check them by, said as `102 744 0632`. The data is a number with mixed bases, the first
the most significant: the version of this table (1 to 14), the number of the worst cause (0 to 63, 0 for none), then for
each group from 10 down to 1 its verdict (0 to 3). Of the product, 939,524,096, the ninth digit is not quite used up.

The check digit is after H. M. Damm (Total anti-symmetrische Quasigruppen, Marburg 2004): every single wrong digit and
every swap of two neighbours is found, as are most of what an ear mistakes (13 for 30).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.core.findings import BY_NUMBER, MAX_CAUSE, Cause, Finding, Group, Verdict, verdict_of, worst

VERSION = 1
DIGITS = 10
_MAX_VERSION = 14
_CAUSES = MAX_CAUSE + 1
_VERDICTS = len(Verdict)
_STATES = _VERDICTS ** len(Group)
_PARTS = (3, 3, 4)  # as it is read out

_DAMM = (
    (0, 3, 1, 7, 5, 9, 8, 6, 4, 2),
    (7, 0, 9, 2, 1, 5, 4, 8, 6, 3),
    (4, 2, 0, 6, 8, 7, 1, 3, 5, 9),
    (1, 7, 5, 0, 9, 8, 3, 4, 2, 6),
    (6, 1, 2, 3, 0, 4, 5, 9, 7, 8),
    (3, 6, 7, 4, 2, 0, 9, 5, 8, 1),
    (5, 8, 6, 9, 7, 2, 0, 1, 3, 4),
    (8, 9, 4, 5, 3, 6, 2, 0, 1, 7),
    (9, 4, 3, 8, 6, 1, 7, 2, 0, 5),
    (2, 5, 8, 1, 4, 3, 6, 7, 9, 0),
)


class MisheardCode(ValueError):
    """One line for whoever holds the telephone."""


@dataclass(frozen=True)
class Heard:
    """What a code says. `cause_number` may be of a newer kiosk's table: then `cause` is None and it is not 0."""

    verdicts: Mapping[Group, Verdict]
    cause_number: int
    version: int = VERSION

    @property
    def cause(self) -> Cause | None:
        return BY_NUMBER.get(self.cause_number)


def of_findings(findings: list[Finding]) -> Heard:
    cause = worst(findings)
    return Heard({group: verdict_of(group, findings) for group in Group}, cause.number if cause else 0)


def encode(heard: Heard) -> str:
    """Ten digits, for reading out."""
    if not (1 <= heard.version <= _MAX_VERSION and 0 <= heard.cause_number <= MAX_CAUSE):
        raise ValueError("no such version or cause")
    value = heard.version * _CAUSES + heard.cause_number
    for group in reversed(Group):
        value = value * _VERDICTS + heard.verdicts[group]
    digits = f"{value:0{DIGITS - 1}d}"
    return spoken(digits + str(_check(digits)))


def decode(text: str) -> Heard:
    """Takes blanks, hyphens and dots between the digits. Raises MisheardCode."""
    digits = re.sub(r"[\s.\-]", "", text)
    if not (digits.isascii() and digits.isdigit()) or len(digits) != DIGITS:
        raise MisheardCode(f"the code has {DIGITS} digits; this is {text.strip()!r}: ask for it once more")
    if _check(digits) != 0:
        raise MisheardCode("a digit was misheard or two have changed places: have the code read out once more")
    version_and_cause, states = divmod(int(digits[:-1]), _STATES)
    version, cause = divmod(version_and_cause, _CAUSES)
    if not 1 <= version <= _MAX_VERSION:
        raise MisheardCode("this is no code of a self-test: have it read out once more")
    if version != VERSION:
        raise MisheardCode(
            f"the code is of another release of the kit (table {version}, here {VERSION}): update the hub"
        )
    verdicts = {}
    for group in Group:
        states, verdict = divmod(states, _VERDICTS)
        verdicts[group] = Verdict(verdict)
    return Heard(verdicts, cause, version)


def spoken(digits: str) -> str:
    """In the groups that it is read out in."""
    parts, start = [], 0
    for size in _PARTS:
        parts.append(digits[start : start + size])
        start += size
    return " ".join(parts)


def _check(digits: str) -> int:
    """The check digit; 0 of digits that end with their own."""
    interim = 0
    for digit in digits:
        interim = _DAMM[interim][int(digit)]
    return interim
