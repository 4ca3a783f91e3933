"""`teleconsult export`: carries bundles between the running agent and a courier's stick.

What the hub has answered goes in first, so that only what still waits is written; what the stick holds already is not
written twice, and what no longer waits is taken off it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edge_agent import courier, ipc
from edge_agent.core.courier import NotWhole
from kiosk.stick import FROM_HUB, TO_HUB, Stick

ANSWER_S = 60.0  # a busy card's fsync

F = TypeVar("F", bound=ipc.Frame)


class AgentAway(OSError):
    """One line that says what to do."""


def export(folder: Path, run_dir: Path, say: Callable[[str], None], *, receipts_only: bool = False) -> int:
    """What still waits at this kiosk, in consults. Raises OSError: AgentAway, StickUnusable, or of the stick."""
    return asyncio.run(_export(Stick(folder), run_dir, say, receipts_only))


async def _export(stick: Stick, run_dir: Path, say: Callable[[str], None], receipts_only: bool) -> int:
    link = await _connect(run_dir)
    try:
        before = await _ask(link, courier.WhatWaits(), courier.Waiting)
        if stick.bundles(FROM_HUB, before.kiosk):
            await _take(stick, before.kiosk, link, say)
        waiting = await _ask(link, courier.WhatWaits(), courier.Waiting)
        confirmed = len(before.bundles) - len(waiting.bundles)
        if confirmed > 0:
            say(f"The health centre has confirmed {confirmed} of {len(before.bundles)} parcels that waited here.")
        if receipts_only:
            return waiting.consults
        stick.prepare(TO_HUB, waiting.kiosk)
        await _give(stick, waiting, link, say)
        return waiting.consults
    finally:
        link.close()


async def _connect(run_dir: Path) -> ipc.Link:
    try:
        with ipc.short_path(run_dir / courier.SOCKET) as short:
            reader, writer = await asyncio.open_unix_connection(short)
    except PermissionError:
        raise AgentAway("only root and the agent's own user may ask the agent; use sudo") from None
    except OSError:
        raise AgentAway(
            "the agent does not answer, or has not joined a hub; start it: sudo systemctl start teleconsult-agent"
        ) from None
    return ipc.Link(reader, writer, courier.FromAgent)


async def _ask(link: ipc.Link, frame: ipc.Frame, kind: type[F]) -> F:
    link.send(frame)
    return await _next(link, kind)


async def _next(link: ipc.Link, *kinds: type[F]) -> F:
    try:
        async with asyncio.timeout(ANSWER_S):
            frame = await link.receive()
    except TimeoutError:
        frame = None
    if not isinstance(frame, kinds):
        raise AgentAway("the agent has stopped meanwhile; start it and give the same command again, it goes on")
    return frame


async def _take(stick: Stick, kiosk: str, link: ipc.Link, say: Callable[[str], None]) -> None:
    for path in stick.bundles(FROM_HUB, kiosk):
        try:
            for sealed in stick.read(path):
                link.send(courier.Take(sealed))
                await link.drained()
        except NotWhole as error:
            say(f"{path.name} is passed over: {error}. The health centre writes it again at the next import.")
            continue
        await _ask(link, courier.Flush(), courier.Flushed)
        stick.remove(path)


async def _give(stick: Stick, waiting: courier.Waiting, link: ipc.Link, say: Callable[[str], None]) -> None:
    names = {bundle.name for bundle in waiting.bundles}
    stick.clear_leftovers(TO_HUB, waiting.kiosk)
    for path in stick.bundles(TO_HUB, waiting.kiosk):
        if path.stem not in names:
            stick.remove(path)
    total, done = sum(bundle.bytes for bundle in waiting.bundles), 0
    for number, bundle in enumerate(waiting.bundles, 1):
        if not stick.holds(TO_HUB, waiting.kiosk, bundle.name):
            link.send(courier.Give(bundle.name))
            content = []
            while isinstance(frame := await _next(link, courier.Record, courier.Given), courier.Record):
                content.append(frame.sealed)
            if isinstance(frame, courier.Given) and frame.whole:
                stick.write(TO_HUB, waiting.kiosk, bundle.name, content)
        done += bundle.bytes
        say(f"{number} of {len(waiting.bundles)} parcels, {done / 1e6:.1f} of {total / 1e6:.1f} MB")
