"""The doctor's page in a real Chromium, driven as a doctor would: sign in, ring, take a call; with what is in the
waiting room and the inbox. `CONSOLE_PICTURES=folder` keeps pictures of the page at 1280×720 and 1024×768."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from playwright.async_api import BrowserContext, Page, expect

from hub import console
from tests.adapters.console.standin import PASSWORD, Standin, now_ms

WIDE, TABLET = {"width": 1280, "height": 720}, {"width": 1024, "height": 768}
CONSULT, OTHER = "a" * 32, "b" * 32


def ring_card(call: str = "1" * 16, **changes: object) -> console.RingCard:
    card = console.RingCard(
        call=call, consult=CONSULT, kiosk="hill-07", site="Hill clinic", emergency=False,
        requested_at=now_ms() - 42_000, rings_me=True, language="sw",
    )  # fmt: skip
    return msgspec.structs.replace(card, **changes)


def case(consult: str = CONSULT, **changes: object) -> console.Case:
    card = console.CaseCard(
        consult=consult, kiosk="hill-07", site="Hill clinic", opened_at=now_ms() - 9 * 60_000, urgency="urgent",
        patient="Patient 12", complaints=("fever", "cough"),
        text="Fever for three days, coughs at night. Drinks, eats little.", state="open", photos=0, voice_ms=0,
        complete=True, seen=False,
    )  # fmt: skip
    card_changes = {name: value for name, value in changes.items() if name in console.CaseCard.__struct_fields__}
    rest = {name: value for name, value in changes.items() if name not in card_changes}
    shown = console.Case(
        card=msgspec.structs.replace(card, **card_changes), kiosk_online=True, files=(), calls=(), advice=(),
        entered_by="health worker 2",
    )  # fmt: skip
    return msgspec.structs.replace(shown, **rest)


class Desk:
    """The doctor's page and what went wrong in it."""

    def __init__(self, standin: Standin, kiosk_context: BrowserContext, page: Page) -> None:
        self.standin, self.kiosk_context, self.page = standin, kiosk_context, page
        self.wrong: list[str] = []
        self._listen()

    def _listen(self) -> None:
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("console", lambda line: self._heard(line.text))

    def _heard(self, text: str) -> None:
        if "Content Security Policy" in text or "content-security-policy" in text.lower():
            self.wrong.append(text)

    def part(self, name: str):
        return self.page.locator(f"[data-test={name}]")

    async def open(self) -> None:
        await self.page.goto(f"http://127.0.0.1:{self.standin.port}/")

    async def sign_in(self) -> None:
        await self.open()
        await self.part("sign-in-name").fill("Dr Amara")
        await self.part("sign-in-password").fill(PASSWORD)
        await self.part("sign-in-submit").click()
        await expect(self.part("link-state")).to_have_attribute("data-state", "up")

    async def untouched_page(self) -> None:
        """As after a restart of the browser: signed in, and nobody has pressed anything in the page."""
        old, self.page = self.page, await self.page.context.new_page()
        await old.close()
        self._listen()
        await self.open()
        await expect(self.part("link-state")).to_have_attribute("data-state", "up")

    async def kiosk(self) -> Page:
        """The far end of the next call."""
        page = await self.kiosk_context.new_page()
        await page.goto(f"http://127.0.0.1:{self.standin.port}/standin/kiosk")
        await page.mouse.click(5, 5)  # a browser lets only a page that was touched make its tone
        await self.standin.wait_until(lambda: "kiosk" in self.standin.received)
        return page

    async def live_call(self) -> Page:
        kiosk = await self.kiosk()
        await self.standin.ring(ring_card())
        await self.part("claim").click()
        await self.until_state("claimed")
        await self.part("talk").click()
        await self.until_state("live")
        return kiosk

    async def until_state(self, state: str, within_s: float = 15) -> None:
        await expect(self.page.locator("body")).to_have_attribute("data-call-state", state, timeout=within_s * 1000)

    async def picture(self, name: str) -> None:
        folder = os.environ.get("CONSOLE_PICTURES")
        if not folder:
            return
        for size in (WIDE, TABLET):
            await self.page.set_viewport_size(size)
            await self.page.evaluate("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")
            await self.page.screenshot(path=Path(folder) / f"{name}-{size['width']}.png")
        await self.page.set_viewport_size(WIDE)


async def until_true(page: Page, expression: str, within_s: float = 10) -> None:
    """Asks until the (awaited) expression holds: what the page counts from media has no event of its own."""
    await page.wait_for_function(f"async () => {expression}", timeout=within_s * 1000, polling=200)
