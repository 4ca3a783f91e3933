"""Which lost packets of a stream are asked for again, and when (generic NACK, RFC 4585, 6.2.1).

Pure. Asked for at once when they are found missing, then each round trip and a margin, as long as whoever puts the
stream together still misses them. Each time twice, a moment apart: on links that lose a fifth, the request gets lost as
easily as what it asks for, and the far end does not send within a round trip what it has just sent.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

MARGIN_S, MARGIN_RTTS = 0.02, 0.1  # a round trip trembles, and the answer waits for its turn at the far end
APART_S = 0.03
UNKNOWN_RTT_S = 0.3
MOST_TIMES = 20
MOST_AT_ONCE = 64  # packets; the rest have their turn with the next ones


@dataclass(slots=True)
class _Asked:
    again_at: float
    times: int = 0


class Nacks:
    def __init__(self) -> None:
        self.asked = 0  # packets, each time counted
        self._asked: dict[int, _Asked] = {}

    def due(self, missing: Collection[int], now: float, rtt_s: float | None) -> list[int]:
        """`missing`: all that is still of use, by numbers that never begin anew; what is not in it is forgotten."""
        wanted = set(missing)
        self._asked = {number: asked for number, asked in self._asked.items() if number in wanted}
        rtt_s = UNKNOWN_RTT_S if rtt_s is None else rtt_s
        due: list[int] = []
        for number in sorted(wanted):
            asked = self._asked.setdefault(number, _Asked(now))
            if asked.again_at <= now and asked.times < MOST_TIMES and len(due) < MOST_AT_ONCE:
                asked.times += 1
                pause_s = APART_S if asked.times % 2 else rtt_s + max(MARGIN_S, MARGIN_RTTS * rtt_s) - APART_S
                asked.again_at = now + max(APART_S, pause_s)
                due.append(number)
        self.asked += len(due)
        return due

    def next_time(self) -> float | None:
        """When `due` gives something though nothing has come."""
        return min((asked.again_at for asked in self._asked.values() if asked.times < MOST_TIMES), default=None)
