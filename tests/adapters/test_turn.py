"""Both ends through a real TURN server, over each way to it; and servers that do not answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator

import aioice
import aioice.ice
import pytest
import pytest_asyncio
from aiortc import RTCIceServer
from aiortc.rtcpeerconnection import RTCPeerConnection

from edge_agent.core.wire import IceServer
from edge_agent.media import ice
from tests.adapters.turn import SECRET, TURNSERVER, WAYS, Turn, servers
from tests.e2e.program import free_port
from tests.stock_aiortc import put_back_afterwards

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(TURNSERVER is None, reason="turnserver is missing (apt install coturn)"),
]
RELAY = aioice.TransportPolicy.RELAY


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def turn(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Turn]:
    server = Turn(tmp_path_factory.mktemp("turn"), "127.0.0.1")
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture(autouse=True)
def trusting(turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context(cafile=str(turn.certificate))
    monkeypatch.setattr(ice, "_tls_context", lambda: context)
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda **_: ["127.0.0.1"])


@contextlib.asynccontextmanager
async def an_end(given: tuple[IceServer, ...], controlling: bool, **options) -> AsyncIterator[ice.Connection]:
    read = ice.read_servers([RTCIceServer(list(each.urls), each.username, each.credential) for each in given])
    connection = ice.Connection(controlling, servers=read, **options)
    try:
        yield connection
    finally:
        await connection.close()


async def introduce(one: ice.Connection, other: ice.Connection) -> None:
    one.remote_username, one.remote_password = other.local_username, other.local_password
    for candidate in other.local_candidates:
        await one.add_remote_candidate(candidate)
    await one.add_remote_candidate(None)


async def carries(one: ice.Connection, other: ice.Connection) -> None:
    for near, far in ((one, other), (other, one)):
        await near.send(b"are you there?")
        async with asyncio.timeout(5):
            assert await far.recv() == b"are you there?"


@pytest.mark.parametrize("way", WAYS)
async def test_two_ends_that_know_nothing_but_the_relay(turn: Turn, way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with (
        an_end(servers(turn.url(way)), True, transport_policy=RELAY) as near,
        an_end(servers(turn.url("udp")), False, transport_policy=RELAY) as far,
    ):
        await asyncio.gather(near.gather_candidates(), far.gather_candidates())
        assert [candidate.type for candidate in near.local_candidates] == ["relay"]
        assert f"relay found way={way}" in caplog.text
        await asyncio.gather(introduce(near, far), introduce(far, near))
        await asyncio.gather(near.connect(), far.connect())
        await carries(near, far)
    assert SECRET not in caplog.text


async def test_udp_does_not_lead_there_and_tcp_does(turn: Turn, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    given = servers(turn.url("tls"), turn.url("tcp"), f"turn:127.0.0.1:{free_port()}?transport=udp")
    began = time.monotonic()
    async with an_end(given, True, transport_policy=RELAY) as near:
        await near.gather_candidates()
        assert [candidate.type for candidate in near.local_candidates] == ["relay"]
    assert "relay found way=tcp" in caplog.text
    assert time.monotonic() - began < ice.NEXT_TURN_S + 2


async def test_credentials_of_another_secret_are_refused(turn: Turn, caplog: pytest.LogCaptureFixture) -> None:
    async with an_end(servers(turn.url("udp"), secret="wrong"), True, transport_policy=RELAY) as near:
        async with asyncio.timeout(5):
            await near.gather_candidates()
        assert near.local_candidates == []
    assert "no relay way=udp" in caplog.text


class Silent(asyncio.DatagramProtocol):
    """Takes what comes and says nothing."""


@contextlib.asynccontextmanager
async def silence() -> AsyncIterator[int]:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Silent, ("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


async def test_servers_that_do_not_answer_do_not_hold_up_an_offer() -> None:
    async with silence() as port:
        given = servers(f"turn:127.0.0.1:{port}?transport=udp", stun=(f"stun:127.0.0.1:{port}",))
        async with an_end(given, True) as near, an_end((), False) as far:
            began = time.monotonic()
            await asyncio.gather(near.gather_candidates(), far.gather_candidates())
            assert time.monotonic() - began < ice.FIRST_GATHERING_S + 0.3
            assert [candidate.type for candidate in near.local_candidates] == ["host"]
            await asyncio.gather(introduce(near, far), introduce(far, near))
            async with asyncio.timeout(3):
                await asyncio.gather(near.connect(), far.connect())
            await carries(near, far)
            assert near._further is None  # and nobody is asked any more


async def test_stun_tells_an_address_without_being_waited_for_longer_than_it_takes(turn: Turn) -> None:
    async with an_end(servers(stun=(f"stun:127.0.0.1:{turn.port}",)), True) as near:
        began = time.monotonic()
        await near.gather_candidates()
        assert time.monotonic() - began < ice.FIRST_GATHERING_S
        assert [candidate.type for candidate in near.local_candidates] == ["host", "srflx"]


async def test_a_relay_that_takes_its_time_is_told_later_and_used(turn: Turn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ends cannot reach one another but by it: each hears of the other's late relay alone."""
    real = aioice.ice.relayed_candidate

    async def slow(**named):
        await asyncio.sleep(2 * ice.FIRST_GATHERING_S)
        return await real(**named)

    monkeypatch.setattr(aioice.ice, "relayed_candidate", slow)
    given = servers(turn.url("udp"))
    async with an_end(given, True) as near, an_end(given, False) as far:
        await asyncio.gather(near.gather_candidates(), far.gather_candidates())
        for one, other in ((near, far), (far, near)):
            assert [candidate.type for candidate in one.local_candidates] == ["host"]
            one.remote_username, one.remote_password = other.local_username, other.local_password

            def told(one: ice.Connection = one, other: ice.Connection = other) -> None:
                other.add_late_candidates([each for each in one.local_candidates if each.type == "relay"])

            one.found = told
        async with asyncio.timeout(10):
            await asyncio.gather(near.connect(), far.connect())
        await carries(near, far)
        assert near._nominated[1].remote_candidate.type == "relay"


async def test_an_offer_tells_all_candidates_that_are_known_by_then(
    turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_back_afterwards(monkeypatch)
    ice.install()
    peer = RTCPeerConnection()
    peer.addTransceiver("audio")
    await peer.setLocalDescription()
    connection = ice.connection_of(peer)
    relay = aioice.Candidate("9", 1, "udp", 99, "198.51.100.7", 50000, "relay", "0.0.0.0", 9)
    connection._local_candidates.append(relay)
    text = ice.with_candidates(peer.localDescription.sdp, connection)
    assert text.count("a=candidate:") == len(connection.local_candidates)
    assert "198.51.100.7 50000 typ relay" in text
    await peer.close()
