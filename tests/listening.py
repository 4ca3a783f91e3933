"""Coded speech over an emulated path into the playout buffer, in virtual time, and what is heard of it.

The far end codes known speech with the real Opus, sends it by its own clock over a `linklab` path, with RED where
asked; the near end decodes with the real decoder and pulls every 20 ms of its own clock. Nothing here waits.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from edge_agent.core import red
from edge_agent.core.playout import PlayoutBuffer
from edge_agent.media.opus import open_decoder
from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ
from tests.e2e.speech import DOCTOR, Heard, heard, speak
from tests.linklab.path import LinkPath, PathSpec

BLOCK_S = BLOCK_SAMPLES / SAMPLE_RATE_HZ
HEADER_BYTES = 20 + 8 + 12 + 10  # IP, UDP, RTP, SRTP's tag
SSRC = 7

Samples = NDArray[np.int16]


@dataclass(frozen=True)
class Coding:
    bps: int = 24_000
    frame_ms: int = 20
    fec: bool = False
    expected_loss: int = 0  # per cent, which Opus spends FEC for
    dtx: bool = False
    red: int = 0  # older frames in each packet


@dataclass
class Listening:
    """One far end heard through one path."""

    path: PathSpec
    coding: Coding = Coding()
    seconds: float = 24.0
    drift: float = 0.0  # the far clock is faster by this
    first_timestamp: int = 2**32 - 480_000  # wraps after ten seconds
    buffer: PlayoutBuffer = field(default_factory=lambda: PlayoutBuffer(open_decoder()))
    played: Samples = field(default_factory=lambda: np.zeros(0, np.int16))
    buffer_ms: list[float] = field(default_factory=list)  # at each pull
    target_ms: list[float] = field(default_factory=list)

    def run(self) -> Listening:
        sent = self._packets()
        path = LinkPath(self.path)
        blocks = []
        for pull in range(int(self.seconds / BLOCK_S)):
            now = pull * BLOCK_S
            while sent and sent[0][0] <= now:
                at, packet = sent.pop(0)
                path.offer(packet, at)
                self._deliver(path, at)
            self._deliver(path, now)
            pulled = self.buffer.pull(now)
            blocks.append(pulled.samples if pulled is not None else np.zeros(BLOCK_SAMPLES, np.int16))
            self.buffer_ms.append(self.buffer.buffer_ms)
            self.target_ms.append(self.buffer.target_ms)
        self.played = np.concatenate(blocks)
        return self

    def score(self, from_s: float = 4.0) -> Heard:
        return heard(speech(), self.played[int(from_s * SAMPLE_RATE_HZ) :])

    def mouth_to_ear_ms(self, from_s: float = 4.0) -> float:
        """From a word's end at the far end's mouth to its end at the near end's speaker, median."""
        loop_ms = len(speech()) / SAMPLE_RATE_HZ * 1000
        return (self.score(from_s).mouth_to_ear_ms + from_s * 1000) % loop_ms

    def _packets(self) -> list[tuple[float, bytes]]:
        """(when it is sent, sequence, timestamp, payload type and payload)."""
        frames = coded(self.coding)
        step = self.coding.frame_ms * SAMPLE_RATE_HZ // 1000
        out: list[tuple[float, bytes]] = []
        older: list[tuple[int, bytes]] = []
        sequence, pausing = 65_000, False
        for number in range(int(self.seconds * 1000 / self.coding.frame_ms)):
            frame = frames[number % len(frames)]
            if pausing and len(frame) <= 2:
                continue  # as browsers do: the first of a pause is sent, the others are not
            pausing = len(frame) <= 2
            timestamp = self.first_timestamp + number * step
            copies = [red.Older(timestamp - at, payload) for at, payload in older]
            payload = red.build(111, frame, copies) if self.coding.red else frame
            header = (sequence % 2**16).to_bytes(2, "big") + (timestamp % 2**32).to_bytes(4, "big")
            at = (number + 1) * self.coding.frame_ms / 1000 * (1 - self.drift)
            out.append((at, header + bytes(HEADER_BYTES - len(header)) + payload))
            older = [*older, (timestamp, frame)][-self.coding.red :] if self.coding.red else []
            sequence += 1
        return out

    def _deliver(self, path: LinkPath, now: float) -> None:
        while (due := path.next_time()) is not None and due <= now:
            for packet in path.take(due):
                self._arrive(packet, due)

    def _arrive(self, packet: bytes, now: float) -> None:
        sequence, timestamp = int.from_bytes(packet[:2], "big"), int.from_bytes(packet[2:6], "big")
        payload, older = packet[HEADER_BYTES:], ()
        if self.coding.red:
            _, payload, older = red.parse(payload)
        self.buffer.push(SSRC, sequence, timestamp, payload, now, older)


@cache
def speech() -> Samples:
    with tempfile.TemporaryDirectory(prefix="teleconsult-speech-") as folder:
        samples = speak(*DOCTOR, Path(folder) / "doctor.wav")
    whole = SAMPLE_RATE_HZ * 120 // 1000  # of any frame length
    return np.pad(samples, (0, -len(samples) % whole))


@cache
def coded(coding: Coding) -> tuple[bytes, ...]:
    """One round of the speech, as the second of two, so that it follows itself without a seam."""
    codec = av.CodecContext.create("libopus", "w")
    codec.bit_rate = coding.bps
    codec.format, codec.layout, codec.sample_rate = "s16", "mono", SAMPLE_RATE_HZ
    codec.time_base = Fraction(1, SAMPLE_RATE_HZ)
    codec.options = {
        "application": "voip",
        "frame_duration": str(coding.frame_ms),
        "fec": str(int(coding.fec)),
        "packet_loss": str(coding.expected_loss),
        "dtx": str(int(coding.dtx)),
    }
    codec.open()
    step = coding.frame_ms * SAMPLE_RATE_HZ // 1000
    twice = np.tile(speech(), 2)
    out: list[bytes] = []
    for start in range(0, len(twice), step):
        frame = av.AudioFrame.from_ndarray(twice[start : start + step].reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, start
        out += [bytes(packet) for packet in codec.encode(frame)]
    return tuple(out[len(speech()) // step :][: len(speech()) // step])


def clicks(samples: Samples) -> int:
    """How often the waveform jumps as speech never does: by more than 20 times its own unrest around."""
    change = np.abs(np.diff(samples.astype(np.int64), 2))
    blocks = change[: len(change) // 480 * 480].reshape(-1, 480)
    return sum(int(block.max() > 2000 and block.max() > 20 * np.sort(block)[-5]) for block, _ in pairwise(blocks))
