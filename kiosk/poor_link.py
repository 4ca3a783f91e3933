"""A kiosk of the demo behind a poor link: its agent and media run in a network namespace of their own, everything else
where it always does. What the kiosk says to the hub and to the doctor's browser goes through the link; its screen,
which is served on its own loopback, is brought out past it.

The link is the one that the kit is tested with, so it is there in a clone and not in an installed package.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_CLONE_NEWNET = 0x40000000
_PIECE_BYTES = 65536


class PoorLinkUnavailable(OSError):
    """One line: what the system, or the link's description, does not allow."""


class PoorLink:
    """`spec`: see tests/linklab/spec.py. Raises PoorLinkUnavailable."""

    def __init__(self, spec: str, home_of_code: Path) -> None:
        if str(home_of_code) not in sys.path:
            sys.path.insert(0, str(home_of_code))
        try:
            from tests.linklab.lab import LabUnavailable, LinkLab
            from tests.linklab.spec import SpecError, in_words, parse_link
        except ImportError:
            raise PoorLinkUnavailable("--link needs a clone of the kit with its folder tests/linklab") from None
        try:
            link = parse_link(spec)
        except SpecError as error:
            raise PoorLinkUnavailable(f"--link {spec}: {error}") from None
        if os.geteuid() != 0:
            raise PoorLinkUnavailable(
                "--link joins this machine's network with another, which only root may do: sudo scripts/demo --link …"
            )
        try:
            self._lab: Any = LinkLab(up=link.up, down=link.down, far_is_here=True)
        except LabUnavailable as error:
            raise PoorLinkUnavailable(f"no link can be made here: {error}") from None
        self.words = in_words(link)
        self.hub_host: str = self._lab.far.address
        self._inside = ThreadPoolExecutor(1, "kiosk-network", initializer=_enter, initargs=(self._lab.near.pid,))
        self._servers: list[asyncio.Server] = []

    def command(self, argv: Sequence[str]) -> list[str]:
        """The same, run at the kiosk's end."""
        command: list[str] = self._lab.near.command(argv)
        return command

    async def bring_out(self, port: int) -> None:
        """What the kiosk serves on its loopback can be reached on this machine's, at the same port."""
        self._servers.append(await asyncio.start_server(_forward(port, self._socket_inside), "127.0.0.1", port))

    async def bring_in(self, port: int) -> None:
        """The other way round, and past the link as well: for what is done once, before the kiosk is in its clinic."""
        listener = await self._socket_inside()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        self._servers.append(await asyncio.start_server(_forward(port, _socket_here), sock=listener))

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        self._inside.shutdown()
        await asyncio.to_thread(self._lab.close)

    async def _socket_inside(self) -> socket.socket:
        """A socket belongs to the network of the thread that made it, wherever it is used."""
        return await asyncio.get_running_loop().run_in_executor(self._inside, _make_socket)


def _enter(pid: int) -> None:
    """This thread alone."""
    with Path(f"/proc/{pid}/ns/net").open("rb") as network:
        if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "the kiosk's network can't be entered")


def _make_socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    return made


async def _socket_here() -> socket.socket:
    return _make_socket()


def _forward(port: int, make: Callable[[], Any]) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError), contextlib.closing(writer):
            there = await make()
            with contextlib.closing(there):
                await asyncio.get_running_loop().sock_connect(there, ("127.0.0.1", port))
                far_reader, far_writer = await asyncio.open_connection(sock=there)
                with contextlib.closing(far_writer):
                    copies = [
                        asyncio.ensure_future(_copy(reader, far_writer)),
                        asyncio.ensure_future(_copy(far_reader, writer)),
                    ]
                    try:
                        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        for copy in copies:
                            copy.cancel()

    return serve


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_PIECE_BYTES):
            writer.write(data)
            await writer.drain()
