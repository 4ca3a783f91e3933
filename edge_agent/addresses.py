"""Knows when this machine's addresses and routes change, as when Wi-Fi gives way to a modem.

From the kernel's own announcements (rtnetlink), so nothing polls. Where there are none, as outside Linux, nothing is
announced: a call then notices by its silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

SETTLE_S = 0.3  # an interface that comes up says so in a handful of messages

# linux/rtnetlink.h: links, and addresses and routes of both families
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400


class AddressWatch:
    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._due: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None
        self._loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, AttributeError):  # not Linux, or a sandbox
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            self._socket.setblocking(False)
            self._socket.bind((0, _GROUPS))
            self._loop.add_reader(self._socket, self._announced)

    def close(self) -> None:
        if self._due is not None:
            self._due.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _announced(self) -> None:
        assert self._socket is not None  # noqa: S101
        with contextlib.suppress(OSError):  # no more; or there were too many to keep, which says enough
            while self._socket.recv(65536):
                pass
        if self._due is None:
            self._due = self._loop.call_later(SETTLE_S, self._settled)

    def _settled(self) -> None:
        self._due = None
        self._changed()


def source_address(far: tuple[str, int]) -> str:
    """Of ours, the one that packets to `far` leave from now; "" where no route leads there."""
    family = socket.AF_INET6 if ":" in far[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(far)
        except OSError:
            return ""
        return str(probe.getsockname()[0])
