"""A link that is paid for by the byte: counted by the kernel, photos held back, over a kill too, and shown."""

from __future__ import annotations

import random

import msgspec
import pytest
from argon2 import PasswordHasher

from edge_agent.core import wire
from edge_agent.core.metered import Spent
from edge_agent.storage import ConsultOpened, FileKept, MessageQueued, Store
from tests.adapters.agent.rig import Hub, Kiosk
from tests.e2e.program import until
from tests.kiosk_store import read_rows

PIN = "1234"
CONSULT = b"k" * 16
DAY_MB = 2.0
VOICE_BYTES, PHOTO_BYTES = 20_000, 3_000_000


@pytest.fixture
async def kiosk(tmp_path, broker):
    """Offline, with a case on its card."""
    budget = {"day_mb": DAY_MB, "price_per_mb": 10.0, "currency": "KES"}
    kiosk = Kiosk(
        tmp_path / "kiosk", broker, kiosk={"worker_pin_hash": PasswordHasher(1, 8, 1).hash(PIN)}, budget=budget
    )
    store, made = Store(kiosk.state_dir / "store"), random.Random(3)
    store.commit([ConsultOpened(CONSULT, 1, "patient")])
    for seq, (role, mime, size) in enumerate(
        (("photo", "image/jpeg", PHOTO_BYTES), ("voice", "audio/ogg", VOICE_BYTES)), 1
    ):
        capture = store.new_capture(".bin")
        capture.write_bytes(made.randbytes(size))
        digest, _ = store.keep_file(capture)
        manifest = wire.Manifest(digest, role, mime, size, 1, "patient")
        kept = FileKept(CONSULT, digest, role, mime, size, 1, "patient")
        store.commit([kept, MessageQueued(wire.Message(manifest, CONSULT, seq=seq))])
    store.close()
    yield kiosk
    await kiosk.stop()


def file_bytes(hub: Hub) -> int:
    return sum(len(body.data) for body in hub.all(wire.Chunk))


async def test_photos_wait_when_most_of_the_day_s_bytes_are_used(hub, kiosk, tmp_path):
    await kiosk.start()
    told = await hub.until(wire.Spent, lambda body: body.held == "day")
    assert 0.8 * DAY_MB <= told.day_bytes / 1e6 < DAY_MB
    assert told.held_until_ms > told.day_bytes
    (voice,) = hub.complete.values()  # it goes before the photo, and is whole
    assert len(voice) == VOICE_BYTES
    arrived = file_bytes(hub)
    assert told.day_bytes > arrived  # with all that goes around it
    await kiosk.screen.act("worker")
    await kiosk.screen.act("pin", PIN)
    worker = (await kiosk.screen.until(lambda view: view.worker is not None, "the worker's face")).worker
    assert any(line.startswith("Photos wait until tomorrow") for line in worker.budget)
    assert any(line.startswith("Today: 1.") for line in worker.budget)
    (consult,) = worker.consults
    megabytes, money = consult.cost.removesuffix(" KES").split(" MB, ")
    assert arrived / 1e6 - 0.01 < float(megabytes) <= DAY_MB
    assert float(money) == pytest.approx(10 * float(megabytes), abs=0.06)

    def counted() -> int:
        rows = read_rows(kiosk.state_dir, "SELECT value FROM value WHERE key = 'spent'")
        return msgspec.msgpack.decode(rows[0]["value"], type=Spent).day_bytes if rows else 0

    await until(lambda: counted() >= 0.8 * DAY_MB * 1e6, 20, "the count is on the disk")
    await kiosk.agent.kill()
    mark = len(hub.got)
    await kiosk.start()
    await kiosk.online()
    await hub.until(wire.Manifest, since=mark)  # it asks what is missing
    await hub.until(wire.Spent, lambda body: body.held == "day", since=mark)
    assert not [message for message in hub.got[mark:] if isinstance(message.body, wire.Chunk)]

    await kiosk.agent.stop()
    text = kiosk.toml.read_text()
    assert f"day_mb = {DAY_MB}" in text
    kiosk.toml.write_text(text.replace(f"day_mb = {DAY_MB}", "day_mb = 5.0"))
    await kiosk.start()
    await until(lambda: len(hub.complete) == 2, 20, "the photo is there")
