"""A doctor's page at a hub that stands in (`standin.py`), and a second page to play the kiosk over real WebRTC.

Each test leaves with no script error and no violation of the Content-Security-Policy.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.adapters.console.desk import WIDE, Desk
from tests.adapters.console.standin import serving

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=document-user-activation-required",
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    if shutil.which(CHROMIUM) is None:
        pytest.skip("no Chromium here: apt install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def desk(browser: Browser) -> AsyncIterator[Desk]:
    async with serving() as standin:
        context, kiosk_context = await browser.new_context(viewport=WIDE), await browser.new_context()
        desk = Desk(standin, kiosk_context, await context.new_page())
        yield desk
        hacked = await desk.page.evaluate("window.hacked")
        await context.close()
        await kiosk_context.close()
        assert desk.wrong == []
        assert hacked is None
