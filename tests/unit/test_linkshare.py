"""Who is asked about the way down, and when."""

from __future__ import annotations

from edge_agent.core.allocator import Motion
from edge_agent.core.voice import LinkMemory
from edge_agent.media.linkshare import UNKNOWN_DOWN_BPS, LinkShare

CLOCK_RATE = 48_000


def test_until_something_is_known_the_far_end_sends_what_any_link_carries() -> None:
    share = LinkShare(LinkMemory(), 0.0, held=True)
    assert share.allocation.down.rate_bps == UNKNOWN_DOWN_BPS
    assert share.allocation.down.motion is Motion.NONE
    assert share.allocation.down.voice.wire_bps < UNKNOWN_DOWN_BPS


def test_what_is_told_holds_from_the_start() -> None:
    share = LinkShare(LinkMemory(1e6, 64e3), 0.0, held=True)
    assert share.allocation.down.rate_bps == 64e3
    assert share.allocation.down.motion is Motion.MOVING


def test_a_queue_that_the_far_voice_stands_in_lowers_what_it_may_send() -> None:
    """24 kbit/s where 64 were told, in packets of 60 ms."""
    share = LinkShare(LinkMemory(64e3, 64e3), 0.0, held=False)
    sent_at = free_at = 0.0
    least_bps = share.allocation.down.rate_bps
    while sent_at < 12.0:
        sent_at += 0.060
        size = int(share.allocation.down.rate_bps * 0.060 / 8)
        free_at = max(free_at, sent_at) + 8 * size / 24e3
        share.voice_arrived(round((sent_at) * CLOCK_RATE), CLOCK_RATE, size, free_at + 0.3)
        least_bps = min(least_bps, share.share(free_at + 0.3, False).down.rate_bps)
    assert least_bps < 24e3
    assert free_at - sent_at < 0.2, "the queue is gone"
