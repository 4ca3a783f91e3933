"""The kiosk's connection to the broker: MQTT 5 with a persistent session, kept for ever.

paho's network loop runs in its own thread; everything here is called on, and calls back on, the event loop. Nothing is
queued for a lost link: a `publish` without a connection fails at once, and the caller's store is the queue. A loss is
logged once, and so is the return.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.addresses import AddressWatch, source_address
from edge_agent.clock import KioskClock
from edge_agent.config import KioskSettings
from edge_agent.core import wire
from edge_agent.core.split import segment_bytes, window_bytes
from edge_agent.dial import Dialler, bound_window, limit_timeouts, pace
from edge_agent.identity import Identity
from edge_agent.sealing import Sealing
from edge_agent.tcp_info import tcp_info
from edge_agent.tls import BrokerTls, CertificateRefused, OutOfDate

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
URGENT_CONNECT_TIMEOUT_S = 6.0  # TCP, then TLS; both are over in three seconds of a link of 1.3 s
SESSION_EXPIRY_S = 7 * 24 * 3600
FIRST_PAUSES_S = (0.3, 0.5, 1.0, 1.5, 2.0)  # a call in progress waits for this
MAX_PAUSE_S = 60.0
URGENT_PAUSE_S = 0.5  # while a call cannot go on without us
URGENT_DEAD_S = 6.0  # then: something is unacknowledged and nothing was heard for so long
MOVED_HURRY_S = 10.0  # after a change of addresses or routes
DEAD_AFTER_S = 20.0  # TCP alone goes on for minutes, and after an outage says nothing for as long again (RFC 6298, 5.5)
REFUSED_PAUSE_S = 30.0  # nothing will change before a person does something
CERTIFICATE_PAUSE_S = 300.0  # or until there is a newer one
LOSSY_TIMEOUT_S = 1.5
TCP_THIN_LINEAR_TIMEOUTS = 16  # tcp.h; a third of the packets may be lost while a call goes in turns
STEADY_S = 30.0  # connected this long, the pauses begin anew
IN_FLIGHT = 40  # unacknowledged publications that the broker may send us
MAX_PACKET_BYTES = 2 * wire.MAX_MESSAGE_BYTES

# Some brokers say that another took the session over, others (mosquitto 2.0) just close. A broker that restarts, or a
# link that breaks, fails to connect in between; a twin never does.
SUSPICIOUS_LIVES = 4
_TAKEN_OVER, _CLOSED = 0x8E, 0x80
_BY_DATES = -1  # ended by us, to connect again with certificates judged by their dates
_MOVED = -2  # ended by us: packets to the broker leave from another address now
_SILENT = -3  # ended by us: a call waits, and this connection seems dead
# MQTT 5, 3.4.2.1: topic name, packet too large, payload format. What a broker refuses for reasons of its own (rights,
# quota) is no fault of the message.
_POISON = {0x90, 0x95, 0x99}
_REFUSED = {0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x9D}  # MQTT 5, 3.2.2.2: protocol, client id, name, rights, banned, …


class NotConnected(ConnectionError):
    """No connection, or a broker that takes nothing now."""


class PublishRefused(Exception):
    """The broker took the packet and refused what is in it, and would do so again."""


class LinkListener(Protocol):
    def link_up(self, moved: bool) -> None:
        """`moved`: from another of our addresses than last time."""

    def link_down(self) -> None: ...

    def link_message(self, topic: str, payload: bytes) -> None:
        """As it came: not yet opened."""

    def link_trouble(self, code: str) -> None:
        """A notice's code, or "" when it is over: broker_refused, certificate_wrong, identity_in_use."""

    def link_refused(self) -> None:
        """The broker does not take this kiosk's certificate; the hub may have a newer one."""


class HubLink:
    """`run` keeps the connection until cancelled."""

    def __init__(
        self,
        settings: KioskSettings,
        identity: Identity,
        clock: KioskClock,
        sealing: Sealing,
        listener: LinkListener,
        last_will: wire.Status,
    ) -> None:
        self.kiosk = identity.kiosk
        self._settings, self._listener, self._last_will = settings.broker, listener, last_will
        self._clock, self._sealing = clock, sealing
        self._by_dates = False
        self._take_up(identity)
        self._call_waits = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: paho.Client | None = None
        self._up = False
        self._unacknowledged: dict[int, asyncio.Future[None]] = {}
        self._ended: asyncio.Future[int] | None = None
        self._trouble = ""
        self._lost_logged = False
        self._urgent = asyncio.Event()
        self._came_up_at = 0.0
        self._short_lives = 0  # connections that the broker closed soon, without one failing in between
        link = settings.link
        narrow_bps = 1000 * min(link.up_kbps, link.down_kbps)
        self._usual_window_bytes = window_bytes(narrow_bps)
        self._window_bytes = self._usual_window_bytes
        self._dialler = Dialler(self._hurried, segment_bytes(narrow_bps), self._usual_window_bytes)
        self._pace_bps: float | None = None
        self._timeout_s: float | None = None
        self._heard_at = 0.0
        self._own_address = ""  # of the last connection
        self._network_changed_at = -math.inf
        self._carried_before = 0
        self._connecting: _Client | None = None  # also while `_client` is not yet, or no more

    @property
    def up(self) -> bool:
        return self._up

    @property
    def alive(self) -> bool:
        """Whether paho's thread runs, where there is a connection for it to run."""
        thread = self._client._thread if self._client is not None else None
        return not self._up or (thread is not None and thread.is_alive())

    def carried_bytes(self) -> int:
        """Both ways since the start, as a meter of the link counts them."""
        return self._carried_before + (self._connecting.carried_bytes() if self._connecting is not None else 0)

    def renewed(self, identity: Identity) -> None:
        """For the next connection; the one that stands may go on."""
        self._take_up(identity)
        self._urgent.set()

    def _take_up(self, identity: Identity) -> None:
        host, port = identity.broker
        self._host, self._port = self._settings.host or host, self._settings.port or port
        self._tls = BrokerTls.of(identity, self._clock.dates_ms)

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        failures = 0
        watch = AddressWatch(self._network_changed)
        try:
            while True:
                began = self._loop.time()
                pause = await self._one_connection(failures)
                failures = 0 if self._loop.time() - began > STEADY_S else failures + 1
                await self._wait(pause)
        finally:
            watch.close()
            await self._close()

    def hurry(self, urgent: bool) -> None:
        """A call waits for the connection: no pause between two attempts is long, the one under way included."""
        self._call_waits = urgent
        if urgent:
            self._urgent.set()
        else:
            self._urgent.clear()

    def pace(self, bps: float | None) -> None:
        """No bursts over that, as beside a call; None: as fast as TCP goes."""
        self._pace_bps = bps
        if self._client is not None:
            self._pace_socket(self._client)

    def _pace_socket(self, client: paho.Client) -> None:
        sock = client.socket()
        if isinstance(sock, socket.socket):
            pace(sock, self._pace_bps)

    def bound_window(self, size_bytes: int | None) -> None:
        """How much of the broker's may be under way to here; None: as much as usual. Where the link is known for a
        good one it stays as it is."""
        if self._usual_window_bytes is not None:
            self._window_bytes = size_bytes or self._usual_window_bytes
            if self._client is not None:
                self._bound_socket(self._client)

    def limit_timeouts(self, limited: bool) -> None:
        """Where much is lost, TCP's own waiting is what a turn waits for."""
        self._timeout_s = LOSSY_TIMEOUT_S if limited else None
        if self._client is not None:
            self._limit_socket(self._client)

    def _limit_socket(self, client: paho.Client) -> None:
        sock = client.socket()
        if isinstance(sock, socket.socket):
            limit_timeouts(sock, self._timeout_s)

    def _bound_socket(self, client: paho.Client) -> None:
        sock = client.socket()
        if isinstance(sock, socket.socket) and self._window_bytes is not None:
            bound_window(sock, self._window_bytes)

    def _hurried(self) -> bool:
        """From any thread."""
        return self._call_waits or time.monotonic() - self._network_changed_at < MOVED_HURRY_S

    def _network_changed(self) -> None:
        self._network_changed_at = time.monotonic()
        self._urgent.set()
        if self._connecting is None or not self._connecting.has_lost_its_address():
            return
        if self._up and self._client is not None:
            self._end(self._client, _MOVED)
        else:
            self._connecting.abort()

    def clock_is_trusted(self) -> None:
        """Where the certificates of this connection were taken without their dates, it is made again."""
        if self._up and not self._by_dates and self._client is not None and self._clock.dates_ms() is not None:
            self._end(self._client, _BY_DATES)

    async def publish(self, message: wire.Message, *, file_key: bytes = b"", retain: bool = False) -> None:
        """Signed and sealed, QoS 1; returns with the broker's PUBACK. A chunk needs its file's key. Raises
        NotConnected or PublishRefused."""
        client = self._client
        if client is None or not self._up:
            raise NotConnected("no connection to the broker")
        topic, payload = self._sealing.seal(message, file_key)
        sent = client.publish(topic, payload, qos=1, retain=retain)
        if sent.rc != paho.MQTT_ERR_SUCCESS:
            raise NotConnected(paho.error_string(sent.rc))
        # The acknowledgement is handed over by `call_soon_threadsafe`, so it cannot be here before this line.
        loop = asyncio.get_running_loop()
        acknowledged = self._unacknowledged[sent.mid] = loop.create_future()
        doubt = loop.call_later(URGENT_DEAD_S, self._doubt, client, loop.time())
        try:
            await acknowledged
        finally:
            doubt.cancel()

    def _doubt(self, client: paho.Client, sent_at: float) -> None:
        """TCP after an outage may stay silent for as long again: a call that waits is better off with a new one."""
        if self._call_waits and self._heard_at < sent_at:
            self._end(client, _SILENT)

    # one connection

    async def _wait(self, pause: float) -> None:
        short = min(pause, URGENT_PAUSE_S)
        await asyncio.sleep(short)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause - short):
                await self._urgent.wait()
        if not self._call_waits:
            self._urgent.clear()

    async def _one_connection(self, failures: int) -> float:
        """Connects, and returns when the connection has ended: the pause before the next."""
        assert self._loop is not None  # noqa: S101 -- set by run
        self._ended = self._loop.create_future()
        self._by_dates = self._clock.dates_ms() is not None
        last_will = wire.Message(self._last_will, sent_at_ms=self._clock.wall_ms())
        self._came_up_at = 0.0
        try:
            self._client = await self._loop.run_in_executor(None, self._connect, *self._sealing.seal(last_will))
        except ssl.SSLCertVerificationError as error:
            self._refused(
                "certificate_wrong",
                f"the broker at {self._host} is not this kiosk's hub: its certificate is wrong"
                f" ({error.verify_message}). Check broker.host and this kiosk's clock; if the hub is a"
                " new one, join it",
            )
            return _jitter(REFUSED_PAUSE_S)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:  # the connection ended in the middle of it
            self._short_lives = 0
            self._lost(f"{self._host}:{self._port}: {error.reason or error}")
            return _pause(failures)
        except ssl.SSLError as error:
            self._refused("certificate_wrong", f"no TLS with {self._host}: {error.reason or error}")
            return _jitter(REFUSED_PAUSE_S)
        except OutOfDate as error:
            if self._clock.doubt():
                log.warning("broker's certificate doubted reason=%s: the hub is asked for the time", error)
                return _pause(failures)
            self._refused(
                "certificate_wrong",
                f"the broker at {self._host} shows an old certificate: {error}. Start the hub anew: it renews its own",
            )
            return _jitter(REFUSED_PAUSE_S)
        except CertificateRefused as error:
            self._refused("broker_refused", f"the broker at {self._host} refuses {self.kiosk}: {error}")
            self._listener.link_refused()
            return _jitter(CERTIFICATE_PAUSE_S)
        except (OSError, ValueError) as error:
            self._short_lives = 0
            self._tls.careful = isinstance(error, ConnectionError)
            self._lost(f"{self._host}:{self._port}: {error}")
            return _pause(failures)
        try:
            code = await self._ended
        finally:
            self._down()
            await self._close()
        self._tls.careful = not self._came_up_at
        if code == _BY_DATES:
            log.info("broker connected anew, now by its certificate's dates")
            return 0.0
        if code == _MOVED:
            log.info("broker connected anew, from another address")
            return 0.0
        if code in (_TAKEN_OVER, _CLOSED) and self._lived_s() < STEADY_S:
            self._short_lives += 1
            if self._short_lives >= SUSPICIOUS_LIVES or code == _TAKEN_OVER:
                self._refused(
                    "identity_in_use", f"another machine connects as {self.kiosk}: each kiosk needs its own id"
                )
                return _jitter(min(REFUSED_PAUSE_S, 2.0**self._short_lives))
        if code in _REFUSED:
            self._refused(
                "broker_refused",
                f"the broker refuses {self.kiosk}: {_reason(code)}; join the hub anew",
            )
            return _jitter(REFUSED_PAUSE_S)
        self._lost(_reason(code))
        return _pause(failures)

    def _connect(self, will_topic: str, will_payload: bytes) -> paho.Client:
        """In a thread: resolves, connects, and starts paho's own."""
        client = _Client(
            self._dialler,
            CallbackAPIVersion.VERSION2,
            client_id=self.kiosk,
            protocol=paho.MQTTv5,
            reconnect_on_failure=False,
        )
        self._let_go()
        self._connecting = client
        client.connect_timeout = URGENT_CONNECT_TIMEOUT_S if self._hurried() else CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(1000)  # the outbox bounds what is in flight
        client.tls_set_context(self._tls)
        client.will_set(will_topic, will_payload, qos=1, retain=True)
        client.on_socket_open = _tune
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        properties.ReceiveMaximum = IN_FLIGHT
        client.connect(
            self._host, self._port, keepalive=self._settings.keepalive_s, clean_start=False, properties=properties
        )
        # Behind CONNECT without waiting for its answer (MQTT 5, 3.1.4): on a long link a second that a call waits for.
        client.subscribe([(f"{wire.TOPIC_ROOT}/{self.kiosk}/d/#", 1), (f"{wire.TOPIC_ROOT}/{wire.ALL_KIOSKS}/d/#", 1)])
        client.loop_start()
        return client

    async def _close(self) -> None:
        client, self._client = self._client, None
        self._let_go()
        if client is not None:
            assert self._loop is not None  # noqa: S101
            client.disconnect()
            await asyncio.shield(self._loop.run_in_executor(None, client.loop_stop))

    def _let_go(self) -> None:
        if self._connecting is not None:
            client, self._connecting = self._connecting, None
            self._carried_before += client.carried_bytes()
            client.let_go()

    # from paho's thread

    def _on_connect(self, client: paho.Client, _: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if code.is_failure:
            self._call(self._end, client, code.value)

    def _on_subscribe(self, client: paho.Client, _: Any, mid: int, codes: list[ReasonCode], properties: Any) -> None:
        failed = next((code.value for code in codes if code.is_failure), None)
        if failed is not None:
            self._call(self._end, client, failed)
        else:
            self._call(self._came_up, client)

    def _on_message(self, client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        self._call(self._took, client, message.topic, message.payload)

    def _on_publish(self, client: paho.Client, _: Any, mid: int, code: ReasonCode, properties: Any) -> None:
        self._call(self._acknowledge, client, mid, code)

    def _on_disconnect(self, client: paho.Client, _: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        self._call(self._end, client, code.value)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None  # noqa: S101
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            log.debug("the event loop has ended")  # while stopping

    # on the event loop

    def _end(self, client: paho.Client, code: int) -> None:
        if self._ended is not None and not self._ended.done() and self._client in (client, None):
            self._ended.set_result(code)

    def _came_up(self, client: paho.Client) -> None:
        if self._ended is None or self._ended.done():
            return
        self._client = client
        self._tls.keep_session(client.socket())
        self._up = True
        self._lost_logged = False
        assert self._loop is not None  # noqa: S101
        self._came_up_at = self._loop.time()
        if self._trouble != "identity_in_use":
            self._set_trouble("")
        log.info("broker connected host=%s port=%d kiosk=%s", self._host, self._port, self.kiosk)
        sock = client.socket()
        own_address = sock.getsockname()[0] if sock is not None else self._own_address
        moved, self._own_address = self._own_address not in ("", own_address), own_address
        self._loop.call_later(STEADY_S, self._steady, client)
        self._pace_socket(client)
        self._bound_socket(client)
        self._limit_socket(client)
        self._listener.link_up(moved)

    def _steady(self, client: paho.Client) -> None:
        if client is self._client:
            self._short_lives = 0
            self._set_trouble("")

    def _took(self, client: paho.Client, topic: str, payload: bytes) -> None:
        self._heard()
        if client is self._client or self._client is None:
            self._listener.link_message(topic, payload)

    def _heard(self) -> None:
        assert self._loop is not None  # noqa: S101 -- set by run
        self._heard_at = self._loop.time()

    def _acknowledge(self, client: paho.Client, mid: int, code: ReasonCode) -> None:
        self._heard()
        waiting = self._unacknowledged.pop(mid, None) if client is self._client else None
        if waiting is None or waiting.done():
            return
        if code.value in _POISON:
            waiting.set_exception(PublishRefused(str(code)))
        elif code.is_failure:
            waiting.set_exception(NotConnected(str(code)))
        else:
            waiting.set_result(None)

    def _down(self) -> None:
        was_up, self._up = self._up, False
        waiting, self._unacknowledged = list(self._unacknowledged.values()), {}
        for future in waiting:
            if not future.done():
                future.set_exception(NotConnected("the connection was lost"))
        if was_up:
            self._listener.link_down()

    def _lived_s(self) -> float:
        """How long this connection was up; for ever where it never was."""
        assert self._loop is not None  # noqa: S101
        return self._loop.time() - self._came_up_at if self._came_up_at else math.inf

    def _lost(self, why: str) -> None:
        if not self._lost_logged:
            self._lost_logged = True
            log.warning("broker lost reason=%s: it is tried again for ever", why)

    def _refused(self, code: str, line: str) -> None:
        if self._trouble != code:
            log.error("broker trouble=%s %s", code, line)
        self._set_trouble(code)

    def _set_trouble(self, code: str) -> None:
        if code != self._trouble:
            self._trouble = code
            self._listener.link_trouble(code)


class _Client(paho.Client):
    """Connects by a `Dialler`. paho has no other place to put one in."""

    def __init__(self, dialler: Dialler, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._dialler = dialler

        self._twin: socket.socket | None = None  # of the one that TLS has taken over

    def _create_socket_connection(self) -> socket.socket:
        sock = self._dialler.dial(self.host, self.port, self.connect_timeout)
        self._twin = sock.dup()
        return sock

    def has_lost_its_address(self) -> bool:
        """Packets to the far end leave from another address than this connection's."""
        if self._twin is None:
            return False
        try:
            leaves_from = source_address(self._twin.getpeername()[:2])
            return leaves_from not in ("", self._twin.getsockname()[0])
        except OSError:
            return False  # not connected any more

    def carried_bytes(self) -> int:
        info = tcp_info(self._twin)
        return info.used_bytes if info is not None else 0

    def abort(self) -> None:
        """Whatever it waits for fails at once."""
        if self._twin is not None:
            with contextlib.suppress(OSError):
                self._twin.shutdown(socket.SHUT_RDWR)

    def let_go(self) -> None:
        if self._twin is not None:
            self._twin.close()
            self._twin = None


def _tune(client: paho.Client, _: Any, sock: Any) -> None:
    if isinstance(sock, socket.socket):
        # Signalling is small packets: Nagle would hold them back for a round trip.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(DEAD_AFTER_S * 1000))
        with contextlib.suppress(OSError):  # Linux's own: with little under way, timeouts that do not double
            sock.setsockopt(socket.IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1)


def _pause(failures: int) -> float:
    if failures < len(FIRST_PAUSES_S):
        return _jitter(FIRST_PAUSES_S[failures])
    return _jitter(min(MAX_PAUSE_S, 2.0 * 2 ** (failures - len(FIRST_PAUSES_S) + 1)))


def _jitter(seconds: float) -> float:
    return seconds * random.uniform(0.75, 1.25)  # noqa: S311 -- so that kiosks do not come back in step


def _reason(code: int) -> str:
    if code == _CLOSED:
        return "the connection was closed"
    if code == _SILENT:
        return f"nothing heard for {URGENT_DEAD_S:.0f} s while a call waits"
    for packet in (PacketTypes.CONNACK, PacketTypes.DISCONNECT, PacketTypes.SUBACK):
        try:
            return str(ReasonCode(packet, identifier=code))
        except (KeyError, ValueError):
            continue
    return f"code {code}"
