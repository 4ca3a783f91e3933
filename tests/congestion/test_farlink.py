"""What the kiosk makes of the far end's packets: a browser sends voice and pictures, and is told how much."""

from __future__ import annotations

import pytest

from edge_agent.core.farlink import FarLink
from tests.congestion.network import Link, LinkSpec, Simulation
from tests.linklab.path import Loss, Rate

PACING = 2.5  # of the pictures' rate: as fast a browser lets a picture's packets leave (libwebrtc's pacing factor)
PACKET_BYTES = 1200
CLOCK_RATE = 48_000
SENT_OF_IT = 0.95


class Browser:
    """Voice each 60 ms, and pictures of the rate it is told, each in packets of 1200 bytes."""

    def __init__(
        self, spec: LinkSpec, start_bps: float, obeys: bool, voice_bytes: int = 148, each_s: float = 0.2
    ) -> None:
        self.sim = Simulation()
        self.link = Link(self.sim, spec)
        self.far = FarLink(0.0, start_bps)
        self.waits: list[tuple[float, float]] = []  # of voice, on the link
        self.rates: list[tuple[float, float]] = []
        self._order_bps = self._start_bps = start_bps
        self._obeys, self._voice_bytes, self._each_s = obeys, voice_bytes, each_s
        self._back_s = spec.delay_s
        self.sim.at(0.0, self._voice)
        self.sim.at(0.05, self._picture)
        self.sim.at(0.5, self._order)

    @property
    def voice_bps(self) -> float:
        return self._voice_bytes * 8 / 0.060

    def _voice(self) -> None:
        now = self.sim.now
        self.sim.at(now + 0.060, self._voice)
        timestamp = round(now * CLOCK_RATE + 4_294_000_000) % (1 << 32)  # it wraps on the way

        def arrived() -> None:
            self.waits.append((now, self.sim.now - now - self.link.spec.delay_s))
            self.far.voice_arrived(timestamp + 2880, CLOCK_RATE, self._voice_bytes, self.sim.now)

        self.link.offer(self._voice_bytes, arrived)

    def _picture(self) -> None:
        now = self.sim.now
        self.sim.at(now + self._each_s, self._picture)
        pictures_bps = self._order_bps * SENT_OF_IT - self.voice_bps
        left, at = int(pictures_bps * self._each_s / 8), now
        while left > 60:
            size = min(left, PACKET_BYTES)
            left -= size
            self.sim.at(at, lambda size=size: self._offer(size))  # type: ignore[misc]
            at += 8 * size / (PACING * pictures_bps)

    def _offer(self, size: int) -> None:
        self.link.offer(size, lambda: self.far.packet_arrived(size, self.sim.now))

    def _order(self) -> None:
        now = self.sim.now
        self.sim.at(now + 0.5, self._order)
        self.rates.append((now, self.far.rate_bps))
        if self._obeys:
            self.sim.at(now + self._back_s, lambda bps=self.far.rate_bps: setattr(self, "_order_bps", bps))  # type: ignore[misc]

    def run(self, seconds: float) -> Browser:
        self.sim.run(seconds)
        return self

    def p95_ms(self, start: float) -> float:
        waits = sorted(wait_s for at, wait_s in self.waits if at >= start)
        return 1000 * waits[int(0.95 * len(waits))]

    def sent_bps(self, start: float, end: float) -> float:
        found = [bps for at, bps in self.rates if start <= at < end]
        return sum(found) / len(found)


@pytest.mark.parametrize("kbps", [64, 128, 256])
def test_pictures_that_stand_before_the_voice_become_smaller(kbps: int) -> None:
    """Beside a browser that is told once what the link does and never again."""
    spec = LinkSpec(Rate.constant(kbps * 1e3), 0.2, 1.0, loss=Loss(0.02))
    told, untold = (Browser(spec, kbps * 1e3, obeys).run(60.0) for obeys in (True, False))
    own_ms = 148 * 8 / kbps
    print(
        f"{kbps} kbit/s: voice p95 {told.p95_ms(15.0):.0f} ms told, {untold.p95_ms(15.0):.0f} ms untold, "
        f"{told.sent_bps(15.0, 60.0) / kbps / 1e3:.2f} of the link used"
    )
    assert told.p95_ms(15.0) <= own_ms + 110
    assert told.p95_ms(15.0) < untold.p95_ms(15.0)
    assert told.sent_bps(15.0, 60.0) >= 0.5 * kbps * 1e3
    assert told.far.known


def test_what_is_free_is_found() -> None:
    spec = LinkSpec(Rate(((0.0, 64e3), (20.0, 512e3)), 1000.0), 0.1, 1.0)
    browser = Browser(spec, 64e3, True).run(60.0)
    assert browser.sent_bps(15.0, 20.0) <= 64e3
    assert browser.sent_bps(50.0, 60.0) >= 200e3


def test_less_is_seen_soon() -> None:
    spec = LinkSpec(Rate(((0.0, 256e3), (20.0, 96e3)), 1000.0), 0.1, 0.6)
    browser = Browser(spec, 200e3, True, each_s=0.1).run(60.0)
    assert browser.sent_bps(24.0, 30.0) * SENT_OF_IT <= 96e3
    assert browser.p95_ms(30.0) <= 148 * 8 / 96 + 140


def test_jitter_is_not_taken_for_pictures() -> None:
    spec = LinkSpec(Rate.constant(512e3), 0.15, 0.6, jitter_s=0.040)
    browser = Browser(spec, 128e3, True, each_s=0.1).run(40.0)
    assert browser.sent_bps(20.0, 40.0) >= 128e3


def test_voice_alone_is_never_taken_for_too_much() -> None:
    spec = LinkSpec(Rate.constant(24e3), 0.3, 1.5, jitter_s=0.030, loss=Loss(0.10))
    browser = Browser(spec, 20e3, True).run(30.0)
    assert browser.far.queue_s < 0.05
    assert browser.far.rate_bps >= 15e3


def test_a_computer_that_is_late_for_long_is_no_queue() -> None:
    """On a link that is free the voice is 150 ms late from the tenth second on."""
    far, timestamp = FarLink(0.0, 400e3), 0
    far.suppose(400e3)
    lowest_bps = 400e3
    for step in range(1000):
        at = step * 0.060
        timestamp += 2880
        far.voice_arrived(timestamp, CLOCK_RATE, 148, at + (0.150 if step > 166 else 0.0))
        lowest_bps = min(lowest_bps, far.rate_bps)
        if at > 20.0:
            assert far.rate_bps == 400e3
    assert lowest_bps < 400e3, "it was looked into"


def test_a_far_clock_that_jumps_and_an_outage_do_no_harm() -> None:
    far = FarLink(0.0, 100e3)
    now = 0.0
    for timestamp in (
        *range(0, 480_000, 2880),
        *range(3_000_000_000, 3_000_480_000, 2880),
        *range(1000, 481_000, 2880),
    ):
        now += 0.060
        far.voice_arrived(timestamp, CLOCK_RATE, 148, now)
    assert far.queue_s == pytest.approx(0.0, abs=1e-6)
    now += 8.0
    for step in range(20):  # all of it at once, and older ones again
        far.voice_arrived(481_000 + 2880 * step, CLOCK_RATE, 148, now)
        far.voice_arrived(481_000 + 2880 * (step - 3), CLOCK_RATE, 148, now)
    assert far.rate_bps <= 100e3
    assert not far.known


def test_a_guess_holds_until_something_is_measured() -> None:
    far = FarLink(0.0, 28e3)
    far.suppose(500e3)
    assert (far.rate_bps, far.known) == (500e3, False)
    for _ in range(5):
        far.lost(40, 60, 1.0)
    assert far.known
    assert far.rate_bps < 300e3
    far.suppose(500e3)
    assert far.rate_bps < 300e3
