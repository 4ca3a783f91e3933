"""A call at the doctor's end: held, answered, lost, back again, over."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from hub import console
from tests.adapters.console.desk import CONSULT, Desk, case, ring_card, until_true

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
    await desk.part("line").locator("summary").click()
    await expect(desk.part("line")).to_contain_text("Line 64 kbit/s")
    await expect(desk.part("line")).to_contain_text(
        "From the clinic: a picture now and then – the line carries no more"
    )
    await expect(desk.part("line")).to_contain_text("To the clinic: moving picture1.2 Mbit/s, 0 % lost")
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
    await expect(desk.part("call-words")).to_contain_text("Line lost – it is being restored by itself, for 5")
    await expect(desk.page.locator("#announce-now")).to_have_text("Line lost, trying again")
    await desk.picture("line-lost")
    packets = (await kiosk.evaluate("heard()"))["packets"]
    await until_true(kiosk, f"(await heard()).packets > {packets + 60}")  # the path lives: the doctor is sent on
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


async def test_candidates_that_come_after_the_offer(desk: Desk) -> None:
    """A TURN server far from the kiosk takes its time: the same leg's offer comes again, with more in it."""
    await desk.sign_in()
    kiosk = await desk.live_call()
    await desk.standin.new_leg(late=True)
    assert (await desk.standin.wait_for(console.SdpAnswer, 2)).leg == 2
    assert await kiosk.evaluate("newest().iceConnectionState") in ("new", "checking")
    await desk.standin.rest_of_leg()
    again = await desk.standin.wait_for(console.SdpAnswer, 3)
    assert again.leg == 2
    assert "a=candidate:" in again.sdp
    await until_true(kiosk, "newest().connectionState === 'connected'")
    await until_true(kiosk, "(await heard()).energy > 0.001")
    assert await kiosk.evaluate("legs.size") == 2


async def test_what_the_kiosk_says_of_its_side(desk: Desk) -> None:
    await desk.sign_in()
    await desk.live_call()
    assert desk.standin.call is not None
    call = desk.standin.call.call
    await desk.standin.send(console.KioskMedia(call=call, leg=1, state="stalled"))
    await expect(desk.part("call-words")).to_contain_text("it does not hear you")
    await desk.standin.send(console.KioskMedia(call=call, leg=1, state="connected"))
    await expect(desk.part("call-words")).to_be_empty()
    await desk.standin.send(console.KioskMedia(call=call, leg=1, state="lost"))
    await desk.until_state("lost", 1)
    await desk.standin.new_leg()
    await desk.until_state("live")


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


async def test_another_window_takes_the_call_up(desk: Desk) -> None:
    await desk.sign_in()
    kiosk = await desk.live_call()
    await desk.untouched_page()
    await desk.until_state("live")
    await expect(desk.page.locator("#far-video")).to_have_js_property("muted", False)
    await until_true(kiosk, "(await heard()).energy > 0.001")


async def test_a_window_that_may_not_sound_asks_to_be_touched(desk: Desk) -> None:
    await desk.sign_in()
    await desk.live_call()
    await desk.page.context.add_init_script(SILENT_UNTIL_TOUCHED)
    await desk.untouched_page()
    await desk.standin.wait_for(console.WantNewLeg)
    await desk.until_state("live")
    await expect(desk.part("call-words")).to_contain_text("press anywhere to hear")
    await desk.page.locator(".stage").click()
    await expect(desk.page.locator("#far-video")).to_have_js_property("muted", False)


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


# A browser's rule; the one here takes the test's own questions to the page for a person's touch.
SILENT_UNTIL_TOUCHED = """
const given = HTMLMediaElement.prototype.play;
let touched = false;
addEventListener("pointerdown", () => (touched = true), true);
HTMLMediaElement.prototype.play = function () {
  return this.muted || touched ? given.call(this) : Promise.reject(new DOMException("touch first", "NotAllowedError"));
};
"""

REFUSE = """
const devices = navigator.mediaDevices;
devices.given = devices.getUserMedia.bind(devices);
devices.getUserMedia = (wanted) =>
  KINDS.some((kind) => wanted[kind])
    ? Promise.reject(new DOMException("busy", "NotReadableError"))
    : devices.given(wanted);
"""
