"""Signing in, being available, and being rung."""

from __future__ import annotations

import msgspec
import pytest
from playwright.async_api import expect

from hub import console
from tests.adapters.console.desk import OTHER, Desk, case, ring_card
from tests.adapters.console.standin import PASSWORD, now_ms

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
