"""The bandwidth estimator's rules one by one, told packet by packet. What they do together: `tests/congestion/`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge_agent.core.estimator import UNKNOWN_BPS, Estimator
from edge_agent.core.linkloss import LossModel
from edge_agent.core.queueing import Delivery, StandingQueue
from edge_agent.core.transport_cc import Fate

MS = 0.001


class Told:
    """An estimator that is told of packets over a link of `link_bps` and 50 ms, each 100 ms."""

    def __init__(self, estimator: Estimator, link_bps: float = 1e9) -> None:
        self.estimator, self.link_bps = estimator, link_bps
        self.now = self.free_at = 0.0
        self.seq = 0

    def second(self, bps: float, size: int = 500, lost: Iterator[bool] | None = None) -> None:
        """Of packets evenly, and their reports."""
        for _ in range(10):
            fates = []
            for index in range(count := max(1, round(bps / 10 / 8 / size))):
                sent_at = self.now + index * 0.1 / count
                self.estimator.sent(size, sent_at)
                self.free_at = max(sent_at, self.free_at) + 8 * size / self.link_bps
                self.seq += 1
                is_lost = lost is not None and next(lost)
                fates.append(Fate(self.seq, size, sent_at, None if is_lost else self.free_at + 0.050 + 1000))
            self.now += 0.1
            self.estimator.tick(self.now)
            self.estimator.take_fates(fates, max(self.now, self.free_at) + 0.1)


def every(period: int) -> Iterator[bool]:
    while True:
        yield from (index == 0 for index in range(period))


def test_begins_with_what_voice_needs_or_half_of_what_is_remembered() -> None:
    assert Estimator(0.0).rate_bps == UNKNOWN_BPS
    assert Estimator(0.0, 400e3).rate_bps == 200e3
    assert Estimator(0.0, 20e3).rate_bps == UNKNOWN_BPS
    assert not Estimator(0.0, 400e3).known
    assert Estimator(0.0).remembered() is None


def test_a_round_trip_bounds_the_rate_from_below() -> None:
    estimator = Estimator(0.0)
    estimator.take_rtt(0.600, 0.1, wire_bytes=240)
    assert estimator.rate_bps == UNKNOWN_BPS
    estimator.take_rtt(0.001, 0.2, wire_bytes=240)
    assert estimator.rate_bps > 1e6


@pytest.mark.parametrize("link_bps", [24e3, 64e3, 300e3, 1e6])
def test_trains_tell_a_link_within_a_second(link_bps: float) -> None:
    estimator, told = Estimator(0.0), Told(Estimator(0.0), link_bps)
    estimator = told.estimator
    now = 0.0
    while (wanted := estimator.probe(now)) is not None:
        estimator.probe_sent(wanted, now)
        fates = []
        for index in range(count := max(3, -(-wanted // 1200))):
            estimator.sent(wanted // count, now)
            arrival = now + 0.050 + (index + 1) * 8 * (wanted // count) / link_bps
            fates.append(Fate(told.seq + index, wanted // count, now, arrival))
        estimator.take_fates(fates, arrival + 0.050)
        told.seq, now = told.seq + count, arrival + 0.050
        assert now < 2.0
    assert 0.75 * link_bps <= estimator.rate_bps <= link_bps
    assert estimator.known
    assert now < 1.0


def test_does_not_grow_above_what_is_really_sent() -> None:
    told = Told(Estimator(0.0))
    for _ in range(30):
        told.second(40_000)
    assert 50_000 < told.estimator.rate_bps < 2.01 * 40_000


def test_doubles_while_what_it_allows_is_used_and_no_queue_stands() -> None:
    told = Told(Estimator(0.0))
    for _ in range(6):
        told.second(told.estimator.rate_bps)
    assert told.estimator.rate_bps > 500e3


def test_a_queue_lowers_the_rate_below_what_the_link_does() -> None:
    told = Told(Estimator(0.0, 400e3), 100e3)
    told.second(90e3)
    told.second(150e3)
    assert told.estimator.queue_s > 0.2
    assert told.estimator.rate_bps < 100e3
    assert told.estimator.known


def test_loses_nothing_to_losses_that_the_link_has_anyway() -> None:
    told = Told(Estimator(0.0), 1e9)
    lost = every(10)
    for _ in range(8):
        told.second(told.estimator.rate_bps, lost=lost)
    assert told.estimator.rate_bps > 500e3
    assert told.estimator.inherent_loss == pytest.approx(0.1, abs=0.02)


def test_bytes_under_way_are_bounded() -> None:
    told = Told(Estimator(0.0), 1e9)
    told.second(28e3)
    estimator = told.estimator
    assert estimator.has_room(told.now)
    while estimator.has_room(told.now):
        estimator.sent(500, told.now)
    told.second(28e3)  # told of, they make room again
    assert estimator.has_room(told.now)


def test_silence_and_what_comes_after_it() -> None:
    told = Told(Estimator(0.0), 1e9)
    for _ in range(5):
        told.second(told.estimator.rate_bps)
    estimator, before = told.estimator, told.estimator.rate_bps
    for _ in range(60):
        told.now += 0.1
        estimator.sent(200, told.now)
        estimator.tick(told.now)
    assert estimator.silence
    assert estimator.rate_bps == before
    assert not estimator.has_room(told.now)
    estimator.take_rtt(0.1, told.now)
    assert not estimator.silence
    assert estimator.rate_bps == before / 2
    for _ in range(3):
        told.second(estimator.rate_bps)
    assert estimator.rate_bps >= 0.9 * before


def test_our_own_pause_is_no_silence_of_the_link() -> None:
    told = Told(Estimator(0.0), 1e9)
    told.second(28e3)
    estimator = told.estimator
    for tick in range(100):
        estimator.tick(told.now + tick / 10)
    for index in range(5):
        estimator.sent(200, told.now + 10 + index / 100)
    estimator.tick(told.now + 10.1)
    assert not estimator.silence


def test_receiver_reports_tell_losses_where_packets_have_no_numbers() -> None:
    estimator = Estimator(0.0)
    for second in range(10):
        for index in range(20):
            estimator.sent(150, second + index / 20)
        estimator.take_receiver_report(0.25, 0.3, second + 1.0)
    assert estimator.loss == pytest.approx(0.25, abs=0.03)
    assert estimator.rtt_s == pytest.approx(0.3)


# --- its parts


def test_standing_queue_is_what_all_have_waited() -> None:
    queue = StandingQueue()
    for index, waited in enumerate((0.0, 0.0, 0.0, 0.0, 0.080, 0.120, 0.090, 0.070, 0.110, 0.100, 0.100)):
        queue.add(index * 0.02, index * 0.02 + 7.0 + waited, 200)
    assert queue.update(float("inf")) == pytest.approx(0.070)


def test_jitter_is_no_standing_queue() -> None:
    queue = StandingQueue()
    for index in range(100):
        queue.add(index * 0.02, index * 0.02 + 7.0 + (index * 7 % 5) * 0.010, 200)
    assert queue.update(float("inf")) < 0.015


def test_long_packets_take_their_own_time() -> None:
    queue = StandingQueue()
    for index in range(10):
        size = 100 if index < 5 else 400
        queue.add(index * 0.1, index * 0.1 + 7.0 + 8 * size / 32_000, size)
    assert queue.update(32_000) == pytest.approx(0.0)


def test_delivery_counts_what_has_no_number() -> None:
    delivery = Delivery()
    for index in range(101):  # 100 packets of 100 bytes a second, every tenth numbered; the link takes twice the time
        delivery.sent(100, index * 0.01)
        if index % 10 == 0:
            delivery.told(index * 0.01, 50 + index * 0.02)
    rates = delivery.rates()
    assert rates is not None
    assert rates[0] == pytest.approx(40_000)
    assert rates[1] == pytest.approx(80_000)
    assert delivery.in_flight_bytes == 0


def judged(model: LossModel, rate_bps: float, share: float, blocks: int = 3) -> float:
    return max(model.add(60, 60 * share, rate_bps) for _ in range(blocks))


def test_losses_at_lower_rates_too_are_the_links_own() -> None:
    model = LossModel()
    assert judged(model, 100e3, 0.1) == 0
    assert judged(model, 300e3, 0.12) == 0
    assert model.inherent == pytest.approx(0.11, abs=0.02)


def test_losses_that_come_with_the_rate_speak_against_it() -> None:
    model = LossModel()
    assert judged(model, 100e3, 0.01) == 0
    assert judged(model, 300e3, 0.30, blocks=1) == pytest.approx(0.29, abs=0.02)
    assert model.inherent == pytest.approx(0.01, abs=0.01)


def test_losses_that_stay_when_less_is_sent_are_the_links_new_own() -> None:
    model = LossModel()
    judged(model, 100e3, 0.0)
    judged(model, 200e3, 0.0)
    assert judged(model, 300e3, 0.30, blocks=1) > 0
    judged(model, 200e3, 0.30, blocks=1)
    assert judged(model, 200e3, 0.30) == 0
    assert judged(model, 300e3, 0.30) == 0
    assert model.inherent == pytest.approx(0.30, abs=0.03)
