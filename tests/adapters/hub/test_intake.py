"""What kiosks send reaches the database once, whatever order, however often, however broken."""

from __future__ import annotations

import hashlib
import random
import resource

import msgspec
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edge_agent.core import wire
from hub.records import CaseFile, Consult, Event, Kiosk, Uplink
from tests.adapters.hub.rig import Hub, TestKiosk, now_ms
from tests.e2e.program import until

NOTE = wire.CaseNote("worker-1", 1, "urgent", ("fever", "cough"), "Hot for three days.", "P. 12")


def file_messages(consult: bytes, data: bytes, role: str = "voice", seq: int = 2, mime: str = "audio/ogg"):
    digest = hashlib.sha256(data).digest()
    manifest = wire.Manifest(digest, role, mime, len(data), now_ms(), "worker-1", 2000)
    chunks = [wire.Chunk(digest, at, data[at : at + wire.CHUNK_BYTES]) for at in range(0, len(data), wire.CHUNK_BYTES)]
    return digest, manifest, chunks


async def send_file(kiosk: TestKiosk, consult: bytes, data: bytes, seq: int = 2) -> bytes:
    digest, manifest, chunks = file_messages(consult, data, seq=seq)
    await kiosk.say(manifest, consult, seq)
    await kiosk.until(wire.Have, lambda have: have.digest == digest)
    for chunk in chunks:
        await kiosk.say(chunk, consult)
    await kiosk.until(wire.Have, lambda have: have.digest == digest and have.complete)
    return digest


async def test_a_case_arrives_and_its_files_are_equal(hub: Hub):
    data = random.Random(1).randbytes(100_000)
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        consult = wire.new_consult_id()
        note = await kiosk.say(NOTE, consult, 1)
        await kiosk.receipt(note)
        case = await doctor.case(consult)
        assert case["card"]["state"] == "receiving"
        assert case["card"]["text"] == NOTE.text
        digest = await send_file(kiosk, consult, data)
        await kiosk.receipt(await kiosk.say(wire.CaseSaved(now_ms(), (digest,)), consult, 3))
        shown = await doctor.until("case", lambda frame: frame["case"]["card"]["state"] == "open")
        assert shown["case"]["card"]["complete"]
        assert shown["case"]["card"]["voice_ms"] == 2000
        await kiosk.until(wire.Progress, lambda progress: progress.step == "seen")
        answer = await doctor.http.get(f"/api/files/{digest.hex()}")
        assert answer.content == data
        assert answer.headers["content-type"] == "audio/ogg"
        part = await doctor.http.get(f"/api/files/{digest.hex()}", headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, data[10:20])


async def test_every_message_twice_and_in_any_order(hub: Hub):
    data = random.Random(2).randbytes(60_000)
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        consult = wire.new_consult_id()
        digest, manifest, chunks = file_messages(consult, data)
        older = wire.CaseNote("worker-1", 1, text="Only the first words.")
        durable = [
            wire.Message(body, consult, wire.new_message_id(), seq, now_ms())
            for seq, body in enumerate(
                [wire.ConsultOpened(now_ms(), "worker-1"), manifest, older, NOTE, wire.CaseSaved(now_ms(), (digest,))],
                1,
            )
        ]
        everything = [*durable, *(wire.Message(chunk, consult) for chunk in chunks)] * 2
        random.Random(3).shuffle(everything)
        for message in everything:
            await kiosk.publish(message.body.CHANNEL, wire.encode(message))
        await kiosk.receipt(*durable)
        for chunk in chunks:  # those that came before the manifest had no place to go
            await kiosk.say(chunk, consult)
        await kiosk.until(wire.Have, lambda have: have.digest == digest and have.complete)
        case = await doctor.case(consult, lambda case: case["card"]["state"] == "open")
        assert case["card"]["text"] == NOTE.text, "the last note counts"
        assert len(case["files"]) == 1
        assert (await doctor.http.get(f"/api/files/{digest.hex()}")).content == data

    def counts(session):
        kinds = dict(session.execute(select(Event.kind, func.count()).group_by(Event.kind)).all())
        return session.scalar(select(func.count()).select_from(Uplink)), kinds

    kept, events = hub.do(counts)
    assert kept == len(durable)
    assert (events["opened"], events["case_saved"]) == (1, 1)


async def test_the_hub_is_killed_between_chunks(hub: Hub):
    data = random.Random(4).randbytes(5 * wire.CHUNK_BYTES)
    async with hub.kiosk("hill-1") as kiosk:
        await kiosk.online()
        consult = wire.new_consult_id()
        digest, manifest, chunks = file_messages(consult, data)
        told = await kiosk.say(manifest, consult, 1)
        await kiosk.receipt(told)
        for chunk in chunks[:3]:
            await kiosk.say(chunk, consult)
            await kiosk.say(manifest, consult, 1, told.id)  # it asks
            await kiosk.until(wire.Have, lambda have, end=chunk.offset + 1: any(b >= end for _, b in have.ranges))
            hub.kill()
            at = len(kiosk.got)
            hub.start()
            # the hub says by itself what it still holds
            await kiosk.until(wire.Have, lambda have, end=chunk.offset + 1: any(b >= end for _, b in have.ranges), at)
        for chunk in chunks[3:]:
            await kiosk.say(chunk, consult)
        await kiosk.until(wire.Have, lambda have: have.complete)
    path = hub.settings.data_dir / "files" / "hill-1" / digest.hex()
    assert path.read_bytes() == data
    assert not path.with_name(f"{digest.hex()}.part").exists()


async def test_a_file_in_two_consults_comes_once_and_is_told_to_both(hub: Hub):
    data = random.Random(8).randbytes(3 * wire.CHUNK_BYTES)
    async with hub.kiosk("hill-1") as kiosk:
        await kiosk.online()
        first, second = wire.new_consult_id(), wire.new_consult_id()
        digest, manifest, chunks = file_messages(first, data)
        await kiosk.say(manifest, first, 1)
        of_the_first = kiosk.file_keys.pop(digest)
        await kiosk.say(msgspec.structs.replace(manifest, key=wire.new_file_key()), second, 1)
        kiosk.file_keys[digest] = of_the_first
        at = len(kiosk.got)
        for chunk in chunks:
            await kiosk.say(chunk, first)
        for consult in (first, second):
            await kiosk.until_message(wire.Have, lambda m, of=consult: m.consult == of and m.body.complete, at)
        assert sum(isinstance(m.body, wire.Have) and m.body.complete for m in kiosk.got) == 2


async def test_the_manifest_that_is_said_again_has_the_key(hub: Hub):
    """The same picture taken into one consult twice has two manifests, each with a key of its own."""
    data = random.Random(9).randbytes(2 * wire.CHUNK_BYTES)
    async with hub.kiosk("hill-1") as kiosk:
        await kiosk.online()
        consult = wire.new_consult_id()
        digest, manifest, chunks = file_messages(consult, data)
        first = await kiosk.say(manifest, consult, 1)
        key = kiosk.file_keys.pop(digest)
        await kiosk.receipt(await kiosk.say(msgspec.structs.replace(manifest, key=wire.new_file_key()), consult, 2))
        kiosk.file_keys[digest] = key
        at = len(kiosk.got)
        await kiosk.say(manifest, consult, 1, first.id)
        await kiosk.until(wire.Have, lambda have: not have.complete, at)
        for chunk in chunks:
            await kiosk.say(chunk, consult)
        await kiosk.until(wire.Have, lambda have: have.complete, at)


async def test_wrong_bytes_are_asked_for_again(hub: Hub):
    data = bytes(40_000)
    async with hub.kiosk("hill-1") as kiosk:
        await kiosk.online()
        consult = wire.new_consult_id()
        digest, manifest, chunks = file_messages(consult, data)
        await kiosk.say(manifest, consult, 1)
        await kiosk.until(wire.Have)
        for chunk in chunks:
            await kiosk.say(wire.Chunk(digest, chunk.offset, b"\x01" * len(chunk.data)), consult)
        at = len(kiosk.got)
        await kiosk.until(wire.Have, lambda have: have.ranges == () and not have.complete, at)
        for chunk in chunks:
            await kiosk.say(chunk, consult)
        await kiosk.until(wire.Have, lambda have: have.complete, at)


async def test_a_kiosk_cannot_touch_anothers_consult(hub: Hub):
    async with hub.kiosk("hill-1") as owner, hub.kiosk("river-2") as other, hub.doctor("anna") as doctor:
        await owner.online()
        await other.online()
        consult, call = await owner.press()
        await doctor.rings(call)
        await other.say(wire.CallEnded(call, "cancelled", 0, 1), consult, 1)
        await other.say(wire.CaseNote("x", 1, text="not yours"), consult, 2)
        own_consult = wire.new_consult_id()
        await other.say(wire.CallRequested(call, 1, True), own_consult, 3)
        await other.say(wire.CallAccepted(call), consult)
        await other.receipt(await other.say(wire.ConsultOpened(1, "patient"), own_consult, 4))
        case = await doctor.case(consult)
        assert case["card"]["text"] == ""
        assert case["calls"][0]["outcome"] is None
        assert not case["calls"][0]["emergency"]
        health = (await doctor.http.get("/health")).json()
        assert health["refused"]["foreign_consult"] == 4


async def test_garbage_is_counted_and_the_hub_goes_on(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        whole = wire.encode(wire.Message(NOTE, wire.new_consult_id()))
        newer = bytearray(whole)
        newer[1] = wire.VERSION + 1
        await kiosk.publish_raw("e", b"")
        await kiosk.publish_raw("e", whole)  # in the clear
        for payload in (b"", b"\xc1", whole[:-3], b"[" * 5000, bytes([0x96] * 60), wire.encode(wire.Message(NOTE))):
            await kiosk.publish("e", payload)
        await kiosk.publish("c", whole)  # on a channel that is not its own
        for _ in range(3):
            await kiosk.publish("e", bytes(newer))
        await kiosk.publish("e", wire.encode(wire.Message(wire.Progress("seen", 1), wire.new_consult_id())))
        # a name of 2^63 and a null byte, which databases take ill
        await kiosk.say(wire.CallEnded(wire.new_message_id(), "answered", 2**63, 2**63), wire.new_consult_id(), 1)
        await kiosk.say(wire.CaseNote("w", 1, text="a\x00b"), wire.new_consult_id(), 1)
        await kiosk.receipt(await kiosk.say(NOTE, wire.new_consult_id(), 1))
        refused = (await doctor.http.get("/health")).json()["refused"]
        assert refused["malformed"] >= 7
        assert refused["unknown"] == 3
        assert refused["forged"] == 2
    log = hub.log.read_text()
    assert log.count("unknown message ignored") == 1
    assert NOTE.text not in log, "no patient data in the log"
    assert hub.running


async def test_ten_megabytes_do_not_pass_the_broker(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk:
        await kiosk.online()
        await kiosk._client.publish(f"tc1/{kiosk.id}/u/e", bytes(10 * 1024 * 1024), qos=0)
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        await kiosk.receipt(await kiosk.say(NOTE, wire.new_consult_id(), 1))
        assert "malformed" not in (await doctor.http.get("/health")).json()["refused"]


async def test_a_clock_that_is_wrong_is_not_shown(hub: Hub):
    year_1970 = 5_000
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        status = wire.Status(online=True, boot=kiosk.boot, clock_trusted=False)
        await kiosk.publish("s", wire.encode(wire.Message(status)), retain=True)
        await kiosk.until(wire.Presence)
        for trusted, opened_at in ((False, now_ms() - 60_000), (True, year_1970)):
            consult = wire.new_consult_id()
            if trusted:
                await kiosk.online()
            message = wire.Message(wire.ConsultOpened(opened_at, "patient"), consult, sent_at_ms=opened_at)
            await kiosk.publish("e", wire.encode(message))
            await kiosk.receipt(message)
            shown = (await doctor.case(consult))["card"]["opened_at"]
            assert abs(shown - now_ms()) < 30_000
            assert hub.do(kiosk_opened_at, consult.hex()) == opened_at
        days_ago = now_ms() - 3 * 86_400_000
        waited = wire.new_consult_id()
        await kiosk.receipt(await kiosk.say(wire.ConsultOpened(days_ago, "patient"), waited, 1))
        assert (await doctor.case(waited))["card"]["opened_at"] == days_ago


def kiosk_opened_at(session: Session, consult: str) -> int:
    return session.get_one(Consult, consult).kiosk_opened_at


async def test_a_second_unit_with_the_same_id_is_said(hub: Hub):
    boots = [b"a" * 8, b"b" * 8]
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        for boot in (*boots, boots[0]):
            kiosk.boot = boot
            await kiosk.online()
        await kiosk.receipt(await kiosk.say(NOTE, wire.new_consult_id(), 1))
        assert (await doctor.http.get("/health")).json()["refused"]["twin_kiosk"] == 1
    assert "two kiosks use this id" in hub.log.read_text()


async def test_a_voice_reply_reaches_the_kiosk_in_pieces(hub: Hub):
    voice = random.Random(5).randbytes(9 * wire.CHUNK_BYTES + 5)
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        consult = wire.new_consult_id()
        await kiosk.receipt(await kiosk.say(NOTE, consult, 1))
        answer = await doctor.http.post(
            f"/api/cases/{consult.hex()}/advice",
            data={"text": "Come on Monday."},
            files={"voice": ("reply.webm", voice, "audio/webm;codecs=opus")},
        )
        assert answer.status_code == 201, answer.text
        advice = await kiosk.until(wire.Advice)
        assert advice.advice.hex() == answer.json()["advice"]
        manifest = await kiosk.until(wire.Manifest)
        assert (manifest.digest, manifest.size, manifest.role) == (advice.reply, len(voice), "reply")
        received = bytearray(manifest.size)
        await kiosk.say(wire.Have(manifest.digest, (), False), consult)
        # nothing is said in between: the hub goes on by itself
        for at in range(0, len(voice), wire.CHUNK_BYTES):
            chunk = await kiosk.until(wire.Chunk, lambda chunk, at=at: chunk.offset == at)
            received[at : at + len(chunk.data)] = chunk.data
        assert bytes(received) == voice
        await kiosk.say(wire.Have(manifest.digest, ((0, len(voice)),), True), consult)
        case = await doctor.case(consult)
        assert case["advice"][0]["reply"] == manifest.digest.hex()
        assert [file["role"] for file in case["files"]] == ["reply"]


async def test_at_most_a_few_chunks_are_under_way(hub: Hub):
    voice = random.Random(6).randbytes(8 * wire.CHUNK_BYTES)
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        consult = wire.new_consult_id()
        await kiosk.receipt(await kiosk.say(NOTE, consult, 1))
        await doctor.http.post(
            f"/api/cases/{consult.hex()}/advice", files={"voice": ("r.webm", voice, "audio/webm")}
        )  # fmt: skip
        digest = (await kiosk.until(wire.Manifest)).digest
        await kiosk.say(wire.Have(digest, (), False), consult)
        await kiosk.until(wire.Chunk, lambda chunk: chunk.offset == 2 * wire.CHUNK_BYTES)
        await kiosk.receipt(await kiosk.say(NOTE, wire.new_consult_id(), 1))
        offsets = [message.body.offset for message in kiosk.got if isinstance(message.body, wire.Chunk)]
        assert offsets == [0, wire.CHUNK_BYTES, 2 * wire.CHUNK_BYTES]
        await kiosk.say(wire.Have(digest, ((0, 2 * wire.CHUNK_BYTES),), False), consult)
        await kiosk.until(wire.Chunk, lambda chunk: chunk.offset == 4 * wire.CHUNK_BYTES)


class TestFullDisk:
    @pytest.fixture
    def full_at_bytes(self) -> int:
        return 600_000

    async def test_a_full_disk_is_said_once_and_nothing_is_lost(self, stopped_hub: Hub, full_at_bytes: int):
        """A limit on the size of files is what a full disk is to the hub: no write beyond it."""
        hub = stopped_hub
        hub.broker.start()
        hub.limits = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (full_at_bytes, full_at_bytes))
        hub.start()
        data = random.Random(7).randbytes(full_at_bytes + 200_000)
        async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
            await kiosk.online()
            consult = wire.new_consult_id()
            digest, manifest, chunks = file_messages(consult, data)
            await kiosk.say(manifest, consult, 1)
            await kiosk.until(wire.Have)
            for chunk in chunks:
                await kiosk.publish("f", wire.encode(wire.Message(chunk, consult)))
            while "intake stopped" not in hub.log.read_text():
                await (await doctor.http.get("/health")).aread()
            waiting = await kiosk.say(NOTE, wire.new_consult_id(), 1)
            assert hub.running
            assert "disk is full" in hub.log.read_text()
            assert hub.log.read_text().count("intake stopped") == 1
            assert not any(
                isinstance(message.body, wire.Receipt) and waiting.id in message.body.ids for message in kiosk.got
            )
            # room is made
            hub.kill()
            hub.limits = None
            hub.start()
            await kiosk.receipt(waiting)
            await kiosk.until(wire.Have, lambda have: have.digest == digest and have.complete)
        assert hub.do(lambda session: session.scalar(select(func.count()).select_from(CaseFile))) == 1


async def test_what_a_consult_took_of_a_metered_link_is_shown_with_it_and_nobody_tells_of_another_s(hub: Hub):
    async with hub.kiosk("hill-1") as kiosk, hub.kiosk("river-2") as other, hub.doctor("anna") as doctor:
        await kiosk.online()
        await other.online()
        consult = wire.new_consult_id()
        await kiosk.receipt(await kiosk.say(NOTE, consult, 1))
        told = wire.Spent(2_000_000, 3_000_000, month_cost=60.0, currency="KES", consults=((consult, 1_240_000, 24.8),))
        await kiosk.say(told)
        await until(lambda: hub.do(lambda session: session.get(Kiosk, "hill-1").spent), 10, "it is told")
        lie = ((consult, 9, 9.0), (wire.new_consult_id(), 9, 9.0))
        await other.say(msgspec.structs.replace(told, consults=lie))
        await until(lambda: hub.do(lambda session: session.get(Kiosk, "river-2").spent), 10, "the other one's too")
        case = await doctor.case(consult)
        assert (case["link_bytes"], case["link_cost"], case["link_currency"]) == (1_240_000, 24.8, "KES")
