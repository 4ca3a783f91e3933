"""A broker that alters, replays, reorders, moves, drops and invents: a real hub and a real agent go on as if it were
merely bad, start no media towards anybody else and end no call; and its disk holds nothing of patients."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import func, select

from edge_agent.core import sdp, trust, wire
from edge_agent.identity import Identity
from hub import console
from hub.records import AdviceGiven, Call, CaseFile, Consult, Event, Uplink
from tests.adapters.agent.rig import Kiosk
from tests.adapters.hostile import Hostile, Publication, honest
from tests.adapters.hub.rig import FINGERPRINT, Hub, TestDoctor, description, now_ms
from tests.e2e.program import until

FORGED_FINGERPRINT = ":".join(f"{255 - number:02X}" for number in range(32))
OFFER, ANSWER = description("actpass"), description("active", "wxyz")
STRANGER = ec.generate_private_key(ec.SECP256R1())


class Rig(NamedTuple):
    hub: Hub
    hostile: Hostile
    kiosk: Kiosk
    identity: Identity
    answers: Path  # what the kiosk's media would connect to

    def refused(self) -> list[str]:
        """By the kiosk, in its log."""
        return [line.text for line in self.kiosk.agent.lines if "message refused" in line.text]

    async def until_refused(self, times: int) -> None:
        await until(lambda: len(self.refused()) >= times, 10, f"the kiosk refuses {times}: {self.refused()}")

    def of_a_stranger(self, body: wire.Body, consult: bytes, counter: int = 2**60) -> Publication:
        """Sealed for the kiosk, whose public key is no secret, and signed by somebody else."""
        topic = wire.down_topic(self.identity.kiosk, body.CHANNEL)
        message = wire.encode(wire.Message(body, consult, sent_at_ms=now_ms()))
        reader = self.identity.seal_key.public_key()
        payload = trust.wrap(message, topic, STRANGER, reader, counter=counter, sender="1")
        return Publication("kiosk", topic, payload)


@pytest.fixture
async def rig(stopped_hub: Hub, tmp_path: Path) -> AsyncIterator[Rig]:
    hub = stopped_hub
    hub.broker.start()
    hostile = Hostile(hub.settings.broker.port)
    await hostile.start()
    real_port, listen_port = hub.settings.broker.port, hub.settings.broker.listen_port
    hub.set("broker", f"port = {hostile.port}")
    hub.start()
    kiosk = Kiosk(tmp_path / "agent", None, broker={"host": "127.0.0.1", "port": listen_port})
    shutil.copytree(tmp_path / "hill-1", kiosk.state_dir / "identity")
    answers = tmp_path / "answers"
    kiosk.agent.env |= {
        "TELECONSULT_TEST_OFFER": sdp.compress(OFFER).hex(),
        "TELECONSULT_TEST_ANSWERS": str(answers),
    }
    await kiosk.start()
    try:
        await kiosk.online()
        await kiosk.screen.until(lambda view: view.presence.state != "offline", "presence")
        yield Rig(hub, hostile, kiosk, hub.identity("hill-1"), answers)
    finally:
        await kiosk.stop()
        hub.kill()
        await hostile.stop()
        hub.set("broker", f"port = {real_port}")


async def claimed(rig: Rig, doctor: TestDoctor) -> tuple[bytes, bytes]:
    """`(consult, call)` of a press that the doctor has taken."""
    mark = len(doctor.got)
    await rig.kiosk.board.press()
    room = await doctor.until("room", lambda frame: bool(frame["queue"]), mark)
    card = room["queue"][0]
    await doctor.send(console.Claim(call=card["call"]))
    await rig.kiosk.screen.until(lambda view: view.screen in ("claimed", "live"), "claimed")
    return bytes.fromhex(card["consult"]), bytes.fromhex(card["call"])


async def talk(rig: Rig, doctor: TestDoctor) -> tuple[bytes, bytes]:
    mark = len(doctor.got)
    consult, call = await claimed(rig, doctor)
    await doctor.until("offer", lambda frame: frame["call"] == call.hex(), mark)
    await doctor.send(console.SdpAnswer(call=call.hex(), leg=1, sdp=ANSWER))
    await doctor.until("kiosk_media", lambda frame: frame["state"] == "connected", mark)
    await doctor.send(console.Talk(call=call.hex()))
    await rig.kiosk.screen.until(lambda view: view.screen == "live", "live")
    return consult, call


def on(topic: str):
    return lambda publication: publication.topic == topic


async def test_an_answer_with_another_fingerprint_starts_no_media(rig: Rig):
    topic = wire.down_topic("hill-1", "c")
    forged = sdp.compress(ANSWER.replace(FINGERPRINT, FORGED_FINGERPRINT))
    async with rig.hub.doctor("anna") as doctor:
        consult, call = await claimed(rig, doctor)
        await doctor.until("offer")
        held: list[Publication] = []

        def keep(publication: Publication) -> list[Publication]:
            if publication.topic != topic:
                return [publication]
            held.append(publication)
            return []

        rig.hostile.rule = keep
        mark = len(rig.hostile.seen)
        await doctor.send(console.SdpAnswer(call=call.hex(), leg=1, sdp=ANSWER))
        true = await rig.hostile.until(on(topic), mark)
        answer = wire.Answer(call, 1, forged)
        rig.hostile.say(rig.of_a_stranger(answer, consult))
        await rig.until_refused(1)
        in_clear = wire.encode(wire.Message(answer, consult, sent_at_ms=now_ms()))
        rig.hostile.say(Publication("kiosk", topic, in_clear))
        for bit in (8 * 40, 8 * len(true.payload) - 1):  # in the sealed part: first its key, then its tag
            altered = bytearray(true.payload)
            altered[bit // 8] ^= 1 << bit % 8
            rig.hostile.say(true._replace(payload=bytes(altered)))
        await rig.until_refused(4)  # forged twice, unreadable twice: the 1st and 2nd of each are in the log
        assert not rig.answers.exists(), "media was started"
        rig.hostile.say(true)
        await doctor.until("kiosk_media", lambda frame: frame["state"] == "connected")
        [taken] = rig.answers.read_text().split()
        assert FINGERPRINT in sdp.decompress(bytes.fromhex(taken))
        assert {notice.code for notice in rig.kiosk.screen.view.notices} >= {"messages_refused"}


async def test_an_offer_with_another_fingerprint_reaches_no_doctor(rig: Rig):
    topic = wire.up_topic("hill-1", "c")
    async with rig.hub.doctor("anna") as doctor:
        mark = len(rig.hostile.seen)
        sealed_to = rig.identity.hub_seal_key
        offers: list[Publication] = []

        def alter(publication: Publication) -> list[Publication]:
            """The press and what else is durable goes through; the offer comes when the doctor has claimed."""
            if publication.topic != topic or not any(p.topic == wire.down_topic("hill-1", "c") for p in claims()):
                return [publication]
            offers.append(publication)
            broken = bytearray(publication.payload)
            broken[-20] ^= 4
            return [publication._replace(payload=bytes(broken))]

        def claims() -> list[Publication]:
            return [p for p in rig.hostile.seen[mark:] if p.to == "kiosk"][1:]

        rig.hostile.rule = alter
        consult, call = await claimed(rig, doctor)
        await until(lambda: bool(offers), 10, "the kiosk's offer")
        forged = wire.Offer(call, 1, sdp.compress(OFFER.replace(FINGERPRINT, FORGED_FINGERPRINT)))
        message = wire.encode(wire.Message(forged, consult, sent_at_ms=now_ms()))
        rig.hostile.say(
            Publication("hub", topic, trust.wrap(message, topic, STRANGER, sealed_to, counter=2**60)),
            Publication("hub", topic, message),
        )
        await until_counted(doctor, forged=2, unreadable=1)
        assert not [frame for frame in doctor.got if frame["type"] == "offer"]
        rig.hostile.rule = honest
        rig.hostile.say(offers[0])
        offer = await doctor.until("offer")
        assert FINGERPRINT in offer["sdp"]


async def until_counted(doctor: TestDoctor, **least: int) -> dict[str, int]:
    deadline = time.monotonic() + 10
    while True:
        refused: dict[str, int] = (await doctor.http.get("/health")).json()["refused"]
        if all(refused.get(kind, 0) >= count for kind, count in least.items()):
            return refused
        assert time.monotonic() < deadline, refused


async def test_no_forged_replayed_or_moved_hang_up_ends_a_call(rig: Rig):
    down, up = wire.down_topic("hill-1", "c"), wire.up_topic("hill-1", "c")
    async with rig.hub.doctor("anna") as doctor, rig.hub.kiosk("river-2") as other:
        await other.online()
        await talk(rig, doctor)
        await doctor.send(console.HangUp(call=doctor.got[-1].get("call", "") or (await doctor.until("call"))["call"]))
        await rig.kiosk.screen.until(lambda view: view.screen == "idle", "over")
        first = [publication for publication in rig.hostile.seen if publication.topic in (down, up)]

        consult, call = await talk(rig, doctor)
        before = len(rig.refused())
        rig.hostile.say(
            rig.of_a_stranger(wire.CallState(call, "ended", outcome="answered"), consult),
            Publication("kiosk", down, wire.encode(wire.Message(wire.CallState(call, "ended"), consult))),
        )
        rig.hostile.say(*first)  # the whole first call, its hang-ups among it
        moved = other.wrap("c", wire.encode(wire.Message(wire.CallEnded(call, "answered", 0, 1), consult, seq=9)))
        rig.hostile.say(
            Publication("hub", up, moved),  # another kiosk's word on this one's topic
            Publication("hub", wire.up_topic("river-2", "c"), moved),  # and on its own, where it may speak of its own
            Publication("hub", up, wire.encode(wire.Message(wire.CallEnded(call, "answered", 0, 1), consult))),
        )
        refused = await until_counted(doctor, forged=1, unreadable=1, foreign_consult=1, replayed=1)
        await until(lambda: len(rig.refused()) > before, 10, "the kiosk refuses")
        # Whatever was said before this has been taken: a word of the doctor's goes the same way.
        mark = len(rig.kiosk.screen.views)
        await doctor.send(console.SetAvailable(available=False))
        await rig.kiosk.screen.when(lambda view: view.presence.state != "here", "new presence", since=mark)
        assert rig.kiosk.screen.view.screen == "live", rig.refused()
        room = [frame for frame in doctor.got if frame["type"] == "room"][-1]
        assert [card["call"] for card in room["queue"]] == [call.hex()], refused
        await doctor.send(console.HangUp(call=call.hex()))
        await rig.kiosk.screen.until(lambda view: view.screen != "live", "over")


def stored(session) -> list[int]:
    return [
        session.scalar(select(func.count()).select_from(table))
        for table in (Uplink, Consult, Call, CaseFile, Event, AdviceGiven)
    ]


async def test_everything_again_in_any_order_on_any_topic_is_stored_once(rig: Rig):
    async with rig.hub.doctor("anna") as doctor, rig.hub.kiosk("river-2") as other:
        await other.online()
        consult, call = await talk(rig, doctor)
        await doctor.send(console.HangUp(call=call.hex()))
        await rig.kiosk.screen.until(lambda view: view.screen == "idle", "over")
        answer = await doctor.http.post(f"/api/cases/{consult.hex()}/advice", data={"text": "Come on Monday."})
        assert answer.status_code == 201
        await doctor.case(consult, lambda case: bool(case["advice"] and case["advice"][0]["delivered_at"]))
        before, mark = rig.hub.do(stored), len(rig.kiosk.agent.lines)

        said = [publication for publication in rig.hostile.seen if publication.payload]
        moved = [
            publication._replace(topic=publication.topic.replace("hill-1", "river-2")) for publication in said
        ] + [
            publication._replace(topic=publication.topic[:-1] + channel) for publication in said for channel in "scef"
        ]  # fmt: skip
        everything = [*said, *said, *moved]
        random.Random(5).shuffle(everything)
        rig.hostile.say(*(each for each in everything if not each.topic.startswith("tc1/river-2/d")))
        await until_counted(doctor, forged=1, unreadable=10, replayed=1)

        # And then all is as it was, and goes on.
        again, second = await claimed(rig, doctor)
        assert second != call
        assert rig.kiosk.agent.running
        assert not any("advice came" in line.text for line in rig.kiosk.agent.lines[mark:])
        after = rig.hub.do(lambda session: stored_but(session, again.hex()))
        assert after == before
        await doctor.send(console.Decline(call=second.hex()))


def stored_but(session, consult: str) -> list[int]:
    """Without the consult that came since."""
    counts = stored(session)
    for place, column in enumerate(
        (Uplink.consult_id, Consult.id, Call.consult_id, CaseFile.consult_id, Event.consult_id)
    ):
        counts[place] -= session.scalar(select(func.count()).where(column == consult))
    return counts


async def test_a_broker_that_holds_back_and_drops_costs_time_alone(rig: Rig):
    """Every second message is lost, both ways, for as long as a press takes to be heard."""
    lost = 0

    def every_second(publication: Publication) -> list[Publication]:
        nonlocal lost
        lost += 1
        return [] if lost % 2 else [publication]

    async with rig.hub.doctor("anna") as doctor:
        rig.hostile.rule = every_second
        await rig.kiosk.board.press()
        room = await doctor.until("room", lambda frame: bool(frame["queue"]), timeout_s=60)
        rig.hostile.rule = honest
        card = room["queue"][0]
        await doctor.send(console.Claim(call=card["call"]))
        await doctor.until("call", lambda frame: frame["phase"] == "claimed")
        assert lost > 2


async def test_what_is_old_or_said_by_a_revoked_kiosk_is_not_taken(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        consult, call = await kiosk.press()
        await doctor.rings(call)
        accepted = wire.encode(wire.Message(wire.CallAccepted(call), consult, sent_at_ms=now_ms()))
        for late, counted in ((1, 1), (-60_000, 1)):
            payload = kiosk.wrap("c", accepted, expires_at_ms=now_ms() - late)
            await kiosk.publish_raw("c", payload)
            assert (await until_counted(doctor, expired=1))["expired"] == counted
        await kiosk.publish_raw("c", kiosk.wrap("c", accepted, counter=1))
        await until_counted(doctor, replayed=1)
        hub.do(revoke, "hill-1")
        late_note = await kiosk.say(wire.CaseNote("w", 1, text="after"), consult, 3)
        await until_counted(doctor, forged=1)
        assert hub.do(lambda session: session.get(Uplink, ("hill-1", late_note.id.hex()))) is None


def revoke(session, kiosk: str) -> None:
    """In the database alone: what the broker would do about it is not what is tested here."""
    from hub.enrol import revoke_certificates

    revoke_certificates(session, kiosk, now_ms())


async def test_the_brokers_disk_holds_nothing_of_patients(stopped_hub: Hub):
    """Queued for a hub and for a kiosk that are away, and written down by mosquitto."""
    hub, planted = stopped_hub, "Planted Patient 7391"
    hub.broker.start()
    hub.start()
    async with hub.doctor("anna") as doctor:
        consult = wire.new_consult_id()
        async with hub.kiosk("hill-1", session_s=600) as kiosk:
            await kiosk.online()
            await kiosk.receipt(await kiosk.say(wire.CaseNote("w", 1, text="a"), consult, 1))
        await doctor.http.post(f"/api/cases/{consult.hex()}/advice", data={"text": f"{planted} should drink."})
        hub.kill()
        async with hub.kiosk("river-2") as other:
            photo = planted.encode() * 300
            manifest = wire.Manifest(bytes(32), "photo", "image/jpeg", len(photo), 1, planted)
            await other.say(wire.CaseNote("w", 1, text=planted, patient=planted), wire.new_consult_id(), 1)
            await other.say(manifest, wire.new_consult_id(), 1)
            await other.say(wire.Chunk(bytes(32), 0, photo), wire.new_consult_id())
            hub.broker.send_signal(signal.SIGUSR1)
            database = hub.settings.broker_dir / "state" / "mosquitto.db"
            await until(lambda: database.exists() and b"tc1/river-2/u/f" in database.read_bytes(), 10, "written down")
    kept = database.read_bytes()
    assert b"tc1/hill-1/d/e" in kept
    assert b"tc1/river-2/u/e" in kept
    for word in planted.split():
        assert word.encode() not in kept
    assert msgspec.msgpack.encode(planted) not in kept
