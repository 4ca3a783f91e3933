"""A canary over every private name of aiortc that `edge_agent.media.hooks` uses."""

from __future__ import annotations

import inspect
from fractions import Fraction

import aiortc.codecs
import aiortc.codecs.vpx
import aiortc.rtcdtlstransport
import aiortc.rtcicetransport
import aiortc.rtcpeerconnection
import aiortc.rtcrtpreceiver
import aiortc.rtcrtpsender
import pytest
from aiortc.codecs.vpx import VpxPayloadDescriptor
from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtp import RTCP_PSFB_PLI, RtcpPsfbPacket
from av.packet import Packet

from edge_agent.media import hooks
from tests.stock_aiortc import put_back_afterwards

TRANSPORT = inspect.getsource(aiortc.rtcdtlstransport.RTCDtlsTransport)
SENDER = inspect.getsource(aiortc.rtcrtpsender.RTCRtpSender)
ROUTER = inspect.getsource(aiortc.rtcdtlstransport.RtpRouter)
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
        (RECEIVER, "async def _send_rtcp_nack(self, media_ssrc: int, lost: list[int])"),
        (RECEIVER, "if self.__nack_generator is not None and self.__nack_generator.add(packet):"),
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
        (ROUTER, "self.ssrc_table: dict[int, RtpReceiver]"),
        (ROUTER, "self.receivers: set[RtpReceiver]"),
        (RECEIVER, "self.__active_ssrc: dict[int, "),
        (RECEIVER, "self.__remote_streams: dict[int, "),
        (RECEIVER, "self.__lsr: dict[int, "),
        (RECEIVER, "self.__lsr_time: dict[int, "),
        (RECEIVER, "= StreamStatistics(codec.clockRate)"),
        (RECEIVER, "jitter=stream.jitter"),
        (SENDER, "self.__transport._register_rtp_sender(self, parameters)"),
        (SENDER, "await self.transport._send_rtp(packet_bytes)"),
        (SENDER, "ssrc=self._rtx_ssrc"),
        (SENDER, "def _send_keyframe(self) -> None:"),
        (VPX, "PACKET_MAX = "),
        (SENDER, "self._send_keyframe()"),
        (SENDER, "self.__rtp_history[packet.sequence_number % RTP_HISTORY_SIZE]"),
        (SENDER, "self.__rtp_history.get(sequence_number % RTP_HISTORY_SIZE)"),
        (PEER, "self.__cname = f"),
        (PEER, "CODECS[transceiver.kind][:], transceiver._preferred_codecs"),
        (SENDER, "self.__encoder = get_encoder(codec)"),
        (SENDER, "payloads, timestamp = self.__encoder.pack(data)"),
        (SENDER, "self._run_rtp(parameters.codecs[0])"),
        (SENDER, "payload_type=codec.payloadType"),
    ],
)
def test_the_names_used_are_there(where: str, used: str) -> None:
    assert used in where, "aiortc has changed: read edge_agent/media/hooks.py against it"


def test_signatures_are_the_ones_used() -> None:
    assert list(inspect.signature(JitterBuffer.add).parameters) == ["self", "packet"]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    put_back_afterwards(monkeypatch)
    hooks.install()
    hooks.install()


@pytest.mark.usefixtures("installed")
async def test_repeated_frames_are_offered_once_under_numbers_of_their_own() -> None:
    codecs = aiortc.codecs.CODECS["audio"] + aiortc.codecs.CODECS["video"]
    numbers = [codec.payloadType for codec in codecs]
    assert numbers.count(hooks.RED) == numbers.count(hooks.OPUS) == 1
    assert hooks.RED in aiortc.rtp.DYNAMIC_PAYLOAD_TYPES

    connection = aiortc.RTCPeerConnection()
    hooks.shorten_reports(connection)
    connection.addTransceiver("audio")
    offer = await connection.createOffer()
    await connection.close()
    assert f"a=rtpmap:{hooks.RED} red/48000/2" in offer.sdp
    assert f"a=fmtp:{hooks.RED} {hooks.OPUS}/{hooks.OPUS}" in offer.sdp
    assert f"cname:{hooks.CNAME}\r\n" in offer.sdp


@pytest.mark.usefixtures("installed")
def test_packets_are_sent_as_they_are() -> None:
    red = next(codec for codec in aiortc.codecs.CODECS["audio"] if codec.mimeType == "audio/red")
    packet = Packet(b"as it is")
    packet.pts, packet.time_base = 5760, Fraction(1, 48_000)
    for codec in (red, aiortc.codecs.CODECS["audio"][0]):
        assert aiortc.rtcrtpsender.get_encoder(codec).pack(packet) == ([b"as it is"], 5760)


@pytest.mark.usefixtures("installed")
def test_pictures_are_cut_into_packets_that_tell_their_layer() -> None:
    codec = aiortc.codecs.CODECS["video"][0]
    packer = aiortc.rtcrtpsender.get_encoder(codec)
    told = []
    for number, (upper, size) in enumerate(((False, 3000), (True, 100), (False, 1), (False, 200), (True, 100))):
        data = bytes([number]) * size
        packet = Packet(data)
        packet.pts, packet.time_base, packet.opaque = 6000 * number, Fraction(1, 90_000), upper
        payloads, timestamp = packer.pack(packet)
        parsed = [VpxPayloadDescriptor.parse(payload) for payload in payloads]
        assert timestamp == 6000 * number
        assert b"".join(rest for _, rest in parsed) == data
        assert [each.partition_start for each, _ in parsed] == [1] + [0] * (len(parsed) - 1)
        assert len({bytes(each)[1:] for each, _ in parsed}) == 1
        assert max(map(len, payloads)) <= aiortc.codecs.vpx.PACKET_MAX
        assert all(len(payload) > 0.9 * len(payloads[0]) for payload in payloads)
        told.append(parsed[0][0])
    assert [each.tid for each in told] == [(0, 0), (1, 1), (0, 0), (0, 0), (1, 1)]
    first = told[0].tl0picidx
    assert [(each.tl0picidx - first) % 256 for each in told] == [0, 0, 1, 2, 2]
    assert [(each.picture_id - told[0].picture_id) % 2**15 for each in told] == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("installed")
async def test_who_codes_the_pictures_is_told_of_a_request_for_a_key() -> None:
    connection = aiortc.RTCPeerConnection()
    sender = connection.addTransceiver("video").sender
    asked: list[str] = []
    hooks.on_key_frame_request(sender, lambda: asked.append("key"))
    await sender._handle_rtcp_packet(RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=1, media_ssrc=2))
    await connection.close()
    assert asked == ["key"]
