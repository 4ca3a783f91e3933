"""Cookies, sessions, waits after wrong passwords, and where a request may come from."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
import websockets
from websockets.asyncio.client import connect

from hub import accounts, console
from hub.roles import Role
from tests.adapters.hub.rig import PASSWORD, Hub, TestDoctor, now_ms

COOKIE, BROWSER = "teleconsult-hub", "teleconsult-browser"
NEW = "a new and longer one"


def browser(hub: Hub, cookies: dict[str, str] | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=hub.url, headers={"Origin": hub.url}, trust_env=False, timeout=15, cookies=cookies or {}
    )


@pytest.fixture
async def http(hub: Hub) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(hub) as client:
        yield client


async def sign_in(http: httpx.AsyncClient, name: str = "anna", password: str = PASSWORD) -> httpx.Response:
    return await http.post("/api/login", json={"name": name, "password": password})


async def is_in(hub: Hub, token: str) -> bool:
    async with browser(hub, {COOKIE: token}) as http:
        return (await http.get("/api/me")).status_code == 200


async def test_a_session_from_sign_in_to_sign_out(hub: Hub, http: httpx.AsyncClient):
    answer = await sign_in(http)
    assert answer.status_code == 204
    for cookie in answer.headers.get_list("set-cookie"):
        assert "; HttpOnly" in cookie
        assert "; SameSite=strict" in cookie
        assert "; Path=/" in cookie
    me = (await http.get("/api/me")).json()
    assert (me["name"], me["role"], me["must_change"]) == ("anna", "doctor", False)
    token = http.cookies[COOKIE]
    assert (await http.post("/api/logout")).status_code == 204
    assert COOKIE not in http.cookies
    assert not await is_in(hub, token), "the token is dead, not only forgotten"


async def test_a_token_is_new_at_each_sign_in_and_never_the_browsers_own(hub: Hub):
    async with browser(hub, {COOKIE: "planted" * 6, BROWSER: "planted" * 6}) as http:
        assert (await sign_in(http)).status_code == 204
        tokens = {cookie.name: cookie.value for cookie in http.cookies.jar}
        assert "planted" * 6 not in tokens.values()
    async with browser(hub, tokens) as http:
        assert (await sign_in(http)).status_code == 204
        assert {cookie.value for cookie in http.cookies.jar if cookie.name == COOKIE} != {tokens[COOKIE]}
    assert not await is_in(hub, tokens[COOKIE]), "the one that was there before is over"


async def test_a_disabled_account_is_out_at_once(hub: Hub):
    async with hub.doctor("anna") as doctor:
        token = doctor.http.cookies[COOKIE]
        hub.do(lambda s: accounts.set_disabled(s, accounts.existing(s, "anna"), True, now_ms(), by="test"))
        assert not await is_in(hub, token)
        with contextlib.suppress(websockets.ConnectionClosed):  # the page may have been closed by then
            await doctor.send(console.OpenCase(consult="0" * 32))
        await doctor.closed.wait()
        assert doctor.close_code == 4401
        assert (await sign_in(doctor.http)).status_code == 401
        await doctor.connect()
        await doctor.closed.wait()
        assert doctor.close_code == 4401


async def test_a_new_password_ends_every_other_session_and_closes_its_pages(hub: Hub):
    async with hub.doctor("anna") as here, hub.doctor("anna") as elsewhere:
        old_token, other_token = here.http.cookies[COOKIE], elsewhere.http.cookies[COOKIE]
        for wrong, status in (
            ({"old": "not it at all", "new": NEW}, 403),
            ({"old": PASSWORD, "new": "short"}, 400),
            ({"old": PASSWORD, "new": "annaANNAanna"}, 400),
            ({"old": PASSWORD, "new": PASSWORD}, 400),
        ):
            answer = await here.http.post("/api/password", json=wrong)
            assert answer.status_code == status
            assert answer.json()["error"]
        assert await is_in(hub, other_token)
        assert (await here.http.post("/api/password", json={"old": PASSWORD, "new": NEW})).status_code == 204
        await elsewhere.closed.wait()
        assert elsewhere.close_code == 4401
        assert not await is_in(hub, other_token)
        assert not await is_in(hub, old_token)
        assert await is_in(hub, here.http.cookies[COOKIE]), "a new one here"
        await here.send(console.SetAvailable(available=False))
        await here.until("room", lambda room: not room["doctors"][0]["available"])
        assert (await sign_in(elsewhere.http)).status_code == 401
        assert (await sign_in(elsewhere.http, password=NEW)).status_code == 204


async def test_signing_out_closes_the_open_page(hub: Hub):
    async with hub.doctor("anna") as doctor:
        assert (await doctor.http.post("/api/logout")).status_code == 204
        await doctor.closed.wait()
        assert doctor.close_code == 4401


# --- guessing


async def test_a_stranger_waits_and_a_doctor_does_not(hub: Hub, http: httpx.AsyncClient):
    async with browser(hub) as own:
        assert (await sign_in(own)).status_code == 204
        for name in ("anna", "nobody"):
            for _ in range(5):
                assert (await sign_in(http, name, "wrong password")).status_code == 401
            refused = await sign_in(http, name)
            assert refused.status_code == 429, "also with the right one, and for a name that is nobody's"
            assert 1 <= int(refused.headers["retry-after"]) <= 31
            assert "seconds" in refused.json()["error"]
        assert (await sign_in(own)).status_code == 204, "her own browser is known"
        assert (await sign_in(http, "ben")).status_code == 204, "a colleague behind the same address"


async def test_an_address_that_tries_many_names_waits(hub: Hub, http: httpx.AsyncClient):
    for number in range(20):
        assert (await sign_in(http, f"guess{number}", "wrong password")).status_code == 401
    assert (await sign_in(http, "anna")).status_code == 429


# --- where it comes from


async def unsafe(http: httpx.AsyncClient) -> list[str]:
    paths = (await http.get("/openapi.json")).json()["paths"]
    return [path.replace("{consult}", "0" * 32).replace("{account}", "1") for path in paths if "post" in paths[path]]


FOREIGN = ("http://example.org", "null", "", "http://[", "http://{host}.example.org", "http://{host}@example.org")


async def test_no_unsafe_method_from_elsewhere(hub: Hub, http: httpx.AsyncClient):
    await sign_in(http)
    paths = await unsafe(http)
    assert len(paths) >= 10
    for path in paths:
        for origin in FOREIGN:
            answer = await http.post(path, json={}, headers={"Origin": origin.format(host=f"127.0.0.1:{hub.port}")})
            assert (answer.status_code, answer.json()["error"]) == (403, "This request came from another site."), path
    assert (await http.get("/api/me")).status_code == 200, "nothing of it was done"


async def test_a_cookie_without_an_origin_is_refused(hub: Hub):
    async with httpx.AsyncClient(base_url=hub.url, trust_env=False, timeout=15) as http:
        for path in await unsafe(http):
            answer = await http.post(path, json={}, headers={"Cookie": f"{COOKIE}=x"})
            assert (answer.status_code, answer.json()["error"]) == (403, "This request came from another site."), path


async def test_a_form_of_another_site_is_no_json(hub: Hub, http: httpx.AsyncClient):
    await sign_in(http)
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = await http.post("/api/password", content=b'{"old": "", "new": ""}', headers={"Content-Type": kind})
        assert answer.status_code == 415


async def test_no_websocket_from_elsewhere(hub: Hub):
    doctor = TestDoctor(hub.url, "anna")
    await doctor.sign_in()
    for origin in ("http://example.org", "null", None):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(
                f"ws://127.0.0.1:{hub.port}/console/ws", origin=origin, proxy=None,
                additional_headers={"Cookie": doctor.cookie},
            )  # fmt: skip
        assert refused.value.response.status_code == 403
    await doctor.http.aclose()


# --- who


async def test_nothing_without_signing_in(hub: Hub, http: httpx.AsyncClient):
    paths = (await http.get("/openapi.json")).json()["paths"]
    guarded = [(method, path) for path, methods in paths.items() for method in methods if "security" in methods[method]]
    assert len(guarded) >= 12
    for method, path in guarded:
        path = path.replace("{consult}", "0" * 32).replace("{account}", "1").replace("{digest}", "0" * 64)
        path = path.replace("{kiosk}", "nobody-9").replace("{number}", "0" * 8)
        answer = await http.request(method, path, **({"json": {}} if method == "post" else {}))
        assert (answer.status_code, answer.json()) == (401, {"error": "Please sign in."}), path
    async with connect(f"ws://127.0.0.1:{hub.port}/console/ws", proxy=None) as socket:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401


@pytest.mark.parametrize("role", list(Role))
async def test_a_role_may_do_what_its_table_says(hub: Hub, role: Role):
    """Each guarded path and the WebSocket, for each role."""
    hub.add_doctor("person", role)
    person = TestDoctor(hub.url, "person")
    await person.sign_in()
    may = {
        Role.DOCTOR: {"/api/files/{digest}", "/api/cases", "/api/cases/{consult}/advice"},
        Role.TECHNICIAN: {
            "/api/kiosks", "/api/kiosks/{kiosk}/approve", "/api/kiosks/{kiosk}/refuse", "/api/kiosks/{kiosk}/revoke",
            "/api/invitations", "/api/invitations/{number}/withdraw", "/api/selftest/decode",
        },
        Role.ADMINISTRATOR: {
            "/api/kiosks", "/api/selftest/decode", "/api/accounts", "/api/accounts/{account}/password",
            "/api/accounts/{account}/role", "/api/accounts/{account}/disabled", "/api/audit",
        },
    }[role] | {"/api/me", "/api/password"}  # fmt: skip
    paths = (await person.http.get("/openapi.json")).json()["paths"]
    for path, methods in paths.items():
        for method in methods:
            if "security" not in methods[method]:
                continue
            filled = path.replace("{consult}", "0" * 32).replace("{account}", "99").replace("{digest}", "0" * 64)
            filled = filled.replace("{kiosk}", "nobody-9").replace("{number}", "0" * 8)
            answer = await person.http.request(method, filled, **({"content": b""} if method == "post" else {}))
            refused = answer.status_code == 403 and answer.json()["error"] == "This account may not do this."
            assert refused == (path not in may), (method, path, answer.status_code)
    await person.connect()
    if role == Role.DOCTOR:
        await person.until("inbox")
    else:
        await person.closed.wait()
        assert person.close_code == 4403
        assert person.got == [], "not a word about patients"
    await person.disconnect()
    await person.http.aclose()


async def test_an_administrator_looks_after_accounts(hub: Hub):
    hub.add_doctor("root", Role.ADMINISTRATOR)
    root, new = TestDoctor(hub.url, "root"), TestDoctor(hub.url, "Dr Chen")
    await root.sign_in()
    made = await root.http.post("/api/accounts", json={"name": "Dr Chen", "role": "doctor"})
    assert made.status_code == 201
    again = await root.http.post("/api/accounts", json={"name": " Dr Chen "})
    assert (again.status_code, "already" in again.json()["error"]) == (409, True)
    # the password that the administrator knows is good for one thing
    await new.sign_in(made.json()["password"])
    assert (await new.http.get("/api/me")).json()["must_change"] is True
    assert (await new.http.get("/api/cases")).status_code == 403
    await new.connect()
    await new.closed.wait()
    assert new.close_code == 4403
    change = {"old": made.json()["password"], "new": NEW}
    assert (await new.http.post("/api/password", json=change)).status_code == 204
    assert (await new.http.get("/api/cases")).status_code == 200
    listed = {each["name"]: each for each in (await root.http.get("/api/accounts")).json()["accounts"]}
    account = listed["Dr Chen"]["id"]
    await new.connect()
    await new.until("inbox")
    # role, disabled, password: each ends the session and the open page
    assert (await root.http.post(f"/api/accounts/{account}/role", json={"role": "technician"})).status_code == 204
    await new.closed.wait()
    assert new.close_code == 4401
    await new.sign_in(NEW)
    assert (await new.http.get("/api/kiosks")).status_code == 200
    assert (await root.http.post(f"/api/accounts/{account}/disabled", json={"disabled": True})).status_code == 204
    assert (await new.http.get("/api/kiosks")).status_code == 401
    assert (await root.http.post(f"/api/accounts/{account}/disabled", json={"disabled": False})).status_code == 204
    reset = await root.http.post(f"/api/accounts/{account}/password")
    assert (await sign_in(new.http, "Dr Chen", NEW)).status_code == 401
    await new.sign_in(reset.json()["password"])
    # nobody ends all administration by a slip
    own = listed["root"]["id"]
    assert (await root.http.post(f"/api/accounts/{own}/disabled", json={"disabled": True})).status_code == 409
    assert (await root.http.post("/api/accounts/999/role", json={"role": "doctor"})).status_code == 404
    for person in (root, new):
        await person.disconnect()
        await person.http.aclose()


async def test_a_technician_invites_and_sees_machines(hub: Hub):
    hub.add_doctor("tech", Role.TECHNICIAN)
    tech = TestDoctor(hub.url, "tech")
    await tech.sign_in()
    async with hub.kiosk("hill-1") as kiosk:
        await kiosk.online(software="0.1.0", missing=("camera",))
        async with hub.doctor("anna") as doctor:  # the hub has taken the status in once it greets the kiosk
            _consult, call = await kiosk.press()
            await doctor.rings(call)
        cards = {card["kiosk"]: card for card in (await tech.http.get("/api/kiosks")).json()["kiosks"]}
        assert cards["hill-1"]["online"]
        assert (cards["hill-1"]["software"], cards["hill-1"]["missing"]) == ("0.1.0", ["camera"])
    invited = await tech.http.post("/api/invitations", json={"site": "Clinic by the River", "count": 3})
    assert invited.status_code == 201
    assert len({each["code"] for each in invited.json()["codes"]}) == 3
    assert base64.b64decode(invited.json()["sheet"]).startswith(b"%PDF")
    given = (await tech.http.get("/api/invitations")).json()["invitations"]
    assert [card["state"] for card in given[:4]] == ["open"] * 3 + ["used"], "those of the two kiosks are older"
    assert invited.json()["codes"][0]["code"] not in repr(given)
    assert (await tech.http.post(f"/api/invitations/{given[0]['number']}/withdraw")).status_code == 204
    assert (await tech.http.post("/api/invitations/00000000/withdraw")).status_code == 409
    assert (await tech.http.post("/api/kiosks/hill-1/refuse", json={})).status_code == 409
    assert (await tech.http.post("/api/kiosks/nobody-9/revoke")).status_code == 404
    for wrong in ({"site": ""}, {"site": " "}, {"site": "x", "count": 0}, {"site": "x", "count": 51}, {"site": "a\0"}):
        assert (await tech.http.post("/api/invitations", json=wrong)).status_code == 400
    await tech.http.aclose()
