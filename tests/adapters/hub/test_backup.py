"""A backup of a hub that works, put back on an empty machine; and what the kiosks then bring again."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import tarfile
from pathlib import Path

import pytest

from edge_agent.core import wire
from hub import audit
from hub.records import Consult
from tests.adapters.hub.rig import Broker, Hub, now_ms
from tests.adapters.hub.test_commands import command, said
from tests.adapters.hub.test_intake import NOTE, file_messages, send_file


def make_empty(hub: Hub) -> None:
    """The machine is another one: nothing of the hub's data is left."""
    hub.kill()
    hub.broker.kill()
    shutil.rmtree(hub.settings.data_dir)


def start_again(hub: Hub) -> None:
    hub.broker = Broker(hub.settings)
    hub.broker.start()
    hub.start()


async def test_a_backup_under_load_is_restored_and_kiosks_bring_what_came_since(hub: Hub, tmp_path: Path):
    data = random.Random(1).randbytes(100_000)
    backup = tmp_path / "hub.tar"
    async with hub.kiosk("hill-1") as kiosk:
        await kiosk.online()
        before = wire.new_consult_id()
        await kiosk.receipt(await kiosk.say(NOTE, before, 1))
        digest = await send_file(kiosk, before, data)
        confirmed: list[tuple[bytes, wire.Message]] = []
        more = asyncio.Condition()

        async def keep_saying() -> None:
            while True:
                consult = wire.new_consult_id()
                note = await kiosk.say(NOTE, consult, 1)
                await kiosk.receipt(note)
                async with more:
                    confirmed.append((consult, note))
                    more.notify_all()

        async def confirmed_are(count: int) -> None:
            async with more:
                await more.wait_for(lambda: len(confirmed) >= count)

        load = asyncio.create_task(keep_saying())
        await confirmed_are(5)
        made = await asyncio.to_thread(command, hub, "backup", str(backup))
        assert made.returncode == 0, made.stderr
        assert "1 files" in made.stderr
        await confirmed_are(len(confirmed) + 5)
        load.cancel()
        after = wire.new_consult_id()
        await kiosk.receipt(await kiosk.say(NOTE, after, 1))
        late = random.Random(2).randbytes(50_000)
        late_digest = await send_file(kiosk, after, late)

    assert backup.stat().st_mode & 0o777 == 0o600
    make_empty(hub)
    assert "Restored as it was on" in said(hub, "restore", str(backup))
    again = command(hub, "restore", str(backup))
    assert again.returncode == 1
    assert "there is a hub in" in again.stderr
    assert hub.do(lambda session: audit.verify(session).seq) > 0
    start_again(hub)

    async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as doctor:
        back = await kiosk.until(wire.HubStatus, lambda status: status.online and bool(status.epoch))
        assert now_ms() - back.lost_since_ms < 120_000
        await kiosk.online()
        case = await doctor.case(before)
        assert case["card"]["text"] == NOTE.text
        assert (await doctor.http.get(f"/api/files/{digest.hex()}")).content == data
        for _, note in confirmed:  # as a kiosk's store gives them again
            await kiosk.publish("e", wire.encode(note))
        await kiosk.receipt(*(note for _, note in confirmed))
        _, manifest, _ = file_messages(before, data)
        at = len(kiosk.got)
        kiosk.file_keys.clear()
        await kiosk.say(manifest, before, 2)
        await kiosk.until(wire.Have, lambda have: have.digest == digest and have.complete, at)
        await kiosk.receipt(await kiosk.say(NOTE, after, 1))
        assert await send_file(kiosk, after, late) == late_digest
        assert (await doctor.http.get(f"/api/files/{late_digest.hex()}")).content == late
    shown = hub.do(lambda session: {c.id: c.text for c in session.query(Consult)})
    assert {consult.hex() for consult, _ in confirmed} <= shown.keys()


@pytest.mark.parametrize("cut", [0.3, 0.9, 0.999])
def test_a_backup_that_was_cut_off_is_refused_and_leaves_nothing(stopped_hub: Hub, tmp_path: Path, cut: float):
    backup = tmp_path / "hub.tar"
    said(stopped_hub, "backup", str(backup))
    whole = backup.read_bytes()
    with tarfile.open(backup) as tar:
        end = next(member.offset for member in tar if member.name == "whole.json")
    backup.write_bytes(whole[: int(end * cut)])
    shutil.rmtree(stopped_hub.settings.data_dir)
    refused = command(stopped_hub, "restore", str(backup))
    assert refused.returncode == 1
    assert "Nothing was restored" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list(stopped_hub.settings.data_dir.iterdir()) == []
    backup.write_bytes(whole)
    said(stopped_hub, "restore", str(backup))


def test_a_restore_that_was_killed_is_done_again(stopped_hub: Hub, tmp_path: Path):
    backup, data = tmp_path / "hub.tar", stopped_hub.settings.data_dir
    said(stopped_hub, "backup", str(backup))
    shutil.rmtree(data)
    (data / ".restoring").mkdir(parents=True)
    (data / ".restoring" / "hub.db").write_bytes(b"half")
    (data / "ca").mkdir()
    said(stopped_hub, "restore", str(backup))
    with sqlite3.connect(data / "hub.db") as db:
        assert db.execute("SELECT count(*) FROM kiosk").fetchone() == (2,)


def test_kiosks_are_asked_again_after_a_restore_by_other_means(stopped_hub: Hub):
    said(stopped_hub, "ask-again", "--since", "2026-09-30")
    wrong = command(stopped_hub, "ask-again", "--since", "yesterday")
    assert wrong.returncode == 2
    assert "a day, as in 2026-09-30" in wrong.stderr
