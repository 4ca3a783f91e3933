"""What waits at a kiosk that nobody reaches goes to its hub on a stick, and the answers come back on it: the real
agent, the two commands, and the hub's database; then the link comes back, and nothing is there twice."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub import cases
from hub.files import FileStore
from hub.outgoing import Outgoing
from hub.records import AdviceGiven, CaseFile, Consult, Content, Doctor, Uplink
from tests.adapters.agent import rig
from tests.adapters.agent.test_cases import leave_message, stored
from tests.adapters.hub.rig import ROOT, Hub, now_ms

KIOSK = "hill-1"


@pytest.fixture
async def kiosk(stopped_hub: Hub, tmp_path: Path) -> AsyncIterator[rig.Kiosk]:
    """Joined to `stopped_hub`; of a clinic without a link."""
    broker = {"host": "127.0.0.1", "port": stopped_hub.settings.broker.listen_port}
    kiosk = rig.Kiosk(tmp_path / "clinic", None, broker=broker)
    shutil.copytree(tmp_path / KIOSK, kiosk.state_dir / "identity")
    kiosk.agent.env["TELECONSULT_TEST_RENDITIONS"] = "1"
    await kiosk.start()
    yield kiosk
    await kiosk.stop()


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    (tmp_path / "stick").mkdir()
    return tmp_path / "stick"


async def command(*words: str, code: int = 0) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kiosk.cli", *words, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode == code, said.decode()
    return said.decode()


def content_of(stick: Path) -> dict[str, bytes]:
    return {str(path.relative_to(stick)): path.read_bytes() for path in stick.rglob("*") if path.is_file()}


def counts(session: Session) -> tuple[int, int, int]:
    return tuple(session.scalar(select(func.count()).select_from(table)) for table in (Uplink, CaseFile, Consult))  # type: ignore[return-value]


async def test_a_case_goes_by_stick_and_its_answer_comes_back_on_it(stopped_hub: Hub, kiosk: rig.Kiosk, stick: Path):
    hub = stopped_hub
    consult = bytes.fromhex(await leave_message(kiosk))
    export = ("export", str(stick), "--config", str(kiosk.toml))
    said = await command(*export)
    assert "4 of 4 parcels" in said
    assert "1 consult waits here" in said
    on_stick = content_of(stick)
    assert len([name for name in on_stick if name.endswith(".bundle")]) == 4, "words, voice, thumbnail, photo"
    secrets = [b"fever", consult, consult.hex().encode(), *(data[:32] for data in stored(kiosk).values())]
    for name, data in on_stick.items():
        assert not any(secret in data or secret in name.encode() for secret in secrets), name
    before = {path: path.stat().st_mtime_ns for path in stick.rglob("*.bundle")}
    await command(*export)
    assert {path: path.stat().st_mtime_ns for path in stick.rglob("*.bundle")} == before, "nothing is written twice"

    importing = ("hub", "import", str(stick), "--config", str(hub.config))
    said = await command(*importing)
    assert "6 messages and 3 files are here and confirmed" in said
    assert "The broker is not reached" in said

    def arrived(session: Session) -> dict[str, bool]:
        row = session.get_one(Consult, consult.hex())
        assert (row.kiosk_id, row.complaints) == (KIOSK, ["fever"])
        return {content.digest: content.complete for content in session.scalars(select(Content))}

    digests = hub.do(arrived)
    assert len(digests) == 3
    assert all(digests.values())
    for digest in digests:
        data = (hub.settings.data_dir / "files" / KIOSK / digest).read_bytes()
        assert data == stored(kiosk)[digest]
    first = hub.do(counts)
    await command(*importing)  # the same stick once more
    assert hub.do(counts) == first

    voice = random.Random(1).randbytes(50_000)
    hub.do(_advise, consult.hex(), FileStore(hub.settings.data_dir / "files"), voice)
    await command(*importing)
    said = await command(*export)
    assert "confirmed 4 of 4 parcels" in said
    assert "Nothing waits here" in said
    assert not list((stick / "teleconsult").rglob("*.bundle")), "what was taken in is off the stick"
    view = await kiosk.screen.until(
        lambda view: bool(view.advice) and view.advice[0].voice_arrived, "the advice, whole"
    )
    assert view.advice[0].text == "Drink a lot."
    assert hashlib.sha256(voice).hexdigest() in stored(kiosk)

    hub.broker.start()
    hub.start()
    await kiosk.online()
    async with hub.doctor("anna") as doctor:
        await doctor.case(consult, lambda case: case["advice"][0]["delivered_at"] > 0)
    assert hub.do(counts)[:1] == first[:1], "by link and stick it counts once"


def _advise(session: Session, consult: str, files: FileStore, voice: bytes) -> None:
    doctor = session.scalars(select(Doctor)).first()
    reply = cases.VoiceReply(voice, "audio/ogg", 3000)
    cases.give_advice(
        session, Outgoing(), files, session.get_one(Consult, consult), doctor, "Drink a lot.", reply, now_ms()
    )  # fmt: skip
    assert session.scalar(select(func.count()).select_from(AdviceGiven)) == 1


async def test_a_stick_beside_a_running_hub(hub: Hub, kiosk: rig.Kiosk, stick: Path):
    """Half of it came by the link already; the consoles show the rest at once, and the kiosk is told over the link."""
    await kiosk.online()
    hub.broker.kill()
    await kiosk.screen.until(lambda view: not view.online, "offline")
    consult = bytes.fromhex(await leave_message(kiosk))
    export = ("export", str(stick), "--config", str(kiosk.toml))
    await command(*export)
    bundles = sorted(stick.rglob("*.bundle"), key=lambda path: path.stat().st_size)
    cut = bundles.pop()
    cut.write_bytes(cut.read_bytes()[:10_000])  # pulled out too early
    hub.kill()  # so that the kiosk, which is back before it, finds nobody
    hub.broker.start()
    hub.start()
    await kiosk.screen.until(lambda view: view.saved_step == "received", "over the link", 30.0)
    said = await command("hub", "import", str(stick), "--config", str(hub.config))
    assert "passed over: cut off or altered" in said
    assert "The broker is not reached" not in said
    assert "0 messages were refused" not in said
    async with hub.doctor("anna") as doctor:
        case = await doctor.case(consult, lambda case: case["card"]["complete"])
        assert len(case["files"]) == 2
    said = await command(*export)
    assert "Nothing waits here" in said


async def test_a_stick_of_strangers_and_rubbish_changes_nothing(stopped_hub: Hub, kiosk: rig.Kiosk, stick: Path):
    await leave_message(kiosk)
    await command("export", str(stick), "--config", str(kiosk.toml))
    box = stick / "teleconsult" / "to-hub"
    (box / KIOSK).rename(box / "river-2")  # another kiosk's name on its parcels
    (box / "river-2" / "zz.bundle").write_bytes(b"rubbish")
    before = stopped_hub.do(counts)
    said = await command("hub", "import", str(stick), "--config", str(stopped_hub.config), code=1)
    assert "zz.bundle is passed over: not a courier's bundle" in said
    assert "messages were refused" in said
    assert stopped_hub.do(counts) == before
    assert "There is nothing on this stick" in await command(
        "hub", "import", str(stick.parent / "clinic"), "--config", str(stopped_hub.config)
    )


async def test_export_says_what_to_do_where_it_cannot(kiosk: rig.Kiosk, stick: Path):
    said = await command("export", str(stick / "none"), "--config", str(kiosk.toml), code=1)
    assert "put the stick in" in said
    await kiosk.agent.stop()
    said = await command("export", str(stick), "--config", str(kiosk.toml), code=1)
    assert "the agent does not answer" in said
    assert "Traceback" not in said
    await kiosk.start()
    said = await command("export", "--receipts", str(stick), "--config", str(kiosk.toml))
    assert "Nothing waits here" in said
    assert not list(stick.iterdir())
