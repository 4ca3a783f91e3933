"""A turn from the microphone to parts, and from parts to the speaker."""

from __future__ import annotations

import queue
import threading

import numpy as np
import pytest

from edge_agent.core.turn_parts import CODING, PART_FRAMES
from edge_agent.media.speaker import Prompt
from edge_agent.media.turn_recorder import TurnRecorder
from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ

Part = tuple[tuple[bytes, ...], bool]


def recorded(samples: np.ndarray) -> list[Part]:
    parts: queue.Queue[Part] = queue.Queue()
    recorder = TurnRecorder(lambda packets, last: parts.put((packets, last)))
    for start in range(0, len(samples), BLOCK_SAMPLES):
        recorder.hear(samples[start : start + BLOCK_SAMPLES])
    recorder.stop()
    got = [parts.get(timeout=20)]
    while not got[-1][1]:
        got.append(parts.get(timeout=20))
    return got


def tone(seconds: float) -> np.ndarray:
    at = np.arange(int(seconds * SAMPLE_RATE_HZ) // BLOCK_SAMPLES * BLOCK_SAMPLES) / SAMPLE_RATE_HZ
    return (9000 * np.sin(2 * np.pi * 440 * at)).astype(np.int16)


@pytest.mark.parametrize("seconds", [0.1, 1.0, 5.3])
def test_parts_come_while_it_is_spoken_and_the_last_has_the_rest(seconds: float) -> None:
    parts = recorded(tone(seconds))
    assert [len(packets) for packets, _ in parts[:-1]] == [PART_FRAMES] * (len(parts) - 1)
    assert [last for _, last in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1][0]
    frames = sum(len(packets) for packets, _ in parts)
    assert frames == -(-len(tone(seconds)) // CODING.frame_samples)
    bps = sum(len(packet) for packets, _ in parts for packet in packets) * 8000 / (frames * CODING.frame_ms)
    assert bps < 1.3 * CODING.bps


def test_nothing_said_is_an_empty_last_part() -> None:
    assert recorded(np.zeros(0, np.int16)) == [((), True)]


def test_what_was_said_sounds_at_the_other_end() -> None:
    packets = tuple(packet for part, _ in recorded(tone(1.0)) for packet in part)
    ended = threading.Event()
    prompt = Prompt((*packets[:5], b"\xff\xff", *packets[5:]), False, lambda whole, error: ended.set())
    heard: list[np.ndarray] = []
    while (block := prompt.next_block()) is not None:
        if np.any(block):
            heard.append(block)
    prompt.end(whole=True)
    assert ended.is_set()
    sound = np.concatenate(heard)
    assert 0.8 < len(sound) / SAMPLE_RATE_HZ < 1.3
    pitch = np.argmax(np.abs(np.fft.rfft(sound))) * SAMPLE_RATE_HZ / len(sound)
    assert pitch == pytest.approx(440, abs=5)
