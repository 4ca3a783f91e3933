"""The pages of technicians and administrators in a real Chromium on a real hub, and what a page may not do there.

`CONSOLE_PICTURES=folder` keeps pictures of the pages at 1280×720.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import pytest
from playwright.async_api import Browser, Locator, Page, Route, async_playwright, expect

from edge_agent.core import wire
from edge_agent.core.joining import Waiting, split_link
from edge_agent.discovery import HubAddress
from edge_agent.identity import Identity
from edge_agent.join import Refused, join, renew
from hub import audit
from hub.roles import Role
from tests.adapters.hub.rig import PASSWORD, Hub
from tests.adapters.hub.test_audit import account, log
from tests.adapters.hub.test_identities import reissue, until

CHROMIUM = "/usr/bin/chromium"
NEW = "a new and longer one"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if shutil.which(CHROMIUM) is None:
        pytest.skip("no Chromium here: apt install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


class Desk:
    """Somebody's page; everything it asked for and complained of."""

    def __init__(self, hub: Hub, page: Page) -> None:
        self.hub, self.page = hub, page
        self.asked: list[str] = []
        self.wrong: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("websocket", lambda socket: self.asked.append(socket.url))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda line: self.wrong.append(line.text) if "Content Security" in line.text else None)

    def part(self, name: str) -> Locator:
        return self.page.locator(f"[data-test={name}]")

    async def sign_in(self, name: str, password: str = PASSWORD) -> None:
        await self.page.goto(self.hub.url)
        await self.part("sign-in-name").fill(name)
        await self.part("sign-in-password").fill(password)
        await self.part("sign-in-submit").click()

    async def choose_password(self, old: str, new: str) -> None:
        for field, text in (("old", old), ("new", new), ("again", new)):
            await self.part(f"password-{field}").fill(text)
        await self.part("password-submit").click()

    async def picture(self, name: str) -> None:
        if folder := os.environ.get("CONSOLE_PICTURES"):
            await self.page.screenshot(path=Path(folder) / f"{name}.png")


@asynccontextmanager
async def desk(hub: Hub, browser: Browser) -> AsyncIterator[Desk]:
    context = await browser.new_context(viewport={"width": 1280, "height": 720})
    desk = Desk(hub, await context.new_page())
    yield desk
    assert desk.wrong == []
    elsewhere = [url for url in desk.asked if urlsplit(url).netloc != f"127.0.0.1:{hub.port}" and urlsplit(url).netloc]
    assert elsewhere == [], "no request leaves for a third party"
    assert len(desk.asked) > 10
    await context.close()


async def test_an_account_from_made_to_disabled(hub: Hub, browser: Browser):
    hub.add_doctor("root", Role.ADMINISTRATOR)
    async with desk(hub, browser) as root, desk(hub, browser) as doctor:
        await root.sign_in("root")
        await expect(root.part("kiosk")).to_have_count(0)
        await root.part("office-tab-accounts").click()
        await root.part("account-name").fill("Dr Chen")
        await root.part("account-add").click()
        made = await root.part("made-password").inner_text()
        await root.picture("accounts-made")
        await root.part("made-done").click()
        await expect(root.page.get_by_text(made)).to_have_count(0)
        # the doctor can do nothing before the password is an own one
        await doctor.sign_in("Dr Chen", made)
        await expect(doctor.part("password-old")).to_be_visible()
        await doctor.picture("password-page")
        await doctor.choose_password(made, "DrChen")
        await expect(doctor.part("password-error")).to_contain_text("10 to 200 characters")
        await doctor.choose_password(made, NEW)
        await expect(doctor.part("link-state")).to_have_attribute("data-state", "up")
        # and changes it again over the work, which goes on
        await doctor.part("password-open").click()
        await doctor.picture("password-dialog")
        await doctor.choose_password(NEW, NEW + " still")
        await expect(doctor.part("password-dialog")).to_have_count(0)
        await doctor.part("available").click()
        await expect(doctor.part("available")).to_have_attribute("aria-checked", "false")
        # back at the administrator's: another role, then out
        row = root.page.locator("[data-test=account][data-name='Dr Chen']")
        await row.locator("[data-test=disable]").click()
        await expect(row).to_have_attribute("data-disabled", "true")
        await expect(doctor.part("sign-in-name")).to_be_visible()
        await row.locator("[data-test=disable]").click()
        await expect(row).to_have_attribute("data-disabled", "false")
        await row.locator("[data-test=reset]").click()
        await root.picture("accounts-sure")
        await row.locator("[data-test=reset-sure]").click()
        await expect(root.part("made-password")).to_be_visible()
        await root.picture("accounts")
        await root.part("account-name").fill("Dr Chen")
        await root.part("account-add").click()
        await expect(root.part("notice")).to_contain_text("there is an account 'Dr Chen' already")
        await root.part("office-tab-audit").click()
        await expect(root.part("audit-line").first).to_have_attribute("data-what", "audit_viewed")
        await expect(root.part("audit-head")).to_have_text(str(hub.do(audit.head)))
        await root.picture("audit")
        await root.part("sign-out").click()
        await expect(root.part("sign-in-name")).to_be_visible()


async def test_kiosks_and_codes_for_new_ones(hub: Hub, browser: Browser, tmp_path: Path):
    hub.add_doctor("tech", Role.TECHNICIAN)
    async with desk(hub, browser) as tech, hub.kiosk("hill-1") as kiosk, hub.kiosk("river-2") as second:
        await kiosk.online(software="0.1.0", missing=("camera",), warnings=("disk_low",))
        await second.online(software="0.1.0", language="sw")
        await second.say(wire.Spent(17_240_000, 180_400_000, 20_000_000, 0, 3608.0, "KES", "day", 0))
        async with hub.doctor("anna") as doctor:
            for each in (kiosk, second):
                _consult, call = await each.press()
                await doctor.rings(call)
        await tech.sign_in("tech")
        await expect(tech.part("kiosk")).to_have_count(2)
        await expect(tech.part("kiosk").first).to_contain_text("no camera, the kiosk's disk is nearly full")
        await expect(tech.part("spent")).to_have_text(
            "17.2 of 20.0 MB today, 180.4 MB this month, 3608.00 KES, photos wait until tomorrow"
        )
        await expect(tech.part("office-tab-accounts")).to_have_count(0)
        await tech.part("invite-site").fill("Clinic by the River")
        await tech.part("invite-count").fill("2")
        await tech.part("invite-submit").click()
        await expect(tech.part("code")).to_have_count(2)
        await tech.picture("kiosks-codes")
        # the printed sheet and the picture on the screen say the same as the code
        async with tech.page.expect_download() as saving:
            await tech.part("sheet").click()
        sheet = tmp_path / "sheet.pdf"
        await (await saving.value).save_as(sheet)
        assert sheet.read_bytes().startswith(b"%PDF")
        for number in range(2):
            shown = "".join((await tech.part("code").nth(number).inner_text()).split())
            picture = tmp_path / "qr.png"
            await tech.part("codes").locator("svg.qr").nth(number).screenshot(path=picture)
            text = cv2.QRCodeDetector().detectAndDecode(cv2.imread(str(picture)))[0]
            assert split_link(text) == (shown, f"127.0.0.1:{hub.port}")
        # one is taken back, with the other a kiosk joins
        await tech.part("invitations").locator("summary").click()
        await expect(tech.page.locator("[data-test=invitation][data-state=open]")).to_have_count(2)
        await tech.part("withdraw").first.click()
        await expect(tech.page.locator("[data-test=invitation][data-state=withdrawn]")).to_have_count(1)
        await tech.picture("kiosks-given-out")
        codes = ["".join((await tech.part("code").nth(number).inner_text()).split()) for number in range(2)]
        joined = []
        for number, code in enumerate(codes):
            with contextlib.suppress(Refused):
                joined.append(await joins(hub, code, tmp_path / str(number)))
        assert [identity.kiosk for identity in joined] == ["clinic-by-the-river-1"]
        await tech.part("made-done").click()
        await expect(tech.part("code")).to_have_count(0)


async def joins(hub: Hub, code: str, folder: Path, told: Callable[[str], None] = lambda text: None) -> Identity:
    return await asyncio.to_thread(join, code, folder, HubAddress("127.0.0.1", hub.port), waiting=told)


async def test_a_technician_approves_refuses_and_revokes(hub: Hub, browser: Browser, tmp_path: Path):
    """As a kiosk has been away for too long, as new hardware comes, as a stranger does, and as a kiosk is stolen."""
    hub.add_doctor("tech", Role.TECHNICIAN)
    long_away = reissue(hub, "river-2", timedelta(days=-1))
    assert isinstance(await asyncio.to_thread(renew, long_away), Waiting)
    async with desk(hub, browser) as tech:
        await tech.sign_in("tech")
        asking = tech.page.locator("[data-test=asking]")
        await expect(asking).to_have_attribute("data-kiosk", "river-2")
        await expect(asking).to_contain_text("Its certificate has run out")
        await asking.locator("[data-test=approve]").click()
        await asking.locator("[data-test=approve-sure]").click()
        await expect(asking).to_have_count(0)
        assert isinstance(await asyncio.to_thread(renew, long_away), Identity)
        # two devices want to be hill-1: each with a code made for it
        hill = tech.page.locator("[data-test=kiosk][data-kiosk=hill-1]")
        told: dict[str, str] = {}
        devices = {}
        for name in ("right", "wrong"):
            await hill.locator("[data-test=replace]").click()
            await expect(tech.part("code")).to_have_count(1)
            code = "".join((await tech.part("code").inner_text()).split())
            await tech.part("made-done").click()
            devices[name] = asyncio.create_task(
                joins(hub, code, tmp_path / name, functools.partial(told.__setitem__, name))
            )  # fmt: skip
        await expect(asking).to_have_count(2, timeout=20_000)
        await until(lambda: len(told) == 2, "both know that they wait")
        keys = {name: re.search("with key ([0-9a-f]{8})", text)[1] for name, text in told.items()}  # type: ignore[index]
        await tech.picture("kiosks-waiting")
        wrong, right = (
            tech.page.locator(f"[data-test=asking][data-key='{keys[name]}']") for name in ("wrong", "right")
        )
        await wrong.locator("[data-test=refuse]").click()
        await expect(wrong).to_have_attribute("data-refused", "true")
        with pytest.raises(Refused, match=f"refused this kiosk, hill-1 with key {keys['wrong']}"):
            await devices["wrong"]
        await right.locator("[data-test=approve]").click()
        await expect(right).to_contain_text(f"Does the device show key {keys['right']}?")
        await tech.picture("kiosks-sure")
        await right.locator("[data-test=approve-sure]").click()
        new = await devices["right"]
        assert new.kiosk == "hill-1"
        await expect(asking).to_have_count(0, timeout=20_000)
        await until(lambda: "cut off" in hub.log.read_text(), "the old device is out")
        # and it is stolen
        await hill.locator("[data-test=revoke]").click()
        await tech.picture("kiosks-revoke")
        await hill.locator("[data-test=revoke-sure]").click()
        await expect(hill).to_contain_text("revoked")
        await expect(hill.locator("[data-test=revoke]")).to_have_count(0)
        with pytest.raises(Refused, match="was revoked"):
            await asyncio.to_thread(renew, dataclasses.replace(new, hub=hub.url))
        await tech.picture("kiosks-revoked")
    by = account(hub, "tech")
    did = [what for who, what, _ in log(hub) if who == by]
    assert did == ["signed_in", "approved", "invited", "invited", "refused", "approved", "revoked"]


async def test_an_administrator_sees_kiosks_and_changes_none(hub: Hub, browser: Browser):
    hub.add_doctor("root", Role.ADMINISTRATOR)
    async with desk(hub, browser) as root:
        await root.sign_in("root")
        await expect(root.part("kiosk")).to_have_count(2)
        for action in ("invite-submit", "replace", "revoke", "approve"):
            await expect(root.part(action)).to_have_count(0)
        for path in ("kiosks/hill-1/approve", "kiosks/hill-1/refuse", "kiosks/hill-1/revoke", "invitations"):
            status = await root.page.evaluate(
                "path => fetch(path, {method: 'POST', headers: {'Content-Type': 'application/json'}, body: '{}'})"
                ".then((answer) => answer.status)", f"/api/{path}",
            )  # fmt: skip
            assert status == 403, path


async def test_a_page_runs_and_fetches_nothing_but_the_hubs_own(hub: Hub, browser: Browser):
    """Whatever got into the page by a hole: the policy, as Chromium carries it out, does not let it act."""
    context = await browser.new_context()
    page = await context.new_page()
    reached: list[str] = []
    await context.route("**/*", lambda route: _count(route, reached, hub))
    await page.goto(hub.url)
    await page.locator("[data-test=sign-in-name]").wait_for()
    refused = await page.evaluate(ATTEMPTS)
    assert await page.evaluate("window.hacked") is None
    assert reached == []
    assert {
        "require-trusted-types-for", "img-src", "frame-src", "style-src-elem", "connect-src", "form-action",
    } <= set(refused), refused  # fmt: skip
    await context.close()


async def test_markup_that_got_into_the_page_is_dead(hub: Hub, browser: Browser):
    context = await browser.new_context()
    page = await context.new_page()
    reached: list[str] = []
    said: list[str] = []
    page.on("console", lambda line: said.append(line.text))

    async def answer(route: Route) -> None:
        if urlsplit(route.request.url).path != "/":
            return await _count(route, reached, hub)
        genuine = await route.fetch()
        body = (await genuine.text()).replace("</body>", MARKUP + "</body>")
        await route.fulfill(response=genuine, body=body)  # with the hub's own headers

    await context.route("**/*", answer)
    await page.goto(hub.url)
    await page.locator("[data-test=sign-in-name]").wait_for()
    assert await page.evaluate("window.hacked") is None
    assert reached == []
    for directive in ("script-src", "base-uri", "object-src"):
        assert [text for text in said if directive in text and "Content Security Policy" in text], directive
    await context.close()


MARKUP = """
<script>window.hacked = 1</script>
<script src="https://example.org/x.js"></script>
<img src="/none.png" onerror="window.hacked = 1">
<a id="a" href="javascript:window.hacked=1">x</a>
<base href="https://example.org/">
<object data="https://example.org/x"></object>
"""
ATTEMPTS = """async () => {
    await new Promise((done) => setTimeout(done)); // out of the debugger's own turn, in which eval is let through
    const refused = [];
    const made = (tag, values) => Object.assign(document.createElement(tag), values);
    const put = (tag, values) => document.body.appendChild(made(tag, values));
    document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
    const tries = [
        () => put("script", { textContent: "window.hacked = 1" }),
        () => put("script", { src: "https://example.org/x.js" }),
        () => { document.body.innerHTML += "<img src=x onerror='window.hacked = 1'>"; },
        () => eval("window.hacked = 1"),
        () => new Function("window.hacked = 1")(),
        () => made("img", { src: "https://example.org/x.png" }),
        () => put("iframe", { src: "https://example.org/" }),
        () => put("style", { textContent: "body { display: none }" }),
        () => put("link", { rel: "stylesheet", href: "https://example.org/x.css" }),
        () => fetch("https://example.org/"),
        () => new WebSocket("wss://example.org/"),
        () => navigator.sendBeacon("https://example.org/", "x"),
        () => put("form", { action: "https://example.org/" }).submit(),
    ];
    for (const attempt of tries) { try { await attempt(); } catch { /* refused at once */ } }
    await new Promise((done) => setTimeout(done, 300)); // what was let through would have gone by then
    return refused;
}"""


async def _count(route: Route, reached: list[str], hub: Hub) -> None:
    if route.request.url.startswith(hub.url):
        await route.continue_()
    else:
        reached.append(route.request.url)
        await route.abort()
