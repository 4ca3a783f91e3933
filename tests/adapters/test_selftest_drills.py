"""Fault drills: each fault is planted for real as far as a machine without a clinic allows, and the self-test names it,
its group and its root, and the telephone code says the same at the other end of the line.

What cannot be planted in hardware here (voltage, heat, a card's wear) is planted in a copy of the kernel's files.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import wave
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import pytest_asyncio

from edge_agent.config import KioskSettings, read_kiosk_settings
from edge_agent.core import phonecode
from edge_agent.core.checks import STUCK_S
from edge_agent.core.findings import BY_NAME, Group, Verdict
from edge_agent.discovery import HubAddress
from edge_agent.door import Visit, door_path
from edge_agent.identity import Identity
from edge_agent.join import join
from edge_agent.selftest.run import Options, Result, run
from edge_agent.storage.store_key import KEY_FILE
from hub import app, enrol
from tests.adapters.agent.rig import Kiosk
from tests.adapters.agent.test_clock import LIBRARY
from tests.adapters.hub.rig import Broker, Hub, now_ms
from tests.adapters.identities import new_authority, new_identity
from tests.adapters.test_join import pretending, tls_of
from tests.adapters.turn import TURNSERVER, Turn
from tests.e2e.program import free_port, until
from tests.sound_server import PulseAudio, sound_server

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROOT = Path(__file__).resolve().parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and namespaces take root")
SECRET = "of this test"


class Clinic:
    """A kiosk whose agent runs and has joined a real hub with its broker; nothing is wrong with either."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub = Hub(folder, "[ice]\n")
        self.kiosk = Kiosk(folder / "kiosk", None, devices={"camera": "synthetic", "microphone": "synthetic"})
        self.identity: Identity

    async def start(self) -> None:
        authority = app.open_authority(self.hub.settings)
        self.hub.set("listen", f'tls_cert = "{authority.cert_path}"\ntls_key = "{authority.key_path}"')
        self.hub.broker = Broker(self.hub.settings)
        self.hub.broker.start()
        self.hub.start()
        at = HubAddress("127.0.0.1", self.hub.port)
        self.identity = await asyncio.to_thread(join, self.code(), self.kiosk.state_dir / "identity", at)
        await self.kiosk.start()
        await self.kiosk.online()

    def code(self) -> str:
        database = self.hub.database()
        try:
            enrolment = enrol.Enrolment(self.hub.settings, database, app.open_authority(self.hub.settings), now_ms)
            return enrolment.invite("Hill clinic", by="command:0")
        finally:
            database.close()

    def settings(self, **sections: dict[str, Any]) -> KioskSettings:
        """Of this kiosk, but for what is given."""
        settings = read_kiosk_settings(self.kiosk.toml)
        changed = {
            name: msgspec.structs.replace(getattr(settings, name), **values) for name, values in sections.items()
        }
        return msgspec.structs.replace(settings, **changed)

    async def test(self, options: Options | None = None, **sections: dict[str, Any]) -> Result:
        devices = {"camera": "none", "microphone": "none", "speaker": "none"} | sections.pop("devices", {})
        return await asyncio.to_thread(
            run, self.settings(devices=devices, **sections), options or Options(silent=True, lamp_s=0)
        )

    def another(self, name: str, **identity: Any) -> dict[str, Any]:
        """The section `kiosk` of one that has an identity of its own, and no agent."""
        state = self.folder / name
        authority = app.open_authority(self.hub.settings)
        port, hub = self.hub.settings.broker.listen_port, f"https://127.0.0.1:{self.hub.port}"
        new_identity(state / "identity", authority, name, port, hub, **identity)
        return {"state_dir": str(state)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clinic(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Clinic]:
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed (apt install mosquitto)")
    clinic = Clinic(tmp_path_factory.mktemp("clinic"))
    await clinic.start()
    yield clinic
    await clinic.kiosk.stop()
    clinic.hub.kill()
    clinic.hub.broker.kill()


def named(result: Result, cause: str, check: str = "") -> None:
    """By the lines, by the telephone code, and by the lamp: the root's group is blinked first."""
    told = [(each.check, each.cause, each.says) for each in result.findings if each.cause]
    assert cause in [each[1] for each in told], told
    heard = phonecode.decode(result.code)
    assert heard.cause is BY_NAME[cause], told
    verdict = heard.verdicts[BY_NAME[cause].group]
    assert verdict in (Verdict.FAIL, Verdict.WARN)
    if verdict is Verdict.FAIL:
        assert result.failed[0] is BY_NAME[cause].group


# --- nothing is wrong


async def test_nothing_is_wrong(clinic: Clinic) -> None:
    result = await clinic.test(devices={"camera": "synthetic", "microphone": "synthetic", "speaker": "null"})
    told = [(each.check, each.cause, each.says) for each in result.findings if each.cause]
    assert [each for each in told if each[1] != "clock_untrusted"] == []
    assert result.failed == ()
    lines = {each.check: each for each in result.findings}
    for check in ("camera", "microphone", "disk writing", "store", "clock", "hub's machine", "rate", "broker",
                  "certificate", "receipts", "agent"):  # fmt: skip
        assert lines[check].verdict is Verdict.PASS, lines[check]
    used_kb = float(lines["rate"].says.split("by ")[1].split()[0])
    assert 100 < used_kb < 200


# --- power, heat, card: in a copy of the kernel's files


def kernel(folder: Path, card: Path | None = None, **files: str) -> Options:
    zone = folder / "class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text(files.get("temp", "48000") + "\n")
    firmware = folder / "devices/platform/soc/soc:firmware"
    firmware.mkdir(parents=True)
    (firmware / "get_throttled").write_text(files.get("throttled", "0") + "\n")
    if card is not None:
        number = card.stat().st_dev
        device = folder / f"dev/block/{os.major(number)}:{os.minor(number)}/device"
        device.mkdir(parents=True)
        (device / "life_time").write_text(files.get("life", "0x01 0x01") + "\n")
        (device / "pre_eol_info").write_text("0x01\n")
    return Options(silent=True, sys=folder, lamp_s=0)


async def test_under_voltage(clinic: Clinic, tmp_path: Path) -> None:
    result = await clinic.test(kernel(tmp_path, throttled="50005"))
    named(result, "under_voltage")
    # told by lamp and screen, and again by neither when all is well
    await clinic.kiosk.board.until_light(f"group_{Group.POWER}")
    await clinic.kiosk.screen.until(lambda view: any(result.code in each.text for each in view.notices), "the code")
    await clinic.test()
    await clinic.kiosk.board.until_light("ready", "message")
    await clinic.kiosk.screen.until(lambda view: all(each.code != "self_test" for each in view.notices), "no code")


async def test_a_machine_in_the_sun(clinic: Clinic, tmp_path: Path) -> None:
    named(await clinic.test(kernel(tmp_path, temp="86500")), "too_hot")


async def test_a_card_at_the_end_of_its_life(clinic: Clinic, tmp_path: Path) -> None:
    named(await clinic.test(kernel(tmp_path / "sys", clinic.kiosk.state_dir, life="0x03 0x0B")), "card_worn")


# --- the card, for real


@contextlib.contextmanager
def mounted(folder: Path, *words: str) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *words, str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@needs_root
async def test_a_full_card(clinic: Clinic, tmp_path: Path) -> None:
    with mounted(tmp_path / "state", "-t", "tmpfs", "-o", "size=4m", "tmpfs") as state:
        with contextlib.suppress(OSError), (state / "filling").open("wb") as file:
            while True:
                file.write(bytes(65536))
        named(await clinic.test(kiosk={"state_dir": str(state)}), "disk_full")


@needs_root
async def test_a_card_that_became_read_only(clinic: Clinic, tmp_path: Path) -> None:
    with mounted(tmp_path / "state", "-t", "tmpfs", "-o", "ro,size=64m", "tmpfs") as state:
        named(await clinic.test(kiosk={"state_dir": str(state)}), "card_read_only")


async def test_a_damaged_store(clinic: Clinic, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    shutil.copy(clinic.kiosk.state_dir / "store" / "kiosk.db", tmp_path / "store" / "kiosk.db")
    shutil.copy(clinic.kiosk.state_dir / KEY_FILE, tmp_path / KEY_FILE)
    with (tmp_path / "store" / "kiosk.db").open("r+b") as file:
        file.write(os.urandom(4096))
    named(await clinic.test(kiosk={"state_dir": str(tmp_path)}), "store_damaged")


# --- devices


async def test_a_camera_that_was_unplugged(clinic: Clinic) -> None:
    named(await clinic.test(devices={"camera": "device:/dev/video99"}), "camera_missing")


@pytest.mark.parametrize(("level", "cause"), [(0, "camera_black"), (120, "camera_frozen")])
async def test_a_camera_that_shows_nothing_new(clinic: Clinic, tmp_path: Path, level: int, cause: str) -> None:
    film = tmp_path / "film.avi"
    picture = np.full((240, 320, 3), level, np.uint8)
    cv2.putText(picture, "12:00" if level else "", (40, 120), cv2.FONT_HERSHEY_SIMPLEX, 2, (250, 250, 250), 3)
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter_fourcc(*"MJPG"), 30, (320, 240))
    for _ in range(30):
        writer.write(picture)
    writer.release()
    named(await clinic.test(devices={"camera": f"file:{film}"}), cause)


async def test_a_microphone_that_is_muted(clinic: Clinic, tmp_path: Path) -> None:
    silence = tmp_path / "silence.wav"
    with wave.open(str(silence), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(bytes(48_000))
    named(await clinic.test(devices={"microphone": f"wav:{silence}"}), "microphone_muted")


class Cards:
    def __init__(self, server: PulseAudio) -> None:
        self._env = server.environment

    def mute(self, how: str) -> None:
        subprocess.run(["pactl", "set-source-mute", "clinic.monitor", how], env=self._env, check=True)

    @contextlib.contextmanager
    def noise(self) -> Iterator[None]:
        options = ["--rate=48000", "--channels=1", "--format=s16le", "--volume=6000", "-d", "clinic"]
        playing = subprocess.Popen(["pacat", *options, "/dev/urandom"], env=self._env)
        try:
            yield
        finally:
            playing.kill()
            playing.wait()


@pytest.fixture(scope="module")
def pulse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cards]:
    with sound_server(tmp_path_factory.mktemp("pulse")) as server:
        yield Cards(server)


async def test_sound_cards_that_hear_one_another_and_then_do_not(clinic: Clinic, pulse: Cards) -> None:
    """On a real sound server: the chirp goes out of one card and into the other."""
    cards = {"microphone": "device:clinic_microphone", "speaker": "device:clinic_speaker"}
    result = await clinic.test(Options(), devices=cards)
    lines = {each.check: each for each in result.findings}
    assert lines["speaker"].verdict is Verdict.PASS, lines["speaker"]
    assert lines["microphone"].verdict is Verdict.PASS
    pulse.mute("1")
    named(await clinic.test(Options(), devices=cards), "microphone_muted")
    pulse.mute("0")
    with pulse.noise():  # a room that can be heard, and a speaker that plays into another one
        apart = {"microphone": "device:clinic_microphone", "speaker": "device:pulse"}
        named(await clinic.test(Options(), devices=apart), "speaker_unheard")


async def test_a_wrong_configuration(clinic: Clinic, tmp_path: Path) -> None:
    toml = tmp_path / "kiosk.toml"
    toml.write_text("[devices]\ncamera_width = 'wide'\n")
    done = await asyncio.to_thread(command, ["--config", str(toml)])
    assert done.returncode == 1
    assert json.loads(done.stdout)["cause"] == "configuration_wrong"


def command(words: list[str], prefix: list[str] | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [*(prefix or []), sys.executable, "-m", "kiosk.cli", "selftest", "--json", "--silent", *words]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=90, check=False)


# --- the line


async def test_no_dns(clinic: Clinic) -> None:
    named(await clinic.test(hub={"address": "hub.clinic.invalid:8443"}), "no_dns")


@needs_root
async def test_no_network_at_all(clinic: Clinic) -> None:
    done = await asyncio.to_thread(command, ["--config", str(clinic.kiosk.toml)], ["unshare", "--net"])
    heard = phonecode.decode(json.loads(done.stdout)["code"])
    assert heard.cause is not None, done.stderr
    assert heard.cause.name == "no_address"
    assert heard.verdicts[Group.LINE] is Verdict.FAIL
    assert heard.verdicts[Group.HUB] is not Verdict.FAIL


class Portal(BaseHTTPRequestHandler):
    """Whatever is asked for: sign in first."""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", "http://login.hotspot.example/?from=kiosk")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


async def test_a_captive_portal(clinic: Clinic) -> None:
    """Which has the hub's address lead to itself, as their name servers do."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Portal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    try:
        named(
            await clinic.test(hub={"address": f"127.0.0.1:{port}"}, broker={"host": "127.0.0.1", "port": port}),
            "captive_portal",
        )
    finally:
        server.shutdown()
        server.server_close()


async def test_a_hub_that_is_away(clinic: Clinic) -> None:
    away = await clinic.test(
        hub={"address": f"127.0.0.1:{free_port()}"}, broker={"host": "127.0.0.1", "port": free_port()}
    )
    named(away, "hub_unreachable")


async def test_somebody_in_the_hubs_place(clinic: Clinic, tmp_path: Path) -> None:
    with pretending(b"", tls_of(new_authority(tmp_path / "ca"))) as (address, _):
        named(await clinic.test(hub={"address": f"127.0.0.1:{address.port}"}), "not_our_hub")


@pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (apt install libfaketime)")
async def test_a_wrong_clock(clinic: Clinic, tmp_path: Path) -> None:
    """Before any agent has been told the time."""
    copy = tmp_path / "state"
    shutil.copytree(clinic.kiosk.state_dir / "identity", copy / "identity")
    text = clinic.kiosk.toml.read_text().replace(str(clinic.kiosk.state_dir), str(copy))
    toml = tmp_path / "kiosk.toml"
    toml.write_text(text)
    lies = {"LD_PRELOAD": str(LIBRARY), "FAKETIME": "-40d", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    done = await asyncio.to_thread(command, ["--config", str(toml)], None, **lies)
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    assert "clock_wrong" in [each["cause"] for each in said["findings"]]
    assert phonecode.decode(said["code"]).verdicts[Group.CLOCK] is Verdict.FAIL


# --- the hub


async def test_a_broker_that_is_down(clinic: Clinic) -> None:
    named(await clinic.test(broker={"host": "127.0.0.1", "port": free_port()}), "broker_down")


async def test_a_broker_behind_a_firewall(clinic: Clinic) -> None:
    """Packets to it vanish: a socket whose line of waiting connections is full takes no more."""
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = [socket.socket() for _ in range(4)]
    try:
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        named(await clinic.test(broker={"host": "127.0.0.1", "port": full.getsockname()[1]}), "broker_blocked")
    finally:
        for each in (*waiting, full):
            each.close()


async def test_a_kiosk_that_has_not_joined(clinic: Clinic, tmp_path: Path) -> None:
    without = await clinic.test(kiosk={"state_dir": str(tmp_path)})
    assert "not_joined" in [each.cause for each in without.findings]
    assert phonecode.decode(without.code).verdicts[Group.HUB] is Verdict.FAIL


async def test_an_expired_certificate(clinic: Clinic) -> None:
    result = await clinic.test(kiosk=clinic.another("river-old", days=-2))
    assert "certificate_expired" in [each.cause for each in result.findings]
    assert phonecode.decode(result.code).verdicts[Group.HUB] is Verdict.FAIL


async def test_a_certificate_that_the_hub_never_gave(clinic: Clinic, tmp_path: Path) -> None:
    ours = app.open_authority(clinic.hub.settings)
    port = clinic.hub.settings.broker.listen_port
    new_identity(
        tmp_path / "identity", new_authority(tmp_path / "ca"), "stranger", port,
        f"https://127.0.0.1:{clinic.hub.port}", trusts=ours,
    )  # fmt: skip
    result = await clinic.test(kiosk={"state_dir": str(tmp_path)})
    assert "certificate_refused" in [each.cause for each in result.findings]


async def test_an_agent_that_does_not_run(clinic: Clinic, tmp_path: Path) -> None:
    shutil.copytree(clinic.kiosk.state_dir / "identity", tmp_path / "identity")
    named(await clinic.test(kiosk={"state_dir": str(tmp_path)}), "agent_down")


@contextlib.contextmanager
def turn_at(clinic: Clinic, *urls: str, secret: str = SECRET) -> Iterator[None]:
    clinic.hub.kill()
    clinic.hub.set("ice", f'turn_secret = "{secret}"')
    clinic.hub.set("ice", "turn_urls = " + json.dumps(urls))
    clinic.hub.start()
    yield


async def test_turn_that_is_blocked(clinic: Clinic) -> None:
    """Nothing comes back by UDP, and nobody listens by TCP."""
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        udp, tcp = silent.getsockname()[1], free_port()
        with turn_at(clinic, f"turn:127.0.0.1:{udp}?transport=udp", f"turn:127.0.0.1:{tcp}?transport=tcp"):
            named(await clinic.test(), "turn_blocked")


@pytest.mark.skipif(TURNSERVER is None, reason="turnserver is missing (apt install coturn)")
async def test_a_turn_server_with_another_secret_and_then_with_the_same(clinic: Clinic, tmp_path: Path) -> None:
    from tests.adapters import turn

    server = Turn(tmp_path, "127.0.0.1")
    await server.start()
    try:
        with turn_at(clinic, server.url("udp"), server.url("tcp"), secret="not coturn's"):
            named(await clinic.test(), "turn_refused")
        with turn_at(clinic, server.url("udp"), server.url("tcp"), secret=turn.SECRET):
            lines = {each.check: each for each in (await clinic.test()).findings}
            assert lines["TURN"].verdict is Verdict.PASS, lines["TURN"]
            assert lines["TURN"].says.count("allocated") == 2
            assert lines["NAT"].says.startswith("none")
            assert lines["loss"].verdict is Verdict.PASS
    finally:
        await server.stop()


async def test_a_button_that_is_stuck(clinic: Clinic) -> None:
    """The last: to the kiosk it is an emergency first."""

    def down_s() -> float:
        with Visit(door_path(clinic.kiosk.state_dir)) as visit:
            return visit.state().button_down_s

    await clinic.kiosk.board.down()
    try:
        await until(lambda: down_s() > STUCK_S, 15, "a button that is down for long", interval_s=0.5)
        named(await clinic.test(), "button_stuck")
    finally:
        await clinic.kiosk.board.up()
