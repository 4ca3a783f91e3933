"""`teleconsult status`: asked of the agent, and read off the card without one, whatever ended it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from edge_agent.core import wire
from edge_agent.core.retries import SetAside
from edge_agent.storage import ConsultOpened, MessageQueued, MessageSetAside, Store
from tests.adapters.agent.rig import ENVIRONMENT, Kiosk
from tests.adapters.agent.test_cases import leave_message, offline

CONSULT = b"k" * 16


async def status(kiosk: Kiosk, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "kiosk.cli", "status", "--config", str(kiosk.toml), *options]
    environment = {**os.environ, **ENVIRONMENT, **env}
    return await asyncio.to_thread(
        subprocess.run, argv, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


async def told(kiosk: Kiosk) -> dict:
    done = await status(kiosk, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def waits(said: dict) -> dict[str, tuple[int, int]]:
    return {each["what"]: (each["consults"], each["items"]) for each in said["waiting"]}


def files(kiosk: Kiosk) -> dict[Path, bytes]:
    """But for what SQLite shares among its readers."""
    return {
        path: path.read_bytes() for path in kiosk.state_dir.rglob("*") if path.is_file() and path.suffix != ".db-shm"
    }


async def test_it_says_what_waits_with_an_agent_and_without(hub, kiosk):
    await kiosk.online()
    said = await told(kiosk)
    assert said["agent"]["hub_reached"]
    assert (said["waiting"], said["key_is_protected"]) == ([], False)
    await offline(hub, kiosk)
    await leave_message(kiosk)
    said = await told(kiosk)
    assert not said["agent"]["hub_reached"]
    assert waits(said) == {"note": (1, 3), "voice": (1, 1), "photo": (1, 1)}
    text = (await status(kiosk)).stdout
    assert "Kiosk       kiosk-1" in text
    assert "Hub         not connected" in text or "the hub does not answer" in text
    assert "Waiting     notes: 3 of 1 consult, the oldest 20" in text
    assert "NOT protected" in text
    assert "no limit is set" in text

    await kiosk.agent.kill()
    before = files(kiosk)
    killed = await told(kiosk)
    assert killed["agent"] is None
    assert killed["waiting"] == said["waiting"]
    assert files(kiosk) == before  # nothing was made, mended or moved

    os.rename(kiosk.state_dir / "store.key", kiosk.state_dir / "elsewhere")
    done = await status(kiosk)
    assert done.returncode == 1
    assert "not known: the store's key is given to the service alone" in done.stdout
    assert not (kiosk.state_dir / "store.key").exists()


async def test_a_technician_has_what_is_set_aside_sent_again(hub, kiosk):
    assert (await status(kiosk, "--retry")).stdout.startswith("0 set aside: nothing to try again")
    await kiosk.agent.stop()
    done = await status(kiosk, "--retry")
    assert done.returncode == 1
    assert done.stderr.startswith("teleconsult: the agent does not answer")
    store, now = Store(kiosk.state_dir / "store"), hub.now_ms()
    note = wire.Message(wire.CaseNote("worker", now), CONSULT, seq=1, sent_at_ms=now)
    aside = MessageSetAside(note.id, SetAside(1, now))
    store.commit([ConsultOpened(CONSULT, now, "worker"), MessageQueued(note), aside])
    store.close()
    assert (await told(kiosk))["set_aside"] == 1
    await kiosk.start()
    await kiosk.online()
    assert (await told(kiosk))["set_aside"] == 1
    assert "1 set aside: being tried now" in (await status(kiosk, "--retry")).stdout
    assert (await hub.until_message(wire.CaseNote)).id == note.id


async def test_where_nothing_was_ever_stored(tmp_path):
    kiosk = Kiosk(tmp_path / "kiosk", None)
    done = await status(kiosk)
    assert done.returncode == 1
    assert "has not joined a hub" in done.stdout
    assert "not known: " in done.stdout
    assert done.stderr == ""
