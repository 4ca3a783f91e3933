"""How the voice is coded and protected for a link, each way.

Pure: one way of a link and the room that the voice has on it in, a plan out. Every bit on the wire is counted: on thin
links the headers are half of it. A plan is chosen from all that fit by what would be heard: the coding's own quality,
less what losses leave unrepaired, less the delay it adds. The numbers are measured (`tests/listening.py`;
docs/performance.md).
"""

from __future__ import annotations

import enum
import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

SAMPLES_PER_MS = 48

HEADER_BYTES = 20 + 8 + 12 + 8 + 10  # IPv4, UDP, RTP, its number for transport-cc, SRTP's tag (AES128_CM_SHA1_80)
RED_OWN_BYTES, RED_OLDER_BYTES = 1, 4  # RFC 2198: for the packet's own frame, and for each one repeated
CONTROL_BPS = 2_000  # RTCP and consent checks, reckoned from their sizes and pauses
MARGIN = 0.04  # of the rate: Opus' rate varies around what it is asked for

WIDE_FROM_BPS, FULL_FROM_BPS = 12_000, 32_000
FEC_FROM_BPS = 20_000  # below 18 kbit/s Opus has no room for its coarse copies
FRAMES_MS = (20, 40, 60, 120)
MOST_RED_MS = 320  # RFC 2198 points back 341 ms at most
MOST_RED_DEPTH = 4
MOST_RED_DISTANCE = 4

# Opus' rate, and its PESQ in frames up to 60 ms and of 120 ms (two of 60 ms, which share it badly).
_QUALITY = {
    6_000: (2.5, 2.2),
    7_000: (3.0, 2.7),
    8_000: (3.4, 3.0),
    9_000: (3.7, 3.25),
    10_000: (3.9, 3.55),
    12_000: (3.95, 3.5),  # wide band from here: a little more than this narrow-band measure hears of it
    14_000: (4.05, 3.65),
    16_000: (4.2, 3.9),
    20_000: (4.3, 4.15),
    24_000: (4.35, 4.25),
    32_000: (4.4, 4.3),
}
_REAL_SHARE, _REAL_SHARE_120 = 0.95, 0.88  # of the rate asked for, as Opus spends it on speech
LOSS_COST = 8.5  # what is above 1.0 shrinks by exp(-8.5 x) when the share x is lost, at any length of frames
DELAY_COST = 0.1  # PESQ for each 100 ms
LEAST_LOSS = 0.003  # no link is without
FEC_WORTH = 0.6  # of a repeated frame's
FEC_SHARE = 0.8  # of the rate is left for the frame itself
BETTER_BY = 0.1  # than the plan in use, or there is no change

RISING, FALLING = 0.5, 0.1  # of a new report of losses
MOST_LOST = 3_000  # packets between two reports; more is a far end that has begun to count anew (RFC 3550, A.1)


class Bandwidth(enum.Enum):
    """Sampling rate in Hz of what is coded; twice the highest tone."""

    NARROW = 8_000
    WIDE = 16_000
    FULL = 48_000


@dataclass(frozen=True)
class Coding:
    """What the Opus encoder is told. Mono, 48 kHz."""

    bps: int = 24_000
    frame_ms: int = 20
    fec: bool = False  # in-band: a coarse copy of the frame before, from 18 kbit/s up
    expected_loss_percent: int = 0  # which the encoder spends FEC for
    dtx: bool = False

    @property
    def frame_samples(self) -> int:
        return self.frame_ms * SAMPLES_PER_MS

    @property
    def bandwidth(self) -> Bandwidth:
        """Left to itself Opus goes from telephone width to its hybrid mode by 14 kbit/s, which costs PESQ 0.4 at 10
        kbit/s and up to 0.9 at 14, worst in frames of 40 ms and more."""
        if self.bps < WIDE_FROM_BPS:
            return Bandwidth.NARROW
        return Bandwidth.WIDE if self.bps < FULL_FROM_BPS else Bandwidth.FULL


@dataclass(frozen=True)
class VoicePlan:
    coding: Coding = Coding()
    red_depth: int = 0  # older frames in each packet
    red_distance: int = 1  # frames from one to the next: over 1 where losses come in runs

    @property
    def wire_bps(self) -> float:
        share = _REAL_SHARE_120 if self.coding.frame_ms > 60 else _REAL_SHARE
        frame_bytes = self.coding.bps * share * self.coding.frame_ms / 8000
        repeated = RED_OWN_BYTES + self.red_depth * (RED_OLDER_BYTES + frame_bytes)
        return (HEADER_BYTES + frame_bytes + repeated) * 8000 / self.coding.frame_ms


@dataclass(frozen=True)
class Direction:
    """One way of a link."""

    rate_bps: float
    loss: float = 0.0  # share of the packets
    mean_run: float = 1.0  # of lost ones
    measured: bool = True  # else losses may come of too much being sent, and more of it would make them worse


class LossMeter:
    """The share of packets lost, from reports that come now and then: quick to rise, slow to fall."""

    def __init__(self) -> None:
        self.share = 0.0
        self._received = self._lost = 0

    def add(self, share: float) -> None:
        self.share += (share - self.share) * (RISING if share > self.share else FALLING)

    def add_counts(self, received: int, lost: int) -> None:
        """Of all since the start."""
        new_received, new_lost = received - self._received, lost - self._lost
        self._received, self._lost = received, lost
        if new_received > 0 and new_lost < MOST_LOST:
            self.add(max(0.0, new_lost / (new_received + max(0, new_lost))))


class LinkMemory:
    """What is known of the kiosk's link before a call: what its configuration tells, and what the calls over it have
    learnt. Rates in bit/s of the wire, None where nobody knows."""

    def __init__(self, told_up_bps: float | None = None, told_down_bps: float | None = None) -> None:
        self.told_up_bps, self.told_down_bps = told_up_bps, told_down_bps
        self.learnt_up_bps: float | None = None
        self.lost_up, self.lost_down = LossMeter(), LossMeter()

    def forget_losses(self) -> None:
        self.lost_up.share = self.lost_down.share = 0.0


@dataclass(frozen=True)
class PicturePlan:
    bps: int
    width: int
    height: int
    rate: float  # pictures a second


def kiosk_plan(way: Direction, room_bps: float, current: VoicePlan | None = None) -> VoicePlan:
    """`room_bps`: for the voice with its headers and what protects it. `current` is the plan in use: it stays unless it
    no longer fits, or another is clearly better."""
    return _best(way, _kiosk_plans(), room_bps, current)


def browser_plan(way: Direction, room_bps: float, current: VoicePlan | None = None) -> VoicePlan:
    """The same of what a browser can be asked for: one repeated frame, the next to it."""
    return _best(way, _browser_plans(), room_bps, current)


def worth(plan: VoicePlan, way: Direction) -> float:
    """PESQ as expected at the far end, less the price of the delay that the plan adds."""
    coding = plan.coding
    usual, long = _QUALITY[coding.bps]
    quality = long if coding.frame_ms > 60 else usual
    if coding.fec:
        quality -= 1 - FEC_SHARE
    heard = 1 + (quality - 1) * math.exp(-LOSS_COST * unrepaired(plan, way))
    packet_bits = plan.wire_bps * coding.frame_ms / 1000
    delay_ms = coding.frame_ms + packet_bits * 1000 / way.rate_bps
    delay_ms += coding.frame_ms * max(plan.red_depth * plan.red_distance, int(coding.fec))
    return heard - DELAY_COST * delay_ms / 100


def unrepaired(plan: VoicePlan, way: Direction) -> float:
    """The share of frames of which every copy is lost, where losses follow Gilbert's model."""
    loss = max(way.loss, LEAST_LOSS)
    # The model's memory after one packet; runs of 1 / (1 - loss) are those of losses without any.
    memory = max(0.0, 1 - 1 / (max(1.0, way.mean_run) * (1 - loss)))

    def lost_again(packets: int) -> float:
        return loss + (1 - loss) * float(memory**packets)

    share = loss * lost_again(plan.red_distance) ** plan.red_depth
    return share * (1 - FEC_WORTH * (1 - lost_again(1))) if plan.coding.fec else share


def _best(way: Direction, plans: Sequence[VoicePlan], room_bps: float, current: VoicePlan | None) -> VoicePlan:
    """`plans` by what they need on the wire."""
    fitting = plans[: bisect_right(plans, room_bps, key=lambda plan: plan.wire_bps)]
    if not fitting:
        return plans[0]
    expected = min(30, 5 * round(way.loss * 20))

    def told(plan: VoicePlan) -> VoicePlan:
        """The encoder's own share of the protection follows the loss; that alone is no other plan."""
        return _with(plan, expected) if plan.coding.fec else plan

    best = max(fitting, key=lambda plan: worth(plan, way))
    if current is not None:
        same = _with(current, 0)
        if same in fitting and worth(best, way) < worth(same, way) + BETTER_BY:
            return told(same)
    return told(best)


def _with(plan: VoicePlan, expected_loss_percent: int) -> VoicePlan:
    coding = plan.coding
    return VoicePlan(
        Coding(coding.bps, coding.frame_ms, coding.fec, expected_loss_percent, coding.dtx),
        plan.red_depth,
        plan.red_distance,
    )


def _codings() -> Iterator[Coding]:
    for frame_ms in FRAMES_MS:
        for bps in _QUALITY:
            # Pauses left out: what they would have cost drains the queue, or carries the other things.
            yield Coding(bps, frame_ms, dtx=True)
            if bps >= FEC_FROM_BPS and frame_ms <= 60:
                yield Coding(bps, frame_ms, fec=True, dtx=True)


@cache
def _kiosk_plans() -> Sequence[VoicePlan]:
    return _sorted(
        VoicePlan(coding, depth, distance)
        for coding in _codings()
        for depth in range(MOST_RED_DEPTH + 1)
        for distance in range(1, MOST_RED_DISTANCE + 1 if depth else 2)
        if depth * distance * coding.frame_ms <= MOST_RED_MS
    )


@cache
def _browser_plans() -> Sequence[VoicePlan]:
    return _sorted(VoicePlan(coding, depth) for coding in _codings() for depth in (0, 1))


def _sorted(plans: Iterator[VoicePlan]) -> Sequence[VoicePlan]:
    return sorted(plans, key=lambda plan: plan.wire_bps)
