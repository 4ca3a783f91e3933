"""Where the kit reaches into aioice: what `Connection` does here as it should on long, thin and lossy links.

Tried with aioice 0.13.0 and aiortc 1.16.0; `tests/unit/test_media_ice.py` fails when a name used here disappears.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import random
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aioice.ice
import aioice.stun
import aiortc.rtcicetransport
from aiortc import RTCIceServer, RTCPeerConnection
from aiortc.sdp import candidate_to_sdp

from edge_agent.core.breath import PROBE_S, Breath
from edge_agent.core.consent import EXPIRES_S, Consent
from edge_agent.core.turns import Probe

log = logging.getLogger(__name__)

CHECK_PACE_S = 0.25  # between the first checks of two pairs: on a thin link they are not to crowd one another out
FIRST_GATHERING_S = 0.5  # an offer waits so long for what STUN and TURN servers say; the rest follows it
GATHERING_S = 30.0  # TLS to a TURN server over a long link takes seven round trips, and packets are lost
MOST_UNREAD = 512  # datagrams; before the keys are agreed upon nobody reads them, and anybody can send
CHANNEL_DATA_BYTES, IPV6_BYTES = 4, 20  # RFC 8656, 12.4; an IPv6 header is so much longer than IPv4's
FIRST_QUESTIONS = 2  # of consent, at once: a short round trip tells of a good link
NEXT_TURN_S = 1.5  # UDP has this lead over TCP, and TCP over TLS

_stock_host_addresses = aioice.ice.get_host_addresses
_stock_parse_message = aioice.stun.parse_message


def install() -> None:
    """Once, before the first peer connection."""
    aioice.ice.get_host_addresses = _host_addresses
    aioice.stun.parse_message = _parse_message
    aiortc.rtcicetransport.Connection = Connection  # type: ignore[attr-defined]
    aiortc.rtcicetransport.connection_kwargs = _connection_arguments


def connection_of(peer: RTCPeerConnection) -> Connection:
    """The one of a bundled peer connection."""
    found = peer.getTransceivers()[0].receiver.transport.transport._connection
    assert isinstance(found, Connection)  # noqa: S101
    return found


def with_candidates(description: str, connection: Connection) -> str:
    """aiortc's description has those candidates that were there when it was made."""
    lines = [line for line in description.splitlines() if not line.startswith("a=candidate:")]
    found = (aiortc.rtcicetransport.candidate_from_aioice(each) for each in connection.local_candidates)
    return "\r\n".join([*lines, *(f"a=candidate:{candidate_to_sdp(each)}" for each in found), ""])


@dataclass(frozen=True)
class TurnServer:
    host: str
    port: int
    transport: str  # "udp" or "tcp"
    tls: bool
    username: str
    credential: str


@dataclass(frozen=True)
class Servers:
    stun: tuple[tuple[str, int], ...] = ()
    turn: tuple[TurnServer, ...] = ()


def read_servers(servers: Sequence[RTCIceServer]) -> Servers:
    """All that are usable, TURN in the order that they are tried in: UDP, TCP, TLS."""
    stun: list[tuple[str, int]] = []
    turn: list[TurnServer] = []
    for server in servers:
        for url in [server.urls] if isinstance(server.urls, str) else server.urls:
            parsed = aiortc.rtcicetransport.parse_stun_turn_uri(url)
            place = (parsed["host"], parsed["port"])
            if parsed["scheme"] == "stun":
                stun.append(place)
            elif parsed["scheme"] in ("turn", "turns") and parsed["transport"] in ("udp", "tcp"):
                tls = parsed["scheme"] == "turns"
                if tls and parsed["transport"] == "udp":
                    continue  # DTLS to the server: aioice has none
                credentials = (server.username or "", server.credential or "")
                turn.append(TurnServer(*place, parsed["transport"], tls, *credentials))
    turn.sort(key=lambda each: (each.tls, each.transport != "udp"))
    return Servers(tuple(stun), tuple(turn))


def _connection_arguments(servers: list[RTCIceServer]) -> dict[str, Any]:
    """In place of aiortc's, which takes one STUN server and the first TURN address of them all."""
    return {"servers": read_servers(servers)}


class Connection(aioice.ice.Connection):
    """`found` is called whenever there is another local candidate after `gather_candidates` has returned."""

    def __init__(self, *arguments: Any, servers: Servers = Servers(), **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.found: Callable[[], None] = lambda: None
        self._servers = servers
        self._further: asyncio.Task[None] | None = None
        self._next_check_at = 0.0
        self._hopes_until = 0.0
        self._breath: Breath | None = None  # once connected
        self.answered: Callable[[float, float], None] = lambda rtt_s, now: None  # of each question of consent
        self._news = asyncio.Event()  # something was heard

    # --- gathering

    async def gather_candidates(self) -> None:
        """The stock one waits up to five seconds for servers, and has nothing of what they say later. This one gives
        them half a second, or longer where nothing can be said without them, and goes on asking."""
        if self._local_candidates_start:
            return
        await super().gather_candidates()  # knows no servers: addresses of this machine alone
        asks: list[Awaitable[None]] = [self._ask_stun(protocol) for protocol in self._protocols if self._servers.stun]
        if self._servers.turn:
            asks.append(self._ask_turn())
        if not asks:
            return
        first = asyncio.Event()
        self.found = first.set
        self._further = asyncio.create_task(self._gather_further(asks))
        with contextlib.suppress(TimeoutError):
            if not self._local_candidates:  # by policy: relays alone
                async with asyncio.timeout(GATHERING_S):
                    waits = asyncio.create_task(first.wait())
                    await asyncio.wait((waits, self._further), return_when=asyncio.FIRST_COMPLETED)
                    waits.cancel()
            else:
                async with asyncio.timeout(FIRST_GATHERING_S):
                    await asyncio.shield(self._further)
        self.found = lambda: None

    async def _gather_further(self, asks: list[Awaitable[None]]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHERING_S):
                await asyncio.gather(*asks)
        self._further = None

    async def _ask_stun(self, protocol: aioice.ice.StunProtocol) -> None:
        if ipaddress.ip_address(protocol.local_candidate.host).version != 4:
            return
        for server in self._servers.stun:
            try:
                candidate, _ = await aioice.ice.server_reflexive_candidate(protocol, server)
            except (aioice.stun.TransactionError, OSError, KeyError) as error:
                log.warning("stun server silent host=%s reason=%s", server[0], error)
            else:
                self._add_local_candidate(candidate)
                return

    async def _ask_turn(self) -> None:
        """The ways to the server one after the other, until one has led there; those under way go on meanwhile."""
        tries: set[asyncio.Task[tuple[aioice.Candidate, aioice.ice.StunProtocol]]] = set()
        waiting = list(self._servers.turn)
        try:
            while waiting or tries:
                if waiting:
                    tries.add(asyncio.create_task(self._allocate(waiting.pop(0))))
                ended, tries = await asyncio.wait(
                    tries, timeout=NEXT_TURN_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for one in ended:
                    if one.exception() is None:
                        candidate, protocol = one.result()
                        self._protocols.append(protocol)
                        self._add_local_candidate(candidate)
                        for remote in self._remote_candidates:
                            self._pair_remote_candidate(remote)
                        self._check_late_pairs()
                        return
        finally:
            for one in tries:
                one.cancel()

    async def _allocate(self, server: TurnServer) -> tuple[aioice.Candidate, aioice.ice.StunProtocol]:
        way = "tls" if server.tls else server.transport
        try:
            made = await aioice.ice.relayed_candidate(
                component=1,
                hide_related_address=self._transport_policy is aioice.ice.TransportPolicy.RELAY,
                protocol_factory=lambda: aioice.ice.StunProtocol(self),
                turn_server=(server.host, server.port),
                turn_username=server.username,
                turn_password=server.credential,
                turn_ssl=_tls_context() if server.tls else False,  # type: ignore[arg-type]
                turn_transport=server.transport,
            )
        except (aioice.stun.TransactionError, OSError) as error:
            log.warning("no relay way=%s reason=%s", way, error)
            raise
        log.info("relay found way=%s", way)
        return made

    def _add_local_candidate(self, candidate: aioice.Candidate) -> None:
        self._local_candidates.append(candidate)
        self.found()

    # --- checks

    async def connect(self) -> None:
        self._hopes_until = asyncio.get_running_loop().time() + GATHERING_S
        try:
            await super().connect()
            self._breath = Breath(asyncio.get_running_loop().time())
        finally:
            await self._stop_gathering()

    def _check_periodic(self) -> bool:
        """The stock one starts a check every 20 ms; what comes in is answered with a check at once all the same."""
        if self._check_list_done:
            return False
        now = asyncio.get_running_loop().time()
        if now < self._next_check_at:
            return True
        goes_on = super()._check_periodic()
        self._next_check_at = now + CHECK_PACE_S
        return goes_on

    def _remote_candidates_expected(self) -> bool:
        """Nothing has failed while either end may still find a relay."""
        return asyncio.get_running_loop().time() < self._hopes_until or super()._remote_candidates_expected()

    def add_late_candidates(self, candidates: Sequence[aioice.Candidate]) -> None:
        """Of the far end, after it said that there are no more: its relay took longer than its answer."""
        if not self._closing:
            for candidate in candidates:
                self._add_remote_candidate(candidate, candidate.host)
            self._check_late_pairs()

    def _check_late_pairs(self) -> None:
        """`connect` may have gone through its list and be waiting."""
        self.sort_check_list()
        if self._early_checks_done and not self._check_list_done:
            for pair in self._check_list:
                if pair.state in (aioice.ice.CandidatePair.State.FROZEN, aioice.ice.CandidatePair.State.WAITING):
                    self.check_start_task(pair)

    async def close(self) -> None:
        await self._stop_gathering()
        await super().close()

    async def _stop_gathering(self) -> None:
        further, self._further = self._further, None
        if further is not None:
            further.cancel()
            await asyncio.wait((further,))

    # --- what goes and comes

    async def send(self, data: bytes) -> None:
        """Sound, pictures and reports are for a far end that is heard; see `edge_agent.core.breath`."""
        is_media = 127 < data[0] < 192  # RFC 7983
        if not (is_media and self._holds_breath()):
            await super().send(data)

    async def until_fit_for_pictures(self) -> None:
        """Returns while the far end is heard, or once it is again: no picture is coded to wait in an outage."""
        while self._breath is not None and self._breath.pictures_held(asyncio.get_running_loop().time()):
            self._news.clear()
            await self._news.wait()

    def _holds_breath(self) -> bool:
        return self._breath is not None and self._breath.held(asyncio.get_running_loop().time())

    def data_received(self, data: bytes, component: int) -> None:
        """From anybody. aiortc ends the call over an empty datagram."""
        if not data or self._queue.qsize() >= MOST_UNREAD:
            return
        self._heard()
        super().data_received(data, component)

    def request_received(
        self, message: aioice.stun.Message, addr: tuple[str, int], protocol: aioice.ice.StunProtocol
    ) -> None:
        self._heard()
        super().request_received(message, addr, protocol)

    def _heard(self) -> None:
        if self._breath is not None:
            self._breath.heard(asyncio.get_running_loop().time())
            self._news.set()

    # --- consent

    async def query_consent(self) -> None:
        """The stock one waits 0.5 s for each answer, and closes a call whose round trip is longer than that."""
        loop = asyncio.get_running_loop()
        consent = Consent(loop.time(), _spread())
        open_questions: list[_Question] = []
        first = FIRST_QUESTIONS

        def answered(asked_at: float, now: float) -> None:
            consent.answered(asked_at, now)
            self.answered(now - asked_at, now)

        try:
            while (now := loop.time()) < consent.expires_at:
                # It also says to a far end that holds its breath, and asks it, whether the link is back.
                if now >= consent.next_question_at or self._holds_breath() or first:
                    first = max(0, first - 1)
                    consent.asked(now, _spread())
                    open_questions = [each for each in open_questions if each.is_open(now)]
                    for pair in self._nominated.values():
                        open_questions.append(_Question(self, pair, answered))
                await asyncio.sleep(min(consent.next_question_at - now, consent.expires_at - now, PROBE_S))
        finally:
            for question in open_questions:
                question.close()
        self._query_consent_task = None
        await self.close()

    @property
    def extra_bytes(self) -> int:
        """Of each packet's headers on the nominated path, beside those of IPv4 and UDP."""
        pair = next(iter(self._nominated.values()), None)
        if pair is None:
            return 0
        is_relayed = pair.local_candidate.type == "relay"
        return CHANNEL_DATA_BYTES * is_relayed + IPV6_BYTES * (":" in pair.remote_addr[0])

    async def carries(self, probe: Probe) -> bool:
        """Asks the path as `probe` says; its verdict. The answers are of one connection and another's are none."""
        loop = asyncio.get_running_loop()
        pairs = list(self._nominated.values())
        open_questions: list[_Question] = []
        try:
            while pairs and (verdict := probe.verdict(loop.time())) is None:
                while (number := probe.ask(loop.time())) is not None:
                    answered = functools.partial(_tell_probe, probe, number)
                    open_questions.append(_Question(self, pairs[0], answered))
                await asyncio.sleep(probe.every_s)
        finally:
            for question in open_questions:
                question.close()
        return bool(pairs) and bool(verdict)


def _tell_probe(probe: Probe, number: int, _asked_at: float, now: float) -> None:
    probe.answered(number, now)


class _Question:
    """Stands in for aioice's transaction: sent once, and open for as long as an answer means something.

    It nominates the pair anew, as a check does: a far end that sees it come from another address, because a router
    between has forgotten the old one, goes over to that.
    """

    def __init__(
        self, connection: Connection, pair: aioice.ice.CandidatePair, answered: Callable[[float, float], None]
    ) -> None:
        """`answered` is told when it was asked, and when it was answered."""
        self._loop = asyncio.get_running_loop()
        self._protocol, self._address, self._answered = pair.protocol, pair.remote_addr, answered
        self._heard = connection._heard
        self._key = (connection.remote_password or "").encode()
        self._asked_at = self._loop.time()
        request = connection.build_request(pair, nominate=True)
        request.add_message_integrity(self._key)
        self._id = request.transaction_id
        self._protocol.transactions[self._id] = self  # type: ignore[assignment]
        self._protocol.send_stun(request, self._address)

    def is_open(self, now: float) -> bool:
        if now - self._asked_at < EXPIRES_S:
            return True
        self.close()
        return False

    def response_received(self, message: aioice.stun.Message, addr: tuple[str, int]) -> None:
        genuine = addr == self._address and message.check_message_integrity(self._key)
        if genuine and message.message_class == aioice.stun.Class.RESPONSE:
            self._heard()
            self._answered(self._asked_at, self._loop.time())
            self.close()

    def close(self) -> None:
        self._protocol.transactions.pop(self._id, None)


def _parse_message(data: bytes) -> aioice.stun.Message:
    """The stock one raises what its callers do not expect for attributes that are cut short."""
    try:
        return _stock_parse_message(data)
    except (struct.error, LookupError) as error:
        raise ValueError(f"not STUN: {error}") from None


def _host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    """Loopback where there is nothing else, so that a laptop without any network can show the kit."""
    return _stock_host_addresses(use_ipv4, use_ipv6) or ["127.0.0.1"]


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Of TURN over TLS: a certificate that a browser takes too. Reading the system's CAs takes a while on a Pi."""
    return ssl.create_default_context()


def _spread() -> float:
    return random.uniform(-1, 1)  # noqa: S311 - spreads load only
