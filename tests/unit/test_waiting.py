"""The waiting room on paper: no clock, no database. Times in seconds for the reader, milliseconds inside."""

from __future__ import annotations

import pytest

from hub.waiting import (
    EndCall,
    Expectation,
    RingEveryone,
    Rules,
    WaitingCall,
    WaitingDoctor,
    due,
    expectation,
    in_call,
    in_order,
    next_due_ms,
    rings,
)

RULES = Rules()


def call(id="c", kiosk="k", phase="ringing", at=100, emergency_at=0, **more):
    return WaitingCall(id, kiosk, phase, at * 1000, emergency_at * 1000, **more)


def doctor(id=1, available=True, connected=True, gone_since=0, until="", until_at=0):
    return WaitingDoctor(id, available, connected, gone_since * 1000, until, until_at * 1000)


def test_emergencies_first_then_the_oldest():
    calls = [call("b", at=20), call("a", at=10), call("e", at=30, emergency_at=31), call("f", at=25, emergency_at=40)]
    taken = [call("x", phase="claimed"), call("y", phase="calling_kiosk")]
    assert [queued.id for queued in in_order([*calls, *taken])] == ["f", "e", "a", "b"]


@pytest.mark.parametrize(
    ("waiting", "who", "busy", "expected"),
    [
        (call(), doctor(), set(), True),
        (call(), doctor(available=False), set(), False),
        (call(), doctor(connected=False), set(), False),
        (call(), doctor(), {1}, False),
        (call(phase="claimed"), doctor(), set(), False),
        (call(emergency_at=5), doctor(), {1}, False),
        (call(emergency_at=5, everyone=True), doctor(available=False), set(), True),
        (call(emergency_at=5, everyone=True), doctor(), {1}, True),
        (call(emergency_at=5, everyone=True), doctor(connected=False), set(), False),
    ],
)
def test_who_is_rung(waiting, who, busy, expected):
    assert rings(waiting, who, busy) is expected


@pytest.mark.parametrize(
    ("calls", "doctors", "expected"),
    [
        ([], [doctor()], Expectation("here")),
        ([], [], Expectation("nobody")),
        ([], [doctor(available=False)], Expectation("nobody")),
        ([], [doctor(available=False, until="14:30", until_at=300)], Expectation("nobody", 0, "14:30")),
        ([], [doctor(available=False, until="09:00", until_at=200)], Expectation("nobody")),  # it is past
        (
            [],
            [doctor(1, False, until="14:30", until_at=900), doctor(2, False, until="08:00", until_at=800)],
            Expectation("nobody", 0, "08:00"),
        ),
        ([call(phase="answered", kiosk="other", doctor=1)], [doctor()], Expectation("busy", 1)),
        (
            [call(phase="answered", kiosk="x", doctor=1), call("q", kiosk="y", at=5)],
            [doctor()],
            Expectation("busy", 2),
        ),
        (
            [call("own", kiosk="mine", at=9), call("q", kiosk="y", at=5), call("t", phase="claimed", doctor=1)],
            [doctor()],
            Expectation("busy", 2),
        ),
        ([call(phase="answered", kiosk="x", doctor=1)], [doctor(1), doctor(2)], Expectation("here")),
        ([call("own", kiosk="mine")], [doctor()], Expectation("here", 1)),
        # a page that is being reloaded
        ([], [doctor(connected=False, gone_since=195)], Expectation("here")),
        ([], [doctor(connected=False, gone_since=190)], Expectation("nobody")),
    ],
)
def test_what_a_kiosk_may_expect(calls, doctors, expected):
    assert expectation("mine", calls, doctors, 200_000) == expected


HERE = [doctor()]
GONE = [doctor(connected=False, gone_since=150)]


@pytest.mark.parametrize(
    ("waiting", "doctors", "at", "effect"),
    [
        (call(), HERE, 400, EndCall("c", "unanswered")),
        (call(phase="calling_kiosk", doctor=1), HERE, 160, EndCall("c", "unanswered")),
        (call(emergency_at=110), HERE, 140, RingEveryone("c")),
        (call(emergency_at=110, everyone=True), HERE, 400, EndCall("c", "unanswered")),
        (call(phase="claimed", doctor=1), GONE, 210, EndCall("c", "doctor_gone")),
        (call(phase="answered", doctor=1), GONE, 210, EndCall("c", "doctor_gone")),
        (call(kiosk_online=False, kiosk_gone_since_ms=120_000), HERE, 180, EndCall("c", "link_lost")),
        (
            call(phase="answered", doctor=1, kiosk_online=False, kiosk_gone_since_ms=120_000, media_lost=True),
            HERE,
            180,
            EndCall("c", "link_lost"),
        ),
    ],
)
def test_what_time_decides(waiting, doctors, at, effect):
    assert next_due_ms([waiting], doctors, 200_000, RULES) == at * 1000
    assert due([waiting], doctors, at * 1000 - 1, RULES) == []
    assert due([waiting], doctors, at * 1000, RULES) == [effect]


def test_a_call_with_sound_needs_no_broker():
    talking = call(phase="answered", doctor=1, kiosk_online=False, kiosk_gone_since_ms=120_000)
    assert due([talking], HERE, 10**9, RULES) == []
    assert next_due_ms([talking], HERE, 200_000, RULES) is None


def test_a_call_ends_once_in_the_way_that_came_first():
    both = call(phase="claimed", doctor=1, kiosk_online=False, kiosk_gone_since_ms=140_000)
    assert due([both], GONE, 10**9, RULES) == [EndCall("c", "link_lost")]


def test_looks_again_when_a_kiosk_is_to_be_told_something_else():
    reloading = doctor(connected=False, gone_since=150)
    assert next_due_ms([], [reloading], 155_000, RULES) == 160_000
    assert next_due_ms([], [reloading], 160_000, RULES) is None
    back_soon = doctor(available=False, until="14:30", until_at=500)
    assert next_due_ms([], [back_soon], 155_000, RULES) == 500_000


def test_whoever_rings_a_kiosk_is_in_a_call():
    assert in_call([call(phase="calling_kiosk", doctor=4), call("q")]) == {4}
