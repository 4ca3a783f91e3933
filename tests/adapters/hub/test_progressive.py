"""A case that comes bit by bit: readable with its note alone, photos in rising quality, and files that are not what
they are called."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import struct

import msgspec
import numpy as np
import pytest

from edge_agent.clock import KioskClock
from edge_agent.config import BrokerSection, KioskSettings
from edge_agent.core import trust, wire
from edge_agent.media.renditions import renditions
from edge_agent.mqtt import HubLink
from edge_agent.sealing import Sealing
from hub import console
from tests.adapters.hub.rig import Hub, TestDoctor, TestKiosk, now_ms
from tests.adapters.hub.test_handshake_cost import Counter, Listener

OPENABLE_BYTES = 2048


async def send_file(kiosk: TestKiosk, consult: bytes, manifest: wire.Manifest, data: bytes, seq: int) -> None:
    await kiosk.receipt(await kiosk.say(manifest, consult, seq))
    since = len(kiosk.got)
    for at in range(0, len(data), wire.CHUNK_BYTES):
        await kiosk.say(wire.Chunk(manifest.digest, at, data[at : at + wire.CHUNK_BYTES]), consult)
    await kiosk.until(wire.Have, lambda have: have.digest == manifest.digest and have.complete, since)


def photo_of(data: bytes, mime: str = "image/jpeg", **more: object) -> wire.Manifest:
    return wire.Manifest(hashlib.sha256(data).digest(), "photo", mime, len(data), now_ms(), "worker-1", **more)  # type: ignore[arg-type]


def pictures() -> dict[str, wire.Manifest | bytes]:
    y, x = np.mgrid[0:1200, 0:1600]
    noise = np.random.default_rng(2).normal(0, 8, (1200, 1600, 3))
    scene = np.stack([90 + x / 20, 120 + y / 20, 200 - x / 30], axis=-1) + noise
    return {each.name: each.data for each in renditions(np.clip(scene, 0, 255).astype(np.uint8))}


async def photo_until(doctor: TestDoctor, consult: bytes, wanted) -> dict:
    def right(frame) -> bool:
        case = frame["case"]
        return case["card"]["consult"] == consult.hex() and any(wanted(file) for file in case["files"])

    frame = await doctor.until("case", right)
    return next(file for file in frame["case"]["files"] if wanted(file))


def has(file: dict, name: str) -> bool:
    return any(each["name"] == name and each["complete"] for each in file["renditions"])


async def test_a_photo_comes_in_rising_quality_and_its_original_when_asked(hub: Hub):
    made = pictures()
    assert set(made) == {"", "thumbnail", "preview", "original"}
    photo = photo_of(made[""], original_bytes=len(made["original"]))
    consult = wire.new_consult_id()
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        await kiosk.receipt(await kiosk.say(wire.CaseNote("worker-1", now_ms(), text="A rash."), consult, 1))
        await doctor.case(consult)
        for seq, name in enumerate(("thumbnail", "preview"), 2):
            small = photo_of(made[name], "image/webp", of=photo.digest, rendition=name)
            await send_file(kiosk, consult, small, made[name], seq)
            card = await photo_until(doctor, consult, lambda file, name=name: has(file, name))
            assert (card["digest"], card["complete"], card["size"]) == (photo.digest.hex(), False, 0)
            answer = await doctor.http.get(f"/api/files/{small.digest.hex()}")
            assert (answer.headers["content-type"], answer.content) == ("image/webp", made[name])
        await send_file(kiosk, consult, photo, made[""], 4)
        await kiosk.say(wire.CaseSaved(now_ms(), (photo.digest,)), consult, 5)
        card = await photo_until(doctor, consult, lambda file: file["complete"])
        assert [each["name"] for each in card["renditions"]] == ["thumbnail", "preview"]
        assert card["original_bytes"] == len(made["original"])
        case = await doctor.case(consult, lambda case: case["card"]["complete"])
        assert case["card"]["photos"] == 1

        ask = console.AskOriginal(consult=consult.hex(), digest=photo.digest.hex())
        await doctor.send(ask)
        await kiosk.until(wire.FileWanted, lambda body: body.digest == photo.digest)
        await doctor.send(ask)  # twice is once
        original = photo_of(made["original"], of=photo.digest, rendition="original")
        await send_file(kiosk, consult, original, made["original"], 6)
        card = await photo_until(doctor, consult, lambda file: has(file, "original"))
        assert card["original_asked_at"] > 0
        assert sum(isinstance(message.body, wire.FileWanted) for message in kiosk.got) == 1

        await kiosk.receipt(await kiosk.say(wire.FileGone(photo.digest), consult, 7))
        await photo_until(doctor, consult, lambda file: file["original_gone"])
        since = len(doctor.got)
        await doctor.send(ask)
        assert (await doctor.until("refused", since=since))["code"] == "gone"


async def test_what_is_no_picture_or_a_bomb_is_shown_as_damaged_and_harms_nothing(hub: Hub):
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 60_000, 60_000, 8, 2, 0, 0, 0) + bytes(99)
    script = b"<html><script>alert(1)</script></html>"
    good = pictures()["thumbnail"]
    consult = wire.new_consult_id()
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        for seq, (data, mime) in enumerate([(bomb, "image/png"), (script, "image/jpeg"), (good, "image/webp")], 1):
            await send_file(kiosk, consult, photo_of(data, mime), data, seq)
        case = await doctor.case(consult, lambda case: all(file["complete"] for file in case["files"]))
        damage = {file["digest"]: file["damage"] for file in case["files"]}
        assert damage == {
            hashlib.sha256(bomb).hexdigest(): "too_large",
            hashlib.sha256(script).hexdigest(): "no_picture",
            hashlib.sha256(good).hexdigest(): "",
        }
        for data in (bomb, script):
            answer = await doctor.http.get(f"/api/files/{hashlib.sha256(data).hexdigest()}")
            assert answer.headers["content-type"] == "application/octet-stream"
            assert answer.headers["content-disposition"].startswith("attachment")
        health = (await doctor.http.get("/health")).json()
        assert health["refused"]["damaged_picture"] == 2


async def test_a_manifest_that_lies_about_sizes_harms_nothing(hub: Hub):
    data = random.Random(1).randbytes(5_000)
    consult = wire.new_consult_id()
    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        await kiosk.online()
        short = msgspec.structs.replace(photo_of(data), size=4_000)
        await kiosk.receipt(await kiosk.say(short, consult, 1))
        for at in (0, 2_500):  # the second goes beyond what was announced
            await kiosk.say(wire.Chunk(short.digest, at, data[at : at + 2_500]), consult)
        long = photo_of(data)  # the same file by another size
        await kiosk.say(long, consult, 2)
        voice = msgspec.structs.replace(photo_of(b"x" * 10), role="voice", of=short.digest, rendition="thumbnail")
        await kiosk.say(voice, consult, 3)
        huge = msgspec.structs.replace(photo_of(b"y"), size=2**32)
        await kiosk.say(huge, consult, 4)
        await kiosk.receipt(await kiosk.say(wire.CaseNote("worker-1", now_ms(), text="Still here."), consult, 5))
        case = await doctor.case(consult)
        assert case["card"]["text"] == "Still here."
        [photo] = case["files"]
        assert (photo["size"], photo["received"], photo["complete"]) == (4_000, 2_500, False)
        health = (await doctor.http.get("/health")).json()
        assert health["refused"]["malformed"] == 4


async def test_a_case_with_text_and_measurements_is_open_for_two_kilobytes(
    hub: Hub, capsys: pytest.CaptureFixture[str]
):
    """On the wire of a connection that stands: TLS, MQTT, topics, signatures and seals, both ways, with
    acknowledgements and receipts; not TCP's and IP's headers."""
    text = (
        "Boy, 4 years. Fever for three days, coughs at night, drinks, eats little. T 38.9, P 124, RR 38, SpO2 95, "
        "14.2 kg. Given: paracetamol 200 mg at 9.00. No rash, no stiff neck. Mother asks whether to go to hospital."
    )
    identity, listener = hub.identity("hill-1"), Listener()
    counter = Counter(hub.settings.broker.listen_port)
    async with counter.listening() as port, hub.doctor("anna") as doctor:
        clock = KioskClock(b"")
        own = trust.OwnKeys(identity.signing_key, identity.seal_key)
        far = trust.FarKeys(identity.hub_signing_key, identity.hub_seal_key)
        sealing = Sealing(identity.kiosk, own, far, clock, b"")
        settings = KioskSettings(broker=BrokerSection(host="127.0.0.1", port=port))
        receipts: asyncio.Queue[bytes] = asyncio.Queue()

        def take(topic: str, payload: bytes) -> None:
            with contextlib.suppress(trust.TrustError):
                body = sealing.open(topic, payload).body
                for id in body.ids if isinstance(body, wire.Receipt) else ():
                    receipts.put_nowait(id)

        listener.link_message = take  # type: ignore[method-assign]
        link = HubLink(settings, identity, clock, sealing, listener, wire.Status(online=False))
        running = asyncio.create_task(link.run())
        try:
            async with asyncio.timeout(60):
                await listener.ups.get()
                consult, stamp = wire.new_consult_id(), clock.stamp()
                counted = counter.connections[-1]
                before = [len(way) for way in counted]
                bodies = [
                    wire.ConsultOpened(now_ms(), "worker"),
                    wire.CaseNote("worker", now_ms(), "urgent", ("fever", "cough", "child"), text, "A. 1204"),
                ]
                messages = [
                    wire.Message(body, consult, seq=seq, sent_at_ms=now_ms(), stamp=stamp)
                    for seq, body in enumerate(bodies, 1)
                ]
                for message in messages:
                    await link.publish(message)
                waiting = {message.id for message in messages}
                while waiting:
                    waiting.discard(await receipts.get())
                spent = [len(way) - start for way, start in zip(counted, before, strict=True)]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        case = await doctor.case(consult)
    assert case["card"]["text"] == text
    figures = f"bytes to an openable case: {sum(spent)}, up {spent[0]}, down {spent[1]}; its text has {len(text)}"
    with capsys.disabled():
        print(f"\n{figures}")
    assert sum(spent) <= OPENABLE_BYTES, figures
