"""What a call's link did and what was made of it, kept in some kilobytes: to be looked at, and to try an estimator on.

Pure: the events that an estimator is told of, and the allocator's decisions, in; bytes out, and back. The first and the
last of a call are kept, what is between goes. Nothing in it tells who talked or what was said: times, sizes and rates.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from edge_agent.core.allocator import Allocation
from edge_agent.core.estimator import Estimator
from edge_agent.core.transport_cc import TICK_S, Fate

MAGIC = b"TCT1"  # another form is another number
FIRST, LAST = 3_000, 6_000  # events; a minute of a good link has some 6,000
MOST_BYTES = 4_000_000  # unpacked
_LEFT, _TOLD, _REPORT, _ANSWER, _DECISION = range(5)
PER_MS = 1000


class TraceError(ValueError):
    """One line that says what is wrong with a file."""


class Decision(NamedTuple):
    at_s: float
    up_bps: float
    down_bps: float
    queue_s: float
    voice_bps: float  # of the wire, up
    picture_bps: float
    picture_height: int
    pictures_s: float
    reason: str


class Trace:
    def __init__(self, now: float, start_bps: float | None) -> None:
        self._began, self._start_bps = now, start_bps
        self._first: list[list[Any]] = []
        self._last: deque[list[Any]] = deque(maxlen=LAST)
        self._decision: list[Any] = []

    def left(self, size_bytes: int, now: float) -> None:
        self._add([_LEFT, self._ms(now), size_bytes])

    def told(self, fates: Sequence[Fate], now: float) -> None:
        packets = [
            (
                self._ms(fate.sent_at),
                fate.size_bytes,
                None if fate.received_at is None else round(fate.received_at / TICK_S),
            )
            for fate in fates
        ]
        self._add([_TOLD, self._ms(now), packets])

    def reported(self, fraction_lost: float, rtt_s: float | None, now: float) -> None:
        self._add(
            [_REPORT, self._ms(now), round(256 * fraction_lost), None if rtt_s is None else round(rtt_s * PER_MS)]
        )

    def answered(self, rtt_s: float, wire_bytes: int, now: float) -> None:
        self._add([_ANSWER, self._ms(now), round(rtt_s * PER_MS * 10), wire_bytes])

    def decided(self, allocation: Allocation, queue_s: float, now: float) -> None:
        up, pictures = allocation.up, allocation.up.pictures
        decision = [
            round(up.rate_bps, -3), round(allocation.down.rate_bps, -3), round(up.voice.wire_bps),
            pictures.bps if pictures else 0, pictures.height if pictures else 0, pictures.rate if pictures else 0.0,
            up.reason,
        ]  # fmt: skip
        if decision != self._decision:
            self._decision = decision
            self._add([_DECISION, self._ms(now), round(queue_s * PER_MS), *decision])

    def pack(self) -> bytes:
        body = msgspec.msgpack.encode([self._start_bps, self._first, list(self._last)])
        return MAGIC + zlib.compress(body, 9)

    def _add(self, event: list[Any]) -> None:
        (self._first if len(self._first) < FIRST else self._last).append(event)

    def _ms(self, at: float) -> float:
        return round((at - self._began) * PER_MS, 1)


class Story:
    """A trace that was read. Raises TraceError for what is none."""

    def __init__(self, data: bytes) -> None:
        if data[: len(MAGIC)] != MAGIC:
            raise TraceError("this is no trace of a call, or one of another version: it does not begin with TCT1")
        try:
            inflater = zlib.decompressobj()
            body = inflater.decompress(data[len(MAGIC) :], MOST_BYTES)
            if not inflater.eof:
                raise TraceError("this trace of a call is cut short, or far too long")
            start_bps, first, last = msgspec.msgpack.decode(body, type=tuple[float | None, list[Any], list[Any]])
            self.start_bps: float | None = start_bps
            self.events: list[list[Any]] = [*first, *last]
            self.decisions = [_decision(event) for event in self.events if event[0] == _DECISION]
            self.seconds = max((event[1] for event in self.events), default=0.0) / PER_MS
        except (zlib.error, msgspec.DecodeError, TypeError, IndexError, ValueError) as error:
            raise error if isinstance(error, TraceError) else TraceError(f"not a trace of a call: {error}") from None

    def replayed(self) -> list[tuple[float, float, float]]:
        """What the estimator of today makes of it: seconds, rate in bit/s, and the queue in seconds."""
        estimator = Estimator(0.0, self.start_bps)
        found = [(0.0, estimator.rate_bps, 0.0)]
        for kind, at_ms, *rest in self.events:
            now = at_ms / PER_MS
            match kind:
                case 0:
                    estimator.sent(rest[0], now)
                case 1:
                    fates = [
                        Fate(seq, size, sent_ms / PER_MS, None if ticks is None else ticks * TICK_S)
                        for seq, (sent_ms, size, ticks) in enumerate(rest[0])
                    ]
                    estimator.take_fates(fates, now)
                case 2:
                    estimator.take_receiver_report(rest[0] / 256, None if rest[1] is None else rest[1] / PER_MS, now)
                case 3:
                    estimator.take_rtt(rest[0] / PER_MS / 10, now, rest[1])
            estimator.tick(now)
            if now - found[-1][0] >= 0.1:
                found.append((now, estimator.rate_bps, estimator.queue_s))
        return found

    def lost(self) -> list[tuple[float, float]]:
        """Seconds, and the share of the voice that a report of the far end calls lost."""
        return [(event[1] / PER_MS, event[2] / 256) for event in self.events if event[0] == _REPORT]

    def sent_bps(self, every_s: float = 0.5) -> list[tuple[float, float]]:
        sums: dict[int, int] = {}
        for event in self.events:
            if event[0] == _LEFT:
                slot = int(event[1] / PER_MS / every_s)
                sums[slot] = sums.get(slot, 0) + event[2]
        return [(slot * every_s, 8 * size / every_s) for slot, size in sorted(sums.items())]


def svg(story: Story) -> str:
    """Three curves over the seconds of a call: rate, loss, and queue; as it was, and as it is replayed."""
    width, height, left, gap = 900, 150, 70, 50
    seconds = max(story.seconds, 1.0)
    replayed = story.replayed()
    rows = [
        ("kbit/s", max(100.0, *(d.up_bps / 1000 for d in story.decisions), 0.0), [
            ("sent", "#9aa5ad", [(at, bps / 1000) for at, bps in story.sent_bps()]),
            ("estimate, replayed", "#c25b3f", [(at, bps / 1000) for at, bps, _ in replayed]),
            ("estimate", "#1f5f8b", _steps([(d.at_s, d.up_bps / 1000) for d in story.decisions], seconds)),
        ]),
        ("% lost", 30.0, [("voice, by the far end", "#1f5f8b", [(at, 100 * share) for at, share in story.lost()])]),
        ("queue, ms", 500.0, [("replayed", "#c25b3f", [(at, 1000 * queue_s) for at, _, queue_s in replayed])]),
    ]  # fmt: skip
    parts = []
    for number, (unit, top, curves) in enumerate(rows):
        y0 = 20 + number * (height + gap)
        parts.append(f'<rect x="{left}" y="{y0}" width="{width}" height="{height}" fill="none" stroke="#ccc"/>')
        parts.append(f'<text x="{left - 6}" y="{y0 + 10}" text-anchor="end">{top:.0f}</text>')
        parts.append(f'<text x="{left - 6}" y="{y0 + height}" text-anchor="end">0</text>')
        parts.append(f'<text x="{left}" y="{y0 - 5}">{unit}: {", ".join(name for name, _, _ in curves)}</text>')
        for _, colour, points in curves:
            line = " ".join(
                f"{left + width * at / seconds:.1f},{y0 + height * (1 - min(value, top) / top):.1f}"
                for at, value in points
            )
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
    bottom = 20 + 3 * (height + gap)
    parts.append(f'<text x="{left + width}" y="{bottom - 30}" text-anchor="end">{seconds:.0f} s</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 20}" height="{bottom}" font-size="11" '
        f'font-family="sans-serif">{"".join(parts)}</svg>\n'
    )


def told(story: Story) -> str:
    """A line for each decision that changed what is sent."""
    lines = [f"{story.seconds:.1f} s, {len(story.events)} events"]
    for before, decision in pairwise([None, *story.decisions]):
        assert decision is not None  # noqa: S101
        form = decision.picture_height, decision.pictures_s
        if before is not None and (before.picture_height, before.pictures_s, before.voice_bps) == (
            *form,
            decision.voice_bps,
        ):
            continue
        pictures = f"{decision.picture_height} lines at {decision.pictures_s:.2f}/s" if form[0] else "none"
        lines.append(
            f"{decision.at_s:7.1f} s  up {decision.up_bps / 1000:.0f} kbit/s  voice {decision.voice_bps / 1000:.0f}  "
            f"pictures {pictures}{f', {decision.reason}' if decision.reason else ''}"
        )
    return "\n".join(lines)


def _decision(event: list[Any]) -> Decision:
    _, at_ms, queue_ms, up, down, voice, bps, height, rate, reason = event
    return Decision(at_ms / PER_MS, up, down, queue_ms / PER_MS, voice, bps, height, rate, reason)


def _steps(points: list[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """Each value holds until the next."""
    corners = [corner for (at, value), (later, _) in pairwise(points) for corner in ((at, value), (later, value))]
    return [*corners, *([points[-1], (end, points[-1][1])] if points else [])]
