"""A real Chromium with a known voice and numbered pictures for microphone and camera, and a tap on what its page
hears and shows (`tap.js`)."""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from playwright.async_api import Browser, Page, async_playwright

from hardware.numbered import COLUMNS, ROW_PART, ROWS
from tests.e2e.pictures import Sighting, number_of_levels
from tests.e2e.speech import RATE_HZ, Samples

CHROMIUM = "/usr/bin/chromium"
SCRIPT = Path(__file__).with_name("tap.js")


@asynccontextmanager
async def open_browser(microphone: Path | None = None, camera: Path | None = None) -> AsyncIterator[Browser]:
    """Headless Chromium; its fake microphone loops a WAV and its fake camera a Y4M."""
    args = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        "--autoplay-policy=no-user-gesture-required",
        "--disable-background-networking",
        "--no-first-run",
    ]
    if microphone is not None:
        args.append(f"--use-file-for-fake-audio-capture={microphone}")
    if camera is not None:
        args.append(f"--use-file-for-fake-video-capture={camera}")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=args)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass(frozen=True)
class Sound:
    """What one far audio track gave. Times are Unix seconds; `heard_at` is 0 for silence."""

    samples: Samples
    started_at: float
    heard_at: float


class Tap:
    """Put on a page before it is loaded."""

    def __init__(self, page: Page) -> None:
        self._page = page

    @classmethod
    async def put_on(cls, page: Page) -> Tap:
        await page.add_init_script(path=SCRIPT)
        return cls(page)

    async def sounds(self) -> int:
        """How many far audio tracks there have been since the page was loaded: one a leg of a call."""
        count: int = await self._page.evaluate("__proof.sounds.length")
        return count

    async def sound(self, index: int = -1) -> Sound:
        """All that a far track has given so far."""
        taken: dict[str, Any] = await self._page.evaluate("index => __proof.takeSound(index)", index)
        if taken["rate"] not in (0, RATE_HZ):
            raise AssertionError(f"the page gives sound at {taken['rate']} Hz")
        return Sound(
            np.frombuffer(base64.b64decode(taken["data"]), "<i2"), taken["startedAt"] / 1000, taken["heardAt"] / 1000
        )

    async def pieces(self, whose: str, index: int = -1, since: float = 0.0) -> tuple[int, list[tuple[float, Samples]]]:
        """A track of "sounds" or "spoken": its rate, and its pieces with the Unix seconds at which each came; its first
        sample is that much earlier."""
        taken: dict[str, Any] = await self._page.evaluate(
            "([index, whose, since]) => __proof.takeSound(index, whose, since)", [index, whose, 1000 * since]
        )
        samples = np.frombuffer(base64.b64decode(taken["data"]), "<i2")
        ends = np.cumsum(taken["lengths"])
        return taken["rate"], [
            (at / 1000, samples[end - length : end])
            for at, end, length in zip(taken["at"], ends, taken["lengths"], strict=True)
        ]

    async def buffer_s(self, seconds: float) -> float:
        """How long the far voice waits in the browser's jitter buffer, over the next `seconds`."""
        delay_s, samples = await self._page.evaluate("__proof.buffered()")
        await asyncio.sleep(seconds)
        later_s, later = await self._page.evaluate("__proof.buffered()")
        return (later_s - delay_s) / (later - samples) if later > samples else math.inf

    async def watch(self, selector: str) -> None:
        """Starts reading the numbers off the video or canvas at `selector`, now or as soon as there is one."""
        strip = {"columns": COLUMNS, "rows": ROWS, "rowPart": ROW_PART}
        await self._page.evaluate("([selector, strip]) => __proof.watch(selector, strip)", [selector, strip])

    async def sightings(self, selector: str) -> list[Sighting]:
        """(Unix seconds, number) of every picture so far that had a number."""
        read = await self._page.evaluate("selector => __proof.pictures[selector] ?? []", selector)
        numbers = ((at / 1000, number_of_levels(levels)) for at, levels in read)
        return [(at, number) for at, number in numbers if number is not None]

    async def errors(self) -> list[str]:
        errors: list[str] = await self._page.evaluate("__proof.errors")
        return errors
