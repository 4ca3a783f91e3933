"""Supervises the media process: starts it, takes its one connection, starts it again when it dies.

At once after the first death, with growing pauses when deaths follow one another. The process dies with the agent
(PDEATHSIG, and the socket closing). See `edge_agent.ipc` for what is spoken.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from edge_agent import ipc

log = logging.getLogger(__name__)

READY_TIMEOUT_S = 30.0  # a Pi imports aiortc and cv2 in a few seconds; a camera may take some more
STOP_TIMEOUT_S = 2.0
STEADY_S = 60.0
PAUSES_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

_PR_SET_PDEATHSIG = 1  # prctl(2); kept over exec, lost where a program changes its user
_libc = ctypes.CDLL(None, use_errno=True)


class MediaListener(Protocol):
    def media_frame(self, frame: Any) -> None:
        """Every frame; the first of a process is `MediaReady`."""

    def media_died(self) -> None:
        """Or could not be started."""


class MediaProcess:
    """`run` keeps the process until cancelled. `argv` is completed with the socket's path in place of "{socket}"."""

    def __init__(self, argv: Sequence[str], run_dir: Path, listener: MediaListener) -> None:
        self._argv, self._listener = argv, listener
        self._run_dir = run_dir
        self._link: ipc.Link | None = None
        self._ready = False
        self.pid = 0

    @property
    def up(self) -> bool:
        return self._ready

    def send(self, frame: ipc.ToMedia) -> bool:
        """False where there is no process to take it."""
        if self._link is None or not self._ready:
            return False
        self._link.send(frame)
        return True

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        folder = self._run_dir / "media"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        deaths = 0
        try:
            while True:
                began = loop.time()
                with ipc.short_path(folder / "media.sock") as short:
                    why = await self._one_life(folder / "media.sock", short)
                self._listener.media_died()
                deaths = 1 if loop.time() - began > STEADY_S else deaths + 1
                pause = PAUSES_S[min(deaths, len(PAUSES_S)) - 1]
                log.warning("media process ended reason=%s again_in_s=%.1f", why, pause)
                await asyncio.sleep(pause)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _one_life(self, socket: Path, short: str) -> str:
        """From the start of a process to its end; says why it ended. `short`: this process's way to the socket."""
        connected: asyncio.Future[ipc.Link] = asyncio.get_running_loop().create_future()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if connected.done():
                writer.close()
            else:
                connected.set_result(ipc.Link(reader, writer, ipc.FromMedia))

        with suppress(FileNotFoundError):
            os.unlink(socket)  # of a life before
        server = await asyncio.start_unix_server(accept, short)
        process: asyncio.subprocess.Process | None = None
        try:
            argv = [part.replace("{socket}", str(socket)) for part in self._argv]
            try:
                process = await asyncio.create_subprocess_exec(
                    *argv, stdin=asyncio.subprocess.DEVNULL, preexec_fn=ends_with_this_process()
                )
            except OSError as error:
                return f"it cannot be started: {error}"
            self.pid = process.pid
            exited = asyncio.create_task(process.wait())
            try:
                async with asyncio.timeout(READY_TIMEOUT_S):
                    await asyncio.wait((connected, exited), return_when=asyncio.FIRST_COMPLETED)
                if not connected.done():
                    return f"exit status {exited.result()} before it connected"
                self._link = connected.result()
                return await self._listen(self._link)
            except TimeoutError:
                return f"it was not ready within {READY_TIMEOUT_S:.0f} s"
            finally:
                exited.cancel()
        finally:
            self._ready = False
            if self._link is not None:
                self._link.close()
                self._link = None
            server.close()
            if process is not None:
                await asyncio.shield(_end(process))
            self.pid = 0

    async def _listen(self, link: ipc.Link) -> str:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                frame = await link.receive()
            if frame is not None and not isinstance(frame, ipc.MediaReady):
                return "its first frame was not MediaReady"
            self._ready = frame is not None
            while frame is not None:
                self._listener.media_frame(frame)
                frame = await link.receive()
        except ipc.ProtocolError as error:
            return f"it speaks something else: {error}"
        return "it closed its connection"


async def _end(process: asyncio.subprocess.Process) -> None:
    """It ends by itself when its socket closes; otherwise it is made to."""
    for stop in (None, process.terminate, process.kill):
        if stop is not None and process.returncode is None:
            stop()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            return
        except TimeoutError:
            continue


def ends_with_this_process() -> Callable[[], None]:
    """For `preexec_fn`: the kernel kills the child when this process is gone, however it went."""
    parent = os.getpid()

    def ask_the_kernel() -> None:
        if sys.platform == "linux":
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # gone before that was said
            os._exit(1)

    return ask_the_kernel
