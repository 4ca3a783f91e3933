"""How much the far end may send, from what arrives of it: its voice's delay, its gaps and its rate.

Pure: arrivals in with `now`, a rate out, in bits of the wire as all rates. A browser has an estimator of its own, fed
by the transport-cc reports it gets, but that bears some hundred milliseconds of queue, and lets a picture's packets
leave two and a half times as fast as the link takes them, so that its own voice stands behind them. Voice carries the
time at which it was sounded: what it waits longer than the fastest of it is the queue. Where it waits behind pictures
only, they are too large; where it always waits, all of it is too much.
"""

from __future__ import annotations

from collections import deque

from edge_agent.core.linkloss import LossModel
from edge_agent.core.queueing import StandingQueue

STANDING_S = 0.05  # of queue may always be there
BURST_S = 0.07  # so much longer voice may wait behind a picture than without
BEHIND_S = 0.03  # a picture's packet that came so shortly before stood before it
WINDOW_S = 3.0
FEWEST = 4
BURST_QUANTILE = 0.9
JUDGE_S = 0.25
ANSWER_S = 1.5  # until an order has reached the far end, and what it changes has come here
SOFT, MOST_CUT = 0.6, 0.3  # of the rate for each second too long; at most
GROWTH = 0.06  # a second
FAST_GROWTH, FAST_AFTER_S = 0.25, 6.0  # when nothing has waited for so long
NEAR_FROM, NEAR_TO = 0.6, 1.3  # but not near where it was last too much
UNUSED = 1.5  # of what really came: above, nothing is known
RATE_WINDOW_S = 1.0
CARRIED_S = 4.0
OUTAGE_S, IGNORED_S = 1.0, 2.0
JUMP_S = 5.0  # the far clock began anew
LEAST_BPS = 8_000.0


class FarLink:
    """`start_bps`: what is guessed or remembered of this way of the link."""

    def __init__(self, now: float, start_bps: float) -> None:
        self.known = False  # whether `rate_bps` is measured
        self.burst_s = 0.0  # what voice waits longer behind pictures than without
        self.received_bps = 0.0
        self._rate_bps = start_bps
        self._queue, self._losses = StandingQueue(), LossModel()
        self._packets: deque[tuple[float, int]] = deque()  # when, wire bytes, of the last second
        self._bytes = 0
        self._waits: deque[tuple[float, float, bool]] = deque()  # when, how long, behind a picture
        self._carried: deque[tuple[float, float]] = deque()
        self._other_at = float("-inf")
        self._voice_at: float | None = None
        self._position_s = 0.0  # of the far clock, counted on
        self._timestamp: int | None = None
        self._judged_at = self._clear_since = now
        self._hold_until = self._ignored_until = now
        self._limit_bps = 0.0  # where it was last too much

    @property
    def rate_bps(self) -> float:
        return max(LEAST_BPS, self._rate_bps)

    @property
    def queue_s(self) -> float:
        """What always stands on the link."""
        return self._queue.seconds

    @property
    def loss(self) -> float:
        return self._losses.recent

    def suppose(self, rate_bps: float) -> None:
        """A better guess, as the other way of the link becomes known; nothing once this one is."""
        if not self.known:
            self._rate_bps = rate_bps

    def packet_arrived(self, wire_bytes: int, now: float) -> None:
        """Of anything but voice."""
        self._other_at = now
        self._count(wire_bytes, now)

    def voice_arrived(self, timestamp: int, clock_rate: int, wire_bytes: int, now: float) -> None:
        """In the order of arrival; what is older than the newest (sent again) only counts as bytes."""
        self._count(wire_bytes, now)
        if self._timestamp is not None and self._voice_at is not None:
            step_s = ((timestamp - self._timestamp + (1 << 31)) % (1 << 32) - (1 << 31)) / clock_rate
            if -JUMP_S < step_s <= 0:
                return
            since_s = now - self._voice_at
            if step_s <= 0 or step_s > JUMP_S + since_s or since_s > OUTAGE_S:
                self._restart(now)
            self._position_s += step_s
        self._timestamp, self._voice_at = timestamp, now
        if now < self._ignored_until:
            return
        self._queue.add(self._position_s, now, 0)
        self._waits.append((now, self._queue.latest_s, now - self._other_at < BEHIND_S))
        while now - self._waits[0][0] > WINDOW_S:
            self._waits.popleft()
        if now - self._judged_at >= JUDGE_S:
            self._judge(now)

    def lost(self, packets: int, of: int, now: float) -> None:
        """Of those that were sent since it was last told."""
        if of > 0 and (excess := self._losses.add(of, packets, self.rate_bps)):
            self._lower(self.rate_bps * (1 - excess), now)

    # --- within

    def _count(self, wire_bytes: int, now: float) -> None:
        self._packets.append((now, wire_bytes))
        self._bytes += wire_bytes
        while now - self._packets[0][0] > RATE_WINDOW_S:
            self._bytes -= self._packets.popleft()[1]
        self.received_bps = 8 * self._bytes / RATE_WINDOW_S

    def _restart(self, now: float) -> None:
        """Another clock, or one that stood still; and what has queued up meanwhile says nothing of the rate."""
        self._queue = StandingQueue()
        self._waits.clear()
        self._ignored_until = now + IGNORED_S

    def _judge(self, now: float) -> None:
        passed_s, self._judged_at = min(1.0, now - self._judged_at), now
        self._carried.append((now, self.received_bps))
        while now - self._carried[0][0] > CARRIED_S:
            self._carried.popleft()
        self._queue.update(float("inf"))
        alone = sorted(wait_s for _, wait_s, behind in self._waits if not behind)
        behind = sorted(wait_s for _, wait_s, behind in self._waits if behind)
        usual_s = alone[len(alone) // 2] if len(alone) >= FEWEST else self.queue_s
        self.burst_s = 0.0
        if len(behind) >= FEWEST:
            self.burst_s = max(0.0, behind[int(BURST_QUANTILE * len(behind))] - usual_s)
        too_long_s = max(self.queue_s - STANDING_S, self.burst_s - BURST_S)
        if too_long_s > 0:
            self._clear_since = now
            if now >= self._hold_until:
                used_bps = max(bps for _, bps in self._carried)
                if self.queue_s > STANDING_S:  # the link is full: what comes is what it does
                    used_bps = self.received_bps
                used_bps = min(self.rate_bps, used_bps)
                self._limit_bps = used_bps
                self._lower(used_bps * (1 - min(MOST_CUT, 0.05 + SOFT * too_long_s)), now)
        elif now >= self._hold_until:
            is_near = NEAR_FROM * self._limit_bps < self._rate_bps < NEAR_TO * self._limit_bps
            growth = GROWTH if is_near or now - self._clear_since < FAST_AFTER_S else FAST_GROWTH
            most_bps = UNUSED * max(bps for _, bps in self._carried)
            if self._rate_bps < most_bps:
                self._rate_bps = min(most_bps, self._rate_bps * (1 + growth * passed_s))

    def _lower(self, rate_bps: float, now: float) -> None:
        self._rate_bps = min(self.rate_bps, max(LEAST_BPS, rate_bps))
        self.known = True
        self._hold_until = now + ANSWER_S
        self._clear_since = now
        self._waits.clear()  # what is seen from here on tells of the new rate
