"""Two hub processes on one database asked about one identity in the same moment, and killed in it. On SQLite here, on
PostgreSQL in test_postgres."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from sqlalchemy import select

from edge_agent.core.csr import sign_renewal
from edge_agent.core.joining import parse_code
from edge_agent.identity import Identity, NewIdentity
from hub import app, audit, enrol
from hub.records import AuditEntry, Certificate, Invitation, Kiosk
from tests.adapters.hub.rig import Hub, now_ms
from tests.adapters.hub.test_identities import BY, hub_at, invite, joined

DEVICES = 6


@asynccontextmanager
async def two(hub: Hub, folder: Path) -> AsyncIterator[list[httpx.AsyncClient]]:
    second = Hub(folder, like=hub, process="2")
    second.start()
    try:
        async with (
            httpx.AsyncClient(base_url=hub.url, trust_env=False, timeout=15) as one,
            httpx.AsyncClient(base_url=second.url, trust_env=False, timeout=15) as other,
        ):
            yield [one, other]
    finally:
        second.kill()


def question(code: str, device: NewIdentity) -> dict[str, str]:
    return {"token": parse_code(code).token.hex(), "request": device.request}


async def test_one_code_lets_one_device_in_whichever_process_is_asked(hub: Hub, tmp_path: Path):
    code = invite(hub)
    devices = [NewIdentity(tmp_path / f"device-{number}") for number in range(DEVICES)]
    before = hub.do(lambda session: session.query(Kiosk).count())
    async with two(hub, tmp_path) as processes:
        asked = [processes[n % 2].post("/join", json=question(code, device)) for n, device in enumerate(devices)]
        answers = await asyncio.gather(*asked)
        statuses = sorted(answer.status_code for answer in answers)
        assert statuses == [200] + [403] * (DEVICES - 1), [answer.text for answer in answers]
        # the same device twice in one moment gets one certificate
        code, device = invite(hub), NewIdentity(tmp_path / "twice")
        answers = await asyncio.gather(*(each.post("/join", json=question(code, device)) for each in processes * 2))
        assert len({answer.json()["certificate"] for answer in answers}) == 1
    assert hub.do(lambda session: session.query(Kiosk).count()) == before + 2
    assert hub.do(audit.verify)


async def test_one_approval_lets_one_device_in(hub: Hub, tmp_path: Path):
    devices = [(NewIdentity(tmp_path / f"device-{n}"), invite(hub, for_kiosk="hill-1")) for n in range(DEVICES)]
    async with two(hub, tmp_path) as processes:

        async def ask() -> list[httpx.Response]:
            return await asyncio.gather(
                *(
                    processes[n % 2].post("/join", json=question(code, device))
                    for n, (device, code) in enumerate(devices)
                )
            )

        assert [answer.status_code for answer in await ask()] == [202] * DEVICES
        key = hub.do(enrol.approvals)[0].key_hash
        hub.do(enrol.approve, "hill-1", now_ms(), BY, key)
        assert sorted(answer.status_code for answer in await ask()) == [200] + [202] * (DEVICES - 1)

    assert hub.do(valid, "hill-1") == 1


def valid(session, kiosk: str) -> int:
    return session.query(Certificate).filter_by(kiosk_id=kiosk, revoked_at=0).count()


async def test_a_renewal_does_not_outrun_a_revocation(hub: Hub, tmp_path: Path):
    """Whichever comes first: when both are done, no certificate holds."""
    kiosks = [hub_at(hub, await joined(hub, invite(hub), tmp_path / str(number))) for number in range(4)]
    app.open_authority(hub.settings).rotate()  # from now on every renewal brings a new certificate
    async with two(hub, tmp_path) as processes:
        for kiosk in kiosks:
            signature = sign_renewal(kiosk.certificate, kiosk.signing_key).hex()
            body = {"certificate": kiosk.certificate_pem, "signature": signature}
            revoke = asyncio.to_thread(hub.do, enrol.revoke, kiosk.kiosk, now_ms(), BY)
            answers = await asyncio.gather(*(each.post("/renew", json=body) for each in processes), revoke)
            assert {answer.status_code for answer in answers[:2]} <= {200, 403}
            assert hub.do(valid, kiosk.kiosk) == 0
    assert hub.do(audit.verify)


async def test_a_hub_that_is_killed_while_it_answers_has_given_all_or_nothing(hub: Hub, tmp_path: Path):
    """The device asks again with the same key, and has one identity in the end."""
    for number in range(5):
        code, folder = invite(hub), tmp_path / f"device-{number}"
        device = NewIdentity(folder)
        async with httpx.AsyncClient(base_url=hub.url, trust_env=False, timeout=15) as http:
            asking = asyncio.create_task(http.post("/join", json=question(code, device)))
            await asyncio.sleep(0.004 * number)  # anywhere between the first byte and the answer
            hub.kill()
            await asyncio.gather(asking, return_exceptions=True)

        def half(session, code: str = code) -> tuple[bool, bool, bool]:
            row = session.get_one(Invitation, enrol.token_hash(parse_code(code).token))
            given = session.query(Certificate).filter_by(key_hash=row.key_hash).count() if row.key_hash else 0
            written = f"invitation:{row.token_hash[:8]}"
            entry = session.scalar(
                select(AuditEntry.seq).where(AuditEntry.what == "joined", AuditEntry.about == written)
            )
            return row.used_at > 0, given == 1, entry is not None

        assert len(set(hub.do(half))) == 1, "token, certificate and entry go together"
        hub.start()
        identity = await joined(hub, code, folder)
        assert isinstance(identity, Identity)
        assert hub.do(half) == (True, True, True)
        shutil.rmtree(folder)
    assert hub.do(audit.verify)
