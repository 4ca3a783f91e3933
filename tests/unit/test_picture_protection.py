"""What becomes of the kiosk's pictures at a browser on links that lose, in virtual time: coded plainly, and in two
layers of which the lower is sent twice. The packets go through the kit's own pacer and the emulated link, the browser
asks for what it misses each round trip, ten times at most, and shows a picture when what it is built on was shown.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import pytest

from edge_agent.core.pacer import Kind, Pacer, longest_packet_bytes
from edge_agent.media.egress import RETRANSMIT_AGAIN_RTTS, TWICE_AFTER_S
from edge_agent.media.vpx import BASE_SHARE
from tests.linklab.path import LinkPath
from tests.linklab.spec import Link, parse_link

SECONDS, TICK_S = 40, 0.005
RATE, BPS = 15.0, 90_000
AROUND_BYTES, VOICE_BYTES, VOICE_S = 80, 250, 0.02
BROWSERS_TIMES = 10


class Seen(NamedTuple):
    per_s: float
    frozen: float  # share of the time in pauses of over a second


class Packet(NamedTuple):
    number: int
    picture: int
    part: int
    parts: int
    upper: bool
    base: int  # of the lower layer, counted

    def __bytes__(self) -> bytes:
        return b"P" + b"".join(each.to_bytes(4, "big") for each in self)

    @classmethod
    def read(cls, data: bytes) -> Packet:
        number, picture, part, parts, upper, base = (
            int.from_bytes(data[1 + 4 * n : 5 + 4 * n], "big") for n in range(6)
        )
        return cls(number, picture, part, parts, bool(upper), base)


@dataclass
class Browser:
    rtt_s: float
    shown_at: list[float] = field(default_factory=lambda: [0.0])
    _newest: int = -1
    _missing: dict[int, tuple[float, int]] = field(default_factory=dict)  # when asked for next, how often it was
    _pictures: dict[int, dict[int, Packet]] = field(default_factory=dict)
    _last: int = -1
    _last_base: int = 0

    def take(self, packet: Packet, now: float) -> None:
        for number in range(self._newest + 1, packet.number):
            self._missing[number] = (now, 0)
        self._newest = max(self._newest, packet.number)
        self._missing.pop(packet.number, None)
        if packet.picture > self._last:
            self._pictures.setdefault(packet.picture, {})[packet.part] = packet
        while self._show(now):
            pass

    def _show(self, now: float) -> bool:
        for number, parts in sorted(self._pictures.items()):
            first = next(iter(parts.values()))
            wanted = self._last_base if first.upper else self._last_base + 1
            if len(parts) == first.parts and first.base == wanted:
                self._last, self._last_base = number, first.base
                self.shown_at.append(now)
                self._pictures = {other: rest for other, rest in self._pictures.items() if other > number}
                done = max(part.number for part in parts.values())
                self._missing = {other: state for other, state in self._missing.items() if other > done}
                return True
        return False

    def asks(self, now: float) -> list[int]:
        due = [n for n, (at, times) in self._missing.items() if at <= now and times < BROWSERS_TIMES]
        for number in due:
            self._missing[number] = (now + self.rtt_s, self._missing[number][1] + 1)
        return due


def call(link: Link, protected: bool) -> Seen:
    up, down = LinkPath(link.up), LinkPath(link.down)
    rate = 0.9 * link.up.rate.at(0)
    rtt_s = 2 * link.up.delay_s + link.up.jitter_s + 0.03
    pacer: Pacer[bytes] = Pacer(rate, 0.0)
    browser = Browser(rtt_s)
    bps = BPS / (1 + BASE_SHARE) if protected else BPS
    sent: list[tuple[bytes, int, bool]] = []
    again_at: dict[int, float] = {}
    copies: deque[tuple[float, int]] = deque()
    picture = base = 0
    due = 0.0

    def send_again(number: int, now: float) -> None:
        data, size, upper = sent[number]
        if not upper and now - again_at.get(number, -9.0) > RETRANSMIT_AGAIN_RTTS * rtt_s:
            again_at[number] = now
            pacer.put(data, Kind.RETRANSMISSION, size + 2, now)

    for tick in range(round(SECONDS / TICK_S)):
        now = tick * TICK_S
        if tick % round(VOICE_S / TICK_S) == 0:
            pacer.put(bytes(VOICE_BYTES), Kind.VOICE, VOICE_BYTES, now)
        if now >= due and pacer.picture_would_wait_s(now) <= 0.03:
            due = max(due + 1 / RATE, now - 0.5 / RATE)
            upper = protected and picture % 2 == 1
            share = 2 * (1 - BASE_SHARE if upper else BASE_SHARE) if protected else 1.0
            size = int(share * bps / RATE / 8)
            picture, base = picture + 1, base + (not upper)
            parts = -(-size // (longest_packet_bytes(rate) - AROUND_BYTES))
            for part in range(parts):
                number, whole = len(sent), size // parts + AROUND_BYTES
                data = bytes(Packet(number, picture, part, parts, upper, base)).ljust(whole, b"\0")
                sent.append((data, whole, upper))
                pacer.put_picture(data, whole, now, picture=picture, upper=upper)
                if protected and not upper:
                    copies.append((now + TWICE_AFTER_S, number))
        while copies and copies[0][0] <= now:
            send_again(copies.popleft()[1], now)
        while (taken := pacer.take(now)) is not None:
            up.offer(taken[1], now)
        for asked in down.take(now):
            send_again(int.from_bytes(asked[:4], "big"), now)
        for data in up.take(now):
            if data[:1] == b"P":
                browser.take(Packet.read(data), now)
        for number in browser.asks(now):
            down.offer(number.to_bytes(4, "big") + bytes(60), now)
    gaps = [later - before for before, later in pairwise([*browser.shown_at, float(SECONDS)])]
    return Seen((len(browser.shown_at) - 1) / SECONDS, sum(gap for gap in gaps if gap > 1) / SECONDS)


def mean(link: Link, protected: bool, seeds: int = 2) -> Seen:
    found = [call(link.seeded(seed), protected) for seed in range(1, seeds + 1)]
    return Seen(*(sum(each) / seeds for each in zip(*found, strict=True)))


@pytest.mark.parametrize(
    ("spec", "least_per_s"),
    [("256,100ms,20%x2,0.4s", 12), ("384,100+30ms,10%x3,0.4s", 14), ("256,300+20ms,5%,0.5s", 14),
     ("256,300+20ms,10%,0.5s", 13)],
)  # fmt: skip
def test_links_that_lose_many_freeze_less_with_the_lower_layer_twice(spec: str, least_per_s: float) -> None:
    plain, protected = (mean(parse_link(spec), each) for each in (False, True))
    print(spec, "plain", plain, "protected", protected)
    assert protected.frozen <= 0.05
    assert protected.frozen < plain.frozen / 2
    assert protected.per_s >= least_per_s


@pytest.mark.parametrize("spec", ["256,300+20ms,1%,0.5s", "1000,40ms,3%,0.3s"])
def test_few_losses_are_mended_by_asking_alone(spec: str) -> None:
    plain = mean(parse_link(spec), protected=False)
    print(spec, "plain", plain)
    assert plain.frozen <= 0.01
    assert plain.per_s >= 14
