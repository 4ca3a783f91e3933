"""A program of the kit as a real process: started, watched by what it logs, killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Line(NamedTuple):
    at: float  # time.monotonic()
    text: str


class Program:
    """`lines` holds what it wrote on both outputs over all its starts; the log file keeps the same for failures."""

    def __init__(self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name, self.argv, self.log = name, list(argv), log
        self.lines: list[Line] = []
        self.env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._drained = False  # it has ended, and all it wrote is in `lines`
        self._groups: list[int] = []  # one a start: children may outlive their parent
        self._readers: list[asyncio.Task[None]] = []
        self._wrote = asyncio.Condition()

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        assert not self.running, f"{self.name} runs already"
        self._drained = False
        # A pipe of our own: asyncio's would have `wait` wait for the children that hold it too.
        ours, its = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.argv, env=self.env, stdin=asyncio.subprocess.DEVNULL, stdout=its, stderr=its,
                start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(its)
        self._groups.append(self._process.pid)
        self._readers.append(asyncio.create_task(self._read(ours, self._process)))

    async def until_line(self, pattern: str, timeout_s: float = 15.0, since: int = 0) -> re.Match[str]:
        """The first line from `lines[since]` on that matches; fails early where the program has ended."""
        compiled = re.compile(pattern)

        def found() -> re.Match[str] | None:
            return next((match for line in self.lines[since:] if (match := compiled.search(line.text))), None)

        try:
            async with asyncio.timeout(timeout_s), self._wrote:
                while (match := found()) is None:
                    assert not self._drained, f"{self.name} ended before it wrote {pattern!r}:\n{self.tail()}"
                    await self._wrote.wait()
                return match
        except TimeoutError:
            raise AssertionError(f"{self.name} did not write {pattern!r} in {timeout_s} s:\n{self.tail()}") from None

    async def kill(self) -> None:
        """SIGKILL to this process alone; returns when it is gone."""
        assert self._process is not None
        if self.running:
            self._process.kill()
        await self._process.wait()

    async def stop(self, timeout_s: float = 10.0) -> int:
        """SIGTERM, as systemd does; the exit code. What is left of its groups is killed afterwards."""
        if self._process is None:
            return 0
        try:
            if self.running:
                self._process.terminate()
            async with asyncio.timeout(timeout_s):
                return await self._process.wait()
        finally:
            for group in self._groups:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            self._groups.clear()
            await asyncio.gather(*self._readers)
            self._readers.clear()

    async def ended(self, timeout_s: float = 15.0) -> int:
        """The exit code, once it ends by itself."""
        assert self._process is not None
        async with asyncio.timeout(timeout_s):
            return await self._process.wait()

    def tail(self, lines: int = 40) -> str:
        return "\n".join(line.text for line in self.lines[-lines:])

    async def _read(self, pipe: int, process: asyncio.subprocess.Process) -> None:
        reader = asyncio.StreamReader(limit=2**20)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb", 0)
        )
        ending = asyncio.create_task(self._tell_end(process))
        with self.log.open("a", encoding="utf-8") as log:
            while raw := await reader.readline():
                text = raw.decode(errors="replace").rstrip("\n")
                log.write(text + "\n")
                log.flush()
                async with self._wrote:
                    self.lines.append(Line(time.monotonic(), text))
                    self._wrote.notify_all()
        await ending

    async def _tell_end(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        await asyncio.sleep(0.3)  # its last lines may still be in the pipe, which a child may hold open
        async with self._wrote:
            self._drained = process is self._process
            self._wrote.notify_all()


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def command_line(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")


_GIVEN: deque[int] = deque(maxlen=500)


def free_port(host: str = "127.0.0.1") -> int:
    """Below those that the kernel gives to clients, and another for each of pytest's workers: it is still free when the
    program that is told it listens. None is given again soon, as nobody may listen on it yet."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    while True:
        port = 10_000 + worker * 2_500 + random.randrange(2_500)
        if port in _GIVEN:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            _GIVEN.append(port)
            return port


async def until(probe: Callable[[], T], timeout_s: float, what: str, interval_s: float = 0.02) -> T:
    """What `probe` gives as soon as that is true; for things that have no event of their own (files, ports)."""
    deadline = time.monotonic() + timeout_s
    while not (value := probe()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(interval_s)
    return value
