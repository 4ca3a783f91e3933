"""What the pacer is worth to the voice, on the kit's own links, in virtual time: the same call with it and without."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from edge_agent.core.pacer import Kind, Pacer, longest_packet_bytes
from edge_agent.core.split import messages_bps
from tests.linklab.path import LinkPath
from tests.linklab.spec import LINKS

SECONDS = 60.0
TICK_S = 0.001
USUAL_PACKET_BYTES = 1350


def voice_delays_ms(name: str, seed: int, paced: bool) -> list[float]:
    """From the microphone's packet to the far end. Voice in packets of 60 ms; pictures 5 a second of what the voice
    leaves, a key picture of four times their size each 5 s, retransmissions for 4 % of their packets."""
    link = LINKS[name].seeded(seed).up
    rate = link.rate.at(0)
    path = LinkPath(replace(link, jitter_s=0.0), 0.0)
    random_ = random.Random(seed)
    pacer: Pacer[bytes] = Pacer((rate - messages_bps(rate)) if paced else None, 0.0)
    longest = longest_packet_bytes(rate) if paced else USUAL_PACKET_BYTES
    voice_bytes = 150
    picture_bytes = int(0.8 * ((rate - messages_bps(rate)) - voice_bytes * 8 / 0.06) / 8 / 5)
    delays, sent_at, voice, picture = [], {}, 0, 0
    for tick in range(round(SECONDS / TICK_S)):
        now = tick * TICK_S
        if tick % 60 == 0:
            voice += 1
            sent_at[voice] = now
            pacer.put(b"v" + voice.to_bytes(4, "big") + bytes(voice_bytes - 5), Kind.VOICE, voice_bytes, now)
        if tick % 200 == 30 and (not paced or pacer.picture_would_wait_s(now) < 0.03):
            picture += 1
            key = picture % 25 == 1
            left = picture_bytes * (4 if key else 1)
            while left > 0:
                size = max(60, min(left, longest))
                left -= size
                packet = b"p" + bytes(size - 1)
                pacer.put_picture(packet, size, now, picture=picture, key=key)
                if random_.random() < 0.04:
                    pacer.put(packet, Kind.RETRANSMISSION, size, now)
        while (taken := pacer.take(now)) is not None:
            path.offer(taken[1], now)
        for packet in path.take(now):
            if packet[:1] == b"v":
                delays.append((now - sent_at[int.from_bytes(packet[1:5], "big")]) * 1000)
    return sorted(delays)


@pytest.mark.parametrize("name", ["64", "128"])
@pytest.mark.parametrize("seed", [1, 2])
def test_voice_beside_pictures(name: str, seed: int) -> None:
    link = LINKS[name].up
    with_it, without = (voice_delays_ms(name, seed, paced) for paced in (True, False))
    p95, p95_without = (delays[int(0.95 * len(delays))] for delays in (with_it, without))
    print(f"{name} seed {seed}: voice p95 {p95:.0f} ms paced, {p95_without:.0f} ms without")
    alone_ms = link.delay_s * 1000 + 150 * 8 / link.rate.at(0) * 1000
    longest_ms = longest_packet_bytes(link.rate.at(0)) * 8 / link.rate.at(0) * 1000
    assert p95 <= alone_ms + longest_ms + 10
    assert max(with_it) <= alone_ms + longest_ms + 20
    assert p95_without > p95 + 50
