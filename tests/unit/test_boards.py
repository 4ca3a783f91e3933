"""The board's contract, kept by the real board (over gpiozero's own mock pins) and by the simulated one alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from gpiozero.pins.mock import MockFactory, MockPin, MockPWMPin

from hardware.api import LIGHT_PATTERNS, Board, BoardUnavailable, HardwareError, Light
from hardware.gestures import ButtonGestures, Held, Pressed, Released
from hardware.gpio import NOT_WIRED, GpioBoard
from hardware.simulated import SimulatedBoard
from tests.timing import in_real_time

BUTTON, RED, GREEN, BLUE = 17, 22, 23, 24


class Simulated:
    """Hands and eyes before a simulated board."""

    def __init__(self) -> None:
        self.board = SimulatedBoard()

    def press(self) -> None:
        self.board.press()

    def release(self) -> None:
        self.board.release()

    def colour(self) -> tuple[float, ...]:
        step = LIGHT_PATTERNS[self.board.light][0]
        return step.red, step.green, step.blue


class Gpio:
    """The same before a board on mock pins: the button pulls its pin to ground."""

    def __init__(self, pin_class: type[MockPin] = MockPWMPin, lamp: tuple[int, ...] = (RED, GREEN, BLUE)) -> None:
        self.pins = MockFactory(pin_class=pin_class)
        self.lamp = [self.pins.pin(number) for number in lamp if number != NOT_WIRED]
        self.board = GpioBoard(BUTTON, *lamp, pin_factory=self.pins)

    def press(self) -> None:
        self.pins.pin(BUTTON).drive_low()

    def release(self) -> None:
        self.pins.pin(BUTTON).drive_high()

    def colour(self) -> tuple[float, ...]:
        return tuple(pin.state for pin in self.lamp)


@pytest.fixture(params=[Simulated, Gpio])
def stand(request: pytest.FixtureRequest) -> Iterator[Simulated | Gpio]:
    stand = request.param()
    yield stand
    stand.board.close()


def test_changes_go_out_at_once_and_in_order(stand: Simulated | Gpio) -> None:
    changes: list[tuple[bool, float]] = []
    stand.board.watch_button(lambda pressed, at: changes.append((pressed, at)))
    started = time.monotonic()
    for _ in range(3):
        stand.press()
        stand.release()
    assert [pressed for pressed, _ in changes] == [False, True, False, True, False, True, False]
    times = [at for _, at in changes]
    assert times == sorted(times)
    assert all(started <= at <= time.monotonic() for at in times[1:])


def test_the_first_call_says_how_the_button_stands(stand: Simulated | Gpio) -> None:
    stand.press()
    changes: list[bool] = []
    stand.board.watch_button(lambda pressed, _at: changes.append(pressed))
    assert changes == [True]
    stand.release()
    assert changes == [True, False]


def test_the_lamp_changes_before_show_returns(stand: Simulated | Gpio) -> None:
    for light in (Light.LIVE, Light.EMERGENCY, Light.MESSAGE, Light.READY, Light.OFF):
        stand.board.show(light)
        step = LIGHT_PATTERNS[light][0]
        assert stand.colour() == (step.red, step.green, step.blue)


def test_nothing_comes_after_close(stand: Simulated | Gpio) -> None:
    changes: list[bool] = []
    stand.board.show(Light.LIVE)
    stand.board.watch_button(lambda pressed, _at: changes.append(pressed))
    stand.board.close()
    stand.press()
    assert changes == [False]
    assert not any(stand.colour())
    stand.board.show(Light.EMERGENCY)


def test_a_watcher_may_use_the_board(stand: Simulated | Gpio) -> None:
    """As an owner does that lights the lamp right from the press."""
    board: Board = stand.board
    board.watch_button(lambda pressed, _at: board.show(Light.CALLING if pressed else Light.READY))
    stand.press()
    assert stand.colour() == (1, 0.6, 0)
    stand.release()
    assert stand.colour() == (0, 0.35, 0)


# --- the simulated board's own


def test_a_bouncing_simulated_button_is_one_press() -> None:
    board = SimulatedBoard(bounces=5)
    gestures = ButtonGestures()
    events = []
    changes: list[bool] = []

    def changed(pressed: bool, at: float) -> None:
        changes.append(pressed)
        events.extend(gestures.changed(pressed, at))

    board.watch_button(changed)
    board.press()
    board.press()
    assert len(changes) == 12
    assert events == [Pressed()]
    board.release()
    events += gestures.tick(time.monotonic() + 1)
    assert [type(event) for event in events] == [Pressed, Released]


def test_the_panel_sees_lamp_and_button() -> None:
    board = SimulatedBoard()
    seen: list[tuple[Light, bool]] = []
    end = board.subscribe(lambda light, pressed: seen.append((light, pressed)))
    board.show(Light.CALLING)
    board.show(Light.CALLING)
    board.press()
    board.release()
    end()
    board.show(Light.LIVE)
    assert seen == [(Light.OFF, False), (Light.CALLING, False), (Light.CALLING, True), (Light.CALLING, False)]


# --- the real board's own


def wait_for_states(pin: MockPin, count: int) -> list[tuple[float, float]]:
    """The pin's (seconds in the state before, state) once `count` are there."""
    deadline = time.monotonic() + 10
    while len(pin.states) < count and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    return [(state.timestamp, state.state) for state in pin.states[:count]]


@in_real_time
def test_the_lamp_keeps_up_its_pattern() -> None:
    stand = Gpio()
    red = stand.lamp[0]
    red.clear_states()
    stand.board.show(Light.EMERGENCY)
    states = wait_for_states(red, 6)
    stand.board.close()
    assert [state for _, state in states[1:]] == [1, 0, 1, 0, 1]
    blinks = [seconds for seconds, _ in states[2:]]
    assert sum(blinks) == pytest.approx(0.8, abs=0.1)  # the thread sleeps to a clock and does not drift


def test_a_new_light_cuts_a_long_step_short() -> None:
    stand = Gpio()
    stand.board.show(Light.LIVE)
    stand.board.show(Light.EMERGENCY)
    red = stand.lamp[0]
    assert len(wait_for_states(red, 4)) == 4
    stand.board.close()


def test_without_pwm_the_lamp_is_on_or_off() -> None:
    stand = Gpio(pin_class=MockPin)
    for light, colour in (
        (Light.READY, (0, 1, 0)),
        (Light.CALLING, (1, 1, 0)),
        (Light.MESSAGE, (0, 0, 1)),
        (Light.OFF, (0, 0, 0)),
    ):
        stand.board.show(light)
        assert stand.colour() == colour
    stand.board.close()


@pytest.mark.parametrize(("pin_class", "level"), [(MockPWMPin, 0.35), (MockPin, 1)])
def test_a_single_lamp_shows_the_brightest_colour(pin_class: type[MockPin], level: float) -> None:
    stand = Gpio(pin_class, lamp=(NOT_WIRED, GREEN, NOT_WIRED))
    assert stand.board.has_lamp
    stand.board.show(Light.READY)
    assert stand.colour() == (level,)
    stand.board.show(Light.EMERGENCY)
    assert stand.colour() == (1,)
    stand.board.close()


def test_an_edge_that_the_pins_missed_is_made_up_for() -> None:
    stand = Gpio()
    changes: list[bool] = []
    released = threading.Event()

    def changed(pressed: bool, _at: float) -> None:
        changes.append(pressed)
        if len(changes) == 3:
            released.set()

    stand.board.watch_button(changed)
    stand.press()
    stand.pins.pin(BUTTON)._change_state(True)  # up again, and no interrupt came
    assert released.wait(2)
    assert changes == [False, True, False]
    stand.board.close()


def test_a_held_button_is_read_through_gpio() -> None:
    stand = Gpio()
    gestures = ButtonGestures()
    events: list[object] = []
    stand.board.watch_button(lambda pressed, at: events.extend(gestures.changed(pressed, at)))
    stand.press()
    deadline = gestures.next_deadline()
    assert deadline is not None
    events += gestures.tick(deadline)
    assert events == [Pressed(), Held(2.0)]
    stand.board.close()


def test_a_board_without_button_or_lamp_says_so() -> None:
    board = GpioBoard(NOT_WIRED, NOT_WIRED, NOT_WIRED, NOT_WIRED, pin_factory=MockFactory())
    assert (board.has_button, board.has_lamp) == (False, False)
    board.watch_button(lambda _pressed, _at: pytest.fail("there is no button"))
    board.show(Light.LIVE)
    board.close()


@pytest.mark.parametrize(
    ("pins", "error"),
    [
        pytest.param((99, RED, GREEN, BLUE), BoardUnavailable, id="no such pin"),
        pytest.param((BUTTON, BUTTON, GREEN, BLUE), BoardUnavailable, id="one pin twice"),
        pytest.param((BUTTON, RED, NOT_WIRED, BLUE), HardwareError, id="two colours"),
    ],
)
def test_pins_that_cannot_be(pins: tuple[int, int, int, int], error: type[HardwareError]) -> None:
    factory = MockFactory(pin_class=MockPWMPin)
    with pytest.raises(error) as caught:
        GpioBoard(*pins, pin_factory=factory)
    assert caught.value.hint
    GpioBoard(BUTTON, RED, GREEN, BLUE, pin_factory=factory).close()  # nothing was left reserved


def test_a_machine_without_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "no-such-factory")
    monkeypatch.setattr("gpiozero.Device.pin_factory", None)
    with pytest.raises(BoardUnavailable, match="no GPIO pins"):
        GpioBoard(BUTTON, RED, GREEN, BLUE)
