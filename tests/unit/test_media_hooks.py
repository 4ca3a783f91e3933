"""A canary over every private name of aiortc that `edge_agent.media.hooks` uses."""

from __future__ import annotations

import inspect

import aiortc.rtcrtpreceiver
import pytest
from aiortc.jitterbuffer import JitterBuffer

RECEIVER = inspect.getsource(aiortc.rtcrtpreceiver.RTCRtpReceiver)


@pytest.mark.parametrize(
    ("where", "used"),
    [
        (RECEIVER, "self.__jitter_buffer.add(packet)"),
        (RECEIVER, "pli_flag, encoded_frame = "),
        (RECEIVER, "if encoded_frame is not None"),
        (RECEIVER, "async def _send_rtcp_pli(self, media_ssrc: int)"),
    ],
)
def test_the_names_used_are_there(where: str, used: str) -> None:
    assert used in where, "aiortc has changed: read edge_agent/media/hooks.py against it"


def test_signatures_are_the_ones_used() -> None:
    assert list(inspect.signature(JitterBuffer.add).parameters) == ["self", "packet"]
