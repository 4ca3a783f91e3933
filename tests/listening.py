"""Coded speech over an emulated path into the playout buffer, in virtual time, and what is heard of it.

The far end codes known speech with the real encoder, sends it by its own clock over a `linklab` path, with RED where
asked; the near end decodes with the real decoder and pulls every 20 ms of its own clock. Nothing here waits.
"""

from __future__ import annotations

import tempfile
from collections import deque
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import correlate, resample_poly

from edge_agent.core import red
from edge_agent.core.playout import PlayoutBuffer
from edge_agent.core.voice import HEADER_BYTES, Coding, VoicePlan
from edge_agent.media.opus import open_decoder
from edge_agent.media.voice import VoiceCoder
from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ
from tests.e2e.speech import ALIKE, DOCTOR, SCORE_RATE_HZ, Heard, heard, speak
from tests.linklab.path import LinkPath, PathCounts, PathSpec

BLOCK_S = BLOCK_SAMPLES / SAMPLE_RATE_HZ
SSRC, OPUS = 7, 111
PLAIN = VoicePlan()
CONTROL_PACKET, CONTROL_S = 90, 0.4  # bytes, seconds between: 1.8 kbit/s

Samples = NDArray[np.int16]


class Marks(NamedTuple):
    """As the bench of whole calls defines them."""

    pesq: float
    heard: float  # share of the seconds with speech
    delay_p50_ms: float
    delay_p95_ms: float


@dataclass
class Listening:
    """One far end heard through one path."""

    path: PathSpec
    plan: VoicePlan = PLAIN
    seconds: float = 24.0
    later: tuple[tuple[float, VoicePlan], ...] = ()  # plans that follow, and when
    with_red: bool | None = None  # as the plan has it where None
    control: bool = False  # RTCP and consent checks go the same way
    drift: float = 0.0  # the far clock is faster by this
    standstill: tuple[float, float] = (0.0, 0.0)  # nothing is sent from one time to the other, and
    standstill_lost_s: float = 0.0  # the far clock is behind by this from then on
    first_timestamp: int = 2**32 - 480_000  # wraps after ten seconds
    buffer: PlayoutBuffer = field(default_factory=lambda: PlayoutBuffer(open_decoder()))
    played: Samples = field(default_factory=lambda: np.zeros(0, np.int16))
    buffer_ms: list[float] = field(default_factory=list)  # at each pull
    target_ms: list[float] = field(default_factory=list)
    link: PathCounts = field(default_factory=PathCounts)
    voice_bytes: int = 0  # sent

    def run(self) -> Listening:
        voice = self._packets()
        self.voice_bytes = sum(len(packet) for _, packet in voice)
        control = (
            [(at, bytes(CONTROL_PACKET)) for at in np.arange(0.1, self.seconds, CONTROL_S)] if self.control else []
        )
        sent = deque(sorted(voice + control, key=lambda each: each[0]))
        path = LinkPath(self.path)
        blocks = []
        for pull in range(int(self.seconds / BLOCK_S)):
            now = pull * BLOCK_S
            while sent and sent[0][0] <= now:
                at, packet = sent.popleft()
                path.offer(packet, at)
                self._deliver(path, at)
            self._deliver(path, now)
            pulled = self.buffer.pull(now)
            blocks.append(pulled.samples if pulled is not None else np.zeros(BLOCK_SAMPLES, np.int16))
            self.buffer_ms.append(self.buffer.buffer_ms)
            self.target_ms.append(self.buffer.target_ms)
        self.played = np.concatenate(blocks)
        self.link = path.counts
        return self

    def score(self, from_s: float = 4.0) -> Heard:
        return heard(speech(), self.played[int(from_s * SAMPLE_RATE_HZ) :])

    def mouth_to_ear_ms(self, from_s: float = 4.0) -> float:
        """From a word's end at the far end's mouth to its end at the near end's speaker, median."""
        loop_ms = len(speech()) / SAMPLE_RATE_HZ * 1000
        return (self.score(from_s).mouth_to_ear_ms + from_s * 1000) % loop_ms

    def marks(self, from_s: float = 5.0) -> Marks:
        """Second by second of what was said, at whatever delay each was played."""
        said = _narrow(np.resize(speech(), len(self.played)))
        played = _narrow(self.played)
        delays: list[float | None] = []
        for at in range(int(from_s), int(self.seconds) - 3):
            spoken = said[at * SCORE_RATE_HZ : (at + 1) * SCORE_RATE_HZ]
            if np.sqrt(np.mean(spoken**2)) < 300:
                continue
            around = played[at * SCORE_RATE_HZ : (at + 4) * SCORE_RATE_HZ]
            dots = correlate(around, spoken, mode="valid", method="fft")
            energy = np.convolve(around**2, np.ones(len(spoken)), mode="valid")
            likeness = dots / np.sqrt(np.maximum(energy, 30.0**2 * len(spoken)) * np.sum(spoken**2))
            best = int(np.argmax(likeness))
            delays.append(best / SCORE_RATE_HZ * 1000 if likeness[best] >= ALIKE else None)
        known = [delay for delay in delays if delay is not None] or [float("inf")]
        return Marks(
            self.score(from_s).pesq,
            sum(delay is not None for delay in delays) / len(delays),
            float(np.percentile(known, 50)),
            float(np.percentile(known, 95)),
        )

    def _packets(self) -> list[tuple[float, bytes]]:
        """(when it is sent, sequence, timestamp, payload type and payload)."""
        coder = VoiceCoder()
        with_red = self.plan.red_depth > 0 if self.with_red is None else self.with_red
        plans = [(0.0, self.plan), *self.later]
        out: list[tuple[float, bytes]] = []
        sequence = 65_000
        sound = np.resize(speech(), int(self.seconds / BLOCK_S) * BLOCK_SAMPLES)
        for start in range(0, len(sound), BLOCK_SAMPLES):
            end_s = (start + BLOCK_SAMPLES) / SAMPLE_RATE_HZ
            plan = [plan for since, plan in plans if since < end_s][-1]
            for position, payload, _ in coder.code(
                sound[start : start + BLOCK_SAMPLES], plan, OPUS if with_red else None
            ):
                lost_s = self.standstill_lost_s if end_s >= self.standstill[1] else 0.0
                timestamp = (self.first_timestamp + position - round(lost_s * SAMPLE_RATE_HZ)) % 2**32
                if self.standstill[0] <= end_s < self.standstill[1]:
                    continue
                header = (sequence % 2**16).to_bytes(2, "big") + timestamp.to_bytes(4, "big") + bytes([with_red])
                out.append((end_s * (1 - self.drift), header + bytes(HEADER_BYTES - len(header)) + payload))
                sequence += 1
        return out

    def _deliver(self, path: LinkPath, now: float) -> None:
        while (due := path.next_time()) is not None and due <= now:
            for packet in path.take(due):
                self._arrive(packet, due)

    def _arrive(self, packet: bytes, now: float) -> None:
        if len(packet) == CONTROL_PACKET and not any(packet):
            return
        sequence, timestamp = int.from_bytes(packet[:2], "big"), int.from_bytes(packet[2:6], "big")
        payload, older = packet[HEADER_BYTES:], ()
        if packet[6]:
            _, payload, older = red.parse(payload)
        self.buffer.push(SSRC, sequence, timestamp, payload, now, older)


@cache
def speech() -> Samples:
    with tempfile.TemporaryDirectory(prefix="teleconsult-speech-") as folder:
        samples = speak(*DOCTOR, Path(folder) / "doctor.wav")
    whole = SAMPLE_RATE_HZ * 120 // 1000  # of any frame length
    return np.pad(samples, (0, -len(samples) % whole))


@cache
def coded(coding: Coding = Coding()) -> tuple[bytes, ...]:  # noqa: B008 - frozen
    """The frames of one round of the speech, as the second of two."""
    packets = VoiceCoder().code(np.tile(speech(), 2), VoicePlan(coding), None)
    return tuple(packet.payload for packet in packets[len(packets) // 2 :])


def _narrow(samples: Samples) -> NDArray[np.float64]:
    return np.asarray(resample_poly(samples.astype(np.float64), 1, SAMPLE_RATE_HZ // SCORE_RATE_HZ))


def clicks(samples: Samples) -> int:
    """How often the waveform jumps as speech never does: by more than 20 times its own unrest around."""
    change = np.abs(np.diff(samples.astype(np.int64), 2))
    blocks = change[: len(change) // 480 * 480].reshape(-1, 480)
    return sum(int(block.max() > 2000 and block.max() > 20 * np.sort(block)[-5]) for block, _ in pairwise(blocks))
