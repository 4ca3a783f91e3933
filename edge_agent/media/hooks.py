"""Every place where the kit reaches into aiortc, with the reason; `edge_agent.media.ice` reaches into aioice. Nothing
else touches their privates.

Tried with aiortc 1.16.0; `tests/unit/test_media_hooks.py` fails when a name used here disappears.
"""

from __future__ import annotations

from collections.abc import Callable

from aiortc import RTCRtpReceiver
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtp import RtpPacket

from edge_agent.media import ice

PacketSink = Callable[[RtpPacket], None]


def install() -> None:
    """Once, before the first peer connection."""
    ice.install()


def tap(receiver: RTCRtpReceiver, sink: PacketSink) -> None:
    """Hand every RTP packet of `receiver` to `sink`, in order of arrival, retransmissions unwrapped.

    The stock jitter buffers hold sound back 80 ms and stall 320 ms for one lost packet, and ignore the marker bit of
    pictures; behind them every picture would be decoded in a thread. The kit's own buffers take their place.
    """
    receiver._RTCRtpReceiver__jitter_buffer = _Tap(sink)  # type: ignore[attr-defined]


async def request_key_frame(receiver: RTCRtpReceiver, ssrc: int) -> None:
    """Send a PLI. aiortc sends them by itself only for losses that its own buffer sees."""
    await receiver._send_rtcp_pli(ssrc)


class _Tap:
    """Looks like a jitter buffer that never completes a frame."""

    def __init__(self, sink: PacketSink) -> None:
        self._sink = sink

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        self._sink(packet)
        return False, None
