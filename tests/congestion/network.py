"""Virtual time, and links in it: a rate over time, a drop-tail queue, loss, delay and jitter.

The order of things is `tests.linklab.path`'s. What a packet's fate is is known as it is offered, so that each costs one
event; that is what lets minutes of several megabits run in a second or two.
"""

from __future__ import annotations

import heapq
import itertools
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tests.linklab.path import Loss, Losses, Outage, Rate

NO_LOSS = Loss()


class Simulation:
    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(time, self.now), next(self._order), event))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until


@dataclass(frozen=True)
class LinkSpec:
    rate: Rate
    delay_s: float
    queue_s: float = 0.3  # at the rate of the moment
    jitter_s: float = 0.0
    loss: Loss = NO_LOSS
    outages: tuple[Outage, ...] = ()
    seed: int = 1


class Link:
    """One way. `waits` holds when each packet came, and how long it stood before it was clocked out."""

    def __init__(self, sim: Simulation, spec: LinkSpec) -> None:
        self.spec = spec
        self.times: list[float] = []
        self.waits_s: list[float] = []
        self.overflowed = 0
        self._sim = sim
        self._random = random.Random(spec.seed)
        self._free_at = 0.0
        self._queue: deque[tuple[float, int]] = deque()  # begun to be clocked out at, bits
        self._queued_bits = 0
        self._last_arrival = 0.0
        self._losses = Losses(self._random)

    def offer(self, size_bytes: int, arrived: Callable[[], None], delay_s: float = 0.0) -> None:
        """`arrived` is called at the far end, after `delay_s` more than the link's own; never if the packet is lost."""
        now, bits = self._sim.now, 8 * size_bytes
        queue = self._queue
        while queue and queue[0][0] <= now:
            self._queued_bits -= queue.popleft()[1]
        if queue and self._queued_bits + bits > self.spec.queue_s * self.spec.rate.at(now):
            self.overflowed += 1
            return
        start = max(now, self._free_at)
        for outage in self.spec.outages:
            if outage.start_s <= start < outage.start_s + outage.seconds:
                start = outage.start_s + outage.seconds
        self._free_at = self.spec.rate.finish(start, bits)
        self.times.append(now)
        self.waits_s.append(start - now)
        queue.append((start, bits))
        self._queued_bits += bits
        if self._losses.next_is_lost(self.spec.loss):
            return
        arrival = self._free_at + self.spec.delay_s + delay_s
        if self.spec.jitter_s:
            arrival += self._random.uniform(0, self.spec.jitter_s)
            self._last_arrival = arrival = max(arrival, self._last_arrival)
        self._sim.at(arrival, arrived)

    def waits_between(self, start: float, end: float) -> list[float]:
        return sorted(self.waits_s[bisect_left(self.times, start) : bisect_left(self.times, end)])


def capacity_bits(rate: Rate, start: float, end: float, most_bps: float = float("inf")) -> float:
    """What a link carries between two times, `most_bps` at most."""
    edges = [start, end]
    laps = range(int(end // rate.period_s) + 1) if rate.period_s else range(1)
    edges += [
        at + lap * rate.period_s for lap in laps for at, _ in rate.steps if start < at + lap * rate.period_s < end
    ]
    edges.sort()
    return sum((b - a) * min(most_bps, rate.at((a + b) / 2)) for a, b in itertools.pairwise(edges))
