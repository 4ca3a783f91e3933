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
