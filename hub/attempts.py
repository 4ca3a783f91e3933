"""How often somebody may try: waits that grow with each failure, and never for good. Pure: `now` is handed in.

A key is what is tried at or from: an address, a name from an address. Each attempt is counted before it is judged, so
that many at once are no way around; one that succeeds is taken back. While it must wait, a key's attempts are refused
uncounted, so nobody makes another's wait longer than `longest_wait_s`. Memory only: a restart forgives.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass

MAX_KEYS = 10_000  # then the one that tried longest ago is forgotten


@dataclass
class _Tried:
    count: int
    last: float


class Attempts:
    def __init__(self, free: int, first_wait_s: float, longest_wait_s: float, forget_s: float = 3600.0) -> None:
        """`free` failures cost nothing; each one more doubles the wait; `forget_s` without any forgets all."""
        self._free, self._first_wait_s, self._longest_wait_s = free, first_wait_s, longest_wait_s
        self._forget_s = forget_s
        self._tried: dict[str, _Tried] = {}

    def wait_s(self, key: str, now: float) -> float:
        """0 where it may try now."""
        tried = self._tried.get(key)
        if tried is None:
            return 0.0
        if now - tried.last >= self._forget_s:
            del self._tried[key]
            return 0.0
        over = tried.count - self._free
        if over < 0:
            return 0.0
        wait_s = min(self._first_wait_s * 2.0 ** min(over, 30), self._longest_wait_s)
        return max(0.0, tried.last + wait_s - now)

    def count(self, key: str, now: float) -> None:
        tried = self._tried.pop(key, None) or _Tried(0, now)
        if len(self._tried) >= MAX_KEYS:
            self._tried.pop(next(iter(self._tried)))
        self._tried[key] = _Tried(tried.count + 1, now)  # again at the end: the order is that of the last attempt

    def take_back(self, key: str) -> None:
        """One attempt was right: as if it had not been."""
        tried = self._tried.get(key)
        if tried is not None:
            tried.count -= 1
            if tried.count <= 0:
                del self._tried[key]

    def forgive(self, key: str) -> None:
        self._tried.pop(key, None)


def source(address: str) -> str:
    """An address as what one person has of them: of IPv6 that is a /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))


def in_words(wait_s: float) -> str:
    """As in "20 seconds", "3 minutes": rounded up, so that waiting for it is enough."""
    count, unit = (max(1, math.ceil(wait_s)), "second") if wait_s <= 90 else (math.ceil(wait_s / 60), "minute")
    return f"{count} {unit}{'' if count == 1 else 's'}"
