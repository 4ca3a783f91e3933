"""What a link loses by itself, and what it loses because too much is sent.

Pure. A simple form of what libwebrtc's loss-based estimator v2 does: losses are kept by the rate at which they came.
What is lost at lower rates as well is the link's own; only what is lost above that speaks against the rate.
"""

from __future__ import annotations

import math

BLOCK = 60  # packets that are judged together
FORGET = 0.9  # of a level's older packets, with each new block of it
FEWEST_BELOW = 60  # packets at lower rates, to compare with
HELPED = 0.7  # of what was lost; when more is lost at a lower rate, the rate was not why
LEAST_EXCESS = 0.03
SIGMAS = 2.5
RUNS = 3.0  # losses come in company, which makes their number vary more
HOPELESS = 0.3  # without anything to compare with, more is taken for too much
QUICK = 1 / 40  # share of one packet in what is lost of late


class LossModel:
    def __init__(self) -> None:
        self.recent = 0.0
        self._levels: dict[int, tuple[float, float]] = {}  # by half octaves of the rate: packets, lost
        self._packets = self._lost = 0.0
        self._answered: float | None = None  # what was lost when the rate was last lowered for it

    @property
    def inherent(self) -> float:
        packets = sum(each for each, _ in self._levels.values())
        lost = sum(each for _, each in self._levels.values())
        return lost / packets if packets else 0.0

    def add(self, packets: float, lost: float, rate_bps: float) -> float:
        """The share that is lost for the rate's sake; 0 nearly always."""
        self.recent += (lost / packets - self.recent) * (1 - (1 - QUICK) ** packets)
        self._packets += packets
        self._lost += lost
        if self._packets < BLOCK:
            return 0.0
        packets, lost, self._packets, self._lost = self._packets, self._lost, 0.0, 0.0
        return self._judge(packets, lost, math.floor(2 * math.log2(max(1.0, rate_bps))))

    def _judge(self, packets: float, lost: float, level: int) -> float:
        share = lost / packets
        answered, self._answered = self._answered, None
        if answered is not None and share > HELPED * answered:
            # Less was sent, and as much of it was lost: the link is now one that loses as much.
            self._levels = {each: (count, count * share) for each, (count, _) in self._levels.items()}
        excess = self._excess(packets, share, level)
        if excess:
            self._answered = share  # and it is not the link's own
        else:
            old_packets, old_lost = self._levels.get(level, (0.0, 0.0))
            self._levels[level] = (FORGET * old_packets + packets, FORGET * old_lost + lost)
        return excess

    def _excess(self, packets: float, share: float, level: int) -> float:
        below = [counts for each, counts in self._levels.items() if each < level]
        known = sum(each for each, _ in below)
        if known < FEWEST_BELOW:
            return share if share > HOPELESS and not self._levels else 0.0
        usual = sum(each for _, each in below) / known
        spread = math.sqrt(RUNS * max(usual, 0.005) * (1 - usual) * (1 / packets + 1 / known))
        return share - usual if share - usual > LEAST_EXCESS + SIGMAS * spread else 0.0
