"""The lock of the worker's face in virtual time."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher

from kiosk.worker import FREE_TRIES, MAX_WAIT_S, WorkerLock


def lock(pin_hash: str = "$hash") -> WorkerLock:
    return WorkerLock(pin_hash, idle_s=120)


def test_without_a_pin_there_is_no_workers_face():
    it = lock("")
    it.asked(0)
    assert it.face == "none"
    assert not it.may_try(0)


def test_the_right_pin_opens_and_idleness_locks():
    it = lock()
    assert it.face == "locked"
    it.asked(0)
    assert it.face == "pin"
    assert it.may_try(1)
    it.tried(True, 2)
    assert it.is_open
    it.touched(100)
    assert not it.tick(219)
    assert it.tick(220)
    assert it.face == "locked"
    assert it.next_deadline() is None


def test_a_keypad_left_alone_goes_away():
    it = lock()
    it.asked(0)
    assert it.tick(120)
    assert it.face == "locked"


def test_a_pin_is_looked_at_only_when_it_was_asked_for():
    it = lock()
    it.tried(True, 0)
    assert it.face == "locked"
    it.asked(0)
    it.left()
    it.tried(True, 1)  # the check took longer than the hand stayed
    assert it.face == "locked"


def test_wrong_pins_are_answered_more_and_more_slowly():
    it = lock()
    it.asked(0)
    now, waits = 0.0, []
    for number in range(1, 12):
        assert it.may_try(now)
        it.tried(False, now)
        assert it.error == ("wrong" if number < FREE_TRIES else "wait")
        if wait := it.wait_s(now):
            waits.append(wait)
            assert not it.may_try(now + wait - 0.1)
            it.left()
            it.asked(now)  # going away and coming back does not help
            assert it.error == "wait"
            now += wait
            it.asked(now)
    assert waits == [30, 60, 120, 240, 480, 900, 900, 900, 900]
    assert waits[-1] == MAX_WAIT_S
    it.tried(True, now)
    assert it.is_open


@pytest.mark.parametrize(("pin", "right"), [("2468", True), ("1234", False), ("", False)])
def test_the_pin_is_checked_against_its_hash(pin, right):
    it = lock(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("2468"))
    assert it.verify(pin) is right


def test_a_broken_hash_opens_nothing():
    assert lock("not a hash").verify("1234") is False
