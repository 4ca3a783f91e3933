"""A broker that is not on our side: a man between the hub and a real mosquitto, who reads MQTT 5 and does with every
publication what a test tells him. What the hub sees of the broker, and the broker of the hub, is his to choose."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Literal, NamedTuple

_PUBLISH = 3


class Publication(NamedTuple):
    to: Literal["hub", "kiosk"]
    topic: str
    payload: bytes


Rule = Callable[[Publication], list[Publication]]


def honest(publication: Publication) -> list[Publication]:
    return [publication]


class Hostile:
    """`seen` is every publication as it was sent, `rule` says what goes on in its place."""

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self.port = 0
        self.rule: Rule = honest
        self.seen: list[Publication] = []
        self._came = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._writers: dict[str, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def say(self, *publications: Publication) -> None:
        """Of his own making."""
        for publication in publications:
            self._writers[publication.to].write(_packet(publication))

    async def until(
        self, wanted: Callable[[Publication], bool], since: int = 0, timeout_s: float = 15
    ) -> Publication:  # fmt: skip
        async with asyncio.timeout(timeout_s), self._came:
            while True:
                for publication in self.seen[since:]:
                    if wanted(publication):
                        return publication
                await self._came.wait()

    async def _accept(self, hub_reader: asyncio.StreamReader, hub_writer: asyncio.StreamWriter) -> None:
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self._broker_port)
        self._writers = {"hub": hub_writer, "kiosk": broker_writer}
        ways = ((hub_reader, broker_writer, "kiosk"), (broker_reader, hub_writer, "hub"))
        tasks = [asyncio.create_task(self._pass_on(*way)) for way in ways]
        self._tasks.update(tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for writer in (hub_writer, broker_writer):
            writer.close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: Literal["hub", "kiosk"]
    ) -> None:  # fmt: skip
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                first, body = await _read_packet(reader)
                if first >> 4 != _PUBLISH:
                    writer.write(_frame(first, body))
                    continue
                publication, rest = _parse(to, first, body)
                if not publication.topic.startswith("tc1/"):
                    writer.write(_frame(first, body))
                    continue
                async with self._came:
                    self.seen.append(publication)
                    self._came.notify_all()
                for number, each in enumerate(self.rule(publication)):
                    kept = number == 0 and each.to == to  # the first takes the packet's place, others are new
                    writer.write(_packet(each, first, rest) if kept else b"")
                    if not kept:
                        self.say(each)


async def _read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return first, await reader.readexactly(length)


def _parse(to: Literal["hub", "kiosk"], first: int, body: bytes) -> tuple[Publication, bytes]:
    """And what stands between topic and payload: packet id and properties."""
    end = 2 + int.from_bytes(body[:2], "big")
    topic = body[2:end].decode()
    start = end + (2 if first & 6 else 0)
    properties = shift = 0
    while True:
        byte = body[start]
        properties |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            break
    start += properties
    return Publication(to, topic, body[start:]), body[end:start]


def _packet(publication: Publication, first: int = _PUBLISH << 4, rest: bytes = b"\0") -> bytes:
    """By default of QoS 0, without properties."""
    topic = publication.topic.encode()
    return _frame(first, len(topic).to_bytes(2, "big") + topic + rest + publication.payload)


def _frame(first: int, body: bytes) -> bytes:
    length, encoded = len(body), bytearray()
    while True:
        encoded.append(length & 127 | (128 if length > 127 else 0))
        length >>= 7
        if not length:
            return bytes((first,)) + bytes(encoded) + body
