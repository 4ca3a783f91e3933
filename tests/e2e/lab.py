"""A village, a road and a town in network namespaces, so that the link between kiosk and hub can really die.

The hub, the broker and the doctor's browser stay in this machine's own namespace ("town"), the kiosk runs in one of its
own ("village"), and a router's stands between. `cut` stops the router forwarding: packets vanish and no interface goes
down at either end, as when a mast loses power. `unplug` takes the cable out of the kiosk.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_CLONE_NEWNET = 0x40000000


class LabUnavailable(Exception):
    """Why there can be no lab on this machine; the tests that need one are skipped with it."""


class Village(Protocol):
    """Where a kiosk stands, and by which address it finds the hub."""

    town_address: str

    def command(self, *argv: str) -> list[str]: ...

    def connect(self, host: str, port: int, timeout: float = 5.0) -> socket.socket: ...


@dataclass
class Lab:
    village: str  # the namespaces' names
    router: str
    town_address: str
    village_address: str
    router_addresses: tuple[str, str]  # towards the town, and towards the village

    def router_command(self, *argv: str) -> list[str]:
        return ["ip", "netns", "exec", self.router, *argv]

    def command(self, *argv: str) -> list[str]:
        """`argv` as it runs in the village; keeps the process id."""
        return ["ip", "netns", "exec", self.village, *argv]

    def cut(self) -> None:
        self._forward("0")

    def mend(self) -> None:
        self._forward("1")

    def unplug(self) -> None:
        _run("ip", "-n", self.village, "link", "set", "eth0", "down")

    def plug(self) -> None:
        _run("ip", "-n", self.village, "link", "set", "eth0", "up")
        _run("ip", "-n", self.village, "route", "replace", "default", "via", _host(self.village_address, 1))

    def move(self) -> None:
        """Another address, as when a modem takes over from Wi-Fi: what is connected from the old one is dead."""
        net, _, last = self.village_address.rpartition(".")
        old = _run("ip", "-n", self.village, "-br", "address", "show", "dev", "eth0").split()[2]
        new = f"{net}.{int(last) + 1}/24" if old == f"{self.village_address}/24" else f"{self.village_address}/24"
        _run("ip", "-n", self.village, "address", "del", old, "dev", "eth0")
        _run("ip", "-n", self.village, "address", "add", new, "dev", "eth0")
        _run("ip", "-n", self.village, "route", "replace", "default", "via", _host(self.village_address, 1))

    def connect(self, host: str, port: int, timeout: float = 5.0) -> socket.socket:
        """A TCP connection made inside the village, usable from here: the way to the kiosk's own loopback."""
        return connect_inside(f"/run/netns/{self.village}", host, port, timeout)

    def _forward(self, value: str) -> None:
        _run("ip", "netns", "exec", self.router, "sh", "-c", f"echo {value} > /proc/sys/net/ipv4/ip_forward")


@contextlib.contextmanager
def open_lab() -> Iterator[Lab]:
    """Builds the lab and takes it down. Raises LabUnavailable."""
    if os.geteuid() != 0:
        raise LabUnavailable("network namespaces need root")
    if shutil.which("ip") is None:
        raise LabUnavailable("the command `ip` is missing (apt install iproute2)")
    name = f"tc{secrets.token_hex(3)}"
    village, router, net = f"{name}v", f"{name}r", f"10.{_free_octet()}"
    with contextlib.ExitStack() as stack:
        try:
            for namespace in (village, router):
                _run("ip", "netns", "add", namespace)
                stack.callback(_quietly, "ip", "netns", "del", namespace)
                _run("ip", "-n", namespace, "link", "set", "lo", "up")
            _run("ip", "link", "add", f"{name}t", "type", "veth", "peer", "name", "town", "netns", router)
            stack.callback(_quietly, "ip", "link", "del", f"{name}t")
            _run("ip", "-n", router, "link", "add", "village", "type", "veth", "peer", "name", "eth0", "netns", village)
            _run("ip", "address", "add", f"{net}.1.1/24", "dev", f"{name}t")
            _run("ip", "link", "set", f"{name}t", "up")
            for namespace, device, address in (
                (router, "town", f"{net}.1.2"),
                (router, "village", f"{net}.2.1"),
                (village, "eth0", f"{net}.2.2"),
            ):
                _run("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", device)
                _run("ip", "-n", namespace, "link", "set", device, "up")
            _run("ip", "route", "add", f"{net}.2.0/24", "via", f"{net}.1.2")
            _run("ip", "-n", village, "route", "add", "default", "via", f"{net}.2.1")
            lab = Lab(village, router, f"{net}.1.1", f"{net}.2.2", (f"{net}.1.2", f"{net}.2.1"))
            lab.mend()
        except subprocess.CalledProcessError as error:
            raise LabUnavailable(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from None
        yield lab


def connect_inside(namespace: str, host: str, port: int, timeout: float) -> socket.socket:
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def inside() -> None:
        try:
            with open(namespace) as entered:
                if ctypes.CDLL(None, use_errno=True).setns(entered.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_connection((host, port), timeout))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=inside)  # the namespace belongs to the thread and ends with it
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def _free_octet() -> int:
    taken = Path("/proc/net/fib_trie").read_text()
    return next(octet for octet in range(111, 250) if f" 10.{octet}." not in taken)


def _host(address: str, last: int) -> str:
    return f"{address.rpartition('.')[0]}.{last}"


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def _quietly(*argv: str) -> None:
    subprocess.run(argv, capture_output=True)
