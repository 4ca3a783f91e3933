"""sd_notify over a real datagram socket: told what is to be told, and fed only while all is alive."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kiosk.notify import Supervisor


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def supervisor(systemd: socket.socket, **more: str) -> Supervisor:
    return Supervisor({"NOTIFY_SOCKET": systemd.getsockname(), **more})


async def heard(systemd: socket.socket) -> bytes:
    async with asyncio.timeout(5):
        return await asyncio.get_running_loop().sock_recv(systemd, 100)


async def test_ready_and_stopping(systemd: socket.socket) -> None:
    told = supervisor(systemd)
    told.ready()
    assert await heard(systemd) == b"READY=1"
    told.stopping()
    assert await heard(systemd) == b"STOPPING=1"


async def test_the_watchdog_is_fed_while_all_is_alive_and_no_longer(systemd: socket.socket) -> None:
    hangs, asked = asyncio.Event(), asyncio.Event()

    async def alive() -> bool:
        asked.set()
        if hangs.is_set():
            await asyncio.Event().wait()
        return True

    watching = asyncio.create_task(supervisor(systemd, WATCHDOG_USEC="150000").watch(alive))
    assert await heard(systemd) == b"WATCHDOG=1"
    assert await heard(systemd) == b"WATCHDOG=1"
    hangs.set()
    for _ in range(2):  # asked again and again, and never told
        asked.clear()
        await asked.wait()
    told = []
    with contextlib.suppress(BlockingIOError):
        for _ in range(3):
            told.append(systemd.recv(100))
    assert len(told) <= 1, "what was sent before, and no more"
    watching.cancel()


def test_a_watchdog_of_another_process_is_not_ours() -> None:
    assert Supervisor({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "9000000", "WATCHDOG_PID": "1"}).watchdog_s == 0
    mine = Supervisor({"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "9000000", "WATCHDOG_PID": str(os.getpid())})
    assert mine.watchdog_s == 9


async def test_without_systemd_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Supervisor().ready()
