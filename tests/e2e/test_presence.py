"""Flow 2: what the kiosk says of the doctors before and while it calls, and what it offers when nobody comes."""

import pytest

from hub import console
from tests.e2e.kiosk import Kiosk

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def kiosk_settings():
    return {"call": {"ring_timeout_s": 4.0, "ended_screen_s": 2.0}}


async def until_presence(kiosk: Kiosk, state: str, position: int = 0, until: str = "") -> None:
    view = await kiosk.screen.until(
        lambda view: (view.presence.state, view.presence.position, view.presence.until) == (state, position, until),
        f"{state} {position} {until}",
    )
    assert view.presence.text


async def test_here_and_nobody_until(kiosk, available):
    await until_presence(kiosk, "here")
    await available.send(console.SetAvailable(available=False, until="14:30"))
    await until_presence(kiosk, "nobody", until="14:30")
    assert "14:30" in kiosk.screen.view.presence.text
    await available.send(console.SetAvailable(available=True))
    await until_presence(kiosk, "here")


async def test_busy_you_are_second(kit, kiosk, available, voices):
    """The doctor is with another kiosk; this one would be next, and is while it calls."""
    other = await kit.add_kiosk("kiosk-two", voices.patient_wav)
    try:
        mark = len(available.got)
        await other.board.press()
        card = await available.until_rings(mark)
        await available.send(console.Claim(call=card.call))
        await kiosk.screen.until(lambda view: view.presence.state == "busy", "busy")
        assert kiosk.screen.view.presence.position == 1
        await kiosk.board.press()
        await until_presence(kiosk, "busy", position=1)
        assert "1" in kiosk.screen.view.presence.text
        await kiosk.screen.act("cancel")
    finally:
        await kit.remove_kiosk(other)


async def test_nobody_answers_and_a_message_is_offered_in_the_same_consult(kit, kiosk, available):
    mark = len(available.got)
    await kiosk.board.press()
    card = await available.until_rings(mark)
    played = kiosk.heard_length()
    await kiosk.board.until_light("message", timeout_s=10.0)  # by lamp,
    view = await kiosk.screen.until(lambda view: view.screen == "offer", "the offer of a message")  # by screen,
    assert view.title
    await kiosk.until_says("nobody_answers", played)  # and by voice
    (await kit.until_over(card.call)).check("unanswered")
    await kiosk.screen.act("leave_message")
    await kiosk.leave_message(voice_s=1.5)
    case = await available.case(card.consult, lambda case: case.card.complete)
    assert [call.call for call in case.calls] == [card.call]
    assert case.card.voice_ms >= 1000


async def test_a_decline_is_told_and_a_message_is_offered(kit, kiosk, available):
    mark = len(available.got)
    await kiosk.board.press()
    card = await available.until_rings(mark)
    played = kiosk.heard_length()
    await available.send(console.Decline(call=card.call))
    await kiosk.screen.until(lambda view: view.screen == "offer", "the offer of a message")
    await kiosk.board.until_light("message")
    await kiosk.until_says("declined", played)
    (await kit.until_over(card.call)).check("declined")
    await kiosk.screen.act("dismiss")
    await kiosk.board.until_light("ready")
