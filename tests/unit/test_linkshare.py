"""What a leg makes of what it hears of its link."""

from __future__ import annotations

from edge_agent.core.allocator import Motion
from edge_agent.core.voice import LinkMemory
from edge_agent.media.linkshare import LinkShare

CLOCK_HZ, FRAME_S = 48_000, 0.06
TOLD_BPS = 256_000.0


def a_call(waits_s: float, seconds: float = 12.0) -> tuple[float, float]:
    """The way down's rate before and after, where voice waits so much longer behind each of the far end's pictures."""
    share = LinkShare(LinkMemory(TOLD_BPS, TOLD_BPS), 0.0, held=False)
    before = share.share(0.0, held=False).down
    assert before.motion is Motion.MOVING
    for number in range(int(seconds / FRAME_S)):
        now = number * FRAME_S
        late_s = 0.0
        if number % 2:
            share.picture_arrived(1_200, now + waits_s - 0.001)
            late_s = waits_s
        share.voice_arrived(int(number * FRAME_S * CLOCK_HZ), CLOCK_HZ, 120, now + late_s)
        after = share.share(now + late_s, held=False).down
    return before.rate_bps, after.rate_bps


def test_the_far_end_is_told_less_where_its_voice_waits_behind_its_pictures() -> None:
    before, after = a_call(waits_s=0.25)
    assert after < 0.7 * before


def test_the_far_end_keeps_what_harms_nothing() -> None:
    before, after = a_call(waits_s=0.02)
    assert after >= before
