"""The playout buffer in virtual time: what comes in with jitter goes out even, and its delay does not grow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_agent.media.playout import MOST_SAMPLES, MS, START_SAMPLES, PlayoutBuffer, lengthen, shorten
from hardware.api import BLOCK_SAMPLES

FRAME_S = 0.02


def tone(position: int, length: int = BLOCK_SAMPLES, hz: float = 180.0) -> NDArray[np.int16]:
    return (12_000 * np.sin(2 * np.pi * hz * (position + np.arange(length)) / 48_000)).astype(np.int16)


def decode(payload: bytes) -> NDArray[np.int16]:
    """The payload is the frame's position; b"bad" is no sound."""
    if payload == b"bad":
        raise ValueError("no sound")
    return tone(int(payload))


def play(
    arrivals: list[tuple[float, int]], seconds: float, puller_rate: float = 1.0
) -> tuple[PlayoutBuffer, NDArray[np.int16], list[int]]:
    """Pushes frames (arrival time, number) and pulls every 20 ms of the speaker's clock; gives what was played from
    the first sound on, and the level at each pull."""
    buffer = PlayoutBuffer(decode)
    waiting = sorted(arrivals)
    out, levels = [], []
    for pull in range(int(seconds / FRAME_S)):
        now = pull * FRAME_S / puller_rate
        while waiting and waiting[0][0] <= now:
            _, number = waiting.pop(0)
            position = number * BLOCK_SAMPLES
            buffer.push(position % 2**32, str(position).encode())
        pulled = buffer.pull()
        if pulled is not None:
            assert len(pulled.samples) == BLOCK_SAMPLES
            assert pulled.samples.dtype == np.int16
            out.append(pulled.samples)
            levels.append(buffer.level_samples)
    return buffer, np.concatenate(out), levels


def seams(samples: NDArray[np.int16]) -> int:
    """How often the tone jumps by more than it can within a sample."""
    return int(np.sum(np.abs(np.diff(samples.astype(int))) > 1500))


def test_an_even_stream_starts_after_80_ms_and_comes_out_whole() -> None:
    buffer, out, _ = play([(n * FRAME_S, n) for n in range(500)], 10.0)

    played = tone(0, len(out))
    assert len(out) == 500 * BLOCK_SAMPLES - 3 * BLOCK_SAMPLES
    assert np.array_equal(out, played)
    assert (buffer.lost, buffer.late, buffer.starvations) == (0, 0, 0)


def test_timestamps_wrap_unheard() -> None:
    first = (2**32 - 100 * BLOCK_SAMPLES) // BLOCK_SAMPLES
    buffer, out, _ = play([(n * FRAME_S, first + n) for n in range(300)], 6.0)

    assert np.array_equal(out, tone(first * BLOCK_SAMPLES, len(out)))
    assert buffer.lost == 0


def test_jitter_of_40_ms_is_not_heard() -> None:
    jitter = np.random.default_rng(1).uniform(0, 0.04, 1500)
    buffer, out, levels = play([(n * FRAME_S + jitter[n], n) for n in range(1500)], 30.0)

    assert buffer.starvations <= 2
    assert buffer.late == 0
    assert max(levels[200:]) <= 160 * MS
    assert seams(out) <= 6


def test_reordered_packets_are_played_in_order() -> None:
    buffer, out, _ = play([(n * FRAME_S, n ^ 1) for n in range(200)], 4.0)

    assert np.array_equal(out, tone(0, len(out)))
    assert buffer.late == 0


def test_a_lost_packet_is_concealed_and_costs_no_time() -> None:
    buffer, out, _ = play([(n * FRAME_S, n) for n in range(200) if n not in (50, 120, 121)], 4.0)

    assert buffer.lost == 3
    assert np.array_equal(
        out[52 * BLOCK_SAMPLES : 110 * BLOCK_SAMPLES], tone(0, len(out))[52 * BLOCK_SAMPLES : 110 * BLOCK_SAMPLES]
    )
    assert np.abs(out[50 * BLOCK_SAMPLES : 51 * BLOCK_SAMPLES]).max() > 3000


def test_what_cannot_be_decoded_counts_as_concealed() -> None:
    buffer = PlayoutBuffer(decode)
    for n in range(10):
        buffer.push(n * BLOCK_SAMPLES, b"bad" if n == 4 else str(n * BLOCK_SAMPLES).encode())
    out = np.concatenate([pulled.samples for _ in range(9) if (pulled := buffer.pull()) is not None])

    assert np.array_equal(out[5 * BLOCK_SAMPLES :], tone(5 * BLOCK_SAMPLES, 4 * BLOCK_SAMPLES))


@pytest.mark.parametrize("drift", [-300e-6, 300e-6])
def test_two_minutes_of_clock_drift_move_no_delay(drift: float) -> None:
    arrivals = [(n * FRAME_S * (1 - drift), n) for n in range(6000)]
    buffer, out, levels = play(arrivals, 119.0)

    assert min(levels[100:]) >= 15 * MS
    assert max(levels[100:]) <= 120 * MS
    assert buffer.starvations == 0
    assert buffer.lost == 0
    assert seams(out) == 0


def test_a_burst_after_an_outage_is_caught_up_with() -> None:
    arrivals = [(n * FRAME_S if not 100 <= n < 140 else 2.8, n) for n in range(800)]
    buffer, _, levels = play(arrivals, 16.0)

    assert max(levels) <= MOST_SAMPLES
    assert max(levels[-100:]) <= 180 * MS
    assert buffer.starvations == 1


def test_silence_of_the_sender_is_not_played_twice() -> None:
    """With DTX a pause in talking is a pause in packets: the delay after it is the one before."""
    arrivals = [(n * FRAME_S, n) for n in range(400) if not 100 <= n < 130]
    _, _, levels = play(arrivals, 8.0)

    assert max(levels[-100:]) <= START_SAMPLES + 60 * MS


def test_after_a_long_outage_it_buffers_anew() -> None:
    buffer, out, _ = play([(n * FRAME_S, n) for n in range(500) if not 100 <= n < 300], 10.0)

    assert buffer.starvations == 1
    assert len(out) < 460 * BLOCK_SAMPLES  # nothing is played while there is nothing
    assert seams(out[-100 * BLOCK_SAMPLES :]) == 0


@pytest.mark.parametrize("hz", [110.0, 180.0, 250.0])
def test_a_period_is_left_out_or_repeated_without_a_seam(hz: float) -> None:
    frame = tone(0, hz=hz)

    assert 480 <= len(shorten(frame)) <= 840
    assert 1080 <= len(lengthen(frame)) <= 1440
    limit = 1.3 * np.abs(np.diff(frame.astype(int))).max()
    for changed in (shorten(frame), lengthen(frame)):
        assert np.abs(np.diff(changed.astype(int))).max() <= limit


@given(
    st.lists(
        st.tuples(st.sampled_from(["push", "pull"]), st.integers(0, 2**32 - 1), st.binary(max_size=4)), max_size=60
    )
)
def test_no_order_of_packets_breaks_it(steps: list[tuple[str, int, bytes]]) -> None:
    buffer = PlayoutBuffer(lambda payload: np.full(len(payload) * 480, 5, np.int16))
    for what, timestamp, payload in steps:
        if what == "push":
            buffer.push(timestamp, payload)
        elif (pulled := buffer.pull()) is not None:
            assert len(pulled.samples) == BLOCK_SAMPLES
        assert buffer.level_samples <= MOST_SAMPLES + 10_000
