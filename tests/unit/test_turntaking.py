"""When the path back to a live call is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from edge_agent import ipc
from edge_agent.core import wire
from edge_agent.core.turns import FIRST_PROBE_S
from edge_agent.sounds import Clip
from edge_agent.storage import Change
from edge_agent.turntaking import FAR_TO_REST_S, TurnTaking

CONSULT, CALL = bytes(16), bytes(8)


class Owner:
    """A kiosk with nothing to say, at its clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told_media: list[ipc.ToMedia] = []

    def mono(self) -> float:
        return self.now

    def send_media(self, frame: ipc.ToMedia) -> bool:
        self.told_media.append(frame)
        return True

    def play(self, clips: Sequence[Clip], done: Callable[[bool], None] | None = None) -> None:
        pass

    def is_silent(self) -> bool:
        return True

    def send_durable(self, consult: bytes, body: wire.Body, changes: list[Change]) -> None:
        pass

    def publish(self, consult: bytes, body: wire.Body) -> None:
        pass

    def unsent(self, consult: bytes) -> bool:
        return False

    def nothing_live_fits(self, call: bytes) -> None:
        pass

    def live_fits(self, call: bytes) -> None:
        pass

    def turns_changed(self) -> None:
        pass


def stats(received_bytes: int) -> ipc.CallStats:
    return ipc.CallStats(
        CALL, 1, rtt_ms=300.0, packets_received=0, packets_lost=0, pictures_received=0, pictures_sent=0,
        received_bytes=received_bytes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("bps", "asked_after_s"),
    [(2_000, FIRST_PROBE_S), (8_000, FAR_TO_REST_S)],  # it rests; it does not know yet, and fills the link
)
def test_the_path_is_asked_once_the_far_end_rests(bps: int, asked_after_s: float) -> None:
    owner = Owner()
    turns = TurnTaking(owner)
    turns.begin(CONSULT, CALL)
    for second in range(60):
        owner.now = 100.0 + second
        turns.stats(stats(second * bps // 8), judged=False)
        turns.tick()
        if owner.told_media:
            break
    assert owner.told_media == [ipc.ProbeLive(CALL, False)]
    assert asked_after_s <= owner.now - 100.0 <= asked_after_s + 3
