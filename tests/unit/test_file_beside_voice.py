"""A large file in the outbox beside the voice on the thinnest link, in virtual time; `scripts/prove-file-beside-call`
does it with a whole kit."""

from __future__ import annotations

from collections import deque

import pytest

from edge_agent.core import wire
from edge_agent.core.allocator import Allocator
from edge_agent.core.outbox import Item, Outbox, SendChunk, SendMessage
from edge_agent.core.split import messages_bps, pacing_bps, segment_bytes
from edge_agent.core.voice import Direction
from tests.linklab.path import LinkPath
from tests.linklab.spec import LINKS

SECONDS = 120.0
TICK_S = 0.001
PHOTO_BYTES = 2_000_000
MOST_MOVED_MS = 100.0
AROUND_BYTES = 250  # what a message is sealed, signed and sent in
HEADER_BYTES, OPTIONS_BYTES = 40, 12  # of IP and TCP; the options are part of a segment
CONSULT = b"c" * 16
DIGEST = b"d" * 32


def waiting_photo() -> Outbox:
    """At the point where the far end has asked for all of it."""
    outbox = Outbox()
    manifest = wire.Manifest(DIGEST, "photo", "image/jpeg", PHOTO_BYTES, 0, "patient")
    message = wire.Message(manifest, CONSULT, seq=1)
    outbox.add(message)
    outbox.reached(0.0)
    assert outbox.next(0.0) == SendMessage(message.id)
    outbox.acknowledged(SendMessage(message.id), 0.0)
    outbox.have(CONSULT, DIGEST, (), False, 0.0)
    return outbox


def voice_delays_ms(seed: int, outbox: Outbox | None, shared: bool = True) -> tuple[list[float], int]:
    """From packet to far end, sorted; and the bytes of the file that went. `shared`: as in a call; else as without."""
    link = LINKS["18"].seeded(seed)
    up_bps, down_bps = (way.rate.at(0) for way in link)
    loss = link.up.loss.fraction
    plan = Allocator().share(Direction(up_bps, loss), Direction(down_bps, loss), 0.0).up.voice
    path = LinkPath(link.up)
    frame_ticks = plan.coding.frame_ms
    voice = bytes(round(plan.wire_bps * frame_ticks / 8000) - 4)
    segment = (segment_bytes(up_bps) or 1460) - OPTIONS_BYTES
    pace = pacing_bps(up_bps) if shared else float("inf")
    if outbox is not None and shared:
        outbox.set_budget(messages_bps(up_bps) / 8, 0.0)
    segments: deque[tuple[int, Item | None]] = deque()  # bytes, and what its last one is the end of
    acknowledged: deque[tuple[float, Item]] = deque()
    sent_at, delays, next_segment_at, file_bytes = {}, [], 0.0, 0
    for tick in range(round(SECONDS / TICK_S)):
        now = tick * TICK_S
        if tick % frame_ticks == 0:
            number = tick.to_bytes(4, "big")
            sent_at[number] = now
            path.offer(number + voice, now)
        if outbox is not None:
            while acknowledged and acknowledged[0][0] <= now:
                outbox.acknowledged(acknowledged.popleft()[1], now)
            while (item := outbox.next(now)) is not None:
                size = AROUND_BYTES + (item.length if isinstance(item, SendChunk) else 0)
                file_bytes += item.length if isinstance(item, SendChunk) else 0
                segments.extend((min(segment, size - at), None) for at in range(0, size - segment, segment))
                segments.append(((size - 1) % segment + 1, item))
            while segments and next_segment_at <= now:
                size, ends = segments.popleft()
                path.offer(b"tcp." + bytes(size + OPTIONS_BYTES + HEADER_BYTES - 4), now)
                next_segment_at = now + size * 8 / pace
                if ends is not None:
                    acknowledged.append((now + 2 * link.up.delay_s, ends))
        for packet in path.take(now):
            if packet[:4] != b"tcp.":
                delays.append((now - sent_at[packet[:4]]) * 1000)
    return sorted(delays), file_bytes


def p95(delays: list[float]) -> float:
    return delays[int(0.95 * len(delays))]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_photo_that_waits_leaves_the_voice_alone(seed: int) -> None:
    alone, _ = voice_delays_ms(seed, None)
    beside, sent = voice_delays_ms(seed, waiting_photo())
    unshared, _ = voice_delays_ms(seed, waiting_photo(), shared=False)
    print(f"seed {seed}: voice p95 {p95(alone):.0f} ms alone, {p95(beside):.0f} beside {sent} bytes of a photo,")
    print(f"        {p95(unshared):.0f} ms with the outbox as it is without a call")
    assert sent > 0.3 * messages_bps(18_000) / 8 * SECONDS
    assert p95(beside) - p95(alone) <= MOST_MOVED_MS
    assert p95(unshared) - p95(alone) > 500
