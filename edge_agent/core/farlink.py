"""How much the far end may send, from what arrives of it: its voice's delay, its gaps and its rate.

Pure: arrivals in with `now`, a rate out, in bits of the wire as all rates. A browser has an estimator of its own, fed
by the transport-cc reports it gets, but that bears some hundred milliseconds of queue, knows nothing while it sends
voice only, and lets a picture's packets leave two and a half times as fast as the link takes them. Voice carries the
time at which it was sounded: what the fastest of a while has waited longer than the fastest of all is a queue, and
while one stands, what comes is what the link does. Less than that is asked for until the queue is gone.
"""

from __future__ import annotations

from collections import deque
from statistics import median

from edge_agent.core.linkloss import LossModel
from edge_agent.core.queueing import StandingQueue

STANDING_S = 0.06  # of queue may always be there: a browser's sound is some blocks of 10 ms early or late
FOR_S = 0.6  # it stands so long, and is not one picture, or a far computer that was busy
DRAIN_S, MOST_DRAIN = 2.0, 0.4  # a queue of so many seconds takes as long to drain; this share at most is left unused
BURST_S = 0.08  # so much longer voice may wait behind a picture than without
CLEAR_BURST_S = 0.06  # so little, and there may be more
OUTRUN = 1.3  # what a busy computer gave out at once came faster
BEHIND_S = 0.03  # a picture's packet that came so shortly before stood before it
WINDOW_S = 3.0
FEWEST = 4
BURST_QUANTILE = 0.9
JUDGE_S = 0.25
ANSWER_S = 1.5  # until an order has reached the far end, and what it changes has come here
FUTILE, DRAINED = 2, 0.8  # so many cuts after which no less of it stands: it is no queue of this call's
TOO_SOON_S = 0.5  # for an order to have reached the far end and changed what comes
EASE, BURST_EASE = 0.95, 0.9  # of the rate, when what is sent stands or waits too long
SLOW_GROWTH, GROWTH = 0.02, 0.06  # a second: near where it was last too much, and elsewhere
FAST_GROWTH, FAST_AFTER_S = 0.25, 6.0  # when nothing has waited for so long
NEAR_FROM, NEAR_TO = 0.8, 1.3
RETRY_S, MOST_RETRY_S = 8.0, 64.0  # what was too much is tried again after so long, each time later
USED, UNUSED = 0.45, 2.0  # of what really came: with less, or above it, nothing is known
UNSUPPOSED_S = 8.0  # nothing is judged by what comes before it is known what to suppose
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
        self._rate_bps = start_bps
        self._queue, self._losses = StandingQueue(), LossModel()
        self._packets: deque[tuple[float, int]] = deque()  # when, wire bytes, of the last second
        self._waits: deque[tuple[float, float, bool]] = deque()  # when, how long, behind a picture
        self._carried: deque[tuple[float, float]] = deque()
        self._other_at = float("-inf")
        self._voice_at: float | None = None
        self._position_s = 0.0  # of the far clock, counted on: where the sound of the newest packet ends
        self._timestamp: int | None = None
        self._judged_at = self._clear_since = now
        self._stands_since: float | None = None
        self._stood_at_cuts: list[float] = []  # how much, while the same queue stands
        self._before_cuts_bps, self._cut_at = start_bps, now
        self._hold_until = self._ignored_until = now
        self._limit_bps = start_bps  # where it was last too much, or may be
        self._retry_s, self._retry_at = RETRY_S, now + RETRY_S
        self._is_supposed, self._began_at = False, now

    @property
    def rate_bps(self) -> float:
        """Of which nothing need be kept back: what must drain is taken off already."""
        too_long_s = self.queue_s - STANDING_S if self._stands_since is not None and self.known else 0.0
        return max(LEAST_BPS, self._rate_bps * (1 - min(MOST_DRAIN, max(0.0, too_long_s) / DRAIN_S)))

    @property
    def queue_s(self) -> float:
        """What always stands on the link."""
        return self._queue.seconds

    def suppose(self, rate_bps: float) -> None:
        """A better guess, as the other way of the link becomes known; nothing once this one is."""
        self._is_supposed = True
        if not self.known:
            self._rate_bps = self._limit_bps = rate_bps

    def packet_arrived(self, wire_bytes: int, now: float) -> None:
        """Of anything but voice."""
        self._other_at = now
        self._count(wire_bytes, now)

    def voice_arrived(self, ends_at: int, clock_rate: int, wire_bytes: int, now: float) -> None:
        """In the order of arrival; what is older than the newest (sent again) only counts as bytes. `ends_at`: the
        packet's timestamp and its sound's length: before that it could not leave, however long its frames are."""
        self._count(wire_bytes, now)
        if self._timestamp is not None and self._voice_at is not None:
            step_s = ((ends_at - self._timestamp + (1 << 31)) % (1 << 32) - (1 << 31)) / clock_rate
            if -JUMP_S < step_s <= 0:
                return
            since_s = now - self._voice_at
            if step_s <= 0 or step_s > JUMP_S + since_s or since_s > OUTAGE_S:
                self._restart(now)
            self._position_s += step_s
        self._timestamp, self._voice_at = ends_at, now
        if now < self._ignored_until:
            return
        self._queue.add(self._position_s, now, wire_bytes)
        waited_s = self._queue.latest_s
        if waited_s > BURST_S and self._received_bps(waited_s, now) > OUTRUN * self._rate_bps:
            waited_s = 0.0  # so much came meanwhile that it was not for this rate
        self._waits.append((now, waited_s, now - self._other_at < BEHIND_S))
        while now - self._waits[0][0] > WINDOW_S:
            self._waits.popleft()
        if now - self._judged_at >= JUDGE_S:
            self._judge(now)

    def lost(self, packets: int, of: int, now: float) -> None:
        """Of those that were sent since it was last told."""
        if of > 0 and self._is_supposed and (excess := self._losses.add(of, packets, self._rate_bps)):
            self._lower(self._rate_bps * (1 - excess), now)

    # --- within

    def _count(self, wire_bytes: int, now: float) -> None:
        self._packets.append((now, wire_bytes))
        while now - self._packets[0][0] > RATE_WINDOW_S:
            self._packets.popleft()

    def _received_bps(self, window_s: float, now: float) -> float:
        """What was handed over, with what the link lost of it after its queue."""
        bits = 8 * sum(size for at, size in self._packets if now - at < window_s)
        return bits / window_s / (1 - min(0.5, self._losses.recent))

    def _forget_queue(self) -> None:
        self._queue = StandingQueue()
        self._waits.clear()
        self._stands_since = None
        self._stood_at_cuts.clear()

    def _restart(self, now: float) -> None:
        """Another clock, or one that stood still; and what has queued up meanwhile says nothing of the rate."""
        self._forget_queue()
        self._ignored_until = now + IGNORED_S

    def _judge(self, now: float) -> None:
        passed_s, self._judged_at = min(1.0, now - self._judged_at), now
        self._carried.append((now, self._received_bps(RATE_WINDOW_S, now)))
        while now - self._carried[0][0] > CARRIED_S:
            self._carried.popleft()
        self._queue.update(self._rate_bps)
        self._look_for_bursts()
        if self.queue_s <= STANDING_S:
            # Gone before the order can have been of any use: it was a large picture, or a busy computer.
            if len(self._stood_at_cuts) == 1 and now - self._cut_at < TOO_SOON_S:
                self._rate_bps = self._limit_bps = max(self._rate_bps, EASE * self._before_cuts_bps)
            self._stands_since = None
            self._stood_at_cuts.clear()
        elif self._stands_since is None:
            self._stands_since = now
        if self._stands_since is not None or self.burst_s > BURST_S:
            self._clear_since = now
        if now < self._hold_until or not (self._is_supposed or now - self._began_at > UNSUPPOSED_S):
            return
        if self._stands_since is not None:
            stood_s = now - self._stands_since
            if len(self._stood_at_cuts) >= FUTILE and self.queue_s > DRAINED * self._stood_at_cuts[-FUTILE]:
                # What stands whatever is sent is a busy computer's, or somebody else's, and to go without a picture for
                # it helps nobody.
                self._forget_queue()
                self._rate_bps = self._before_cuts_bps
            elif stood_s >= FOR_S:
                if not self._stood_at_cuts:
                    self._before_cuts_bps = self._rate_bps
                self._stood_at_cuts.append(self.queue_s)
                self._cut_at = now
                came_bps = self._received_bps(min(RATE_WINDOW_S, stood_s), now)
                came_bps = max(came_bps, median(bps for at, bps in self._carried if at >= self._stands_since))
                self._lower(EASE * min(self._rate_bps, came_bps), now)
        elif self.burst_s > BURST_S:
            self._lower(self._rate_bps * BURST_EASE, now)
        elif self.burst_s <= CLEAR_BURST_S:
            self._grow(passed_s, now)

    def _look_for_bursts(self) -> None:
        alone = sorted(wait_s for _, wait_s, behind in self._waits if not behind)
        behind = sorted(wait_s for _, wait_s, behind in self._waits if behind)
        usual_s = alone[len(alone) // 2] if len(alone) >= FEWEST else self.queue_s
        self.burst_s = 0.0
        if len(behind) >= FEWEST:
            self.burst_s = max(0.0, behind[int(BURST_QUANTILE * len(behind))] - usual_s)

    def _grow(self, passed_s: float, now: float) -> None:
        used_bps = max(bps for _, bps in self._carried)
        if used_bps < USED * self._rate_bps:
            return
        if self._rate_bps > NEAR_TO * self._limit_bps:
            self._retry_s = RETRY_S / 2
        is_near = NEAR_FROM * self._limit_bps < self._rate_bps < NEAR_TO * self._limit_bps
        growth = GROWTH if now - self._clear_since < FAST_AFTER_S else FAST_GROWTH
        rate_bps = min(UNUSED * used_bps, self._rate_bps * (1 + (SLOW_GROWTH if is_near else growth) * passed_s))
        if now < self._retry_at:
            rate_bps = min(rate_bps, self._limit_bps)
        if rate_bps > self._rate_bps:
            self._rate_bps = rate_bps
            self.known = True

    def _lower(self, rate_bps: float, now: float) -> None:
        self._rate_bps = self._limit_bps = min(self._rate_bps, max(LEAST_BPS, rate_bps))
        self.known = True
        self._hold_until = now + ANSWER_S
        self._retry_s = min(MOST_RETRY_S, 2 * self._retry_s)
        self._retry_at = now + self._retry_s
        self._clear_since = now
        self._waits.clear()  # what is seen from here on tells of the new rate
