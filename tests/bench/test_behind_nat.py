"""Both ends behind routers that give each flow a port of its own: no call without a TURN server, one with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from tests.adapters.turn import TURNSERVER, WAYS, Turn
from tests.bench.behind_nat import call_through
from tests.bench.material import Material, prepare
from tests.linklab.lab import LabUnavailable
from tests.linklab.nat import Homes, two_homes
from tests.linklab.spec import parse_link

RTT_S = 0.3
PATIENCE_S = 15.0
WITHOUT_S = 6.0  # all pairs have been tried, more than once

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(TURNSERVER is None, reason="turnserver is missing (apt install coturn)"),
]


@pytest.fixture(scope="module")
def homes() -> Iterator[Homes]:
    try:
        with two_homes(parse_link("1000,150ms,1s")) as homes:
            yield homes
    except LabUnavailable as reason:
        pytest.skip(str(reason))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def turn(homes: Homes, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Turn]:
    server = Turn(tmp_path_factory.mktemp("turn"), homes.world_address, prefix=homes.world.command([]))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return prepare(tmp_path_factory.mktemp("material"), None)


@pytest.mark.parametrize("way", [pytest.param(way, marks=[] if way == "tls" else [pytest.mark.long]) for way in WAYS])
async def test_a_call_by_a_relay(homes: Homes, turn: Turn, material: Material, tmp_path: Path, way: str) -> None:
    async with async_playwright() as playwright:
        row = await call_through(playwright, homes, turn, way, RTT_S, material, tmp_path / "call", PATIENCE_S)
    print(row)
    assert row.connected_s is not None
    assert "relay" in row.pair
    assert row.at_kiosk_s is not None
    assert row.at_doctor_s is not None


@pytest.mark.long
async def test_no_other_way_leads_there(homes: Homes, turn: Turn, material: Material, tmp_path: Path) -> None:
    async with async_playwright() as playwright:
        row = await call_through(playwright, homes, turn, "stun", RTT_S, material, tmp_path / "call", WITHOUT_S)
    assert row.srflx == (True, True)  # both know how the world sees them, and it does not help
    assert row.connected_s is None
