"""What stands on a link's queue, and how fast the link hands over, from when packets left and arrived.

Pure. The clocks of the two ends differ by anything: delays count relative to the least of the last half minute, as in
LEDBAT (RFC 6817) and SCReAM (RFC 8298). Sizes are wire bytes.
"""

from __future__ import annotations

from collections import deque

from edge_agent.core.transport_cc import TICK_S

SLOT_S, SLOTS = 3.0, 10  # of the least delay: together longer than any queue of ours stands
WINDOW_S, ENOUGH = 0.1, 4  # what all that arrived in it have waited is a queue, and not jitter
LONG_S, CLEAR_S, FEWEST = 0.4, 0.15, 2  # so few are enough where they come seldom, or where no jitter is so long
RATE_WINDOW_S, RATE_FEWEST = 0.2, 4
REMEMBERED_S = 2.5


class StandingQueue:
    """The least that a packet has waited of late."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._slots: deque[tuple[float, float, int]] = deque(maxlen=SLOTS)  # began at; least delay, of what size
        self._recent: deque[tuple[float, float, int]] = deque(maxlen=64)  # received at, delay, size

    def add(self, sent_at: float, received_at: float, wire_bytes: int) -> None:
        delay = received_at - sent_at
        if not self._slots or sent_at - self._slots[-1][0] >= SLOT_S:
            self._slots.append((sent_at, delay, wire_bytes))
        elif delay < self._slots[-1][1]:
            self._slots[-1] = (self._slots[-1][0], delay, wire_bytes)
        self._recent.append((received_at, delay, wire_bytes))

    @property
    def latest_s(self) -> float:
        """What the packet that came last has waited; it may be jitter."""
        return self._recent[-1][1] - min(delay for _, delay, _ in self._slots)

    def update(self, link_bps: float) -> float:
        """`link_bps`: what is known of it, for how long a packet itself takes."""
        if not self._recent:
            return 0.0
        base = min(delay - 8 * size / link_bps for _, delay, size in self._slots)
        least, count, newest = float("inf"), 0, self._recent[-1][0]
        for received_at, delay, size in reversed(self._recent):
            before_s = newest - received_at
            if count >= FEWEST and (before_s > LONG_S or least - base > CLEAR_S):
                break
            if count >= ENOUGH and before_s > WINDOW_S:
                break
            least, count = min(least, delay - 8 * size / link_bps), count + 1
        self.seconds = max(0.0, least - base)
        return self.seconds

    def restart(self) -> None:
        """After an outage: what was heard before tells nothing of now."""
        self._recent.clear()
        self.seconds = 0.0


class Delivery:
    """How fast what was sent is handed over; and how much is still under way. After BBR's delivery rate: whatever left
    between two packets whose arrivals are known has arrived between them, or is lost, numbered or not."""

    def __init__(self) -> None:
        self.sent_bytes = 0  # of all
        self.told_bytes = 0  # of them, whose fate is known
        self._sent: deque[tuple[float, int]] = deque()  # sent at, sum
        self._arrived: deque[tuple[float, float, int]] = deque()  # by the far clock, sent at, sum

    @property
    def in_flight_bytes(self) -> int:
        return self.sent_bytes - self.told_bytes

    def sent(self, wire_bytes: int, now: float) -> None:
        self.sent_bytes += wire_bytes
        self._sent.append((now, self.sent_bytes))

    def told(self, sent_at: float, received_at: float | None) -> None:
        while self._sent and self._sent[0][0] <= sent_at:
            self.told_bytes = self._sent.popleft()[1]
        if received_at is None or (self._arrived and self._arrived[-1][0] > received_at):
            return
        self._arrived.append((received_at, sent_at, self.told_bytes))
        while received_at - self._arrived[0][0] > REMEMBERED_S and len(self._arrived) > 2:
            self._arrived.popleft()

    def rates(self) -> tuple[float, float] | None:
        """At what rate the latest packets arrived, lost ones counted, and at what rate the same ones had left, in
        bit/s; None: too little is known."""
        if len(self._arrived) < 2:
            return None
        last_at, last_sent_at, last_sum = self._arrived[-1]
        for count, (at, sent_at, total) in enumerate(reversed(self._arrived)):
            span = last_at - at
            if span >= RATE_WINDOW_S and (count >= RATE_FEWEST or span >= 2 * RATE_WINDOW_S):
                bits = 8 * (last_sum - total)
                return bits / span, bits / max(last_sent_at - sent_at, TICK_S)
        return None

    def restart(self) -> None:
        self._arrived.clear()
