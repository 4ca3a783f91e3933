"""Flow 1: press, ring, claim, talk, end; and everything a finger may do to the button meanwhile."""

import asyncio

import pytest

from hub import console
from tests.e2e.kiosk import INSTRUCTION
from tests.e2e.watching import watch

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def hub_settings():
    return {"ring": {"everyone_after_s": 4.0}}


@pytest.fixture(scope="module")
def kiosk_settings():
    return {"call": {"ring_timeout_s": 20.0, "ended_screen_s": 3.0}}


@pytest.mark.parametrize("seconds", [25.0, pytest.param(60.0, marks=pytest.mark.long)])
async def test_sound_and_picture_both_ways(kit, kiosk, doctor, voices, seconds):
    pressed = await kiosk.board.press()
    lamp = await kiosk.board.until_light("calling")
    assert lamp.at - pressed < 0.5
    await kiosk.screen.until(lambda view: view.screen == "ringing" and view.call.heard_by == "hub", "heard by the hub")
    call = await doctor.until_rings()
    await doctor.claim()
    await kiosk.board.until_light("claimed")
    view = await kiosk.screen.until(lambda view: view.screen == "claimed", "a doctor is coming")
    assert view.call.heard_by == "person"
    assert view.call.doctor
    await doctor.until_held()
    assert (await doctor.sound()).heard_at == 0, "the patient was heard before the answer"

    await doctor.talk()
    await doctor.until_state("live")
    await kiosk.board.until_light("live")
    view = await kiosk.screen.until(lambda view: view.screen == "live", "live")
    assert view.call.live_since_ms > 0
    (await watch(kiosk, doctor, voices.patient, voices.doctor, seconds)).check()

    await doctor.hang_up()
    await doctor.until_state("ended")
    await kiosk.screen.until(lambda view: view.screen == "ended", "the end")
    over = await kit.until_over(call)
    over.check("answered")
    assert over.ended_at - over.answered_at >= seconds * 1000


async def test_the_patient_ends_the_call(kit, kiosk, doctor, voices):
    await kiosk.screen.act("press")  # the button on the screen
    call = await doctor.take_call()
    await kiosk.screen.until(lambda view: view.screen == "live", "live")
    (await watch(kiosk, doctor, voices.patient, voices.doctor, 9.0)).check()
    await kiosk.screen.act("end")
    await doctor.until_state("ended")
    (await kit.until_over(call)).check("answered")
    await kiosk.board.until_light("ready")


async def test_the_first_claim_wins(kit, kiosk, doctors):
    first, second = doctors
    marks = len(first.got), len(second.got)
    await kiosk.board.press()
    ringing = [await each.until_rings(mark) for each, mark in zip(doctors, marks, strict=True)]
    assert ringing[0].call == ringing[1].call
    call = ringing[0].call
    await asyncio.gather(*(each.send(console.Claim(call=call)) for each in doctors))
    verdicts = await asyncio.gather(
        *(
            each.until((console.CallUpdate, console.Refused), lambda said: said.call == call, "a verdict", since=mark)
            for each, mark in zip(doctors, marks, strict=True)
        )
    )
    won = [verdict for verdict in verdicts if isinstance(verdict, console.CallUpdate)]
    lost = [verdict for verdict in verdicts if isinstance(verdict, console.Refused)]
    assert [update.phase for update in won] == ["claimed"]
    assert [refusal.code for refusal in lost] == ["taken"]
    winner = doctors[verdicts.index(won[0])]
    view = await kiosk.screen.until(lambda view: view.screen == "claimed", "a doctor is coming")
    assert view.call.doctor == winner.name

    # Given back, it rings again, and the other one may have it.
    other = doctors[1 - doctors.index(winner)]
    mark = len(other.got)
    await winner.send(console.Release(call=call))
    assert (await other.until_rings(mark)).call == call
    await kiosk.screen.until(lambda view: view.screen == "ringing", "ringing again")


async def test_further_presses_say_again_that_it_was_heard(kit, kiosk, available):
    mark, played = len(available.got), kiosk.heard_length()
    await kiosk.board.press()
    card = await available.until_rings(mark)
    await kiosk.until_says("hub_heard", played)
    for _ in range(2):
        played = kiosk.heard_length()
        await kiosk.board.press()
        await kiosk.until_says("still_calling", played)
    assert kiosk.screen.view.screen == "ringing"
    room = available.last(console.Room)
    assert [ring.call for ring in room.queue] == [card.call]


async def test_cancelled_on_the_screen(kit, kiosk, available):
    mark = len(available.got)
    await kiosk.board.press()
    card = await available.until_rings(mark)
    mark = len(available.got)
    await kiosk.screen.act("cancel")
    await kiosk.screen.until(lambda view: view.screen == "idle", "idle")
    await available.until(console.Room, lambda room: not room.queue, "an empty waiting room", since=mark)
    (await kit.until_over(card.call)).check("cancelled")


async def test_cancelled_by_holding_the_button_after_a_question(kit, kiosk, available):
    mark = len(available.got)
    await kiosk.board.press()
    card = await available.until_rings(mark)
    played = kiosk.heard_length()
    await kiosk.board.down()
    await kiosk.screen.until(lambda view: view.call is not None and view.call.cancel_asked, "the question", 7.0)
    await kiosk.board.up()
    assert kiosk.screen.view.screen == "ringing"
    await kiosk.until_says("ask_cancel", played)
    await kiosk.board.down()
    await kiosk.screen.until(lambda view: view.screen == "idle", "idle", 7.0)
    await kiosk.board.up()
    (await kit.until_over(card.call)).check("cancelled")


async def test_a_stuck_button_is_one_call_and_a_warning(kit, kiosk, available):
    mark = len(available.got)
    await kiosk.board.down()
    card = await available.until_rings(mark)
    try:
        await kiosk.screen.until(
            lambda view: any(notice.code == "button_stuck" for notice in view.notices), "a stuck button", 40.0
        )
        room = await available.until(
            console.Room, lambda room: any("button_stuck" in ring.warnings for ring in room.queue), "the warning", 10.0
        )
        assert [ring.call for ring in room.queue] == [card.call]
    finally:
        await kiosk.board.up()
    await kiosk.screen.until(lambda view: not view.notices, "the button is free again")


async def test_an_emergency_stands_first_and_rings_everybody_when_nobody_comes(kit, kiosk, doctors, voices):
    available, away = doctors
    await away.send(console.SetAvailable(available=False))
    other = await kit.add_kiosk("kiosk-two", voices.patient_wav)
    try:
        mark = len(available.got)
        await other.board.press()
        first = await available.until_rings(mark)
        mark, mark_away = len(available.got), len(away.got)
        await kiosk.board.down()
        room = await available.until(
            console.Room, lambda room: bool(room.queue) and room.queue[0].emergency, "an emergency on top", since=mark
        )
        await kiosk.board.up()
        assert [ring.call for ring in room.queue][1] == first.call
        assert kiosk.board.light == "emergency"
        urgent = room.queue[0].call
        assert not next(ring for ring in away.last(console.Room).queue if ring.call == urgent).rings_me
        await away.until(
            console.Room,
            lambda room: any(ring.call == urgent and ring.rings_me for ring in room.queue),
            "it rings the doctor who is away",
            10.0,
            since=mark_away,
        )
        assert not next(ring for ring in away.last(console.Room).queue if ring.call == first.call).rings_me
    finally:
        await kit.remove_kiosk(other)


async def test_an_emergency_that_reaches_nobody_shows_and_speaks_the_clinics_instruction(kit, kiosk):
    await kit.hub.kill()
    try:
        await kiosk.screen.until(lambda view: not view.online, "offline", 60.0)
        await kiosk.until_quiet()
        played = kiosk.heard_length()
        await kiosk.board.down()
        view = await kiosk.screen.until(lambda view: view.screen == "emergency", "the emergency screen")
        await kiosk.board.up()
        assert view.emergency_instruction == INSTRUCTION
        await kiosk.until_sound(played)
        await kiosk.board.until_light("emergency")
    finally:
        await kit.start_hub()
