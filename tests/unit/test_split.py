"""What MQTT has of a link."""

from __future__ import annotations

import pytest

from edge_agent.core.split import messages_bps, pacing_bps, segment_bytes


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
