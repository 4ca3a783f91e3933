"""Every place where the kit reaches into aiortc, with the reason; `edge_agent.media.egress` reaches into its transport,
`edge_agent.media.ice` into aioice. Nothing else touches their privates.

Tried with aiortc 1.16.0; `tests/unit/test_media_hooks.py` fails when a name used here disappears.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from fractions import Fraction
from typing import Any

import aiortc.codecs
import aiortc.codecs.vpx
import aiortc.rtcrtpsender
from aiortc import RTCPeerConnection, RTCRtpReceiver, RTCRtpSender
from aiortc.codecs.base import Encoder
from aiortc.codecs.vpx import Vp8Encoder, VpxPayloadDescriptor
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import VIDEO_TIME_BASE, convert_timebase
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtpPacket
from av.frame import Frame
from av.packet import Packet

from edge_agent.media import egress, ice

OPUS = 96  # what aiortc offers it as
RED = 110  # free in aiortc's offers, and among the numbers that it mirrors (96 to 127)
CNAME = "k"  # as in the session descriptions, 35 bytes shorter than aiortc's in every report

HISTORY_PACKETS = 1024  # a power of two; aiortc's 128 are 1.5 s of a good link

PacketSink = Callable[[RtpPacket], None]

_stock_get_encoder = aiortc.codecs.get_encoder


def install() -> None:
    """Once, before the first peer connection."""
    ice.install()
    egress.install()
    aiortc.rtcrtpsender.get_encoder = _get_encoder
    aiortc.rtcrtpsender.RTP_HISTORY_SIZE = HISTORY_PACKETS  # what can be sent again
    if not any(codec.mimeType == "audio/red" for codec in aiortc.codecs.CODECS["audio"]):
        aiortc.codecs.CODECS["audio"].append(
            RTCRtpCodecParameters(
                mimeType="audio/red", clockRate=48_000, channels=2, payloadType=RED,
                parameters={f"{OPUS}/{OPUS}": None},
            )
        )  # fmt: skip


def shorten_reports(connection: RTCPeerConnection) -> None:
    """Before the first track is added."""
    connection._RTCPeerConnection__cname = CNAME  # type: ignore[attr-defined]


def on_key_frame_request(sender: RTCRtpSender, wanted: Callable[[], None]) -> None:
    """PLI, FIR, and the egress's own; aiortc tells only encoders of its own of them."""
    sender._send_keyframe = wanted  # type: ignore[method-assign]


def tap(receiver: RTCRtpReceiver, sink: PacketSink) -> None:
    """Hand every RTP packet of `receiver` to `sink`, in order of arrival, retransmissions unwrapped.

    The stock jitter buffers hold sound back 80 ms and stall 320 ms for one lost packet, and ignore the marker bit of
    pictures; behind them every picture would be decoded in a thread. Stock NACKs have no timer. The kit's own take
    their place.
    """
    receiver._RTCRtpReceiver__jitter_buffer = _Tap(sink)  # type: ignore[attr-defined]
    receiver._RTCRtpReceiver__nack_generator = None  # type: ignore[attr-defined]


def red_payload_types(receiver: RTCRtpReceiver) -> set[int]:
    """Under which numbers redundant audio (RFC 2198) was negotiated; aiortc knows the codec only as a name."""
    codecs = receiver._RTCRtpReceiver__codecs  # type: ignore[attr-defined]
    return {number for number, codec in codecs.items() if codec.mimeType.lower() == "audio/red"}


async def ask_again(receiver: RTCRtpReceiver, ssrc: int, numbers: Collection[int]) -> None:
    """Send a NACK for packets by their sequence numbers, counted on beyond 16 bits."""
    await receiver._send_rtcp_nack(ssrc, sorted({number % 2**16 for number in numbers}))


async def request_key_frame(receiver: RTCRtpReceiver, ssrc: int) -> None:
    """Send a PLI."""
    await receiver._send_rtcp_pli(ssrc)


def _get_encoder(codec: RTCRtpCodecParameters) -> Encoder:
    match codec.mimeType.lower():
        case "audio/red":
            return _RedPacker()
        case "video/vp8":
            return _PicturePacker()
    return _stock_get_encoder(codec)


class _RedPacker(Encoder):
    """aiortc sends what a track gives as packets, under the first codec's number; it only has to know the codec."""

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        raise TypeError("RED is sent as packets")

    def pack(self, packet: Packet[Any]) -> tuple[list[bytes], int]:
        return [bytes(packet)], convert_timebase(packet.pts or 0, packet.time_base, Fraction(1, 48_000))


class _PicturePacker(Vp8Encoder):
    """Coded pictures into packets (RFC 7741), with their layers: a far end that has been told of layers from the start
    goes on when a picture of the upper one is missing, and one that was not starts again when they begin. What a track
    gives as frames is coded as aiortc does."""

    def __init__(self) -> None:
        super().__init__()
        self._picture_id = random.getrandbits(15)
        self._base_id = random.getrandbits(8)

    def pack(self, packet: Packet[Any]) -> tuple[list[bytes], int]:
        """`packet.opaque` is true where no other picture is built on this one."""
        upper = bool(packet.opaque)
        self._picture_id = (self._picture_id + 1) % 2**15
        self._base_id = (self._base_id + (not upper)) % 2**8
        descriptor = VpxPayloadDescriptor(
            1, 0, picture_id=self._picture_id, tl0picidx=self._base_id, tid=(int(upper), int(upper))
        )
        data = bytes(packet)
        room = aiortc.codecs.vpx.PACKET_MAX - len(bytes(descriptor))
        parts = -(-len(data) // room)
        each = -(-len(data) // parts)  # of one length: the last one alone would be as easily lost for less
        payloads = []
        for start in range(0, len(data), each):
            payloads.append(bytes(descriptor) + data[start : start + each])
            descriptor.partition_start = 0
        return payloads, convert_timebase(packet.pts or 0, packet.time_base, VIDEO_TIME_BASE)


class _Tap:
    """Looks like a jitter buffer that never completes a frame."""

    def __init__(self, sink: PacketSink) -> None:
        self._sink = sink

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        self._sink(packet)
        return False, None
