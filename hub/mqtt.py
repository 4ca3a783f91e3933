"""The hub's end of the broker: one MQTT 5 session that outlives connections, acknowledged after the commit.

Signals, events and chunks come through shared subscriptions, so that several hub processes share them; status comes
to each, for it is retained. What is published while the broker is away is dropped: all of it is either kept in the
database or state that is said again when the link is back (`Switchboard.link_up`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version

import aiomqtt
import msgspec
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.core import wire
from hub.broker import tls_context
from hub.config import HubSettings
from hub.intake import Arrival
from hub.outgoing import NOTICE_TOPIC, Notice, decode_notice
from hub.sealing import Sealing

log = logging.getLogger(__name__)

SHARED = tuple(f"$share/hub/{wire.TOPIC_ROOT}/+/u/{channel}" for channel in "cef")
STATUS = f"{wire.TOPIC_ROOT}/+/u/s"
SESSION_S = 3600  # the broker keeps our session, and what comes meanwhile, this long
KEEPALIVE_S = 15
IN_FLIGHT = 256  # unacknowledged publications the broker may send us: what one transaction can take
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
STATUS_EVERY_S = 300.0  # kiosks without a clock of their own read the time off it


class Link:
    def __init__(
        self,
        settings: HubSettings,
        sealing: Sealing,
        arrived: Callable[[Arrival], None],
        noticed: Callable[[Notice], Awaitable[None]],
        up: Callable[[], Awaitable[None]],
    ) -> None:
        self._settings, self._sealing, self._arrived, self._noticed, self._up = settings, sealing, arrived, noticed, up
        self._client: aiomqtt.Client | None = None
        self._status_topic = wire.hub_topic(settings.broker.process)

    @property
    def connected(self) -> bool:
        return self._client is not None

    def publish(self, topic: str, payload: bytes) -> None:
        """At least once while the broker is there; returns at once."""
        if self._client is not None:
            self._client._client.publish(topic, payload, qos=1)  # aiomqtt's own waits for the PUBACK

    async def run(self) -> None:
        """For ever: connect, serve, connect again."""
        failures, lost_logged = 0, False
        while True:
            try:
                async with self._new_client() as client:
                    failures = 0
                    log.info("broker %s host=%s port=%d", "back" if lost_logged else "connected", *self._address)
                    lost_logged = False
                    await self._serve(client)
            except (aiomqtt.MqttError, OSError, ValueError) as error:
                if not lost_logged:
                    log.error("broker lost, trying on host=%s port=%d: %s", *self._address, _reason(error))
                lost_logged = True
            finally:
                self._client = None
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
            failures += 1

    @property
    def _address(self) -> tuple[str, int]:
        return self._settings.broker.host, self._settings.broker.port

    def _new_client(self) -> aiomqtt.Client:
        """Reads password and CA anew, so that a fault in them can be put right without a restart."""
        broker = self._settings.broker
        connect = Properties(PacketTypes.CONNECT)
        connect.SessionExpiryInterval = SESSION_S
        connect.ReceiveMaximum = IN_FLIGHT
        client = aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.username,
            password=self._settings.broker_password_path.read_text(encoding="utf-8").strip(),
            identifier=f"hub-{broker.process}",
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=connect,
            keepalive=KEEPALIVE_S,
            max_queued_outgoing_messages=0,
            tls_context=tls_context(broker),
            will=aiomqtt.Will(self._status_topic, self._status(online=False), qos=1, retain=True),
        )
        client._client.manual_ack_set(True)  # paho's; aiomqtt has no word for it
        return client

    async def _serve(self, client: aiomqtt.Client) -> None:
        options = SubscribeOptions(qos=1)
        own_excluded = SubscribeOptions(qos=1, noLocal=True)
        await client.subscribe([*((topic, options) for topic in (*SHARED, STATUS)), (NOTICE_TOPIC, own_excluded)])
        self._client = client
        saying = asyncio.create_task(self._say_online(client))
        try:
            await self._up()
            async for message in client.messages:
                await self._take(client, message)
        finally:
            saying.cancel()

    async def _take(self, client: aiomqtt.Client, message: aiomqtt.Message) -> None:
        topic, payload = str(message.topic), message.payload
        mid, qos = message.mid, message.qos

        def done() -> None:
            if self._client is client:  # of a connection that is gone, the broker sends it again
                client._client.ack(mid, qos)

        if topic == NOTICE_TOPIC:
            try:
                await self._noticed(decode_notice(payload))
            except msgspec.MsgspecError:
                log.warning("notice of another hub process not understood; do all run one version?")
            done()
        else:
            self._arrived(Arrival(topic, payload if isinstance(payload, bytes) else b"", done))

    async def _say_online(self, client: aiomqtt.Client) -> None:
        connection = secrets.token_bytes(8)
        while True:
            client._client.publish(
                self._status_topic, self._status(online=True, session=connection), qos=1, retain=True
            )
            await asyncio.sleep(STATUS_EVERY_S)

    async def say_offline(self) -> None:
        """Before an orderly stop; the last will says it after any other."""
        if self._client is None:
            return
        try:
            await self._client.publish(self._status_topic, self._status(online=False), qos=1, retain=True, timeout=2)
        except aiomqtt.MqttError as error:
            log.warning("not said to the broker that this hub stops: %s", _reason(error))

    def _status(self, online: bool, session: bytes = b"") -> bytes:
        now_ms = int(time.time() * 1000)
        return self._sealing.status(wire.HubStatus(online, software(), now_ms if online else 0, session))


def software() -> str:
    try:
        return version("teleconsult-kit")
    except PackageNotFoundError:  # run from a clone
        return "source"


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
