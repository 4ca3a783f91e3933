"""A kiosk as real processes: the agent and the media process it supervises, with known speech for the microphone, a
file for the speaker, numbered pictures and a simulated board; and the hands of whoever stands before it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sqlite3
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from edge_agent.identity import Identity
from kiosk.prompts import Prompts
from kiosk.screen import View
from tests import kiosk_store
from tests.e2e.kiosk_page import BoardPanel, KioskPage
from tests.e2e.lab import Village
from tests.e2e.program import Program, children, command_line, free_port, until
from tests.e2e.speech import RATE_HZ, Samples, holds, read_wav

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}
CLI = (sys.executable, "-m", "kiosk.cli")
START_TIMEOUT_S = 30.0
INSTRUCTION = "Carry the patient to the road. Call the ambulance from the shop."
PIN = "4711"  # of the worker's face
QUIET_S = 1.2  # the longest pause within a spoken prompt is shorter
LOUD = 300  # of 32767

Settings = dict[str, dict[str, Any]]


def lay_over(settings: Settings, over: Settings) -> None:
    for section, values in over.items():
        settings.setdefault(section, {}).update(values)


class Kiosk:
    """`settings` is its configuration; `join` puts its identity into the state folder."""

    def __init__(self, folder: Path, name: str, microphone: Path, lab: Village | None = None) -> None:
        self.folder, self.name = folder, name
        self.state_dir = folder / "state"
        self.toml = folder / "kiosk.toml"
        self.speaker_wav = folder / "speaker.wav"
        self.settings: Settings = {
            "kiosk": {"state_dir": str(self.state_dir), "emergency_instruction": INSTRUCTION, "languages": ["en"]},
            "devices": {
                "camera": "synthetic",
                "microphone": f"wav:{microphone}",
                "speaker": f"wav:{self.speaker_wav}",
                "board": "simulated",
            },
            "screen": {"port": free_port()},
        }
        folder.mkdir(parents=True, exist_ok=True)
        self._lab = lab
        agent = self.command("agent", "--config", str(self.toml))
        self.agent = Program(name, agent, folder / "agent.log", ENVIRONMENT)
        dial = lab.connect if lab else None
        self.screen = KioskPage(self.port, dial)
        self.board = BoardPanel(self.port, dial)

    def command(self, *arguments: str) -> list[str]:
        """A command of the kit, run where this kiosk runs."""
        command = [*CLI, *arguments]
        return self._lab.command(*command) if self._lab else command

    def write_settings(self) -> None:
        self.toml.write_text(tomli_w.dumps(self.settings))

    def change_settings(self, over: Settings) -> None:
        """In the file as it stands; in force when the agent starts again."""
        now = tomllib.loads(self.toml.read_text())
        lay_over(now, over)
        self.toml.write_text(tomli_w.dumps(now))

    @property
    def identity_dir(self) -> Path:
        return self.state_dir / "identity"

    def identity(self) -> Identity:
        """What `join` gave it."""
        return Identity.load(self.identity_dir)

    @property
    def port(self) -> int:
        """Of its screen."""
        return int(self.settings["screen"]["port"])

    # --- its processes

    async def start(self) -> None:
        await self.agent.start()
        await self.screen.open()
        await self.board.open()
        await self.screen.until(lambda view: True, "anything", START_TIMEOUT_S)

    async def stop(self) -> None:
        await self.screen.close()
        await self.board.close()
        await self.agent.stop()

    async def restart(self) -> None:
        """After a kill: as systemd would."""
        await self.agent.start()

    @property
    def media_pid(self) -> int | None:
        """The media process that the agent supervises now."""
        for child in children(self.agent.pid) if self.agent.running else ():
            with contextlib.suppress(FileNotFoundError):
                if "media" in command_line(child):
                    return child
        return None

    def kill_media(self) -> float:
        """SIGKILL; Unix seconds of it."""
        assert self.media_pid is not None
        os.kill(self.media_pid, signal.SIGKILL)
        return time.time()

    async def until_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Idle, online, and its media process up."""
        await self.screen.until(lambda view: view.screen == "idle" and view.online, "idle and online", timeout_s)
        await self.until_media(timeout_s)

    async def until_media(self, timeout_s: float = START_TIMEOUT_S) -> None:
        pid = await until(lambda: self.media_pid, timeout_s, "the media process is up")
        await self.agent.until_line(rf"media process ready pid={pid}\b", timeout_s)

    # --- before the screen

    async def to_idle(self) -> None:
        """Whatever a test has left on the screen is brought to its end."""
        if not self.agent.running:
            await self.agent.start()
        await self.board.up()
        await self.screen.act("lock")
        ways_out = {"ringing": "cancel", "claimed": "cancel", "incoming": "cancel", "live": "end", "lost": "end"}
        deadline = time.monotonic() + START_TIMEOUT_S
        while (view := await self._now()).screen != "idle":
            assert time.monotonic() < deadline, f"{self.name} does not become idle: {view}"
            seen = len(self.screen.views)
            await self.screen.act("save" if view.screen == "draft" else ways_out.get(view.screen, "dismiss"))
            with contextlib.suppress(AssertionError):
                await self.screen.when(lambda view, left=view.screen: view.screen != left, "another", 5.0, since=seen)
        await self.until_ready()

    async def leave_message(
        self, voice_s: float = 0.0, photos: int = 0, complaints: int = 0, urgency: str = "routine"
    ) -> str:
        """Through the guided message on the screen to the moment it says "saved"; the consult. The message is open."""
        await self.on_step("voice")
        if voice_s:
            await self.record(voice_s)
        for step in ("photo", "complaint", "urgency", "review"):
            await self.screen.act("step", step)
            view = await self.on_step(step)
            if step == "photo":
                for count in range(1, photos + 1):
                    await self.take_photo(count)
            if step == "complaint":
                for code in view.complaints[:complaints]:
                    await self.screen.act("complaint", code)
                    await self.screen.until(
                        lambda view, code=code: view.draft is not None and code in view.draft.complaints, code
                    )
            if step == "urgency":
                await self.screen.act("urgency", urgency)
                await self.screen.until(lambda view: view.draft is not None and view.draft.urgency == urgency, urgency)
        await self.screen.act("save")
        view = await self.screen.until(lambda view: view.screen == "saved", "saved")
        assert view.saved_consult
        return view.saved_consult

    async def on_step(self, step: str) -> View:
        return await self.screen.until(
            lambda view: view.screen == "draft" and view.draft is not None and view.draft.step == step,
            f"the step {step}",
        )

    async def record(self, seconds: float) -> None:
        def long_enough(view: View) -> bool:
            return view.draft is not None and view.draft.recording and view.draft.elapsed_ms >= seconds * 1000

        for attempts_left in (2, 1, 0):
            draft = (await self.on_step("voice")).draft
            assert draft is not None
            if not draft.recording:
                await self.screen.act("record")
            try:
                await self.screen.until(long_enough, f"{seconds} s of recording", seconds + 8)
                break
            except AssertionError:  # a touch that crossed with another one's effect has ended it again
                if not attempts_left:
                    raise
        await self.screen.act("record")
        await self.screen.until(
            lambda view: view.draft is not None and view.draft.voice_ms >= seconds * 900 and not view.draft.busy,
            "the recorded note",
        )

    async def take_photo(self, count: int) -> None:
        await self.screen.act("photo")
        await self.screen.until(
            lambda view: view.draft is not None and len(view.draft.photos) == count and not view.draft.busy,
            f"photo {count}",
        )

    async def until_step(self, consult: str, step: str, timeout_s: float = 15.0) -> None:
        """How far a consult has come, as the worker's face shows it; behind the PIN for as long as this takes."""
        await self.screen.act("worker")
        await self.screen.until(lambda view: view.worker_face == "pin", "the keypad")
        await self.screen.act("pin", PIN)
        try:
            await self.screen.until(
                lambda view: (
                    view.worker is not None
                    and any(line.id == consult and line.step == step for line in view.worker.consults)
                ),
                f"{consult} {step} on the worker's face",
                timeout_s,
            )
        finally:
            await self.screen.act("lock")
            await self.screen.until(lambda view: view.worker is None, "the worker's face locked")

    # --- what is heard

    def heard_length(self) -> int:
        """Samples that the speaker has played since the media process opened it."""
        return max(0, self.speaker_wav.stat().st_size - 44) // 2 if self.speaker_wav.exists() else 0

    def heard(self, since: int = 0) -> Samples:
        return read_wav(self.speaker_wav)[since:]

    def heard_since(self, at: float) -> Samples:
        """From a Unix time on. The speaker's file stands still while nothing is played, and gets that silence with the
        next sound: places in it are told from its end."""
        if not self.speaker_wav.exists():
            return np.zeros(0, np.int16)
        length, ended = self.heard_length(), self.speaker_wav.stat().st_mtime
        return self.heard(max(0, length - max(0, round((ended - at) * RATE_HZ))))

    async def until_sound(self, since: int, timeout_s: float = 10.0) -> None:
        def loud() -> bool:
            return self.heard_length() > since and bool(np.any(np.abs(self.heard(since).astype(np.int32)) > LOUD))

        await until(loud, timeout_s, "sound from the speaker", 0.1)

    async def until_says(self, prompt: str, since: int, timeout_s: float = 10.0) -> None:
        """The spoken prompt, found in what the speaker has played from `since` on."""
        clip = read_wav(_spoken(prompt))

        def said() -> bool:
            start = since if self.heard_length() >= since else 0  # a new media process begins the file anew
            return self.heard_length() > start and holds(self.heard(start), clip)

        await until(said, timeout_s, f"the prompt {prompt!r} from the speaker", 0.1)

    async def until_quiet(self, timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            start = self.heard_length()
            await asyncio.sleep(QUIET_S)  # silence can only be waited for
            fresh = self.heard(start).astype(np.int32)
            if not np.any(np.abs(fresh[-int(QUIET_S * RATE_HZ) :]) > LOUD):
                return
            assert time.monotonic() < deadline, "the speaker does not become quiet"

    async def first(self, what: str, since_line: int, timeout_s: float = 10.0) -> float:
        """Unix seconds at which the agent said that the first far sound ("heard") or picture ("seen") of a call went
        out, in what it wrote from `since_line` on."""
        pattern = re.compile(rf"first {what} call=")
        await self.agent.until_line(pattern.pattern, timeout_s, since_line)
        line = next(line for line in self.agent.lines[since_line:] if pattern.search(line.text))
        return line.at + time.time() - time.monotonic()

    # --- what is on its disk

    def rows(self, query: str, *values: object) -> list[Any]:
        return kiosk_store.read_rows(self.state_dir, query, values)

    def saved_files(self, consult: str) -> list[tuple[str, bytes]]:
        """(role or rendition, bytes) of the consult's files, each checked against the digest it is kept under."""
        return kiosk_store.saved_files(self.state_dir, consult)

    def unsent(self) -> list[str]:
        """Messages and files that have no receipt from the hub yet."""
        return kiosk_store.unsent(self.state_dir)

    async def until_all_sent(self, timeout_s: float = 20.0) -> None:
        try:
            await until(lambda: not self.unsent(), timeout_s, "everything has its receipt", 0.1)
        except AssertionError:
            raise AssertionError(f"without a receipt after {timeout_s} s: {self.unsent()}") from None

    async def _now(self) -> View:
        return await self.screen.until(lambda view: True, "anything", START_TIMEOUT_S)


@cache
def _spoken(prompt: str) -> Path:
    made = Prompts(Path(tempfile.mkdtemp(prefix="teleconsult-prompts-"))).path(prompt, "en")
    assert made is not None, "espeak-ng is missing"
    return made


def read_rows(path: Path, query: str, values: Sequence[object]) -> list[sqlite3.Row]:
    """Of an SQLite database that another process has open."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as database:
        database.row_factory = sqlite3.Row
        return database.execute(query, values).fetchall()
