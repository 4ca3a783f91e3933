"""Calls through a real broker, a real hub process, a kiosk and doctors that say every word."""

from __future__ import annotations

import asyncio

import pytest

from edge_agent.core import sdp, wire
from hub import console
from tests.adapters.hub.rig import Hub, TestDoctor, TestKiosk, description

OFFER, ANSWER = description("actpass"), description("active", "wxyz")


async def claim(kiosk: TestKiosk, doctor: TestDoctor) -> tuple[bytes, bytes]:
    """`(consult, call)` of a call that `doctor` has claimed."""
    consult, call = await kiosk.press()
    await doctor.rings(call)
    await doctor.send(console.Claim(call=call.hex()))
    await kiosk.phase(call, "claimed")
    return consult, call


async def test_a_call_from_press_to_hang_up(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        assert (await kiosk.until(wire.Presence)).state == "here"
        consult, call = await kiosk.press()
        await kiosk.phase(call, "ringing")
        await doctor.rings(call)

        await doctor.send(console.Claim(call=call.hex()))
        claimed = await kiosk.phase(call, "claimed")
        assert claimed.doctor == "anna"
        await doctor.until("call", lambda frame: frame["phase"] == "claimed")
        await kiosk.until(wire.Presence, lambda presence: presence.state == "busy")

        await kiosk.say(wire.Offer(call, 1, sdp.compress(OFFER)), consult)
        offer = await doctor.until("offer")
        assert offer["leg"] == 1
        assert "m=audio" in offer["sdp"]
        await doctor.send(console.SdpAnswer(call=call.hex(), leg=1, sdp=ANSWER))
        answer = await kiosk.until(wire.Answer)
        assert answer.leg == 1
        assert "m=audio" in sdp.decompress(answer.sdp)
        await kiosk.say(wire.MediaState(call, 1, "connected"), consult)
        await doctor.until("kiosk_media", lambda frame: frame["state"] == "connected")

        await doctor.send(console.Talk(call=call.hex()))
        await kiosk.phase(call, "answered")
        await doctor.send(console.HangUp(call=call.hex()))
        ended = await kiosk.phase(call, "ended")
        assert ended.outcome == "answered"
        await doctor.until("call", lambda frame: frame["phase"] == "ended" and frame["outcome"] == "answered")
        case = await doctor.case(consult)
        assert case["card"]["state"] == "closed"
        [recorded] = case["calls"]
        assert recorded["outcome"] == "answered"
        assert 0 < recorded["requested_at"] <= recorded["answered_at"] <= recorded["ended_at"]


async def test_the_first_of_two_claims_wins(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as anna, hub.doctor("ben") as ben:
        await kiosk.online()
        _, call = await kiosk.press()
        await asyncio.gather(anna.rings(call), ben.rings(call))
        await asyncio.gather(*(doctor.send(console.Claim(call=call.hex())) for doctor in (anna, ben)))
        claimed = await kiosk.phase(call, "claimed")
        loser, winner = (ben, anna) if claimed.doctor == "anna" else (anna, ben)
        refused = await loser.until("refused")
        assert (refused["request"], refused["code"], refused["call"]) == ("claim", "taken", call.hex())
        await winner.until("call", lambda frame: frame["phase"] == "claimed")
        assert not [frame for frame in winner.got if frame["type"] == "refused"]
        assert {body.doctor for body in states(kiosk, call, "claimed")} == {claimed.doctor}
        card = await loser.rings(call, rings_me=False)
        assert card["claimed_by"] == claimed.doctor


async def test_a_doctor_holds_one_call(hub: Hub):
    async with hub.kiosk("hill-1") as hill, hub.kiosk("river-2") as river, hub.doctor("anna") as doctor:
        await hill.online()
        await river.online()
        await claim(hill, doctor)
        _, second = await river.press()
        await doctor.rings(second, rings_me=False)
        await doctor.send(console.Claim(call=second.hex()))
        assert (await doctor.until("refused"))["code"] == "busy"
        presence = await river.until(wire.Presence, lambda presence: presence.state == "busy")
        assert presence.position == 1


async def test_release_rings_on_and_decline_ends(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        _, call = await claim(kiosk, doctor)
        at, at_kiosk = len(doctor.got), len(kiosk.got)
        await doctor.send(console.Release(call=call.hex()))
        await kiosk.phase(call, "ringing", since=at_kiosk)
        await doctor.rings(call, since=at)
        await doctor.send(console.Decline(call=call.hex()))
        assert (await kiosk.phase(call, "ended")).outcome == "declined"


async def test_the_kiosk_ends_and_the_doctor_is_told(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        consult, call = await claim(kiosk, doctor)
        await doctor.send(console.Talk(call=call.hex()))
        await kiosk.phase(call, "answered")
        ended = await kiosk.say(wire.CallEnded(call, "answered", 1_000, 2_000), consult, 3)
        await kiosk.receipt(ended)
        await doctor.until("call", lambda frame: frame["phase"] == "ended" and frame["outcome"] == "answered")
        await doctor.send(console.HangUp(call=call.hex()))
        case = await doctor.case(consult)
        assert [recorded["outcome"] for recorded in case["calls"]] == ["answered"]


async def test_a_call_that_ended_before_it_began_stays_ended(hub: Hub):
    """The broker and the store may turn messages round."""
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        consult, call = wire.new_consult_id(), wire.new_message_id()
        await kiosk.say(wire.CallEnded(call, "cancelled", 0, 5), consult, 3)
        await kiosk.say(wire.CallRequested(call, 1), consult, 2)
        last = await kiosk.say(wire.ConsultOpened(1, "patient"), consult, 1)
        await kiosk.receipt(last)
        assert (await kiosk.phase(call, "ended")).outcome == "cancelled"
        assert not states(kiosk, call, "ringing")
        case = await doctor.case(consult)
        assert case["calls"][0]["outcome"] == "cancelled"


async def test_an_offer_said_twice_gets_the_same_answer(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        consult, call = await claim(kiosk, doctor)
        offer = wire.Offer(call, 1, sdp.compress(OFFER))
        await kiosk.say(offer, consult)
        await doctor.until("offer")
        await doctor.send(console.SdpAnswer(call=call.hex(), leg=1, sdp=ANSWER))
        first = await kiosk.until(wire.Answer)
        at = len(kiosk.got)
        await kiosk.say(offer, consult)
        assert await kiosk.until(wire.Answer, since=at) == first
        assert len([frame for frame in doctor.got if frame["type"] == "offer"]) == 1
        # a fresh leg is the browser's again
        await kiosk.say(wire.Offer(call, 2, sdp.compress(OFFER)), consult)
        await doctor.until("offer", lambda frame: frame["leg"] == 2)


async def test_candidates_that_come_later_go_both_ways(hub: Hub):
    more = "a=candidate:2 1 udp 41885439 198.51.100.7 50000 typ relay raddr 0.0.0.0 rport 0\r\n"
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        consult, call = await claim(kiosk, doctor)
        await kiosk.say(wire.Offer(call, 1, sdp.compress(OFFER)), consult)
        await doctor.until("offer")
        await doctor.send(console.SdpAnswer(call=call.hex(), leg=1, sdp=ANSWER))
        await kiosk.until(wire.Answer)

        at = len(kiosk.got)
        await doctor.send(console.SdpAnswer(call=call.hex(), leg=1, sdp=ANSWER + more))
        answer = await kiosk.until(wire.Answer, since=at)
        assert answer.leg == 1
        assert "198.51.100.7" in sdp.decompress(answer.sdp)

        await kiosk.say(wire.Offer(call, 1, sdp.compress(OFFER + more)), consult)
        await doctor.until("offer", lambda frame: frame["leg"] == 1 and "198.51.100.7" in frame["sdp"])
        at = len(kiosk.got)
        await doctor.send(console.SdpAnswer(call=call.hex(), leg=1, sdp=ANSWER + more))  # as its page does
        assert await kiosk.until(wire.Answer, since=at) == answer


async def test_a_reloaded_page_resumes_its_call(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        consult, call = await claim(kiosk, doctor)
        await kiosk.say(wire.Offer(call, 1, sdp.compress(OFFER)), consult)
        await doctor.until("offer")
        await doctor.disconnect()
        at = len(doctor.got)
        await doctor.connect()
        hello = await doctor.until("hello", since=at)
        assert hello["resume"] == call.hex()
        await doctor.until("offer", lambda frame: frame["leg"] == 1, since=at)
        await doctor.send(console.SdpAnswer(call=call.hex(), leg=1, sdp=ANSWER))
        await kiosk.until(wire.Answer)
        await doctor.send(console.WantNewLeg(call=call.hex(), leg=1))
        assert (await kiosk.until(wire.NewLegWanted)).leg == 1


async def test_a_second_page_of_the_doctor_does_not_take_part(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as holder, hub.doctor("anna") as other:
        await kiosk.online()
        consult, call = await claim(kiosk, holder)
        await kiosk.say(wire.Offer(call, 1, sdp.compress(OFFER)), consult)
        await holder.until("offer")
        await other.rings(call, rings_me=False)
        assert not [frame for frame in other.got if frame["type"] in ("offer", "call")]


async def test_the_doctor_rings_the_kiosk(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        consult = wire.new_consult_id()
        note = await kiosk.say(wire.CaseNote("worker", 1, "soon", ("fever",)), consult, 1)
        await kiosk.receipt(note)
        await doctor.send(console.RingKiosk(consult=consult.hex()))
        rung = await kiosk.until(wire.CallState, lambda body: body.phase == "calling_kiosk")
        assert rung.doctor == "anna"
        await kiosk.say(wire.CallAccepted(rung.call), consult)
        await kiosk.say(wire.Offer(rung.call, 1, sdp.compress(OFFER)), consult)
        await kiosk.phase(rung.call, "answered")
        await doctor.until("call", lambda frame: frame["phase"] == "answered" and frame["answered_at"] > 0)
        await doctor.until("offer")
        await doctor.send(console.HangUp(call=rung.call.hex()))
        assert (await kiosk.phase(rung.call, "ended")).outcome == "answered"
        case = await doctor.case(consult)
        assert case["card"]["state"] == "receiving", "a case stays open after the call"
        assert case["calls"][0]["by_doctor"]


async def test_a_kiosk_that_is_away_cannot_be_rung(hub: Hub):
    async with hub.doctor("anna") as doctor:
        async with hub.kiosk("hill-1") as kiosk:
            await kiosk.online()
            consult = wire.new_consult_id()
            await kiosk.receipt(await kiosk.say(wire.CaseNote("worker", 1), consult, 1))
            await kiosk.publish("s", wire.encode(wire.Message(wire.Status(online=False))), retain=True)
            await doctor.send(console.OpenCase(consult=consult.hex()))
            await doctor.until("case", lambda frame: not frame["case"]["kiosk_online"])
        await doctor.send(console.RingKiosk(consult=consult.hex()))
        assert (await doctor.until("refused"))["code"] == "offline"


async def test_presence_says_until_when_nobody_is_here(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk:
        await kiosk.online()
        await kiosk.until(wire.Presence, lambda presence: presence.state == "nobody" and presence.until == "")
        async with hub.doctor("anna") as doctor:
            await kiosk.until(wire.Presence, lambda presence: presence.state == "here")
            await doctor.send(console.SetAvailable(available=False, until="23:59"))
            await kiosk.until(wire.Presence, lambda presence: presence == wire.Presence("nobody", 0, "23:59"))
            await doctor.send(console.SetAvailable(available=False, until="25:00"))
            assert (await doctor.until("refused"))["code"] == "bad_request"


def states(kiosk: TestKiosk, call: bytes, phase: str) -> list[wire.CallState]:
    bodies = [message.body for message in kiosk.got]
    return [body for body in bodies if isinstance(body, wire.CallState) and body.call == call and body.phase == phase]


class TestTime:
    @pytest.fixture
    def settings_of_hub(self) -> str:
        return "[ring]\neveryone_after_s = 1\ngone_s = 1\nkiosk_ring_s = 1\n"

    async def test_an_emergency_rings_everybody_in_the_end(self, hub: Hub):
        async with hub.kiosk("hill-1") as kiosk, hub.kiosk("river-2") as river, hub.doctor("ben") as away:
            await kiosk.online()
            await river.online()
            await away.send(console.SetAvailable(available=False))
            await kiosk.until(wire.Presence, lambda presence: presence.state == "nobody")
            _, calm = await river.press()
            _, call = await kiosk.press(emergency=True)
            await away.rings(call, rings_me=False)
            card = await away.rings(call, rings_me=True)
            assert card["emergency"]
            room = away.got[-1]
            assert [card["call"] for card in room["queue"]] == [call.hex(), calm.hex()], "before the older calm one"
            assert (await kiosk.until(wire.CallState, lambda body: body.everyone)).phase == "ringing"

    async def test_a_doctor_who_does_not_come_back(self, hub: Hub):
        async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
            await kiosk.online()
            _, call = await claim(kiosk, doctor)
            await doctor.disconnect()
            assert (await kiosk.phase(call, "ended")).outcome == "doctor_gone"

    async def test_a_kiosk_that_does_not_pick_up(self, hub: Hub):
        async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
            await kiosk.online()
            consult = wire.new_consult_id()
            await kiosk.receipt(await kiosk.say(wire.CaseNote("worker", 1), consult, 1))
            await doctor.send(console.RingKiosk(consult=consult.hex()))
            rung = await kiosk.until(wire.CallState, lambda body: body.phase == "calling_kiosk")
            assert (await kiosk.phase(rung.call, "ended")).outcome == "unanswered"

    async def test_a_kiosk_whose_line_is_dead(self, hub: Hub):
        async with hub.doctor("anna") as doctor:
            async with hub.kiosk("hill-1") as kiosk:
                await kiosk.online()
                await claim(kiosk, doctor)
                await kiosk.publish("s", wire.encode(wire.Message(wire.Status(online=False))), retain=True)
            await doctor.until("call", lambda frame: frame["outcome"] == "link_lost")
            async with hub.kiosk("hill-1") as kiosk:
                await kiosk.online()
