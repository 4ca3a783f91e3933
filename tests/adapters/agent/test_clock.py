"""A kiosk whose clock is in 1970, in 2050 or jumps, against a real broker with mutual TLS: libfaketime lies to the real
agent, the hub's signed time puts it right."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from edge_agent.core import wire
from tests.adapters.agent.rig import Broker, Hub, Kiosk
from tests.adapters.agent.test_calls import talk
from tests.e2e.program import until

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (apt install libfaketime)")
IN_1970, IN_2050 = "-56y", "+24y"


class Lies:
    """What the system's clock says to the agent; may change while it runs. The monotonic clock says the truth."""

    def __init__(self, kiosk: Kiosk, file: Path) -> None:
        self._file = file
        kiosk.agent.env |= {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.say("+0")

    def say(self, off: str) -> None:
        self._file.write_text(off + "\n")


@pytest.fixture
async def unstarted(tmp_path: Path, broker: Broker) -> AsyncIterator[Kiosk]:
    kiosk = Kiosk(tmp_path / "kiosk", broker)
    yield kiosk
    await kiosk.stop()


@pytest.fixture
def lies(unstarted: Kiosk, tmp_path: Path) -> Lies:
    return Lies(unstarted, tmp_path / "lies")


def near(wall_ms: int, real_s: float, seconds: float = 5.0) -> bool:
    return abs(wall_ms - real_s * 1000) < seconds * 1000


@pytest.mark.parametrize("off", [IN_1970, IN_2050])
async def test_the_hub_says_what_time_it_is(broker: Broker, unstarted: Kiosk, lies: Lies, off: str):
    kiosk, hub = unstarted, Hub(broker)
    lies.say(off)
    await kiosk.start()
    # Pressed while nobody has told the time: the record is put right when somebody has.
    await kiosk.agent.until_line("broker connected host")
    pressed_at = time.time()
    await kiosk.board.press()
    await kiosk.screen.until(lambda view: view.screen == "draft", "the guided message")
    try:
        await hub.start()
        opened = await hub.until_message(wire.ConsultOpened)
        await hub.until(wire.Status, lambda status: status.clock_trusted)
        await kiosk.agent.until_line("broker connected anew, now by its certificate's dates")
        await kiosk.online()
        if not opened.stamp.clock_trusted:  # it may have gone out before the answer came; then it says so
            assert opened.stamp.same_boot
            assert near(opened.body.opened_at_ms - opened.sent_at_ms, pressed_at - time.time(), 10.0)
        else:
            assert near(opened.body.opened_at_ms, pressed_at)
        await kiosk.screen.act("complaint", "fever")  # or there may be nothing to save yet
        await kiosk.screen.act("step", "review")
        await kiosk.screen.until(lambda view: view.draft is not None and view.draft.step == "review", "the review")
        saved_at = time.time()
        await kiosk.screen.act("save")
        saved = await hub.until_message(wire.CaseSaved)
        assert saved.stamp is not None
        assert saved.stamp.clock_trusted
        assert near(saved.body.saved_at_ms, saved_at)
        assert near(saved.sent_at_ms, saved_at)
    finally:
        await hub.stop()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed (apt install gcc libc6-dev)")
async def test_a_synchronised_system_that_is_wrong_shuts_nobody_out(
    hub: Hub, unstarted: Kiosk, lies: Lies, tmp_path: Path
):
    """Somebody spoofs the network's time: the system says 2050, and that it is sure of it."""
    source, library = tmp_path / "sure.c", tmp_path / "sure.so"
    source.write_text("int adjtimex(void *asked) { (void)asked; return 0; }\n")
    compile_it = ["gcc", "-shared", "-fPIC", "-o", library, source]
    await asyncio.to_thread(subprocess.run, compile_it, check=True)
    kiosk = unstarted
    kiosk.agent.env["LD_PRELOAD"] += f":{library}"
    lies.say(IN_2050)
    await kiosk.start()
    for line in (
        "clock source=system",
        "broker's certificate doubted reason=the certificate was valid until",
        "clock source=hub",
        "broker connected anew, now by its certificate's dates",
    ):
        await kiosk.agent.until_line(line, 20)
    await kiosk.online()
    told = await hub.until_message(wire.Status, lambda status: "clock_wrong" in status.warnings)
    assert told.body.clock_trusted
    assert near(told.sent_at_ms, time.time())


async def test_a_certificate_that_has_run_out_by_the_hubs_time_is_refused(broker: Broker, hub: Hub, unstarted: Kiosk):
    kiosk = unstarted
    hub.ahead_ms = 24 * 365 * 86_400_000
    await hub.stop()
    await hub.start()
    await kiosk.start()
    await kiosk.screen.until(lambda view: any(n.code == "certificate_wrong" for n in view.notices), "refused")
    assert any("the certificate was valid until" in line.text for line in kiosk.agent.lines)


async def test_the_clock_jumps_in_a_call(hub: Hub, unstarted: Kiosk, lies: Lies):
    kiosk = unstarted
    await kiosk.start()
    await kiosk.online()
    await hub.until(wire.Status, lambda status: status.clock_trusted)
    consult, call = await talk(hub, kiosk)
    state: Callable[[], bytes] = lambda: wire.encode(  # noqa: E731
        wire.Message(wire.CallState(call, "ended", outcome="answered"), consult, sent_at_ms=hub.now_ms())
    )
    for off in (IN_2050, IN_1970):
        lies.say(off)
        # Old by the true time, fresh by the lie: refused. Said now, it is believed, whatever the system's clock says.
        await hub.send_raw("c", hub.wrap("c", state(), expires_at_ms=hub.now_ms() - 1000))
        mark = len(kiosk.screen.views)
        await hub.send(wire.Presence("busy", 3 if off == IN_2050 else 4))
        await kiosk.screen.when(lambda view: view.presence.state == "busy", "presence", since=mark)
        assert kiosk.screen.view.screen == "live"
    await until(
        lambda: any("message refused kind=expired count=2" in line.text for line in kiosk.agent.lines), 5, "old"
    )
    ended_at = time.time()
    await hub.send_raw("c", hub.wrap("c", state(), expires_at_ms=hub.now_ms() + 60_000))
    ended = await hub.until_message(wire.CallEnded)
    assert ended.body.outcome == "answered"
    assert near(ended.body.ended_at_ms, ended_at)
    assert ended.stamp is not None
    assert ended.stamp.clock_trusted


async def test_what_was_known_is_the_floor_of_the_next_start(hub: Hub, unstarted: Kiosk, lies: Lies):
    """No number of a signed message comes twice, nor does time go back, though the machine forgets both."""
    kiosk = unstarted
    await kiosk.start()
    await hub.until(wire.Status, lambda status: status.clock_trusted)
    await kiosk.agent.until_line("now by its certificate's dates")
    await kiosk.online()
    known_at = time.time()
    await kiosk.agent.kill()
    lies.say(IN_1970)
    await hub.stop()
    mark, got = len(kiosk.agent.lines), len(hub.got)
    await kiosk.agent.start()
    await kiosk.agent.until_line("media process ready", since=mark)
    await hub.start()
    status = await hub.until_message(wire.Status, lambda status: status.online, since=got)
    assert status.sent_at_ms >= known_at * 1000 - 5000, "by the same boot's monotonic clock"
    await hub.until(wire.Status, lambda status: status.clock_trusted, since=got)
