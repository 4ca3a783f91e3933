"""What goes over the links: calls as the kit makes them, and TCP.

A call is voice that nobody asks for room, and pictures that take what the estimate leaves, through the kit's own pacer;
transport-cc numbers and reports are the kit's own too, at the pauses that a browser makes them.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.core.estimator import Estimator
from edge_agent.core.pacer import Kind, Pacer, longest_packet_bytes
from edge_agent.core.transport_cc import Arrivals, Departures
from edge_agent.media.egress import AHEAD_S, SPARING_BELOW_BPS, SPARING_S
from tests.congestion.network import Link, Simulation

TICK_S = 0.05
REPORT_BYTES = 80  # with its headers, without what it tells
# Of libwebrtc's reports: 5 % of the rate that it hears, within these.
REPORT_SHARE, SHORTEST_REPORT_S, LONGEST_REPORT_S = 0.05, 0.05, 0.25
HEADROOM = 0.95  # of what is left: encoders miss what they are told


@dataclass(frozen=True)
class Media:
    voice_bytes: int = 118  # on the wire
    voice_s: float = 0.020
    pictures_a_second: float = 15.0
    most_bps: float = 1.5e6  # RFC 8867, 4.2
    start_bps: float | None = None
    probes: bool = True  # trains, while the call begins

    @property
    def voice_bps(self) -> float:
        return self.voice_bytes * 8 / self.voice_s


class Arrived:
    """Bits over time."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._sums: list[float] = [0.0]

    def add(self, size_bytes: int, now: float) -> None:
        self.times.append(now)
        self._sums.append(self._sums[-1] + 8 * size_bytes)

    def bits(self, start: float, end: float) -> float:
        return self._sums[bisect_left(self.times, end)] - self._sums[bisect_left(self.times, start)]

    def bps(self, start: float, end: float) -> float:
        return self.bits(start, end) / (end - start)


class MediaFlow:
    def __init__(
        self,
        sim: Simulation,
        forward: Link,
        back: Link,
        media: Media,
        *,
        start_s: float = 0.0,
        pauses: tuple[tuple[float, float], ...] = (),
        delay_s: float = 0.0,
        seed: int = 1,
    ) -> None:
        """`delay_s` more than the links' own, each way. In `pauses` nothing at all is sent."""
        self.media, self.start_s = media, start_s
        self.arrived = Arrived()
        self.voice_delays: list[tuple[float, float]] = []
        self.voice_sent = 0
        self.rates: list[tuple[float, float, float]] = []  # time, estimate, standing queue
        self.estimator: Estimator
        self._sim, self._forward, self._back = sim, forward, back
        self._delay_s, self._pauses = delay_s, pauses
        self._random = random.Random(seed)
        self._departures, self._arrivals = Departures(), Arrivals()
        self._numbered_at = -1.0
        self._picture = 0
        self._pump_at: float | None = None
        self._report_due = False
        self._heard_bps, self._heard_bytes, self._heard_at = 30_000.0, 0, start_s
        sim.at(start_s, self._start)

    def _start(self) -> None:
        now = self._sim.now
        self.estimator = Estimator(now, self.media.start_bps, most_bps=self.media.most_bps)
        self._pacer: Pacer[int] = Pacer(self.estimator.rate_bps, now)
        self._voice()
        self._pictures()
        self._tick()

    def _paused(self) -> bool:
        return any(start <= self._sim.now < end for start, end in self._pauses)

    # --- sources

    def _voice(self) -> None:
        self._sim.at(self._sim.now + self.media.voice_s, self._voice)
        if self._paused():
            return
        self.voice_sent += 1
        self._pacer.put(self.media.voice_bytes, Kind.VOICE, self.media.voice_bytes, self._sim.now)
        self._pump()

    def _pictures(self) -> None:
        now, rate_bps = self._sim.now, self.estimator.rate_bps
        self._sim.at(now + 1 / self.media.pictures_a_second, self._pictures)
        room_bps = (rate_bps * HEADROOM - self.media.voice_bps) * self._random.uniform(0.85, 1.15)
        size = int(room_bps / 8 / self.media.pictures_a_second)
        if size < 60 or self._paused() or self._pacer.picture_would_wait_s(now) > AHEAD_S:
            return
        self._put_picture(size, longest_packet_bytes(rate_bps))
        self._pump()

    def _put_picture(self, size: int, longest: int) -> None:
        self._picture += 1
        count = -(-size // longest)
        for _ in range(count):
            key = self._pacer.wants_key_picture  # no larger than others: the kit's encoder bounds them
            self._pacer.put_picture(size // count, size // count, self._sim.now, picture=self._picture, key=key)

    # --- out

    def _pump(self) -> None:
        now = self._sim.now
        if self._pump_at is not None and self._pump_at <= now:
            self._pump_at = None
        self._pacer.hold(not self.estimator.has_room(now))
        while (taken := self._pacer.take(now)) is not None:
            self._leave(*taken)
            self._pacer.hold(not self.estimator.has_room(now))
        at = self._pacer.next_time(now)
        if at is not None and (self._pump_at is None or at < self._pump_at):
            self._pump_at = at
            self._sim.at(at, self._pump)

    def _leave(self, kind: Kind, size: int) -> None:
        now = self._sim.now
        self.estimator.sent(size, now)
        number = None
        if self.estimator.rate_bps >= SPARING_BELOW_BPS or now - self._numbered_at >= SPARING_S:
            self._numbered_at = now
            number = self._departures.left(size, now)
        self._forward.offer(size, lambda: self._came(kind, size, number, now), self._delay_s)

    def _probe(self) -> None:
        wanted = self.estimator.probe(self._sim.now)
        if wanted is None:
            return
        self.estimator.probe_sent(wanted, self._sim.now)
        count = max(3, -(-wanted // 1200))
        for _ in range(count):
            now = self._sim.now
            size = wanted // count
            self.estimator.sent(size, now)
            number = self._departures.left(size, now)
            self._forward.offer(
                size,
                lambda size=size, number=number, now=now: self._came(Kind.REDUNDANCY, size, number, now),
                self._delay_s,
            )

    def _tick(self) -> None:
        now = self._sim.now
        self._sim.at(now + TICK_S, self._tick)
        self.estimator.tick(now)
        if self.media.probes and not self._paused():
            self._probe()
        self._pacer.set_rate(self.estimator.rate_bps, now)
        self.rates.append((now, self.estimator.rate_bps, self.estimator.queue_s))
        self._pump()

    # --- the far end

    def _came(self, kind: Kind, size: int, number: int | None, sent_at: float) -> None:
        now = self._sim.now
        self.arrived.add(size, now)
        if kind is Kind.VOICE:
            self.voice_delays.append((now, now - sent_at))
        self._heard_bytes += size
        if number is None:
            return
        self._arrivals.came(number, now)
        if not self._report_due:
            self._report_due = True
            every = REPORT_BYTES * 8 / (REPORT_SHARE * self._heard_bps)
            self._sim.at(now + min(LONGEST_REPORT_S, max(SHORTEST_REPORT_S, every)), self._report)

    def _report(self) -> None:
        now = self._sim.now
        self._report_due = False
        if now > self._heard_at:
            heard = 8 * self._heard_bytes / (now - self._heard_at)
            self._heard_bps += (max(8000.0, heard) - self._heard_bps) * 0.3
            self._heard_bytes, self._heard_at = 0, now
        while (fci := self._arrivals.report()) is not None:
            self._back.offer(REPORT_BYTES + len(fci), lambda fci=fci: self._reported(fci), self._delay_s)

    def _reported(self, fci: bytes) -> None:
        now = self._sim.now
        self.estimator.take_fates(self._departures.reported(fci), now)
        self._pacer.set_rate(self.estimator.rate_bps, now)
        self._pump()


class TcpFlow:
    """A sender that has `total_bytes` to send, or never ends: slow start, then Reno or CUBIC (RFC 9438); SACK, so that
    one loss event halves once; a time-out starts anew."""

    def __init__(
        self,
        sim: Simulation,
        forward: Link,
        back: Link,
        *,
        start_s: float,
        total_bytes: float = float("inf"),
        segment_bytes: int = 1500,
        cubic: bool = False,
        delay_s: float = 0.0,
        done: Callable[[], None] | None = None,
    ) -> None:
        self.arrived = Arrived()
        self._sim, self._forward, self._back = sim, forward, back
        self._segment, self._cubic, self._delay_s, self._done = segment_bytes, cubic, delay_s, done
        self._left = total_bytes
        self._window, self._threshold = 10.0, 1e9
        self._largest, self._epoch = 0.0, start_s  # of CUBIC
        self._flying: deque[tuple[int, float]] = deque()  # number, sent at
        self._acked: set[int] = set()
        self._next = 0
        self._recover = -1  # a loss at or before this is of an event that was answered
        self._rtt_s = 0.2 + 2 * delay_s
        self._heard_at = start_s
        self.ended = False
        sim.at(start_s, self._begin)

    def _begin(self) -> None:
        self._heard_at = self._sim.now
        self._send()
        self._watch()

    def _send(self) -> None:
        while len(self._flying) - len(self._acked) < int(self._window) and self._left > 0:
            number, now = self._next, self._sim.now
            self._next += 1
            self._left -= self._segment
            self._flying.append((number, now))
            self._forward.offer(self._segment, lambda number=number, now=now: self._came(number, now), self._delay_s)

    def _came(self, number: int, sent_at: float) -> None:
        self.arrived.add(self._segment, self._sim.now)
        self._back.offer(52, lambda: self._ack(number, sent_at), self._delay_s)

    def _ack(self, number: int, sent_at: float) -> None:
        now = self._sim.now
        self._heard_at = now
        self._rtt_s += 0.125 * (now - sent_at - self._rtt_s)
        self._acked.add(number)
        while self._flying and (self._flying[0][0] in self._acked or self._flying[0][0] < number - 3):
            first = self._flying.popleft()[0]
            if first in self._acked:
                self._acked.discard(first)
                continue
            self._left += self._segment  # to be sent again
            if first > self._recover:
                self._recover = self._next
                self._lost(0.7 if self._cubic else 0.5)
        self._grow(now)
        if self._left <= 0 and not self._flying and not self.ended:
            self.ended = True
            if self._done is not None:
                self._done()
        self._send()

    def _grow(self, now: float) -> None:
        if self._window < self._threshold:
            self._window += 1
            return
        reno = self._window + 1 / self._window
        if not self._cubic:
            self._window = reno
            return
        k = (self._largest * 0.3 / 0.4) ** (1 / 3)
        target = 0.4 * (now - self._epoch - k) ** 3 + self._largest
        self._window = max(reno, min(target, self._window + 0.5))

    def _lost(self, factor: float) -> None:
        self._largest, self._epoch = self._window, self._sim.now
        self._window = self._threshold = max(2.0, self._window * factor)

    def _watch(self) -> None:
        now = self._sim.now
        if self.ended:
            return
        self._sim.at(now + 0.2, self._watch)
        if now - self._heard_at > max(1.0, 3 * self._rtt_s) and self._flying:
            self._left += self._segment * (len(self._flying) - len(self._acked))
            self._flying.clear()
            self._acked.clear()
            self._threshold, self._window = max(2.0, self._window / 2), 1.0
            self._heard_at = now
            self._recover = self._next
            self._send()
