"""A hub's CA and kiosks of it, without a hub."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from edge_agent.core.csr import read_request
from edge_agent.core.joining import HUB_NAME, IdentityReply
from edge_agent.identity import Identity, NewIdentity
from hub.authority import KIOSK_DAYS, Authority

PASSPHRASE = b"a passphrase of these tests"


def new_authority(folder: Path) -> Authority:
    authority = Authority(folder, lambda: PASSPHRASE)
    authority.ensure([HUB_NAME, "localhost", "127.0.0.1"])
    return authority


def new_identity(
    folder: Path,
    authority: Authority,
    kiosk: str,
    port: int = 8883,
    hub: str = "https://127.0.0.1:1",
    days: float = KIOSK_DAYS,
    trusts: Authority | None = None,
) -> Identity:
    """As after joining. With `trusts`, the kiosk believes that hub too, though its certificate is of the other."""
    new = NewIdentity(folder)
    certificate = authority.issue(read_request(new.request).signing, kiosk, timedelta(days=days))
    reply = IdentityReply(
        kiosk=kiosk,
        site="Clinic",
        certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        ca=authority.pem + (trusts.pem if trusts else ""),
        signer=authority.signer_pem,
        seal_key=authority.seal_key.public_key().public_bytes_raw().hex(),
        host="127.0.0.1",
        port=port,
    )
    return new.take(hub, reply)
