"""What was refused is not hidden, comes back after a restart as it was, and is tried again; and emergencies go first
after a kill too."""

from __future__ import annotations

import hashlib
import time

import pytest
from argon2 import PasswordHasher

from edge_agent.core import wire
from edge_agent.core.retries import FIRST_MS, SetAside
from edge_agent.storage import ConsultOpened, FileKept, MessageQueued, MessageSetAside, Store
from tests.adapters.agent.rig import Kiosk
from tests.e2e.program import until
from tests.kiosk_store import read_rows

PIN = "1234"
CONSULT = b"k" * 16


@pytest.fixture
async def kiosk(tmp_path, broker):
    kiosk = Kiosk(tmp_path / "kiosk", broker, kiosk={"worker_pin_hash": PasswordHasher(1, 8, 1).hash(PIN)})
    await kiosk.start()
    yield kiosk
    await kiosk.stop()


def set_aside(kiosk: Kiosk, ago_ms: int) -> wire.Message:
    """As an earlier run of the agent left it."""
    store, now = Store(kiosk.state_dir / "store"), time.time_ns() // 1_000_000
    note = wire.Message(wire.CaseNote("worker", now, text="x"), CONSULT, seq=1, sent_at_ms=now - ago_ms)
    aside = MessageSetAside(note.id, SetAside(3, now - ago_ms))
    store.commit([ConsultOpened(CONSULT, now, "worker"), MessageQueued(note), aside])
    store.close()
    return note


async def worker(kiosk: Kiosk):
    await kiosk.screen.act("worker")
    await kiosk.screen.act("pin", PIN)
    return (await kiosk.screen.until(lambda view: view.worker is not None, "the worker's face")).worker


async def test_what_was_refused_is_shown_and_goes_at_the_worker_s_word(hub, kiosk):
    await kiosk.agent.kill()
    note = set_aside(kiosk, ago_ms=FIRST_MS // 2)
    await kiosk.start()
    await kiosk.online()
    await hub.until(wire.TimeAsked)
    shown = await worker(kiosk)
    assert shown.unsent == 1
    assert shown.unsent_since_ms == note.sent_at_ms
    (consult,) = shown.consults
    assert (consult.step, consult.set_aside) == ("saved", True)
    assert "messages_set_aside" in {notice.code for notice in kiosk.screen.view.notices}
    await hub.until(wire.Status, lambda body: "messages_set_aside" in body.warnings)
    assert not hub.all(wire.CaseNote)
    await kiosk.screen.act("send_again")
    await hub.until(wire.CaseNote)
    view = await kiosk.screen.until(lambda view: view.worker is not None and view.worker.unsent == 0, "all is sent")
    assert not view.worker.consults[0].set_aside
    assert "messages_set_aside" not in {notice.code for notice in view.notices}
    await until(lambda: not read_rows(kiosk.state_dir, "SELECT 1 FROM outbox"), 10, "nothing waits on the disk")


async def test_a_new_hub_is_tried_after_an_hour(hub, kiosk):
    await kiosk.agent.kill()
    note = set_aside(kiosk, ago_ms=FIRST_MS + 1000)
    await kiosk.start()
    assert (await hub.until_message(wire.CaseNote)).id == note.id


async def test_after_a_kill_an_emergency_s_files_still_go_before_all_others(hub, kiosk):
    await kiosk.online()
    await kiosk.screen.act("emergency")
    call = await hub.until_message(wire.CallRequested, lambda body: body.emergency)
    await until(lambda: not read_rows(kiosk.state_dir, "SELECT 1 FROM outbox"), 10, "the call has its receipt")
    await kiosk.agent.kill()
    store = Store(kiosk.state_dir / "store")
    store.commit([ConsultOpened(CONSULT, 1, "patient")])
    for consult, seq, role, mime in ((CONSULT, 1, "voice", "audio/ogg"), (call.consult, 9, "photo", "image/jpeg")):
        capture = store.new_capture(".bin")
        capture.write_bytes(role.encode() * 10_000)
        digest, size = store.keep_file(capture)
        manifest = wire.Manifest(digest, role, mime, size, 1, "patient")
        kept = FileKept(consult, digest, role, mime, size, 1, "patient")
        store.commit([kept, MessageQueued(wire.Message(manifest, consult, seq=seq))])
    store.close()
    await kiosk.start()
    await until(lambda: len(hub.complete) == 2, 20, "both files are there")
    chunks = [message.body.digest for message in hub.got if isinstance(message.body, wire.Chunk)]
    assert chunks[0] == hashlib.sha256(b"photo" * 10_000).digest()
