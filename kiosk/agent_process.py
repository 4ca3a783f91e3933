"""`teleconsult agent`: wires store, hub link, media process, board and screen together and runs them.

One agent a state folder, held by a lock that the kernel lets go when the process dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

from edge_agent.agent import Agent
from edge_agent.config import KioskSettings
from edge_agent.storage import StoreError, StoreThread
from hardware.api import Board, BoardUnavailable
from hardware.devices import open_board
from hardware.simulated import SimulatedBoard
from kiosk.language import available
from kiosk.notify import Supervisor
from kiosk.port import ScreenPort
from kiosk.prompts import Prompts
from kiosk.view import Surroundings
from kiosk.webapp import make_app, make_server
from kiosk.worker import WorkerLock

log = logging.getLogger(__name__)

OK, FAILED, WRONG_USE = 0, 1, 2


class CannotStart(OSError):
    """One line that says what to do."""


def run(settings: KioskSettings, config_path: Path | None, media_argv: Sequence[str] | None = None) -> int:
    """Until SIGTERM or SIGINT; gives the exit code. `media_argv` replaces the kit's own media process."""
    try:
        state_dir = _make_state_dir(settings)
        with _only_one(state_dir), contextlib.closing(StoreThread(state_dir / "store")) as store:
            return asyncio.run(_serve(settings, media_argv or _media_argv(config_path), state_dir, store))
    except (CannotStart, StoreError) as error:
        log.error("agent not started: %s", error)
        print(f"teleconsult agent: {error}", file=sys.stderr)
        return FAILED


def _make_state_dir(settings: KioskSettings) -> Path:
    state_dir = settings.state_dir
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        (state_dir / "run").mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise CannotStart(
            f"{state_dir} cannot be used: {error.strerror}; set kiosk.state_dir to another folder"
        ) from None
    return state_dir


@contextlib.contextmanager
def _only_one(state_dir: Path) -> Iterator[None]:
    with _open_lock(state_dir / "run" / "agent.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = lock.read().strip() or "unknown"
            raise CannotStart(
                f"another agent (process {pid}) runs on {state_dir}; stop it, or set kiosk.state_dir to another folder"
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _open_lock(path: Path) -> IO[str]:
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+", encoding="ascii")
    except OSError as error:
        raise CannotStart(f"{path} cannot be opened: {error.strerror}") from None


async def _serve(settings: KioskSettings, media_argv: Sequence[str], state_dir: Path, store: StoreThread) -> int:
    prompts = Prompts(
        state_dir / "prompts",
        _recordings(settings),
        _spoken_first(settings),
        spoken_dir=store.store.plain_space / "spoken",
    )
    agent = Agent(settings, store, prompts, _open_board(settings), media_argv, _software())
    lock = WorkerLock(settings.kiosk.worker_pin_hash, settings.screen.worker_lock_s)
    around = Surroundings(
        languages=tuple(code for code in settings.kiosk.languages if code in available()),
        emergency_instruction=settings.kiosk.emergency_instruction,
        speaks=prompts.speaks,
        simulated=isinstance(agent.board, SimulatedBoard),
    )
    listener = _listen(settings)
    server = make_server(make_app(ScreenPort(agent, lock, around)), settings.screen.host, settings.screen.port)
    # Signals end the whole agent, not the server alone.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    agent.start()
    prompts.make_ahead()
    supervisor = Supervisor()
    watching = asyncio.create_task(supervisor.watch(agent.alive))
    serving = asyncio.create_task(server.serve([listener]))
    failing = asyncio.create_task(agent.failed())
    stopping = asyncio.create_task(stop.wait())
    port_file = state_dir / "run" / "screen.json"
    try:
        host, port = listener.getsockname()[:2]
        _write_port(port_file, port)
        log.info("agent ready screen=http://%s:%d/", f"[{host}]" if ":" in host else host, port)
        supervisor.ready()
        await asyncio.wait((serving, failing, stopping), return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            log.critical("agent failed", exc_info=failing.exception())
            return FAILED
        return OK
    finally:
        supervisor.stopping()
        watching.cancel()
        port_file.unlink(missing_ok=True)
        failing.cancel()
        stopping.cancel()
        await agent.stop()
        server.should_exit = True
        await asyncio.gather(serving, failing, stopping, watching, return_exceptions=True)
        await asyncio.to_thread(prompts.close)
        log.info("agent stopped")


def _listen(settings: KioskSettings) -> socket.socket:
    host, port = settings.screen.host, settings.screen.port
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=32
        )
    except OSError as error:
        raise CannotStart(
            f"the screen's port {port} on {host} cannot be used: {error.strerror}; set screen.port to another"
        ) from None
    listener.setblocking(False)
    return listener


def _write_port(path: Path, port: int) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"port": port, "pid": os.getpid()}), encoding="ascii")
    os.replace(part, path)


def _open_board(settings: KioskSettings) -> Board | None:
    devices = settings.devices
    try:
        return open_board(
            devices.board,
            button_gpio=devices.button_gpio,
            lamp_red_gpio=devices.lamp_red_gpio,
            lamp_green_gpio=devices.lamp_green_gpio,
            lamp_blue_gpio=devices.lamp_blue_gpio,
        )
    except BoardUnavailable as error:
        log.warning("board missing: %s", error)
        return None


def _media_argv(config_path: Path | None) -> list[str]:
    argv = [sys.executable, "-m", "kiosk.cli", "media", "--socket", "{socket}"]
    return argv if config_path is None else [*argv, "--config", str(config_path)]


def _recordings(settings: KioskSettings) -> Path | None:
    return Path(settings.kiosk.prompts_dir).expanduser() if settings.kiosk.prompts_dir else None


def _spoken_first(settings: KioskSettings) -> tuple[str, ...]:
    """The kiosk's own language first; the others follow while nobody waits."""
    codes = (settings.kiosk.language, *settings.kiosk.languages)
    return tuple(dict.fromkeys(code for code in codes if code in available()))


def _software() -> str:
    """The release that is installed, see `edge_agent.update.installed`; else the package's version."""
    folder = Path(__file__).resolve().parents[1]
    if folder.parent.name == "releases":
        return folder.name
    try:
        return version("teleconsult-kit")
    except PackageNotFoundError:  # run from a clone
        return "0.1.0"
