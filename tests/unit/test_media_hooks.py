"""A canary over every private name of aiortc and aioice that `edge_agent.media.hooks` uses, and what it puts there."""

from __future__ import annotations

import asyncio
import inspect
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import aioice.ice
import aioice.stun
import aiortc.codecs
import aiortc.codecs.vpx
import aiortc.rtcpeerconnection
import aiortc.rtcrtpreceiver
import aiortc.rtcrtpsender
import pytest
from aiortc.jitterbuffer import JitterBuffer
from av.packet import Packet

from edge_agent.core.voice import PicturePlan
from edge_agent.media import hooks

CALL = inspect.getsource(aiortc.rtcpeerconnection)
SENDER = inspect.getsource(aiortc.rtcrtpsender)
VPX = inspect.getsource(aiortc.codecs.vpx)
RECEIVER = inspect.getsource(aiortc.rtcrtpreceiver.RTCRtpReceiver)
CONNECTION = inspect.getsource(aioice.ice.Connection)


@pytest.mark.parametrize(
    ("where", "used"),
    [
        (RECEIVER, "self.__jitter_buffer.add(packet)"),
        (RECEIVER, "self.__codecs: dict[int, RTCRtpCodecParameters]"),
        (RECEIVER, "pli_flag, encoded_frame = "),
        (RECEIVER, "if encoded_frame is not None"),
        (RECEIVER, "async def _send_rtcp_pli(self, media_ssrc: int)"),
        (CALL, "self.__cname = f"),
        (CALL, "CODECS[transceiver.kind][:], transceiver._preferred_codecs"),
        (CALL, "find_common_codecs(CODECS[media.kind], media.rtp.codecs)"),
        (SENDER, "self.__encoder = get_encoder(codec)"),
        (SENDER, "payloads, timestamp = self.__encoder.pack(data)"),
        (SENDER, "self._run_rtp(parameters.codecs[0])"),
        (SENDER, "payload_type=codec.payloadType"),
        (VPX, "self.__target_bitrate = DEFAULT_BITRATE"),
        (VPX, "max(MIN_BITRATE, min(bitrate, MAX_BITRATE))"),
        (CONNECTION, "asyncio.create_task(self.query_consent())"),
        (CONNECTION, "self._query_consent_task"),
        (CONNECTION, "self._nominated: dict[int, CandidatePair]"),
        (CONNECTION, "def build_request(self, pair: CandidatePair, nominate: bool)"),
        (CONNECTION, "= get_host_addresses("),
    ],
)
def test_the_names_used_are_there(where: str, used: str) -> None:
    assert used in where, "aiortc or aioice has changed: read edge_agent/media/hooks.py against it"


def test_signatures_are_the_ones_used() -> None:
    assert list(inspect.signature(JitterBuffer.add).parameters) == ["self", "packet"]
    assert list(inspect.signature(aioice.ice.get_host_addresses).parameters) == ["use_ipv4", "use_ipv6"]
    request = inspect.signature(aioice.ice.StunProtocol.request).parameters
    assert {"integrity_key", "retransmissions"} <= set(request)
    assert issubclass(aioice.stun.TransactionError, Exception)


def test_a_machine_without_a_network_offers_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_stock_host_addresses", lambda *_: ["192.0.2.7"])
    assert hooks._host_addresses(use_ipv4=True, use_ipv6=True) == ["192.0.2.7"]
    monkeypatch.setattr(hooks, "_stock_host_addresses", lambda *_: [])
    assert hooks._host_addresses(use_ipv4=True, use_ipv6=True) == ["127.0.0.1"]


class FakeConnection:
    """As much of aioice's connection as the consent check sees; each answer comes `rtt_s` after its question."""

    def __init__(self, rtt_s: float, answers: int) -> None:
        self.remote_password = "secret"
        self.asked = 0
        self.closed = False
        self._rtt_s, self._answers = rtt_s, answers
        self._query_consent_task: Any = object()
        self._nominated = {1: SimpleNamespace(protocol=self, remote_addr=("192.0.2.7", 1))}

    def build_request(self, pair: Any, nominate: bool) -> str:
        return "request"

    async def request(self, request: str, addr: Any, integrity_key: bytes, retransmissions: int) -> None:
        self.asked += 1
        await asyncio.sleep(self._rtt_s)
        if self.asked > self._answers:
            raise aioice.stun.TransactionTimeout
        return

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def fast_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "CONSENT_INTERVAL_S", 0.01)
    monkeypatch.setattr(hooks, "CONSENT_EXPIRES_S", 0.2)


async def test_consent_outlives_answers_that_come_late(fast_consent: None) -> None:
    connection = FakeConnection(rtt_s=0.1, answers=10_000)  # ten questions are under way at any time
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hooks._query_consent(connection), 0.6)  # type: ignore[arg-type]

    assert not connection.closed
    assert connection.asked >= 20


async def test_consent_ends_when_no_answer_comes(fast_consent: None) -> None:
    connection = FakeConnection(rtt_s=0.01, answers=3)
    await asyncio.wait_for(hooks._query_consent(connection), 2.0)  # type: ignore[arg-type]

    assert connection.closed
    assert connection._query_consent_task is None


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And taken out again: the far ends of other tests are stock aiortc."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", aioice.ice.get_host_addresses)
    monkeypatch.setattr(aioice.ice.Connection, "query_consent", aioice.ice.Connection.query_consent)
    monkeypatch.setattr(aiortc.rtcrtpsender, "get_encoder", aiortc.rtcrtpsender.get_encoder)
    monkeypatch.setitem(aiortc.codecs.CODECS, "audio", list(aiortc.codecs.CODECS["audio"]))
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


def test_pictures_may_spend_less_than_aiortc_thinks(monkeypatch: pytest.MonkeyPatch) -> None:
    vpx = aiortc.codecs.vpx
    for name in ("MIN_BITRATE", "DEFAULT_BITRATE", "MAX_BITRATE"):
        monkeypatch.setattr(vpx, name, getattr(vpx, name))
    hooks.bound_pictures(PicturePlan(40_000, 160, 120, 5.0))
    encoder = vpx.Vp8Encoder()
    assert encoder.target_bitrate == 40_000
    encoder.target_bitrate = 2_000_000  # a REMB
    assert encoder.target_bitrate == 40_000
    encoder.target_bitrate = 1
    assert encoder.target_bitrate == 30_000
