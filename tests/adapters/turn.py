"""coturn as the kit wants it: a shared secret from which each call's credentials come."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from edge_agent.core.wire import IceServer
from hub.calls import ice_servers
from hub.config import IceSection
from tests.e2e.program import Program, free_port

TURNSERVER = shutil.which("turnserver", path="/usr/bin:/usr/local/bin")
SECRET = "only-for-this-test"
WAYS = ("udp", "tcp", "tls")


class Turn:
    """Listens on `addresses` and relays from the same; with loopback peers, as a test has nothing else. `prefix` puts
    it into a network namespace."""

    def __init__(self, folder: Path, *addresses: str, prefix: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.addresses = addresses
        self.port, self.tls_port = free_port(), free_port()
        self.certificate, key = folder / "turn.pem", folder / "turn.key"
        names = ",".join(f"IP:{address}" for address in addresses)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=turn", "-addext", f"subjectAltName={names}", "-keyout", str(key),
             "-out", str(self.certificate)],
            check=True, capture_output=True,
        )  # fmt: skip
        lines = [
            f"listening-port={self.port}", f"tls-listening-port={self.tls_port}", "use-auth-secret",
            f"static-auth-secret={SECRET}", "realm=kit", f"cert={self.certificate}", f"pkey={key}", "no-cli",
            "allow-loopback-peers", "log-file=stdout", "verbose", f"userdb={folder / 'turn.db'}",
            f"pidfile={folder / 'turn.pid'}", f"proc-user={getpass.getuser()}",
            *(f"listening-ip={address}" for address in addresses), *(f"relay-ip={address}" for address in addresses),
        ]  # fmt: skip
        config = folder / "turn.conf"
        config.write_text("\n".join(lines) + "\n")
        argv = [*prefix, TURNSERVER or "turnserver", "-c", str(config)]
        self.program = Program("turnserver", argv, folder / "turn.log")

    async def start(self) -> None:
        await self.program.start()
        await self.program.until_line(r"SQLite DB connection success", 20)

    async def stop(self) -> None:
        await self.program.stop()

    def url(self, way: str, address: str = "") -> str:
        host = address or self.addresses[0]
        if way == "tls":
            return f"turns:{host}:{self.tls_port}?transport=tcp"
        return f"turn:{host}:{self.port}?transport={way}"


def servers(*urls: str, secret: str = SECRET, stun: tuple[str, ...] = ()) -> tuple[IceServer, ...]:
    """As the hub gives them to both ends of a call."""
    section = IceSection(stun_urls=stun, turn_urls=urls, turn_secret=secret)
    return ice_servers(section, "c" * 16, int(time.time() * 1000))
