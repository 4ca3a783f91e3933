"""When a kiosk asks the hub for the time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edge_agent.clock import KioskClock
from edge_agent.config import KioskSection, KioskSettings
from edge_agent.core import wire
from edge_agent.hub_side import ASK_TIME_AGAIN_S, ASK_TIME_S, HubSide


class Owner:
    def hub_reached(self) -> None: ...

    def hub_is_new(self, other_release: bool) -> None: ...

    def hub_lost(self) -> None: ...

    def hub_went_back(self, epoch: bytes, since_ms: int) -> None: ...

    def hub_told(self, message: wire.Message) -> None: ...

    def condition(self, code: str, holds: bool) -> None: ...

    def clock_told(self) -> None: ...

    def changed(self) -> None: ...


class Side(HubSide):
    def __init__(self, folder: Path) -> None:
        self.clock, self.asked = KioskClock(b""), 0
        settings = KioskSettings(kiosk=KioskSection(state_dir=str(folder)))
        super().__init__(settings, Owner(), self.clock, b"", wire.Status(online=False))
        self._reachable = True

    def _ask_time(self) -> None:
        self.asked += 1
        self._time_asked_at = self.now


@pytest.mark.parametrize("told", [False, True])
def test_it_asks_again_soon_until_it_is_told_and_then_every_hour(tmp_path: Path, told: bool) -> None:
    side = Side(tmp_path)
    if told:
        side.clock.told(wire.TimeTold(side.clock.ask().nonce, time.time_ns() // 1_000_000))
    assert (side.clock.dates_ms() is not None) == told
    for side.now in range(0, 2 * int(ASK_TIME_S) + 1, 10):
        side.watch_clock(side.now)
    assert side.asked == 2 * ASK_TIME_S // (ASK_TIME_S if told else ASK_TIME_AGAIN_S)
