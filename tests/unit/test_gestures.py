"""Button gestures in virtual time: what the contact does, and what the hand is taken to mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.gestures import SETTLE_S, ButtonGestures, Freed, Gesture, Held, Pressed, Released, Stuck

Timed = tuple[float, Gesture]


def play(changes: list[tuple[float, bool]], until: float, starts_down: bool = False) -> list[Timed]:
    """Feeds changes and deadlines in the order of their time, as a punctual owner does."""
    gestures = ButtonGestures()
    events: list[Timed] = [(0.0, event) for event in gestures.changed(starts_down, 0.0)]
    for at, pressed in [*changes, (until, None)]:
        while (deadline := gestures.next_deadline()) is not None and deadline <= at:
            events += [(deadline, event) for event in gestures.tick(deadline)]
        if pressed is not None:
            events += [(at, event) for event in gestures.changed(pressed, at)]
    return [(round(at, 6), _rounded(event)) for at, event in events]


def _rounded(event: Gesture) -> Gesture:
    return Released(round(event.held_s, 6)) if isinstance(event, Released) else event


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param([], [], id="untouched"),
        pytest.param([(1.0, True), (1.2, False)], [(1.0, Pressed()), (1.23, Released(0.2))], id="short press"),
        pytest.param([(1.0, True), (1.003, False)], [(1.0, Pressed()), (1.033, Released(0.003))], id="3 ms contact"),
        pytest.param(
            [(1.0, True), (1.002, False), (1.004, True), (1.005, False), (1.009, True), (1.3, False)],
            [(1.0, Pressed()), (1.33, Released(0.3))],
            id="bounce on the way down",
        ),
        pytest.param(
            [(1.0, True), (1.3, False), (1.302, True), (1.306, False), (1.309, True), (1.312, False)],
            [(1.0, Pressed()), (1.342, Released(0.312))],
            id="bounce on the way up",
        ),
        pytest.param(
            [(1.0, True), (1.1, False), (1.2, True), (1.3, False)],
            [(1.0, Pressed()), (1.13, Released(0.1)), (1.2, Pressed()), (1.33, Released(0.1))],
            id="two quick presses",
        ),
        pytest.param(
            [(1.0, True), (3.5, False)], [(1.0, Pressed()), (3.0, Held(2)), (3.53, Released(2.5))], id="held 2 s"
        ),
        pytest.param(
            [(1.0, True), (6.5, False)],
            [(1.0, Pressed()), (3.0, Held(2)), (6.0, Held(5)), (6.53, Released(5.5))],
            id="held 5 s",
        ),
        pytest.param([(1.0, True), (2.99, False)], [(1.0, Pressed()), (3.02, Released(1.99))], id="let go just before"),
        pytest.param(
            [(1.0, True), (2.99, False), (3.005, True), (4.0, False)],
            [(1.0, Pressed()), (3.005, Held(2)), (4.03, Released(3.0))],
            id="a worn contact flickers as the hold is due",
        ),
        pytest.param(
            [(1.0, True), (50.0, False)],
            [
                (1.0, Pressed()),
                (3.0, Held(2)),
                (6.0, Held(5)),
                (31.0, Stuck()),
                (50.03, Released(49.0)),
                (50.03, Freed()),
            ],
            id="stuck once, then freed",
        ),
        pytest.param(
            [(1.0, True), (1.0, True), (1.2, False)], [(1.0, Pressed()), (1.23, Released(0.2))], id="repeated"
        ),
    ],
)
def test_presses(changes: list[tuple[float, bool]], expected: list[Timed]) -> None:
    assert play(changes, until=100.0) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param([(5.0, False)], [], id="let go"),
        pytest.param(
            [(5.0, False), (6.0, True), (6.1, False)], [(6.0, Pressed()), (6.13, Released(0.1))], id="then pressed"
        ),
        pytest.param([], [(30.0, Stuck())], id="stuck"),
        pytest.param(
            [(40.0, False), (41.0, True), (41.1, False)],
            [(30.0, Stuck()), (40.03, Freed()), (41.0, Pressed()), (41.13, Released(0.1))],
            id="stuck, freed, pressed",
        ),
    ],
)
def test_a_button_down_at_the_start_is_not_a_press(changes: list[tuple[float, bool]], expected: list[Timed]) -> None:
    assert play(changes, until=100.0, starts_down=True) == expected


def test_a_late_owner_loses_nothing() -> None:
    gestures = ButtonGestures()
    gestures.changed(False, 0.0)
    assert gestures.changed(True, 1.0) == [Pressed()]
    assert gestures.changed(False, 7.0) == [Held(2.0), Held(5.0)]
    assert gestures.changed(True, 9.0) == [Released(6.0), Pressed()]
    assert gestures.tick(100.0) == [Held(2.0), Held(5.0), Stuck()]
    assert gestures.next_deadline() is None


bounces = st.lists(st.floats(0.0001, SETTLE_S * 0.9), max_size=12)


@given(
    st.lists(st.tuples(bounces, st.floats(0.05, 40.0), bounces, st.floats(0.05, 5.0)), max_size=6),
    st.booleans(),
)
def test_every_press_is_one_however_the_contact_bounces(
    presses: list[tuple[list[float], float, list[float], float]], starts_down: bool
) -> None:
    """Each press: bounces going down, time down, bounces coming up, time up."""
    changes: list[tuple[float, bool]] = []
    firsts: list[float] = []
    now = 1.0
    if starts_down:
        changes.append((now, False))
        now += 1.0
    for going_down, down_s, coming_up, up_s in presses:
        firsts.append(round(now, 6))
        for going_to, gaps, rest_s in ((True, going_down, down_s), (False, coming_up, up_s)):
            changes.append((now, going_to))
            for gap in gaps:
                now += gap
                changes.append((now, not changes[-1][1]))
            if changes[-1][1] is not going_to:
                now += 0.001
                changes.append((now, going_to))
            now += rest_s
    events = play(changes, until=now + 1.0, starts_down=starts_down)
    assert [at for at, event in events if isinstance(event, Pressed)] == firsts
    ends = [type(event) for _, event in events if isinstance(event, Pressed | Released)]
    assert ends == [Pressed, Released] * len(presses)
    holds = sum(isinstance(event, Held) for _, event in events)
    held_s = [event.held_s for _, event in events if isinstance(event, Released)]
    at_least, at_most = (
        sum((held >= 2.0 + margin) + (held >= 5.0 + margin) for held in held_s) for margin in (1e-5, -1e-5)
    )
    assert at_least <= holds <= at_most


@given(st.lists(st.tuples(st.floats(0.0, 40.0), st.booleans()), max_size=60), st.booleans())
def test_events_alternate_whatever_the_contact_does(changes: list[tuple[float, bool]], starts_down: bool) -> None:
    now = 0.0
    timed = []
    for gap, pressed in changes:
        now += gap
        timed.append((now, pressed))
    events = [event for _, event in play(timed, until=now + 100.0, starts_down=starts_down)]
    down = stuck = False
    for event in events:
        match event:
            case Pressed():
                assert not down
                assert not stuck
                down = True
            case Held() | Released():
                assert down
                down = isinstance(event, Held)
            case Stuck():
                assert not stuck
                stuck = True
            case Freed():
                assert stuck
                assert not down
                stuck = False
