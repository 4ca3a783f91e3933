"""Two network namespaces joined by a pair of TUN devices, with a `LinkPath` carrying packets each way.

    with LinkLab(up=PathSpec(...), down=PathSpec(...)) as lab:
        lab.near.popen(["teleconsult", "agent", ...])   # sends through `up`, reaches lab.far.address
        lab.far.popen(["mosquitto", ...])

Namespaces live as long as a holder process in each: nothing is left behind, whatever is killed. Works as root; else
within `unshare -Urn` (`python -m tests.linklab` does that by itself where user namespaces are allowed).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import selectors
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from tests.linklab.path import LinkPath, PathCounts, PathSpec, Rate

NEAR_ADDRESS = "10.77.0.1"
FAR_ADDRESS = "10.77.0.2"
MTU_BYTES = 1500

_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_PR_SET_PDEATHSIG = 1


class LabUnavailable(RuntimeError):
    """What the system does not allow, in one line: the reason a test skips with."""


def with_namespaces_allowed() -> None:
    """Returns as root. Else starts this program anew as root of a user namespace of its own, from where the machine's
    network is not seen; raises LabUnavailable where the system does not allow it."""
    if os.geteuid() == 0:
        return
    wrapper = ["unshare", "--user", "--map-root-user", "--net", "--"]
    allowed = subprocess.run([*wrapper, "true"], capture_output=True, text=True, check=False)
    if allowed.returncode:
        raise LabUnavailable(f"it needs root, or user namespaces, which this system refuses: {allowed.stderr.strip()}")
    sys.stdout.flush()
    os.execvp(wrapper[0], [*wrapper, *sys.orig_argv])


def unavailable_reason() -> str | None:
    """Why no lab can be made here, or None."""
    try:
        with LinkLab(up=_PROBE, down=_PROBE):
            return None
    except LabUnavailable as error:
        return str(error)


class Namespace:
    """One end: a network namespace held by a process of ours. `None` as holder is the namespace we are in."""

    def __init__(self, address: str, own: bool) -> None:
        self.address = address
        self._holder: subprocess.Popen[bytes] | None = None
        if own:
            self._holder = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_die_with_parent,
            )  # fmt: skip
            assert self._holder.stdout is not None
            assert self._holder.stderr is not None
            if self._holder.stdout.readline() != b"up\n":
                reason = self._holder.stderr.read().decode().strip()
                self.close()
                raise LabUnavailable(f"no network namespace can be made: {reason}")

    @property
    def pid(self) -> int | None:
        return self._holder.pid if self._holder else None

    def command(self, argv: Sequence[str]) -> list[str]:
        """The same command, run inside."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *argv] if self._holder else list(argv)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        return subprocess.Popen(self.command(argv), **options)

    def run(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        return subprocess.run(self.command(argv), check=True, **options)

    def close(self) -> None:
        if self._holder:
            self._holder.kill()
            self._holder.communicate()


class LinkLab:
    """`up` carries near → far, `down` far → near. With `far_is_here` the far end is the namespace we are in, as for a
    kiosk whose hub and browser are the machine's own."""

    def __init__(self, *, up: PathSpec, down: PathSpec, far_is_here: bool = False) -> None:
        self._stack = contextlib.ExitStack()
        try:
            self.near = self._end(NEAR_ADDRESS, own=True)
            self.far = self._end(FAR_ADDRESS, own=not far_is_here)
            near_fd = self._tun(self.near, FAR_ADDRESS)
            far_fd = self._tun(self.far, NEAR_ADDRESS)
        except BaseException:
            self._stack.close()
            raise
        self._specs = (up, down)
        self.start_anew()
        self._stop_read, self._stop_write = os.pipe()
        self._carrier = threading.Thread(target=self._carry, args=(near_fd, far_fd), name="linklab", daemon=True)
        self._carrier.start()

    def start_anew(self) -> None:
        """From now on traces and outages run and all is counted. What was under way is lost."""
        started = time.monotonic()
        up, down = self._specs
        self._paths = (LinkPath(up, started), LinkPath(down, started))

    def change(self, up: PathSpec, down: PathSpec) -> None:
        """Another link from now on; what was under way is lost."""
        self._specs = (up, down)
        self.start_anew()

    @property
    def up_counts(self) -> PathCounts:
        return self._paths[0].counts

    @property
    def down_counts(self) -> PathCounts:
        return self._paths[1].counts

    def __enter__(self) -> LinkLab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.write(self._stop_write, b"x")
        self._carrier.join()
        os.close(self._stop_read)
        os.close(self._stop_write)
        self._stack.close()

    def _end(self, address: str, own: bool) -> Namespace:
        end = Namespace(address, own)
        self._stack.callback(end.close)
        return end

    def _tun(self, end: Namespace, peer: str) -> int:
        """A TUN device in that namespace, its file here: the device may move, the file stays connected."""
        name = f"ll{os.getpid() % 100_000}{end.address[-1]}"
        try:
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            self._stack.callback(os.close, fd)
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
            if end.pid:
                _quiet(["ip", "link", "set", name, "netns", str(end.pid)])
            # IPv6 would send a few packets of its own (router solicitations, multicast reports) over a thin link.
            _quiet(end.command(["sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{name}/disable_ipv6"]))
            _quiet(end.command(["ip", "address", "add", end.address, "peer", peer, "dev", name]))
            _quiet(end.command(["ip", "link", "set", name, "mtu", str(MTU_BYTES), "up"]))
        except OSError as error:
            raise LabUnavailable(f"no TUN device can be made: {error}") from None
        if end.pid:
            with contextlib.suppress(LabUnavailable):
                _quiet(end.command(["ip", "route", "add", "default", "via", peer]))
        return fd

    def _carry(self, near_fd: int, far_fd: int) -> None:
        with selectors.DefaultSelector() as selector:
            for fd in (near_fd, far_fd, self._stop_read):
                selector.register(fd, selectors.EVENT_READ)
            while True:
                up, down = self._paths
                ways = {near_fd: (up, far_fd), far_fd: (down, near_fd)}
                dues = [at for path, _ in ways.values() if (at := path.next_time()) is not None]
                timeout = max(0.0, min(dues) - time.monotonic()) if dues else None
                ready = [key.fd for key, _ in selector.select(timeout)]
                if self._stop_read in ready:
                    return
                for fd in ready:
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            ways[fd][0].offer(os.read(fd, 65536), time.monotonic())
                for path, out_fd in ways.values():
                    for packet in path.take(time.monotonic()):
                        with contextlib.suppress(OSError):  # an interface that is down loses it, as a real one does
                            os.write(out_fd, packet)


_PROBE = PathSpec(Rate.constant(1e6))


def _quiet(argv: Sequence[str]) -> None:
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    if result.returncode:
        raise LabUnavailable(f"{' '.join(argv)}: {result.stderr.strip()}")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
