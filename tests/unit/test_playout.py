"""The playout buffer in virtual time, with real Opus over an emulated path: what is lost, late or stretched is hardly
heard, the delay stays small, and nothing that arrives breaks it."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core import opuspacket
from edge_agent.core.delay import ArrivalDelay
from edge_agent.core.playout import MOST_PACKETS, PlayoutBuffer
from edge_agent.core.red import Older
from edge_agent.core.stretch import LEAST_PERIOD, MOST_PERIOD, find_period, lengthen, shorten
from edge_agent.core.voice import Coding, VoicePlan
from edge_agent.media.opus import SILENCE, PyavDecoder, library, open_decoder
from hardware.api import BLOCK_SAMPLES
from tests.linklab.path import Loss, Outage, PathSpec, Rate
from tests.listening import Listening, clicks, coded

WIDE = Rate.constant(10e6)


def test_a_lan_is_played_whole_and_at_once() -> None:
    heard = Listening(PathSpec(WIDE, delay_s=0.005, jitter_s=0.002)).run()

    counts = heard.buffer.counts
    assert (counts.lost, counts.late, counts.starvations, counts.concealed_samples) == (0, 0, 0, 0)
    assert heard.score().pesq >= 4.1
    assert heard.mouth_to_ear_ms() <= 100


def test_threes_lost_in_jitter_come_back_by_red() -> None:
    path = PathSpec(WIDE, delay_s=0.15, jitter_s=0.04, loss=Loss(0.05, 3))
    plain = Listening(path).run()
    protected = Listening(path, VoicePlan(red_depth=3)).run()

    assert protected.buffer.counts.red_recovered > 3 * protected.buffer.counts.lost
    assert protected.score().pesq > plain.score().pesq
    assert np.percentile(plain.buffer_ms[200:], 95) <= 100


def test_a_fifth_lost_is_hardly_heard_with_three_copies() -> None:
    path = PathSpec(WIDE, delay_s=0.1, loss=Loss(0.2))
    one, three = (Listening(path, VoicePlan(red_depth=depth)).run() for depth in (1, 3))

    assert one.score().pesq >= 2.9
    assert three.score().pesq >= 3.9
    assert three.mouth_to_ear_ms() <= 260


@pytest.mark.skipif(library() is None, reason="FEC needs libopus, and PyAV's wheel has none that loads")
def test_opus_own_protection_is_used() -> None:
    path = PathSpec(WIDE, delay_s=0.1, loss=Loss(0.2))
    plain, protected = (
        Listening(path, VoicePlan(Coding(fec=fec, expected_loss_percent=20))).run() for fec in (False, True)
    )

    assert protected.buffer.counts.fec_recovered > protected.buffer.counts.lost
    assert protected.score().pesq >= plain.score().pesq + 0.4


def test_after_an_outage_the_delay_is_normal_within_2_s() -> None:
    path = PathSpec(Rate.constant(200e3), delay_s=0.12, queue_s=0.6, outages=(Outage(8.0, 6.0),))
    heard = Listening(path, seconds=24).run()

    assert max(heard.buffer_ms[int(16.2 / 0.02) :]) <= 100
    assert np.abs(heard.played[int(15.0 * 48_000) : int(17.0 * 48_000)]).max() > 3000


@pytest.mark.parametrize("lost_s", [-0.5, 0.5])
def test_a_far_clock_that_stood_still_in_an_outage_is_learnt_at_once(lost_s: float) -> None:
    """As browsers' do. Held against the old fastest packet every sound would be late, and cut to catch up."""
    path = PathSpec(WIDE, delay_s=0.05, jitter_s=0.01)
    heard = Listening(path, seconds=26, standstill=(8.0, 16.0), standstill_lost_s=lost_s).run()

    assert max(heard.buffer_ms[int(16.5 / 0.02) :]) <= 80
    assert heard.score(16.2).pesq >= 4.0
    assert heard.buffer.counts.concealed_samples / 48_000 <= 1.1  # fading, when the outage begins


@pytest.mark.parametrize("drift", [-100e-6, 100e-6])
def test_clocks_that_drift_for_five_minutes_move_no_delay(drift: float) -> None:
    heard = Listening(PathSpec(WIDE, delay_s=0.05, jitter_s=0.02), seconds=300, drift=drift).run()

    assert max(heard.buffer_ms[200:]) <= 80
    assert heard.buffer.counts.starvations <= 1
    assert clicks(heard.played) == 0


def test_pauses_of_the_far_end_are_no_loss() -> None:
    heard = Listening(PathSpec(WIDE, delay_s=0.02, jitter_s=0.01), VoicePlan(Coding(dtx=True))).run()

    assert heard.buffer.counts.lost == 0
    assert heard.buffer.counts.concealed_samples == 0
    assert heard.score().pesq >= 4.0


def test_jitter_alone_is_hardly_heard() -> None:
    heard = Listening(PathSpec(WIDE, delay_s=0.1, jitter_s=0.15)).run()

    assert heard.score().pesq >= 4.2
    assert heard.buffer.counts.stretched_samples / 48_000 <= 0.15  # of 24 s


@pytest.mark.parametrize("step_ms", [-100, 100, 400])
def test_another_path_is_another_beginning(step_ms: int) -> None:
    delay, noise = ArrivalDelay(), random.Random(1)
    targets = {}
    for number in range(3000):
        now = number * 0.02
        path_ms = 500 + (step_ms if now > 20 else 0)
        delay.arrived(number * BLOCK_SAMPLES, now + (path_ms + noise.uniform(0, 20)) / 1000)
        targets[int(now)] = delay.target_ms

    assert targets[19] <= 30
    assert targets[22] >= step_ms
    assert max(targets[second] for second in range(32, 60)) <= 30


def test_a_block_costs_little() -> None:
    began = time.process_time()
    heard = Listening(PathSpec(WIDE, delay_s=0.1, jitter_s=0.05, loss=Loss(0.05)), VoicePlan(red_depth=1)).run()

    assert (time.process_time() - began) / (heard.seconds / 0.02) <= 0.002  # of which the path is a good part


# --- order, duplicates, new beginnings


def push(buffer: PlayoutBuffer, number: int, now: float, ssrc: int = 1, offset: int = 0) -> None:
    frames = coded(Coding())
    payload = frames[number % len(frames)]
    buffer.push(ssrc, number % 2**16, (number * BLOCK_SAMPLES + offset) % 2**32, payload, now)


def test_order_and_duplicates_do_not_matter() -> None:
    def play(order: list[int]) -> np.ndarray:
        buffer = PlayoutBuffer(open_decoder())
        out = []
        for pull in range(100):
            push(buffer, order[pull], pull * 0.02)
            push(buffer, order[pull], pull * 0.02)
            if (pulled := buffer.pull(pull * 0.02)) is not None:
                out.append(pulled.samples)
        assert buffer.counts.lost == buffer.counts.late == 0
        return np.concatenate(out)

    swapped = play([number ^ 1 for number in range(100)])
    assert len(swapped) >= 90 * BLOCK_SAMPLES


@pytest.mark.parametrize(("ssrc", "offset"), [(2, 10**9), (1, 10**9)])
def test_a_far_end_that_begins_anew_is_heard_at_once(ssrc: int, offset: int) -> None:
    buffer = PlayoutBuffer(open_decoder())
    heard = 0
    for pull in range(200):
        now = pull * 0.02
        push(buffer, pull, now, *((1, 0) if pull < 100 else (ssrc, offset)))
        pulled = buffer.pull(now)
        heard += pull >= 110 and pulled is not None and pulled.heard
    assert heard >= 85


def test_one_stray_packet_changes_nothing() -> None:
    buffer = PlayoutBuffer(open_decoder())
    for pull in range(100):
        push(buffer, pull, pull * 0.02)
        if pull == 50:
            buffer.push(1, 9, 10**9, SILENCE, 1.0)
        buffer.pull(pull * 0.02)
    assert buffer.counts.lost == 0
    assert buffer.counts.cut_samples == 0


def test_a_silent_far_end_is_silence_and_then_nothing() -> None:
    buffer = PlayoutBuffer(open_decoder())
    for pull in range(50):
        push(buffer, pull, pull * 0.02)
        buffer.pull(pull * 0.02)
    blocks = [buffer.pull(1.0 + pull * 0.02) for pull in range(100)]

    assert blocks[30] is not None
    assert not blocks[30].samples.any()
    assert blocks[-1] is None


PACKETS = st.tuples(
    st.integers(0, 2),
    st.integers(0, 2**16 - 1),
    st.one_of(st.integers(0, 100_000), st.integers(0, 2**32 - 1)),
    st.one_of(st.binary(max_size=6), st.just(SILENCE)),
    st.lists(st.builds(Older, st.integers(0, 2**14 - 1), st.binary(max_size=4)), max_size=3),
)


@given(st.lists(st.one_of(PACKETS, st.integers(1, 30)), max_size=40))
def test_nothing_that_arrives_breaks_it(steps: list[tuple[int, int, int, bytes, list[Older]] | int]) -> None:
    buffer, now = PlayoutBuffer(open_decoder()), 0.0
    for step in steps:
        if isinstance(step, int):
            for _ in range(step):
                now += 0.02
                if (pulled := buffer.pull(now)) is not None:
                    assert pulled.samples.shape == (BLOCK_SAMPLES,)
                    assert pulled.samples.dtype == np.int16
        else:
            ssrc, sequence, timestamp, payload, older = step
            buffer.push(ssrc, sequence, timestamp, payload, now, older)
        assert len(buffer._frames) <= MOST_PACKETS + 4
        assert len(buffer._ready) <= 48_000


# --- its parts


@pytest.mark.parametrize("hz", [90.0, 110.0, 180.0, 250.0])
def test_a_period_is_left_out_or_repeated_without_a_seam(hz: float) -> None:
    tone = (12_000 * np.sin(2 * np.pi * hz * np.arange(1920) / 48_000)).astype(np.int16)
    period, likeness = find_period(tone)

    assert LEAST_PERIOD <= period <= MOST_PERIOD
    assert likeness > 0.98
    limit = 1.3 * np.abs(np.diff(tone.astype(int))).max()
    for changed, length in ((shorten(tone, period), 1920 - period), (lengthen(tone, period), 1920 + period)):
        assert len(changed) == length
        assert np.abs(np.diff(changed.astype(int))).max() <= limit


@pytest.mark.parametrize("frame_ms", [10, 20, 40, 60, 120])
def test_packets_tell_their_length(frame_ms: int) -> None:
    packets = coded(Coding(frame_ms=frame_ms, bps=16_000))
    assert {opuspacket.duration_samples(packet) for packet in packets} == {frame_ms * 48}
    assert not any(opuspacket.has_fec(packet) for packet in packets)


def test_pyav_stands_in_for_libopus() -> None:
    decoder = PyavDecoder()
    assert len(decoder.decode(SILENCE)) == BLOCK_SAMPLES
    assert len(decoder.conceal(480)) == 480
    with pytest.raises(ValueError, match="no Opus"):
        decoder.decode(b"")
