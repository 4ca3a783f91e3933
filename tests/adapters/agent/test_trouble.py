"""What may be wrong around an agent: each a clear line, nothing lost, no crash."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess

import pytest

from edge_agent.core import wire
from tests.adapters.agent.rig import KIOSK, Kiosk
from tests.adapters.identities import new_authority, new_identity
from tests.e2e.program import until


def notices(view) -> set[str]:
    return {notice.code for notice in view.notices}


async def test_garbage_from_the_hub_is_counted_and_changes_nothing(hub, kiosk):
    await kiosk.online()
    for payload in (b"", b"\xff" * 40, b"\x97\x01", wire.encode(wire.Message(wire.Receipt((b"x" * 8,))))[:-3]):
        await hub.send_signed("c", payload)
    newer = bytearray(wire.encode(wire.Message(wire.Presence("here"))))
    newer[1] = 9  # the version
    for _ in range(3):
        await hub.send_signed("s", bytes(newer))
    await hub.send_raw("f", bytes(200_000))
    await hub.send(wire.Presence("busy", 3))
    view = await kiosk.screen.until(lambda view: view.presence.state == "busy", "presence")
    assert view.presence.position == 3
    assert sum("message unknown" in line.text for line in kiosk.agent.lines) == 1
    assert sum("message malformed" in line.text for line in kiosk.agent.lines) == 5


async def test_a_message_of_10_mb_does_not_reach_it(hub, kiosk):
    await kiosk.online()
    await hub.send_raw("f", bytes(10_000_000))
    await hub.send(wire.Presence("here"))
    await kiosk.screen.until(lambda view: view.presence.state == "here", "presence")
    assert not any("malformed" in line.text for line in kiosk.agent.lines)


async def test_a_hub_whose_clock_is_wrong_is_noticed(hub, kiosk):
    await kiosk.online()
    await hub.until(wire.Status, lambda body: body.clock_trusted)
    await hub.stop()
    await kiosk.screen.until(lambda view: not view.online, "offline")
    hub.ahead_ms = -30 * 365 * 86_400_000
    mark = len(hub.got)
    await hub.start()
    await kiosk.screen.until(lambda view: "clock_wrong" in notices(view), "the clock is wrong")
    assert "clock_wrong" in (await hub.until(wire.Status, lambda body: bool(body.warnings), since=mark)).warnings
    await hub.stop()
    await kiosk.screen.until(lambda view: not view.online, "offline")
    hub.ahead_ms = 0
    await hub.start()
    await kiosk.screen.until(lambda view: view.online and "clock_wrong" not in notices(view), "set right")


async def test_missing_devices_are_said_and_the_rest_works(broker, hub, tmp_path):
    kiosk = Kiosk(tmp_path / "kiosk", broker, devices={"board": "none"})
    kiosk.agent.env["TELECONSULT_TEST_MISSING"] = "camera microphone"
    mark = len(kiosk.agent.lines)
    await kiosk.agent.start()
    await kiosk.agent.until_line("media process ready", since=mark)
    await kiosk.screen.open()
    try:
        view = await kiosk.screen.until(lambda view: view.online and len(notices(view)) == 4, "what is missing")
        assert notices(view) == {"camera_missing", "microphone_missing", "button_missing", "lamp_missing"}
        status = await hub.until(wire.Status, lambda body: len(body.missing) == 4)
        assert set(status.missing) == {"camera", "microphone", "button", "lamp"}
        await kiosk.screen.act("press")
        await hub.until(wire.CallRequested)
        await kiosk.screen.act("cancel")
        await hub.until(wire.CallEnded)
        await hub.stop()
        await kiosk.screen.until(lambda view: not view.online, "offline")
        await kiosk.screen.act("press")
        view = await kiosk.screen.until(lambda view: view.draft is not None, "the guided message")
        assert view.draft.step == "complaint"
    finally:
        await kiosk.stop()


async def test_a_stuck_button_is_one_call_and_a_warning(hub, kiosk):
    await kiosk.online()
    await kiosk.board.down()
    asked = await hub.until_message(wire.CallRequested)
    await hub.send(wire.CallState(asked.body.call, "ringing"), asked.consult)
    status = await hub.until(wire.Status, lambda body: "button_stuck" in body.warnings, timeout_s=40)
    assert status.online
    # The hub may be told a moment before the page: two sockets.
    await kiosk.screen.until(lambda view: "button_stuck" in notices(view), "the warning")
    assert len({body.call for body in hub.all(wire.CallRequested)}) == 1
    await kiosk.board.up()
    await kiosk.screen.until(lambda view: "button_stuck" not in notices(view), "free again")


async def run(argv, env=None) -> subprocess.CompletedProcess:
    return await asyncio.to_thread(subprocess.run, argv, env=env, capture_output=True, text=True, timeout=30)


async def test_one_agent_a_state_folder(kiosk):
    again = await run(kiosk.agent.argv, kiosk.agent.env)
    assert again.returncode == 1
    assert f"another agent (process {kiosk.agent.pid}) runs on" in again.stderr
    assert len(again.stderr.strip().splitlines()) <= 2


async def test_a_port_in_use_is_said(kiosk, broker, tmp_path):
    other = Kiosk(tmp_path / "other", broker, screen={"port": kiosk.port})
    done = await run(other.agent.argv, other.agent.env)
    assert done.returncode == 1
    assert f"port {kiosk.port}" in done.stderr
    assert "Traceback" not in done.stderr


async def test_any_free_port_is_told_in_a_file(broker, tmp_path):
    kiosk = Kiosk(tmp_path / "kiosk", broker, screen={"port": 0})
    await kiosk.agent.start()
    try:
        ready = await kiosk.agent.until_line(r"agent ready screen=http://127\.0\.0\.1:(\d+)/")
        told = json.loads((kiosk.state_dir / "run" / "screen.json").read_text())
        assert told == {"port": int(ready[1]), "pid": kiosk.agent.pid}
    finally:
        assert await kiosk.agent.stop() == 0
    assert not (kiosk.state_dir / "run" / "screen.json").exists()


async def test_an_orderly_end_says_goodbye_and_leaves_nothing(hub, kiosk):
    await kiosk.online()
    mark = len(hub.got)
    assert await kiosk.agent.stop() == 0
    await hub.until(wire.Status, lambda body: not body.online, since=mark)
    assert not list((kiosk.state_dir / "run").glob("media*/*"))


async def test_a_broker_that_refuses(broker, tmp_path):
    """It knows nothing of the CA that this kiosk's certificate is of."""
    kiosk = Kiosk(tmp_path / "kiosk", None)
    foreign = new_authority(tmp_path / "foreign")
    new_identity(kiosk.state_dir / "identity", foreign, KIOSK, broker.tls_port, trusts=broker.authority)
    await kiosk.start()
    try:
        await kiosk.screen.until(lambda view: "broker_refused" in notices(view), "refused")
        await kiosk.board.until_light("fault")
        told = [line.text for line in kiosk.agent.lines if "broker trouble=broker_refused" in line.text]
        assert len(told) == 1
        assert "does not know the CA of this kiosk's certificate" in told[0]
        await kiosk.board.press()  # it is of use all the same
        await kiosk.screen.until(lambda view: view.screen == "draft", "the guided message")
    finally:
        await kiosk.stop()


async def test_an_expired_certificate_is_called_so(broker, tmp_path):
    kiosk = Kiosk(tmp_path / "kiosk", None)
    new_identity(kiosk.state_dir / "identity", broker.authority, KIOSK, broker.tls_port, days=-1)
    await kiosk.start()
    try:
        await kiosk.screen.until(lambda view: "broker_refused" in notices(view), "refused")
        assert any("this kiosk's certificate has run out" in line.text for line in kiosk.agent.lines)
        await kiosk.agent.until_line("certificate not renewed reason=the hub at 127.0.0.1:1 cannot be asked")
    finally:
        await kiosk.stop()


async def test_a_broker_of_another_hub(broker, tmp_path):
    kiosk = Kiosk(tmp_path / "kiosk", None)
    new_identity(kiosk.state_dir / "identity", new_authority(tmp_path / "own"), KIOSK, broker.tls_port)
    await kiosk.start()
    try:
        await kiosk.screen.until(lambda view: "certificate_wrong" in notices(view), "not trusted")
        told = [line.text for line in kiosk.agent.lines if "broker trouble=certificate_wrong" in line.text]
        assert len(told) == 1
        assert "is not this kiosk's hub" in told[0]
        assert "Check broker.host and this kiosk's clock" in told[0]
    finally:
        await kiosk.stop()


async def test_a_kiosk_that_has_not_joined(tmp_path):
    kiosk = Kiosk(tmp_path / "kiosk", None)
    await kiosk.start()
    try:
        view = await kiosk.screen.until(lambda view: "not_joined" in notices(view), "not joined")
        assert not view.online
        assert any("teleconsult join CODE" in line.text for line in kiosk.agent.lines)
    finally:
        await kiosk.stop()


async def test_two_kiosks_of_one_name(hub, kiosk, broker, tmp_path):
    await kiosk.online()
    twin = Kiosk(tmp_path / "twin", broker)
    await twin.start()
    try:
        await until(
            lambda: "identity_in_use" in notices(kiosk.screen.view) or "identity_in_use" in notices(twin.screen.view),
            60, "one of them says so",
        )  # fmt: skip
        connects = sum("broker connected host" in line.text for line in kiosk.agent.lines + twin.agent.lines)
        assert connects < 12  # no fight at full speed
    finally:
        await twin.stop()


async def test_a_damaged_database(kiosk):
    await kiosk.agent.stop()
    (kiosk.state_dir / "store" / "kiosk.db").write_bytes(os.urandom(8192))
    for name in ("kiosk.db-wal", "kiosk.db-shm"):
        (kiosk.state_dir / "store" / name).unlink(missing_ok=True)
    mark = len(kiosk.screen.views)
    await kiosk.start()
    await kiosk.screen.when(lambda view: "store_damaged" in notices(view), "it says so", since=mark)
    assert sum("store damaged" in line.text for line in kiosk.agent.lines) == 1


def fill(path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(65_536)):
            pass


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="a small disk is mounted, which takes root")
async def test_a_full_disk(broker, hub, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = await run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", disk])
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    kiosk = Kiosk(tmp_path / "kiosk", broker, kiosk={"state_dir": str(disk / "state")})
    kiosk.state_dir = disk / "state"
    try:
        await kiosk.start()
        await kiosk.online()
        filler = disk / "filler"
        fill(filler)
        await kiosk.board.press()  # a call for help goes out all the same
        asked = await hub.until(wire.CallRequested)
        await kiosk.screen.until(lambda view: "disk_full" in notices(view), "the disk is full")
        filler.unlink()
        await kiosk.screen.until(lambda view: "disk_full" not in notices(view), "there is room again", 20.0)
        await kiosk.screen.act("cancel")
        assert (await hub.until(wire.CallEnded)).call == asked.call
        assert len({message.id for message in hub.got if isinstance(message.body, wire.CallRequested)}) == 1
    finally:
        await kiosk.stop()
        await run(["umount", "-l", disk])


async def test_its_folder_may_lie_deeper_than_a_socket_s_path_may_be_long(tmp_path, broker, hub):
    kiosk = Kiosk(tmp_path / ("deep-" * 20) / "kiosk", broker)
    await kiosk.start()
    try:
        await kiosk.online()
        assert kiosk.media_pid
        (socket,) = tmp_path.rglob("media.sock")
    finally:
        await kiosk.stop()
    assert len(os.fsencode(socket)) > 108
    assert not socket.exists()
