"""What MQTT has of a link."""

from __future__ import annotations

import pytest

from edge_agent.core.split import (
    MOST_WINDOW_BYTES,
    messages_bps,
    pacing_bps,
    segment_bytes,
    turns_pacing_bps,
    turns_window_bytes,
    window_bytes,
)


@pytest.mark.parametrize(
    ("link", "messages", "segment"),
    [
        (8_000, 1_000, 88),
        (18_000, 1_800, 95),
        (64_000, 6_400, 440),
        (100_000, 10_000, 536),
        (256_000, 25_600, 536),
        (512_000, 51_200, None),
        (0, 6_400, 536),
    ],
)
def test_shares_and_segments(link: int, messages: int, segment: int | None) -> None:
    assert messages_bps(link) == messages
    assert segment_bytes(link) == segment
    headers = 52 / ((segment or 1460) + 40)
    assert messages < pacing_bps(link) / (1 - headers) < 80_000


def test_the_window_is_bounded_unless_the_link_is_known_for_a_good_one() -> None:
    assert window_bytes(512_000) is None
    assert window_bytes(0) == window_bytes(64_000) == MOST_WINDOW_BYTES


def test_what_is_said_in_turns_does_not_fill_the_queue_of_a_thin_link() -> None:
    for link in (0, 18_000, 256_000):  # unknown, or only lossy
        assert turns_window_bytes(link) is None
        assert turns_pacing_bps(link) is None
    assert turns_window_bytes(8_000) == 1800
    assert turns_pacing_bps(8_000) == pytest.approx(0.75 * 8_000 * 524 / 576)
