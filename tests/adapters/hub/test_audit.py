"""What people do at a running hub, as the audit log tells it."""

from __future__ import annotations

import hashlib

from sqlalchemy import select

from edge_agent.core import wire
from hub import audit, console
from hub.records import AuditEntry, Doctor
from hub.roles import Role
from tests.adapters.hub.rig import PASSWORD, Hub, TestDoctor, now_ms

PHOTO = bytes(range(256)) * 40
SECRET = "A rash on the left arm"


def log(hub: Hub) -> list[tuple[str, str, str]]:
    def read(session):
        return [(each.who, each.what, each.about) for each in audit.entries(session)]

    return hub.do(read)


def account(hub: Hub, name: str) -> str:

    return hub.do(lambda session: f"account:{session.scalar(select(Doctor.id).where(Doctor.name == name))}")


async def test_a_day_at_the_hub(hub: Hub):
    anna = account(hub, "anna")
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        # a case with a photo
        consult, digest = wire.new_consult_id(), hashlib.sha256(PHOTO).digest()
        case = f"consult:{consult.hex()}"
        await kiosk.say(wire.CaseNote("Worker Wanja", 1, text=SECRET, patient="Otieno"), consult, 1)
        await kiosk.say(wire.Manifest(digest, "photo", "image/jpeg", len(PHOTO), 1, "w"), consult, 2)
        await kiosk.until(wire.Have)
        await kiosk.say(wire.Chunk(digest, 0, PHOTO), consult)
        await kiosk.until(wire.Have, lambda have: have.complete)
        await doctor.case(consult)
        await doctor.case(consult)
        for part in ("bytes=0-99", "bytes=100-199", "bytes=5000-"):
            got = await doctor.http.get(f"/api/files/{digest.hex()}", headers={"Range": part})
            assert got.status_code == 206
            assert got.headers["cache-control"] == "no-store"
        assert (await doctor.http.get(f"/api/files/{'0' * 64}")).status_code == 404
        advice = (await doctor.http.post(f"/api/cases/{consult.hex()}/advice", data={"text": "Keep it dry."})).json()
        # a call
        _second, call = await kiosk.press()
        await doctor.rings(call)
        await doctor.send(console.Claim(call=call.hex()))
        await kiosk.phase(call, "claimed")
        await doctor.send(console.Talk(call=call.hex()))
        await kiosk.phase(call, "answered")
        await doctor.send(console.HangUp(call=call.hex()))
        await kiosk.phase(call, "ended")
        await doctor.send(console.CloseCase(consult=consult.hex()))
        await kiosk.until(wire.Progress, lambda progress: progress.step == "closed")
        assert (await doctor.http.get("/api/cases")).status_code == 200
        wrong = {"name": "anna", "password": "wrong password"}
        assert (await doctor.http.post("/api/login", json=wrong)).status_code == 401
        assert (await doctor.http.post("/api/login", json=wrong | {"name": "Otieno"})).status_code == 401
        await doctor.http.post("/api/logout")
    entries = log(hub)
    of_anna = [(what, about) for who, what, about in entries if who == anna]
    on_call = f"consult:{_second.hex()} call:{call.hex()}"
    assert of_anna == [
        ("signed_in", ""),
        ("inbox_opened", ""),
        ("case_viewed", case),
        ("seen", case),
        ("case_viewed", case),
        ("file_viewed", f"file:{digest.hex()} {case}"),
        ("advice", f"{case} advice:{advice['advice']}"),
        ("claimed", on_call),
        ("answered", on_call),
        ("ended_answered", on_call),
        ("closed", case),
        ("closed_cases_listed", ""),
        ("signed_out", ""),
    ]
    assert ("kiosk:hill-1", "call_requested", on_call) in entries
    assert ("kiosk:hill-1", "note", case) in entries, "the kiosk, not the name that somebody gave at it"
    assert [about for who, what, about in entries if what == "sign_in_failed"] == [anna, ""]
    everything = repr(entries)
    for word in ("anna", "Otieno", "Wanja", SECRET, "Keep it dry", PASSWORD):
        assert word not in everything, "ids only"
    head = hub.do(audit.verify)
    assert head.seq == len(entries)


async def test_the_log_outlives_a_kill_at_any_instant(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        for _ in range(3):
            consult, call = await kiosk.press()
            await doctor.rings(call)
            await doctor.send(console.Claim(call=call.hex()))
            await kiosk.phase(call, "claimed")
            await kiosk.say(wire.CallEnded(call, "cancelled", 0, now_ms()), consult, 3)
            await kiosk.phase(call, "ended")
        noted = hub.do(audit.head)
        await kiosk.press()
        hub.kill()
    assert hub.do(audit.verify, noted).seq >= noted.seq
    hub.start()
    async with hub.doctor("anna"):
        pass
    assert hub.do(audit.verify, noted).seq > noted.seq


async def test_accounts_and_reading_the_log(hub: Hub):
    hub.add_doctor("root", Role.ADMINISTRATOR)
    root = TestDoctor(hub.url, "root")
    await root.sign_in()
    await root.http.post("/api/accounts", json={"name": "new", "role": "technician"})
    new, by = account(hub, "new"), account(hub, "root")
    number = new.partition(":")[2]
    await root.http.post(f"/api/accounts/{number}/password")
    await root.http.post(f"/api/accounts/{number}/role", json={"role": "doctor"})
    await root.http.post(f"/api/accounts/{number}/disabled", json={"disabled": True})
    await root.http.post(f"/api/accounts/{number}/disabled", json={"disabled": False})
    page = (await root.http.get("/api/audit")).json()
    lines = [(line["what"], line["about"]) for line in reversed(page["entries"]) if line["who"] == by]
    assert lines == [
        ("signed_in", ""),
        ("account_added", f"{new} role:technician"),
        ("password_set", new),
        ("role_set", f"{new} role:doctor"),
        ("account_disabled", new),
        ("account_enabled", new),
        ("audit_viewed", ""),
    ]
    assert page["head"] == str(hub.do(audit.head))
    assert page["more"] is False

    def many(session):
        for _ in range(150):
            audit.append(session, 1, "hub", "test")

    hub.do(many)
    first = (await root.http.get("/api/audit")).json()
    older = (await root.http.get("/api/audit", params={"before": first["entries"][-1]["seq"]})).json()
    assert (len(first["entries"]), first["more"]) == (100, True)
    assert older["entries"][0]["seq"] == first["entries"][-1]["seq"] - 1
    assert not older["more"]
    await root.http.aclose()


async def test_what_cannot_be_audited_is_not_done(hub: Hub):
    """A log that somebody broke stops the work; it is not gone around."""
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        consult = wire.new_consult_id()
        await kiosk.receipt(await kiosk.say(wire.CaseNote("w", 1, text=SECRET), consult, 1))

        def break_it(session):
            head = session.get_one(audit.AuditHead, 1)
            head.seq += 5

        hub.do(break_it)
        since = len(doctor.got)
        await doctor.send(console.OpenCase(consult=consult.hex()))
        assert (await doctor.until("refused", since=since))["text"].startswith("Not done")
        assert not [frame for frame in doctor.got if frame["type"] == "case"]
        assert hub.do(lambda session: session.query(AuditEntry).filter_by(what="case_viewed").count()) == 0
