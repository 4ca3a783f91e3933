"""Servers for a call's media, as a self-test asks them: a packet there and back (STUN, RFC 8489), what is between
(RFC 5780), and an allocation at a TURN server (RFC 8656) by UDP, TCP and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import cast

import aioice.stun
import aioice.turn
import aiortc.rtcicetransport

from edge_agent.addresses import source_address
from edge_agent.core.line_checks import Turn
from edge_agent.core.wire import IceServer

PINGS, PING_S = 20, 0.1
ANSWER_S = 3.0
ALLOCATE_S = 8.0
PING_BYTES = 2 * 48  # with IP and UDP, there

Place = tuple[str, int]


class Knocker(asyncio.DatagramProtocol):
    """One socket that asks several servers how they see it."""

    def __init__(self) -> None:
        self.transport: asyncio.DatagramTransport | None = None
        self._asked: dict[bytes, tuple[float, asyncio.Future[tuple[float, Place]]]] = {}
        self.used_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Place) -> None:
        self.used_bytes += len(data) + 28
        try:
            message = aioice.stun.parse_message(data)
            seen = message.attributes["XOR-MAPPED-ADDRESS"]
        except (ValueError, KeyError):
            return
        if asked := self._asked.pop(message.transaction_id, None):
            at, answer = asked
            if not answer.done():
                answer.set_result(((time.monotonic() - at) * 1000, (seen[0], seen[1])))

    def error_received(self, exc: Exception) -> None:
        pass  # an ICMP answer: the question stays without one

    def ask(self, server: Place) -> asyncio.Future[tuple[float, Place]]:
        """`(RTT in ms, our address as it was seen)`; never done where nothing comes back."""
        assert self.transport is not None  # noqa: S101
        message = aioice.stun.Message(aioice.stun.Method.BINDING, aioice.stun.Class.REQUEST)
        answer: asyncio.Future[tuple[float, Place]] = asyncio.get_running_loop().create_future()
        self._asked[message.transaction_id] = (time.monotonic(), answer)
        data = bytes(message)
        self.used_bytes += len(data) + 28
        self.transport.sendto(data, server)
        return answer


def udp_places(servers: Sequence[IceServer]) -> list[Place]:
    """Whom a packet can be sent to: STUN servers, and TURN servers by UDP, which answer the same."""
    places: list[Place] = []
    for server in servers:
        for url in server.urls:
            with contextlib.suppress(ValueError):
                parsed = aiortc.rtcicetransport.parse_stun_turn_uri(url)
                place = (parsed["host"], parsed["port"])
                if parsed["scheme"] in ("stun", "turn") and parsed.get("transport", "udp") == "udp":
                    places += [place] if place not in places else []
    return places


async def pings(servers: Sequence[IceServer]) -> tuple[float | None, float | None, str, int]:
    """`(RTT in ms, part lost, NAT in words, bytes)`; None where no server answers."""
    places = udp_places(servers)
    addresses: list[Place] = []
    loop = asyncio.get_running_loop()
    for host, port in places:
        with contextlib.suppress(OSError):
            async with asyncio.timeout(ANSWER_S):
                found = await loop.getaddrinfo(host, port, family=2, type=2)
                addresses.append((str(found[0][4][0]), port))
    if not addresses:
        return None, None, "", 0
    transport, knocker = await loop.create_datagram_endpoint(Knocker, local_addr=("0.0.0.0", 0))  # noqa: S104
    try:
        firsts = [knocker.ask(address) for address in addresses]
        await asyncio.wait(firsts, timeout=ANSWER_S)
        seen = [first.result()[1] for first in firsts if first.done()]
        if not seen:
            return None, None, "", knocker.used_bytes
        good = addresses[next(i for i, first in enumerate(firsts) if first.done())]
        nat = _nat(
            seen,
            transport.get_extra_info("sockname")[1],
            [a for a, f in zip(addresses, firsts, strict=True) if f.done()],
        )
        answers = []
        for _ in range(PINGS):
            answers.append(knocker.ask(good))
            await asyncio.sleep(PING_S)
        _, missing = await asyncio.wait(answers, timeout=ANSWER_S)
        rtts = sorted(answer.result()[0] for answer in answers if answer.done())
        return (rtts[len(rtts) // 2] if rtts else None), len(missing) / PINGS, nat, knocker.used_bytes
    finally:
        transport.close()


def _nat(seen: list[Place], own_port: int, servers: list[Place]) -> str:
    """By mapping (RFC 5780, 4.3) as far as the servers allow."""
    local = _own_addresses(servers)
    if any(host in local for host, _ in seen):
        return "none: the address is its own"
    if len(set(servers)) < 2:
        return "behind one, of unknown kind: it takes two servers to tell"
    if len(set(seen)) == 1:
        return "behind one that keeps its mapping (endpoint-independent)"
    return "behind one that maps anew for each address (symmetric): calls need TURN"


def _own_addresses(servers: list[Place]) -> set[str]:
    return {source_address(server) for server in servers}


async def knock_at_turn(servers: Sequence[IceServer]) -> dict[str, Turn]:
    """Every TURN URL, all at once."""
    urls = [(server, url) for server in servers for url in server.urls if url.startswith("turn")]
    logging.getLogger("aioice").setLevel(logging.WARNING)  # it logs addresses
    found = await asyncio.gather(*(_allocate(server, url) for server, url in urls))
    return {url: how for (_, url), how in zip(urls, found, strict=True)}


async def _allocate(server: IceServer, url: str) -> Turn:
    try:
        parsed = aiortc.rtcicetransport.parse_stun_turn_uri(url)
    except ValueError:
        return "silent"
    try:
        async with asyncio.timeout(ALLOCATE_S):
            transport, _ = await aioice.turn.create_turn_endpoint(
                asyncio.DatagramProtocol,
                server_addr=(parsed["host"], parsed["port"]),
                username=server.username or None,
                password=server.credential or None,
                ssl=parsed["scheme"] == "turns",
                transport=parsed.get("transport", "udp"),
            )
    except aioice.stun.TransactionFailed:
        return "refused" if server.username else "answers"
    except (OSError, aioice.stun.TransactionError):
        return "silent"
    transport.close()
    return "allocated"
