"""What every WebSocket client of these tests does: it is there again after a restart, and sends once it is."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import websockets
from websockets.asyncio.client import ClientConnection


class ReconnectingClient:
    """`_run` keeps the connection up and sets `_socket` while it is, telling `_changed`."""

    def __init__(self) -> None:
        self._socket: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def send(self, message: object) -> None:
        """Once it is connected; again where the connection broke under it."""
        async with asyncio.timeout(15):
            while True:
                async with self._changed:
                    while self._socket is None:
                        await self._changed.wait()
                    socket = self._socket
                with contextlib.suppress(websockets.ConnectionClosed):
                    await socket.send(msgspec.json.encode(message).decode())
                    return
                await asyncio.sleep(0.05)

    async def _run(self) -> None:
        raise NotImplementedError
