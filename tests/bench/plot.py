"""A plot of the voice of each peer on each link, as SVG: three panels over one axis of links."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from tests.bench.results import Summary, Way
from tests.bench.rows import PEERS, ROWS, Target

WIDTH, LEFT, RIGHT, TOP, PANEL, GAP = 960, 120, 20, 46, 170, 26
COLOURS = {
    "kit": "#0a7d5a",
    "told": "#35b48a",
    "unpaced": "#8a8a8a",
    "stock": "#b3261e",
    "chromium": "#2f5fb3",
    "tuned": "#c77700",
}


class Panel(NamedTuple):
    title: str
    low: float
    high: float
    marks: Sequence[float]
    value: Callable[[Way], float | None]
    worse: Callable[[Sequence[float]], float]  # of the two directions
    promised: Callable[[Target], float]
    logarithmic: bool = False

    def height(self, value: float) -> float:
        """0 at the bottom, 1 at the top."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def _promised_pesq(target: Target) -> float:
    return min(target.up_pesq, target.down_pesq)


PANELS = (
    Panel("PESQ", 1.0, 4.5, (1, 2, 3, 4), lambda way: way.pesq, min, _promised_pesq),
    Panel(
        "heard, %", 0.0, 100.0, (0, 50, 90, 100), lambda way: way.heard * 100, min, lambda target: target.heard * 100
    ),
    Panel(
        "p95, ms",
        100.0,
        6000.0,
        (100, 200, 500, 1000, 2000, 5000),
        lambda way: way.delay_p95_ms,
        max,
        lambda target: target.delay_p95_ms,
        True,
    ),
)


def draw(found: Sequence[Summary]) -> str:
    """The worse of the two directions, and what is promised of the kit."""
    rows = [name for name in ROWS if any(each.row == name for each in found)]
    peers = [peer for peer in PEERS if any(each.peer == peer for each in found)]
    step = (WIDTH - LEFT - RIGHT) / max(1, len(rows))
    height = TOP + len(PANELS) * (PANEL + GAP) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for index, peer in enumerate(peers):
        x = LEFT + 110 * index
        parts.append(f'<circle cx="{x}" cy="20" r="5" fill="{COLOURS[peer]}"/>')
        parts.append(f'<text x="{x + 10}" y="24">{escape(peer)}</text>')
    x = LEFT + 110 * len(peers)
    parts.append(_promise(x, 20, 12))
    parts.append(f'<text x="{x + 18}" y="24">promised of the kit</text>')
    for number, panel in enumerate(PANELS):
        top = TOP + number * (PANEL + GAP)
        parts.append(f'<text x="8" y="{top + 12}" font-weight="bold">{escape(panel.title)}</text>')
        for mark in panel.marks:
            y = top + PANEL * (1 - panel.height(mark))
            parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{mark:g}</text>')
        for index, name in enumerate(rows):
            if target := ROWS[name].target:
                y = top + PANEL * (1 - panel.height(panel.promised(target)))
                parts.append(_promise(LEFT + step * (index + 0.5), y, min(30.0, step / 2.5)))
        for each in found:
            values = [value for way in (each.up, each.down) if (value := panel.value(way)) is not None]
            if len(values) == 2:
                shift = (peers.index(each.peer) - (len(peers) - 1) / 2) * min(14.0, step / 6)
                x = LEFT + step * (rows.index(each.row) + 0.5) + shift
                y = top + PANEL * (1 - panel.height(panel.worse(values)))
                parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{COLOURS[each.peer]}"/>')
    for index, name in enumerate(rows):
        x = LEFT + step * (index + 0.5)
        parts.append(f'<text x="{x:.1f}" y="{height - 14}" text-anchor="middle">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _promise(x: float, y: float, half: float) -> str:
    return f'<line x1="{x - half:.1f}" x2="{x + half:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#222" stroke-width="2"/>'
