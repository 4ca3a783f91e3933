"""Says on the local network where this hub is (zeroconf, RFC 6762 and 6763), so that a joining kiosk need not be told.

Only a hub that listens beyond loopback has anything to say. It gives an address, never trust: a kiosk believes the hub
whose CA its code names.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from zeroconf import Error, InterfaceChoice, ServiceInfo, get_all_addresses
from zeroconf.asyncio import AsyncZeroconf

from edge_agent.core.joining import SERVICE_TYPE

log = logging.getLogger(__name__)

MAX_LABEL_BYTES = 63  # RFC 1035, 2.3.4


@asynccontextmanager
async def advertised(
    host: str, port: int, interfaces: Sequence[str] | InterfaceChoice = InterfaceChoice.All, loopback_too: bool = False
) -> AsyncIterator[None]:
    """While inside, a hub that listens on `host` and `port` can be found. A network that cannot carry it is logged and
    otherwise no matter: addresses can be typed. `loopback_too` is for tests on one machine."""
    addresses = await asyncio.to_thread(_reachable, host, loopback_too)
    if not addresses:
        yield
        return
    zeroconf = None
    try:
        zeroconf = AsyncZeroconf(interfaces=interfaces)
        # Two hubs on one network may well have the same host name; then this one gets a number behind its own.
        await zeroconf.async_register_service(_info(addresses, port), allow_name_change=True)
        log.info("hub advertised service=%s port=%d", SERVICE_TYPE, port)
    except (TimeoutError, OSError, Error) as error:
        log.warning("hub not advertised error=%r hint=%s", error, "kiosks join with --hub HOST:PORT")
    try:
        yield
    finally:
        if zeroconf is not None:
            await zeroconf.async_unregister_all_services()
            await zeroconf.async_close()


def _info(addresses: list[str], port: int) -> ServiceInfo:
    name = socket.gethostname().partition(".")[0] or "hub"
    instance = f"teleconsult hub {name}".encode()[:MAX_LABEL_BYTES].decode(errors="ignore")
    return ServiceInfo(
        SERVICE_TYPE, f"{instance}.{SERVICE_TYPE}", port=port, parsed_addresses=addresses, server=f"{name}.local."
    )


def _reachable(host: str, loopback_too: bool) -> list[str]:
    try:
        asked = ipaddress.ip_address(host)
    except ValueError:
        try:
            asked = ipaddress.ip_address(socket.gethostbyname(host))
        except OSError:
            return []
    candidates = get_all_addresses() if asked.is_unspecified else [str(asked)]
    return [each for each in candidates if loopback_too or not ipaddress.ip_address(each).is_loopback]
