"""Advice that a page sends again, because it heard no answer, is given once."""

from __future__ import annotations

from edge_agent.core import wire
from tests.adapters.hub.rig import Hub, TestKiosk, now_ms

ADVICE = "0123456789abcdef"


async def _case(kiosk: TestKiosk) -> bytes:
    consult = wire.new_consult_id()
    note = await kiosk.say(wire.CaseNote("worker", now_ms(), "soon", ("fever",), "Since Monday."), consult, 1)
    await kiosk.receipt(note)
    return consult


async def test_the_same_advice_sent_twice_is_one(hub: Hub) -> None:
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        consult = await _case(kiosk)
        path, form = f"/api/cases/{consult.hex()}/advice", {"advice": ADVICE, "text": "Drink a lot.\r\nRest."}
        for _ in range(2):
            answer = await doctor.http.post(path, data=form)
            assert (answer.status_code, answer.json()) == (201, {"advice": ADVICE})
        other = await doctor.http.post(path, data={"text": "Come on Friday."})
        assert other.status_code == 201

        await kiosk.until(wire.Advice, lambda body: body.advice.hex() == other.json()["advice"])
        sent = [message.body.text for message in kiosk.got if isinstance(message.body, wire.Advice)]
        assert sent == ["Drink a lot.\nRest.", "Come on Friday."]
        case = await doctor.case(consult)
        assert [advice["text"] for advice in case["advice"]] == sent


async def test_an_id_of_another_case_or_of_no_sense_is_refused(hub: Hub) -> None:
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        for consult, advice, status in (
            (await _case(kiosk), ADVICE, 201),
            (await _case(kiosk), ADVICE, 409),
            (await _case(kiosk), "../etc", 400),
        ):
            answer = await doctor.http.post(
                f"/api/cases/{consult.hex()}/advice", data={"advice": advice, "text": "Rest."}
            )
            assert answer.status_code == status, answer.text
