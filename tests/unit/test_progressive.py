"""A sharp photo: stages of rising quality, each within its bounds, in packets no longer than the link bears."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from edge_agent.core import progressive
from edge_agent.core.pacer import longest_packet_bytes
from edge_agent.media.stills import in_stages


def picture() -> np.ndarray:
    """Of some detail: smooth fields, edges and grain."""
    y, x = np.mgrid[0:720, 0:1280]
    random = np.random.default_rng(3)
    grey = 120 + 60 * np.sin(x / 90) + 40 * ((x // 64 + y // 64) % 2) + random.normal(0, 4, (720, 1280))
    return np.clip(np.stack([grey, grey * 0.9, 255 - grey], axis=2), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("room_bps", [12_000.0, 200_000.0])
def test_stages_rise_and_keep_within_their_bounds(room_bps: float) -> None:
    stages = in_stages(picture(), room_bps)
    sizes = [cv2.imdecode(np.frombuffer(stage, np.uint8), cv2.IMREAD_COLOR).shape[:2] for stage in stages]
    assert sizes == [(90, 160), (360, 640), (720, 1280)]
    assert [len(stage) for stage in stages] == sorted(len(stage) for stage in stages)
    for number, stage in enumerate(stages):
        assert len(stage) <= progressive.most_bytes(number, room_bps)


@pytest.mark.parametrize("rate_bps", [18_000.0, 64_000.0, 1e6])
def test_messages_fit_the_link_and_hold_everything(rate_bps: float) -> None:
    stages = [bytes([number]) * (700 * number + 1) for number in range(3)]
    longest = longest_packet_bytes(rate_bps)
    got: dict[int, bytes] = {}
    for message in progressive.messages(7, stages, longest):
        assert len(message) - 11 + progressive.AROUND_BYTES <= longest
        photo, stage, of, offset, length = struct.unpack("!BBBII", message[:11])
        assert (photo, of, length) == (7, 3, len(stages[stage]))
        assert offset == len(got.get(stage, b""))
        got[stage] = got.get(stage, b"") + message[11:]
    assert [got[stage] for stage in range(3)] == stages
