"""What is sent into a silent link, in virtual time."""

from __future__ import annotations

from edge_agent.core.breath import FIRST_S, LEAST_SILENCE_OF_PICTURES_S, LEAST_SILENCE_S, Breath

TICK_S = 0.02


class Call:
    """Sends a packet each tick; hears one each `gap_s` while `hears`."""

    def __init__(self) -> None:
        self.breath = Breath(0.0)
        self._ticks = self._heard_at = 0
        self.pictures = 0  # ticks in which one could go

    def goes_on(self, seconds: float, gap_s: float | None) -> int:
        """How many of its packets went out."""
        sent = 0
        for _ in range(round(seconds / TICK_S)):
            self._ticks += 1
            if gap_s is not None and self._ticks - self._heard_at >= round(gap_s / TICK_S):
                self._heard_at = self._ticks
                self.breath.heard(self._ticks * TICK_S)
            sent += not self.breath.held(self._ticks * TICK_S)
            self.pictures += not self.breath.pictures_held(self._ticks * TICK_S)
        return sent


def test_all_goes_while_the_far_end_is_heard() -> None:
    call = Call()
    for gap_s in (0.02, 0.06, 0.12, 0.4):  # voice in short and long frames, and in its pauses
        assert call.goes_on(60, gap_s) == 3000


def test_nothing_goes_into_an_outage_and_all_at_its_end() -> None:
    call = Call()
    call.goes_on(30, 0.06)
    assert call.goes_on(LEAST_SILENCE_S, None) >= LEAST_SILENCE_S / TICK_S - 5
    assert call.goes_on(6, None) <= 5
    assert call.goes_on(1, 0.06) >= 48  # from the first that is heard
    assert call.goes_on(30, 0.06) == 1500


def test_pictures_are_held_sooner_and_in_no_pause_of_the_voice() -> None:
    call = Call()
    for gap_s in (0.02, 0.06, 0.12, 0.4):
        call.goes_on(60, gap_s)
    assert call.pictures == 12_000
    call.goes_on(60, 0.06)
    before = call.pictures
    call.goes_on(6, None)
    assert call.pictures - before <= LEAST_SILENCE_OF_PICTURES_S / TICK_S + 5
    call.goes_on(1, 0.06)
    assert call.pictures - before >= LEAST_SILENCE_OF_PICTURES_S / TICK_S + 45


def test_one_outage_is_no_habit() -> None:
    call = Call()
    call.goes_on(30, 0.06)
    for _ in range(3):
        call.goes_on(6, None)
        call.goes_on(2, 0.06)
    assert call.goes_on(6, None) <= LEAST_SILENCE_S / TICK_S + 5


def test_a_far_end_that_says_little_is_not_taken_for_an_outage() -> None:
    """A doctor without a microphone: reports every few seconds, and checks."""
    call = Call()
    assert call.goes_on(FIRST_S, 2.5) == FIRST_S / TICK_S
    assert call.goes_on(300, 2.5) == 15_000
    assert call.goes_on(8, None) == 400  # within what may be


def test_a_call_that_begins_is_let_be() -> None:
    assert Call().goes_on(FIRST_S, None) == FIRST_S / TICK_S
