"""The hub as the agent knows it: within reach or not, who is there, what its clock says; and messages to and from it.

What nobody keeps is published here and dropped without a connection; what is kept goes through `delivery`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Literal, Protocol

from edge_agent.config import KioskSettings
from edge_agent.core import wire
from edge_agent.delivery import wall_ms
from edge_agent.identity import Identity, IdentityDamaged, NotJoined
from edge_agent.mqtt import HubLink, NotConnected, PublishRefused
from edge_agent.renewal import Renewal

log = logging.getLogger(__name__)

CLOCK_TOLERANCE_MS = 120_000
GOODBYE_S = 1.0

Presence = tuple[Literal["here", "busy", "nobody", "offline"], int, str]
OFFLINE: Presence = ("offline", 0, "")


class HubOwner(Protocol):
    def hub_reached(self) -> None:
        """Also when it, or the broker, has come anew and may have lost what was on its way."""

    def hub_lost(self) -> None: ...

    def hub_told(self, message: wire.Message) -> None: ...

    def condition(self, code: str, holds: bool) -> None: ...

    def changed(self) -> None: ...


class HubSide:
    """`link` is None until this kiosk has joined."""

    def __init__(self, settings: KioskSettings, owner: HubOwner, last_will: wire.Status) -> None:
        self._owner = owner
        self.presence: Presence = OFFLINE
        self.clock_trusted = False
        self.malformed_messages = 0
        self._hubs: set[str] = set()
        self._reachable = False
        self._unknown_kinds: set[tuple[int, int]] = set()
        self._status: wire.Status | None = None  # as it was published last
        self._passing: set[asyncio.Task[None]] = set()
        self.link: HubLink | None = None
        self.renewal: Renewal | None = None
        try:
            identity = Identity.load(settings.identity_dir)
        except (NotJoined, IdentityDamaged) as error:
            log.error("hub not connected reason=%s", error)
        else:
            self.link = HubLink(settings, identity, self, wire.encode(wire.Message(last_will)))
            self.renewal = Renewal(identity, settings.hub.address, self.link.renewed)

    @property
    def reachable(self) -> bool:
        return self._reachable

    # to it

    def publish(self, consult: bytes, body: wire.Body) -> None:
        """What nobody keeps: without a connection it is dropped, and said again when it matters."""
        if self.link is not None and self.link.up:
            self._send(self.link, wire.Message(body, consult, sent_at_ms=max(0, wall_ms())), retain=False)

    def publish_status(self, status: wire.Status) -> None:
        """Retained; once for each change."""
        if self.link is not None and self.link.up and status != self._status:
            self._status = status
            self._send(self.link, wire.Message(status, sent_at_ms=max(0, wall_ms())), retain=True)

    async def say_goodbye(self, status: wire.Status) -> None:
        """The last will is for deaths; an orderly end says it itself."""
        if self.link is not None and self.link.up:
            payload = wire.encode(wire.Message(status, sent_at_ms=max(0, wall_ms())))
            with contextlib.suppress(TimeoutError, NotConnected, PublishRefused):
                async with asyncio.timeout(GOODBYE_S):
                    await self.link.publish(wire.up_topic(self.link.kiosk, "s"), payload, retain=True)
        for task in self._passing:
            task.cancel()

    def _send(self, link: HubLink, message: wire.Message, *, retain: bool) -> None:
        async def send() -> None:
            try:
                await link.publish(wire.up_topic(link.kiosk, message.body.CHANNEL), wire.encode(message), retain=retain)
            except NotConnected:
                return
            except PublishRefused as error:
                log.warning("message refused kind=%d reason=%s", message.body.KIND, error)

        task = asyncio.get_running_loop().create_task(send())
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    # LinkListener

    def link_up(self) -> None:
        self._status = None
        self._owner.changed()

    def link_down(self) -> None:
        self._hubs.clear()
        self._hubs_changed()

    def link_trouble(self, code: str) -> None:
        for one in ("broker_refused", "certificate_wrong", "identity_in_use"):
            self._owner.condition(one, one == code)

    def link_refused(self) -> None:
        if self.renewal is not None:
            self.renewal.now()

    def link_message(self, topic: str, payload: bytes) -> None:
        hub = topic.removeprefix(wire.hub_topic(""))
        if hub != topic and not payload:
            self._hubs.discard(hub)  # its retained status was cleared
            self._hubs_changed()
            return
        try:
            message = wire.decode(payload)
        except wire.UnknownMessage as error:
            if (error.version, error.kind) not in self._unknown_kinds:
                self._unknown_kinds.add((error.version, error.kind))
                log.warning("message unknown version=%d kind=%d: this kiosk is older", error.version, error.kind)
        except wire.MalformedMessage as error:
            self.malformed_messages += 1
            log.warning("message malformed topic=%s count=%d reason=%s", topic, self.malformed_messages, error)
        else:
            if hub != topic:
                self._hub_said(hub, message.body)
            else:
                self._told(message)

    def _hub_said(self, hub: str, body: wire.Body) -> None:
        if not isinstance(body, wire.HubStatus):
            return
        if body.online and hub in self._hubs:
            log.info("hub came anew process=%s", hub)
            self._owner.hub_reached()
            return
        (self._hubs.add if body.online else self._hubs.discard)(hub)
        self._hubs_changed()

    def _hubs_changed(self) -> None:
        reachable = bool(self._hubs)
        if reachable == self._reachable:
            return
        self._reachable = reachable
        log.info("hub %s", "reached" if reachable else "lost")
        if reachable:
            self._owner.hub_reached()
        else:
            self.presence = OFFLINE
            self._owner.hub_lost()

    def _told(self, message: wire.Message) -> None:
        body = message.body
        if isinstance(body, (wire.Presence, wire.CallState)):  # sent this moment, never kept for later
            self._compare_clock(message.sent_at_ms)
        if isinstance(body, wire.Presence):
            self.presence = (body.state, body.position, body.until)
            self._owner.changed()
        else:
            self._owner.hub_told(message)

    def _compare_clock(self, hub_ms: int) -> None:
        if hub_ms:
            self.clock_trusted = abs(hub_ms - wall_ms()) <= CLOCK_TOLERANCE_MS
            self._owner.condition("clock_wrong", not self.clock_trusted)
