"""Speaking in turns: a button at the board, a hub on a real broker, kills of the agent; and live again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest_asyncio

from edge_agent.core import wire
from tests.adapters.agent.rig import Hub, Kiosk
from tests.adapters.agent.test_calls import talk

TURN = b"t" * 8


@pytest_asyncio.fixture
async def lossy(broker, hub: Hub, tmp_path: Path):
    """A kiosk whose calls cannot be live."""
    kiosk = Kiosk(tmp_path / "kiosk", broker)
    kiosk.agent.env |= {"TELECONSULT_TEST_LOSSY": "1", "TELECONSULT_TEST_TURNS": str(tmp_path / "turns")}
    await kiosk.start()
    yield kiosk
    await kiosk.stop()


async def in_turns(hub: Hub, kiosk: Kiosk) -> tuple[bytes, bytes]:
    await kiosk.online()
    consult, call = await talk(hub, kiosk)
    await kiosk.screen.until(lambda view: view.screen == "turns", "turns", 20)
    await hub.until(wire.MediaState, lambda body: body.state == "turns")
    return consult, call


def parts(hub: Hub) -> list[wire.TurnPart]:
    return hub.all(wire.TurnPart)


async def speak(kiosk: Kiosk) -> None:
    await kiosk.board.down()
    await kiosk.screen.until(lambda view: view.turns is not None and view.turns.speaking, "that it records")
    await kiosk.board.until_light("live")
    await asyncio.sleep(2.1)  # longer than an emergency's hold
    await kiosk.board.up()


def played(folder: Path) -> list[bytes]:
    file = folder / "turns"
    return [bytes.fromhex(line) for line in file.read_text().split()] if file.exists() else []


async def test_both_speak_and_are_heard_and_a_hold_is_no_emergency(hub: Hub, lossy: Kiosk, tmp_path: Path):
    consult, call = await in_turns(hub, lossy)
    await speak(lossy)
    await hub.until(wire.TurnPart, lambda body: body.last)
    begun, first, second = parts(hub)
    assert (begun.turn, begun.part, begun.packets) == (first.turn, 0, ())
    assert (first.call, first.part, first.packets, first.last) == (call, 1, (b"one", b"two"), False)
    assert (second.turn, second.part, second.packets, second.last) == (first.turn, 2, (b"three",), True)
    await lossy.screen.until(lambda view: view.turns.sent == "delivered", "that it is there")
    heard = await hub.send(wire.TurnHeard(call, first.turn), consult, seq=1)
    await hub.until(wire.Receipt, lambda body: heard.id in body.ids)
    await lossy.screen.until(lambda view: view.turns.sent == "heard", "that it was heard")
    # The doctor's, whose second part comes first, and twice.
    last = wire.TurnPart(call, TURN, 1, (b"four",), True)
    for body, seq in ((last, 3), (last, 3), (wire.TurnPart(call, TURN, 0, (b"three",)), 2)):
        await hub.send(body, consult, seq)
    await hub.until(wire.TurnHeard, lambda body: body == wire.TurnHeard(call, TURN))
    assert played(tmp_path) == [b"threefour"]
    assert not any(body.emergency for body in hub.all(wire.CallRequested))
    assert not lossy.screen.view.call.emergency
    await lossy.screen.act("end")
    assert (await hub.until(wire.CallEnded)).outcome == "answered"


async def test_what_was_said_survives_a_kill_and_the_call_is_live_again_by_itself(
    hub: Hub, lossy: Kiosk, tmp_path: Path
):
    consult, call = await in_turns(hub, lossy)
    hub.takes = False
    await lossy.board.down()
    await hub.until(wire.TurnPart, lambda body: body.part == 1)
    await lossy.agent.kill()
    hub.takes = True
    since = len(hub.got)
    lossy.agent.env["TELECONSULT_TEST_FITS"] = "1"
    await lossy.start()
    again = await hub.until(wire.TurnPart, lambda body: body.part == 1, since)
    assert again.packets == (b"one", b"two")  # it had no receipt
    await lossy.screen.until(lambda view: view.screen == "turns", "turns")
    await hub.send(wire.TurnPart(call, TURN, 0, (b"hello",), True), consult, seq=1)
    await hub.until(wire.TurnHeard)
    assert played(tmp_path) == [b"hello"]
    offer = await hub.until(wire.Offer, lambda body: body.leg > 1, since)
    await hub.send(wire.Answer(call, offer.leg, b"answer"), consult)
    await lossy.screen.until(lambda view: view.screen == "live", "live again", 30)
    await hub.until(wire.MediaState, lambda body: body.state == "connected", since=since)
