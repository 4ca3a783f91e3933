"""A canary over every private name of aiortc that `edge_agent.media.hooks` uses."""

from __future__ import annotations

import inspect

import aiortc.codecs.vpx
import aiortc.rtcdtlstransport
import aiortc.rtcpeerconnection
import aiortc.rtcrtpreceiver
import aiortc.rtcrtpsender
import pytest
from aiortc.jitterbuffer import JitterBuffer

TRANSPORT = inspect.getsource(aiortc.rtcdtlstransport.RTCDtlsTransport)
SENDER = inspect.getsource(aiortc.rtcrtpsender.RTCRtpSender)
PEER = inspect.getsource(aiortc.rtcpeerconnection)
VPX = inspect.getsource(aiortc.codecs.vpx)
RECEIVER = inspect.getsource(aiortc.rtcrtpreceiver.RTCRtpReceiver)


@pytest.mark.parametrize(
    ("where", "used"),
    [
        (RECEIVER, "self.__jitter_buffer.add(packet)"),
        (RECEIVER, "self.__codecs: dict[int, RTCRtpCodecParameters]"),
        (RECEIVER, "pli_flag, encoded_frame = "),
        (RECEIVER, "if encoded_frame is not None"),
        (RECEIVER, "async def _send_rtcp_pli(self, media_ssrc: int)"),
        (PEER, "dtlsTransport = RTCDtlsTransport(iceTransport, self.__certificates)"),
        (PEER, "transceiver._headerExtensions = HEADER_EXTENSIONS[transceiver.kind][:]"),
        (PEER, "find_common_codecs(CODECS[media.kind], media.rtp.codecs)"),
        (TRANSPORT, "for srtp_profile in self._srtp_profiles:"),
        (TRANSPORT, "srtp_profiles=self._srtp_profiles"),
        (TRANSPORT, "async def _send_rtp(self, data: bytes) -> None:"),
        (TRANSPORT, "async def _send_data(self, data: bytes) -> None:"),
        (TRANSPORT, "if self._state != State.CONNECTED:"),
        (TRANSPORT, "await self._handle_rtcp_data(data)"),
        (TRANSPORT, "await self._handle_rtp_data(data, arrival_time_ms=arrival_time_ms)"),
        (TRANSPORT, "self._rtp_router.register_sender(sender, ssrc=sender._ssrc)"),
        (SENDER, "self.__transport._register_rtp_sender(self, parameters)"),
        (SENDER, "await self.transport._send_rtp(packet_bytes)"),
        (SENDER, "ssrc=self._rtx_ssrc"),
        (SENDER, "def _send_keyframe(self) -> None:"),
        (VPX, "PACKET_MAX - len(descr_bytes)"),
    ],
)
def test_the_names_used_are_there(where: str, used: str) -> None:
    assert used in where, "aiortc has changed: read edge_agent/media/hooks.py against it"


def test_signatures_are_the_ones_used() -> None:
    assert list(inspect.signature(JitterBuffer.add).parameters) == ["self", "packet"]
