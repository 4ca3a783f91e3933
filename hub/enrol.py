"""Joining: an invitation on paper or as a QR code becomes a kiosk's identity, once.

The code itself is in `edge_agent.core.joining`. A kiosk fetches `GET /ca.pem` from whoever answers at the address,
holds it against the code's fingerprint, and speaks TLS with that CA alone when it hands in the token at `POST /join`;
so a wrong address learns nothing. The hub knows a token by its hash, takes it once, and for 14 days.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable

from sqlalchemy import update
from sqlalchemy.orm import Session

from edge_agent.core import wire
from edge_agent.core.joining import FINGERPRINT_BYTES, TOKEN_BYTES, JoinCode, JoinReply, encode_code
from hub import broker
from hub.authority import Authority
from hub.config import HubSettings
from hub.database import Database
from hub.records import Invitation, Kiosk

VALID_MS = 14 * 86_400_000


class JoinRefused(ValueError):
    """For whoever stands at the kiosk: what is wrong with the code, and what to do."""


class Enrolment:
    def __init__(
        self, settings: HubSettings, database: Database, authority: Authority, now_ms: Callable[[], int]
    ) -> None:
        self._settings, self._database, self._authority = settings, database, authority
        self._now_ms = now_ms

    def ca_pem(self) -> str:
        return self._authority.pem

    def invite(self, site: str) -> str:
        """A new code for a kiosk at this site."""
        token = secrets.token_bytes(TOKEN_BYTES)
        self._database.do(_keep_invitation, _hash(token), site, self._now_ms() + VALID_MS)
        return encode_code(JoinCode(self._authority.fingerprint[:FINGERPRINT_BYTES], token))

    async def join(self, token: str, wanted_id: str) -> JoinReply:
        """Use the token up; the broker knows the kiosk when this returns. Raises JoinRefused, BrokerError."""
        raw = parse_token(token)
        password = secrets.token_urlsafe(24)
        folder = self._settings.broker_dir

        def use(session: Session) -> tuple[str, str]:
            kiosk, site = _use_invitation(session, _hash(raw), wanted_id, self._now_ms())
            broker.set_password(folder, kiosk, password)  # undone below where the commit fails
            return kiosk, site

        kiosk, site = await self._database.run(use)
        broker.reload(folder)
        host, port, tls = self._settings.kiosk_broker
        return JoinReply(kiosk, host, port, tls, kiosk, password, self._authority.pem, site)


def parse_token(text: str) -> bytes:
    """From its hex. Raises JoinRefused."""
    if not re.fullmatch(rf"[0-9a-f]{{{2 * TOKEN_BYTES}}}", text):
        raise JoinRefused("This is not a hub's code. Copy it from `teleconsult hub invite`.")
    return bytes.fromhex(text)


def _hash(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


def _keep_invitation(session: Session, token_hash: str, site: str, expires_at: int) -> None:
    session.add(Invitation(token_hash=token_hash, site=site[:200], expires_at=expires_at))


def _use_invitation(session: Session, token_hash: str, wanted_id: str, now_ms: int) -> tuple[str, str]:
    """`(kiosk id, site)`. Raises JoinRefused, having stored nothing."""
    invitation = session.get(Invitation, token_hash)
    if invitation is None:
        raise JoinRefused("The hub does not know this code. Check it, or ask for a new one.")
    if invitation.used_at:
        raise JoinRefused(f"This code was used already, for kiosk {invitation.kiosk_id}. Ask for a new one.")
    if invitation.expires_at <= now_ms:
        raise JoinRefused("This code is too old. Ask for a new one.")
    if wanted_id and not wire.is_kiosk_id(wanted_id):
        raise JoinRefused(f"{wanted_id!r} can't be a kiosk's id: 3 to 32 of a-z, 0-9 and hyphens inside.")
    if wanted_id and session.get(Kiosk, wanted_id) is not None:
        raise JoinRefused(f"There is a kiosk {wanted_id} already. Choose another id.")
    kiosk = wanted_id or _free_id(session, invitation.site)
    session.add(Kiosk(id=kiosk, site=invitation.site, joined_at=now_ms))
    session.flush()
    session.execute(
        update(Invitation).where(Invitation.token_hash == token_hash).values(used_at=now_ms, kiosk_id=kiosk)
    )
    return kiosk, invitation.site


def _free_id(session: Session, site: str) -> str:
    """After the site, so that people know it when they read it out; the kiosk keeps it when it moves."""
    stem = re.sub(r"[^a-z0-9]+", "-", site.lower()).strip("-")[:24].strip("-") or "kiosk"
    number = 1
    while session.get(Kiosk, f"{stem}-{number}") is not None:
        number += 1
    return f"{stem}-{number}"
