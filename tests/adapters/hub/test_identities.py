"""Kiosks join, renew, are replaced and revoked: a real hub, a real mosquitto, and kiosks that ask as the kit's do."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edge_agent import join as joining
from edge_agent.core.csr import make_request, read_request
from edge_agent.core.joining import JoinCode, Waiting, encode_code, parse_code
from edge_agent.discovery import HubAddress
from edge_agent.identity import Identity, NewIdentity
from edge_agent.join import JoinError, Refused, join, renew
from edge_agent.tls import BrokerTls
from hub import app, enrol
from hub.records import Approval, AuditEntry, Certificate, Invitation, Kiosk
from hub.roles import Role
from tests.adapters.hub.rig import Hub, now_ms

V5 = aiomqtt.ProtocolVersion.V5
BY = "command:0"


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "APPROVAL_PAUSE_S", 0.2)


def invite(hub: Hub, site: str = "Clinic by the River", for_kiosk: str = "") -> str:
    database = hub.database()
    try:
        enrolment = enrol.Enrolment(hub.settings, database, app.open_authority(hub.settings), now_ms)
        return enrolment.invite(site, for_kiosk, by=BY)
    finally:
        database.close()


async def joined(hub: Hub, code: str, folder: Path, **named: Any) -> Identity:
    return await asyncio.to_thread(join, code, folder, HubAddress("127.0.0.1", hub.port), **named)


def connection(hub: Hub, context: ssl.SSLContext) -> aiomqtt.Client:
    """`context` may be one that was used before: then its session is resumed."""
    return aiomqtt.Client("127.0.0.1", hub.settings.broker.listen_port, protocol=V5, tls_context=context, timeout=5)


async def gets_in(hub: Hub, identity: Identity, context: BrokerTls | None = None) -> bool:
    context = context or BrokerTls.of(identity)
    context.careful = True
    try:
        async with connection(hub, context) as client:
            await client.publish(f"tc1/{identity.kiosk}/u/e", b"x", qos=1)
            context.keep_session(client._client.socket())
    except (aiomqtt.MqttError, ssl.SSLError, OSError):
        return False
    return True


async def until(holds: Callable[[], Any], what: str, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}"
        await asyncio.sleep(0.05)


def kept(hub: Hub) -> tuple[int, ...]:
    def count(session: Session) -> tuple[int, ...]:
        return tuple(
            session.scalar(select(func.count()).select_from(table)) or 0
            for table in (Kiosk, Certificate, Approval, AuditEntry)
        )

    return hub.do(count)


# --- joining


async def test_a_kiosk_joins_and_the_same_key_may_ask_again(hub: Hub, tmp_path: Path):
    code = invite(hub)
    identity = await joined(hub, code, tmp_path / "one")
    assert (identity.kiosk, identity.site) == ("clinic-by-the-river-1", "Clinic by the River")
    assert identity.broker == ("127.0.0.1", hub.settings.broker.listen_port)
    authority = app.open_authority(hub.settings)
    assert identity.hub_signing_key == authority.signing_key.public_key()
    assert identity.hub_seal_key == authority.seal_key.public_key()
    row = hub.do(lambda session: session.get_one(Kiosk, identity.kiosk))
    assert read_request(make_request(identity.signing_key, identity.seal_key.public_key())).signing_der == row.sign_key
    assert row.seal_key == identity.seal_key.public_key().public_bytes_raw()
    assert await gets_in(hub, identity)

    lost = tmp_path / "lost"  # the answer did not arrive: keys, and no identity yet
    (lost.with_name("lost.new")).mkdir()
    for name in ("sign.key", "seal.key"):
        (lost.with_name("lost.new") / name).write_bytes((identity.folder / name).read_bytes())
    again = await joined(hub, code, lost)
    assert again.certificate == identity.certificate


@pytest.mark.parametrize("problem", ["used", "late", "other site", "withdrawn", "unknown", "name taken"])
async def test_a_code_that_is_not_taken_leaves_nothing_behind(hub: Hub, tmp_path: Path, problem: str):
    code, named, says = invite(hub), {}, ""

    def change(session: Session) -> None:
        row = session.scalars(select(Invitation).order_by(Invitation.made_at.desc())).first()
        assert row is not None
        if problem == "late":
            row.expires_at = now_ms() - 1
        elif problem == "withdrawn":
            enrol.withdraw(session, row.token_hash[: enrol.SHOWN_CHARACTERS], now_ms(), BY)

    hub.do(change)
    match problem:
        case "used":
            await joined(hub, code, tmp_path / "first")
            says = "used already, for kiosk clinic-by-the-river-1"
        case "late":
            says = "too old"
        case "other site":
            named, says = {"site": "Clinic on the Hill"}, "is for Clinic by the River, not for Clinic on the Hill"
        case "withdrawn":
            says = "was withdrawn"
        case "unknown":
            code, says = encode_code(JoinCode(parse_code(code).fingerprint, bytes(10))), "does not know this code"
        case "name taken":
            named, says = {"name": "hill-1"}, "There is a kiosk hill-1 already"
    before = kept(hub)
    with pytest.raises(Refused, match=says):
        await joined(hub, code, tmp_path / "kiosk", **named)
    assert kept(hub) == before
    assert not (tmp_path / "kiosk").exists()


async def test_whoever_asks_writes_no_line_of_the_hubs_log(hub: Hub, tmp_path: Path):
    code, forged = invite(hub), "\nERROR hub.web all is lost"
    with pytest.raises(Refused):
        await joined(hub, code, tmp_path / "kiosk", site=f"elsewhere{forged}")
    async with httpx.AsyncClient(base_url=hub.url, trust_env=False, headers={"Origin": "http://evil.example"}) as http:
        assert (await http.post("/api/x%0AERROR%20hub.web%20all%20is%20lost")).status_code == 403
    lines = hub.log.read_text().splitlines()
    assert sum("all is lost" in line or "all%20is%20lost" in line for line in lines) == 2
    assert not [line for line in lines if line.startswith("ERROR")]


def wrong_curve() -> str:
    return make_request(ec.generate_private_key(ec.SECP384R1()), X25519PrivateKey.generate().public_key())


def wrong_signature() -> str:
    lines = make_request(ec.generate_private_key(ec.SECP256R1()), X25519PrivateKey.generate().public_key()).split("\n")
    lines[-3] = lines[-3][:-8] + ("AAAA" if lines[-3][-8:-4] != "AAAA" else "BBBB") + lines[-3][-4:]
    return "\n".join(lines)


def no_sealing_key() -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(
        joining.Encoding.PEM
    ).decode()  # fmt: skip


@pytest.mark.parametrize(
    ("request_of", "says"),
    [
        (wrong_curve, "not of the curve P-256"), (wrong_signature, "not right"), (no_sealing_key, "no sealing key"),
        (lambda: "", "damaged"), (lambda: "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", "damaged"),
        (lambda: "x" * 5000, "at most 4096"),
    ],
)  # fmt: skip
async def test_a_request_that_is_none_is_refused_and_costs_no_token(hub: Hub, tmp_path: Path, request_of, says: str):
    code = invite(hub)
    before = kept(hub)
    async with httpx.AsyncClient(base_url=hub.url, trust_env=False, timeout=15) as http:
        body = {"token": parse_code(code).token.hex(), "request": request_of()}
        answer = await http.post("/join", json=body)
    assert answer.status_code == 403
    assert says in answer.json()["error"]
    assert kept(hub) == before
    await joined(hub, code, tmp_path / "kiosk")


# --- revocation


async def test_a_revoked_kiosk_is_cut_off_and_stays_out(hub: Hub):
    identity = hub.identity("hill-1")
    context = BrokerTls.of(identity)
    assert await gets_in(hub, identity, context)  # and has a session to resume
    cut = asyncio.Event()

    async def stay() -> None:
        try:
            async with connection(hub, context) as client:
                await client.publish("tc1/hill-1/u/s", b"online", qos=1, retain=True)
                context.keep_session(client._client.socket())
                revoked.set()
                async for _ in client.messages:
                    pass
        except aiomqtt.MqttError:
            cut.set()

    revoked = asyncio.Event()
    async with hub.kiosk("river-2") as other, asyncio.TaskGroup() as tasks:
        tasks.create_task(stay())
        await revoked.wait()
        began = time.monotonic()
        assert hub.do(enrol.revoke, "hill-1", now_ms(), BY) == 1
        async with asyncio.timeout(60):
            await cut.wait()
        took = time.monotonic() - began
        assert not await gets_in(hub, identity, context), "it resumed its session"
        assert not await gets_in(hub, identity)
        await other.publish("e", b"still here")
        assert await gets_in(hub, hub.identity("river-2"))
    assert took < 20, took  # a minute is asked for
    with pytest.raises(Refused, match="was revoked"):
        await asyncio.to_thread(renew, hub_at(hub, identity))
    assert "kiosk cut off, its certificate was revoked kiosk=hill-1" in hub.log.read_text()


async def test_a_revocation_holds_over_kills_of_hub_and_broker(hub: Hub):
    identity = hub.identity("hill-1")
    hub.kill()
    hub.do(enrol.revoke, "hill-1", now_ms(), BY)
    assert await gets_in(hub, identity)  # nobody has told the broker
    hub.start()
    await until(lambda: "cut off" in hub.log.read_text(), "the hub tells the broker")
    hub.broker.kill()
    hub.broker.start()
    assert not await gets_in(hub, identity)


# --- renewal and replacement


def hub_at(hub: Hub, identity: Identity) -> Identity:
    """The identities of these tests were made without a web server."""
    return dataclasses.replace(identity, hub=hub.url)


def reissue(hub: Hub, kiosk: str, left: timedelta) -> Identity:
    """As if the kiosk had joined so long ago that so much is left of its certificate."""
    database, identity = hub.database(), hub.identity(kiosk)
    try:
        enrolment = enrol.Enrolment(hub.settings, database, app.open_authority(hub.settings), now_ms, left)

        def again(session: Session) -> Any:
            session.query(Certificate).filter_by(kiosk_id=kiosk).delete()
            given = enrolment._issue(session, kiosk, enrol.kept_keys(session.get_one(Kiosk, kiosk)))
            return enrolment._reply(session, given)

        return hub_at(hub, identity.renewed(database.do(again)))
    finally:
        database.close()


async def test_a_certificate_is_renewed_in_its_last_third_and_not_before(hub: Hub):
    early = reissue(hub, "hill-1", timedelta(days=31))
    same = await asyncio.to_thread(renew, early)
    assert isinstance(same, Identity)
    assert same.certificate == early.certificate
    due = reissue(hub, "hill-1", timedelta(days=29))
    newer = await asyncio.to_thread(renew, due)
    assert isinstance(newer, Identity)
    assert newer.expires_at - due.expires_at > timedelta(days=60)
    assert newer.signing_key.public_key() == due.signing_key.public_key()
    assert await gets_in(hub, newer)
    assert await gets_in(hub, due), "the older one holds until it ends"
    lost = await asyncio.to_thread(renew, due)  # the answer did not arrive
    assert isinstance(lost, Identity)
    assert lost.certificate == newer.certificate


async def test_an_expired_certificate_waits_for_a_technician(hub: Hub):
    hub.add_doctor("tess", Role.TECHNICIAN)
    expired = reissue(hub, "hill-1", timedelta(days=-1))
    assert not await gets_in(hub, expired)
    waiting = await asyncio.to_thread(renew, expired)
    assert isinstance(waiting, Waiting)
    assert "teleconsult hub kiosks approve hill-1" in waiting.waiting
    assert isinstance(await asyncio.to_thread(renew, expired), Waiting)
    async with httpx.AsyncClient(base_url=hub.url, headers={"Origin": hub.url}, trust_env=False, timeout=15) as http:
        assert (await http.post("/api/kiosks/hill-1/approve", json={})).status_code == 401
        for name, status in (("anna", 403), ("tess", 204)):  # a doctor may not
            await http.post("/api/login", json={"name": name, "password": "correct horse battery"})
            answer = await http.post("/api/kiosks/hill-1/approve", json={})
            assert answer.status_code == status, answer.text
        assert (await http.post("/api/kiosks/hill-1/approve", json={})).status_code == 409  # nothing waits any more
        card = next(card for card in (await http.get("/api/kiosks")).json()["kiosks"] if card["kiosk"] == "hill-1")
        assert card["asking"] == []
    newer = await asyncio.to_thread(renew, expired)
    assert isinstance(newer, Identity)
    assert await gets_in(hub, newer)


async def test_an_open_connection_ends_with_its_certificate(hub: Hub):
    short = reissue(hub, "hill-1", timedelta(seconds=4))
    with contextlib.suppress(aiomqtt.MqttError):
        async with asyncio.timeout(30), connection(hub, BrokerTls.of(short)) as client:
            async for _ in client.messages:
                pass
    assert not await gets_in(hub, short)
    assert isinstance(await asyncio.to_thread(renew, short), Waiting)
    await until(lambda: "its certificate has run out kiosk=hill-1" in hub.log.read_text(), "it is logged")


async def test_new_hardware_takes_over_by_approval_and_the_old_one_is_out(hub: Hub, tmp_path: Path):
    old = hub.identity("hill-1")
    assert await gets_in(hub, old)
    code = invite(hub, for_kiosk="hill-1")
    told: list[str] = []
    joining_ = asyncio.create_task(joined(hub, code, tmp_path / "new", waiting=told.append))
    await until(lambda: told, "the technician is asked for")
    assert await gets_in(hub, old), "nothing happens before the approval"
    with pytest.raises(Refused, match="used already"):  # a third device, with the same code
        await joined(hub, code, tmp_path / "third")
    asking = hub.do(enrol.approvals)
    assert [(each.kiosk_id, each.why) for each in asking] == [("hill-1", enrol.REPLACED)]
    assert asking[0].key_hash[: enrol.SHOWN_CHARACTERS] in told[0]
    hub.do(enrol.approve, "hill-1", now_ms(), BY)
    new = await asyncio.wait_for(joining_, 20)
    assert new.kiosk == "hill-1"
    assert new.signing_key.public_key() != old.signing_key.public_key()
    await until(lambda: "cut off" in hub.log.read_text(), "the old certificate is revoked")
    assert not await gets_in(hub, old)
    assert await gets_in(hub, new)
    with pytest.raises(Refused, match="was revoked"):
        await asyncio.to_thread(renew, hub_at(hub, old))


async def test_a_renewal_that_another_key_signs_is_refused(hub: Hub, tmp_path: Path):
    victim, thief = hub_at(hub, hub.identity("hill-1")), NewIdentity(tmp_path / "thief")
    with pytest.raises(Refused, match="not signed by the certificate's key"):
        await asyncio.to_thread(renew, dataclasses.replace(victim, signing_key=thief._signing_key))


# --- one CA after another


async def test_both_cas_are_trusted_until_the_change_is_finished(hub: Hub, tmp_path: Path):
    authority = app.open_authority(hub.settings)
    old, early_code = hub.identity("hill-1"), invite(hub)
    authority.rotate()
    await until(lambda: len((hub.settings.broker_dir / "ca.pem").read_text().split("BEGIN")) == 3, "the broker knows")
    new = await joined(hub, early_code, tmp_path / "new")  # a code from before holds
    assert authority.is_by_newest(new.certificate)
    assert not authority.is_by_newest(old.certificate)
    await until_in(hub, new)
    assert await gets_in(hub, old)
    assert len(new.cas) == 2
    assert hub.do(enrol.behind, authority) == ["hill-1", "river-2"]
    with pytest.raises(OSError, match="still under way"):
        authority.rotate()

    renewed = await asyncio.to_thread(renew, hub_at(hub, old))  # long before its end: another CA signs now
    assert isinstance(renewed, Identity)
    assert authority.is_by_newest(renewed.certificate)
    assert hub.do(enrol.behind, authority) == ["river-2"]
    hub.do(enrol.revoke, "river-2", now_ms(), BY)  # on the older CA's list, too
    await until(lambda: "cut off" in hub.log.read_text(), "the revocation")
    assert not await gets_in(hub, hub.identity("river-2"))

    authority.finish_rotation(app.names_of(hub.settings))
    await until(lambda: len((hub.settings.broker_dir / "ca.pem").read_text().split("BEGIN")) == 2, "the broker knows")
    await until_in(hub, renewed)
    assert await gets_in(hub, new)
    assert not await gets_in(hub, old)
    with pytest.raises(JoinError, match="another CA"):
        await joined(hub, early_code, tmp_path / "late")


async def until_in(hub: Hub, identity: Identity) -> None:
    """The broker takes a moment for what it was told."""
    deadline = time.monotonic() + 10
    while not await gets_in(hub, identity):
        assert time.monotonic() < deadline, "not let in"
