"""What is said in turns, through a real broker and hub: passed on both ways, kept over a kill, and made a message where
nobody heard it."""

from __future__ import annotations

import base64
import io

import av
import numpy as np

from edge_agent.core import wire
from edge_agent.core.turn_parts import CODING
from edge_agent.media.opus import SILENCE, open_encoder
from hub import console
from tests.adapters.hub.rig import Hub, TestDoctor, TestKiosk
from tests.adapters.hub.test_calls import claim

TURN, OTHER = b"t" * 8, b"o" * 8


async def in_turns(kiosk: TestKiosk, doctor: TestDoctor) -> tuple[bytes, bytes]:
    await kiosk.online()
    consult, call = await claim(kiosk, doctor)
    await doctor.send(console.Talk(call=call.hex()))
    await kiosk.phase(call, "answered")
    await kiosk.say(wire.MediaState(call, 1, "turns"), consult)
    await doctor.until("kiosk_media", lambda frame: frame["state"] == "turns")
    return consult, call


def packets_of(frame: dict) -> list[bytes]:
    return [base64.b64decode(packet) for packet in frame["packets"]]


async def test_the_patient_speaks_and_is_heard(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        consult, call = await in_turns(kiosk, doctor)
        said = [
            await kiosk.say(wire.TurnPart(call, TURN, 0, (b"a", b"b")), consult, 3),
            await kiosk.say(wire.TurnPart(call, TURN, 1, (b"c",), True), consult, 4),
        ]
        await kiosk.receipt(*said)
        last = await doctor.until("turn", lambda frame: frame["last"])
        first = next(frame for frame in doctor.got if frame["type"] == "turn")
        assert (packets_of(first), packets_of(last)) == ([b"a", b"b"], [b"c"])
        await doctor.send(console.TurnWasHeard(call=call.hex(), turn=TURN.hex()))
        assert await kiosk.until(wire.TurnHeard) == wire.TurnHeard(call, TURN)
        # A page that was loaded anew is told where things stand, and not what was heard.
        await doctor.disconnect()
        since = len(doctor.got)
        await doctor.connect()
        await doctor.until("kiosk_media", lambda frame: frame["state"] == "turns", since=since)
        assert not [frame for frame in doctor.got[since:] if frame["type"] == "turn"]


async def test_the_doctor_speaks_and_sees_how_far_it_has_come(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        consult, call = await in_turns(kiosk, doctor)
        named = {"call": call.hex(), "turn": TURN.hex()}
        for part, packets, last in ((0, (b"a",), False), (0, (b"a",), False), (1, (b"b",), True)):
            await doctor.send(console.SayTurn(**named, part=part, packets=packets, last=last))
        await kiosk.until(wire.TurnPart, lambda body: body.last)
        told = [message for message in kiosk.got if isinstance(message.body, wire.TurnPart)]
        assert [message.body.packets for message in told] == [(b"a",), (b"b",)]
        mark = await doctor.until("turn_mark", lambda frame: frame["kept"] == 2)
        assert not mark["delivered"]
        await kiosk.say(wire.Receipt(tuple(message.id for message in told)))
        await doctor.until("turn_mark", lambda frame: frame["delivered"] and not frame["heard"])
        await kiosk.say(wire.TurnHeard(call, TURN), consult, 3)
        await doctor.until("turn_mark", lambda frame: frame["heard"])


async def test_a_kiosk_that_came_anew_is_told_again_what_it_has_not_heard(hub: Hub):
    async with hub.doctor("anna") as doctor:
        async with hub.kiosk("hill-1") as kiosk:
            consult, call = await in_turns(kiosk, doctor)
            for turn in (TURN, OTHER):
                said = console.SayTurn(call=call.hex(), turn=turn.hex(), part=0, packets=(turn,), last=True)
                await doctor.send(said)
            await kiosk.until(wire.TurnPart, lambda body: body.turn == OTHER)
            had = [message.id for message in kiosk.got if isinstance(message.body, wire.TurnPart)]
            await kiosk.say(wire.Receipt(tuple(had)))
            await kiosk.say(wire.TurnHeard(call, TURN), consult, 3)
            await doctor.until("turn_mark", lambda frame: frame["heard"])
        hub.kill()
        hub.start()
        await doctor.disconnect()
        await doctor.connect()
        async with hub.kiosk("hill-1") as kiosk:
            await kiosk.online()
            await kiosk.until(wire.TurnPart, lambda body: body.turn == OTHER)
            assert not [m for m in kiosk.got if isinstance(m.body, wire.TurnPart) and m.body.turn == TURN]


async def test_what_nobody_heard_becomes_a_message_of_the_case(hub: Hub):
    speech = (open_encoder().encode(np.zeros(CODING.frame_samples, np.int16), CODING), SILENCE)
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        consult, call = await in_turns(kiosk, doctor)
        await doctor.send(console.SayTurn(call=call.hex(), turn=OTHER.hex(), part=0, packets=speech, last=True))
        await kiosk.until(wire.TurnPart)
        await kiosk.say(wire.CallEnded(call, "link_lost", 1, 2), consult, 5)
        await kiosk.phase(call, "ended")
        await kiosk.say(wire.TurnPart(call, TURN, 0, speech), consult, 3)  # it waited for the link
        await kiosk.say(wire.TurnPart(call, TURN, 1, speech, True), consult, 4)
        # By the hub's upkeep.
        advice = await kiosk.until(wire.Advice, timeout_s=40)
        assert await kiosk.until(wire.Manifest, lambda body: body.digest == advice.reply)
        case = await doctor.case(consult, lambda case: any(file["role"] == "voice" for file in case["files"]))
        (voice,) = [file for file in case["files"] if file["role"] == "voice"]
        assert voice["complete"]
        assert voice["duration_ms"] == 2 * (CODING.frame_ms + 20)
        assert case["card"]["state"] == "answered"
        data = (await doctor.http.get(f"/api/files/{voice['digest']}")).content
        with av.open(io.BytesIO(data)) as container:
            samples = sum(frame.samples for frame in container.decode(audio=0))
        assert abs(samples - 2 * (CODING.frame_ms + 20) * 48) <= 400


async def test_what_is_no_turn_is_refused(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        consult, call = await in_turns(kiosk, doctor)
        await kiosk.say(wire.TurnPart(b"n" * 8, TURN, 0, (b"a",), True), consult, 3)
        await doctor.send(console.SayTurn(call="ab" * 8, turn=TURN.hex(), part=0, packets=(b"a",), last=True))
        assert (await doctor.until("refused"))["code"] == "gone"
        await kiosk.say(wire.TurnPart(call, OTHER, 0, (b"b",), True), consult, 4)
        await doctor.until("turn", lambda frame: frame["turn"] == OTHER.hex())
        assert not [frame for frame in doctor.got if frame["type"] == "turn" and frame["turn"] == TURN.hex()]
