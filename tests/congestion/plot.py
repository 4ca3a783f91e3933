"""A run as SVG: what the link could carry and what each flow had, and below it what packets waited."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tests.congestion.cases import Run
from tests.congestion.network import Link

WIDTH, LEFT, RIGHT, TOP, RATES, QUEUE, GAP = 960, 70, 20, 40, 220, 110, 44
COLOURS = ("#0a7d5a", "#2f5fb3", "#c77700", "#8a3fa0", "#b3261e")
TCP_COLOUR, CAPACITY_COLOUR = "#8a8a8a", "#222"
STEP_S = 0.5


def draw(title: str, run: Run) -> str:
    times = [index * STEP_S for index in range(int(run.seconds / STEP_S))]
    capacity = [run.forward.spec.rate.at(at) for at in times]
    names = [f"call {number}" for number in range(1, len(run.flows) + 1)]
    lines = [(name, COLOURS[index % len(COLOURS)], bits) for index, (name, bits) in enumerate(
        zip(names, [[flow.arrived.bps(at, at + STEP_S) for at in times] for flow in run.flows], strict=True)
    )]  # fmt: skip
    if run.tcp:
        tcp = [sum(flow.arrived.bps(at, at + STEP_S) for flow in run.tcp) for at in times]
        lines.append(("TCP", TCP_COLOUR, tcp))
    most_bps = 1.05 * max(*capacity, *(max(bits) for _, _, bits in lines))
    waits_ms = [1000 * wait for wait in waits(run.forward, times)]
    most_ms = max(100.0, 1.05 * max(waits_ms))
    height = TOP + RATES + GAP + QUEUE + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-weight="bold">{escape(title)}</text>',
    ]
    for index, (name, colour) in enumerate([("link", CAPACITY_COLOUR), *((name, colour) for name, colour, _ in lines)]):
        x = WIDTH - RIGHT - 80 * (len(lines) + 1 - index)
        parts.append(f'<text x="{x}" y="20" fill="{colour}">{escape(name)}</text>')
    parts += panel(TOP, RATES, most_bps / 1000, "kbit/s", run.seconds)
    parts += panel(TOP + RATES + GAP, QUEUE, most_ms, "queue, ms", run.seconds)
    parts.append(line(times, capacity, run.seconds, most_bps, TOP, RATES, CAPACITY_COLOUR, stepped=True))
    for _, colour, values in lines:
        parts.append(line(times, values, run.seconds, most_bps, TOP, RATES, colour))
    parts.append(line(times, waits_ms, run.seconds, most_ms, TOP + RATES + GAP, QUEUE, COLOURS[0]))
    return "\n".join([*parts, "</svg>\n"])


def waits(link: Link, times: Sequence[float]) -> list[float]:
    """The longest in each step."""
    return [(link.waits_between(at, at + STEP_S) or [0.0])[-1] for at in times]


def panel(top: float, height: float, most: float, unit: str, seconds: float) -> list[str]:
    parts = []
    step = next(
        step for scale in (1, 10, 100, 1000, 10_000) for step in (scale, 2 * scale, 5 * scale) if most / step <= 5
    )
    for mark in range(0, int(most) + 1, step):
        y = top + height * (1 - mark / most)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{mark}</text>')
    parts.append(f'<text x="8" y="{top - 6}" fill="#555">{escape(unit)}</text>')
    for second in range(0, int(seconds) + 1, 20 if seconds <= 160 else 50):
        x = LEFT + (WIDTH - LEFT - RIGHT) * second / seconds
        parts.append(f'<text x="{x:.0f}" y="{top + height + 15}" text-anchor="middle" fill="#555">{second} s</text>')
    return parts


def line(
    times: Sequence[float],
    values: Sequence[float],
    seconds: float,
    most: float,
    top: float,
    height: float,
    colour: str,
    stepped: bool = False,
) -> str:
    points = []
    for at, value in zip(times, values, strict=True):
        x = LEFT + (WIDTH - LEFT - RIGHT) * at / seconds
        y = top + height * (1 - min(value, most) / most)
        if stepped and points and points[-1][1] != y:
            points.append((x, points[-1][1]))
        if not stepped or len(points) < 2 or points[-1][1] != y or at == times[-1]:
            points.append((x, y))
    text = " ".join(f"{x:.0f},{y:.0f}" for x, y in points)
    return f'<polyline points="{text}" fill="none" stroke="{colour}" stroke-width="1.2"/>'
