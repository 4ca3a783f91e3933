"""How much may leave onto a link: its rate by queueing delay, loss and what was really carried.

Pure: what was sent and what is known of it in, with `now`; a rate out. Skeleton: the interface stands, the parts follow.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.core.transport_cc import Fate

UNKNOWN_BPS = 28_000.0  # where nothing is known: voice and its headers


class Estimator:
    """One way of one path. Everything in wire bits: IP and UDP headers included. `start_bps` None: an unknown link."""

    def __init__(
        self, now: float, start_bps: float | None = None, *, least_bps: float = 8_000.0, most_bps: float = 20e6
    ) -> None:
        self.rate_bps = start_bps or UNKNOWN_BPS  # all that may leave; what the allocator shares out
        self.known = False  # whether `rate_bps` is measured; else it is a guess
        self.silence = False  # nothing comes back: only voice goes on, `rate_bps` keeps what was last known
        self.queue_s = 0.0  # that stands on the link, in time
        self.rtt_s: float | None = None
        self.loss = 0.0  # share of packets, of late
        self.inherent_loss = 0.0  # of it, what the link loses whatever is sent

    def sent(self, wire_bytes: int, now: float) -> None:
        """Each packet as it leaves, voice too, with or without a transport-cc number: before its fate is told."""

    def take_fates(self, fates: Sequence[Fate], now: float) -> None:
        """What a transport-cc report told."""

    def take_receiver_report(self, fraction_lost: float, rtt_s: float | None, now: float) -> None:
        """RFC 3550: the share lost since the last one, and the round trip where it can be told."""

    def take_rtt(self, rtt_s: float, now: float, wire_bytes: int = 0) -> None:
        """A question and its answer: of `wire_bytes` together if that is known (a bound: no link is slower than that)."""

    def tick(self, now: float) -> None:
        """Time passes: ten times a second or so."""

    def has_room(self, now: float) -> bool:
        """Whether anything but voice may leave now: bytes in flight are bounded. Never asked for voice."""
        return True

    def probe(self, now: float) -> int | None:
        """Bytes wanted at once, unpaced, of something useful, in three packets or more; None: nothing. Asked when the
        caller has such; then it tells `probe_sent`."""
        return None

    def probe_sent(self, wire_bytes: int, now: float) -> None:
        """A train of this size is leaving; its packets are told by `sent` as all others."""

    def remembered(self) -> float | None:
        """What the next call over this network may start from, bit/s; None: nothing was learnt."""
        return self.rate_bps if self.known else None
