"""A canary over every private name of aiortc and aioice that `edge_agent.media.hooks` uses, and what it puts there."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import aioice.ice
import aioice.stun
import aiortc.codecs.vpx
import aiortc.rtcdtlstransport
import aiortc.rtcpeerconnection
import aiortc.rtcrtpreceiver
import aiortc.rtcrtpsender
import pytest
from aiortc.jitterbuffer import JitterBuffer

from edge_agent.media import hooks

TRANSPORT = inspect.getsource(aiortc.rtcdtlstransport.RTCDtlsTransport)
SENDER = inspect.getsource(aiortc.rtcrtpsender.RTCRtpSender)
PEER = inspect.getsource(aiortc.rtcpeerconnection)
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
        (CONNECTION, "asyncio.create_task(self.query_consent())"),
        (CONNECTION, "self._query_consent_task"),
        (CONNECTION, "self._nominated: dict[int, CandidatePair]"),
        (CONNECTION, "def build_request(self, pair: CandidatePair, nominate: bool)"),
        (CONNECTION, "= get_host_addresses("),
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
