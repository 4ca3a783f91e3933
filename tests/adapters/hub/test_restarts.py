"""SIGKILL at any moment is ordinary: of the hub, of the broker."""

from __future__ import annotations

import signal

import pytest

from edge_agent.core import sdp, wire
from hub import console
from tests.adapters.hub.rig import Hub
from tests.adapters.hub.test_calls import ANSWER, OFFER


async def test_the_hub_is_killed_at_every_step_of_a_call(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        consult, call = await kiosk.press()
        await doctor.rings(call)

        async def killed_and_back() -> int:
            hub.kill()
            await doctor.closed.wait()
            at = len(doctor.got)
            hub.start()
            await doctor.connect()
            return at

        at = await killed_and_back()
        await doctor.rings(call, since=at)
        await doctor.send(console.Claim(call=call.hex()))
        await kiosk.phase(call, "claimed")

        at = await killed_and_back()
        assert (await doctor.until("hello", since=at))["resume"] == call.hex()
        await kiosk.say(wire.Offer(call, 1, sdp.compress(OFFER)), consult)
        await doctor.until("offer", since=at)

        at = await killed_and_back()
        await doctor.until("offer", since=at)
        await doctor.send(console.SdpAnswer(call=call.hex(), leg=1, sdp=ANSWER))
        await kiosk.until(wire.Answer)
        await doctor.send(console.Talk(call=call.hex()))
        await kiosk.phase(call, "answered")

        at = await killed_and_back()
        resumed = await doctor.until("call", since=at)
        assert (resumed["phase"], resumed["call"]) == ("answered", call.hex())
        await doctor.send(console.HangUp(call=call.hex()))
        assert (await kiosk.phase(call, "ended")).outcome == "answered"


async def test_what_came_while_the_hub_was_down_is_taken(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk:
        await kiosk.online()
        await kiosk.until(wire.Presence)
        hub.kill()
        at = len(kiosk.got)
        await kiosk.until(wire.HubStatus, lambda status: not status.online, since=0)
        _, call = await kiosk.press()
        hub.start()
        await kiosk.until(wire.HubStatus, lambda status: status.online, since=at)
        await kiosk.phase(call, "ringing", since=at)


async def test_the_broker_is_killed_in_a_call(hub: Hub):
    async with hub.doctor("anna") as doctor:
        async with hub.kiosk("hill-1") as kiosk:
            await kiosk.online()
            _, call = await kiosk.press()
            await doctor.rings(call)
            await doctor.send(console.Claim(call=call.hex()))
            await kiosk.phase(call, "claimed")
            hub.broker.kill()
            await doctor.send(console.Talk(call=call.hex()))
            await doctor.until("call", lambda frame: frame["phase"] == "answered")
        hub.broker.start()
        async with hub.kiosk("hill-1") as kiosk:
            await kiosk.online()
            await kiosk.phase(call, "answered")
        log = hub.log.read_text()
        assert log.count("broker lost") == 1, log
        assert log.count("broker back") == 1, log


async def test_kept_messages_reach_a_kiosk_that_comes_later(hub: Hub):
    async with hub.doctor("anna") as doctor:
        async with hub.kiosk("hill-1") as kiosk:
            await kiosk.online()
            consult = wire.new_consult_id()
            await kiosk.receipt(await kiosk.say(wire.CaseNote("worker", 1), consult, 1))
        case = f"/api/cases/{consult.hex()}/advice"
        answer = await doctor.http.post(case, files={"text": (None, "Drink a lot.")})
        assert answer.status_code == 201, answer.text
        hub.kill()
        hub.start()
        async with hub.kiosk("hill-1") as kiosk:
            await kiosk.online()
            advice = await kiosk.until(wire.Advice)
            assert (advice.text, advice.given_by) == ("Drink a lot.", "anna")
            await kiosk.say(wire.Receipt((kiosk_message_id(kiosk, advice),)))
            heard = await kiosk.say(wire.AdviceHeard(advice.advice, 5), consult, 2)
            await kiosk.receipt(heard)
        await doctor.closed.wait()
        await doctor.connect()
        case = await doctor.case(consult)
        assert case["card"]["state"] == "heard"
        assert case["advice"][0]["delivered_at"] > 0
        assert case["advice"][0]["heard_at"] > 0


def kiosk_message_id(kiosk, body: wire.Body) -> bytes:
    return next(message.id for message in kiosk.got if message.body is body)


@pytest.mark.parametrize("orderly", [True, False])
async def test_the_hub_says_that_it_goes(hub: Hub, orderly: bool):
    async with hub.kiosk("hill-1") as kiosk:
        await kiosk.until(wire.HubStatus, lambda status: status.online and status.time_ms > 0)
        hub.kill(signal.SIGTERM if orderly else signal.SIGKILL)
        await kiosk.until(wire.HubStatus, lambda status: not status.online)
