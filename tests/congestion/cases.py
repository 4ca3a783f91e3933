"""RFC 8867's cases 5.1 to 5.8, and links that the kit meets: who sends what over which links, and when.

Each as it stands there, and made thin: rates by 20, delays and queues four times as long, packets as short as the kit
makes them on such links.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

from tests.congestion.flows import Media, MediaFlow, TcpFlow
from tests.congestion.network import Link, LinkSpec, Simulation, capacity_bits
from tests.linklab.path import Rate

SETTLED_S = 10.0


@dataclass(frozen=True)
class Scale:
    """`rate` times the RFC's rates; `time` times its delays and queues."""

    name: str
    rate: float
    time: float
    media: Media
    segment_bytes: int

    def steps(self, *steps: tuple[float, float]) -> Rate:
        """Of (second, Mbit/s)."""
        return Rate(tuple((at, mbps * 1e6 * self.rate) for at, mbps in steps), period_s=10_000.0)

    def link(self, rate: Rate, delay_s: float = 0.050, queue_s: float = 0.3) -> LinkSpec:
        return LinkSpec(rate, delay_s * self.time, queue_s * self.time)


FULL = Scale("full", 1.0, 1.0, Media(), 1500)
THIN = Scale(
    "thin", 1 / 20, 4.0, Media(voice_bytes=130, voice_s=0.060, pictures_a_second=5.0, most_bps=75e3), 300
)  # Opus at 8 to 10 kbit/s
SCALES = {each.name: each for each in (FULL, THIN)}


@dataclass
class Run:
    sim: Simulation
    forward: Link
    back: Link
    flows: list[MediaFlow]
    seconds: float
    tcp: list[TcpFlow] = field(default_factory=list)
    against: list[MediaFlow] = field(default_factory=list)  # the other way

    def go(self) -> Run:
        self.sim.run(self.seconds)
        return self

    def used(self, most_bps: float) -> float:
        """The share of what the forward link, or its calls at their most, could carry, once they have converged:
        `SETTLED_S` after each change of it, and after the last call has begun."""
        rate = self.forward.spec.rate
        last_start = max(flow.start_s for flow in self.flows)
        edges = [*(at for at, _ in rate.steps if last_start <= at < self.seconds), self.seconds]
        if edges[0] > last_start:
            edges.insert(0, last_start)
        carried = possible = 0.0
        for start, end in pairwise(edges):
            if end > start + SETTLED_S:
                carried += sum(flow.arrived.bits(start + SETTLED_S, end) for flow in self.flows)
                possible += capacity_bits(rate, start + SETTLED_S, end, most_bps)
        if not possible:  # a link that never rests
            return self.flows[0].arrived.bits(SETTLED_S, self.seconds) / capacity_bits(
                rate, SETTLED_S, self.seconds, most_bps
            )
        return carried / possible

    def wait_ms(self, quantile: float, start: float = 0.0, end: float | None = None) -> float:
        waits = self.forward.waits_between(start, end or self.seconds)
        return waits[int(quantile * len(waits))] * 1000

    def shares(self, start: float, end: float) -> list[float]:
        """Of each call; 1: as much as the mean."""
        bits = [flow.arrived.bits(start, end) for flow in self.flows]
        return [each * len(bits) / sum(bits) for each in bits]


def _run(seconds: float, forward: LinkSpec, back: LinkSpec | None = None) -> Run:
    sim = Simulation()
    return Run(sim, Link(sim, forward), Link(sim, back or replace(forward, rate=forward.rate)), [], seconds)


def single(scale: Scale) -> Run:
    """5.1: what is there for one call changes."""
    run = _run(100, scale.link(scale.steps((0, 1.0), (40, 2.5), (60, 0.6), (80, 1.0))))
    run.back = Link(run.sim, scale.link(scale.steps((0, 4.0))))
    run.flows = [MediaFlow(run.sim, run.forward, run.back, scale.media)]
    return run


def several(scale: Scale) -> Run:
    """5.2: what is there for two calls changes."""
    run = _run(125, scale.link(scale.steps((0, 4.0), (25, 2.0), (50, 3.5), (75, 1.0), (100, 2.0))))
    run.back = Link(run.sim, scale.link(scale.steps((0, 4.0))))
    run.flows = [MediaFlow(run.sim, run.forward, run.back, scale.media, seed=seed) for seed in (1, 2)]
    return run


def both_ways(scale: Scale) -> Run:
    """5.3: the reports of each way stand in the other's queue. The first flow goes forward, the second back."""
    run = _run(
        100,
        scale.link(scale.steps((0, 2.0), (20, 1.0), (40, 0.5), (60, 2.0))),
        scale.link(scale.steps((0, 2.0), (35, 0.8), (70, 2.0))),
    )
    run.flows = [MediaFlow(run.sim, run.forward, run.back, scale.media)]
    run.against = [MediaFlow(run.sim, run.back, run.forward, scale.media, seed=2)]
    return run


def competing(scale: Scale) -> Run:
    """5.4: three calls, one after another."""
    run = _run(120, scale.link(scale.steps((0, 3.5))))
    run.back = Link(run.sim, scale.link(scale.steps((0, 4.0))))
    run.flows = [
        MediaFlow(run.sim, run.forward, run.back, scale.media, start_s=20.0 * index, seed=index) for index in range(3)
    ]
    return run


def round_trips(scale: Scale) -> Run:
    """5.5: five calls of 10 to 150 ms one way."""
    run = _run(300, scale.link(scale.steps((0, 4.0)), delay_s=0.0))
    run.back = Link(run.sim, scale.link(scale.steps((0, 4.0)), delay_s=0.0))
    run.flows = [
        MediaFlow(
            run.sim, run.forward, run.back, scale.media, start_s=10.0 * index, delay_s=delay_s * scale.time, seed=index
        )
        for index, delay_s in enumerate((0.010, 0.025, 0.050, 0.100, 0.150))
    ]
    return run


def beside_long_tcp(scale: Scale, cubic: bool = False) -> Run:
    """5.6: a transfer that never ends."""
    run = _run(120, scale.link(scale.steps((0, 2.0))))
    run.back = Link(run.sim, scale.link(scale.steps((0, 4.0))))
    run.flows = [MediaFlow(run.sim, run.forward, run.back, scale.media)]
    run.tcp = [TcpFlow(run.sim, run.forward, run.back, start_s=0.1, segment_bytes=scale.segment_bytes, cubic=cubic)]
    return run


def beside_short_tcp(scale: Scale) -> Run:
    """5.7: ten sources of transfers of 100 kB to 1 MB, with pauses of 10 s on average; half begin at once."""
    run = _run(300, scale.link(scale.steps((0, 2.0))))
    run.back = Link(run.sim, scale.link(scale.steps((0, 4.0))))
    run.flows = [MediaFlow(run.sim, run.forward, run.back, scale.media)]
    random_ = random.Random(7)

    def begin(start_s: float) -> None:
        size = random_.uniform(100e3, 1e6) * scale.rate * scale.time
        run.tcp.append(
            TcpFlow(
                run.sim, run.forward, run.back, start_s=start_s, total_bytes=size, segment_bytes=scale.segment_bytes,
                done=lambda: begin(run.sim.now + random_.expovariate(1 / (10 * scale.time))),
            )
        )  # fmt: skip

    for index in range(10):
        begin(0.1 if index < 5 else random_.expovariate(1 / (10 * scale.time)))
    return run


def paused(scale: Scale) -> Run:
    """5.8: three calls, the second pauses for 20 s."""
    run = _run(120, scale.link(scale.steps((0, 3.5))))
    run.back = Link(run.sim, scale.link(scale.steps((0, 4.0))))
    run.flows = [
        MediaFlow(
            run.sim, run.forward, run.back, scale.media, seed=index,
            pauses=((40.0, 60.0),) if index == 1 else (),
        )
        for index in range(3)
    ]  # fmt: skip
    return run


def over(rate: Rate, seconds: float) -> Run:
    """One call over a recorded link: 50 ms one way, a second of queue."""
    run = _run(seconds, LinkSpec(rate, 0.050, 1.0))
    run.back = Link(run.sim, LinkSpec(Rate.constant(1e6), 0.050, 1.0))
    media = Media(voice_bytes=148, voice_s=0.060, pictures_a_second=10.0)  # Opus at 12 kbit/s
    run.flows = [MediaFlow(run.sim, run.forward, run.back, media)]
    return run


CASES: dict[str, Callable[[Scale], Run]] = {
    "5.1": single,
    "5.2": several,
    "5.3": both_ways,
    "5.4": competing,
    "5.5": round_trips,
    "5.6": beside_long_tcp,
    "5.7": beside_short_tcp,
    "5.8": paused,
}
