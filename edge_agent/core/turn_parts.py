"""A turn in parts: cut while it is spoken, put together where it is heard.

Pure. A turn is Opus packets of `FRAME_MS`, sent some `PART_S` at a time so that it arrives about when it ends; parts
may come twice and in any order. One that stops half way is heard as far as it came; what comes of it later is heard
then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from edge_agent.core.voice import Coding
from edge_agent.core.wire import MAX_TURN_PARTS

# 8 kbit/s is understood without effort (PESQ 3.4; 6 kbit/s: 2.5), and spoken words need not be live.
CODING = Coding(bps=8_000, frame_ms=60)
PART_S = 2.0  # signature, seal and headers are 0.5 kB a part
PART_FRAMES = round(PART_S * 1000 / CODING.frame_ms)
LONGEST_S = 60.0

HALF_S = 20.0  # nothing new came for so long: the speaker is gone, or the link for now
MOST_TURNS = 32
MOST_HEARD = 256


class Hearable(NamedTuple):
    turn: bytes
    packets: tuple[bytes, ...]
    is_whole: bool = True  # or the rest of it: nothing more will come


@dataclass(slots=True)
class _Arriving:
    changed_at: float
    parts: dict[int, tuple[bytes, ...]] = field(default_factory=dict)  # that nobody has heard
    given: set[int] = field(default_factory=set)  # of them, by the last `next`: more may have come since
    heard: set[int] = field(default_factory=set)  # parts that came before
    end: int | None = None  # number of the last part

    @property
    def is_whole(self) -> bool:
        return self.end is not None and len(self.parts) + len(self.heard) == self.end + 1

    @property
    def packets(self) -> tuple[bytes, ...]:
        return tuple(packet for number in sorted(self.parts) for packet in self.parts[number])


class TurnBox:
    """What the far end says, in the order in which it began to say it."""

    def __init__(self) -> None:
        self._turns: dict[bytes, _Arriving] = {}
        self._heard: dict[bytes, None] = {}

    def add(self, turn: bytes, part: int, packets: Iterable[bytes], last: bool, now: float) -> None:
        if turn in self._heard or not 0 <= part < MAX_TURN_PARTS:
            return
        if turn not in self._turns and len(self._turns) >= MOST_TURNS:
            return
        arriving = self._turns.setdefault(turn, _Arriving(now))
        if part in arriving.parts or part in arriving.heard or (arriving.end is not None and part > arriving.end):
            return
        arriving.changed_at = now
        arriving.parts[part] = tuple(packets)
        if last:
            arriving.end = part
            arriving.parts = {number: each for number, each in arriving.parts.items() if number <= part}

    def next(self, now: float) -> Hearable | None:
        """The first that can be heard: whole, or as far as it will come."""
        for turn, arriving in self._turns.items():
            if arriving.is_whole or (arriving.parts and now - arriving.changed_at >= HALF_S):
                arriving.given = set(arriving.parts)
                return Hearable(turn, arriving.packets, arriving.is_whole)
        return None

    def heard(self, turn: bytes) -> None:
        """As far as `next` gave it."""
        arriving = self._turns.get(turn)
        if arriving is not None:
            arriving.heard |= arriving.given
            arriving.parts = {number: part for number, part in arriving.parts.items() if number not in arriving.given}
            if arriving.parts or not arriving.is_whole:
                return
        self._turns.pop(turn, None)
        self._heard[turn] = None
        if len(self._heard) > MOST_HEARD:
            del self._heard[next(iter(self._heard))]

    def next_deadline(self, now: float) -> float | None:
        """When the next turn that is not whole is given up."""
        times = (each.changed_at + HALF_S for each in self._turns.values() if each.parts and not each.is_whole)
        return min((at for at in times if at > now), default=None)

    def is_spoken(self, now: float) -> bool:
        """Whether something is being said, or on its way."""
        return any(each.parts and not each.is_whole and now - each.changed_at < HALF_S for each in self._turns.values())

    @property
    def waiting(self) -> int:
        """Whole ones that nobody has heard."""
        return sum(each.is_whole for each in self._turns.values())
