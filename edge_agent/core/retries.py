"""When what was set aside is tried again: an hour later, then four, sixteen, and daily.

Pure. Nothing is given up for ever: what one hub refuses the next release may take, and what could not be read may be
mended. A hub that has started anew is asked before its time, but not within `FIRST_MS`, since it may have been this
very item that ended it; another release of the hub, and a person's word, at once.

Times are the wall clock's, in Unix milliseconds, so that a kiosk that is on for some hours a day gets there too. A
clock that was wrong costs one try too early, or a whole pause more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

FIRST_MS = 3_600_000
PAUSES_MS = (FIRST_MS, 4 * FIRST_MS, 16 * FIRST_MS, 24 * FIRST_MS)


@dataclass(frozen=True, slots=True)
class SetAside:
    times: int
    at_ms: int


class Retries:
    """Ids of messages that stand aside, or are being tried again."""

    def __init__(self) -> None:
        self._aside: dict[bytes, SetAside] = {}
        self._trying: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._aside)

    def __contains__(self, id: bytes) -> bool:
        return id in self._aside

    def load(self, id: bytes, aside: SetAside) -> None:
        self._aside[id] = aside

    def put(self, id: bytes, wall_ms: int) -> SetAside:
        """It is set aside, for the first time or again."""
        before = self._aside.get(id)
        aside = self._aside[id] = SetAside(before.times + 1 if before else 1, wall_ms)
        self._trying.discard(id)
        return aside

    def gone(self, id: bytes) -> None:
        """The far end has it."""
        self._aside.pop(id, None)
        self._trying.discard(id)

    def due(self, wall_ms: int) -> list[bytes]:
        """What is to be tried now; it is being tried from here on, as with the others that give ids."""
        return self._try(lambda aside: abs(wall_ms - aside.at_ms) >= _pause_ms(aside.times))

    def hub_is_new(self, wall_ms: int, other_release: bool) -> list[bytes]:
        return self._try(lambda aside: other_release or abs(wall_ms - aside.at_ms) >= FIRST_MS)

    def asked_for(self) -> list[bytes]:
        """By a person."""
        return self._try(lambda aside: True)

    def _try(self, wanted: Callable[[SetAside], bool]) -> list[bytes]:
        ids = [id for id, aside in self._aside.items() if id not in self._trying and wanted(aside)]
        self._trying.update(ids)
        return ids


def _pause_ms(times: int) -> int:
    return PAUSES_MS[min(times, len(PAUSES_MS)) - 1]
