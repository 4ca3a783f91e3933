"""Finds hubs that say where they are on the local network (zeroconf, RFC 6762 and 6763).

Gives addresses and nothing more: anybody can answer. Whom to trust is in the code that `edge_agent.join` is given.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from zeroconf import InterfaceChoice, ServiceBrowser, ServiceListener, Zeroconf

from edge_agent.core.joining import SERVICE_TYPE

FIRST_ANSWER_S = 5.0  # a hub on a slow wireless network answers well within this
FURTHER_ANSWERS_S = 0.7  # after the first, for others on the same network
_QUERY_MS = 2000


class HubAddress(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def find_hubs(
    timeout_s: float = FIRST_ANSWER_S, interfaces: Sequence[str] | InterfaceChoice = InterfaceChoice.All
) -> list[HubAddress]:
    """In the order in which they answered, but link-local addresses last: a kiosk keeps the one it joined at. Empty
    when none answers in `timeout_s`. Blocks. Raises OSError without any network."""
    found = _Found()
    with Zeroconf(interfaces=interfaces) as zeroconf:
        browser = ServiceBrowser(zeroconf, SERVICE_TYPE, listener=found)
        if found.first.wait(timeout_s):
            time.sleep(FURTHER_ANSWERS_S)
        browser.cancel()
    return sorted(dict.fromkeys(found.addresses), key=lambda each: _is_link_local(each.host))


def _is_link_local(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_link_local


class _Found(ServiceListener):
    def __init__(self) -> None:
        self.first = threading.Event()
        self.addresses: list[HubAddress] = []

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        info = zc.get_service_info(type_, name, _QUERY_MS)
        if info is not None and info.port:
            self.addresses += [HubAddress(host, info.port) for host in info.parsed_scoped_addresses()]
            self.first.set()

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.add_service(zc, type_, name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        pass  # an address that went is found out by asking it
