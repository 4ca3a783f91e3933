"""What a handshake of a kiosk with its broker costs on the wire: the kit's own link, mosquitto, a proxy that counts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from edge_agent.config import BrokerSection, KioskSettings
from edge_agent.core import wire
from edge_agent.mqtt import HubLink
from tests.adapters.hub.rig import Hub

FULL_BYTES, RESUMED_BYTES = 4000, 1000


class Counter:
    """A TCP proxy that keeps what has passed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.connections: list[list[bytes]] = []  # of each, what went up and what came down
        self._kiosks: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """As a line that dies: the kiosk gives it up, and the broker does not hear of that."""
        for writer in self._kiosks:
            writer.transport.abort()
        self._kiosks.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._kiosks.append(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        counted = [b"", b""]
        self.connections.append(counted)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, direction: int) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    counted[direction] += data
                    target.write(data)
                    await target.drain()

        await asyncio.gather(copy(reader, far_writer, 0), copy(far_reader, writer, 1))


class Listener:
    def __init__(self) -> None:
        self.ups: asyncio.Queue[None] = asyncio.Queue()

    def link_up(self) -> None:
        self.ups.put_nowait(None)

    def link_down(self) -> None: ...

    def link_refused(self) -> None: ...

    def link_message(self, topic: str, payload: bytes) -> None: ...

    def link_trouble(self, code: str) -> None: ...


async def test_a_handshake_is_cheap_and_a_resumed_one_cheaper(stopped_hub: Hub, capsys: pytest.CaptureFixture[str]):
    stopped_hub.broker.start()
    identity, listener = stopped_hub.identity("hill-1"), Listener()
    counter = Counter(stopped_hub.settings.broker.listen_port)
    async with counter.listening() as port:
        settings = KioskSettings(broker=BrokerSection(host="127.0.0.1", port=port))
        link = HubLink(settings, identity, listener, wire.encode(wire.Message(wire.Status(online=False))))
        running = asyncio.create_task(link.run())
        try:
            async with asyncio.timeout(60):
                await listener.ups.get()
                totals = [sum(map(len, counter.connections[-1]))]
                for _ in range(2):
                    counter.cut()
                    await listener.ups.get()
                    totals.append(sum(map(len, counter.connections[-1])))
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    full, resumed, again = totals
    figures = f"full {full} bytes, resumed {resumed}, again {again}, with the MQTT connection and subscriptions"
    with capsys.disabled():
        print(f"\n{figures}")
    assert full <= FULL_BYTES, figures
    assert max(resumed, again) <= RESUMED_BYTES, figures
