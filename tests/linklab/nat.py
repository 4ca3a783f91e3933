"""Two homes behind NAT, and between one of them and the world a poor link.

    clinic ── its router ══ LinkLab's paths ══ world ── the town's router ── town

Both routers give each flow a port of its own at random (what RFC 5128 calls symmetric): a port that a STUN server was
told of leads nobody else in, so no two addresses of clinic and town can meet. Servers stand in the world.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.linklab.lab import FAR_ADDRESS, LabUnavailable, LinkLab, Namespace
from tests.linklab.spec import Link

CLINIC, CLINIC_ROUTER = "10.78.1.2", "10.78.1.1"
TOWN, TOWN_ROUTER = "10.78.2.2", "10.78.2.1"
TOWN_OUTSIDE, WORLD_TOWARDS_TOWN = "10.78.3.2", "10.78.3.1"

_RULES = """table ip homes {{
  chain out {{ type nat hook postrouting priority srcnat; oifname "{outside}" masquerade fully-random; }}
}}"""
_UNBAR = "table ip barred\ndelete table ip barred\n"
_BARRED = """table ip barred {
  chain out { type filter hook forward priority filter; meta l4proto udp drop; }
}
"""


@dataclass
class Homes:
    clinic: Namespace
    town: Namespace
    world: Namespace
    lab: LinkLab
    world_address: str = FAR_ADDRESS

    def bar_udp(self, barred: bool) -> None:
        """Whether the clinic's router lets nothing but TCP out, as some offices' do."""
        _run(self.lab.near, ["nft", "-f", "-"], _UNBAR + (_BARRED if barred else ""))


@contextlib.contextmanager
def two_homes(link: Link) -> Iterator[Homes]:
    """Raises LabUnavailable."""
    if shutil.which("nft") is None:
        raise LabUnavailable("the command `nft` is missing (apt install nftables)")
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(LinkLab(up=link.up, down=link.down))
        clinic, router, town = (Namespace(address, own=True) for address in (CLINIC, TOWN_ROUTER, TOWN))
        for end in (clinic, router, town):
            stack.callback(end.close)
        _cable(clinic, "lan", CLINIC, lab.near, "lan", CLINIC_ROUTER)
        _cable(town, "lan", TOWN, router, "lan", TOWN_ROUTER)
        _cable(router, "wan", TOWN_OUTSIDE, lab.far, "town", WORLD_TOWARDS_TOWN)
        for end, way in ((clinic, CLINIC_ROUTER), (town, TOWN_ROUTER), (router, WORLD_TOWARDS_TOWN)):
            _run(end, ["ip", "route", "add", "default", "via", way])
        # The world knows the routers' outsides alone. What is for anybody else is lost without an error, as beyond
        # a server's default route: where there is none, coturn ends an allocation over the first packet to nowhere.
        _run(lab.far, ["ip", "link", "add", "void", "type", "veth", "peer", "name", "void_end"])
        for device in ("void", "void_end"):
            _run(lab.far, ["ip", "link", "set", device, "arp", "off", "up"])
        _run(lab.far, ["ip", "route", "replace", "default", "dev", "void"])
        for end, outside in ((lab.near, "ll*"), (router, "wan")):
            _run(end, ["nft", "-f", "-"], _RULES.format(outside=outside))
        for end in (lab.near, router, lab.far):
            _run(end, ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
        yield Homes(clinic, town, lab.far, lab)


def _cable(one: Namespace, name: str, address: str, other: Namespace, other_name: str, other_address: str) -> None:
    made = ["ip", "link", "add", name, "netns", str(one.pid), "type", "veth",
            "peer", "name", other_name, "netns", str(other.pid)]  # fmt: skip
    _checked(made)
    for end, device, own in ((one, name, address), (other, other_name, other_address)):
        _run(end, ["sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{device}/disable_ipv6"])
        _run(end, ["ip", "address", "add", f"{own}/24", "dev", device])
        _run(end, ["ip", "link", "set", device, "up"])


def _run(end: Namespace, argv: Sequence[str], given: str = "") -> None:
    _checked(end.command(argv), given)


def _checked(argv: Sequence[str], given: str = "") -> None:
    result = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
    if result.returncode:
        raise LabUnavailable(f"{' '.join(argv)}: {result.stderr.strip()}")
