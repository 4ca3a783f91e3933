"""`teleconsult demo` as people use it: started, looked at, killed in every way, started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.program import Program, children, command_line, until

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
READY_S = 60.0  # the first start, on a machine that does other things too


class Demo:
    def __init__(self, folder: Path, *more: str) -> None:
        self.folder = folder / ".demo"
        self.home, self.tmp = folder / "home", folder / "tmp"
        for each in (self.home, self.tmp):
            each.mkdir(exist_ok=True, parents=True)
        argv = [sys.executable, "-m", "kiosk.cli", "demo", "--simulated", "--ports", "auto", "--dir", str(self.folder)]
        argv += more
        env = {"PYTHONPATH": str(ROOT), "HOME": str(self.home), "TMPDIR": str(self.tmp), "XDG_RUNTIME_DIR": ""}
        self.program = Program("demo", argv, folder / "demo.log", env)

    async def start(self) -> float:
        """Seconds until it was ready."""
        since, began = len(self.program.lines), time.monotonic()
        await self.program.start()
        await self.program.until_line("╰", READY_S, since)
        return time.monotonic() - began

    def find(self, pattern: str) -> str:
        (found,) = [match[1] for line in self.program.lines if (match := re.search(pattern, line.text))][-1:]
        return found

    @property
    def hub(self) -> str:
        return self.find(r"console +(http://127\.0\.0\.1:\d+) ")

    @property
    def screen(self) -> str:
        return self.find(r"screen +(http://127\.0\.0\.1:\d+) ")

    def processes(self) -> dict[int, list[str]]:
        """All below it, by pid."""
        found: dict[int, list[str]] = {}
        waiting = children(self.program.pid)
        while waiting:
            pid = waiting.pop()
            with contextlib.suppress(FileNotFoundError):
                found[pid] = command_line(pid)
                waiting += children(pid)
        return found

    def pid_of(self, *words: str) -> int:
        (pid,) = [pid for pid, argv in self.processes().items() if all(word in " ".join(argv) for word in words)]
        return pid

    def ports(self) -> list[int]:
        return [int(port) for port in re.findall(r"\d+", (self.folder / "ports.json").read_text())]


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[Demo]:
    demo = Demo(tmp_path)
    try:
        yield demo
    finally:
        await demo.program.stop(20)
        for log in (demo.program.log, *sorted((demo.folder / "logs").glob("*.log"))):  # shown where the test fails
            print(f"== {log.name}", *log.read_text(errors="replace").splitlines()[-30:], sep="\n")


def is_alive(pid: int) -> bool:
    """A zombie is none of ours any more: whoever adopted it reaps it when it likes."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def until_nothing_is_left(demo: Demo, pids: list[int], ports: list[int]) -> None:
    await until(lambda: not [pid for pid in pids if is_alive(pid)], 5, f"gone: {pids}")
    # A process is called gone when its first thread is; the others close its sockets an instant later.
    await until(lambda: not [port for port in ports if is_open(port)], 5, f"closed: {ports}")
    assert list(demo.home.iterdir()) == []
    assert list(demo.tmp.iterdir()) == []


async def test_it_starts_serves_and_leaves_nothing(demo: Demo) -> None:
    await demo.start()
    text = demo.program.tail(60)
    assert "\x1b" not in text
    password = demo.find(r"name doctor +password (\S+)")
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(demo.screen)).status_code == 200
        assert (await http.get(f"{demo.screen}/board")).status_code == 200
        assert (await http.get(f"{demo.hub}/health")).json()["broker"] is True
        signed_in = await http.post(
            f"{demo.hub}/api/login", json={"name": "doctor", "password": password}, headers={"origin": demo.hub}
        )
        assert signed_in.status_code == 204, signed_in.text
    pids, ports = list(demo.processes()), demo.ports()
    assert len(pids) >= 4, demo.processes()  # broker, hub, agent, media
    assert all(is_open(port) for port in ports)

    demo.program._process.send_signal(signal.SIGINT)  # type: ignore[union-attr]
    assert await demo.program.ended(20) == 0
    assert "all stopped" in demo.program.lines[-1].text
    await until_nothing_is_left(demo, pids, ports)

    # Again, with what it kept.
    hub, kiosk = demo.hub, (demo.folder / "kiosk.toml").read_text()
    assert await demo.start() <= 10
    assert (demo.hub, demo.find(r"name doctor +password (\S+)")) == (hub, password)
    assert (demo.folder / "kiosk.toml").read_text() == kiosk


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, marks=pytest.mark.long),
        signal.SIGKILL,
    ],
)
async def test_however_it_ends_nothing_goes_on(demo: Demo, number: signal.Signals) -> None:
    await demo.start()
    pids, ports = list(demo.processes()), demo.ports()
    os.kill(demo.program.pid, number)
    assert await demo.program.ended(20) == (-9 if number == signal.SIGKILL else 0)
    await until(lambda: not [pid for pid in pids if is_alive(pid)], 5, f"gone: {pids}")
    await until(lambda: not [port for port in ports if is_open(port)], 5, f"closed: {ports}")
    await demo.start()  # and nothing it left is in the way


async def test_stopped_while_it_starts_it_leaves_nothing(demo: Demo) -> None:
    await demo.program.start()
    await demo.program.until_line("starting broker", 20)
    await until(demo.processes, 20, "a first child")
    pids = list(demo.processes())
    os.kill(demo.program.pid, signal.SIGINT)
    assert await demo.program.ended(20) == 0
    await until(lambda: not [pid for pid in pids if is_alive(pid)], 5, f"gone: {pids}")
    await demo.start()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("broker", ["mosquitto"], marks=pytest.mark.long),
        pytest.param("hub", ["hub run"], marks=pytest.mark.long),
        ("kiosk", [" agent "]),
    ],
)
async def test_a_part_that_dies_is_said_and_started_again(demo: Demo, name: str, words: list[str]) -> None:
    await demo.start()
    since = len(demo.program.lines)
    os.kill(demo.pid_of(*words), signal.SIGKILL)
    await demo.program.until_line(f"the {name} was ended by SIGKILL; starting it again", 10, since)
    await demo.program.until_line(f"the {name} is back", 30, since)
    assert len(demo.program.lines) == since + 2, demo.program.tail(6)
    assert demo.pid_of(*words)


async def test_two_at_once_keep_out_of_each_others_way(demo: Demo, tmp_path: Path) -> None:
    other = Demo(tmp_path / "other")
    try:
        await asyncio.gather(demo.start(), other.start())
        assert not set(demo.ports()) & set(other.ports())
        async with httpx.AsyncClient(trust_env=False) as http:
            for each in (demo, other):
                assert (await http.get(f"{each.hub}/health")).json()["ok"] is True
    finally:
        await other.program.stop(20)


async def test_a_folder_in_use_is_refused_in_one_line(demo: Demo) -> None:
    await demo.start()
    second = Program("second", demo.program.argv, demo.folder.parent / "second.log", {"PYTHONPATH": str(ROOT)})
    await second.start()
    assert await second.ended(20) == 1
    assert len(second.lines) == 1
    assert second.lines[0].text == (
        f"teleconsult: another demo (process {demo.program.pid}) is at work in {demo.folder}; end it, or name another "
        "folder with --dir"
    )
    assert is_open(demo.ports()[0])


async def test_a_part_that_cannot_start_says_why_and_where_its_log_is(demo: Demo) -> None:
    demo.folder.mkdir()
    (demo.folder / "hub.toml").write_text('[site]\ntime_zone = "Nowhere"\n')
    await demo.program.start()
    assert await demo.program.ended(30) == 1
    assert "site.time_zone: found 'Nowhere'" in demo.program.lines[-1].text
