"""Flows 4 and 5: the doctor's advice with a voice reply, shown and played at the kiosk, heard back; and ringing the
kiosk from a case."""

import re

import pytest
from playwright.async_api import expect

from hub import console
from tests.e2e.watching import watch

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def kiosk_settings():
    return {"call": {"ended_screen_s": 2.0}}


async def leave_case(kit, kiosk) -> str:
    """A case in the inbox, left while nobody could be reached."""
    await kit.hub.kill()
    await kiosk.screen.until(lambda view: not view.online, "offline")
    await kiosk.board.press()
    consult = await kiosk.leave_message(voice_s=1.0, complaints=1)
    await kit.start_hub()
    await kit.settle()
    await (await kit.watcher()).case(consult)
    return consult


async def hear(kiosk, advice: str) -> None:
    """The patient touches the picture of the answer and listens to the end."""
    await kiosk.screen.act("show_advice", advice)
    await kiosk.screen.until(lambda view: view.screen == "advice", "the advice")


async def test_advice_with_a_voice_reply_is_shown_played_and_heard_back(kit, kiosk, doctor, voices):
    consult = await leave_case(kit, kiosk)
    row = doctor.part("case-row", consult=consult)
    await row.click()
    await expect(doctor.part("case", consult=consult)).to_be_visible()
    await doctor.part("advice-text").fill("Two spoons of the rehydration drink every ten minutes.")
    await doctor.part("record-reply").click()
    await doctor.part("record-stop").wait_for()
    await doctor.page.wait_for_timeout(3000)  # the doctor speaks
    await doctor.part("record-stop").click()
    await doctor.part("reply-preview").wait_for()
    await doctor.part("advice-send").click()
    line = doctor.part("advice")
    await expect(line).to_be_visible()
    advice = await line.get_attribute("data-advice")
    assert advice

    await kiosk.board.until_light("waiting")
    view = await kiosk.screen.until(
        lambda view: any(each.id == advice and each.voice_arrived for each in view.advice), "the advice waits", 20.0
    )
    shown = next(each for each in view.advice if each.id == advice)
    assert shown.consult == consult
    assert "rehydration" in shown.text
    await kiosk.until_quiet()
    played = kiosk.heard_length()
    await hear(kiosk, advice)
    await kiosk.until_sound(played)
    await expect(line).to_have_attribute("data-reached", re.compile("heard"), timeout=20_000)
    await kiosk.until_step(consult, "heard")
    await kiosk.screen.act("dismiss")
    await kiosk.board.until_light("ready")


async def test_advice_given_while_the_kiosk_is_off_waits_for_it(kit, kiosk, available):
    consult = await leave_case(kit, kiosk)
    await kiosk.agent.kill()
    advice = await available.advise(consult, "Come to the hospital with the morning bus.")
    await kiosk.restart()
    await kiosk.board.until_light("waiting", timeout_s=20.0)
    await kiosk.screen.until(lambda view: any(each.id == advice for each in view.advice), "the advice")
    delivered = await available.case(consult, lambda case: case.advice[-1].delivered_at > 0)
    assert delivered.advice[-1].heard_at == 0
    await kiosk.until_ready()
    await hear(kiosk, advice)
    heard = await available.case(consult, lambda case: case.advice[-1].heard_at > 0, 20.0)
    assert heard.card.state == "heard"


async def test_the_doctor_rings_back_from_a_stored_case(kit, kiosk, doctor, voices):
    consult = await leave_case(kit, kiosk)
    await doctor.part("case-row", consult=consult).click()
    await doctor.part("ring-kiosk").click()
    await doctor.until_state("calling")
    await kiosk.screen.until(lambda view: view.screen == "incoming", "the doctor rings")
    played = kiosk.heard_length()
    await kiosk.until_sound(played)
    await kiosk.board.press()
    await doctor.until_state("live")
    await kiosk.screen.until(lambda view: view.screen == "live", "live")
    (await watch(kiosk, doctor, voices.patient, voices.doctor, 9.0)).check()
    await doctor.hang_up()
    await kiosk.screen.until(lambda view: view.screen in ("ended", "idle"), "the end")
    case = await (await kit.console()).case(consult, lambda case: bool(case.calls) and case.calls[-1].ended_at > 0)
    assert case.calls[-1].by_doctor
    assert case.calls[-1].outcome == "answered"


async def test_nobody_is_at_the_kiosk(kit, kiosk, available):
    consult = await leave_case(kit, kiosk)
    mark = len(available.got)
    await available.send(console.RingKiosk(consult=consult))
    ringing = await available.until(
        console.CallUpdate, lambda update: update.phase == "calling_kiosk", "calling", since=mark
    )
    await kiosk.screen.until(lambda view: view.screen == "incoming", "the doctor rings")
    await available.send(console.HangUp(call=ringing.call))
    await kiosk.screen.until(lambda view: view.screen == "idle", "idle")
    assert (await kit.until_over(ringing.call)).outcome in ("cancelled", "unanswered")
