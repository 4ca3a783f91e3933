"""The doctor in Firefox: the real console page in Debian's Firefox ESR, driven over WebDriver BiDi.

Its microphone is the monitor of a sound card that plays known speech in a loop, its loudspeaker another card that is
recorded; its camera is Firefox's own moving test picture. What Playwright does for `Doctor` is done here by the page's
own elements, since no driver of ours speaks to an unpatched Firefox.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from hardware.numbered import COLUMNS, ROW_PART, ROWS
from tests.e2e.pictures import Seen, number_of_levels, seen
from tests.e2e.speech import RATE_HZ, Samples
from tests.e2e.tap import SCRIPT
from tests.sound_server import PulseAudio

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
FAR = "#far-video"
LOUDSPEAKER, MICROPHONE = "first", "clinic"  # of the sound server's cards
START_S = 30.0

PREFERENCES: dict[str, Any] = {
    "media.navigator.permission.disabled": True,
    "media.navigator.streams.fake": True,  # the camera; and a microphone that is a loopback device, named below
    "media.audio_loopback_dev": f"Monitor of {MICROPHONE}",
    "media.autoplay.default": 0,
    "media.autoplay.blocking_policy": 0,
    "remote.prefs.recommended": True,
    "app.update.disabledForTesting": True,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.enabled": False,
    "network.proxy.type": 0,
    "media.gmp-manager.updateEnabled": False,
    "browser.safebrowsing.downloads.remote.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
}


class Bidi:
    """The few commands that are needed (W3C WebDriver BiDi)."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._reader = asyncio.create_task(self._read())

    async def command(self, method: str, **parameters: Any) -> Any:
        number = next(self._ids)
        answered = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        answer = await asyncio.wait_for(answered, START_S)
        if answer["type"] == "error":
            raise AssertionError(f"{method}: {answer['error']}: {answer['message'][:500]}")
        return answer["result"]

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in self._socket:
                answer = json.loads(text)
                waiting = self._answers.pop(answer.get("id"), None)  # None for what is told unasked
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)

    async def close(self) -> None:
        self._reader.cancel()
        await self._socket.close()


class FirefoxDoctor:
    """Speaks as `tests.e2e.doctor.Doctor` where the same is done."""

    def __init__(self, bidi: Bidi, context: str, recording: Path) -> None:
        self._bidi, self._context, self._recording = bidi, context, recording

    async def evaluate(self, expression: str) -> Any:
        """The value of JSON's kind that it has, promises awaited."""
        answer = await self._bidi.command(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression})) ?? 'null')()",
            target={"context": self._context},
            awaitPromise=True,
        )
        if answer["type"] != "success":
            raise AssertionError(f"{expression[:200]}: {answer['exceptionDetails']['text']}")
        return json.loads(answer["result"]["value"])

    async def until(self, expression: str, timeout_s: float = 15.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not await self.evaluate(f"!!({expression})"):
            if time.monotonic() > deadline:
                words = await self.evaluate("document.body.innerText")
                raise AssertionError(f"{expression} is not so after {timeout_s} s; the page says:\n{words}")
            await asyncio.sleep(0.1)

    async def sit_down(self, url: str, name: str, password: str) -> None:
        await self._bidi.command("browsingContext.navigate", context=self._context, url=url, wait="complete")
        await self.until(_part("sign-in-submit"))
        for part, value in (("sign-in-name", name), ("sign-in-password", password)):
            await self.evaluate(
                f"(({_part(part)}).value = {json.dumps(value)}, "
                f"({_part(part)}).dispatchEvent(new Event('input', {{bubbles: true}})))"
            )
        await self.click("sign-in-submit")
        await self.until(f"{_part('available')}?.disabled === false")
        if await self.evaluate(f"{_part('available')}.getAttribute('aria-checked') !== 'true'"):
            await self.click("available")
        await self.until(f"{_part('available')}.getAttribute('aria-checked') === 'true'")
        strip = json.dumps({"columns": COLUMNS, "rows": ROWS, "rowPart": ROW_PART})
        await self.evaluate(f"__proof.watch({json.dumps(FAR)}, {strip})")

    async def click(self, part: str) -> None:
        await self.until(f"{_part(part)} && !{_part(part)}.disabled")
        await self.evaluate(f"{_part(part)}.click()")

    async def until_state(self, *states: str, timeout_s: float = 15.0) -> None:
        await self.until(f"{json.dumps(states)}.includes(document.body.dataset.callState)", timeout_s)

    async def take_call(self, timeout_s: float = 20.0) -> str:
        await self.until(_part("ring-card"), timeout_s)
        call: str = await self.evaluate(f"{_part('ring-card')}.dataset.call")
        await self.click("claim")
        await self.until(f"{_part('call-words')}?.textContent.includes('Connected and held')", timeout_s)
        await self.click("talk")
        await self.until_state("live", timeout_s=timeout_s)
        return call

    async def hang_up(self) -> None:
        await self.click("hang-up")

    async def listens(self) -> bool:
        audible: bool = await self.evaluate(
            f"(v => !!v && !v.muted && !v.paused && v.volume > 0)(document.querySelector({json.dumps(FAR)}))"
        )
        return audible

    async def newest_sound(self, seconds: float) -> Samples:
        """Off the loudspeaker."""
        raw = self._recording.read_bytes()
        return np.frombuffer(raw[: len(raw) // 2 * 2], "<i2")[-int(seconds * RATE_HZ) :]

    async def seen(self, since: float = 0.0) -> Seen:
        read = await self.evaluate(f"__proof.pictures[{json.dumps(FAR)}] ?? []")
        numbers = ((at / 1000, number_of_levels(levels)) for at, levels in read)
        return seen((at, number) for at, number in numbers if number is not None and at >= since)

    async def described(self) -> tuple[str, str]:
        """What was offered and what Firefox answered, in the newest leg."""
        pair = await self.evaluate(
            "(c => [c.remoteDescription.sdp, c.localDescription.sdp])(__proof.connections.at(-1))"
        )
        return pair[0], pair[1]

    async def statistics(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = await self.evaluate(
            "__proof.connections.at(-1).getStats().then(stats => [...stats.values()])"
        )
        return entries


def _part(name: str) -> str:
    return f"document.querySelector('[data-test=\"{name}\"]')"


@contextlib.asynccontextmanager
async def open_firefox(folder: Path, says: Path) -> AsyncIterator[FirefoxDoctor]:
    """`says`: a WAV that its microphone hears in a loop."""
    assert FIREFOX is not None
    sound = PulseAudio(folder)
    profile = folder / "profile"
    profile.mkdir()
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items())
    (profile / "user.js").write_text("".join(lines))
    recording = folder / "loudspeaker.s16"
    sound.start()
    started: list[asyncio.subprocess.Process] = []

    async def start(*argv: str, **options: Any) -> asyncio.subprocess.Process:
        quiet = {"stdout": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.DEVNULL}
        process = await asyncio.create_subprocess_exec(
            *argv, env=sound.environment, start_new_session=True, **(quiet | options)
        )
        started.append(process)
        return process

    try:
        speech = ["sh", "-c", f"while :; do tail -c +45 '{says}'; done | {_pacat('--playback', MICROPHONE)}"]
        await start(*speech)
        with recording.open("wb") as file:
            await start(*_pacat("--record", f"{LOUDSPEAKER}.monitor").split(), stdout=file)
        log = (folder / "firefox.log").open("wb")
        await start(
            FIREFOX, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0",
            stdout=log, stderr=log,
        )  # fmt: skip
        address = await _address(profile)
        async with connect(f"{address}/session", proxy=None, max_size=None, open_timeout=START_S) as socket:
            bidi = Bidi(socket)
            await bidi.command("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
            await bidi.command("script.addPreloadScript", functionDeclaration=f"() => {{ {SCRIPT.read_text()} }}")
            context = (await bidi.command("browsingContext.getTree"))["contexts"][0]["context"]
            await bidi.command("browsingContext.setViewport", context=context, viewport={"width": 1366, "height": 768})
            yield FirefoxDoctor(bidi, context, recording)
            await bidi.close()
    finally:
        for process in reversed(started):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        sound.kill()


def _pacat(way: str, device: str) -> str:
    return f"pacat {way} --device={device} --rate=48000 --channels=1 --format=s16le --raw --latency-msec=40"


async def _address(profile: Path) -> str:
    """Which Firefox writes into its profile once it listens."""
    path = profile / "WebDriverBiDiServer.json"
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError, ValueError):
            listening = json.loads(path.read_text())
            return f"ws://{listening['ws_host']}:{listening['ws_port']}"
        assert time.monotonic() < deadline, f"Firefox does not listen: {profile.parent / 'firefox.log'}"
        await asyncio.sleep(0.1)
