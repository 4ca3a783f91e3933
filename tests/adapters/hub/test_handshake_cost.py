"""What a handshake of a kiosk with its broker costs on the wire: the kit's own link, mosquitto, a proxy that counts.

The last two TLS records of each direction are MQTT's own: CONNECT with the signed last will and SUBSCRIBE, CONNACK and
SUBACK. All before them is the handshake, the ticket for the next one included.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from edge_agent.clock import KioskClock
from edge_agent.config import BrokerSection, KioskSettings
from edge_agent.core import trust, wire
from edge_agent.mqtt import HubLink
from edge_agent.sealing import Sealing
from tests.adapters.hub.rig import Hub

FULL_BYTES, RESUMED_BYTES = 4000, 1000


def handshake(counted: list[bytes]) -> int:
    return sum(sum(_records(way)[:-2]) for way in counted)


def _records(way: bytes) -> list[int]:
    """Lengths of the TLS records, headers included."""
    lengths = []
    while way:
        lengths.append(5 + int.from_bytes(way[3:5]))
        way = way[lengths[-1] :]
    return lengths


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

    def link_up(self, moved: bool) -> None:
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
        clock = KioskClock(b"")
        own = trust.OwnKeys(identity.signing_key, identity.seal_key)
        hub = trust.FarKeys(identity.hub_signing_key, identity.hub_seal_key)
        sealing = Sealing(identity.kiosk, own, hub, clock, b"")
        link = HubLink(settings, identity, clock, sealing, listener, wire.Status(online=False))
        running = asyncio.create_task(link.run())
        try:
            async with asyncio.timeout(60):
                await listener.ups.get()
                connections = [list(counter.connections[-1])]
                for _ in range(2):
                    counter.cut()
                    await listener.ups.get()
                    connections.append(list(counter.connections[-1]))
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    full, resumed, again = map(handshake, connections)
    connected = [sum(map(len, counted)) for counted in connections]
    figures = f"bytes: full {full}, resumed {resumed}, again {again}; with the MQTT connection {connected}"
    with capsys.disabled():
        print(f"\n{figures}")
    assert full <= FULL_BYTES, figures
    assert max(resumed, again) <= RESUMED_BYTES, figures
