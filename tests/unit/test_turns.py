"""When a call has to be spoken in turns, and when it is live again: on a link in virtual time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.turns import (
    ANSWER_BYTES,
    ANSWER_TIMEOUT_S,
    FIRST_PROBE_S,
    LEAST_LIVE_BPS,
    LONGEST_PAUSE_S,
    PROBE_AGAIN_S,
    QUESTION_BYTES,
    SECOND_PROBE_S,
    LinkSample,
    LiveWatch,
    Probe,
    WayBack,
    rests,
)


class Call:
    """Samples of a live call, one a second; `said_at` is when the watch gave it up."""

    def __init__(self) -> None:
        self.watch, self.now = LiveWatch(), 50.0
        self.sent = self.received = self.got = self.lost = 0.0
        self.said_at: float | None = None

    def goes_on(
        self, seconds: int, *, sent_bps: float = 20_000, received_bps: float = 20_000, lost_down: float = 0.0,
        lost_up: float | None = 0.0, rtt_s: float = 0.3, packets: int = 16,
    ) -> Call:  # fmt: skip
        for _ in range(seconds):
            self.now += 1
            self.sent += sent_bps / 8
            self.received += received_bps / 8
            self.got += packets * (1 - lost_down)
            self.lost += packets * lost_down
            sample = LinkSample(int(self.sent), int(self.received), int(self.got), int(self.lost), lost_up, rtt_s)
            if self.watch.sample(sample, self.now) and self.said_at is None:
                self.said_at = self.now
        return self


@pytest.mark.parametrize("bad", [{"lost_down": 0.4}, {"lost_up": 0.4}])
def test_losses_over_a_third_for_ten_seconds_are_too_much(bad):
    call = Call().goes_on(30)
    began = call.now
    call.goes_on(15, **bad)
    assert call.said_at is not None
    assert 8 <= call.said_at - began <= 12


@pytest.mark.parametrize(
    "fair", [{"lost_down": 0.25, "lost_up": 0.25}, {"rtt_s": 1.4}, {"sent_bps": 9_000, "received_bps": 9_000},
             {"lost_up": None}, {"lost_down": 0.5, "packets": 1}]
)  # fmt: skip
def test_what_a_live_call_outlives(fair):
    assert Call().goes_on(60, **fair).said_at is None


def test_a_burst_of_losses_is_no_end():
    call = Call().goes_on(30)
    for _ in range(5):
        call.goes_on(3, lost_down=0.9, lost_up=0.9).goes_on(12)
    assert call.said_at is None


def test_a_standing_queue_before_a_thin_link_is_too_much():
    call = Call().goes_on(20, rtt_s=0.4).goes_on(12, received_bps=12_000, lost_down=0.2, rtt_s=1.6)
    assert call.said_at is not None
    call = Call().goes_on(20, rtt_s=0.4).goes_on(12, sent_bps=16_000, lost_up=0.25, rtt_s=1.6)
    assert call.said_at is not None
    # The same queue, and more than a thin link carries: the pictures' trouble.
    assert Call().goes_on(20, rtt_s=0.4).goes_on(20, received_bps=60_000, lost_down=0.2, rtt_s=1.6).said_at is None
    # A link of 18 kbit/s for which the call was planned, and what the air loses.
    assert (
        Call().goes_on(60, sent_bps=15_000, received_bps=15_000, lost_down=0.2, lost_up=0.2, rtt_s=1.4).said_at is None
    )


@pytest.mark.parametrize(("bps", "at_rest"), [(2_000, True), (8_000, False)])
def test_a_far_end_that_sends_its_voice_does_not_rest(bps, at_rest):
    before = LinkSample(0, 1000, 0, 0, None, 0.0)
    assert rests(before, before._replace(received_bytes=1000 + bps // 8 * 2), 2.0) is at_rest


def test_an_outage_is_not_judged():
    call = Call().goes_on(30).goes_on(8, received_bps=0, packets=0, rtt_s=0.3)
    call.goes_on(3, lost_down=0.8).goes_on(20)
    assert call.said_at is None


# --- the way back


def tried(way: WayBack, now: float, until: float, fits) -> tuple[list[tuple[float, bool]], float | None]:
    """Each probe with whether it was in full, and when live fitted."""
    probes = []
    while now < until:
        now = round(now + 0.1, 3)
        in_full = way.probe(now, quiet=True)
        if in_full is not None:
            probes.append((now, in_full))
            if way.answered(fits(now, in_full), now + 1.5):
                return probes, now + 1.5
    return probes, None


def test_two_probes_bring_the_call_back():
    way = WayBack()
    way.begin(100.0)
    probes, back = tried(way, 100.0, 200.0, lambda now, _: now > 120)
    assert [in_full for _, in_full in probes][-2:] == [False, True]
    assert back is not None
    assert 120 <= back <= 120 + PROBE_AGAIN_S + SECOND_PROBE_S + 4
    assert probes[0][0] == pytest.approx(100 + FIRST_PROBE_S, abs=0.2)


def test_a_link_for_the_least_call_alone_is_not_taken_for_this_one():
    way = WayBack()
    way.begin(0.0)
    probes, back = tried(way, 0.0, 100.0, lambda _, in_full: not in_full)
    assert back is None
    assert [in_full for _, in_full in probes[:4]] == [False, True, False, True]


def test_nobody_is_interrupted_by_a_probe():
    way = WayBack()
    way.begin(0.0)
    now = 0.0
    while now < 60:
        now += 0.5
        assert way.probe(now, quiet=False) is None
        assert way.next_deadline() is not None
        assert way.next_deadline() > now - 0.5
    assert tried(way, now, now + 5, lambda *_: True)[1] is not None


def test_a_call_that_relapses_is_tried_ever_less_often():
    way, now, pauses = WayBack(), 0.0, []
    for _ in range(6):
        way.begin(now)
        began = now
        _, back = tried(way, now, now + 200, lambda *_: True)
        assert back is not None
        pauses.append(back - began)
        way.end(back, live=True)
        now = back + 15
    assert pauses == sorted(pauses)
    assert pauses[-1] <= LONGEST_PAUSE_S
    way.begin(now + 300)
    assert way.next_deadline() == now + 300 + FIRST_PROBE_S


def test_a_probe_without_an_answer_is_one_that_failed():
    way = WayBack()
    way.begin(0.0)
    assert way.probe(FIRST_PROBE_S, quiet=True) is False
    assert way.probe(FIRST_PROBE_S + ANSWER_TIMEOUT_S - 0.1, quiet=True) is None
    way.probe(FIRST_PROBE_S + ANSWER_TIMEOUT_S, quiet=True)
    assert way.next_deadline() == FIRST_PROBE_S + ANSWER_TIMEOUT_S + PROBE_AGAIN_S
    assert not way.answered(True, FIRST_PROBE_S + ANSWER_TIMEOUT_S + 1)  # too late


# --- a probe on a link


def probed(
    kbps: float, *, bps: float = LEAST_LIVE_BPS, one_way_s: float = 0.3, loss: float = 0.0, jitter_s: float = 0.0,
    seed: int = 1, down_kbps: float | None = None,
) -> tuple[bool, float]:  # fmt: skip
    """The verdict, and for how long the questions have kept the link busy beyond their end."""
    chance = random.Random(seed)
    probe = Probe(bps, bps, 0.0)
    now, up_free, down_free = 0.0, 0.0, 0.0
    answers: list[tuple[float, int]] = []
    while (verdict := probe.verdict(now)) is None:
        while (number := probe.ask(now)) is not None:
            up_free = max(up_free, now) + QUESTION_BYTES * 8 / (kbps * 1000)
            if chance.random() < loss:
                continue
            at = up_free + one_way_s + chance.uniform(0, jitter_s)
            down_free = max(down_free, at) + ANSWER_BYTES * 8 / ((down_kbps or kbps) * 1000)
            if chance.random() >= loss:
                answers.append((down_free + one_way_s + chance.uniform(0, jitter_s), number))
        for at, number in sorted(answers):
            if at <= now:
                probe.answered(number, now)
        answers = [each for each in answers if each[0] > now]
        now += 0.01
        assert now < ANSWER_TIMEOUT_S
    return verdict, up_free - now


@pytest.mark.parametrize("one_way_s", [0.02, 0.3, 0.65])
@pytest.mark.parametrize(("kbps", "fits"), [(8, False), (12, False), (14, False), (20, True), (64, True), (1000, True)])
def test_what_a_probe_says_of_a_link(kbps, fits, one_way_s):
    assert probed(kbps, one_way_s=one_way_s)[0] is fits


def test_a_probe_of_one_way_that_is_thin():
    assert probed(1000, down_kbps=12)[0] is False


def test_a_probe_in_full():
    assert probed(40, bps=60_000)[0] is False
    assert probed(100, bps=60_000)[0] is True


def test_a_probe_sees_losses_and_forgives_jitter():
    fits = [probed(256, loss=0.4, seed=seed)[0] for seed in range(40)]
    assert sum(fits) <= 2
    fits = [probed(256, loss=0.1, jitter_s=0.08, seed=seed)[0] for seed in range(40)]
    assert sum(fits) >= 34


@given(kbps=st.floats(4, 2000), loss=st.floats(0, 0.95), one_way_s=st.floats(0.001, 1.5), seed=st.integers(0, 100))
def test_a_probe_ends_and_leaves_no_long_queue(kbps, loss, one_way_s, seed):
    _, still_busy_s = probed(kbps, loss=loss, one_way_s=one_way_s, seed=seed)
    assert still_busy_s < 6  # even where it takes 3 s to know


def test_a_probe_stops_when_a_queue_grows():
    probe = Probe(64_000, 64_000, 0.0)
    asked = [number for step in range(500) if (number := probe.ask(0.001 * step)) is not None]
    assert len(asked) > 40
    probe.answered(0, 0.5)
    probe.answered(40, 0.9)
    assert probe.verdict(0.9) is None
    probe.answered(42, 1.2)
    assert probe.ask(1.2) is None
    assert probe.verdict(1.2) is False
