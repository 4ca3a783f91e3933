"""The hub over HTTP and WebSocket, as a browser, a kiosk that joins, and somebody who means ill."""

from __future__ import annotations

import hashlib
import signal
import ssl

import httpx
import pytest

from edge_agent.core import wire
from hub import app, console
from tests.adapters.hub.rig import PASSWORD, Hub, now_ms


@pytest.fixture
async def http(hub: Hub):
    async with httpx.AsyncClient(
        base_url=hub.url, headers={"Origin": hub.url}, trust_env=False, timeout=15
    ) as client:  # fmt: skip
        yield client


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"name": 1}', b"\xff\xfe", b"[" * 10_000, b"x" * 20_000])
async def test_bodies_that_are_none(http: httpx.AsyncClient, body: bytes):
    answer = await http.post("/api/login", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 413)
    assert answer.json()["error"]


async def test_pages_load_nothing_from_elsewhere(http: httpx.AsyncClient):
    answer = await http.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_file_that_calls_itself_a_page_is_a_download(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        page = b"<script>alert(1)</script>"
        digest = hashlib.sha256(page).digest()
        consult = wire.new_consult_id()
        await kiosk.say(wire.Manifest(digest, "photo", "text/html", len(page), 1, "w"), consult, 1)
        await kiosk.until(wire.Have)
        await kiosk.say(wire.Chunk(digest, 0, page), consult)
        await kiosk.until(wire.Have, lambda have: have.complete)
        answer = await doctor.http.get(f"/api/files/{digest.hex()}")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]


async def test_garbage_on_the_websocket(hub: Hub):
    async with hub.doctor("anna") as doctor:
        for text in (
            "",
            "{",
            "[]",
            '{"type": "nothing"}',
            '{"type": "claim"}',
            '{"type": "claim", "call": 1}',
            "[" * 999,
        ):
            at = len(doctor.got)
            await doctor.send_text(text)
            refused = await doctor.until("refused", since=at)
            assert refused["code"] == "bad_request"
        for request in (
            console.Claim(call="0" * 16), console.Talk(call="f" * 16), console.RingKiosk(consult="0" * 32),
            console.OpenCase(consult="0" * 32), console.CloseCase(consult="0" * 32), console.Decline(call="0" * 16),
        ):  # fmt: skip
            at = len(doctor.got)
            await doctor.send(request)
            assert (await doctor.until("refused", since=at))["code"] == "gone"
        await doctor.send(console.Claim(call="../../etc"))
        await doctor.until("refused", lambda frame: frame["call"] == "../../etc" and frame["code"] == "bad_request")
        await doctor.send_text("x" * (console.MAX_CLIENT_BYTES + 10))
        await doctor.closed.wait()
        await doctor.connect()
        for _ in range(20):
            await doctor.send_text("{")
        await doctor.closed.wait()
    assert hub.running


async def test_closed_cases_are_listed_by_page(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        consult = wire.new_consult_id()
        await kiosk.receipt(await kiosk.say(wire.CaseNote("w", 1, text="Cough."), consult, 1))
        await doctor.until("inbox", lambda frame: [case["text"] for case in frame["cases"]] == ["Cough."])
        await doctor.send(console.CloseCase(consult=consult.hex()))
        await kiosk.until(wire.Progress, lambda progress: progress.step == "closed")
        await doctor.until("inbox", lambda frame: frame["cases"] == [], since=len(doctor.got) - 1)
        page = (await doctor.http.get("/api/cases?state=closed")).json()
        assert [case["consult"] for case in page["cases"]] == [consult.hex()]
        before = page["cases"][0]["opened_at"]
        assert (await doctor.http.get(f"/api/cases?state=closed&before={before}")).json()["cases"] == []
        # it opens again when the clinic has more to say
        await kiosk.say(wire.CaseSaved(now_ms(), ()), consult, 2)
        await doctor.until("inbox", lambda frame: len(frame["cases"]) == 1, since=len(doctor.got) - 1)


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ({"data": {"text": "  "}}, 400),
        ({"files": {"voice": ("x.html", b"<p>", "text/html")}}, 415),
        ({"data": {"text": "x" * 20_001}}, 413),
        ({"files": {"voice": ("x.webm", bytes(9 * 1024 * 1024), "audio/webm")}}, 413),
    ],
)
async def test_advice_that_is_none(hub: Hub, parts: dict, status: int):
    async with hub.doctor("anna") as doctor:
        answer = await doctor.http.post(f"/api/cases/{'0' * 32}/advice", **parts)
        assert answer.status_code == status
        assert answer.json()["error"]


async def test_advice_for_no_case(hub: Hub):
    async with hub.doctor("anna") as doctor:
        answer = await doctor.http.post(f"/api/cases/{'0' * 32}/advice", data={"text": "x"})
        assert answer.status_code == 404


# --- starting and stopping


async def test_beyond_loopback_it_serves_https(stopped_hub: Hub):
    hub = stopped_hub
    hub.set("listen", 'host = "0.0.0.0"')
    hub.broker.start()
    hub.start()
    trusting = ssl.create_default_context(cadata=app.open_authority(hub.settings).pem)
    url = f"https://127.0.0.1:{hub.port}"
    async with httpx.AsyncClient(verify=trusting, trust_env=False) as http:
        account = {"name": "anna", "password": PASSWORD}
        answer = await http.post(f"{url}/api/login", json=account, headers={"Origin": url})
        assert answer.status_code == 204
        for cookie in answer.headers.get_list("set-cookie"):
            assert cookie.startswith("__Host-teleconsult-")
            assert "; Path=/" in cookie
            assert "; Secure" in cookie
            assert "Domain" not in cookie
        plain = {"Origin": url.replace("https", "http")}
        assert (await http.post(f"{url}/api/logout", headers=plain)).status_code == 403
    async with httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(f"{url}/health")


async def test_stopping_is_quick_and_quiet(hub: Hub):
    async with hub.doctor("anna") as doctor:
        hub.kill(signal.SIGTERM)
        await doctor.closed.wait()
    log = hub.log.read_text()
    assert "hub stopped" in log
    assert "Traceback" not in log
