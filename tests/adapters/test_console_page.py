"""The doctor's console as a doctor meets it: the real page in a real Chromium, a hub that stands in
(`console_standin.py`), and a second page that plays the kiosk over real WebRTC.

Each test leaves with no script error and no violation of the Content-Security-Policy. `CONSOLE_PICTURES=folder`
keeps pictures of the page at 1280×720 and 1024×768.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from hub import console
from tests.adapters.console_standin import PASSWORD, Standin, now_ms, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=document-user-activation-required",
]
WIDE, TABLET = {"width": 1280, "height": 720}, {"width": 1024, "height": 768}
SCRIPT = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
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


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    if shutil.which(CHROMIUM) is None:
        pytest.skip("no Chromium here: apt install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def desk(browser: Browser) -> AsyncIterator[Desk]:
    async with serving() as standin:
        context, kiosk_context = await browser.new_context(viewport=WIDE), await browser.new_context()
        desk = Desk(standin, kiosk_context, await context.new_page())
        yield desk
        hacked = await desk.page.evaluate("window.hacked")
        await context.close()
        await kiosk_context.close()
        assert desk.wrong == []
        assert hacked is None


# --- sign-in


async def test_signs_in_and_says_why_not(desk: Desk) -> None:
    await desk.open()
    await desk.part("sign-in-name").fill("Dr Amara")
    await desk.picture("sign-in")
    await desk.part("sign-in-password").fill("wrong")
    await desk.part("sign-in-submit").click()
    await expect(desk.part("sign-in-error")).to_contain_text("Name or password is wrong")
    await desk.part("sign-in-password").fill(PASSWORD)
    await desk.page.keyboard.press("Enter")
    await expect(desk.part("link-state")).to_have_attribute("data-state", "up")
    await expect(desk.page.locator(".me-name")).to_have_text("Dr Amara")
    await desk.part("sign-out").click()
    await expect(desk.part("sign-in-name")).to_be_focused()


async def test_a_session_that_is_over_leads_to_the_sign_in(desk: Desk) -> None:
    await desk.sign_in()
    desk.standin.signed_in.clear()
    await desk.standin.go_away()
    desk.standin.reachable = True
    await expect(desk.part("sign-in-submit")).to_be_visible()


async def test_availability_goes_to_the_hub(desk: Desk) -> None:
    await desk.sign_in()
    switch = desk.part("available")
    await expect(switch).to_have_attribute("aria-checked", "true")
    await switch.click()
    await expect(switch).to_have_attribute("aria-checked", "false")
    assert not (await desk.standin.wait_for(console.SetAvailable)).available
    await desk.part("away-until").fill("14:30")
    await desk.page.keyboard.press("Tab")
    assert (await desk.standin.wait_for(console.SetAvailable, 2)) == console.SetAvailable(
        available=False, until="14:30"
    )


# --- ringing


async def test_rings_with_the_emergency_first(desk: Desk) -> None:
    await desk.sign_in()
    standin = desk.standin
    standin.doctors = [
        console.DoctorCard(name="Dr Bello", available=True, in_call=True),
        console.DoctorCard(name="Dr Chandra", available=False, in_call=False),
    ]
    for shown in (
        case(),
        case(OTHER, patient="Patient 8", urgency="soon", complaints=("skin", "rash_new"), state="receiving",
             complete=False, photos=2, voice_ms=21_000, site="River post"),
        case("c" * 32, patient="Patient 3", urgency="routine", complaints=("eyes",), state="heard", seen=True),
    ):  # fmt: skip
        standin.cases[shown.card.consult] = shown
    await standin.send_inbox()
    await standin.ring(ring_card("2" * 16))
    await expect(desk.page.locator("body")).to_have_attribute("data-ringing", "call")
    await standin.ring(ring_card("4" * 16, site="Lake post", claimed_by="Dr Bello", rings_me=False))
    emergency = ring_card(
        "3" * 16, site="River post", kiosk="river-02", emergency=True, requested_at=now_ms() - 8000,
        warnings=("button_stuck",), language="fr",
    )  # fmt: skip
    await standin.ring(emergency)
    await expect(desk.page.locator("body")).to_have_attribute("data-ringing", "emergency")
    first = desk.part("ring-card").first
    await expect(first).to_have_attribute("data-call", "3" * 16)
    await expect(first).to_contain_text("EMERGENCY")
    await expect(first).to_contain_text("the button seems stuck")
    await expect(first).to_contain_text("French")
    await expect(desk.page.locator("#announce-now")).to_have_text("Emergency call from River post")
    await expect(desk.page).to_have_title("EMERGENCY – River post")
    waiting = first.locator("time")
    before = await waiting.text_content()
    await expect(waiting).not_to_have_text(before)
    await desk.picture("waiting-room")


async def test_says_that_the_browser_keeps_it_silent(desk: Desk) -> None:
    await desk.sign_in()
    await expect(desk.page.locator("body")).to_have_attribute("data-sound", "on")
    await desk.untouched_page()
    await expect(desk.page.locator("body")).to_have_attribute("data-sound", "blocked")
    await desk.part("sound-on").click()
    await expect(desk.page.locator("body")).to_have_attribute("data-sound", "on")
    await expect(desk.part("sound-on")).to_have_count(0)


async def test_somebody_else_was_first(desk: Desk) -> None:
    await desk.sign_in()
    await desk.standin.ring(ring_card())
    await expect(desk.part("claim")).to_be_enabled()
    card = desk.standin.queue[0]
    desk.standin.queue[0] = msgspec.structs.replace(card, claimed_by="Dr Bello", rings_me=False)
    await desk.part("claim").click()
    await expect(desk.part("notice")).to_contain_text("Somebody else was first.")
    await desk.until_state("idle")
    await desk.standin.send_room()
    await expect(desk.part("ring-card")).to_contain_text("Dr Bello has taken it")


# --- a call


async def test_claim_holds_and_answer_is_heard_and_seen(desk: Desk) -> None:
    await desk.sign_in()
    desk.standin.cases[CONSULT] = case(patient="Patient 12")
    desk.standin.may_offer.clear()
    kiosk = await desk.kiosk()
    await desk.standin.ring(ring_card(warnings=("camera",)))
    await desk.part("claim").click()
    await desk.until_state("claimed")
    await expect(desk.part("call")).to_contain_text("Hill clinic")
    await expect(desk.part("call")).to_contain_text("Swahili")
    await expect(desk.part("call-words")).to_contain_text("Connecting")
    await expect(desk.part("talk")).to_be_focused()
    await expect(desk.part("case")).to_contain_text("Patient 12")
    await desk.picture("claimed")

    desk.standin.may_offer.set()
    await expect(desk.part("call-words")).to_contain_text("Connected and held")
    await until_true(kiosk, "(await heard()).frames > 5")
    assert (await kiosk.evaluate("heard()"))["energy"] < 1e-6  # silence
    assert await kiosk.evaluate("brightness()") < 20  # and black
    assert await desk.page.evaluate("document.querySelector('#far-video').muted")

    await desk.part("talk").click()
    await desk.until_state("live")
    await desk.standin.wait_for(console.Talk)
    await until_true(kiosk, "(await heard()).energy > 0.001")
    await until_true(kiosk, "(await brightness()) > 40")
    await expect(desk.page.locator("#far-video")).to_have_js_property("muted", False)
    await until_true(desk.page, "document.querySelector('#far-video').currentTime > 1")
    await expect(desk.part("elapsed")).to_contain_text("0:")
    await desk.picture("live")

    await desk.part("mute").click()
    await expect(desk.part("mute")).to_have_attribute("aria-pressed", "true")
    still = (await kiosk.evaluate("heard()"))["energy"]
    packets = (await kiosk.evaluate("heard()"))["packets"]
    await until_true(kiosk, f"(await heard()).packets > {packets + 60}")
    quiet = (await kiosk.evaluate("heard()"))["energy"] - still
    assert quiet < 0.05

    await desk.part("hang-up").click()
    await desk.until_state("ended")
    await desk.standin.wait_for(console.HangUp)
    await expect(desk.part("ended")).to_contain_text("The call with Hill clinic is over")
    assert await desk.page.evaluate("document.querySelector('#far-video')") is None
    await desk.part("ended-done").click()
    await desk.until_state("idle")


async def test_answer_before_media_is_there_takes_effect_when_it_comes(desk: Desk) -> None:
    await desk.sign_in()
    desk.standin.may_offer.clear()
    kiosk = await desk.kiosk()
    await desk.standin.ring(ring_card())
    await desk.part("claim").click()
    await desk.part("talk").click()
    await desk.standin.wait_for(console.Talk)
    await expect(desk.part("call-words")).to_contain_text("connecting")
    desk.standin.may_offer.set()
    await desk.until_state("live")
    await until_true(kiosk, "(await heard()).energy > 0.001")


async def test_release_and_decline(desk: Desk) -> None:
    await desk.sign_in()
    desk.standin.may_offer.clear()
    await desk.standin.ring(ring_card())
    await desk.part("claim").click()
    await desk.part("release").click()
    await desk.standin.wait_for(console.Release)
    await desk.until_state("idle")
    await expect(desk.part("claim")).to_be_enabled()
    await desk.part("claim").click()
    await desk.part("decline").click()
    await desk.standin.wait_for(console.Decline)
    await desk.until_state("idle")
    await expect(desk.part("ring-card")).to_have_count(0)
    desk.standin.may_offer.set()


async def test_line_lost_is_said_and_comes_back_on_the_same_leg(desk: Desk) -> None:
    await desk.sign_in()
    desk.standin.cases[CONSULT] = case()
    kiosk = await desk.live_call()
    await kiosk.evaluate("silence()")
    await desk.until_state("lost", 8)
    await expect(desk.part("call-words")).to_contain_text("Line lost – trying again for 5")
    await expect(desk.page.locator("#announce-now")).to_have_text("Line lost, trying again")
    await desk.picture("line-lost")
    await kiosk.evaluate("speak()")
    await desk.until_state("live")
    assert not any(isinstance(message, console.WantNewLeg) for message in desk.standin.received)


async def test_a_new_leg_takes_over_when_it_connects(desk: Desk) -> None:
    await desk.sign_in()
    kiosk = await desk.live_call()
    await desk.standin.new_leg()
    assert (await desk.standin.wait_for(console.SdpAnswer, 2)).leg == 2
    await until_true(kiosk, "(await heard()).energy > 0.001")
    await desk.until_state("live")
    old = await kiosk.evaluate("legs.get(1).localDescription.sdp")
    assert desk.standin.call is not None
    await desk.standin.send(console.KioskOffer(call=desk.standin.call.call, leg=1, sdp=old, ice_servers=()))
    await desk.standin.new_leg()
    assert (await desk.standin.wait_for(console.SdpAnswer, 3)).leg == 3  # the old offer was not answered


async def test_a_dead_connection_asks_for_a_new_leg(desk: Desk) -> None:
    await desk.sign_in()
    kiosk = await desk.live_call()
    await kiosk.evaluate("cut()")
    await desk.until_state("lost")
    assert (await desk.standin.wait_for(console.WantNewLeg, within_s=25)).leg == 1
    await desk.until_state("live")
    await until_true(kiosk, "(await heard()).energy > 0.001")


async def test_the_call_outlives_the_hub(desk: Desk) -> None:
    await desk.sign_in()
    kiosk = await desk.live_call()
    await desk.standin.go_away()
    await expect(desk.part("link-state")).to_have_attribute("data-state", "down")
    packets = (await kiosk.evaluate("heard()"))["packets"]
    await until_true(kiosk, f"(await heard()).packets > {packets + 20}")
    await desk.until_state("live")
    desk.standin.reachable = True
    await expect(desk.part("link-state")).to_have_attribute("data-state", "up")
    await desk.until_state("live")
    assert desk.standin.leg == 1


async def test_hung_up_while_the_hub_was_away_stays_hung_up(desk: Desk) -> None:
    await desk.sign_in()
    await desk.live_call()
    await desk.standin.go_away()
    await expect(desk.part("link-state")).to_have_attribute("data-state", "down")
    await desk.part("hang-up").click()
    await desk.until_state("ended")
    desk.standin.reachable = True
    await desk.standin.wait_for(console.HangUp)
    await expect(desk.part("ended")).to_have_attribute("data-outcome", "answered")


async def test_a_reload_comes_back_into_the_call(desk: Desk) -> None:
    await desk.sign_in()
    kiosk = await desk.live_call()
    await desk.page.reload()
    assert (await desk.standin.wait_for(console.WantNewLeg)).leg == 1
    await desk.until_state("live")
    await until_true(kiosk, "(await heard()).energy > 0.001")


async def test_another_window_takes_the_call_up_and_asks_to_be_touched_for_sound(desk: Desk) -> None:
    await desk.sign_in()
    kiosk = await desk.live_call()
    await desk.untouched_page()
    await desk.standin.wait_for(console.WantNewLeg)
    await desk.until_state("live")
    await expect(desk.part("call-words")).to_contain_text("press anywhere to hear")
    await desk.page.locator(".stage").click()
    await expect(desk.page.locator("#far-video")).to_have_js_property("muted", False)
    await until_true(kiosk, "(await heard()).energy > 0.001")


async def test_ring_the_kiosk_is_live_when_the_patient_accepts(desk: Desk) -> None:
    await desk.sign_in()
    kiosk = await desk.kiosk()
    await desk.standin.show(case())
    await desk.part("case-row").click()
    await desk.part("ring-kiosk").click()
    await desk.until_state("calling")
    await expect(desk.part("call-words")).to_contain_text("Ringing at the kiosk")
    await desk.standin.patient_accepts()
    await desk.until_state("live")
    await until_true(kiosk, "(await heard()).energy > 0.001")
    assert not any(isinstance(message, console.Talk) for message in desk.standin.received)
    await desk.standin.end("answered")
    await desk.until_state("ended")


async def test_no_camera_is_a_call_with_the_voice_alone(desk: Desk) -> None:
    await desk.page.add_init_script(REFUSE.replace("KINDS", "['video']"))
    await desk.sign_in()
    kiosk = await desk.live_call()
    await expect(desk.part("device-problem")).to_contain_text("The call goes on with your voice only.")
    await expect(desk.part("device-problem")).to_contain_text("The camera is in use by another program.")
    await until_true(kiosk, "(await heard()).energy > 0.001")


async def test_no_microphone_is_said_and_the_call_goes_on(desk: Desk) -> None:
    await desk.page.add_init_script(REFUSE.replace("KINDS", "['audio', 'video']"))
    await desk.sign_in()
    await desk.live_call()
    await expect(desk.part("device-problem")).to_contain_text("the patient cannot hear you")
    await desk.page.evaluate("() => void (navigator.mediaDevices.getUserMedia = navigator.mediaDevices.given)")
    await desk.part("devices-retry").click()
    await expect(desk.part("device-problem")).to_have_count(0)


REFUSE = """
const devices = navigator.mediaDevices;
devices.given = devices.getUserMedia.bind(devices);
devices.getUserMedia = (wanted) =>
  KINDS.some((kind) => wanted[kind])
    ? Promise.reject(new DOMException("busy", "NotReadableError"))
    : devices.given(wanted);
"""


# --- cases


def jpeg(hue: int) -> bytes:
    """A round patch on skin-like ground, 960×720."""
    y, x = np.mgrid[0:720, 0:960]
    patch = np.clip(200 - np.hypot(x - 480, y - 330) / 2, 0, 110)
    picture = np.stack([150 - patch / 2 - hue, 170 - patch - hue, 215 - patch / 3], axis=-1)
    return cv2.imencode(".jpg", picture.astype(np.uint8))[1].tobytes()


def photo(digest: str, complete: bool = True) -> console.FileCard:
    return console.FileCard(
        digest=digest, role="photo", mime="image/jpeg", size=84_000, received=84_000 if complete else 30_000,
        complete=complete, duration_ms=0, captured_at=now_ms() - 500_000,
    )  # fmt: skip


async def test_reads_a_case(desk: Desk) -> None:
    await desk.sign_in()
    standin = desk.standin
    standin.files = {"d" * 64: (jpeg(0), "image/jpeg"), "e" * 64: (jpeg(40), "image/jpeg")}
    voice = console.FileCard(
        digest="f" * 64, role="voice", mime="audio/ogg", size=21_000, received=8000, complete=False,
        duration_ms=14_000, captured_at=now_ms() - 480_000,
    )  # fmt: skip
    missed = console.CallCard(
        call="9" * 16, requested_at=now_ms() - 600_000, by_doctor=False, doctor="", emergency=False,
        ended_at=now_ms() - 540_000, outcome="unanswered",
    )  # fmt: skip
    advice = console.AdviceCard(
        advice="8" * 16, given_by="Dr Bello", given_at=now_ms() - 400_000,
        text="Give the fever syrup twice a day, and plenty to drink.", delivered_at=now_ms() - 390_000,
    )  # fmt: skip
    shown = case(
        files=(photo("d" * 64), photo("e" * 64), photo("7" * 64, complete=False), voice), calls=(missed,),
        advice=(advice,), photos=3, voice_ms=14_000,
    )  # fmt: skip
    await standin.show(shown)
    await desk.part("case-row").click()
    await expect(desk.part("case-text")).to_contain_text("Fever for three days")
    await expect(desk.part("case")).to_contain_text("Fever")
    await expect(desk.part("call-line")).to_contain_text("nobody answered")
    await expect(desk.part("voice").locator("progress")).to_have_js_property("value", 8000)
    await expect(desk.part("advice")).to_have_attribute("data-reached", "delivered")
    await desk.picture("case")

    await desk.part("photo").first.locator("button").click()
    await expect(desk.part("photo-large")).to_be_visible()
    await desk.page.keyboard.press("ArrowRight")
    await expect(desk.part("photo-large").locator("img")).to_have_attribute("src", f"/api/files/{'e' * 64}")
    await until_true(desk.page, "document.querySelector('[data-test=photo-large] img').naturalWidth === 960")
    await desk.picture("photo")
    await desk.page.keyboard.press("Escape")
    await expect(desk.part("photo-large")).to_have_count(0)

    heard = msgspec.structs.replace(advice, heard_at=now_ms())
    await standin.show(msgspec.structs.replace(shown, advice=(heard,)))
    await expect(desk.part("advice")).to_have_attribute("data-reached", "heard")
    await desk.part("close-case").click()
    await standin.wait_for(console.CloseCase)
    await desk.part("tab-closed").click()
    await expect(desk.part("case-row")).to_have_count(1)
    await expect(desk.part("case-row")).to_have_attribute("data-state", "closed")


async def test_what_people_typed_is_only_ever_text(desk: Desk) -> None:
    await desk.sign_in()
    hostile = case(patient=SCRIPT, text=SCRIPT, complaints=(SCRIPT, "__proto__"), site=SCRIPT, entered_by=SCRIPT)
    await desk.standin.show(hostile)
    await desk.standin.ring(ring_card(site=SCRIPT, warnings=(SCRIPT,), language=SCRIPT))
    await desk.part("case-row").click()
    await expect(desk.part("case-text")).to_have_text(SCRIPT)
    await expect(desk.part("ring-card")).to_contain_text(SCRIPT)
    await expect(desk.page.locator("img[src=x]")).to_have_count(0)


async def test_an_offline_kiosk_cannot_be_rung(desk: Desk) -> None:
    await desk.sign_in()
    await desk.standin.show(case(kiosk_online=False))
    await desk.part("case-row").click()
    await expect(desk.part("ring-kiosk")).to_be_disabled()
    await expect(desk.part("case")).to_contain_text("The kiosk is offline. Advice goes out when it is back.")


async def test_advice_is_written_and_survives_reload_and_failure(desk: Desk) -> None:
    await desk.sign_in()
    await desk.standin.show(case())
    await desk.part("case-row").click()
    await desk.part("advice-text").fill("Drink a lot.\nCome back on Friday.")
    await desk.page.reload()
    await desk.part("case-row").click()
    await expect(desk.part("advice-text")).to_have_value("Drink a lot.\nCome back on Friday.")

    desk.standin.refuse_advice = "The hub's disk is full."
    await desk.part("advice-text").press("Control+Enter")
    await expect(desk.part("advice-error")).to_contain_text("Not sent, and kept here. The hub's disk is full.")
    await expect(desk.part("advice-text")).to_have_value("Drink a lot.\nCome back on Friday.")

    desk.standin.refuse_advice = ""
    await desk.part("advice-send").click()
    await expect(desk.part("advice")).to_contain_text("Come back on Friday.")
    await expect(desk.part("advice-text")).to_have_value("")
    assert desk.standin.advice_posts == [(CONSULT, "Drink a lot.\nCome back on Friday.", b"")]
    await desk.page.reload()
    await desk.part("case-row").click()
    await expect(desk.part("advice-text")).to_have_value("")


async def test_advice_whose_answer_was_lost_is_not_given_twice(desk: Desk) -> None:
    await desk.sign_in()
    await desk.standin.show(case())
    await desk.part("case-row").click()
    desk.standin.lose_answer = True
    await desk.part("advice-text").fill("Drink a lot.")
    await desk.part("advice-send").click()
    await expect(desk.part("advice")).to_contain_text("Drink a lot.")
    await expect(desk.part("advice-text")).to_have_value("")


async def test_typing_is_not_disturbed_by_what_arrives(desk: Desk) -> None:
    await desk.sign_in()
    await desk.standin.show(case())
    await desk.part("case-row").click()
    await desk.part("advice-text").press_sequentially("First ")
    await desk.standin.show(case(files=(photo("7" * 64, complete=False),)))
    await expect(desk.part("photo")).to_have_count(1)
    await expect(desk.part("advice-text")).to_be_focused()
    await desk.page.keyboard.type("second")
    await expect(desk.part("advice-text")).to_have_value("First second")


async def test_a_voice_reply_is_heard_before_it_is_sent(desk: Desk) -> None:
    await desk.sign_in()
    await desk.standin.show(case())
    await desk.part("case-row").click()
    await desk.part("record-reply").click()
    await expect(desk.part("record-stop")).to_contain_text("0:01")
    await desk.part("record-stop").click()
    await expect(desk.part("reply-preview").locator("audio")).to_be_visible()
    await desk.part("reply-discard").click()
    await expect(desk.part("reply-preview")).to_have_count(0)
    await expect(desk.part("advice-send")).to_be_disabled()

    await desk.part("record-reply").click()
    await expect(desk.part("record-stop")).to_contain_text("0:02")
    await desk.part("record-stop").click()
    await desk.picture("voice-reply")
    preview = desk.part("reply-preview").locator("audio")
    await preview.evaluate("audio => audio.play()")
    await until_true(desk.page, "document.querySelector('[data-test=reply-preview] audio').currentTime > 0.3")
    await desk.part("advice-send").click()
    await expect(desk.part("advice").locator("audio")).to_have_attribute("src", f"/api/files/{'1'.zfill(64)}")
    [(_, text, voice)] = desk.standin.advice_posts
    assert text == ""
    assert voice.startswith(b"\x1aE\xdf\xa3")  # a WebM file
    assert b"OpusHead" in voice


async def test_another_patients_case_beside_a_call_is_marked(desk: Desk) -> None:
    await desk.sign_in()
    desk.standin.cases = {CONSULT: case(), OTHER: case(OTHER, patient="Patient 8")}
    await desk.standin.send_inbox()
    await desk.live_call()
    await expect(desk.part("other-patient")).to_have_count(0)
    await desk.page.locator(f"[data-test=case-row][data-consult='{OTHER}']").click()
    await expect(desk.part("other-patient")).to_contain_text("not the case of the patient on the line")
    await expect(desk.part("record-reply")).to_be_disabled()
    await asyncio.wait_for(desk.part("other-patient").locator("button").click(), 5)
    await expect(desk.part("case")).to_have_attribute("data-consult", CONSULT)
