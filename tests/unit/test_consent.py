"""Consent on the path of a call, in virtual time."""

from __future__ import annotations

import random

import pytest

from edge_agent.core.consent import EXPIRES_S, INTERVAL_S, Consent


def live(rtt_s: float, loss: float, until_s: float, dead_from_s: float = 1e9, seed: int = 1) -> tuple[float, int]:
    """When it expired (or `until_s`), and how many questions were asked."""
    chance = random.Random(seed)
    consent = Consent(0.0)
    flying: list[tuple[float, float]] = []  # arrives, asked
    now, asked = 0.0, 0
    while now < until_s:
        next_answer = min(flying, default=None)
        now = min(consent.next_question_at, consent.expires_at, *([next_answer[0]] if next_answer else []))
        if next_answer and next_answer[0] <= now:
            flying.remove(next_answer)
            consent.answered(next_answer[1], now)
        elif now >= consent.expires_at:
            return now, asked
        else:
            consent.asked(now, chance.uniform(-1, 1))
            asked += 1
            if now < dead_from_s and chance.random() >= loss:
                flying.append((now + rtt_s, now))
    return until_s, asked


@pytest.mark.parametrize("rtt_s", [0.02, 0.6, 1.3, 1.5, 4.0])
def test_answers_count_however_late_they_come(rtt_s: float) -> None:
    expired, asked = live(rtt_s, loss=0.0, until_s=1800.0)
    assert expired == 1800.0
    least = 1800 / INTERVAL_S
    # An answer that is slower than any patience has been asked for twice by then, no more.
    assert least * 0.9 <= asked <= least * (1.1 if rtt_s < 3 else 2.2)


@pytest.mark.parametrize("seed", range(20))
def test_losses_do_not_end_a_call_of_half_an_hour(seed: int) -> None:
    """20 % lost each way, so over a third of the questions bring nothing."""
    assert live(rtt_s=1.3, loss=0.36, until_s=1800.0, seed=seed)[0] == 1800.0


def test_silence_ends_it_after_thirty_seconds() -> None:
    expired, _ = live(rtt_s=0.3, loss=0.0, until_s=1800.0, dead_from_s=100.0)
    assert 100 + EXPIRES_S - INTERVAL_S * 1.2 <= expired <= 100 + EXPIRES_S + 0.3


def test_an_overdue_answer_brings_the_next_question_forward_and_its_coming_takes_that_back() -> None:
    consent = Consent(0.0)
    assert consent.next_question_at == INTERVAL_S
    consent.asked(5.0)
    assert consent.next_question_at == 6.0
    consent.answered(5.0, 5.2)
    assert consent.next_question_at == 10.0
    assert consent.rtt_s == pytest.approx(0.2)
    consent.asked(10.0)
    consent.asked(11.0)
    consent.answered(10.0, 11.1)  # the older question's: the path lives, the newest is still open
    assert consent.expires_at == 11.1 + EXPIRES_S
    assert consent.next_question_at < 11.0 + INTERVAL_S
    consent.answered(11.0, 11.2)
    assert consent.next_question_at == 11.0 + INTERVAL_S


def test_patience_follows_the_round_trip() -> None:
    consent = Consent(0.0)
    for number in range(20):
        consent.asked(number * 5.0)
        consent.answered(number * 5.0, number * 5.0 + 1.3)
    consent.asked(100.0)
    assert 1.3 < consent.next_question_at - 100.0 < 1.5


def test_the_spread_keeps_paths_out_of_step() -> None:
    consent = Consent(0.0, spread=-1)
    assert consent.next_question_at == pytest.approx(INTERVAL_S * 0.8)
    consent.asked(4.0, spread=1)
    consent.answered(4.0, 4.1)
    assert consent.next_question_at == pytest.approx(4.0 + INTERVAL_S * 1.2)
