"""One direction of an emulated link: rate, queue, loss, delay, jitter and outages.

Pure: packets in with `now`, packets out when they are due. The order of things is a real link's: a packet waits in a
drop-tail queue, is clocked out at the link's rate, may then be lost (it has used its time on the link all the
same), and arrives a delay later. Jitter is added to the delay and never changes the order.
"""

from __future__ import annotations

import csv
import random
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True)
class Rate:
    """Bits a second over time: steps `(from_s, bps)`, the first at 0, repeated after `period_s` (0: one constant)."""

    steps: tuple[tuple[float, float], ...]
    period_s: float = 0.0

    @classmethod
    def constant(cls, bps: float) -> Rate:
        if bps <= 0:
            raise ValueError("a constant rate must be above 0; use an outage for a pause")
        return cls(((0.0, bps),))

    @classmethod
    def from_file(cls, path: Path) -> Rate:
        """A `time_s,kbps` file, with or without a heading, looped. Its period is its last time plus its last step."""
        rows: list[tuple[float, float]] = []
        with path.open(newline="") as lines:
            for row in csv.reader(lines):
                try:
                    rows.append((float(row[0]), float(row[1]) * 1000))
                except (ValueError, IndexError):
                    if rows:
                        raise ValueError(f"{path}: not a time_s,kbps line: {row}") from None
        if len(rows) < 2 or any(later[0] <= row[0] for row, later in pairwise(rows)):
            raise ValueError(f"{path}: needs two or more lines with rising times")
        if min(bps for _, bps in rows) < 0 or not any(bps for _, bps in rows):
            raise ValueError(f"{path}: rates must be 0 or more, and not all 0")
        start = rows[0][0]
        steps = tuple((at - start, bps) for at, bps in rows)
        return cls(steps, steps[-1][0] + (steps[-1][0] - steps[-2][0]))

    def at(self, now: float) -> float:
        return self._step(now)[0]

    def finish(self, start: float, bits: float) -> float:
        """When `bits` begun at `start` are out."""
        now = start
        while True:
            bps, until = self._step(now)
            if bps and (until is None or bits <= bps * (until - now)):
                return now + bits / bps
            assert until is not None
            bits -= bps * (until - now)
            now = until

    def _step(self, now: float) -> tuple[float, float | None]:
        """The rate at `now`, and until when it holds."""
        if not self.period_s:
            return self.steps[0][1], None
        lap = now // self.period_s
        within = now - lap * self.period_s
        index = bisect_right(self.steps, (within, float("inf"))) - 1
        end = self.steps[index + 1][0] if index + 1 < len(self.steps) else self.period_s
        until = lap * self.period_s + end
        return self.steps[index][1], until if until > now else now + 1e-9


@dataclass(frozen=True)
class Loss:
    """`fraction` of the packets; in runs of `mean_run` on average where that is over 1 (Gilbert's model)."""

    fraction: float = 0.0
    mean_run: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.fraction < 1 or self.mean_run < 1:
            raise ValueError("loss is a fraction from 0 to below 1, its mean run 1 or more")


class Losses:
    """Which packets are lost, one after another, independently or in runs (Gilbert's model)."""

    def __init__(self, draws: random.Random) -> None:
        self._draws = draws
        self._in_run = False

    def next_is_lost(self, loss: Loss) -> bool:
        """`loss` may be another than the last time: links change."""
        if not loss.fraction:
            return False
        if loss.mean_run == 1:
            return self._draws.random() < loss.fraction
        # Gilbert: leave a run with 1/N, enter one so that the long-run share is the fraction.
        leave = 1 / loss.mean_run
        enter = leave * loss.fraction / (1 - loss.fraction)
        self._in_run = self._draws.random() >= leave if self._in_run else self._draws.random() < enter
        return self._in_run


@dataclass(frozen=True)
class Outage:
    """Nothing is clocked out from `start_s` for `seconds`; the queue is held."""

    start_s: float
    seconds: float


@dataclass(frozen=True)
class PathSpec:
    rate: Rate
    delay_s: float = 0.0
    jitter_s: float = 0.0  # uniform 0…J
    loss: Loss = Loss()
    queue_s: float = 1.0  # at the rate of the moment
    outages: tuple[Outage, ...] = ()
    seed: int = 1


@dataclass
class PathCounts:
    offered: int = 0
    delivered: int = 0
    delivered_bytes: int = 0
    lost: int = 0
    overflowed: int = 0
    queue_s: list[float] = field(default_factory=list)  # wait of each packet before it was clocked out


class LinkPath:
    """See the module. Traces and outages count from `started`."""

    def __init__(self, spec: PathSpec, started: float = 0.0) -> None:
        self.spec = spec
        self.counts = PathCounts()
        self._started = started
        self._random = random.Random(spec.seed)
        self._waiting: deque[tuple[float, float, bytes]] = deque()  # arrived, bits, packet
        self._waiting_bits = 0.0
        self._clocking: tuple[float, float, bytes] | None = None  # done at, bits, packet
        self._free_at = 0.0
        self._flying: deque[tuple[float, bytes]] = deque()
        self._last_arrival = 0.0
        self._losses = Losses(self._random)

    def offer(self, packet: bytes, now: float) -> None:
        """A packet at the near end; dropped when the queue is full."""
        at = now - self._started
        self._advance(at)
        self.counts.offered += 1
        bits = len(packet) * 8.0
        room = self.spec.queue_s * self.spec.rate.at(at)
        if self._waiting and self._waiting_bits + bits > room:
            self.counts.overflowed += 1
            return
        self._waiting.append((at, bits, packet))
        self._waiting_bits += bits
        self._advance(at)

    def take(self, now: float) -> list[bytes]:
        """The packets that have arrived by `now`, in order."""
        at = now - self._started
        self._advance(at)
        arrived = []
        while self._flying and self._flying[0][0] <= at:
            packet = self._flying.popleft()[1]
            self.counts.delivered += 1
            self.counts.delivered_bytes += len(packet)
            arrived.append(packet)
        return arrived

    def next_time(self) -> float | None:
        """When `take` next has something to do, or None while the path is empty."""
        times = [self._flying[0][0]] if self._flying else []
        if self._clocking:
            times.append(self._clocking[0])
        return min(times) + self._started if times else None

    def _advance(self, at: float) -> None:
        while True:
            if self._clocking is None:
                if not self._waiting:
                    return
                arrived, bits, packet = self._waiting.popleft()
                self._waiting_bits -= bits
                start = self._after_outage(max(arrived, self._free_at))
                self.counts.queue_s.append(start - arrived)
                self._clocking = (self._finish(start, bits), bits, packet)
            done, _, packet = self._clocking
            if done > at:
                return
            self._clocking = None
            self._free_at = done
            if self._losses.next_is_lost(self.spec.loss):
                self.counts.lost += 1
                continue
            arrival = done + self.spec.delay_s + self._random.uniform(0, self.spec.jitter_s)
            self._last_arrival = max(self._last_arrival, arrival)
            self._flying.append((self._last_arrival, packet))

    def _finish(self, start: float, bits: float) -> float:
        """The end of clocking out, pausing for outages that begin meanwhile."""
        done = self.spec.rate.finish(start, bits)
        for outage in sorted(self.spec.outages, key=lambda o: o.start_s):
            if start < outage.start_s < done:
                done += outage.seconds
        return done

    def _after_outage(self, at: float) -> float:
        for outage in sorted(self.spec.outages, key=lambda o: o.start_s):
            if outage.start_s <= at < outage.start_s + outage.seconds:
                at = outage.start_s + outage.seconds
        return at
