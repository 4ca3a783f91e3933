"""Half an hour of the playout, in virtual time: it neither grows nor drifts. `scripts/prove-flat` does it in a call."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.core import opuspacket
from edge_agent.core.playout import PlayoutBuffer
from edge_agent.core.voice import Coding
from hardware.api import BLOCK_SAMPLES
from tests.listening import coded

MINUTES = 30
SETTLED = 2  # minutes
FRAME = Coding(frame_ms=60, bps=16_000)
FRAME_S = FRAME.frame_ms / 1000
TONE = (8000 * np.sin(2 * np.pi * 150 * np.arange(48_000) / 48_000)).astype(np.int16)  # has whole periods to leave out


class Humming:
    """A decoder that says one thing; its real sound would take most of the time."""

    def decode(self, payload: bytes) -> NDArray[np.int16]:
        return TONE[: opuspacket.duration_samples(payload)].copy()

    def recover(self, payload: bytes, samples: int) -> NDArray[np.int16]:
        return self.conceal(samples)

    def conceal(self, samples: int) -> NDArray[np.int16]:
        return TONE[:samples].copy()

    def reset(self) -> None:
        pass


@pytest.mark.parametrize("drift", [-100e-6, 100e-6])
def test_half_an_hour_leaves_size_and_delay_as_they_were(drift: float) -> None:
    """The far clock is off by 100 ppm, 180 ms in all; packets come 0 to 20 ms late, and 2 % do not."""
    chance, payload = random.Random(1), coded(FRAME)[3]
    buffer = PlayoutBuffer(Humming())
    sizes, delays_ms = [], []
    number, sent_at, due_at = 0, 0.0, 0.0
    for minute in range(1, MINUTES + 1):
        lags = []
        for pull in range((minute - 1) * 3000, minute * 3000):
            now = pull * 0.02
            while due_at <= now:
                if chance.random() >= 0.02:
                    timestamp = (number * FRAME.frame_samples + 2**32 - 480_000) % 2**32
                    buffer.push(7, number % 2**16, timestamp, payload, due_at)
                number += 1
                sent_at = number * FRAME_S * (1 - drift)
                due_at = sent_at + chance.uniform(0, 0.02)
            pulled = buffer.pull(now)
            assert pulled is None or len(pulled.samples) == BLOCK_SAMPLES
            lags.append(buffer.buffer_ms)
        sizes.append(len(pickle.dumps(buffer)))
        delays_ms.append(float(np.median(lags)))
    print(f"{delays_ms[SETTLED - 1]:.1f} → {delays_ms[-1]:.1f} ms, {sizes[SETTLED - 1]} → {sizes[-1]} bytes")
    assert max(delays_ms[SETTLED - 1 :]) - min(delays_ms[SETTLED - 1 :]) <= 20
    assert max(sizes[SETTLED - 1 :]) <= sizes[SETTLED - 1] + 50_000
    assert buffer.counts.concealed_samples <= 0.025 * MINUTES * 60 * 48_000  # the losses, and no more
