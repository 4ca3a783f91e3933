"""The hub as the agent knows it: within reach or not, who is there, what its clock says; and messages to and from it.

What nobody keeps is published here and dropped without a connection; what is kept goes through `delivery`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import Literal, Protocol

import msgspec

from edge_agent.clock import KioskClock
from edge_agent.config import KioskSettings
from edge_agent.core import trust, wire
from edge_agent.identity import Identity, IdentityDamaged, NotJoined
from edge_agent.mqtt import HubLink, NotConnected, PublishRefused
from edge_agent.renewal import Renewal
from edge_agent.sealing import Sealing

log = logging.getLogger(__name__)

ASK_TIME_S = 3600.0  # a crystal is wrong by a fifth of a second then
ASK_TIME_AGAIN_S = 30.0  # while it is not known: an answer was lost, or was longer on its way than it may be
GOODBYE_S = 1.0

Presence = tuple[Literal["here", "busy", "nobody", "offline"], int, str]
OFFLINE: Presence = ("offline", 0, "")


class HubOwner(Protocol):
    def hub_reached(self) -> None:
        """Also when it, or the broker, has come anew and may have lost what was on its way."""

    def hub_lost(self) -> None: ...

    def hub_went_back(self, epoch: bytes, since_ms: int) -> None:
        """It was restored from a backup of then; said each time that it is met."""

    def hub_is_new(self, other_release: bool) -> None:
        """One of its processes has started anew, or was not seen before; after `hub_reached`."""

    def address_changed(self) -> None:
        """The hub was reached from another of our addresses than before; after `hub_reached`."""

    def hub_told(self, message: wire.Message) -> None: ...

    def condition(self, code: str, holds: bool) -> None: ...

    def clock_told(self) -> None: ...

    def changed(self) -> None: ...


class HubSide:
    """`link` is None until this kiosk has joined."""

    def __init__(
        self, settings: KioskSettings, owner: HubOwner, clock: KioskClock, counters: bytes, last_will: wire.Status
    ) -> None:
        """`counters` is what `Sealing.to_save` gave last."""
        self._owner, self._clock = owner, clock
        self.presence: Presence = OFFLINE
        self.malformed_messages = 0
        self._hubs: dict[str, bytes] = {}  # processes that are there, with their sessions
        self._seen: dict[str, tuple[bytes, str]] = {}  # all that were there once, with session and release
        self._reachable = False
        self._moved = False  # since the hub was within reach
        self._unknown_kinds: set[tuple[int, int]] = set()
        self._status: wire.Status | None = None  # as it was published last
        self._session = b""
        self._passing: set[asyncio.Task[None]] = set()
        self.link: HubLink | None = None
        self.sealing: Sealing | None = None
        self._time_asked_at = 0.0
        self.renewal: Renewal | None = None
        try:
            identity = Identity.load(settings.identity_dir)
        except (NotJoined, IdentityDamaged) as error:
            log.error("hub not connected reason=%s", error)
        else:
            own = trust.OwnKeys(identity.signing_key, identity.seal_key)
            hub = trust.FarKeys(identity.hub_signing_key, identity.hub_seal_key)
            self.sealing = Sealing(identity.kiosk, own, hub, clock, counters)
            self.link = HubLink(settings, identity, clock, self.sealing, self, last_will)
            self.renewal = Renewal(identity, settings.hub.address, clock, self.link.renewed)

    @property
    def reachable(self) -> bool:
        return self._reachable

    # to it

    def publish(self, consult: bytes, body: wire.Body) -> None:
        """What nobody keeps: without a connection it is dropped, and said again when it matters."""
        if self.link is not None and self.link.up:
            self._send(self.link, wire.Message(body, consult, sent_at_ms=self._clock.wall_ms()), retain=False)

    def publish_status(self, status: wire.Status) -> None:
        """Retained; once for each change."""
        if self.link is not None and self.link.up and status != self._status:
            self._status = status
            told = msgspec.structs.replace(status, session=self._session)
            self._send(self.link, wire.Message(told, sent_at_ms=self._clock.wall_ms()), retain=True)

    def watch_clock(self, now: float) -> None:
        """Every few seconds; `now` is monotonic."""
        known = self._clock.dates_ms() is not None
        if self._reachable and now - self._time_asked_at >= (ASK_TIME_S if known else ASK_TIME_AGAIN_S):
            self._ask_time()
        if self._clock.trusted and self.link is not None:
            self.link.clock_is_trusted()
        self._owner.condition("clock_wrong", self._clock.wrong)

    def _ask_time(self) -> None:
        self._time_asked_at = asyncio.get_running_loop().time()
        self.publish(b"", self._clock.ask())

    async def say_goodbye(self, status: wire.Status) -> None:
        """The last will is for deaths; an orderly end says it itself."""
        if self.link is not None and self.link.up:
            message = wire.Message(status, sent_at_ms=self._clock.wall_ms())
            with contextlib.suppress(TimeoutError, NotConnected, PublishRefused):
                async with asyncio.timeout(GOODBYE_S):
                    await self.link.publish(message, retain=True)
        for task in self._passing:
            task.cancel()

    def _send(self, link: HubLink, message: wire.Message, *, retain: bool) -> None:
        async def send() -> None:
            try:
                await link.publish(message, retain=retain)
            except NotConnected:
                return
            except PublishRefused as error:
                log.warning("message refused kind=%d reason=%s", message.body.KIND, error)

        task = asyncio.get_running_loop().create_task(send())
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    # LinkListener

    def link_up(self, moved: bool) -> None:
        self._moved = self._moved or moved
        self._status, self._session = None, secrets.token_bytes(8)
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
        assert self.sealing is not None  # noqa: S101 -- there is a link
        hub = topic.removeprefix(wire.hub_topic(""))
        if hub != topic and not payload:
            self._hubs.pop(hub, None)  # its retained status was cleared
            self._hubs_changed()
            return
        try:
            message = self.sealing.open(topic, payload)
        except trust.TrustError:  # counted and logged there
            self._owner.condition("messages_refused", self.sealing.strangers)
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
        session = self._hubs.get(hub)
        if not body.online:
            self._hubs.pop(hub, None)
        else:
            self._hubs[hub] = body.session
        self._hubs_changed()
        if body.online and body.epoch:
            self._owner.hub_went_back(body.epoch, body.lost_since_ms)
        if body.online and session is not None and session != body.session:
            log.info("hub came anew process=%s", hub)
            self._ask_time()
            self._owner.hub_reached()
        seen = self._seen.get(hub)
        if body.online and seen != (body.session, body.software):
            self._seen[hub] = (body.session, body.software)
            self._owner.hub_is_new(other_release=seen is not None and seen[1] != body.software)

    def _hubs_changed(self) -> None:
        reachable = bool(self._hubs)
        if reachable == self._reachable:
            return
        self._reachable = reachable
        log.info("hub %s", "reached" if reachable else "lost")
        if reachable:
            self._owner.hub_reached()
            if self._moved:
                self._moved = False
                self._owner.address_changed()
            self._ask_time()
        else:
            self.presence = OFFLINE
            self._owner.hub_lost()

    def _told(self, message: wire.Message) -> None:
        body = message.body
        if isinstance(body, wire.TimeTold):
            self._clock.told(body)
            self.watch_clock(asyncio.get_running_loop().time())
            self._owner.clock_told()
        elif isinstance(body, wire.Presence):
            self.presence = (body.state, body.position, body.until)
            self._owner.changed()
        else:
            self._owner.hub_told(message)
