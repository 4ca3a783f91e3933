"""Flow 3: no hub. The same press leads to the guided message, which is on disk before the screen says "saved", is
sent by itself when the hub is back, and lies in the inbox byte for byte."""

import hashlib

import pytest

from hub import console

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


async def test_a_message_left_while_the_hub_is_dead_arrives_when_it_is_back(kit, kiosk, available):
    known = {case.consult for case in available.last(console.Inbox).cases}
    await kit.hub.kill()
    await kiosk.screen.until(lambda view: not view.online and view.presence.state == "offline", "offline")
    await kiosk.board.press()
    view = await kiosk.screen.until(lambda view: view.screen == "draft", "the guided message")
    assert view.draft.step == "voice"
    consult = await kiosk.leave_message(voice_s=2.0, photos=1, complaints=2, urgency="urgent")
    saved = kiosk.saved_files(consult)  # at the moment the screen said so
    assert {role for role, _ in saved} >= {"photo", "thumbnail", "voice"}
    digests = {hashlib.sha256(data).hexdigest() for _, data in saved}
    mark = len(available.got)
    await kit.start_hub()
    await available.until(
        console.Inbox,
        lambda inbox: any(case.consult == consult and case.complete for case in inbox.cases),
        "the case, complete",
        20.0,
        since=mark,
    )
    new = [case for case in available.last(console.Inbox).cases if case.consult not in known]
    assert [case.consult for case in new] == [consult]
    assert new[0].urgency == "urgent"
    assert len(new[0].complaints) == 2
    await kiosk.until_step(consult, "received")  # nobody has opened it yet
    case = await available.case(consult)
    assert sorted(card.role for card in case.files) == ["photo", "voice"]
    cards = [*case.files, *(each for card in case.files for each in card.renditions)]
    assert {card.digest for card in cards} == digests
    for card in cards:
        assert card.complete
        assert hashlib.sha256(await available.file(card.digest)).hexdigest() == card.digest
    await kiosk.until_step(consult, "seen")
    await kiosk.until_all_sent()


async def test_with_the_broker_dead_it_is_the_same(kit, kiosk, available):
    await kit.broker.kill()
    await kiosk.screen.until(lambda view: not view.online, "offline", 20.0)
    await kiosk.board.press()
    consult = await kiosk.leave_message(voice_s=1.0)
    await kit.start_broker()
    case = await available.case(consult, lambda case: case.card.complete, 40.0)
    assert [card.role for card in case.files] == ["voice"]


async def test_by_the_button_alone(kit, kiosk, available):
    """Who cannot read speaks and presses."""
    await kit.hub.kill()
    await kiosk.screen.until(lambda view: not view.online, "offline")
    await kiosk.board.press()
    await kiosk.on_step("voice")
    await kiosk.board.press()
    await kiosk.screen.until(lambda view: view.draft is not None and view.draft.elapsed_ms > 1500, "some speech")
    for step in ("photo", "complaint", "urgency", "review"):
        await kiosk.board.press()  # what the step asks for, and on to the next
        await kiosk.on_step(step)
    await kiosk.board.press()
    view = await kiosk.screen.until(lambda view: view.screen == "saved", "saved")
    await kit.start_hub()
    case = await available.case(view.saved_consult, lambda case: case.card.complete, 20.0)
    assert case.card.voice_ms >= 1000
    assert sorted(card.role for card in case.files) == ["photo", "voice"]
