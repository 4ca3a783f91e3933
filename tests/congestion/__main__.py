"""`scripts/bench-congestion`: the estimator on RFC 8867's cases and on recorded links, in figures and as plots."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.congestion.cases import CASES, SCALES, Run, beside_long_tcp, over
from tests.congestion.plot import draw
from tests.linklab.path import Rate

TRACE_S = 120.0
HEADING = """\
| run | used | queue p50, ms | p95 | voice later than the fastest, p95, ms | voice that arrived | shares of the calls |
|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench-congestion", description=__doc__)
    parser.add_argument("--cases", default=",".join(CASES), help="of RFC 8867, section 5; default: all; none: ''")
    parser.add_argument("--scales", default="full,thin", help="thin: rates by 20, delays and queues by 4")
    parser.add_argument("--traces", type=Path, metavar="FOLDER", help="of time_s,kbps files: a call over each of them")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="write an SVG of each run there")
    told = parser.parse_args()
    print(HEADING)
    for scale in (SCALES[name] for name in told.scales.split(",")):
        for name in filter(None, told.cases.split(",")):
            most_bps = scale.media.most_bps
            show(f"{name} {scale.name}", CASES[name](scale).go(), most_bps, told.plot)
            if name == "5.6":
                show(f"{name} {scale.name}, CUBIC", beside_long_tcp(scale, cubic=True).go(), most_bps, told.plot)
    for trace in sorted(told.traces.glob("*.csv")) if told.traces else []:
        show(trace.stem, over(Rate.from_file(trace), TRACE_S).go(), 1.5e6, told.plot)


def show(name: str, run: Run, most_bps: float, plot: Path | None) -> None:
    voice = sorted(delay_s for flow in run.flows for _, delay_s in flow.voice_delays)
    late_ms = 1000 * (voice[int(0.95 * len(voice))] - voice[0]) if len(run.flows) == 1 else None
    heard = sum(len(flow.voice_delays) for flow in run.flows) / sum(flow.voice_sent for flow in run.flows)
    shares = " ".join(f"{share:.2f}" for share in run.shares(run.seconds / 2, run.seconds))
    print(
        f"| {name} | {run.used(most_bps * len(run.flows)):.2f} | {run.wait_ms(0.5):.0f} | {run.wait_ms(0.95):.0f} | "
        f"{'' if late_ms is None else f'{late_ms:.0f}'} | {100 * heard:.1f} % | {shares} |",
        flush=True,
    )
    if plot is not None:
        plot.mkdir(parents=True, exist_ok=True)
        (plot / f"congestion-{name.replace(' ', '-').replace(',', '').lower()}.svg").write_text(draw(name, run))


if __name__ == "__main__":
    main()
