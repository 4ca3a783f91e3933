"""A TCP connection that is there soon after the link is.

TCP sends a lost SYN again after 1, 3 and 7 s, so an attempt that was begun in an outage may find out four seconds late
that it is over. In a hurry attempts overlap instead: a new one each second, over whatever route there is by then, to
an address known from before while the name is looked up again. The first that connects is taken.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable

AGAIN_S = 1.0
UNREACHABLE_AGAIN_S = 0.25  # there is no route: asking costs nothing, and one may come at any moment
MOST_ATTEMPTS = 6  # that are open at one time
_LOOK_S = 0.1  # how soon a change of `hurried`, or a name found, is seen
_SO_MAX_PACING_RATE, _UNPACED = 47, 0xFFFFFFFF  # Linux, bytes a second; the socket module has no name for it
_TCP_RTO_MAX_MS, _USUAL_TIMEOUT_S = 44, 120.0  # linux/tcp.h
_RECEIVE_BUFFER_BYTES = 65_536  # also for what the kernel keeps around each packet
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL)

Address = tuple[int, tuple[object, ...]]  # family, and what `connect` takes


class Dialler:
    """Of one far end. `dial` blocks, so it runs in a thread; `hurried` is asked while it does."""

    def __init__(
        self, hurried: Callable[[], bool], segment_bytes: int | None = None, window_bytes: int | None = None
    ) -> None:
        """`segment_bytes`: TCP's longest, both ways; `window_bytes`: what may be under way to here; None: the system's
        own."""
        self._hurried = hurried
        self._segment_bytes, self._window_bytes = segment_bytes, window_bytes
        self._known: tuple[str, int, list[Address]] = ("", 0, [])

    def dial(self, host: str, port: int, timeout_s: float) -> socket.socket:
        """Connected and blocking. Raises OSError: of the last attempt, or of the name."""
        names = _Lookup(host, port)
        addresses = list(self._known[2]) if self._known[:2] == (host, port) else []
        attempts = _Attempts(self._segment_bytes, self._window_bytes)
        tried, next_at = 0, 0.0
        deadline = time.monotonic() + timeout_s
        error: OSError = TimeoutError(errno.ETIMEDOUT, "timed out")
        try:
            while (now := time.monotonic()) < deadline:
                if all_known := names.done:
                    addresses += [address for address in names.found if address not in addresses]
                    if names.error is not None and not addresses:
                        raise names.error
                if now >= next_at and addresses and (tried < len(addresses) or self._hurried()):
                    next_at = now + AGAIN_S
                    if failed := attempts.start(addresses[tried % len(addresses)]):
                        error, next_at = failed, now + (UNREACHABLE_AGAIN_S if failed.errno in _UNREACHABLE else 0)
                    tried += 1
                sock, failed = attempts.wait(_LOOK_S)
                if sock is not None:
                    self._known = (host, port, names.found or addresses)
                    sock.settimeout(timeout_s)
                    return sock
                if failed:
                    error, next_at = failed, 0.0
                route_may_come = error.errno in _UNREACHABLE and self._hurried()
                if all_known and tried >= len(addresses) and not attempts.open and not route_may_come:
                    raise error
            raise error
        finally:
            attempts.close()


def pace(sock: socket.socket, bps: float | None) -> None:
    """From now on TCP itself sends no faster than that, with even gaps; None: as fast as it can."""
    rate = _UNPACED if bps is None else round(bps / 8)
    with contextlib.suppress(OSError):  # closed meanwhile
        sock.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, rate.to_bytes(4, sys.byteorder))


def bound_window(sock: socket.socket, size_bytes: int) -> None:
    """No more than that is under way from the far end, from the next `size_bytes` on that it sends."""
    with contextlib.suppress(OSError):  # closed meanwhile
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, size_bytes)


def limit_timeouts(sock: socket.socket, seconds: float | None) -> None:
    """From now on TCP waits no longer than that before it sends what is lost once more, at least a second; None: as
    long as it will, twice as long each time. Linux before 6.15 has no word for it and goes on as before."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, round(1000 * (seconds or _USUAL_TIMEOUT_S)))


class _Attempts:
    """Connections that are being made."""

    def __init__(self, segment_bytes: int | None, window_bytes: int | None) -> None:
        self.open: list[socket.socket] = []  # oldest first
        self._segment_bytes, self._window_bytes = segment_bytes, window_bytes
        self._selector = selectors.DefaultSelector()

    def start(self, address: Address) -> OSError | None:
        """Why it failed at once, if it did. The oldest makes room: the link has been dead for longer than it lives."""
        family, far = address
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError as error:
            return error
        sock.setblocking(False)
        if self._segment_bytes is not None:  # before connecting: the far end is told too
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, self._segment_bytes)
        if self._window_bytes is not None:
            # A buffer of a fixed size, or the kernel would let the window follow its growth.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            bound_window(sock, self._window_bytes)
        code = sock.connect_ex(far)
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            return OSError(code, os.strerror(code))
        if len(self.open) >= MOST_ATTEMPTS:
            self._drop(self.open[0]).close()
        self.open.append(sock)
        self._selector.register(sock, selectors.EVENT_WRITE)
        return None

    def wait(self, seconds: float) -> tuple[socket.socket | None, OSError | None]:
        """The first that has connected, or what the last of those that have failed failed with."""
        error: OSError | None = None
        for key, _ in self._selector.select(seconds):
            assert isinstance(key.fileobj, socket.socket)  # noqa: S101
            sock = self._drop(key.fileobj)
            if not (code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                return sock, None
            sock.close()
            error = OSError(code, os.strerror(code))
        return None, error

    def close(self) -> None:
        for sock in self.open:
            sock.close()
        self._selector.close()

    def _drop(self, sock: socket.socket) -> socket.socket:
        self._selector.unregister(sock)
        self.open.remove(sock)
        return sock


class _Lookup:
    """Of a name, in a thread of its own: without a network a resolver may think for half a minute."""

    def __init__(self, host: str, port: int) -> None:
        self.found: list[Address] = []
        self.error: OSError | None = None
        self.done = False
        self._host, self._port = host, port
        threading.Thread(target=self._look, name="lookup", daemon=True).start()

    def _look(self) -> None:
        try:
            rows = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self.found = [(family, address) for family, _, _, _, address in rows]
        except OSError as error:
            self.error = error
        self.done = True
