"""When what was set aside is tried again."""

from __future__ import annotations

from edge_agent.core.retries import FIRST_MS, PAUSES_MS, Retries, SetAside

HOUR = 3_600_000
X, Y = b"x" * 8, b"y" * 8


def test_an_hour_later_then_four_sixteen_and_daily():
    retries, now, tried = Retries(), 1_000_000, []
    retries.put(X, now)
    for _ in range(6):
        since = now
        while not retries.due(now):
            now += HOUR // 4
        tried.append((now - since) // HOUR)
        assert retries.due(now + PAUSES_MS[-1]) == []  # it is being tried
        retries.put(X, now)
    assert tried == [1, 4, 16, 24, 24, 24]


def test_it_stands_aside_over_a_restart_and_is_due_by_the_clock():
    retries = Retries()
    retries.load(X, SetAside(2, 0))
    assert X in retries
    assert retries.due(3 * HOUR) == []
    assert retries.due(4 * HOUR) == [X]


def test_a_new_hub_is_asked_once_but_not_when_it_may_have_ended_by_this():
    retries = Retries()
    retries.put(X, 0)
    retries.put(X, 10 * HOUR)
    retries.put(Y, 10 * HOUR + FIRST_MS)
    assert retries.hub_is_new(10 * HOUR + FIRST_MS, other_release=False) == [X]
    assert retries.hub_is_new(10 * HOUR + FIRST_MS, other_release=True) == [Y]
    assert retries.hub_is_new(99 * HOUR, other_release=True) == []


def test_a_person_s_word_counts_at_once_and_what_the_hub_has_is_forgotten():
    retries = Retries()
    retries.put(X, 0)
    retries.put(Y, 0)
    retries.gone(Y)
    assert retries.asked_for() == [X]
    assert len(retries) == 1
    retries.gone(X)
    assert len(retries) == 0
    assert retries.put(X, 5) == SetAside(1, 5)


def test_a_clock_that_jumped_back_does_not_put_it_off_for_years():
    retries = Retries()
    retries.put(X, 40 * 365 * 24 * HOUR)
    assert retries.due(HOUR) == [X]
