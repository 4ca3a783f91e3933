"""What the agent gives a courier, and takes from one: over a Unix socket in its run folder.

The agent alone has keys and store; who has the stick (`kiosk.stick`) asks here, so neither needs the other's rights.
A bundle is one consult's waiting messages, or one file with its manifest. Its name says what is in it, in random ids:
the same again has the same name, so what is on the stick already is not asked for twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from edge_agent import ipc
from edge_agent.core import wire
from edge_agent.core.courier import Sealed
from edge_agent.core.outbox import file_priority
from edge_agent.delivery import Delivery
from edge_agent.store import StoreThread

log = logging.getLogger(__name__)

SOCKET = "courier.sock"
CHUNK_BYTES = 48 * 1024


class Bundle(ipc.Frame, frozen=True):
    name: str
    bytes: int  # of what is in it, about


class WhatWaits(ipc.Frame, frozen=True):
    pass


class Waiting(ipc.Frame, frozen=True):
    """The most urgent first."""

    kiosk: str
    consults: int
    bundles: tuple[Bundle, ...]


class Give(ipc.Frame, frozen=True):
    name: str


class Record(ipc.Frame, frozen=True):
    sealed: Sealed


class Given(ipc.Frame, frozen=True):
    """The end of a bundle. `whole` is false where it could not be read, or has meanwhile been freed."""

    whole: bool


class Take(ipc.Frame, frozen=True):
    sealed: Sealed


class Flush(ipc.Frame, frozen=True):
    """Answered with `Flushed` once all that was taken is on the disk."""


class Flushed(ipc.Frame, frozen=True):
    pass


Seal = Callable[[wire.Message, bytes], Sealed]
Receive = Callable[[Sealed], Awaitable[None]]

ToAgent = WhatWaits | Give | Take | Flush
FromAgent = Waiting | Record | Given | Flushed


class CourierDesk:
    def __init__(
        self, kiosk: str, run_dir: Path, store: StoreThread, delivery: Delivery, give: Seal, take: Receive
    ) -> None:
        """`give` seals a message for the hub, a chunk with its file's key. `take` is given what the hub has said, as if
        it had come over the link, and returns when what it changes is on the disk."""
        self._kiosk, self._path = kiosk, run_dir / SOCKET
        self._store, self._delivery, self._seal, self._take = store, delivery, give, take

    async def run(self) -> None:
        """Serves until cancelled."""
        self._path.unlink(missing_ok=True)
        with ipc.short_path(self._path) as short:
            server = await asyncio.start_unix_server(self._serve, short)
        self._path.chmod(0o600)
        try:
            async with server:
                await server.serve_forever()
        finally:
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = ipc.Link(reader, writer, ToAgent)
        with suppress(ConnectionError):
            try:
                while (frame := await link.receive()) is not None:
                    await self._answer(link, frame)
            except ipc.ProtocolError as error:
                log.warning("courier speaks something else: %s", error)
            finally:
                link.close()

    async def _answer(self, link: ipc.Link, frame: ToAgent) -> None:
        match frame:
            case WhatWaits():
                waiting = self._delivery.waiting()
                consults = len({message.consult for message in waiting})
                link.send(Waiting(self._kiosk, consults, tuple(_bundles(waiting))))
            case Give(name):
                link.send(Given(await self._give(link, name)))
            case Take(sealed):
                await self._take(sealed)
            case Flush():
                link.send(Flushed())
        await link.drained()

    async def _give(self, link: ipc.Link, name: str) -> bool:
        for messages in _units(self._delivery.waiting()):
            if _name(messages) == name:
                break
        else:
            return False
        for message in messages:
            link.send(Record(self._seal(message, b"")))
        manifest = messages[0].body
        if not isinstance(manifest, wire.Manifest):
            return True
        for offset in range(0, manifest.size, CHUNK_BYTES):
            length = min(CHUNK_BYTES, manifest.size - offset)
            try:
                data = await self._store.run(self._store.store.read_chunk, manifest.digest, offset, length)
            except OSError as error:
                log.error("courier's file not read digest=%s reason=%s", manifest.digest.hex()[:16], error)
                return False
            chunk = wire.Message(wire.Chunk(manifest.digest, offset, data), messages[0].consult)
            link.send(Record(self._seal(chunk, manifest.key)))
            await link.drained()
        return True


def _units(waiting: Iterable[wire.Message]) -> Iterator[list[wire.Message]]:
    """Words first, then files by their priority."""
    words: dict[bytes, list[wire.Message]] = {}
    files: list[tuple[int, wire.Message]] = []
    for message in waiting:
        if isinstance(message.body, wire.Manifest):
            files.append((file_priority(message.body), message))
        else:
            words.setdefault(message.consult, []).append(message)
    for messages in words.values():
        yield sorted(messages, key=lambda message: message.seq)
    for _, manifest in sorted(files, key=lambda file: file[0]):
        yield [manifest]


def _name(messages: list[wire.Message]) -> str:
    return hashlib.sha256(b"".join(message.id for message in messages)).hexdigest()[:24]


def _bundles(waiting: list[wire.Message]) -> Iterator[Bundle]:
    for messages in _units(waiting):
        size = sum(len(wire.encode(message)) + 200 for message in messages)
        if isinstance(messages[0].body, wire.Manifest):
            size += messages[0].body.size
        yield Bundle(_name(messages), size)
