"""What is asked for again, and what comes of it on the kit's own links, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from edge_agent.core.nacks import APART_S, MOST_TIMES, Nacks
from edge_agent.media.pictures import GAP_WAIT_RTTS, LEAST_GAP_WAIT_S, PictureAssembler
from tests.linklab.path import LinkPath
from tests.linklab.spec import LINKS


def test_asked_for_at_once_and_again_after_a_round_trip() -> None:
    nacks = Nacks()
    assert nacks.due([], 0.0, 0.2) == []
    assert nacks.next_time() is None
    assert nacks.due([5, 7], 1.0, 0.2) == [5, 7]
    assert nacks.due([5, 7, 9], 1.01, 0.2) == [9]
    assert nacks.next_time() == pytest.approx(1.03)
    assert nacks.due([5, 7, 9], 1.03, 0.2) == [5, 7]
    assert nacks.due([5, 7, 9], 1.05, 0.2) == [9]
    assert nacks.next_time() == pytest.approx(1.22)
    assert nacks.due([7, 9], 1.225, 0.2) == [7]
    assert nacks.asked == 7


def test_given_up_in_the_end_and_forgotten_when_of_no_more_use() -> None:
    nacks = Nacks()
    times = [n / 10 for n in range(100) if nacks.due([3], n / 10, 0.1)]
    assert len(times) == MOST_TIMES
    assert nacks.next_time() is None
    nacks.due([], 10.0, 0.1)
    assert nacks.due([3], 10.1, 0.1) == [3]


def test_many_at_once_have_their_turns() -> None:
    nacks = Nacks()
    missing = range(150)
    asked = [each for n in range(3) for each in nacks.due(missing, n * APART_S / 4, 0.5)]
    assert asked == list(missing)


class Seen(NamedTuple):
    per_s: float
    longest_s: float
    frozen: float  # share of the time in pauses of over a second
    keys: int


TICK_S = 0.005
SECONDS = 60
RATE = 10
PACKET_BYTES, KEY_PACKETS = 1000, 6


def call(name: str, seed: int, asks: bool = True) -> Seen:
    """A browser's pictures over one of the links: one packet each, six a key picture, of which it sends none within
    0.3 s of the last, and none while its link has more than 0.2 s to do."""
    link = LINKS[name].seeded(seed)
    down, up = LinkPath(link.down), LinkPath(link.up)
    rtt_s = 2 * link.down.delay_s + link.down.jitter_s
    assembler, nacks = PictureAssembler(), Nacks()
    assembler.gap_wait_s = max(LEAST_GAP_WAIT_S, GAP_WAIT_RTTS * rtt_s)
    sent: dict[int, bytes] = {}
    key_wanted, key_at, keys, number, count, asked_at, seen = True, -1.0, 0, 0, 0, -1.0, [0.0]
    voice_bytes = random.Random(seed).randbytes(100)

    def packets(key: bool) -> Iterator[bytes]:
        nonlocal number
        parts = KEY_PACKETS if key else 1
        for part in range(parts):
            head = bytes([part == parts - 1, part == 0]) + number.to_bytes(4, "big") + count.to_bytes(4, "big")
            sent[number] = head + bytes([not key]) + bytes(PACKET_BYTES - 11)
            yield sent[number]
            number += 1

    for tick in range(round(SECONDS / TICK_S)):
        now = tick * TICK_S
        if tick % 4 == 0:
            down.offer(voice_bytes, now)
        if tick % round(1 / RATE / TICK_S) == 0 and down._waiting_bits < 0.2 * link.down.rate.at(now):
            count += 1
            key = key_wanted and now - key_at > 0.3
            if key:
                key_wanted, key_at, keys = False, now, keys + 1
            for packet in packets(key):
                down.offer(packet, now)
        for told in up.take(now):
            if told == b"key":
                key_wanted = True
            elif (again := sent.get(int.from_bytes(told, "big"))) is not None:
                down.offer(again, now)
        for packet in down.take(now):
            if packet is voice_bytes:
                continue
            position, at = int.from_bytes(packet[2:6], "big"), int.from_bytes(packet[6:10], "big")
            shown = assembler.add(position % 2**16, at * 9000, bool(packet[0]), bool(packet[1]), packet[10:], now)
            seen += [now] * len(shown)
        if asks:
            for each in nacks.due(assembler.missing(), now, rtt_s):
                up.offer(each.to_bytes(60, "big"), now)
        assembler.wait_over(now)
        if assembler.wants_key_frame and number and now - asked_at > max(0.5, GAP_WAIT_RTTS * rtt_s):
            asked_at = now
            up.offer(b"key", now)
    gaps = [later - before for before, later in zip(seen, [*seen[1:], float(SECONDS)], strict=True)]
    return Seen(len(seen) / SECONDS, max(gaps), sum(gap for gap in gaps if gap > 1) / SECONDS, keys)


@pytest.mark.parametrize(("name", "per_s", "frozen"), [("128", 8, 0.08), ("256", 9, 0.04), ("384", 9.5, 0.04)])
def test_pictures_on_links_that_lose(name: str, per_s: float, frozen: float) -> None:
    found, without = call(name, 1), call(name, 1, asks=False)
    print(name, found, "without asking", without)
    assert found.per_s >= per_s > without.per_s + 2
    assert found.frozen <= frozen < without.frozen
