"""Messages left offline, and the doctor's answers: on the disk first, delivered whole, heard back; and kills."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

from edge_agent.advice import READ_S
from edge_agent.core import wire
from tests.adapters.agent.rig import Hub
from tests.kiosk_store import found_in, path_of, read_file, read_rows


async def offline(hub, kiosk):
    await kiosk.online()
    await hub.stop()
    await kiosk.screen.until(lambda view: not view.online, "offline")


async def leave_message(kiosk) -> str:
    """By the button alone."""
    mark = len(kiosk.screen.views)
    await kiosk.board.press()
    await kiosk.screen.when(lambda view: view.draft is not None and view.draft.elapsed_ms > 0, "recording", since=mark)
    await kiosk.board.press()
    await kiosk.screen.until(lambda view: view.draft is not None and view.draft.step == "photo", "the photo's turn")
    await kiosk.board.press()
    await kiosk.screen.until(lambda view: view.draft is not None and view.draft.step == "complaint", "what hurts")
    await kiosk.screen.act("complaint", "fever")
    for step in ("urgency", "review"):
        await kiosk.board.press()
        await kiosk.screen.until(lambda view, step=step: view.draft is not None and view.draft.step == step, step)
    await kiosk.board.press()
    return (await kiosk.screen.until(lambda view: view.screen == "saved", "saved")).saved_consult


def stored(kiosk) -> dict[str, bytes]:
    """What its card holds, by digest."""
    digests = [row["digest"] for row in read_rows(kiosk.state_dir, "SELECT digest FROM content")]
    return {digest.hex(): read_file(kiosk.state_dir, digest) for digest in digests}


async def delivered(hub, kiosk, consult: bytes) -> None:
    """Everything of the case is at the hub, byte for byte, and the kiosk knows it."""
    saved = await hub.until_message(wire.CaseSaved, lambda body: True)
    assert saved.consult == consult
    assert len(saved.body.files) == 2
    await kiosk.screen.until(lambda view: view.saved_step == "received", "received", 20.0)
    assert {digest.hex(): data for digest, data in hub.complete.items()} == stored(kiosk)
    assert all(hashlib.sha256(data).digest() == digest for digest, data in hub.complete.items())
    durable = [message for message in hub.got if message.seq and message.consult == consult]
    assert {message.seq for message in durable} == set(range(1, 6))
    assert len({message.id for message in durable}) == 5  # doubled on the wire perhaps, never in the outbox
    kinds = {type(message.body) for message in durable}
    assert kinds == {wire.ConsultOpened, wire.CaseNote, wire.Manifest, wire.CaseSaved}


async def test_a_message_left_offline_is_delivered(hub, kiosk):
    await offline(hub, kiosk)
    consult = bytes.fromhex(await leave_message(kiosk))
    files = stored(kiosk)
    assert len(files) == 2
    # Who took the card now, while the agent runs, would find nothing of it.
    assert found_in(kiosk.state_dir, [b"fever", *(data[:32] for data in files.values())]) == []
    await hub.start()
    await delivered(hub, kiosk, consult)
    note = hub.all(wire.CaseNote)[-1]
    assert (note.complaints, note.entered_by) == (("fever",), "patient")


async def test_killed_after_saved_it_is_delivered(hub, kiosk):
    await offline(hub, kiosk)
    consult = bytes.fromhex(await leave_message(kiosk))
    await kiosk.agent.kill()
    await hub.start()
    await kiosk.start()
    await hub.until(wire.CaseSaved)
    await hub.until(wire.Chunk)
    files = stored(kiosk)
    assert len(files) == 2
    for digest in files:
        while digest not in {key.hex() for key in hub.complete}:
            await hub.until(wire.Chunk, since=len(hub.got))
    assert {digest.hex(): data for digest, data in hub.complete.items()} == files
    assert {message.consult for message in hub.got if message.seq} == {consult}


async def test_a_draft_survives_a_kill(hub, kiosk):
    await offline(hub, kiosk)
    await kiosk.board.press()
    await kiosk.screen.until(lambda view: view.draft is not None and view.draft.elapsed_ms > 0, "recording")
    await kiosk.board.press()
    await kiosk.screen.until(lambda view: view.draft is not None and view.draft.voice_ms == 2000, "the voice is kept")
    await kiosk.screen.act("complaint", "cough")
    await kiosk.screen.until(lambda view: view.draft is not None and view.draft.complaints == ("cough",), "a complaint")
    await kiosk.screen.act("urgency", "soon")
    await kiosk.screen.until(lambda view: view.draft is not None and view.draft.urgency == "soon", "urgency")
    await kiosk.agent.kill()  # the tap before this one is on the disk, this one may be
    await kiosk.start()
    view = await kiosk.screen.until(lambda view: view.draft is not None and view.screen == "draft", "the draft again")
    assert (view.draft.voice_ms, view.draft.complaints) == (2000, ("cough",))
    await kiosk.screen.act("save")
    await kiosk.screen.until(lambda view: view.screen == "saved", "saved")
    await hub.start()
    assert len((await hub.until(wire.CaseSaved)).files) == 1


async def test_the_broker_dies_halfway_through_a_file(broker, hub, kiosk):
    await offline(hub, kiosk)
    consult = bytes.fromhex(await leave_message(kiosk))
    hub.takes = False  # it hears and does not answer
    await hub.start()
    await hub.until(wire.Manifest)
    hub.takes = True
    await broker.program.kill()
    await kiosk.screen.until(lambda view: not view.online, "offline")
    await broker.start()
    await delivered(hub, kiosk, consult)


async def test_an_empty_message_is_dropped(hub, kiosk):
    await offline(hub, kiosk)
    await kiosk.screen.act("press")
    await kiosk.screen.until(lambda view: view.screen == "draft", "the guided message")
    await kiosk.screen.act("step", "review")
    await kiosk.screen.until(lambda view: view.draft is not None and view.draft.step == "review", "review")
    await kiosk.screen.act("save")
    await kiosk.screen.until(lambda view: view.screen == "idle", "idle")
    await hub.start()
    await hub.until(wire.ConsultOpened)
    assert not hub.all(wire.CaseSaved)


async def with_renditions(kiosk) -> None:
    await kiosk.agent.stop()
    kiosk.agent.env["TELECONSULT_TEST_RENDITIONS"] = "1"
    await kiosk.start()


async def test_photos_go_in_rising_quality_and_the_original_when_asked(hub, kiosk):
    await with_renditions(kiosk)
    await offline(hub, kiosk)
    consult = bytes.fromhex(await leave_message(kiosk))
    assert sorted(len(data) for data in stored(kiosk).values()) == [2_000, 40_000, 60_000, 200_000]
    await hub.start()
    await kiosk.screen.until(lambda view: view.saved_step == "received", "received", 20.0)
    voice, thumbnail, photo = hub.all(wire.Manifest)
    assert [(each.role, each.rendition, each.of) for each in (voice, thumbnail, photo)] == [
        ("voice", "", b""), ("photo", "thumbnail", photo.digest), ("photo", "", b""),
    ]  # fmt: skip
    assert photo.original_bytes == 200_000
    assert hub.all(wire.CaseSaved)[-1].files == (voice.digest, photo.digest), "what the case is complete with"
    assert {len(data) for data in hub.complete.values()} == {2_000, 40_000, 60_000}, "nobody has asked for more"

    sent = await hub.send(wire.FileWanted(photo.digest), consult, 1)
    await hub.until(wire.Receipt, lambda body: sent.id in body.ids)
    original = await hub.until(wire.Manifest, lambda body: body.rendition == "original")
    assert (original.of, original.size) == (photo.digest, 200_000)
    while original.digest not in hub.complete:
        await hub.until(wire.Chunk, since=len(hub.got))
    assert hub.complete[original.digest] == stored(kiosk)[original.digest.hex()]
    await kiosk.screen.until(lambda view: view.saved_step == "received", "what was received stays so")

    path_of(kiosk.state_dir, original.digest).unlink()  # as when room was short
    sent = await hub.send(wire.FileWanted(photo.digest), consult, 2)
    await hub.until(wire.Receipt, lambda body: sent.id in body.ids)
    assert (await hub.until(wire.FileGone)).digest == photo.digest


async def test_a_discarded_photo_takes_its_renditions_with_it(hub, kiosk):
    await with_renditions(kiosk)
    await offline(hub, kiosk)
    await kiosk.screen.act("press")
    await kiosk.screen.until(lambda view: view.screen == "draft", "the guided message")
    await kiosk.screen.act("step", "photo")
    await kiosk.screen.until(lambda view: view.draft is not None and view.draft.step == "photo", "the photo's turn")
    await kiosk.screen.act("photo")
    view = await kiosk.screen.until(lambda view: view.draft is not None and len(view.draft.photos) == 1, "a photo")
    photo = view.draft.photos[0]
    sizes = {2_000, 60_000, 200_000}
    assert {len(data) for data in stored(kiosk).values()} >= sizes
    await kiosk.screen.act("discard_photo", photo)
    await kiosk.screen.until(lambda view: view.draft is not None and not view.draft.photos, "no photo")
    assert not {len(data) for data in stored(kiosk).values()} & sizes


async def test_seen_and_closed_are_shown(hub, kiosk):
    await offline(hub, kiosk)
    consult = bytes.fromhex(await leave_message(kiosk))
    await hub.start()
    await delivered(hub, kiosk, consult)
    for seq, step in enumerate(("seen", "closed"), 1):
        sent = await hub.send(wire.Progress(step, 1), consult, seq)
        await hub.until(wire.Receipt, lambda body, sent=sent: sent.id in body.ids)
        await kiosk.screen.until(lambda view, step=step: view.saved_step == step, step)


# --- the doctor's answer


@pytest.fixture
async def case(hub: Hub, kiosk) -> bytes:
    await offline(hub, kiosk)
    consult = bytes.fromhex(await leave_message(kiosk))
    await hub.start()
    await delivered(hub, kiosk, consult)
    await kiosk.screen.until(lambda view: view.screen == "idle", "idle")
    return consult


async def test_advice_with_a_voice_reply_is_played_and_heard_back(hub, kiosk, case):
    voice = random.Random(1).randbytes(70_000)
    digest = hashlib.sha256(voice).digest()
    advice = wire.Advice(b"a" * 8, "Dr A", 1_700_000_000_000, "Drink much.", digest)
    sent = await hub.send(advice, case, 1)
    await hub.until(wire.Receipt, lambda body: sent.id in body.ids)
    await kiosk.board.until_light("waiting")
    view = await kiosk.screen.until(lambda view: bool(view.advice), "the advice waits")
    assert (view.advice[0].text, view.advice[0].voice_arrived) == ("Drink much.", False)
    await hub.send(wire.Manifest(digest, "reply", "audio/ogg", len(voice), 0, "Dr A"), case, 2)
    asked = await hub.until(wire.Have)
    assert asked == wire.Have(digest, (), False)
    pieces = [(offset, voice[offset : offset + 16_384]) for offset in range(0, len(voice), 16_384)]
    for offset, data in [*reversed(pieces), pieces[0]]:
        await hub.send(wire.Chunk(digest, offset, data), case)
    await hub.until(wire.Have, lambda body: body.complete)
    await kiosk.screen.until(lambda view: view.advice[0].voice_arrived, "the voice is there")
    assert read_file(kiosk.state_dir, digest) == voice
    await kiosk.screen.act("show_advice", advice.advice.hex())
    await kiosk.screen.until(lambda view: view.screen == "advice", "the advice")
    heard = await hub.until_message(wire.AdviceHeard)
    assert (heard.consult, heard.body.advice) == (case, advice.advice)
    await kiosk.screen.act("dismiss")
    await kiosk.board.until_light("ready")
    await kiosk.screen.until(lambda view: not view.advice, "nothing waits")


async def test_a_reply_that_stops_halfway_goes_on_after_a_kill(hub, kiosk, case):
    voice = random.Random(2).randbytes(40_000)
    digest = hashlib.sha256(voice).digest()
    await hub.send(wire.Manifest(digest, "reply", "audio/ogg", len(voice), 0, "Dr A"), case, 1)
    await hub.until(wire.Have)
    await hub.send(wire.Chunk(digest, 0, voice[:10_000]), case)
    await kiosk.agent.kill()
    mark = len(hub.got)
    await kiosk.start()
    have = await hub.until(wire.Have, since=mark)
    assert not have.complete
    # The first may have been said again by the broker after the kill: then another in its place counts for nothing.
    await hub.send(wire.Chunk(digest, 10_000, b"x" * 10_000), case)  # damaged on its way
    for offset in (0, 20_000, 30_000):
        await hub.send(wire.Chunk(digest, offset, voice[offset : offset + 10_000]), case)
    await kiosk.agent.until_line("reply damaged")
    await hub.until(wire.Have, lambda body: not body.ranges, since=mark + 1)
    for offset in (0, 10_000, 20_000, 30_000):
        await hub.send(wire.Chunk(digest, offset, voice[offset : offset + 10_000]), case)
    await hub.until(wire.Have, lambda body: body.complete, since=mark)
    assert read_file(kiosk.state_dir, digest) == voice


async def test_advice_is_taken_once_however_often_it_comes(hub, kiosk, case):
    advice = wire.Advice(b"a" * 8, "Dr A", 1, "Rest.")
    for _ in range(3):
        sent = await hub.send(advice, case, 1)
        await hub.until(wire.Receipt, lambda body, sent=sent: sent.id in body.ids)
    await kiosk.agent.kill()
    await kiosk.start()
    view = await kiosk.screen.until(lambda view: bool(view.advice), "the advice waits")
    assert len(view.advice) == 1
    await kiosk.board.until_light("waiting")


async def test_text_that_was_read_and_closed_was_heard(hub, kiosk, case):
    """Where nothing speaks, a hand that closes what it has read is enough."""
    await kiosk.agent.stop()
    kiosk.agent.env["PATH"] = ""  # no espeak-ng
    await kiosk.start()
    await kiosk.online()
    await hub.send(wire.Advice(b"a" * 8, "Dr A", 1, "Rest."), case, 1)
    view = await kiosk.screen.until(lambda view: bool(view.advice), "the advice waits")
    assert "speech_missing" in {notice.code for notice in view.notices}
    await kiosk.screen.act("show_advice", (b"a" * 8).hex())
    await kiosk.screen.until(lambda view: view.screen == "advice", "the advice")
    await asyncio.sleep(READ_S + 0.2)  # the reader's time
    assert not hub.all(wire.AdviceHeard)
    await kiosk.screen.act("dismiss")
    await hub.until(wire.AdviceHeard)
