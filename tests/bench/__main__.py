"""Measure calls over poor links: the kit, stock aiortc, and browsers among themselves, on the same links.

    scripts/bench-call                                   everything: about five hours
    scripts/bench-call --rows 64,32 --peers kit,tuned --runs 1 --seconds 30
    scripts/bench-call --report --write                  only tell what was found so far, into docs/performance.md

It goes on where it was stopped: a run that is in the results folder is not repeated, except with changed code.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from playwright.async_api import async_playwright

from tests.bench import report
from tests.bench.call import measure
from tests.bench.material import prepare
from tests.bench.results import Result, Results, build_of, summaries
from tests.bench.rows import PEERS, ROWS, USUAL_PEERS
from tests.linklab.lab import LabUnavailable, unavailable_reason, with_namespaces_allowed

ROOT = Path(__file__).resolve().parents[2]
AROUND_A_CALL_S = 16  # starting, ending and judging it
NICENESS = -10  # what the kit's media process takes for itself: no peer is to be behind it


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench-call", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=_among(ROWS), default=list(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument(
        "--peers",
        type=_among(PEERS),
        default=list(USUAL_PEERS),
        help=f"of {', '.join(PEERS)} (default: {','.join(USUAL_PEERS)})",
    )
    parser.add_argument("--runs", type=int, default=3, help="of each, the median counts (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a call (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=ROOT / ".bench", help="folder (default: %(default)s)")
    parser.add_argument("--corpus", type=Path, help="a folder with recordings: speech/*.wav, and video/* if wanted")
    parser.add_argument("--report", action="store_true", help="measure nothing, tell what is in the results folder")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md too")
    parser.add_argument("--preliminary", action="store_true", help="say in what is written that it is")
    options = parser.parse_args()
    if options.seconds < 14:
        parser.error("--seconds: at least 14, of which 5 are skipped and 8 are one window")
    results = Results(options.results)
    if not options.report:
        try:
            with_namespaces_allowed()
            if reason := unavailable_reason():
                raise LabUnavailable(reason)
        except LabUnavailable as error:
            print(f"no link can be made here: {error}", file=sys.stderr)
            return 1
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        try:
            asyncio.run(_measure_all(options, results))
        except ValueError as error:
            print(f"bench-call: {error}", file=sys.stderr)
            return 2
    every = results.all()
    found = [each for each in summaries(every) if each.row in options.rows and each.peer in options.peers]
    if not found:
        print("nothing has been measured yet")
        return 1
    print(report.for_terminal(found))
    if options.write:
        document = ROOT / "docs" / "performance.md"
        report.write(document, every, summaries(every), options.preliminary)  # all that is known, whatever was asked
        print(f"written: {document.relative_to(ROOT)}")
    return 0


async def _measure_all(options: argparse.Namespace, results: Results) -> None:
    """Run by run over all rows and peers, so that an early stop leaves something of everything."""
    with tempfile.TemporaryDirectory(prefix="bench-call-") as name:
        folder = Path(name)
        _say("making speech and film …")
        material = prepare(folder / "material", options.corpus)
        plan = [
            (run, row, peer) for run in range(1, options.runs + 1) for row in options.rows for peer in options.peers
        ]  # fmt: skip
        missing = [
            (run, row, peer)
            for run, row, peer in plan
            if not results.has(row, peer, run, options.seconds, material.name)
        ]
        _say(f"{len(plan)} calls, {len(plan) - len(missing)} of them measured before{_takes(len(missing), options)}")
        async with async_playwright() as playwright:
            for number, (run, row, peer) in enumerate(missing, 1):
                began = time.monotonic()
                place = f"{number}/{len(missing)}"
                _say(f"{place} {row} {peer} run {run} …{_takes(len(missing) - number + 1, options)}", passing=True)
                try:
                    result = await measure(
                        playwright, ROWS[row], peer, run, options.seconds, material, folder / "call"
                    )  # fmt: skip
                except Exception as error:  # one call that could not be made leaves the others alone
                    _say(f"{place} {row} {peer} run {run}: not measured: {error!r}")
                    continue
                result.build = build_of(peer)
                results.add(result)
                _say(f"{place} {in_a_line(result)} ({time.monotonic() - began:.0f} s)")


def _takes(calls: int, options: argparse.Namespace) -> str:
    minutes = calls * (options.seconds + AROUND_A_CALL_S) / 60
    return f"; about {minutes:.0f} min" if calls else ""


def _say(line: str, passing: bool = False) -> None:
    """A passing line is there until the next one, and where somebody sees it."""
    on_terminal = sys.stdout.isatty()
    if on_terminal or not passing:
        print(("\033[K" if on_terminal else "") + line, end="\r" if passing else "\n", flush=True)


def in_a_line(result: Result) -> str:
    ways = [
        f"{arrow} PESQ {way.pesq:.2f} heard {way.heard * 100:.0f} % p50/p95 {way.delay_p50_ms}/{way.delay_p95_ms} ms "
        f"{way.pictures_s:.1f} pictures/s"
        for arrow, way in (("↑", result.up), ("↓", result.down))
    ]
    return f"{result.row} {result.peer} run {result.run}: {'; '.join(ways)}; {result.state}, load {result.load:.1f}"


def _among(known: Sequence[str] | dict[str, object]):
    def read(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return names

    return read


if __name__ == "__main__":
    sys.exit(main())
