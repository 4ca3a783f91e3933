"""A small agent for the kiosk's page: holds a view, keeps the actions, and serves the real web app on a free port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hardware.simulated import SimulatedBoard
from kiosk.screen import Action, PictureKind, View
from kiosk.webapp import Picture, make_app, make_server


class Port:
    """Obeys `kiosk.webapp.KioskPort`."""

    def __init__(self, view: View, board: SimulatedBoard | None = None) -> None:
        self.actions: list[Action] = []
        self.files: dict[str, bytes] = {}
        self._view, self._board = view, board
        self._subscribers: list[Callable[[Picture | None], None]] = []
        self._acted = asyncio.Condition()

    def view(self) -> View:
        return self._view

    def act(self, action: Action) -> None:
        self.actions.append(action)
        self._wake = asyncio.get_running_loop().create_task(self._tell())

    def subscribe(self, changed: Callable[[Picture | None], None]) -> Callable[[], None]:
        self._subscribers.append(changed)
        return lambda: self._subscribers.remove(changed)

    async def file(self, id: str) -> bytes | None:
        return self.files.get(id)

    def board(self) -> SimulatedBoard | None:
        return self._board

    # --- the test's side

    @property
    def pages(self) -> int:
        return len(self._subscribers)

    def show(self, view: View) -> None:
        self._view = view
        for changed in list(self._subscribers):
            changed(None)

    def send(self, kind: PictureKind, key: bool, time_ms: int, data: bytes, still: bool = False) -> None:
        for changed in list(self._subscribers):
            changed(Picture(kind, key, time_ms, data, still))

    async def acted(self, do: str, value: str | None = None, count: int = 1) -> None:
        """Waits until the page has asked for this."""

        def done() -> bool:
            found = [a for a in self.actions if a.do == do and (value is None or a.value == value)]
            return len(found) >= count

        async with asyncio.timeout(10), self._acted:
            await self._acted.wait_for(done)

    async def _tell(self) -> None:
        async with self._acted:
            self._acted.notify_all()


@asynccontextmanager
async def serving(port: Port, tcp_port: int = 0) -> AsyncIterator[str]:
    """The address of the kiosk's page, e.g. http://127.0.0.1:40123."""
    with socket.create_server(("127.0.0.1", tcp_port)) as listening:  # it takes callers before the server is up
        host, number = listening.getsockname()
        server = make_server(make_app(port), host, number)
        task = asyncio.create_task(server.serve([listening]))
        try:
            yield f"http://{host}:{number}"
        finally:
            server.should_exit = True
            await task
