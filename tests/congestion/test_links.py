"""What the estimator does on links that the kit meets: starts, steps, losses, outages and jitter."""

from __future__ import annotations

import pytest

from tests.congestion.flows import Media, MediaFlow
from tests.congestion.network import Link, LinkSpec, Simulation
from tests.linklab.path import Loss, Outage, Rate

THIN = Media(voice_bytes=148, voice_s=0.060, pictures_a_second=5.0)  # Opus at 12 kbit/s


def call(forward: LinkSpec, media: Media, seconds: float) -> tuple[MediaFlow, Link]:
    sim = Simulation()
    link = Link(sim, forward)
    back = Link(sim, LinkSpec(Rate.constant(max(64e3, forward.rate.at(0.0))), forward.delay_s, 1.0))
    flow = MediaFlow(sim, link, back, media)
    sim.run(seconds)
    return flow, link


def first(flow: MediaFlow, bps: float) -> float:
    return next(at for at, rate_bps, _ in flow.rates if rate_bps >= bps)


def test_a_good_link_is_known_within_three_seconds() -> None:
    flow, link = call(LinkSpec(Rate.constant(1e6), 0.050, 1.0), Media(), 10.0)
    assert first(flow, 0.8e6) <= 3.0
    assert link.waits_between(0.0, 10.0)[-1] <= 0.150


def test_without_trains_it_is_known_a_little_later() -> None:
    flow, _ = call(LinkSpec(Rate.constant(1e6), 0.050, 1.0), Media(probes=False), 10.0)
    print(f"after {first(flow, 0.8e6):.1f} s")
    assert first(flow, 0.8e6) <= 7.0


@pytest.mark.parametrize(("kbps", "rtt_s"), [(64, 0.4), (24, 0.6)])
def test_a_thin_link_is_not_overrun_at_the_start(kbps: int, rtt_s: float) -> None:
    flow, link = call(LinkSpec(Rate.constant(kbps * 1e3), rtt_s / 2, 2.0), THIN, 30.0)
    starting = zip(link.times, link.waits_s, strict=True)
    late = [at for at, wait_s in starting if at < 5.0 and wait_s > 2 * flow.estimator.target_s]
    assert not late or late[-1] - late[0] <= (rtt_s if kbps > 28 else 2 * rtt_s)  # 28 kbit/s are more than it carries


def test_less_drains_soon_and_more_is_used_soon() -> None:
    """256 → 48 → 256 kbit/s. Promised: drained after min(0.4, 0.2 · 256 / 48) + 0.5 s = 0.9 s. The queue is full as the
    first report of it can come, and voice alone keeps 20 of the 48 kbit/s: without anything else it takes 1.1 s."""
    steps = Rate(((0.0, 256e3), (20.0, 48e3), (40.0, 256e3)), 1000.0)
    flow, link = call(LinkSpec(steps, 0.050, 0.4), THIN, 60.0)
    drained = next(at for at in (20.5 + step / 10 for step in range(100)) if link.waits_between(at, at + 0.3)[-1] < 0.1)
    used = next(at for at in range(41, 60) if flow.arrived.bps(at, at + 1.0) >= 0.8 * 256e3)
    print(f"drained after {drained - 20:.1f} s, 80 % used after {used - 40} s")
    assert drained - 20 <= 2.5
    assert used - 40 <= 15
    assert len(flow.voice_delays) >= 0.97 * flow.voice_sent


@pytest.mark.parametrize("loss", [0.10, 0.20])
def test_losses_of_the_link_do_not_collapse_the_rate(loss: float) -> None:
    flow, _ = call(LinkSpec(Rate.constant(384e3), 0.1, 0.4, 0.030, Loss(loss, 3.0)), THIN, 60.0)
    assert flow.arrived.bps(20.0, 60.0) >= 0.7 * 384e3 * (1 - loss)
    assert flow.estimator.inherent_loss == pytest.approx(loss, abs=0.08)


@pytest.mark.parametrize(("kbps", "rtt_s", "packets"), [(18, 1.3, 2), (24, 0.6, 2), (32, 0.6, 2.2)])
def test_thin_links_have_no_standing_queue(kbps: int, rtt_s: float, packets: float) -> None:
    """Promised: p95 of two packets' time."""
    media = Media(voice_bytes=120 if kbps < 20 else 148, voice_s=0.120 if kbps < 20 else 0.060, pictures_a_second=2.0)
    flow, link = call(LinkSpec(Rate.constant(kbps * 1e3), rtt_s / 2, 1.5, loss=Loss(0.02)), media, 120.0)
    waits = link.waits_between(5.0, 120.0)
    p95_packets = waits[int(0.95 * len(waits))] * kbps * 1e3 / 8 / 250
    print(f"{kbps} kbit/s: p95 {p95_packets:.1f} packets, {flow.arrived.bps(20, 120) / kbps / 1e3:.2f} used")
    assert p95_packets <= packets
    assert flow.arrived.bps(20.0, 120.0) >= 0.75 * kbps * 1e3


def test_after_an_outage_it_goes_on_at_half_and_is_back_soon() -> None:
    spec = LinkSpec(Rate.constant(200e3), 0.120, 0.6, outages=(Outage(20.0, 6.0),))
    flow, _ = call(spec, THIN, 40.0)
    silent = [rate for at, rate, _ in flow.rates if 23.0 < at < 26.0]
    assert max(silent) == min(silent) >= 0.8 * 200e3
    assert flow.arrived.bps(29.0, 31.0) >= 0.7 * 200e3


def test_jitter_alone_takes_little_of_the_rate() -> None:
    flow, _ = call(LinkSpec(Rate.constant(256e3), 0.3, 0.5, 0.020, Loss(0.01)), THIN, 60.0)
    assert flow.arrived.bps(20.0, 60.0) >= 0.85 * 256e3
