"""A canary over every private name of aioice that `edge_agent.media.ice` uses, and what it does between real ends."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator
from itertools import pairwise

import aioice.ice
import aioice.stun
import aiortc.rtcicetransport
import pytest
from aiortc import RTCIceServer

from edge_agent.core import breath, consent
from edge_agent.media import ice

CONNECTION = inspect.getsource(aioice.ice.Connection)
PROTOCOL = inspect.getsource(aioice.ice.StunProtocol)
TRANSPORT = inspect.getsource(aiortc.rtcicetransport)


@pytest.mark.parametrize(
    ("where", "used"),
    [
        (TRANSPORT, "self._connection = Connection("),
        (TRANSPORT, "ice_kwargs = connection_kwargs(iceServers)"),
        (TRANSPORT, "**ice_kwargs"),
        (TRANSPORT, "await self._connection.gather_candidates()"),
        (TRANSPORT, "x in self._connection.local_candidates]"),
        (CONNECTION, "asyncio.create_task(self.query_consent())"),
        (CONNECTION, "self._local_candidates: list[Candidate]"),
        (CONNECTION, "self._local_candidates_start = False"),
        (CONNECTION, "self._remote_candidates: list[Candidate]"),
        (CONNECTION, "self._protocols: list[StunProtocol]"),
        (CONNECTION, "self._check_list: list[CandidatePair]"),
        (CONNECTION, "self._check_list_done = False"),
        (CONNECTION, "self._early_checks_done = True"),
        (CONNECTION, "self._transport_policy = transport_policy"),
        (CONNECTION, "self._closing = True"),
        (CONNECTION, "if not self._check_periodic():"),
        (CONNECTION, "return self._remote_candidates_expected()"),
        (CONNECTION, "if self._remote_candidates_expected():"),
        (CONNECTION, "def _pair_remote_candidate(self, remote_candidate: Candidate) -> None"),
        (CONNECTION, "def check_start_task(self, pair: CandidatePair) -> None"),
        (CONNECTION, "def sort_check_list(self) -> None"),
        (CONNECTION, "self._query_consent_task"),
        (CONNECTION, "self._nominated: dict[int, CandidatePair]"),
        (CONNECTION, "def build_request(self, pair: CandidatePair, nominate: bool)"),
        (CONNECTION, "= get_host_addresses("),
        (CONNECTION, "self._queue: asyncio.Queue"),
        (PROTOCOL, "message = stun.parse_message(data)"),
        (CONNECTION, "def data_received(self, data: bytes, component: int) -> None"),
        (CONNECTION, "def request_received("),
        (TRANSPORT, "self._send = self._connection.send"),
        (PROTOCOL, "self.receiver.data_received(data, self.local_candidate.component)"),
        (PROTOCOL, "self.receiver.request_received(message, addr, self)"),
        (PROTOCOL, "self.transactions: dict[bytes, stun.Transaction]"),
        (PROTOCOL, "transaction.response_received(message, addr)"),
        (PROTOCOL, "def send_stun(self, message: stun.Message, addr: tuple[str, int])"),
    ],
)
def test_the_names_used_are_there(where: str, used: str) -> None:
    assert used in where, "aioice or aiortc has changed: read edge_agent/media/ice.py against it"


def test_signatures_are_the_ones_used() -> None:
    assert list(inspect.signature(aioice.ice.get_host_addresses).parameters) == ["use_ipv4", "use_ipv6"]
    assert list(inspect.signature(aioice.ice.Connection._add_remote_candidate).parameters)[1:] == [
        "remote_candidate", "network_host"
    ]  # fmt: skip
    assert list(inspect.signature(aioice.ice.server_reflexive_candidate).parameters) == ["protocol", "stun_server"]
    assert {
        "component", "hide_related_address", "protocol_factory", "turn_server", "turn_username", "turn_password",
        "turn_ssl", "turn_transport",
    } == set(inspect.signature(aioice.ice.relayed_candidate).parameters)  # fmt: skip
    assert list(inspect.signature(aioice.stun.Message.check_message_integrity).parameters) == ["self", "key"]


def test_a_check_waits_longer_than_any_round_trip() -> None:
    """aioice asks again at 0.5 s and doubles: with six of those an answer may take a minute."""
    assert sum(aioice.stun.RETRY_RTO * 2**n for n in range(aioice.stun.RETRY_MAX + 1)) > 30
    assert aioice.stun.RETRY_RTO * 2**aioice.stun.RETRY_MAX > 5  # of which this is for an answer to the last


def test_a_machine_without_a_network_offers_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ice, "_stock_host_addresses", lambda *_: ["192.0.2.7"])
    assert ice._host_addresses(use_ipv4=True, use_ipv6=True) == ["192.0.2.7"]
    monkeypatch.setattr(ice, "_stock_host_addresses", lambda *_: [])
    assert ice._host_addresses(use_ipv4=True, use_ipv6=True) == ["127.0.0.1"]


class Path:
    """What the far end's answers go through."""

    delay_s = 0.0
    dead = False
    asked = 0


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> Path:
    """In a hurry: the times of consent a hundredth, so that a delay of 15 ms stands for 1.5 s."""
    for name in ("INTERVAL_S", "EXPIRES_S", "FIRST_PATIENCE_S", "LEAST_PATIENCE_S", "MOST_PATIENCE_S"):
        monkeypatch.setattr(consent, name, getattr(consent, name) / 50)
    monkeypatch.setattr(ice, "EXPIRES_S", consent.EXPIRES_S)
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda **_: ["127.0.0.1"])
    return Path()


@contextlib.asynccontextmanager
async def connected(path: Path) -> AsyncIterator[tuple[ice.Connection, aioice.ice.Connection]]:
    near, far = ice.Connection(ice_controlling=True), aioice.ice.Connection(ice_controlling=False)
    for one, other in ((near, far), (far, near)):
        await one.gather_candidates()
        other.remote_username, other.remote_password = one.local_username, one.local_password
    for one, other in ((near, far), (far, near)):
        for candidate in one.local_candidates:
            await other.add_remote_candidate(candidate)
        await other.add_remote_candidate(None)
    await asyncio.gather(near.connect(), far.connect())
    far._query_consent_task.cancel()  # type: ignore[union-attr]
    protocol = far._protocols[0]
    send_stun, loop = protocol.send_stun, asyncio.get_running_loop()

    def later(message: aioice.stun.Message, addr: tuple[str, int]) -> None:
        path.asked += 1
        if not path.dead:
            loop.call_later(path.delay_s, send_stun, message, addr)

    protocol.send_stun = later  # type: ignore[method-assign]
    try:
        yield near, far
    finally:
        await near.close()
        await far.close()


async def closed_within(near: ice.Connection, seconds: float) -> bool:
    """Whether the connection gives the path up."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(near.get_event(), seconds)
    return near._closed


def test_servers_are_taken_in_the_order_that_they_are_tried_in() -> None:
    given = [
        RTCIceServer(["turns:a.example", "turn:b.example?transport=tcp", "turn:c.example:99"], "name", "word"),
        RTCIceServer("stun:d.example"),
        RTCIceServer(["stuns:e.example", "turns:f.example?transport=udp", "turn:g.example?transport=sctp"]),
    ]
    assert ice.read_servers(given) == ice.Servers(
        (("d.example", 3478),),
        (
            ice.TurnServer("c.example", 99, "udp", False, "name", "word"),
            ice.TurnServer("b.example", 3478, "tcp", False, "name", "word"),
            ice.TurnServer("a.example", 5349, "tcp", True, "name", "word"),
        ),
    )


async def test_checks_of_several_pairs_do_not_crowd(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three addresses at the far end, of which the last answers: one check each pace until then."""
    monkeypatch.setattr(ice, "CHECK_PACE_S", 0.1)
    near, far = ice.Connection(ice_controlling=True), aioice.ice.Connection(ice_controlling=False)
    for one, other in ((near, far), (far, near)):
        await one.gather_candidates()
        other.remote_username, other.remote_password = one.local_username, one.local_password
    (alive,) = far.local_candidates
    for number in range(3):
        dead = aioice.Candidate(str(number), 1, "udp", alive.priority + 10 - number, "127.0.0.9", 9 + number, "host")
        await near.add_remote_candidate(dead)
    await near.add_remote_candidate(alive)
    await near.add_remote_candidate(None)
    started: list[float] = []
    check_start_task, loop = near.check_start_task, asyncio.get_running_loop()

    def noted(pair: aioice.ice.CandidatePair) -> None:
        started.append(loop.time())
        check_start_task(pair)

    near.check_start_task = noted  # type: ignore[method-assign]
    far_connects = asyncio.create_task(far.connect())
    await near.connect()
    far_connects.cancel()
    assert len(started) == 4
    assert all(later - sooner >= 0.1 for sooner, later in pairwise(started))
    await near.close()
    await far.close()


async def test_consent_outlives_answers_slower_than_a_second_and_a_half(path: Path) -> None:
    path.delay_s = 2 * consent.MOST_PATIENCE_S
    async with connected(path) as (near, _):
        assert not await closed_within(near, 2 * consent.EXPIRES_S)
        assert path.asked >= 2 * consent.EXPIRES_S / consent.INTERVAL_S
        await near.send(b"still here")


async def test_no_sound_goes_into_a_silent_link_and_all_again_when_something_is_heard(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breath, "FIRST_S", 0.0)
    monkeypatch.setattr(breath, "LEAST_SILENCE_S", 0.15)
    path.dead = True  # to checks; the far end itself may speak
    async with connected(path) as (near, far):

        async def arrived(count: int) -> int:
            for _ in range(count):
                await near.send(b"\x80sound")
            await near.send(b"\x16handshake")  # is no media, and always goes
            got = 0
            while await far.recv() != b"\x16handshake":
                got += 1
            return got

        await far.send(b"\x80sound")
        await near.recv()
        assert await arrived(20) == 20
        await asyncio.sleep(0.2)
        assert await arrived(20) == 0
        await far.send(b"\x80sound")
        await near.recv()
        assert await arrived(20) == 20


async def test_no_picture_is_coded_for_a_silent_link(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breath, "FIRST_S", 0.0)
    monkeypatch.setattr(breath, "LEAST_SILENCE_OF_PICTURES_S", 0.15)
    path.dead = True  # to checks; the far end itself may speak
    async with connected(path) as (near, far):
        await far.send(b"\x80sound")
        await near.recv()
        await asyncio.wait_for(near.until_fit_for_pictures(), 0.1)
        await asyncio.sleep(0.2)
        waits = asyncio.create_task(near.until_fit_for_pictures())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waits), 0.3)
        await far.send(b"\x80sound")
        await asyncio.wait_for(waits, 1.0)


async def test_a_silent_link_is_asked_often_whether_it_is_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("FIRST_S", 0.0), ("LEAST_SILENCE_S", 0.15)):
        monkeypatch.setattr(breath, name, seconds)
    monkeypatch.setattr(ice, "PROBE_S", 0.02)
    monkeypatch.setattr(consent, "INTERVAL_S", 10.0)
    monkeypatch.setattr(ice, "FIRST_QUESTIONS", 0)
    async with connected(path) as (near, _):
        path.dead = True
        await asyncio.sleep(0.1)
        assert path.asked == 0
        await asyncio.sleep(0.25)
        assert path.asked >= 4
        path.dead = False
        await asyncio.sleep(0.1)
        assert not near._holds_breath()


async def test_consent_ends_when_no_answer_comes(path: Path) -> None:
    path.dead = True
    async with connected(path) as (near, _):
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await closed_within(near, 2 * consent.EXPIRES_S)
        assert loop.time() - began >= 0.9 * consent.EXPIRES_S
        with pytest.raises(ConnectionError):
            await near.send(b"into the void")


async def test_an_answer_of_somebody_else_is_none(path: Path) -> None:
    async with connected(path) as (near, far):
        far._local_password = "x" * 22  # signs with it
        assert await closed_within(near, 2 * consent.EXPIRES_S)


async def test_questions_are_forgotten_with_the_connection(path: Path) -> None:
    path.dead = True
    async with connected(path) as (near, _):
        protocol = near._protocols[0]
        await asyncio.sleep(3 * consent.FIRST_PATIENCE_S + 1.2 * consent.INTERVAL_S)
        assert len(protocol.transactions) >= 2
        await near.close()
        assert not protocol.transactions
