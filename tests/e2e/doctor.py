"""The doctor: the real console page in a real browser, driven as a person would and tapped for what it hears and
shows."""

from __future__ import annotations

import asyncio
import time

from playwright.async_api import Browser, Page, expect

from tests.e2e.pictures import LOOP, Seen, Sighting, seen
from tests.e2e.speech import RATE_HZ, Samples
from tests.e2e.tap import Sound, Tap

FAR = "#far-video"


class Doctor:
    def __init__(self, page: Page, tap: Tap) -> None:
        self.page, self.tap = page, tap
        self.complaints: list[str] = []  # errors the page's scripts threw or logged

    @classmethod
    async def sit_down(cls, browser: Browser, url: str, name: str, password: str, available: bool = True) -> Doctor:
        """Opens the console, signs in, and is available or away."""
        context = await browser.new_context(viewport={"width": 1366, "height": 768}, ignore_https_errors=True)
        await context.grant_permissions(["camera", "microphone", "notifications"])
        page = await context.new_page()
        doctor = cls(page, await Tap.put_on(page))
        page.on("pageerror", lambda error: doctor.complaints.append(str(error)))
        page.on("console", lambda line: doctor.complaints.append(line.text) if line.type == "error" else None)
        await page.goto(url)
        await doctor.part("sign-in-name").fill(name)
        await doctor.part("sign-in-password").fill(password)
        await doctor.part("sign-in-submit").click()
        await doctor.set_available(available)
        await doctor.tap.watch(FAR)
        return doctor

    def part(self, name: str, **attributes: str):
        rest = "".join(f'[data-{key}="{value}"]' for key, value in attributes.items())
        return self.page.locator(f'[data-test="{name}"]{rest}')

    async def leave(self) -> None:
        await self.page.context.close()

    async def set_available(self, available: bool) -> None:
        switch = self.part("available")
        await expect(switch).to_be_enabled(timeout=15_000)
        wanted = str(available).lower()
        try:  # what the hub says of us may still be on its way
            await expect(switch).to_have_attribute("aria-checked", wanted, timeout=1000)
        except AssertionError:
            await switch.click()
            await expect(switch).to_have_attribute("aria-checked", wanted, timeout=15_000)

    # --- a call

    async def until_rings(self, timeout_s: float = 10.0) -> str:
        """The call that rings here."""
        card = self.page.locator('[data-test="ring-card"]').first
        await expect(card).to_be_visible(timeout=timeout_s * 1000)
        call = await card.get_attribute("data-call")
        assert call
        return call

    async def claim(self) -> None:
        await self.part("claim").first.click()
        await self.until_state("claimed")

    async def talk(self) -> float:
        """Unix seconds of the answer."""
        await expect(self.part("talk")).to_be_enabled()
        at = time.time()
        await self.part("talk").click()
        return at

    async def until_held(self, timeout_s: float = 15.0) -> None:
        """Connected, and nobody hears or sees anything yet."""
        await expect(self.part("call-words")).to_contain_text("Connected and held", timeout=timeout_s * 1000)

    async def take_call(self, timeout_s: float = 15.0) -> str:
        """Claims what rings, waits for the held connection, answers, and is live; the call."""
        call = await self.until_rings(timeout_s)
        await self.claim()
        await self.until_held(timeout_s)
        await self.talk()
        await self.until_state("live", timeout_s=timeout_s)
        return call

    async def hang_up(self) -> None:
        await self.part("hang-up").click()

    async def until_state(self, *states: str, timeout_s: float = 15.0) -> str:
        """Waits for the page's call state: idle, calling, claimed, live, lost, ended."""
        try:
            await self.page.wait_for_function(
                "states => states.includes(document.body.dataset.callState)", arg=list(states), timeout=timeout_s * 1000
            )
        except Exception as error:
            raise AssertionError(
                f"the console is in {await self.state()!r}, not {states}: {self.complaints}"
            ) from error
        return await self.state()

    async def state(self) -> str:
        state: str = await self.page.evaluate("document.body.dataset.callState")
        return state

    # --- when, for the figures: Unix seconds

    async def watch_for_ringing(self) -> None:
        """From now on the page notes when it begins to ring; see `rang_at`."""
        await self.page.evaluate(
            """() => {
                window.__rangAt = 0;
                new MutationObserver((_, observer) => {
                    if (document.body.dataset.ringing === "none") return;
                    window.__rangAt = performance.timeOrigin + performance.now();
                    observer.disconnect();
                }).observe(document.body, { attributeFilter: ["data-ringing"] });
            }"""
        )

    async def rang_at(self) -> float:
        await self.page.wait_for_function("() => window.__rangAt > 0", timeout=10_000)
        at: float = await self.page.evaluate("window.__rangAt")
        return at / 1000

    async def first_sound(self, timeout_s: float = 10.0) -> float:
        """When the far track of this call was first more than silence."""
        await self.page.wait_for_function("() => __proof.sounds.at(-1)?.heardAt > 0", timeout=timeout_s * 1000)
        return (await self.sound()).heard_at

    async def first_sighting(self, since: float, timeout_s: float = 10.0) -> float:
        async with asyncio.timeout(timeout_s):
            while not (fresh := await self.sightings(since)):
                await self.page.wait_for_timeout(50)
        return fresh[0][0]

    # --- what reaches the doctor

    async def listens(self) -> bool:
        """Whether the far sound comes out of the page's loudspeaker now."""
        open_ear: bool = await self.page.evaluate(
            "s => { const v = document.querySelector(s); return !!v && !v.muted && !v.paused && v.volume > 0 }", FAR
        )
        return open_ear

    async def sound(self, leg: int = -1) -> Sound:
        return await self.tap.sound(leg)

    async def newest_sound(self, seconds: float, leg: int = -1) -> Samples:
        return (await self.tap.sound(leg)).samples[-int(seconds * RATE_HZ) :]

    async def sightings(self, since: float = 0.0) -> list[Sighting]:
        return [(at, number) for at, number in await self.tap.sightings(FAR) if at >= since]

    async def seen(self, since: float = 0.0) -> Seen:
        return seen(await self.sightings(since))


def seen_at_kiosk(sightings: list[Sighting], since: float = 0.0) -> Seen:
    """The doctor's pictures at the kiosk come from a file of LOOP numbers."""
    return seen([(at, number) for at, number in sightings if at >= since], loop=LOOP)
