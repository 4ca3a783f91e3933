"""Real processes under the harness: watched, killed, started again, and never left behind."""

import asyncio
import os
import sys

import pytest

from tests.e2e.program import Program, children, command_line, until

TALKER = "import time; print('ready', flush=True); time.sleep(60)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {TALKER!r}])"


@pytest.fixture
async def program(tmp_path):
    started = []

    def make(code: str) -> Program:
        started.append(Program("sample", [sys.executable, "-c", code], tmp_path / "sample.log"))
        return started[-1]

    yield make
    for each in started:
        await each.stop()


async def test_a_line_is_awaited_and_logged(program, tmp_path):
    sample = program(TALKER)
    await sample.start()
    await sample.until_line("^ready$", timeout_s=5)
    assert (tmp_path / "sample.log").read_text() == "ready\n"
    assert sample.running


async def test_an_early_end_is_told_at_once(program):
    sample = program("raise SystemExit('no such camera')")
    await sample.start()
    with pytest.raises(AssertionError, match="no such camera"):
        await sample.until_line("ready", timeout_s=30)
    assert await sample.ended() == 1


async def test_a_kill_is_a_kill_and_a_restart_goes_on(program):
    sample = program(TALKER)
    await sample.start()
    await sample.until_line("ready")
    first = sample.pid
    await sample.kill()
    assert not sample.running
    seen = len(sample.lines)
    await sample.start()
    await sample.until_line("ready", since=seen)
    assert sample.pid != first


async def test_children_are_found_and_not_left_behind(program):
    sample = program(PARENT)
    await sample.start()
    await sample.until_line("ready")
    (child,) = children(sample.pid)
    assert TALKER in command_line(child)
    await sample.kill()
    os.kill(child, 0)  # orphaned, and alive
    await sample.stop()
    await until(lambda: not alive(child), 5, "the orphan is gone")


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_waiting_for_what_never_comes_fails():
    with pytest.raises(AssertionError, match="a miracle"):
        await until(lambda: None, 0.1, "a miracle")
    assert await asyncio.wait_for(until(lambda: 7, 1, "seven"), 1) == 7
