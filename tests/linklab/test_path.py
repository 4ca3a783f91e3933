"""Each property of the path in virtual time, against what arithmetic says."""

import random
from pathlib import Path

import pytest

from tests.linklab.path import LinkPath, Loss, Outage, PathSpec, Rate


def run(spec, packets, until=10_000.0):
    """Offer `(at, size)` packets; give `(sent at, arrived at)` of those that arrived."""
    path = LinkPath(spec)
    arrived = []
    pending = sorted(packets)
    now = 0.0
    while pending or path.next_time() is not None:
        next_offer = pending[0][0] if pending else float("inf")
        next_event = path.next_time() if path.next_time() is not None else float("inf")
        now = min(next_offer, next_event)
        if now > until:
            break
        if next_offer <= next_event:
            at, size = pending.pop(0)
            path.offer(repr(at).encode().ljust(size, b"."), now)
        arrived += [(float(packet.rstrip(b".")), now) for packet in path.take(now)]
    return path, arrived


def test_a_packet_takes_its_time_on_the_wire_and_the_delay():
    _, arrived = run(PathSpec(Rate.constant(64_000), delay_s=0.2), [(1.0, 800)])
    assert arrived == [(1.0, pytest.approx(1.0 + 0.1 + 0.2))]


def test_the_rate_is_kept():
    path, arrived = run(PathSpec(Rate.constant(32_000), queue_s=1.0), [(i * 0.01, 200) for i in range(6000)], 60.0)
    assert path.counts.delivered_bytes * 8 / arrived[-1][1] == pytest.approx(32_000, rel=0.01)


def test_the_queue_is_as_long_as_it_says():
    path, _ = run(PathSpec(Rate.constant(64_000), queue_s=0.5), [(i * 0.001, 100) for i in range(5000)])
    assert path.counts.overflowed > 0
    assert max(path.counts.queue_s) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(("fraction", "run_length"), [(0.02, 1), (0.1, 1), (0.2, 2), (0.05, 3)])
def test_loss_and_its_runs(fraction, run_length):
    spec = PathSpec(Rate.constant(1e9), loss=Loss(fraction, run_length))
    sent = [(i * 0.001, 100) for i in range(60_000)]
    _, arrived = run(spec, sent)
    assert 1 - len(arrived) / len(sent) == pytest.approx(fraction, rel=0.05)
    got = {at for at, _ in arrived}
    lost = [at not in got for at, _ in sent]
    runs = sum(1 for i, gone in enumerate(lost) if gone and (i == 0 or not lost[i - 1]))
    assert sum(lost) / runs == pytest.approx(run_length / (1 - fraction) if run_length == 1 else run_length, rel=0.05)


def test_jitter_is_uniform_and_keeps_the_order():
    _, arrived = run(PathSpec(Rate.constant(1e9), delay_s=0.15, jitter_s=0.04), [(i * 0.1, 100) for i in range(3000)])
    delays = [got - sent for sent, got in arrived]
    assert min(delays) == pytest.approx(0.15, abs=0.001)
    assert max(delays) == pytest.approx(0.19, abs=0.001)
    assert sum(delays) / len(delays) == pytest.approx(0.17, rel=0.02)
    _, close = run(PathSpec(Rate.constant(1e9), jitter_s=0.04), [(i * 0.001, 100) for i in range(3000)])
    assert [sent for sent, _ in close] == sorted(sent for sent, _ in close)
    assert [got for _, got in close] == sorted(got for _, got in close)


def test_an_outage_holds_the_queue():
    spec = PathSpec(Rate.constant(64_000), queue_s=10.0, outages=(Outage(1.0, 3.0),))
    _, arrived = run(spec, [(0.95, 800), (1.5, 800), (2.0, 800)])
    # the first is half clocked out when the outage begins
    assert [got for _, got in arrived] == pytest.approx([4.05, 4.15, 4.25])


def test_a_trace_sets_the_rate_and_loops(tmp_path: Path):
    trace = tmp_path / "trace.csv"
    trace.write_text("time_s,kbps\n0,64\n1,0\n2,128\n")
    rate = Rate.from_file(trace)
    assert rate.period_s == 3.0
    assert [rate.at(t) for t in (0.5, 1.5, 2.5, 3.5)] == [64_000, 0, 128_000, 64_000]
    assert rate.finish(0.5, 64_000) == pytest.approx(2.25)  # 32 kbit, a second of nothing, 32 kbit
    assert rate.finish(0.0, 64_000 + 128_000 + 64_000) == pytest.approx(4.0)


@pytest.mark.parametrize(
    "text", ["", "time_s,kbps\n", "0,1\n", "0,1\n0,2\n", "0,0\n1,0\n", "0,-1\n1,2\n", "0,1\n1,x\n"]
)
def test_a_file_that_is_no_trace(tmp_path: Path, text):
    trace = tmp_path / "trace.csv"
    trace.write_text(text)
    with pytest.raises(ValueError, match=r"trace\.csv"):
        Rate.from_file(trace)


def test_same_seed_same_fate():
    packets = [(i * 0.01 + random.Random(i).random() / 100, 100) for i in range(500)]
    spec = PathSpec(Rate.constant(100_000), loss=Loss(0.1), jitter_s=0.02)
    assert run(spec, packets)[1] == run(spec, packets)[1]
