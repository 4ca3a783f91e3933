"""What systemd is told (sd_notify(3)): ready, stopping, and alive, for as long as those who should know say so.

Without `NOTIFY_SOCKET`, as in the demo and in tests, nobody is told anything. A datagram to a Unix socket: no library.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

BEATS = 3  # in the time after which systemd would start us anew: one may be late, and one lost


class Supervisor:
    def __init__(self, environment: dict[str, str] | None = None) -> None:
        given = dict(os.environ) if environment is None else environment
        self._address = given.get("NOTIFY_SOCKET", "")
        usec, pid = given.get("WATCHDOG_USEC", "0"), given.get("WATCHDOG_PID", "")
        ours = pid in ("", str(os.getpid()))
        self.watchdog_s = int(usec) / 1e6 if ours and usec.isdigit() else 0.0

    def ready(self) -> None:
        self._tell("READY=1")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    async def watch(self, alive: Callable[[], Awaitable[bool]]) -> None:
        """For ever: asks, and says so while the answer is yes and comes in time. On the event loop that it watches."""
        if not (self._address and self.watchdog_s):
            await asyncio.Event().wait()
        interval_s, well = self.watchdog_s / BEATS, True
        while True:
            answer = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    answer = await alive()
            if answer:
                self._tell("WATCHDOG=1")
            if answer != well:
                well = answer
                log.log(logging.INFO if well else logging.ERROR, "watchdog %s", "fed again" if well else "not fed")
            await asyncio.sleep(interval_s if answer else interval_s / 10)

    def _tell(self, line: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.sendto(line.encode(), address)
        except OSError as error:
            log.warning("systemd not told %s: %s", line, error)
