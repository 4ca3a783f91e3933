"""Carries the outbox out: reads what is next, publishes it, and tells the outbox what became of it.

Waiting messages are small and held in memory as they stand in the store; files are read chunk by chunk.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable

from edge_agent.clock import KioskClock
from edge_agent.core import wire
from edge_agent.core.outbox import (
    AROUND_CHUNK_BYTES,
    Freed,
    Item,
    Outbox,
    SendChunk,
    SendMessage,
    message_wire_bytes,
)
from edge_agent.core.retries import Retries, SetAside
from edge_agent.core.window import Window
from edge_agent.mqtt import HubLink, NotConnected, PublishRefused
from edge_agent.storage import StoreThread

log = logging.getLogger(__name__)


class Delivery:
    """`freed` is told what the store may let go, `set_aside` which message is set aside, how often and when, `carried`
    of what left for which consult, in bytes on the wire."""

    def __init__(
        self,
        store: StoreThread,
        link: HubLink | None,
        clock: KioskClock,
        link_bps: float,
        freed: Callable[[Freed], None],
        set_aside: Callable[[bytes, SetAside], None],
        carried: Callable[[bytes, int], None],
    ) -> None:
        self.outbox = Outbox(Window(link_bps), random.random)
        self._store, self._link, self._clock = store, link, clock
        self._freed, self._set_aside, self._carried = freed, set_aside, carried
        self._retries = Retries()
        self._messages: dict[bytes, wire.Message] = {}
        self._file_keys: dict[tuple[bytes, bytes], bytes] = {}  # by consult and digest
        self._carrying: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def load(self, waiting: Iterable[wire.Message], set_aside: dict[bytes, SetAside], urgent: Iterable[bytes]) -> None:
        """What waits since before this start; `urgent` are consults of emergencies."""
        for consult in urgent:
            self.outbox.emergency(consult)
        for id, aside in set_aside.items():
            self._retries.load(id, aside)
        self.add(*waiting)

    def add(self, *messages: wire.Message) -> None:
        for message in messages:
            self._messages[message.id] = message
            if isinstance(message.body, wire.Manifest):
                self._file_keys[message.consult, message.body.digest] = message.body.key
            self.outbox.add(message, aside=message.id in self._retries)
        self._pump()

    def unsent_since_ms(self, consult: bytes) -> int:
        """When the oldest of what waits was made; 0 when all of it is at the hub."""
        return min((m.sent_at_ms for m in self._messages.values() if m.consult == consult), default=0)

    def oldest_ms(self) -> int:
        """When the oldest of all that waits was made; 0 when all of it is at the hub."""
        return min((m.sent_at_ms for m in self._messages.values()), default=0)

    def waits_in(self, consult: bytes) -> bool:
        return any(message.consult == consult for message in self._messages.values())

    def set_aside_in(self, consult: bytes) -> int:
        """Messages and files of it that the hub, or this kiosk, could not take."""
        return sum(message.consult == consult for id, message in self._messages.items() if id in self._retries)

    @property
    def set_aside(self) -> int:
        return len(self._retries)

    def waiting(self) -> list[wire.Message]:
        """All that has no receipt."""
        return list(self._messages.values())

    def file_waits(self, consult: bytes, digest: bytes) -> bool:
        return (consult, digest) in self._file_keys

    def says_in(self, consult: bytes) -> bool:
        """Whether something that was said in turns is on its way."""
        return any(m.consult == consult and isinstance(m.body, wire.TurnPart) for m in self._messages.values())

    def reached(self) -> None:
        self.outbox.reached(time.monotonic())
        self._pump()

    def lost(self) -> None:
        self.outbox.lost()

    def hub_is_new(self, other_release: bool) -> None:
        self._try_again(self._retries.hub_is_new(self._clock.wall_ms(), other_release))

    def try_again(self) -> None:
        """All that is set aside, because a person asks for it."""
        self._try_again(self._retries.asked_for())

    def tick(self) -> None:
        """Every few seconds."""
        self._try_again(self._retries.due(self._clock.wall_ms()))

    def _try_again(self, ids: list[bytes]) -> None:
        for id in ids:
            log.info("message tried again id=%s", id.hex())
            self.outbox.retry(id, time.monotonic())
        if ids:
            self._pump()

    def share_link(self, bps: float | None) -> None:
        """Keep within that rate, as beside a call; None: nothing else uses the link."""
        self.outbox.set_budget(None if bps is None else bps / 8, time.monotonic())
        self._pump()

    def hold_files(self, held: bool) -> None:
        """While a call waits for an answer over the same link."""
        if held != self.outbox.holds_files:
            self.outbox.holds_files = held
            self._pump()

    def let_go(self) -> None:
        """What may go has changed."""
        self._pump()

    def receipt(self, body: wire.Receipt) -> None:
        self._let_go(self.outbox.receipt(body.ids))

    def have(self, consult: bytes, body: wire.Have) -> None:
        try:
            freed = self.outbox.have(consult, body.digest, body.ranges, body.complete, time.monotonic())
        except ValueError as error:
            log.warning("have malformed reason=%s", error)
            return
        self._let_go(freed)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._carrying:
            task.cancel()

    def _let_go(self, freed: Freed) -> None:
        for id in freed.messages:
            self._messages.pop(id, None)
            self._retries.gone(id)
        for file in freed.files:
            self._file_keys.pop(file, None)
        if freed.messages or freed.files:
            self._freed(freed)
        self._pump()

    def _pump(self) -> None:
        loop, now = asyncio.get_running_loop(), time.monotonic()
        while self._link is not None and (item := self.outbox.next(now)):
            task = loop.create_task(self._carry(self._link, item))
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)
        for id in self.outbox.set_aside:
            self._set_aside(id, self._retries.put(id, self._clock.wall_ms()))
        self.outbox.set_aside.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.outbox.next_deadline(now)
        if due is not None and self._link is not None:
            self._timer = loop.call_at(max(due, now + 0.05), self._pump)

    async def _carry(self, link: HubLink, item: Item) -> None:
        try:
            match item:
                case SendMessage(id):
                    sent = self._messages[id]
                    await link.publish(self._clock.for_sending(sent))
                    self._carried(sent.consult, message_wire_bytes(sent))
                case SendChunk(consult, digest, offset, length):
                    data = await self._store.run(self._store.store.read_chunk, digest, offset, length)
                    chunk = wire.Chunk(digest, offset, data)
                    message = wire.Message(chunk, consult, sent_at_ms=self._clock.wall_ms())
                    await link.publish(message, file_key=self._file_keys[consult, digest])
                    self._carried(consult, length + AROUND_CHUNK_BYTES)
        except NotConnected:
            self.outbox.failed(item, time.monotonic())
        except (PublishRefused, OSError, KeyError) as error:
            log.error("message refused item=%s reason=%s", _name(item), error)
            self.outbox.refused(item, time.monotonic())
        else:
            self.outbox.acknowledged(item, time.monotonic())
        self._pump()


def _name(item: Item) -> str:
    return item.id.hex() if isinstance(item, SendMessage) else f"{item.digest.hex()[:16]}+{item.offset}"
