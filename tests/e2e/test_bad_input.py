"""What the world gets wrong: missing parts, refusals, full disks, broken files, strangers' bytes. A clear word each
time, nothing lost, no crash loop."""

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
from pathlib import Path

import aiomqtt
import pytest
import websockets
from websockets.asyncio.client import connect

from edge_agent.core import wire
from edge_agent.identity import Identity
from hub import console
from hub.authority import Authority
from hub.keys import passphrase_of_operator
from tests.adapters.identities import new_authority, new_identity
from tests.e2e.kiosk import CLI, ENVIRONMENT, Kiosk
from tests.e2e.program import until

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

CALM_S = 5.0  # in which a crash loop would show


def codes(view) -> set[str]:
    return {notice.code for notice in view.notices}


async def restart_with(kiosk: Kiosk, over: dict) -> dict:
    """Starts the agent anew with other settings in its joined file; gives the file as it was."""
    before = kiosk.toml.read_text()
    await kiosk.agent.stop()
    kiosk.change_settings(over)
    await kiosk.agent.start()
    return before


async def restore(kiosk: Kiosk, before: str) -> None:
    await kiosk.agent.stop()
    kiosk.toml.write_text(before)
    await kiosk.agent.start()
    await kiosk.until_ready()


# --- missing parts


async def test_without_any_part_it_starts_says_so_and_takes_a_message(kit, kiosk, available):
    none = {"camera": "none", "microphone": "none", "speaker": "none", "board": "none"}
    seen = len(kiosk.screen.views)
    before = await restart_with(kiosk, {"devices": none})
    try:
        view = await kiosk.screen.when(
            lambda view: {"camera_missing", "microphone_missing", "speaker_missing", "button_missing"} <= codes(view),
            "what is missing",
            20.0,
            since=seen,
        )
        assert all(notice.text for notice in view.value.notices)
        await until(
            lambda: {"camera", "microphone", "speaker", "button"} <= kit.missing(kiosk.name), 15.0, "the hub knows too"
        )
        await kiosk.screen.until(lambda view: view.screen == "idle" and view.online, "idle and online")
        mark = len(available.got)
        await kiosk.screen.act("press")  # the screen's button is there
        ring = await available.until_rings(mark)
        await available.send(console.Decline(call=ring.call))
        await kiosk.screen.until(lambda view: view.screen == "offer", "the offer of a message")
        await kiosk.screen.act("leave_message")
        await kiosk.screen.until(lambda view: view.screen == "draft", "the guided message")
        await kiosk.screen.act("step", "complaint")
        view = await kiosk.on_step("complaint")
        await kiosk.screen.act("complaint", view.complaints[0])
        await kiosk.screen.until(lambda view: view.draft is not None and view.draft.complaints, "a complaint")
        await kiosk.screen.act("save")
        await kiosk.screen.until(lambda view: view.screen == "saved", "saved")
        case = await available.case(ring.consult, lambda case: case.card.complete and bool(case.card.complaints))
        assert case.files == ()
    finally:
        await restore(kiosk, before)


@pytest.mark.parametrize(
    ("part", "spec", "content"),
    [
        pytest.param("microphone", "wav:{}", b"This is no sound.\n" * 100, marks=pytest.mark.long),
        ("microphone", "wav:{}", b"RIFF\xff\xff\xff\xffWAVEfmt \x10\x00\x00\x00"),
        pytest.param("microphone", "wav:{}", None, marks=pytest.mark.long),
        pytest.param("camera", "file:{}", b"This is no film.\n" * 100, marks=pytest.mark.long),
        ("camera", "file:{}", None),
    ],
)
async def test_a_file_that_is_none_is_named_and_the_rest_works(kit, kiosk, tmp_path, part, spec, content):
    path = tmp_path / "broken"
    if content is not None:
        path.write_bytes(content)
    seen = len(kiosk.screen.views)
    before = await restart_with(kiosk, {"devices": {part: spec.format(path)}})
    try:
        await kiosk.screen.when(lambda view: f"{part}_missing" in codes(view), f"no {part}", 20.0, since=seen)
        assert any(str(path) in line.text for line in kiosk.agent.lines[-80:]), "the log does not name the file"
        await kiosk.until_ready()
        media = kiosk.media_pid
        await asyncio.sleep(CALM_S)
        assert kiosk.media_pid == media, "the media process is in a crash loop"
    finally:
        await restore(kiosk, before)


# --- refusals


async def test_a_refusing_broker_is_told_once_and_nothing_is_lost(kit, kiosk, available):
    seen = len(kiosk.screen.views)
    await kiosk.agent.stop()
    kept = kiosk.identity_dir.rename(kiosk.folder / "identity.kept")
    own = Authority(kit.data_dir / "ca", passphrase_of_operator(plain_key=True))
    foreign = new_authority(kiosk.folder / "foreign")  # a certificate that this broker knows nothing of
    new_identity(kiosk.identity_dir, foreign, kiosk.name, Identity.load(kept).broker[1], trusts=own)
    lines = len(kiosk.agent.lines)
    await kiosk.agent.start()
    try:
        await kiosk.screen.when(lambda view: "broker_refused" in codes(view), "the refusal", 20.0, since=seen)
        await kiosk.board.press()
        consult = await kiosk.leave_message(voice_s=1.0)
        await asyncio.sleep(CALM_S)
        told = [line.text for line in kiosk.agent.lines[lines:] if "trouble=broker_refused" in line.text]
        assert len(told) == 1, told
        assert "does not know the CA" in told[0]
    finally:
        await kiosk.agent.stop()
        shutil.rmtree(kiosk.identity_dir)
        kept.rename(kiosk.identity_dir)
        await kiosk.agent.start()
    await available.case(consult, lambda case: case.card.complete, 30.0)
    await kiosk.until_ready()


async def test_a_second_kiosk_with_the_same_identity_is_told_on_both(kit, kiosk, voices):
    twin = Kiosk(kit.folder / "twin", "kiosk-twin", voices.patient_wav)
    twin.write_settings()
    shutil.copytree(kiosk.identity_dir, twin.identity_dir)
    await twin.start()
    try:
        await asyncio.gather(
            *(
                each.screen.until(lambda view: "identity_in_use" in codes(view), "the same identity elsewhere", 60.0)
                for each in (kiosk, twin)
            )
        )
        for each in (kiosk, twin):
            assert each.agent.running
        told = [line.text for line in kiosk.agent.lines if "identity_in_use" in line.text]
        assert 1 <= len(told) <= 2, told
    finally:
        await twin.stop()
    await kiosk.screen.until(lambda view: view.online and not codes(view), "online, and alone again", 120.0)


# --- files and disk


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "nowhere.toml"),
        ("[kiosk\n", "TOML"),
        ("[kiosk]\nlangauge = 'en'\n", "langauge"),
        ("[screen]\nport = 'many'\n", "port"),
        ("[screen]\nhost = '0.0.0.0'\n", "host"),
    ],
)
async def test_a_wrong_kiosk_configuration_is_one_line(tmp_path, text, says):
    await one_line_of("agent", tmp_path / "nowhere.toml", text, says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "nowhere.toml"),
        ("listen = 3\n", "listen"),
        ("[listen]\nport = 99999\n", "port"),
        ("[site]\ntime_zone = 'Mars/Olympus'\n", "time_zone"),
        ("[broker]\nhost = '192.0.2.7'\n", "ca_file"),
    ],
)
async def test_a_wrong_hub_configuration_is_one_line(tmp_path, text, says):
    await one_line_of("hub run", tmp_path / "nowhere.toml", text, says)


async def one_line_of(command: str, path, text: str | None, says: str) -> None:
    if text is not None:
        path.write_text(text)
    done = await asyncio.to_thread(
        subprocess.run,
        [*CLI, *command.split(), "--config", str(path)],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2, (done.returncode, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert says in lines[0]


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("a small disk needs root to be mounted")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "small", str(tmp_path)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fill(path: Path) -> None:
    """To the last block."""
    with path.open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while ballast.write(bytes(64 * 1024)):
            pass


async def test_a_full_disk_is_told_and_what_was_saved_stays(kit, kiosk, available, small_disk):
    seen = len(kiosk.screen.views)
    shutil.copytree(kiosk.state_dir / "identity", small_disk / "state" / "identity")
    before = await restart_with(kiosk, {"kiosk": {"state_dir": str(small_disk / "state")}})
    try:
        await kiosk.screen.when(lambda view: view.screen == "idle" and view.online, "idle", 30.0, since=seen)
        await kit.hub.kill()
        await kiosk.screen.until(lambda view: not view.online, "offline")
        await kiosk.board.press()
        first = await kiosk.leave_message(complaints=1)
        await kiosk.screen.act("dismiss")
        await kiosk.screen.until(lambda view: view.screen == "idle", "idle")
        fill(small_disk / "ballast")
        await kiosk.board.press()
        view = await kiosk.screen.until(lambda view: bool(codes(view) & {"disk_full", "disk_low"}), "a full disk", 20.0)
        assert all(notice.text for notice in view.notices)
        assert kiosk.agent.running
        os.truncate(small_disk / "ballast", 0)
        await kit.start_hub()
        await available.case(first, lambda case: case.card.complete, 30.0)
        assert kiosk.agent.running
    finally:
        if not kit.hub.running:
            await kit.start_hub()
        (small_disk / "ballast").unlink(missing_ok=True)
        await restore(kiosk, before)


async def test_with_the_clock_in_1970_a_case_still_arrives_in_its_time(kit, kiosk, available, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n_real, _start = time.time, time.time()\n"
        "time.time = lambda: 3600.0 + _real() - _start\n"
        "time.time_ns = lambda: int(time.time() * 1e9)\n"
    )
    await kiosk.agent.stop()
    environment = dict(kiosk.agent.env)
    kiosk.agent.env["PYTHONPATH"] = f"{tmp_path}:{environment['PYTHONPATH']}"
    await kiosk.agent.start()
    try:
        await kiosk.until_ready()
        mark = len(available.got)
        await kiosk.board.press()
        ring = await available.until_rings(mark)
        await available.send(console.Decline(call=ring.call))
        await kiosk.screen.until(lambda view: view.screen == "offer", "the offer")
        await kiosk.screen.act("leave_message")
        await kiosk.leave_message(complaints=1)
        case = await available.case(ring.consult, lambda case: case.card.complete and bool(case.card.complaints))
        year = case.card.opened_at / 1000 / 31_556_952 + 1970
        assert year > 2020, "the inbox shows the hub's time where the kiosk's cannot be right"
        assert kit.rows("SELECT clock_trusted FROM kiosk WHERE id = ?", kiosk.name)[0]["clock_trusted"], "by the hub"
    finally:
        await kiosk.agent.stop()
        kiosk.agent.env.update(environment)
        await kiosk.agent.start()
        await kiosk.until_ready()


# --- strangers' bytes


def garbage() -> list[bytes]:
    return [b"", b"\x00", b"\xff" * 100, b"[" * 5000, b"\xdd\xff\xff\xff\xff", secrets.token_bytes(3000)] + [
        wire.encode(wire.Message(wire.CallEnded(wire.new_message_id(), "answered", 0, 0), wire.new_consult_id()))[:cut]
        for cut in (1, 10, 30)
    ]


async def test_garbage_over_mqtt_harms_neither_side(kit, kiosk, available):
    refused = (await available.http.get("/health")).json()["refused"]
    async with kit.as_kiosk(kiosk) as client:
        for channel in ("s", "c", "e", "f"):
            for payload in garbage():
                await client.publish(f"tc1/{kiosk.name}/u/{channel}", payload, qos=1)
    async with kit.as_hub() as client:
        for channel in ("s", "c", "e", "f"):
            for payload in garbage():
                await client.publish(f"tc1/{kiosk.name}/d/{channel}", payload, qos=1)
    await asyncio.sleep(1)
    now = (await available.http.get("/health")).json()["refused"]
    assert sum(now.values()) > sum(refused.values())
    assert kiosk.agent.running
    assert kit.hub.running
    await a_call_rings(kiosk, available)


async def test_ten_megabytes_are_kept_out(kit, kiosk, available):
    for client, topic in ((kit.as_kiosk(kiosk), f"tc1/{kiosk.name}/u/e"), (kit.as_hub(), f"tc1/{kiosk.name}/d/e")):
        with pytest.raises(aiomqtt.MqttError):
            async with client:
                await client.publish(topic, bytes(10 * 1024 * 1024), qos=1, timeout=3)
    assert kit.hub.running
    assert kit.broker.running
    await kiosk.until_ready(60.0)
    await a_call_rings(kiosk, available)


async def a_call_rings(kiosk, available) -> None:
    mark = len(available.got)
    await kiosk.until_ready(60.0)
    await kiosk.board.press()
    await available.until_rings(mark)


JUNK_FRAMES = ["", "null", "[]", "{", '{"do":"fly"}', '{"type":"claim"}', '{"type":"claim","call":"zz"}', "x" * 100_000]


@pytest.mark.parametrize("frame", [*JUNK_FRAMES, b"\x00\xff" * 100])
async def test_garbage_on_the_kiosks_sockets_closes_that_socket_alone(kit, kiosk, frame):
    for path in ("/ws", "/board/ws"):
        async with connect(f"ws://127.0.0.1:{kiosk.port}{path}", proxy=None) as stranger:
            await stranger.send(frame)
            async with asyncio.timeout(5):
                await stranger.wait_closed()
    assert kiosk.agent.running
    await kiosk.board.press()
    await kiosk.screen.until(lambda view: view.screen == "ringing", "ringing")


async def test_garbage_on_the_consoles_socket_harms_nobody(kit, kiosk, available):
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in available.http.cookies.jar)
    for frame in [*JUNK_FRAMES, b"\x00\xff" * 100]:
        async with connect(
            kit.url.replace("http", "ws") + "/console/ws",
            origin=websockets.Origin(kit.url),
            additional_headers={"Cookie": cookies},
            proxy=None,
        ) as stranger:
            await stranger.recv()
            await stranger.send(frame)
            async with asyncio.timeout(5):
                while True:  # refused in words, or the socket closed
                    try:
                        if '"refused"' in str(await stranger.recv()):
                            break
                    except websockets.ConnectionClosed:
                        break
    assert kit.hub.running
    await a_call_rings(kiosk, available)


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
async def test_another_page_is_refused_by_both(kit, kiosk, available, origin):
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in available.http.cookies.jar)
    for url in (f"ws://127.0.0.1:{kiosk.port}/ws", f"{kit.url.replace('http', 'ws')}/console/ws"):
        with pytest.raises(websockets.InvalidStatus) as refusal:
            async with connect(
                url, origin=websockets.Origin(origin), additional_headers={"Cookie": cookies}, proxy=None
            ):
                pass
        assert refusal.value.response.status_code == 403
