from __future__ import annotations

import pytest

from hub import attempts
from hub.attempts import Attempts


def make() -> Attempts:
    return Attempts(free=3, first_wait_s=10, longest_wait_s=60, forget_s=1000)


def fail(tries: Attempts, key: str, now: float) -> None:
    assert tries.wait_s(key, now) == 0
    tries.count(key, now)


def test_waits_double_up_to_the_longest():
    tries, now, waits = make(), 0.0, []
    for _ in range(8):
        fail(tries, "a", now)
        waits.append(tries.wait_s("a", now))
        now += waits[-1]
    assert waits == [0, 0, 10, 20, 40, 60, 60, 60]


def test_attempts_that_are_refused_make_no_wait_longer():
    """A stranger who goes on all day holds nobody off for more than the longest wait."""
    tries = make()
    for _ in range(3):
        fail(tries, "a", 0)
    assert [tries.wait_s("a", now) for now in (1, 5, 9.5, 10)] == [9, 5, 0.5, 0]


def test_keys_are_apart_and_time_forgets():
    tries = make()
    for _ in range(3):
        fail(tries, "a", 0)
    assert tries.wait_s("a", 0) == 10
    assert tries.wait_s("b", 0) == 0
    assert tries.wait_s("a", 1000) == 0
    fail(tries, "a", 1000)
    assert tries.wait_s("a", 1000) == 0, "counted from the beginning"


def test_what_proved_right_is_taken_back_or_forgiven():
    tries = make()
    for _ in range(50):
        fail(tries, "office", 0)
        tries.take_back("office")
    assert tries.wait_s("office", 0) == 0
    for _ in range(3):
        fail(tries, "a", 0)
    tries.forgive("a")
    assert tries.wait_s("a", 0) == 0
    tries.take_back("never seen")


def test_many_at_once_are_no_way_around():
    """Counted before they are judged."""
    tries = make()
    let_through = 0
    for _ in range(100):
        if tries.wait_s("a", 0) == 0:
            tries.count("a", 0)
            let_through += 1
    assert let_through == 3


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(attempts, "MAX_KEYS", 10)
    tries = make()
    for _ in range(3):
        tries.count("kept", 0)
    for number in range(100):
        tries.count(f"key {number}", 0)
        tries.count("kept", 0)
    assert len(tries._tried) == 10
    assert tries.wait_s("kept", 0) > 0


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_an_address_is_what_one_person_has_of_them(address: str, source: str):
    assert attempts.source(address) == source


@pytest.mark.parametrize(
    ("wait_s", "words"), [(0.2, "1 second"), (30, "30 seconds"), (91, "2 minutes"), (900, "15 minutes")]
)
def test_waits_in_words(wait_s: float, words: str):
    assert attempts.in_words(wait_s) == words
