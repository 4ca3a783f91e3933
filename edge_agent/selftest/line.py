"""The way to the hub under test, in 200 kB at most: addresses, names, doors, a page for signing in, rate, delay, loss,
TURN. The agent's own connection is left alone: this makes others, and speaks no MQTT on them, since a second client of
the same name would push the agent out.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import msgspec

from edge_agent.addresses import source_address
from edge_agent.config import KioskSettings
from edge_agent.core.csr import sign_self_test
from edge_agent.core.joining import SelfTestReply, SelfTestRequest
from edge_agent.core.line_checks import Door, Line
from edge_agent.core.wire import IceServer
from edge_agent.identity import Identity
from edge_agent.join import is_loopback, origin_to_ask
from edge_agent.selftest import stun
from edge_agent.tcp_info import tcp_info
from edge_agent.tls import RAN_OUT, BrokerTls, CertificateRefused, HubTls, OutOfDate

CONNECT_S = 6.0  # TCP sends a lost SYN again after 1 and 3 s
TLS_S = 10.0
NAME_S = 6.0
MOST_BYTES = 200_000
FIRST_BYTES, THEN_BYTES = 6_000, 56_000  # the first takes 3 s at 18 kbit/s; the second comes where it took less than 1
RATE_S = 20.0
_NOWHERE = (("192.0.2.1", 9), ("2001:db8::1", 9))  # RFC 5737, 3849: nothing is sent there, the route alone is asked
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)


@dataclass(frozen=True, slots=True)
class Measured:
    line: Line
    hub_ms: int | None = None  # the hub's clock, as it was at `at`
    at_ms: int = 0  # this system's clock then


def measure(
    settings: KioskSettings, identity: Identity | None, dates_ms: Callable[[], int | None], said: Callable[[str], None]
) -> Measured:
    """Blocks, half a minute at most. `dates_ms`: by which certificates are judged, None for not by their dates."""
    if identity is None:
        own = [address for far in _NOWHERE if (address := source_address(far))]
        return Measured(Line(addresses=own))
    origin = urlsplit(origin_to_ask(identity.hub, settings.hub.address))
    hub = (origin.hostname or "", origin.port or 443)
    broker = (settings.broker.host or identity.broker[0], settings.broker.port or identity.broker[1])
    places: dict[str, str] = {}
    for host in {hub[0], broker[0]}:
        places[host] = _look_up(host)
    routes = [source_address((places[host], 9)) for host in (hub[0], broker[0]) if places[host]]
    own = list(dict.fromkeys(a for a in (*routes, *(source_address(far) for far in _NOWHERE)) if a))
    names = None if _is_number(hub[0]) else bool(places[hub[0]])
    line = Line(addresses=own, names=names, hub=Door(f"{hub[0]}:{hub[1]}"), broker=Door(f"{broker[0]}:{broker[1]}"))
    if not own or names is False:
        return Measured(replace(line, portal=_portal_by_network_manager() if own else ""))
    said("hub")
    web = _Web(identity, origin.scheme, hub, places[hub[0]], dates_ms)
    try:
        return _measure(line, web, identity, broker, places[broker[0]], dates_ms, said)
    finally:
        web.close()


def _measure(
    line: Line, web: _Web, identity: Identity, broker: tuple[str, int], place: str,
    dates_ms: Callable[[], int | None], said: Callable[[str], None],
) -> Measured:  # fmt: skip
    door = web.knock()
    tls = BrokerTls.of(identity, dates_ms)
    tls.careful = True
    broker_door, broker_bytes = _knock(f"{broker[0]}:{broker[1]}", place, broker[1], tls)
    line = replace(line, hub=door, broker=broker_door, used_bytes=broker_bytes)
    if "open" not in (door.tls, broker_door.tls):
        line = replace(line, portal=_portal(web.host, web.place, web.port, door))
    if door.tls != "open":
        return Measured(replace(line, used_bytes=line.used_bytes + web.used_bytes()))
    told, at_ms = web.ask()
    said("rate")
    up, down = web.rates()
    rtt, loss = web.rtt_and_loss()
    line = replace(line, up_bps=up, down_bps=down, rtt_ms=rtt, loss=loss, used_bytes=line.used_bytes + web.used_bytes())
    if told is not None and told.ice_servers:
        said("TURN")
        line = asyncio.run(_media_servers(line, told.ice_servers))
    return Measured(line, told.time_ms if told else None, at_ms)


async def _media_servers(line: Line, servers: tuple[IceServer, ...]) -> Line:
    rtt, loss, nat, used = await stun.pings(servers)
    turn = await stun.knock_at_turn(servers)
    used += 600 * len(turn)  # two requests and answers each, and TLS
    return replace(
        line, turn=turn, nat=nat, used_bytes=line.used_bytes + used,
        rtt_ms=line.rtt_ms if rtt is None else rtt, loss=line.loss if loss is None else loss,
    )  # fmt: skip


class _Web:
    """The hub's page, over one connection after the other."""

    def __init__(
        self, identity: Identity, scheme: str, hub: tuple[str, int], place: str, dates_ms: Callable[[], int | None]
    ) -> None:
        self.host, self.port = hub
        self.place = place
        self._identity = identity
        plain = scheme == "http" and is_loopback(hub[0])
        self._tls = None if plain else HubTls.trusting(identity.cas, dates_ms)
        self._http: http.client.HTTPConnection | None = None

    def knock(self) -> Door:
        door, _, sock = _open(f"{self.host}:{self.port}", self.place, self.port, self._tls)
        if sock is not None:
            self._http = http.client.HTTPConnection(self.host, self.port, timeout=RATE_S)
            self._http.sock = sock
        return door

    def ask(self) -> tuple[SelfTestReply | None, int]:
        signature = sign_self_test(self._identity.certificate, self._identity.signing_key).hex()
        body = msgspec.json.encode(SelfTestRequest(self._identity.certificate_pem, signature))
        began, at = time.monotonic(), time.time_ns() // 1_000_000
        status, answer, _, _ = self._post("/selftest", body)
        at += round((time.monotonic() - began) * 500)  # it was said half-way
        with contextlib.suppress(msgspec.DecodeError):
            if status == 200:
                return msgspec.json.decode(answer, type=SelfTestReply), at
        return None, at

    def rates(self) -> tuple[float | None, float | None]:
        """`(up, down)` in bit/s: what is sent until the first of the answer, less a round trip, and the answer."""
        up = down = None
        for size in (FIRST_BYTES, THEN_BYTES):
            rtt_s = (self.rtt_and_loss()[0] or 0.0) / 1000
            status, answer, first_s, whole_s = self._post("/line", bytes(size))
            if status != 200 or len(answer) != size:
                break
            up = 8 * size / max(first_s - rtt_s, 1e-4)
            down = 8 * size / max(whole_s - first_s, 1e-4)
            if whole_s > 1.0:
                break
        return up, down

    def rtt_and_loss(self) -> tuple[float | None, float | None]:
        """By the kernel's own account of this connection: the shortest round trip in ms, and what was sent again."""
        info = tcp_info(self._http.sock if self._http is not None else None)
        if info is None:
            return None, None
        return info.min_rtt_ms, info.sent_again / info.sent if info.sent >= 10 else None

    def used_bytes(self) -> int:
        info = tcp_info(self._http.sock if self._http is not None else None)
        return 0 if info is None else info.used_bytes

    def close(self) -> None:
        if self._http is not None:
            self._http.close()

    def _post(self, path: str, body: bytes) -> tuple[int, bytes, float, float]:
        """`(status, answer, seconds to its first byte, to its last)`; status 0 where the connection broke."""
        if self._http is None or self._http.sock is None:
            return 0, b"", 0.0, 0.0
        began = time.monotonic()
        try:
            self._http.request("POST", path, body, {"Content-Type": "application/json"})
            response = self._http.getresponse()
            first = time.monotonic()
            answer = response.read(MOST_BYTES)
        except (OSError, http.client.HTTPException):
            return 0, b"", 0.0, 0.0
        return response.status, answer, first - began, time.monotonic() - began


def _knock(where: str, place: str, port: int, tls: HubTls) -> tuple[Door, int]:
    door, used, sock = _open(where, place, port, tls)
    if sock is not None:
        info = tcp_info(sock)
        used = info.used_bytes if info else used
        sock.close()
    return door, used


def _open(where: str, place: str, port: int, tls: HubTls | None) -> tuple[Door, int, socket.socket | None]:
    """A connection, where it is one of our hub's."""
    try:
        sock = socket.create_connection((place, port), timeout=CONNECT_S)
    except ConnectionRefusedError:
        return Door(where, "refused"), 0, None
    except TimeoutError:
        return Door(where, "silent"), 0, None
    except OSError as error:
        how = "unreachable" if error.errno in _UNREACHABLE else "silent"
        return Door(where, how, why=error.strerror or str(error)), 0, None  # type: ignore[arg-type]
    if tls is None:
        return Door(where, "open", "open"), 0, sock
    sock.settimeout(TLS_S)
    try:
        return Door(where, "open", "open"), 0, tls.wrap_socket(sock)
    except CertificateRefused as error:
        door = Door(where, "open", "expired" if str(error) == RAN_OUT else "refused", str(error))
    except OutOfDate as error:
        door = Door(where, "open", "old", str(error))
    except ssl.SSLCertVerificationError as error:
        door = Door(where, "open", "alien", error.verify_message)
    except ssl.SSLError as error:
        plain = error.reason in (
            "WRONG_VERSION_NUMBER",
            "HTTP_REQUEST",
            "RECORD_LAYER_FAILURE",
            "PACKET_LENGTH_TOO_LONG",
        )
        door = Door(where, "open", "plain" if plain else "broken", f"TLS: {error.reason or error}")
    except OSError as error:
        door = Door(where, "open", "broken", f"the connection broke off ({error.strerror or error})")
    sock.close()
    return door, 0, None


# --- a page for signing in


def _portal(host: str, place: str, port: int, door: Door) -> str:
    """How one shows itself: the network says so, or plain HTTP to the hub is answered from elsewhere."""
    if said := _portal_by_network_manager():
        return said
    for number in (80, port) if door.tls == "plain" else (80,):
        said = _sent_elsewhere(host, place, number)
        if said:
            return said
    return ""


def _sent_elsewhere(host: str, place: str, port: int) -> str:
    asked = http.client.HTTPConnection(place, port, timeout=CONNECT_S)
    try:
        asked.request("GET", "/ca.pem", headers={"Host": host})
        answer = asked.getresponse()
        to = urlsplit(answer.headers.get("Location", "")).hostname
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        asked.close()
    if answer.status == 511:  # RFC 6585: network authentication required
        return "the network says that somebody must sign in (511)"
    if 300 <= answer.status < 400 and to and to not in (host, place):
        return f"what is asked of the hub is sent on to {to}"
    return ""


def _portal_by_network_manager() -> str:
    if shutil.which("nmcli") is None:
        return ""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        said = subprocess.run(
            ["nmcli", "-t", "networking", "connectivity"], capture_output=True, text=True, timeout=3, check=False
        ).stdout.strip()
        if said == "portal":
            return "NetworkManager says so"
    return ""


# --- small things


def _look_up(host: str) -> str:
    """An address of it, "" where none is found in time."""
    if _is_number(host):
        return host
    found: list[str] = []

    def look() -> None:
        with contextlib.suppress(OSError):
            found.append(str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]))

    thread = threading.Thread(target=look, name="lookup", daemon=True)  # a resolver may think for half a minute
    thread.start()
    thread.join(NAME_S)
    return found[0] if found else ""


def _is_number(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False
