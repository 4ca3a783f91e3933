"""Keeps a few processes running while the demo runs, and none of them a moment longer.

Each child is started again when it dies, at once the first time and after growing pauses when deaths follow one
another. The kernel ends them with this process (PDEATHSIG), so that not even SIGKILL leaves one behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from edge_agent.media_process import ends_with_this_process

PAUSES_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_S = 30.0  # up this long, the pauses begin anew
FIRST_TRIES = 3  # dead this often without having been ready once: it will not start
READY_TIMEOUT_S = 60.0  # a Raspberry Pi that reads everything from a slow card
STOP_TIMEOUT_S = 6.0
MAX_LOG_BYTES = 4 * 1024 * 1024


class WillNotStart(OSError):
    """One line with the last words of the child and where its log is."""


class Child:
    """`ready` waits until the process is of use; `said(line)` is for the person at the terminal; `echo(name, line)`,
    where given, gets everything that it writes, besides its log."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        ready: Callable[[], Awaitable[None]],
        said: Callable[[str], None],
        echo: Callable[[str, str], None] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self._argv, self._log, self._ready, self._said, self._echo = list(argv), log, ready, said, echo
        self._cwd = cwd
        self._process: asyncio.subprocess.Process | None = None
        self._was_ready = asyncio.Event()
        self._life: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> asyncio.Task[None]:
        """Returns when it is ready, with the task that keeps it alive from then on. Raises WillNotStart."""
        self._life = asyncio.create_task(self._live(), name=f"child {self.name}")
        first = asyncio.create_task(self._was_ready.wait())
        await asyncio.wait({self._life, first}, return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            first.cancel()
            await self._life  # raises
        return self._life

    async def stop(self) -> None:
        """Asks, then insists; gone with everything that it started when this returns."""
        if self._life is not None:
            self._life.cancel()
            with contextlib.suppress(asyncio.CancelledError, WillNotStart):
                await self._life
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()  # it alone: what it has started is its own to stop
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
        self._kill_group()
        await process.wait()

    async def _live(self) -> None:
        deaths = 0
        while True:
            began = time.monotonic()
            await self._spawn()
            why = await self._watch()
            lived_s = time.monotonic() - began
            deaths = 1 if lived_s > STEADY_S else deaths + 1
            if not self._was_ready.is_set() and deaths >= FIRST_TRIES:
                last = self._last_words()
                raise WillNotStart(f"the {self.name} does not start: {last or why}. Its log: {self._log}")
            pause_s = PAUSES_S[min(deaths, len(PAUSES_S)) - 1]
            again = f"starting it again in {pause_s:g} s" if pause_s else "starting it again"
            self._said(f"the {self.name} {why}; {again} (its log: {self._log})")
            await asyncio.sleep(pause_s)

    async def _watch(self) -> str:
        """How this life ended."""
        assert self._process is not None  # noqa: S101
        process = self._process
        echo = asyncio.create_task(self._copy_output(process)) if self._echo else None
        died = asyncio.create_task(process.wait())
        ready = asyncio.create_task(self._ready())
        too_late = False
        try:
            await asyncio.wait({died, ready}, timeout=READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if ready.done() and not died.done():
                ready.result()
                if self._was_ready.is_set():
                    self._said(f"the {self.name} is back")
                self._was_ready.set()
            elif not died.done():
                too_late = True
                self._kill_group()
            code = await died
        finally:
            died.cancel()
            ready.cancel()
        self._kill_group()  # what it had started
        if echo is not None:
            await echo
        if too_late:
            return f"was not ready after {READY_TIMEOUT_S:g} s"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    async def _spawn(self) -> None:
        if self._log.exists() and self._log.stat().st_size > MAX_LOG_BYTES:
            self._log.replace(self._log.with_suffix(".old.log"))
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if self._echo else log,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self._cwd,
                start_new_session=True,  # Ctrl-C comes to us alone, and we end them in order
                preexec_fn=ends_with_this_process(),
            )

    async def _copy_output(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101
        assert self._echo is not None  # noqa: S101
        with self._log.open("ab") as log:
            while True:
                try:
                    line = await process.stdout.readline()
                except ValueError:  # longer than the stream's limit
                    continue
                if not line:
                    return
                log.write(line)
                log.flush()
                self._echo(self.name, line.decode(errors="replace").rstrip("\n"))

    def _kill_group(self) -> None:
        assert self._process is not None  # noqa: S101
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _last_words(self) -> str:
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, self._log.stat().st_size - 4096))
                lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        except OSError:
            return ""
        return lines[-1] if lines else ""
