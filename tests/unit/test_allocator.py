"""Who gets what of a link: the rows of the poor links, everything counted, down at once, up slowly, and no flapping."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.core.allocator import (
    FORMS,
    LEAST_PICTURES_BPS,
    RELAPSE_S,
    SETTLING_S,
    STEP_S,
    Allocation,
    Allocator,
    Motion,
    Share,
)
from edge_agent.core.split import messages_bps
from edge_agent.core.voice import CONTROL_BPS, Coding, Direction, VoicePlan, unrepaired

EVERY_S = 0.25
LEAST_VOICE_BPS = VoicePlan(Coding(6_000, 120)).wire_bps


def at_once(kbps: float, loss: float = 0.0, measured: bool = True) -> Allocation:
    way = Direction(kbps * 1000, loss, 1.5, measured)
    return Allocator().share(way, way, 0.0)


def form_of(share: Share) -> tuple[int, int, float] | None:
    return None if share.pictures is None else (share.pictures.width, share.pictures.height, share.pictures.rate)


@pytest.mark.parametrize(
    ("kbps", "loss", "size", "least_rate"),
    [
        (18, 0.02, None, 0),
        (20, 0.02, None, 0),
        (24, 0.10, (320, 240), 1 / 60),
        (32, 0.01, (320, 240), 1 / 5),
        (64, 0.02, (160, 120), 5),
        (128, 0.05, (240, 180), 10),
        (256, 0.20, (240, 180), 8),
        (256, 0.01, (320, 240), 14),
        (384, 0.10, (320, 240), 14),
        (1000, 0.0, (640, 480), 15),
    ],
)
def test_each_poor_link_has_its_pictures(
    kbps: float, loss: float, size: tuple[int, int] | None, least_rate: float
) -> None:
    for share in (at_once(kbps, loss).up, at_once(kbps, loss).down):
        if size is None:
            assert share.pictures is None
        else:
            assert share.pictures is not None
            assert (share.pictures.width, share.pictures.height) == size
            assert share.pictures.rate >= least_rate


@given(st.floats(8_000, 5e6), st.floats(0, 0.4), st.booleans(), st.sampled_from([0, 4, 24]))
def test_everything_fits_to_the_last_header(bps: float, loss: float, measured: bool, extra_bytes: int) -> None:
    way = Direction(bps, loss, 1.5, measured)
    allocation = Allocator(extra_bytes).share(way, way, 0.0)
    assert allocation.messages_bps + allocation.call_bps == pytest.approx(bps)
    for share in (allocation.up, allocation.down):
        pictures = share.pictures.bps if share.pictures else 0
        used = share.voice.wire_bps + pictures + CONTROL_BPS
        assert used <= max(bps, LEAST_VOICE_BPS + CONTROL_BPS)
        if share.motion is Motion.MOVING:
            assert used <= bps - messages_bps(bps)


def run(rates: list[float], allocator: Allocator | None = None, loss: float = 0.0) -> list[tuple[float, Share]]:
    """Of the way up, heard from second 0 on, asked each `EVERY_S`."""
    allocator = allocator or Allocator()
    down = Direction(1e6)
    return [
        (tick * EVERY_S, allocator.share(Direction(rate, loss, 1.5), down, tick * EVERY_S).up)
        for tick, rate in enumerate(rates)
    ]


def steady(bps: float, seconds: float) -> list[float]:
    return [bps] * round(seconds / EVERY_S)


@settings(deadline=None, max_examples=40)
@given(
    st.floats(15_000, 1.5e6),
    st.integers(0, 2**32),
    st.floats(0.5, 120.0),
    st.sampled_from(["noise", "wave", "square"]),
)
def test_a_rate_that_trembles_changes_the_form_at_most_once_a_minute(
    base_bps: float, seed: int, period_s: float, kind: str
) -> None:
    random_ = random.Random(seed)

    def rate(now: float) -> float:
        phase = now / period_s
        tremble = {
            "noise": random_.uniform(-1, 1),
            "wave": math.sin(2 * math.pi * phase),
            "square": 1 if phase % 1 < 0.5 else -1,
        }[kind]
        return base_bps * (1 + 0.1 * tremble)

    shares = run([rate(tick * EVERY_S) for tick in range(round(300 / EVERY_S))])
    changes = [at for (_, a), (at, b) in pairwise(shares) if form_of(a) != form_of(b) and at > SETTLING_S + RELAPSE_S]
    assert all(later - earlier >= 60 for earlier, later in pairwise(changes)), changes


def test_down_at_once() -> None:
    shares = run(steady(1e6, 10) + steady(30_000, 1) + steady(15_000, 1))
    at_30, at_15 = shares[round(10 / EVERY_S)][1], shares[round(11 / EVERY_S)][1]
    assert at_30.motion is Motion.STILLS
    assert at_30.voice.wire_bps < 30_000
    assert at_15.pictures is None
    assert at_15.voice.wire_bps < 15_000


def test_up_step_by_step() -> None:
    shares = run(steady(30_000, SETTLING_S + 4) + steady(1e6, 40))
    forms = [form_of(share) for _, share in shares]
    changes = [at for (_, a), (at, b) in pairwise(shares) if form_of(a) != form_of(b)]
    assert forms[0] == (320, 240, 0.2)
    assert forms[-1] == (640, 480, 15.0)
    assert len(changes) == len(FORMS) - 2
    assert changes[0] >= SETTLING_S + 4 + 2
    assert all(later - earlier >= STEP_S for earlier, later in pairwise(changes))
    assert changes[-1] < SETTLING_S + 4 + 20


def test_a_call_that_begins_takes_the_form_that_its_rate_says() -> None:
    allocator = Allocator()
    unknown, way = Direction(28_000, measured=False), Direction(1e6)
    assert allocator.share(unknown, unknown, 0.0, held=True).up.motion is Motion.NONE
    assert form_of(allocator.share(way, way, 0.5, held=True).up) == (640, 480, 15.0)
    late = Allocator()
    late.share(unknown, unknown, 0.0)
    assert form_of(late.share(way, way, 1.0).up) == (640, 480, 15.0)


def test_what_had_to_be_taken_back_is_tried_again_later_each_time() -> None:
    """A link that carries a step only until it is taken."""
    allocator = Allocator()
    down = Direction(1e6)
    rate, taken = 64_000.0, []
    before = None
    for tick in range(round(400 / EVERY_S)):
        now = tick * EVERY_S
        share = allocator.share(Direction(rate), down, now).up
        is_large = share.pictures is not None and share.pictures.width > 160
        if is_large and before is not None and form_of(share) != form_of(before):
            taken.append(now)
        rate = 64_000.0 if is_large else 140_000.0
        before = share
    pauses = [later - earlier for earlier, later in pairwise(taken[1:])]
    assert len(pauses) >= 2
    assert all(later >= earlier for earlier, later in pairwise(pauses))
    assert pauses[-1] > 4 * STEP_S


def test_losses_of_an_unmeasured_link_are_not_answered_with_more() -> None:
    calm, lossy = at_once(1000, measured=False), at_once(1000, 0.2, measured=False)
    measured = at_once(1000, 0.2)
    way = Direction(1e6, 0.2, 1.5)
    assert unrepaired(lossy.up.voice, way) < unrepaired(calm.up.voice, way)
    assert lossy.up.voice.wire_bps <= 90_000 < measured.up.voice.wire_bps


def test_pictures_get_worse_before_they_get_fewer() -> None:
    shares = run([64_000 - 200 * tick for tick in range(100)])
    moving = [share.pictures for _, share in shares if share.motion is Motion.MOVING]
    assert moving[-1] is not None
    assert moving[0] is not None
    assert LEAST_PICTURES_BPS <= moving[-1].bps < moving[0].bps
    assert {picture.width for picture in moving if picture} == {160}


def test_the_reason_is_told() -> None:
    assert at_once(5000).up.reason == ""
    assert at_once(64).up.reason == "thin"
    assert at_once(64, 0.2).up.reason == "lossy"
    assert at_once(28, measured=False).up.reason == "guessed"


def test_a_relay_and_ipv6_cost() -> None:
    way = Direction(64_000)
    plain, relayed = (Allocator(extra).share(way, way, 0.0).up for extra in (0, 24))
    assert plain.pictures is not None
    assert relayed.pictures is not None
    assert relayed.pictures.bps < plain.pictures.bps
    assert replace(plain, voice=relayed.voice).voice.wire_bps <= plain.voice.wire_bps


def test_a_sharp_still_goes_before_moving_pictures() -> None:
    for kbps, beside in ((64, None), (1000, 0.5)):
        allocator, way = Allocator(), Direction(kbps * 1000)
        before = allocator.share(way, way, 0.0).up.pictures
        meanwhile = allocator.share(way, way, 0.1, still_waits=True)
        after = allocator.share(way, way, 0.2).up.pictures
        assert before is not None
        assert after == before, "its form is not lost by it"
        if beside is None:
            assert meanwhile.up.pictures is None
        else:
            assert meanwhile.up.pictures is not None
            assert meanwhile.up.pictures.bps == pytest.approx(beside * before.bps, rel=0.01)
        assert meanwhile.down.pictures is not None


def test_what_was_guessed_first_is_forgotten_when_the_call_has_settled() -> None:
    guessed, measured = Direction(28_000, measured=False), Direction(2e6)
    allocator = Allocator()
    allocator.share(guessed, guessed, 0.0)
    shares = [allocator.share(measured, measured, tick * EVERY_S).up for tick in range(1, round(20 / EVERY_S))]
    assert {share.voice.coding.frame_ms for share in shares} == {20}
    assert {form_of(share) for share in shares} == {(640, 480, 15.0)}
