"""A kiosk fresh from its box, whose clock is in 1970 or 2050: it joins a real hub over HTTPS, connects to its broker
and is told the time. libfaketime lies to the command and to the agent."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.clock import KioskClock
from edge_agent.core.joining import HUB_NAME
from edge_agent.identity import Identity
from edge_agent.join import WrongHub, origin_to_ask, renew
from hub import app, enrol
from tests.adapters.agent.rig import Kiosk
from tests.adapters.agent.test_clock import IN_1970, IN_2050, LIBRARY, Lies
from tests.adapters.hub.rig import Broker, Hub, now_ms
from tests.adapters.identities import new_authority, new_identity
from tests.adapters.test_join import pretending, tls_of
from tests.e2e.program import Program

ROOT = Path(__file__).resolve().parents[2]
needs_lies = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (apt install libfaketime)")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed (apt install mosquitto)")
    hub = Hub(tmp_path)
    authority = app.open_authority(hub.settings)
    hub.set("listen", f'tls_cert = "{authority.cert_path}"\ntls_key = "{authority.key_path}"')
    hub.broker = Broker(hub.settings)
    hub.broker.start()
    hub.start()
    yield hub
    hub.kill()
    hub.broker.kill()


@needs_lies
@pytest.mark.parametrize("year", [1970, 2050])
async def test_a_kiosk_without_time_joins_and_is_told_it(hub: Hub, tmp_path: Path, year: int):
    kiosk = Kiosk(tmp_path / "kiosk", None)
    lies = Lies(kiosk, tmp_path / "lies")
    lies.say(f"-{int(time.time()) - 20}" if year == 1970 else IN_2050)  # the first minute of all
    code = _invite(hub)
    argv = [sys.executable, "-m", "kiosk.cli", "join", code, "--hub", f"127.0.0.1:{hub.port}", "--config", kiosk.toml]
    command = Program("join", [str(each) for each in argv], tmp_path / "join.log", kiosk.agent.env)
    await command.start()
    assert await command.ended(30) == 0, command.tail()
    assert "This kiosk is now hill-clinic-1" in command.tail()
    assert Identity.load(kiosk.state_dir / "identity").hub == f"https://127.0.0.1:{hub.port}"
    lies.say(IN_1970 if year == 1970 else IN_2050)  # some days on: so near to zero libfaketime lets no thread sleep
    await kiosk.start()
    try:
        await kiosk.agent.until_line("clock source=hub", 20)
        await kiosk.agent.until_line("now by its certificate's dates", 20)
        await kiosk.online()
    finally:
        await kiosk.stop()
    row = hub.do(lambda session: session.get_one(enrol.Kiosk, "hill-clinic-1"))
    assert row.clock_trusted


def _invite(hub: Hub) -> str:
    database = hub.database()
    try:
        enrolment = enrol.Enrolment(hub.settings, database, app.open_authority(hub.settings), now_ms)
        return enrolment.invite("Hill clinic", by="command:0")
    finally:
        database.close()


# --- renewals, by the kiosk's own clock


class Told(KioskClock):
    """Somebody has said what time it is: `source`."""

    def __init__(self, years: float, source: Any) -> None:
        super().__init__(b"")
        self._clock.resume(round((time.time() - time.monotonic() + years * 365 * 86_400) * 1000))
        self._clock.source = source


async def test_a_renewal_goes_by_the_time_that_the_hub_has_told(hub: Hub, tmp_path: Path):
    """And by no other: the system's clock may say what it likes."""
    kiosk = dataclasses.replace(
        new_identity(tmp_path / "kiosk", app.open_authority(hub.settings), "hill-1"),
        hub=f"https://127.0.0.1:{hub.port}",
    )
    with pytest.raises(WrongHub, match=r"shows an old certificate: the certificate was valid until"):
        await asyncio.to_thread(renew, kiosk, "", Told(+30, "hub"))
    spoofed = Told(+30, "system")
    for clock in (spoofed, KioskClock(b""), Told(0, "hub")):
        with pytest.raises(Exception, match="does not know this certificate"):  # it was heard; nobody has joined here
            await asyncio.to_thread(renew, kiosk, "", clock)
    assert spoofed.dates_ms() is None, "until the hub has told the time"


async def test_a_certificate_of_the_hub_that_has_run_out_renews_nothing(tmp_path: Path):
    authority = new_authority(tmp_path / "ca")
    kiosk = new_identity(tmp_path / "kiosk", authority, "hill-1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hub.authority._SERVER_DAYS", -3)
        authority._make_server_certificate([HUB_NAME])
    with pretending(b"", tls_of(authority)) as (address, sent):
        at = f"127.0.0.1:{address.port}"
        with pytest.raises(WrongHub, match="shows an old certificate"):
            await asyncio.to_thread(renew, kiosk, at, Told(0, "hub"))
    assert sent == []


def test_a_hub_that_moved_off_this_machine_is_asked_over_tls_alone():
    """What it answers says whom to believe from then on."""
    assert origin_to_ask("http://127.0.0.1:8443", "192.168.1.20:8443") == "https://192.168.1.20:8443"
    assert origin_to_ask("http://127.0.0.1:8443", "[fe80::1]:8443") == "https://[fe80::1]:8443"
    assert origin_to_ask("http://127.0.0.1:8443", "") == "http://127.0.0.1:8443"
    assert origin_to_ask("https://127.0.0.1:8443", "localhost:9000") == "https://localhost:9000"
    assert origin_to_ask("http://hub.example:8443", "") == "https://hub.example:8443"
