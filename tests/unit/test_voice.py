"""The voice's plan: it fits the link to the last header, repairs what is lost, and changes only for the better."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.opuspacket import is_pause
from edge_agent.core.red import parse
from edge_agent.core.voice import (
    BETTER_BY,
    HEADER_BYTES,
    MOST_RED_MS,
    Bandwidth,
    Coding,
    Direction,
    LossMeter,
    VoicePlan,
    browser_plan,
    kiosk_plan,
    unrepaired,
    worth,
)
from edge_agent.media.voice import VoiceCoder
from tests.linklab.path import LinkPath, Loss, PathSpec, Rate
from tests.listening import speech
from tests.voicerows import ROWS

WAYS = st.builds(Direction, st.floats(12_000, 2e6), st.floats(0, 0.5), st.floats(1, 6), st.booleans())


@given(WAYS, st.floats(0.3, 1.0))
def test_what_is_planned_fits(way: Direction, share: float) -> None:
    room_bps = share * way.rate_bps
    plans = kiosk_plan(way, room_bps), browser_plan(way, room_bps)
    for plan in plans:
        assert plan.wire_bps <= max(room_bps, VoicePlan(Coding(6_000, 120)).wire_bps)
        assert plan.red_depth * plan.red_distance * plan.coding.frame_ms <= MOST_RED_MS
    assert (plans[1].red_depth, plans[1].red_distance) in ((0, 1), (1, 1))


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_the_poor_links_get_what_they_can_carry(row) -> None:  # type: ignore[no-untyped-def]
    plan = row.allocation()

    assert plan.up.voice.wire_bps <= row.up_kbps * 1000 * 0.9
    if row.loss >= 0.05:
        assert unrepaired(plan.up.voice, Direction(row.up_kbps * 1000, row.loss, row.mean_run)) <= row.loss / 4
        assert plan.down.voice.red_depth == 1
    if row.up_kbps < 20:
        assert plan.up.voice.red_depth == 0  # RED that does not fit harms


@pytest.mark.parametrize(
    "plan",
    [
        VoicePlan(Coding(8_000, 60)),
        VoicePlan(Coding(10_000, 120), 1),
        VoicePlan(Coding(20_000, 20), 3, 2),
        VoicePlan(Coding(24_000, 40, fec=True, expected_loss_percent=10), 1),
    ],
)
def test_the_wire_is_counted_as_it_is(plan: VoicePlan) -> None:
    sound = speech()
    packets = VoiceCoder().code(sound, plan, 111)
    sent_bps = sum(HEADER_BYTES + len(packet.payload) for packet in packets) * 8 / (len(sound) / 48_000)

    assert sent_bps == pytest.approx(plan.wire_bps, rel=0.06)


@pytest.mark.parametrize(("loss", "run", "depth", "distance"), [(0.1, 1, 1, 1), (0.2, 2, 2, 3), (0.05, 3, 1, 4)])
def test_what_stays_unrepaired_is_what_a_lossy_path_leaves(loss: float, run: float, depth: int, distance: int) -> None:
    path = LinkPath(PathSpec(Rate.constant(1e9), loss=Loss(loss, run), seed=5))
    arrived = []
    for number in range(60_000):
        path.offer(bytes(20), float(number))
        arrived.append(bool(path.take(number + 0.5)))
    copies = [0, *(distance * step for step in range(1, depth + 1))]
    last = len(arrived) - copies[-1]
    left = sum(not any(arrived[number + after] for after in copies) for number in range(last)) / last

    plan = VoicePlan(Coding(), depth, distance)
    assert unrepaired(plan, Direction(1e9, loss, run)) == pytest.approx(left, rel=0.2, abs=0.0005)


@given(WAYS, st.floats(0, 0.5))
def test_a_plan_stays_unless_it_no_longer_fits_or_another_is_clearly_better(way: Direction, loss: float) -> None:
    before = kiosk_plan(way, way.rate_bps)
    changed = Direction(way.rate_bps, loss, way.mean_run, way.measured)
    after = kiosk_plan(changed, way.rate_bps, before)

    if (after.red_depth, after.red_distance, after.coding.bps, after.coding.frame_ms, after.coding.fec) != (
        before.red_depth, before.red_distance, before.coding.bps, before.coding.frame_ms, before.coding.fec,
    ):  # fmt: skip
        assert worth(after, changed) >= worth(before, changed) + BETTER_BY


def test_the_share_of_losses_rises_fast_and_falls_slowly() -> None:
    meter = LossMeter()
    meter.add_counts(100, 0)
    for round in range(1, 5):
        meter.add_counts(100 + 80 * round, 20 * round)
    assert 0.15 < meter.share <= 0.2
    risen = meter.share
    meter.add_counts(520, 80)
    meter.add_counts(620, 80)
    assert 0.7 * risen < meter.share < risen
    meter.add_counts(620, 80)  # nothing came: nothing is known
    assert meter.share > 0.7 * risen


@pytest.mark.parametrize(
    ("bps", "width"), [(6_000, Bandwidth.NARROW), (12_000, Bandwidth.WIDE), (32_000, Bandwidth.FULL)]
)
def test_the_bandwidth_follows_the_rate(bps: int, width: Bandwidth) -> None:
    assert Coding(bps).bandwidth is width


def test_pauses_are_left_out_once_their_words_are_repeated() -> None:
    coder = VoiceCoder()
    plan = VoicePlan(Coding(dtx=True), 2, 2)
    sound = np.concatenate([speech()[: 48_000 * 2], np.zeros(48_000, np.int16), speech()[:48_000]])
    packets = coder.code(sound, plan, 111)
    positions = [packet.position for packet in packets]

    assert any(later - before > 960 * 5 for before, later in pairwise(positions))
    frames = {packet.position: parse(packet.payload) for packet in packets}
    spoken = [at for at, block in frames.items() if not is_pause(block.payload)]
    repeated = {at - older.offset for at, block in frames.items() for older in block.older}
    assert [at for at in spoken if at not in repeated and at < positions[-1] - 4 * 960] == []
