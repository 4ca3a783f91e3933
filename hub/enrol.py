"""Who is a kiosk: invitations become certificates, certificates are renewed, handed over to new hardware, revoked.

The code itself is in `edge_agent.core.joining`. A kiosk fetches `GET /ca.pem` from whoever answers at the address,
holds it against the code's fingerprint, and speaks TLS with that CA alone when it hands in the token at `POST /join`;
so a wrong address learns nothing. The hub knows a token by its hash, takes it once, and for 14 days; the same key that
used it may ask again, for its answer may have been lost.

Functions with a `session` run in the database's thread, see `hub.database`; each leaves nothing behind where it
refuses. The broker is told of revocations by `hub.certificates`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from edge_agent.core import wire
from edge_agent.core.csr import (
    BadRequest,
    Keys,
    check_release_question,
    check_renewal,
    check_self_test,
    read_certificate,
    read_request,
)
from edge_agent.core.joining import (
    FINGERPRINT_BYTES,
    TOKEN_BYTES,
    IdentityReply,
    JoinCode,
    JoinRequest,
    RenewRequest,
    SelfTestRequest,
    Waiting,
    encode_code,
)
from edge_agent.core.release import ReleaseRequest
from hub import audit
from hub.authority import KIOSK_DAYS, Authority
from hub.config import HubSettings
from hub.database import Database
from hub.records import Approval, Certificate, Heard, Invitation, Kiosk
from hub.releases import Releases

VALID_MS = 14 * 86_400_000
SHOWN_CHARACTERS = 8  # of a token's hash: an invitation's number, in lists and to withdraw it

EXPIRED, REPLACED = "expired", "replaced"


class JoinRefused(ValueError):
    """For whoever stands at the kiosk: what is wrong, and what to do."""


class NoSuchKiosk(ValueError):
    """For whoever gave the command."""


class Enrolment:
    def __init__(
        self,
        settings: HubSettings,
        database: Database,
        authority: Authority,
        now_ms: Callable[[], int],
        life: timedelta = timedelta(days=KIOSK_DAYS),
    ) -> None:
        self._settings, self._database, self._authority = settings, database, authority
        self._now_ms, self._life = now_ms, life
        self._releases = Releases(settings.data_dir)

    def ca_pem(self) -> str:
        return self._authority.pem

    def invite(self, site: str, for_kiosk: str = "", *, by: str) -> str:
        """A new code for a kiosk at this site, or for new hardware of a kiosk that is known. `by` as in `hub.audit`.
        Raises NoSuchKiosk, JoinRefused."""
        token = secrets.token_bytes(TOKEN_BYTES)
        self._database.do(keep_invitation, token_hash(token), site, self._now_ms(), for_kiosk, by)
        return encode_code(JoinCode(self._authority.fingerprint[:FINGERPRINT_BYTES], token))

    async def join(self, asked: JoinRequest) -> IdentityReply | Waiting:
        """Use the token up. Raises JoinRefused, AuthorityError."""
        token = parse_token(asked.token)
        try:
            keys = read_request(asked.request)
        except BadRequest as bad:
            raise JoinRefused(
                f"The kiosk's request for a certificate is not right: {bad}. Update kiosk and hub."
            ) from bad
        return await self._database.run(self._join, token_hash(token), keys, asked.kiosk, asked.site)

    async def renew(self, asked: RenewRequest) -> IdentityReply | Waiting:
        """Raises JoinRefused, AuthorityError."""
        try:
            certificate = read_certificate(asked.certificate)
            check_renewal(certificate, bytes.fromhex(asked.signature))
        except ValueError as bad:  # BadRequest, or no hex
            raise JoinRefused(f"This is no request of a kiosk's: {bad}. Update kiosk and hub.") from bad
        if not self._authority.issued(certificate):
            raise JoinRefused("This certificate is of another hub, or of a CA that is no longer used. Join anew.")
        return await self._database.run(self._renew, certificate)

    async def who_tests(self, asked: SelfTestRequest) -> str:
        """The kiosk. Raises JoinRefused."""
        return (await self._who(asked.certificate, asked.signature, check_self_test))[0]

    async def who_updates(self, asked: ReleaseRequest) -> tuple[str, str]:
        """The kiosk and its site. Raises JoinRefused."""
        return await self._who(asked.certificate, asked.signature, check_release_question)

    async def _who(self, pem: str, signature: str, check: Callable[[x509.Certificate, bytes], None]) -> tuple[str, str]:
        try:
            certificate = read_certificate(pem)
            check(certificate, bytes.fromhex(signature))
        except ValueError as bad:  # BadRequest, or no hex
            raise JoinRefused(f"This is no request of a kiosk's: {bad}. Update kiosk and hub.") from bad
        if not self._authority.issued(certificate):
            raise JoinRefused("This certificate is of another hub, or of a CA that is no longer used. Join anew.")
        return await self._database.run(self._holder, certificate)

    # --- in the database's thread

    def _holder(self, session: Session, certificate: x509.Certificate) -> tuple[str, str]:
        row = session.get(Certificate, f"{certificate.serial_number:x}")
        if row is None or row.revoked_at:
            raise JoinRefused("This kiosk's certificate was revoked. Join anew with a code of the hub.")
        if row.expires_at <= self._now_ms():
            raise JoinRefused("This kiosk's certificate has run out.")
        return row.kiosk_id, session.get_one(Kiosk, row.kiosk_id).site

    def _join(self, session: Session, token: str, keys: Keys, wish: str, site: str) -> IdentityReply | Waiting:
        now_ms, key = self._now_ms(), key_hash(keys.signing_der)
        invitation = usable_invitation(session, token, key, site, now_ms)
        if invitation.used_at:  # by this key, whose answer was lost
            given = newest_certificate(session, invitation.kiosk_id or "", key)
            if given is None or given.revoked_at:
                raise JoinRefused("The certificate that came with this code was revoked. Ask for a new code.")
            return self._reply(session, given)
        if invitation.replaces:
            kiosk = session.get_one(Kiosk, invitation.kiosk_id)
            if wish not in ("", kiosk.id):
                raise JoinRefused(f"This code is for new hardware of {kiosk.id}. Leave --name away.")
            invitation.key_hash = key
            if not approved(session, key, kiosk.id, REPLACED, now_ms):
                return _waiting(kiosk.id, key)
            revoke(session, kiosk.id, now_ms, f"kiosk:{kiosk.id}")
            # Its messages count from where its own clock stands, and no old one is of its key.
            session.execute(delete(Heard).where(Heard.kiosk_id == kiosk.id))
        else:
            kiosk = new_kiosk(session, wish, invitation.site, now_ms)
        kiosk.sign_key, kiosk.seal_key = keys.signing_der, keys.sealing_raw
        given = self._issue(session, kiosk.id, keys)
        session.execute(
            update(Invitation)
            .where(Invitation.token_hash == token)
            .values(used_at=now_ms, kiosk_id=kiosk.id, key_hash=key)
        )
        audit.append(session, now_ms, f"kiosk:{kiosk.id}", "joined", shown(token))
        return self._reply(session, given)

    def _renew(self, session: Session, certificate: x509.Certificate) -> IdentityReply | Waiting:
        now_ms = self._now_ms()
        old = session.get(Certificate, f"{certificate.serial_number:x}")
        if old is None:
            raise JoinRefused("The hub does not know this certificate. Join anew.")
        if old.revoked_at:
            raise JoinRefused("This kiosk's certificate was revoked. Join anew with a code of the hub.")
        newest = newest_certificate(session, old.kiosk_id, old.key_hash)
        assert newest is not None  # noqa: S101 -- at least the old one
        if newest.serial == old.serial:
            if old.expires_at <= now_ms and not approved(session, old.key_hash, old.kiosk_id, EXPIRED, now_ms):
                return _waiting(old.kiosk_id, old.key_hash)
            if self._authority.is_due(certificate):
                kiosk = session.get_one(Kiosk, old.kiosk_id)
                newest = self._issue(session, kiosk.id, kept_keys(kiosk))
                audit.append(session, now_ms, f"kiosk:{kiosk.id}", "renewed")
        return self._reply(session, newest)

    def _issue(self, session: Session, kiosk: str, keys: Keys) -> Certificate:
        certificate = self._authority.issue(keys.signing, kiosk, self._life)
        row = Certificate(
            serial=f"{certificate.serial_number:x}",
            kiosk_id=kiosk,
            key_hash=key_hash(keys.signing_der),
            pem=certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
            issued_at=self._now_ms(),
            expires_at=int(certificate.not_valid_after_utc.timestamp() * 1000),
        )
        session.add(row)
        session.flush()
        return row

    def _reply(self, session: Session, certificate: Certificate) -> IdentityReply:
        host, port = self._settings.kiosk_broker
        return IdentityReply(
            kiosk=certificate.kiosk_id,
            site=session.get_one(Kiosk, certificate.kiosk_id).site,
            certificate=certificate.pem,
            ca=self._authority.pem,
            signer=self._authority.signer_pem,
            seal_key=self._authority.seal_key.public_key().public_bytes_raw().hex(),
            host=host,
            port=port,
            release_keys=next(reversed(self._releases.keys()), None),
        )


# --- invitations


def parse_token(text: str) -> bytes:
    """From its hex. Raises JoinRefused."""
    if not re.fullmatch(rf"[0-9a-f]{{{2 * TOKEN_BYTES}}}", text):
        raise JoinRefused("This is not a hub's code. Copy it from `teleconsult hub invite`.")
    return bytes.fromhex(text)


def token_hash(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


def key_hash(signing_der: bytes) -> str:
    return hashlib.sha256(signing_der).hexdigest()


def shown(token: str) -> str:
    """An invitation as the audit log and its list name it."""
    return f"invitation:{token[:SHOWN_CHARACTERS]}"


def keep_invitation(session: Session, token: str, site: str, now_ms: int, for_kiosk: str, by: str) -> None:
    """Raises NoSuchKiosk, JoinRefused."""
    site = known_kiosk(session, for_kiosk).site if for_kiosk else site.strip()
    if not for_kiosk and (not site or not site.isprintable()):
        raise JoinRefused("Write the clinic's name as doctors shall see it.")
    audit.append(session, now_ms, by, "invited", shown(token), f"kiosk:{for_kiosk}" if for_kiosk else "")
    session.add(
        Invitation(
            token_hash=token,
            site=site[:200],
            made_at=now_ms,
            expires_at=now_ms + VALID_MS,
            replaces=bool(for_kiosk),
            kiosk_id=for_kiosk or None,
        )
    )


def invitations(session: Session) -> list[Invitation]:
    return list(session.scalars(select(Invitation).order_by(Invitation.made_at, Invitation.token_hash)))


def withdraw(session: Session, number: str, now_ms: int, by: str) -> Invitation:
    """By its number in the list. Raises JoinRefused."""
    found = [each for each in invitations(session) if number and each.token_hash.startswith(number)]
    if len(found) != 1:
        raise JoinRefused(f"there is no invitation {number!r}; `teleconsult hub invite --list` shows all")
    if found[0].used_at:
        raise JoinRefused(
            f"this invitation was used already, by kiosk {found[0].kiosk_id}; what can be done is "
            f"`teleconsult hub kiosks revoke {found[0].kiosk_id}`"
        )
    found[0].withdrawn_at = now_ms
    session.execute(delete(Approval).where(Approval.key_hash == found[0].key_hash, Approval.why == REPLACED))
    audit.append(session, now_ms, by, "invitation_withdrawn", shown(found[0].token_hash))
    return found[0]


def usable_invitation(session: Session, token: str, key: str, site: str, now_ms: int) -> Invitation:
    """Raises JoinRefused, having stored nothing."""
    invitation = session.get(Invitation, token)
    if invitation is None:
        raise JoinRefused("The hub does not know this code. Check it, or ask for a new one.")
    if invitation.withdrawn_at:
        raise JoinRefused("This code was withdrawn at the hub. Ask for a new one.")
    if invitation.key_hash not in ("", key):
        by = f", for kiosk {invitation.kiosk_id}" if invitation.kiosk_id else ""
        raise JoinRefused(f"This code was used already{by}. Ask for a new one.")
    if invitation.expires_at <= now_ms and not invitation.used_at:
        raise JoinRefused("This code is too old. Ask for a new one.")
    if site and site.strip().casefold() != invitation.site.strip().casefold():
        raise JoinRefused(f"This code is for {invitation.site}, not for {site}. Take one of the right sheet.")
    return invitation


# --- kiosks


def new_kiosk(session: Session, wish: str, site: str, now_ms: int) -> Kiosk:
    if wish and not wire.is_kiosk_id(wish):
        raise JoinRefused(f"{wish!r} can't be a kiosk's id: 3 to 32 of a-z, 0-9 and hyphens inside.")
    if wish and session.get(Kiosk, wish) is not None:
        raise JoinRefused(
            f"There is a kiosk {wish} already. Choose another id, or ask for a code for new hardware of this one."
        )
    kiosk = Kiosk(id=wish or _free_id(session, site), site=site, joined_at=now_ms)
    session.add(kiosk)
    session.flush()
    return kiosk


def known_kiosk(session: Session, kiosk: str) -> Kiosk:
    found = session.get(Kiosk, kiosk)
    if found is None:
        raise NoSuchKiosk(f"there is no kiosk {kiosk!r}; `teleconsult hub kiosks list` shows all")
    return found


def kept_keys(kiosk: Kiosk) -> Keys:
    """Of a kiosk that has joined."""
    signing = serialization.load_der_public_key(kiosk.sign_key)
    return Keys(signing, X25519PublicKey.from_public_bytes(kiosk.seal_key))  # type: ignore[arg-type]


def newest_certificate(session: Session, kiosk: str, key: str) -> Certificate | None:
    """Of this kiosk with this key."""
    return session.scalar(
        select(Certificate)
        .where(Certificate.kiosk_id == kiosk, Certificate.key_hash == key)
        .order_by(Certificate.expires_at.desc(), Certificate.issued_at.desc())
        .limit(1)
    )


def certificates_until(session: Session) -> dict[str, int]:
    """When the newest certificate of each kiosk ends, of those that were not revoked."""
    query = select(Certificate.kiosk_id, func.max(Certificate.expires_at)).where(Certificate.revoked_at == 0)
    return {kiosk: until for kiosk, until in session.execute(query.group_by(Certificate.kiosk_id))}


def behind(session: Session, authority: Authority) -> list[str]:
    """Kiosks whose certificate is of an older CA: they have not been told of the newest."""
    found = []
    for kiosk in session.scalars(select(Kiosk).where(Kiosk.sign_key != b"").order_by(Kiosk.id)):
        newest = newest_certificate(session, kiosk.id, key_hash(kiosk.sign_key))
        if newest is not None and not newest.revoked_at and not authority.is_by_newest(read_certificate(newest.pem)):
            found.append(kiosk.id)
    return found


def revoke(session: Session, kiosk: str, now_ms: int, by: str) -> int:
    """All certificates of this kiosk, and what it waits for; how many certificates. Raises NoSuchKiosk."""
    known_kiosk(session, kiosk)
    audit.append(session, now_ms, by, "revoked", f"kiosk:{kiosk}")
    for waiting in session.scalars(select(Approval).where(Approval.kiosk_id == kiosk)):
        session.delete(waiting)
    return revoke_certificates(session, kiosk, now_ms)


def revoke_certificates(session: Session, kiosk: str, now_ms: int) -> int:
    found = session.scalars(select(Certificate).where(Certificate.kiosk_id == kiosk, Certificate.revoked_at == 0)).all()
    for certificate in found:
        certificate.revoked_at, certificate.cut_at = now_ms, 0
    return len(found)


# --- approvals


def approved(session: Session, key: str, kiosk: str, why: str, now_ms: int) -> bool:
    """Whether a technician has allowed what this key asks for, which is used up then; else it is noted down. Raises
    JoinRefused."""
    waiting = session.get(Approval, key)
    if waiting is not None and (waiting.kiosk_id, waiting.why) != (kiosk, why):  # that was about something else
        session.delete(waiting)
        session.flush()
        waiting = None
    if waiting is not None and waiting.refused_at:
        raise JoinRefused(
            f"A technician has refused this kiosk, {kiosk} with key {key[:SHOWN_CHARACTERS]}, at the hub. Ask there; "
            "it can still be approved."
        )
    if waiting is not None and waiting.approved_at:
        session.delete(waiting)
        return True
    if waiting is None:
        session.add(Approval(key_hash=key, kiosk_id=kiosk, why=why, asked_at=now_ms))
        audit.append(session, now_ms, "stranger", "approval_asked", f"kiosk:{kiosk}", f"key:{key[:SHOWN_CHARACTERS]}")
    return False


def approvals(session: Session) -> list[Approval]:
    """Those that wait for somebody, and those that were refused."""
    return list(session.scalars(select(Approval).where(Approval.approved_at == 0).order_by(Approval.asked_at)))


def approve(session: Session, kiosk: str, now_ms: int, by: str, key_prefix: str = "") -> Approval:
    """The kiosk gets it when it asks the next time. `key_prefix` tells apart several that ask for one id. Raises
    NoSuchKiosk."""
    found = _the_one_that_waits(session, kiosk, key_prefix)
    found.approved_at, found.approved_by, found.refused_at = now_ms, by, 0
    audit.append(session, now_ms, by, "approved", f"kiosk:{kiosk}", f"key:{found.key_hash[:SHOWN_CHARACTERS]}")
    return found


def refuse(session: Session, kiosk: str, now_ms: int, by: str, key_prefix: str = "") -> Approval:
    """The kiosk is told when it asks the next time; it can still be approved. Raises NoSuchKiosk."""
    found = _the_one_that_waits(session, kiosk, key_prefix)
    found.refused_at = now_ms
    audit.append(session, now_ms, by, "refused", f"kiosk:{kiosk}", f"key:{found.key_hash[:SHOWN_CHARACTERS]}")
    return found


def _the_one_that_waits(session: Session, kiosk: str, key_prefix: str) -> Approval:
    known_kiosk(session, kiosk)
    found = [each for each in approvals(session) if each.kiosk_id == kiosk and each.key_hash.startswith(key_prefix)]
    found = [each for each in found if not each.refused_at] or found
    if not found:
        raise NoSuchKiosk(f"{kiosk} does not wait for an approval; `teleconsult hub kiosks list` shows which do")
    if len(found) > 1:
        keys = ", ".join(each.key_hash[:SHOWN_CHARACTERS] for each in found)
        raise NoSuchKiosk(f"several devices ask to be {kiosk}; say which key, as the device shows it: --key {keys}")
    return found[0]


def _waiting(kiosk: str, key: str) -> Waiting:
    return Waiting(
        f"A technician has to approve this kiosk, {kiosk} with key {key[:SHOWN_CHARACTERS]}, at the hub first: "
        f"teleconsult hub kiosks approve {kiosk}"
    )


def _free_id(session: Session, site: str) -> str:
    """After the site, so that people know it when they read it out; the kiosk keeps it when it moves."""
    stem = re.sub(r"[^a-z0-9]+", "-", site.lower()).strip("-")[:24].strip("-") or "kiosk"
    number = 1
    while session.get(Kiosk, f"{stem}-{number}") is not None:
        number += 1
    return f"{stem}-{number}"


def when(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
