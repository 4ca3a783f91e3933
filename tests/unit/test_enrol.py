"""Who gets an identity, on a real database and CA and without a web server or broker: what one rule would let through
if it were asked in one place only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from edge_agent.core import trust, wire
from edge_agent.core.csr import sign_renewal
from edge_agent.core.joining import IdentityReply, JoinRequest, RenewRequest, Waiting, parse_code
from edge_agent.identity import Identity, NewIdentity
from hub import enrol
from hub.certificates import CertificateWatch
from hub.config import HubSettings, StoreSection
from hub.database import Database
from hub.enrol import Enrolment, JoinRefused, NoSuchKiosk
from hub.outgoing import Outgoing
from hub.records import Approval, AuditEntry, Certificate, Heard, Kiosk
from hub.sealing import Sealing
from tests.adapters.identities import new_authority

R = TypeVar("R")
BY = "account:7"


def now_ms() -> int:
    return int(time.time() * 1000)


class Office:
    """The hub's end, and devices that ask it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = HubSettings(store=StoreSection(data_dir=str(folder / "hub")))
        self.authority = new_authority(folder / "hub" / "ca")
        self.database = Database(self.settings.database_url, self.settings.data_dir)
        own = trust.OwnKeys(self.authority.signing_key, self.authority.seal_key)
        self.sealing = Sealing(own, "1")
        self.life = timedelta(days=90)

    def do(self, work: Callable[..., R], *arguments: Any) -> R:
        return self.database.do(work, *arguments)

    @property
    def enrolment(self) -> Enrolment:
        return Enrolment(self.settings, self.database, self.authority, now_ms, self.life)

    def device(self, name: str) -> NewIdentity:
        return NewIdentity(self.folder / name)

    def invite(self, site: str = "Hill clinic", kiosk: str = "") -> str:
        return self.enrolment.invite(site, kiosk, by=BY)

    async def ask(self, device: NewIdentity, code: str, name: str = "") -> IdentityReply | Waiting:
        return await self.enrolment.join(JoinRequest(parse_code(code).token.hex(), device.request, name))

    async def join(self, name: str) -> Identity:
        device = self.device(name)
        reply = await self.ask(device, self.invite(), name)
        assert isinstance(reply, IdentityReply)
        return device.take("https://hub", reply)

    async def renew(self, identity: Identity) -> IdentityReply | Waiting:
        signature = sign_renewal(identity.certificate, identity.signing_key).hex()
        return await self.enrolment.renew(RenewRequest(identity.certificate_pem, signature))

    def waiting(self) -> list[tuple[str, str, str]]:
        return [(each.kiosk_id, each.why, each.key_hash) for each in self.do(enrol.approvals)]

    def hears(self, kiosk: Identity, body: wire.Body, counter: int) -> None:
        """Raises TrustError."""
        topic = wire.up_topic(kiosk.kiosk, body.CHANNEL)
        reader = None if isinstance(body, wire.Status) else self.authority.seal_key.public_key()
        payload = trust.wrap(wire.encode(wire.Message(body)), topic, kiosk.signing_key, reader, counter=counter)

        def hear(session: Session) -> None:
            self.sealing.admit(session, self.sealing.open(session, topic, payload, now_ms()))

        self.do(hear)

    def tells(self, kiosk: str) -> int:
        """How many messages come out when there is one for this kiosk."""

        def tell(session: Session) -> int:
            out = Outgoing()
            out.messages.append((kiosk, wire.Message(wire.Presence("here"))))
            self.sealing.seal(session, out, now_ms())
            return len(out.sealed)

        return self.do(tell)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path)
    yield office
    office.database.close()


def ends(session: Session, kiosk: str, at_ms: int) -> int:
    """By the hub's records; returns when it ended before."""
    row = session.scalars(select(Certificate).where(Certificate.kiosk_id == kiosk)).one()
    before, row.expires_at = row.expires_at, at_ms
    return before


# --- approvals


async def test_an_approval_is_for_one_thing(office: Office):
    """A renewal that a technician allowed lets nobody take over another kiosk, nor the same one as new hardware."""
    office.life = timedelta(days=-1)
    expired = await office.join("hill-1")
    office.life = timedelta(days=90)
    await office.join("river-2")
    assert isinstance(await office.renew(expired), Waiting)
    office.do(enrol.approve, "hill-1", now_ms(), BY)
    code = office.invite(kiosk="river-2")
    request = JoinRequest(parse_code(code).token.hex(), _request_of(expired))
    assert isinstance(await office.enrolment.join(request), Waiting), "approved for something else"
    assert [(kiosk, why) for kiosk, why, _ in office.waiting()] == [("river-2", enrol.REPLACED)]


def _request_of(identity: Identity) -> str:
    from edge_agent.core.csr import make_request

    return make_request(identity.signing_key, identity.seal_key.public_key())


async def test_a_takeover_ends_what_the_others_waited_for(office: Office):
    office.life = timedelta(days=-1)
    old = await office.join("hill-1")
    office.life = timedelta(days=90)
    assert isinstance(await office.renew(old), Waiting)
    devices = [(office.device(name), office.invite(kiosk="hill-1")) for name in ("one", "two")]
    for device, code in devices:
        assert isinstance(await office.ask(device, code), Waiting)
    assert len(office.waiting()) == 3
    with pytest.raises(NoSuchKiosk, match="several devices"):
        office.do(enrol.approve, "hill-1", now_ms(), BY)
    first = next(key for _, why, key in office.waiting() if why == enrol.REPLACED)
    office.do(enrol.approve, "hill-1", now_ms(), BY, first)
    given = [reply for device, code in devices if isinstance(reply := await office.ask(device, code), IdentityReply)]
    assert len(given) == 1
    assert [why for _, why, key in office.waiting() if key != first] in ([], [enrol.REPLACED]), "it may ask again"
    with pytest.raises(JoinRefused, match="was revoked"):
        await office.renew(old)


async def test_a_code_that_is_withdrawn_asks_for_nothing_any_more(office: Office):
    await office.join("hill-1")
    code = office.invite(kiosk="hill-1")
    device = office.device("new")
    assert isinstance(await office.ask(device, code), Waiting)
    number = enrol.token_hash(parse_code(code).token)[:8]
    office.do(enrol.withdraw, number, now_ms(), BY)
    assert office.waiting() == []
    with pytest.raises(JoinRefused, match="withdrawn"):
        await office.ask(device, code)


# --- new hardware


async def test_new_hardware_is_heard_whatever_the_old_ones_clock_said(office: Office):
    """Counters go up with a device's clock. The old one's may have been in 2050, the new one has none."""
    old = await office.join("hill-1")
    for body in (wire.TimeAsked(bytes(wire.NONCE_BYTES)), wire.Status(online=True), wire.Status(online=False)):
        office.hears(old, body, counter=2_500_000_000_000_000)
    device, code = office.device("new"), office.invite(kiosk="hill-1")
    assert isinstance(await office.ask(device, code), Waiting)
    office.do(enrol.approve, "hill-1", now_ms(), BY)
    reply = await office.ask(device, code)
    assert isinstance(reply, IdentityReply)
    new = device.take("https://hub", reply)
    office.hears(new, wire.Status(online=True), counter=1)
    office.hears(new, wire.TimeAsked(bytes(wire.NONCE_BYTES)), counter=2)
    with pytest.raises(trust.Replayed):
        office.hears(new, wire.TimeAsked(bytes(wire.NONCE_BYTES)), counter=2)
    with pytest.raises(trust.Forged):
        office.hears(old, wire.TimeAsked(bytes(wire.NONCE_BYTES)), counter=2_600_000_000_000_000)
    assert office.do(lambda s: s.scalar(select(AuditEntry.what).order_by(AuditEntry.seq.desc()).limit(1))) == "joined"
    assert "revoked" in office.do(lambda s: list(s.scalars(select(AuditEntry.what))))


# --- certificates that have run out


async def test_an_expired_kiosk_is_neither_heard_nor_told(office: Office):
    office.life = timedelta(days=-1)
    kiosk = await office.join("hill-1")
    office.life = timedelta(days=90)
    ends_at = office.do(ends, "hill-1", now_ms() + 60_000)
    office.hears(kiosk, wire.TimeAsked(bytes(wire.NONCE_BYTES)), counter=1)
    assert office.tells("hill-1") == 1
    office.do(ends, "hill-1", ends_at)
    with pytest.raises(trust.Forged, match="has run out"):
        office.hears(kiosk, wire.TimeAsked(bytes(wire.NONCE_BYTES)), counter=2)
    assert office.tells("hill-1") == 0
    assert isinstance(await office.renew(kiosk), Waiting)
    office.do(enrol.approve, "hill-1", now_ms(), BY)
    assert isinstance(await office.renew(kiosk), IdentityReply)
    office.hears(kiosk, wire.TimeAsked(bytes(wire.NONCE_BYTES)), counter=3)
    assert office.tells("hill-1") == 1


class Watch(CertificateWatch):
    """Cuts nobody's connection, but says when it would, and what comes in between."""

    def __init__(self, office: Office, meanwhile: Callable[[str], None] = lambda kiosk: None) -> None:
        async def do(work: Callable[..., Any], *arguments: Any) -> Any:
            return office.do(lambda session: work(session, Outgoing(), *arguments))

        super().__init__(office.settings, office.authority, [], do, now_ms, lambda: None)
        (office.settings.broker_dir).mkdir(exist_ok=True)
        self.was_cut: list[str] = []
        self._meanwhile = meanwhile

    async def _cut(self, kiosk: str) -> None:
        self.was_cut.append(kiosk)
        self._meanwhile(kiosk)


async def test_a_connection_ends_with_its_certificate(office: Office):
    for name in ("hill-1", "river-2"):
        await office.join(name)
    watch = Watch(office)
    await watch._look()
    assert watch.was_cut == []
    office.do(ends, "hill-1", now_ms() - 1)
    await watch._look()
    await watch._look()
    assert watch.was_cut == ["hill-1"], "once"
    assert office.authority.revoked == frozenset(), "it may come back with a newer one"
    office.do(enrol.revoke, "hill-1", now_ms(), BY)
    await watch._look()
    assert watch.was_cut == ["hill-1", "hill-1"]
    assert len(office.authority.revoked) == 1


async def test_who_has_renewed_in_time_is_not_cut(office: Office):
    office.life = timedelta(days=20)
    kiosk = await office.join("hill-1")
    office.life = timedelta(days=90)
    assert isinstance(await office.renew(kiosk), IdentityReply)

    def older_ends(session: Session) -> None:
        serial = f"{kiosk.certificate.serial_number:x}"
        session.execute(update(Certificate).where(Certificate.serial == serial).values(expires_at=now_ms() - 1))

    office.do(older_ends)
    watch = Watch(office)
    await watch._look()
    assert watch.was_cut == []


async def test_new_hardware_that_is_faster_than_the_cut_stays_online(office: Office):
    """The cut ends its connection too: it comes again at once, and nobody may write it off after that."""
    await office.join("hill-1")
    office.do(enrol.revoke, "hill-1", now_ms(), BY)

    def comes(kiosk: str) -> None:
        office.do(lambda session: session.execute(update(Kiosk).values(online=True)) and None)

    comes("hill-1")
    watch = Watch(office, meanwhile=comes)
    await watch._look()
    assert watch.was_cut == ["hill-1"]
    assert office.do(lambda session: session.get_one(Kiosk, "hill-1").online)


async def test_a_change_of_ca_that_was_killed_is_ended_by_the_running_hub(office: Office):
    """Between the new CA and the lists of what is revoked: OpenSSL wants one of each issuer, or lets nobody in."""
    await office.join("hill-1")
    watch = Watch(office)
    await watch._look()
    office.authority._make_ca(2)
    await watch._look()
    assert (office.settings.broker_dir / "ca.pem").read_text().count("BEGIN") == 2
    assert (office.settings.broker_dir / "crl.pem").read_text().count("BEGIN") == 2


# --- invitations


@pytest.mark.parametrize("site", ["", "   ", "Hill\nclinic", "Hill\0clinic"])
def test_a_code_is_for_a_clinic_that_can_be_read(office: Office, site: str):
    with pytest.raises(JoinRefused, match="clinic's name"):
        office.invite(site)
    assert office.do(enrol.invitations) == []


def test_nothing_is_kept_of_an_approval_that_nobody_asked_for(office: Office):
    with pytest.raises(NoSuchKiosk):
        office.do(enrol.approve, "hill-1", now_ms(), BY)
    assert office.do(lambda session: session.query(Approval).count() + session.query(Heard).count()) == 0
