"""When a kiosk asks for a newer certificate."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

import pytest
import pytest_asyncio

from edge_agent import renewal
from edge_agent.renewal import Renewal


@pytest_asyncio.fixture
async def asked(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when the hub is asked, which refuses."""
    monkeypatch.setattr(renewal, "FIRST_S", 0.01)
    event, loop = asyncio.Event(), asyncio.get_running_loop()

    def refuse(*_: Any) -> None:
        loop.call_soon_threadsafe(event.set)
        raise renewal.Refused("not now")

    monkeypatch.setattr(renewal, "renew", refuse)
    return event


@contextlib.asynccontextmanager
async def running(held: bool):
    kept = Renewal(cast(Any, None), "hub", cast(Any, None), lambda _: None)
    kept.hold(held)
    task = asyncio.create_task(kept.run())
    try:
        yield kept
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_waits_for_the_end_of_a_call(asked: asyncio.Event) -> None:
    async with running(held=True) as kept:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asked.wait(), 0.2)
        kept.hold(False)
        await asyncio.wait_for(asked.wait(), 5)


async def test_a_broker_that_refuses_is_not_waited_with(asked: asyncio.Event) -> None:
    async with running(held=True) as kept:
        kept.now()
        await asyncio.wait_for(asked.wait(), 5)
