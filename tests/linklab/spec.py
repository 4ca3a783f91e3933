"""A link in one line: `64,200ms,2%x2,1.0s`, `up=18,down=20,650ms,2%,2s`, `trace=FILE`, or a name of `LINKS`.

Pure but for reading a trace. The parts, in any order, separated by commas:

    64  up=18  down=20    kbit/s, each way or one way
    trace=FILE            a time_s,kbps file, looped; uptrace= and downtrace= for one way
    200ms  150+40ms       one-way delay, and jitter of 0…40 ms on top
    2%  5%x3              loss, and the mean length of its runs
    1.0s                  the drop-tail queue, in seconds at the rate of the moment
    outage=20+6           nothing goes out from second 20 for 6 seconds, the queue is held; may be repeated
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tests.linklab.path import Loss, Outage, PathSpec, Rate


class Link(NamedTuple):
    up: PathSpec  # near → far: what the kiosk sends
    down: PathSpec

    def seeded(self, seed: int) -> Link:
        """Other losses and jitter, the same in every run with this seed, and not the same in both directions."""
        return Link(replace(self.up, seed=2 * seed), replace(self.down, seed=2 * seed + 1))

    def slowest_bps(self) -> float:
        return min(bps for way in self for _, bps in way.rate.steps)


class SpecError(ValueError):
    """One line that says what was not understood."""


def _link(
    up_kbps: float,
    delay_ms: float,
    queue_s: float,
    *,
    down_kbps: float | None = None,
    jitter_ms: float = 0.0,
    loss: Loss | None = None,
    outages: tuple[Outage, ...] = (),
) -> Link:
    up = PathSpec(
        Rate.constant(up_kbps * 1000), delay_ms / 1000, jitter_ms / 1000, loss or Loss(), queue_s, outages, seed=2
    )
    return Link(up, replace(up, rate=Rate.constant((down_kbps or up_kbps) * 1000), seed=3))


def _steps() -> Link:
    rate = Rate(((0.0, 512e3), (20.0, 96e3), (40.0, 384e3), (60.0, 64e3)), period_s=80.0)
    up = PathSpec(rate, delay_s=0.1, queue_s=0.4)
    return Link(up, up)


LINKS: dict[str, Link] = {
    "18": _link(18, 650, 2.0, down_kbps=20, loss=Loss(0.02)),  # "2G developing rural"
    "24": _link(24, 300, 1.5, loss=Loss(0.10)),
    "32": _link(32, 300, 1.5, loss=Loss(0.01)),
    "64": _link(64, 200, 1.0, loss=Loss(0.02, 2)),
    "128": _link(128, 150, 0.6, jitter_ms=40, loss=Loss(0.05, 3)),
    "256": _link(256, 100, 0.4, loss=Loss(0.20, 2)),
    "vsat": _link(256, 300, 0.5, jitter_ms=20, loss=Loss(0.01)),
    "384": _link(384, 100, 0.4, jitter_ms=30, loss=Loss(0.10, 3)),
    "1000": _link(1000, 40, 0.3),
    "outages": _link(200, 120, 0.6, outages=(Outage(20.0, 6.0), Outage(45.0, 3.0))),
    "steps": _steps(),
}
"""By name. Those of a rate are the poor links that the kit is measured on; `scripts/bench-call` goes through them."""

_NUMBER = r"(\d+(?:\.\d+)?)"
_RATE = re.compile(rf"(?:(up|down)=)?{_NUMBER}k?")
_TRACE = re.compile(r"(up|down)?trace=(.+)")
_DELAY = re.compile(rf"{_NUMBER}(?:\+{_NUMBER})?ms")
_LOSS = re.compile(rf"{_NUMBER}%(?:[x:]{_NUMBER})?")
_QUEUE = re.compile(rf"{_NUMBER}s")
_OUTAGE = re.compile(rf"outage={_NUMBER}\+{_NUMBER}")


def parse_link(text: str) -> Link:
    """Raises SpecError."""
    if text.strip() in LINKS:
        return LINKS[text.strip()]
    rates: dict[str, Rate] = {}
    rest = PathSpec(Rate.constant(1e6))
    try:
        for part in filter(None, (part.strip() for part in text.split(","))):
            if found := _RATE.fullmatch(part):
                _set_rate(rates, found[1], Rate.constant(float(found[2]) * 1000))
            elif found := _TRACE.fullmatch(part):
                _set_rate(rates, found[1], Rate.from_file(Path(found[2]).expanduser()))
            elif found := _DELAY.fullmatch(part):
                rest = replace(rest, delay_s=float(found[1]) / 1000, jitter_s=float(found[2] or 0) / 1000)
            elif found := _LOSS.fullmatch(part):
                rest = replace(rest, loss=Loss(float(found[1]) / 100, float(found[2] or 1)))
            elif found := _QUEUE.fullmatch(part):
                rest = replace(rest, queue_s=float(found[1]))
            elif found := _OUTAGE.fullmatch(part):
                rest = replace(rest, outages=(*rest.outages, Outage(float(found[1]), float(found[2]))))
            else:
                raise SpecError(
                    f"{part!r} is no part of a link; a link is written as 64,200ms,2%,1.0s "
                    f"or is one of: {', '.join(LINKS)}"
                )
    except OSError as error:
        raise SpecError(f"{error.filename}: {error.strerror}") from None
    except SpecError:
        raise
    except ValueError as error:
        raise SpecError(str(error)) from None
    if rates.keys() != {"up", "down"}:
        raise SpecError("a link needs a rate each way: 64, or up=18,down=20, or trace=FILE")
    return Link(replace(rest, rate=rates["up"], seed=2), replace(rest, rate=rates["down"], seed=3))


def _set_rate(rates: dict[str, Rate], way: str | None, rate: Rate) -> None:
    for name in (way,) if way else ("up", "down"):
        rates[name] = rate


def in_words(link: Link) -> str:
    """Of the form "18 up 20 down, 650 ms, 2 %, 2 s"."""
    ways = [_rate_in_words(way.rate) for way in link]
    up = link.up
    words = [ways[0] if ways[0] == ways[1] else f"{ways[0]} up {ways[1]} down"]
    words.append(f"{up.delay_s * 1000:g}{f' + 0…{up.jitter_s * 1000:g}' if up.jitter_s else ''} ms")
    if up.loss.fraction:
        runs = {1.0: "", 2.0: " in pairs", 3.0: " in threes"}
        words.append(f"{up.loss.fraction * 100:g} %{runs.get(up.loss.mean_run, f' in runs of {up.loss.mean_run:g}')}")
    words.append(f"{up.queue_s:g} s")
    words += [f"an outage of {outage.seconds:g} s at {outage.start_s:g} s" for outage in up.outages]
    return ", ".join(words)


def _rate_in_words(rate: Rate) -> str:
    if len(rate.steps) > 4:
        return f"a trace of {rate.period_s:g} s"
    return "→".join(f"{bps / 1000:g}" for _, bps in rate.steps)
