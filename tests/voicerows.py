"""The poor links that the kit is measured on, each with the plan that is made for it, heard in virtual time.

`python -m tests.voicerows` prints that table of docs/performance.md, `--playout` the one of the playout alone. Speech
is coded by the plan, goes over the emulated path with a call's control traffic beside it, and is played by the kiosk's
own buffer in both directions. A browser's buffer is its own; what it makes of the kiosk's voice only a whole call can
tell.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from edge_agent.core.allocator import Allocation, Allocator
from edge_agent.core.voice import Coding, Direction, VoicePlan
from tests.linklab.path import Loss, PathSpec, Rate
from tests.listening import Listening, Marks


class Row(NamedTuple):
    name: str
    up_kbps: float
    down_kbps: float
    delay_ms: float
    jitter_ms: float
    loss: float
    mean_run: float
    queue_s: float
    up_pesq: float  # what is aimed at
    down_pesq: float
    heard: float
    delay_p95_ms: float

    def allocation(self) -> Allocation:
        """Of a link whose rate is known, at once."""
        up, down = (Direction(kbps * 1000, self.loss, self.mean_run) for kbps in (self.up_kbps, self.down_kbps))
        return Allocator().share(up, down, 0.0)

    def path(self, kbps: float, seed: int) -> PathSpec:
        loss, jitter_s = Loss(self.loss, self.mean_run), self.jitter_ms / 1000
        return PathSpec(Rate.constant(kbps * 1000), self.delay_ms / 1000, jitter_s, loss, self.queue_s, seed=seed)


ROWS = (
    Row("18/20", 18, 20, 650, 0, 0.02, 1, 2.0, 2.9, 2.9, 0.97, 1200),
    Row("24", 24, 24, 300, 0, 0.10, 1, 1.5, 2.7, 2.7, 0.97, 950),
    Row("32", 32, 32, 300, 0, 0.01, 1, 1.5, 3.3, 3.3, 0.99, 700),
    Row("64", 64, 64, 200, 0, 0.02, 2, 1.0, 3.5, 3.5, 0.99, 550),
    Row("128", 128, 128, 150, 40, 0.05, 3, 0.6, 3.4, 3.4, 0.99, 500),
    Row("256 lossy", 256, 256, 100, 0, 0.20, 2, 0.4, 3.4, 2.8, 0.98, 450),
    Row("256 VSAT", 256, 256, 300, 20, 0.01, 1, 0.5, 3.9, 3.9, 1.00, 550),
    Row("384", 384, 384, 100, 30, 0.10, 3, 0.4, 3.5, 3.2, 0.99, 400),
    Row("1000", 1000, 1000, 40, 0, 0.0, 1, 0.3, 4.1, 4.1, 1.00, 200),
)


WIDE = Rate.constant(10e6)
THREES = PathSpec(WIDE, 0.15, 0.04, Loss(0.05, 3))
PAIRS = PathSpec(Rate.constant(64e3), 0.2, loss=Loss(0.02, 2))
FIFTH = PathSpec(WIDE, 0.1, loss=Loss(0.2))
PLAYOUT = (
    ("LAN, 24 kbit/s, 20 ms frames", PathSpec(WIDE, 0.005, 0.002), VoicePlan()),
    ("150 + 0…40 ms, 5 % in threes", THREES, VoicePlan()),
    ("the same with Opus' FEC", THREES, VoicePlan(Coding(fec=True, expected_loss_percent=10))),
    ("the same with RED, 3 older frames", THREES, VoicePlan(red_depth=3)),
    ("64 kbit/s, 200 ms, 2 % in pairs, 16 kbit/s, 60 ms frames", PAIRS, VoicePlan(Coding(16_000, 60))),
    ("the same with RED, 1 older frame", PAIRS, VoicePlan(Coding(16_000, 60), 1)),
    ("20 % lost, RED 1", FIFTH, VoicePlan(red_depth=1)),
    ("20 % lost, RED 3", FIFTH, VoicePlan(red_depth=3)),
    ("100 + 0…150 ms, nothing lost", PathSpec(WIDE, 0.1, 0.15), VoicePlan()),
)


def judge(row: Row, up: bool, plan: VoicePlan, seeds: int, seconds: float) -> tuple[Marks, float]:
    """The means over the seeds (of the delays too), and what the voice alone took of the link, in bits a second."""
    kbps = row.up_kbps if up else row.down_kbps
    runs = [Listening(row.path(kbps, seed), plan, seconds, control=True).run() for seed in range(1, seeds + 1)]
    marks = Marks(*np.mean([run.marks() for run in runs], axis=0))
    return marks, float(np.mean([run.voice_bytes * 8 / seconds for run in runs]))


def described(plan: VoicePlan) -> str:
    coding = plan.coding
    parts = [f"{coding.bps // 1000} kbit/s, {coding.frame_ms} ms"]
    if coding.fec:
        parts.append("FEC")
    if plan.red_depth:
        parts.append(f"RED {plan.red_depth}" + (f" at {plan.red_distance}" if plan.red_distance > 1 else ""))
    return ", ".join(parts)


def lines(names: list[str], seeds: int, seconds: float) -> Iterator[str]:
    yield "| link | way | plan | on the wire | PESQ (aim) | heard (aim) | mouth-to-ear p50 / p95 (aim) ms |"
    yield "|---|---|---|---|---|---|---|"
    for row in ROWS:
        if names and row.name not in names:
            continue
        call = row.allocation()
        for way, plan, aim in (("up", call.up.voice, row.up_pesq), ("down", call.down.voice, row.down_pesq)):
            marks, bps = judge(row, way == "up", plan, seeds, seconds)
            yield (
                f"| {row.name} | {way} | {described(plan)} | {bps / 1000:.1f} kbit/s "
                f"| {marks.pesq:.2f} (≥ {aim}) | {100 * marks.heard:.1f} % (≥ {100 * row.heard:.0f}) "
                f"| {marks.delay_p50_ms:.0f} / {marks.delay_p95_ms:.0f} (≤ {row.delay_p95_ms:.0f}) |"
            )


def playout_lines(seeds: int) -> Iterator[str]:
    yield "| path and coding | PESQ | mouth-to-ear ms | buffer p95 ms |"
    yield "|---|---|---|---|"
    for name, path, plan in PLAYOUT:
        runs = [Listening(replace(path, seed=seed), plan, seconds=32).run() for seed in range(1, seeds + 1)]
        pesq = np.mean([run.score().pesq for run in runs])
        delay_ms = np.mean([run.mouth_to_ear_ms() for run in runs])
        buffer_ms = np.mean([np.percentile(run.buffer_ms[200:], 95) for run in runs])
        yield f"| {name} | {pesq:.2f} | {delay_ms:.0f} | {buffer_ms:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help=", ".join(row.name for row in ROWS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=61.0)
    parser.add_argument("--playout", action="store_true", help="the playout alone, over paths of its own")
    arguments = parser.parse_args()
    wanted = lines(arguments.rows, arguments.seeds, arguments.seconds)
    for line in playout_lines(arguments.seeds) if arguments.playout else wanted:
        print(line, flush=True)


if __name__ == "__main__":
    main()
