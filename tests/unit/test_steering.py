"""What the doctor's browser is told: once, when something is new, and its voice not more often than can be borne."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from edge_agent.core.allocator import Allocator, Share
from edge_agent.core.steering import LATER_S, Steering
from edge_agent.core.voice import Direction


def share(kbps: float) -> Share:
    way = Direction(kbps * 1000)
    return Allocator().share(way, way, 0.0).down


def order(steering: Steering, of: Share, now: float, held: bool = False) -> Any:
    text = steering.order(of, now, held=held)
    return None if text is None else json.loads(text)


def test_pictures_as_the_link_carries_them() -> None:
    thin, middle = share(32), share(256)
    steering = Steering(thin.voice, 0.0, is_told=True)
    first = order(steering, thin, 0.0)
    assert first["video"] is None
    assert first["still"] == {"every": 5, "bytes": 3000, "height": 240, "bps": 28720}
    assert first["voice"] == {"bps": 14000, "ms": 60, "hz": 16000, "fec": False, "dtx": True, "red": False}
    assert order(steering, thin, 1.0) is None, "it was told already"
    second = order(steering, middle, 10.0)
    assert middle.pictures is not None
    assert "still" not in second
    assert second["video"] == {"bps": middle.pictures.bps, "height": 240, "rate": 15.0}
    assert second["voice"]["ms"] == 20


def test_a_worse_voice_at_once_a_better_one_later() -> None:
    thin, good = share(32), share(1000)
    steering = Steering(thin.voice, 0.0)
    assert order(steering, good, 0.0)["voice"]["bps"] == 32000
    assert order(steering, thin, 0.1)["voice"]["bps"] == 14000
    assert order(steering, good, 0.2)["voice"]["bps"] == 14000
    assert steering.order(good, LATER_S) is None
    assert order(steering, good, LATER_S + 0.1)["voice"]["bps"] == 32000


def test_while_held_nobody_hears_a_change() -> None:
    thin, good = share(32), share(1000)
    steering = Steering(thin.voice, 0.0)
    steering.order(thin, 0.0)
    assert order(steering, good, 0.1, held=True)["voice"]["bps"] == 32000
    assert order(steering, share(256), 0.2, held=True) is not None


def test_stills_once_the_call_is_heard_and_their_pace_when_it_has_moved() -> None:
    steering = Steering(share(24).voice, 0.0)
    assert "still" not in order(steering, share(24), 0.0, held=True)
    assert order(steering, share(24), 0.1)["still"] == {"every": 60, "bytes": 3000, "height": 240, "bps": 21040}
    assert steering.order(replace(share(24), rate_bps=24_900), 0.2) is None
    assert order(steering, replace(share(24), rate_bps=28_000), 0.3)["still"]["bps"] == 24_880


def test_the_ceiling_leaves_room_for_what_was_asked_for() -> None:
    for kbps in (64, 128, 256, 1000):
        told = share(kbps)
        ceiling_bps = Steering(told.voice, 0.0).ceiling_bps(told)
        assert told.voice.wire_bps + told.pictures_wire_bps < ceiling_bps <= kbps * 1000


def test_how_the_line_is_is_said_now_and_then() -> None:
    """The thinner it is, the less often: it takes a hundredth of it."""
    for kbps, every_s in ((18, 8.9), (64, 2.5), (1000, 2.0)):
        way = Direction(kbps * 1000, 0.02)
        allocation = Allocator().share(way, way, 0.0)
        steering = Steering(allocation.down.voice, 0.0)
        assert steering.line(allocation, (0.02, 0.0), 0.41, 0.04, every_s - 0.1) is None
        said = steering.line(allocation, (0.02, 0.0), 0.41, 0.04, every_s)
        assert said is not None
        assert len(said) + 37 + 28 + 28 <= 200
        assert json.loads(said)["line"][:6] == [kbps, kbps, 2, 0, 410, 40]
        assert steering.line(allocation, (0.02, 0.0), 0.41, 0.04, every_s + 0.1) is None


def test_the_browsers_own_estimator_may_try_no_more_than_a_thin_link_carries() -> None:
    steering = Steering(share(64).voice, 0.0)
    first = order(steering, share(64), 0.1)
    assert "most" not in first, "a link's first train tells little"
    assert first["video"] is None, "it would be padded for"
    thin = order(steering, share(64), 1.2)
    assert thin["most"] == 64
    assert thin["video"] is not None
    assert order(steering, share(72), 10.0)["most"] == 64, "a browser describes its streams anew for it"
    assert order(steering, share(96), 20.0)["most"] == 96
    assert order(steering, share(1000), 30.0)["most"] == 1000


def test_on_a_free_link_the_browsers_estimator_is_left_alone() -> None:
    steering = Steering(share(64).voice, 0.0)
    order(steering, share(64), 0.1)
    free = order(steering, share(1000), 0.4)
    assert "most" not in free
    assert free["video"] is not None
    assert "most" not in order(steering, share(96), 20.0)
