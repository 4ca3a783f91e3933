"""What a leg's link carries each way, and who gets what of it: the estimators fed, the allocator asked.

Here all of a call's feedback comes together: what left and what became of it, the far end's receiver reports, the round
trips of consent checks, and the arrivals of what the far end sends.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.core.allocator import Allocation, Allocator
from edge_agent.core.estimator import UNKNOWN_BPS, Estimator
from edge_agent.core.farlink import FarLink
from edge_agent.core.trace import Trace
from edge_agent.core.transport_cc import Fate
from edge_agent.core.voice import MOST_LOST, Direction, LinkMemory

UNKNOWN_DOWN_BPS = 18_000.0  # what a browser sends before it can be told better is in nobody's way
USUAL_RUN = 1.5  # losses mostly come in small company; reports do not tell


class LinkShare:
    """Of one leg. `memory` outlives it: the next leg and the next call begin with what this one has learnt."""

    def __init__(self, memory: LinkMemory, now: float, held: bool) -> None:
        self._memory = memory
        start_bps = memory.told_up_bps or memory.learnt_up_bps
        self._up = Estimator(now, start_bps)
        self._down = FarLink(now, memory.told_down_bps or UNKNOWN_DOWN_BPS)
        self._counted = 0, 0  # packets of the far voice that came, and that were lost
        self.trace = Trace(now, start_bps)
        self._is_told = False  # the far end reports on numbered packets
        self._allocator = Allocator()
        self.allocation = self.share(now, held)

    # --- what the egress tells (LinkListener)

    def left(self, size_bytes: int, now: float) -> None:
        self._up.sent(size_bytes, now)
        self.trace.left(size_bytes, now)

    def told(self, fates: Sequence[Fate], now: float) -> None:
        self._is_told = True
        self._up.take_fates(fates, now)
        self.trace.told(fates, now)

    def has_room(self, now: float) -> bool:
        return not self._is_told or self._up.has_room(now)  # else nobody knows what is under way

    # --- what else is known

    def reported(self, fraction_lost: float, rtt_s: float | None, now: float) -> None:
        """By the far end, of the kiosk's voice."""
        self._memory.lost_up.add(fraction_lost)
        self._up.take_receiver_report(fraction_lost, rtt_s, now)
        self.trace.reported(fraction_lost, rtt_s, now)

    def answered(self, rtt_s: float, wire_bytes: int, now: float) -> None:
        """A question of a consent check: both together are so long."""
        self._up.take_rtt(rtt_s, now, wire_bytes)
        self.trace.answered(rtt_s, wire_bytes, now)

    def voice_arrived(self, ends_at: int, clock_rate: int, wire_bytes: int, now: float) -> None:
        self._down.voice_arrived(ends_at, clock_rate, wire_bytes, now)

    def picture_arrived(self, wire_bytes: int, now: float) -> None:
        self._down.packet_arrived(wire_bytes, now)

    def voice_counted(self, received: int, lost: int, now: float) -> None:
        """Packets of the far voice since the leg's start."""
        self._memory.lost_down.add_counts(received, lost)
        new_received, new_lost = received - self._counted[0], lost - self._counted[1]
        self._counted = received, lost
        if new_received > 0 and 0 <= new_lost < MOST_LOST:
            self._down.lost(new_lost, new_received + new_lost, now)

    @property
    def rtt_s(self) -> float:
        """0: unknown."""
        return self._up.rtt_s or 0.0

    @property
    def queue_s(self) -> float:
        return self._up.queue_s

    @property
    def known(self) -> bool:
        return self._up.known or self._memory.told_up_bps is not None

    # --- what follows

    def train_bytes(self, now: float, held: bool) -> int | None:
        """Wanted at once, of padding: while nobody is heard, or nothing at all is known."""
        if self._memory.told_up_bps is not None or (self._up.known and not held):
            return None
        return self._up.probe(now)

    def train_sent(self, wire_bytes: int, now: float) -> None:
        self._up.probe_sent(wire_bytes, now)

    def set_extra_bytes(self, extra_bytes: int) -> None:
        self._allocator.extra_bytes = extra_bytes

    def share(self, now: float, held: bool, still_waits: bool = False) -> Allocation:
        """Ten times a second or so."""
        self._up.tick(now)
        if (learnt := self._up.remembered()) is not None:
            self._memory.learnt_up_bps = learnt
        self.allocation = self._allocator.share(
            self._way_up(), self._way_down(), now, held=held, still_waits=still_waits
        )
        self.trace.decided(self.allocation, self.queue_s, now)
        return self.allocation

    def _way_up(self) -> Direction:
        told_bps, rate_bps = self._memory.told_up_bps, self._up.rate_bps
        if told_bps is not None:
            rate_bps = min(told_bps, rate_bps) if self._up.known else told_bps
        return Direction(rate_bps, self._memory.lost_up.share, USUAL_RUN, self.known)

    def _way_down(self) -> Direction:
        """Until it is measured: few links are narrower down than up, and what is told of it is no less than it does."""
        told_bps = self._memory.told_down_bps
        if told_bps is not None or self._up.known or self._up.rate_bps > 2 * UNKNOWN_BPS:  # by its round trips
            self._down.suppose(told_bps or self._up.rate_bps)
        rate_bps = self._down.rate_bps
        if told_bps is not None:
            rate_bps = min(told_bps, rate_bps)
        return Direction(rate_bps, self._memory.lost_down.share, USUAL_RUN, self.known or self._down.known)
