"""The microphone's track: ready packets with the right times, whatever changes under way."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from av.packet import Packet

from edge_agent.core import opuspacket, red
from edge_agent.core.voice import Coding, PicturePlan, VoicePlan
from edge_agent.media import tracks
from edge_agent.media.tracks import CameraTrack, MicrophoneTrack
from hardware.api import Picture
from tests.listening import speech


async def received(track: MicrophoneTrack, count: int) -> list[Packet[Any]]:
    async with asyncio.timeout(5):
        return [await track.recv() for _ in range(count)]


def say(track: MicrophoneTrack, from_block: int, blocks: int) -> None:
    for number in range(from_block, from_block + blocks):
        track.hear(speech()[number * 960 : (number + 1) * 960])


async def test_times_are_right_while_the_length_of_frames_changes() -> None:
    track = MicrophoneTrack(held=False, plan=VoicePlan(Coding(frame_ms=20)))
    packets, said = [], 0
    for frame_ms in (20, 60, 120, 40, 20):
        track.plan = VoicePlan(Coding(12_000, frame_ms))
        for _ in range(12 // (frame_ms // 20)):
            say(track, said, frame_ms // 20)
            said += frame_ms // 20
            packets += await received(track, 1)

    for packet, later in pairwise(packets):
        assert (later.pts or 0) - (packet.pts or 0) == opuspacket.duration_samples(bytes(packet))
    assert (packets[0].pts, packets[-1].pts) == (0, said * 960 - 960)


async def test_repeated_frames_point_at_their_own_times() -> None:
    track = MicrophoneTrack(held=False, plan=VoicePlan(Coding(12_000, 20), 1))
    track.opus_in_red = 96
    say(track, 0, 3)
    three = await received(track, 3)
    track.plan = VoicePlan(Coding(12_000, 60), 1)
    say(track, 3, 6)
    two = await received(track, 2)

    parsed = [red.parse(bytes(packet)) for packet in [*three, *two]]
    assert [block.older[0].offset if block.older else 0 for block in parsed] == [0, 960, 960, 960, 2880]
    assert all(block.older[0].payload == before.payload for before, block in pairwise(parsed))


async def test_what_was_coded_before_the_answer_is_not_sent_in_the_other_form() -> None:
    track = MicrophoneTrack(held=False, plan=VoicePlan())
    say(track, 0, 3)
    await asyncio.sleep(0)
    track.opus_in_red = 96
    say(track, 3, 1)
    (packet,) = await received(track, 1)

    assert red.parse(bytes(packet)).payload_type == 96
    assert packet.pts == 3 * 960


async def test_held_it_says_next_to_nothing_and_then_goes_on() -> None:
    track = MicrophoneTrack(held=True, plan=VoicePlan(Coding(dtx=True)))
    say(track, 0, 60)  # loud, and heard by nobody
    await asyncio.sleep(0)
    assert len(track._packets) <= tracks.QUEUED_PACKETS
    while track._packets:
        (packet,) = await received(track, 1)
        assert len(bytes(packet)) <= 12
    track.held = False
    say(track, 60, 5)
    assert max(len(bytes(packet)) for packet in await received(track, 5)) > 30


async def test_without_a_microphone_the_line_is_known_to_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracks, "MICROPHONE_WAIT_S", 0.05)
    track = MicrophoneTrack(held=False, plan=VoicePlan())
    silent = await received(track, 3)
    say(track, 0, 1)
    (spoken,) = await received(track, 1)

    times = [packet.pts for packet in [*silent, spoken]]
    assert times == [2400, 4800, 7200, 7200]
    assert all(len(bytes(packet)) <= 3 for packet in silent)


async def at_once() -> None:
    pass


SMALL = PicturePlan(30_000, 160, 120, 5.0)


class Filmed:
    """What a camera of 640×480 and 15 pictures a second gives, and what its track makes of it."""

    def __init__(self, plan: PicturePlan | None) -> None:
        self.track = CameraTrack(held=False, plan=plan, room=at_once)
        self._count = 0
        self._pixels = np.random.default_rng(3).integers(0, 60, (480, 640, 3), np.uint8)

    async def pictures(self, count: int) -> list[Packet[Any]]:
        sent = []
        for _ in range(count):
            self.track.see(Picture(np.roll(self._pixels, self._count, 1), 100 + self._count / 15))
            self._count += 1
            await asyncio.sleep(0)
            if self.track._newest is not None:
                with contextlib.suppress(TimeoutError):  # libvpx may leave one out
                    async with asyncio.timeout(0.5):
                        sent.append(await self.track.recv())
        return sent


def size_of(packet: Packet[Any]) -> tuple[int, int] | None:
    """Of a key picture (RFC 6386, 9.1)."""
    data = bytes(packet)
    if data[0] & 1:
        return None
    return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF


async def test_the_camera_sends_no_more_than_planned() -> None:
    sent = await Filmed(SMALL).pictures(30)

    assert 8 <= len(sent) <= 11
    assert [size_of(packet) for packet in sent] == [(160, 120)] + [None] * (len(sent) - 1)
    times = [packet.pts or 0 for packet in sent]
    assert times[0] == 0
    assert all(later - packet >= 12_000 for packet, later in pairwise(times))
    assert await Filmed(None).pictures(5) == []


async def test_the_form_changes_under_way_and_only_another_size_costs_a_key_picture() -> None:
    filmed = Filmed(SMALL)
    sizes = []
    plans = (
        SMALL,
        PicturePlan(60_000, 160, 120, 10.0),
        PicturePlan(60_000, 320, 200, 10.0),  # the camera's shape is kept
        None,
        PicturePlan(15_000, 320, 200, 2.0),
    )
    for plan in plans:
        filmed.track.plan = plan
        sizes.append([size for packet in await filmed.pictures(15) if (size := size_of(packet))])
    assert sizes == [[(160, 120)], [], [(266, 200)], [], []]


async def test_key_pictures_are_made_when_asked_for_but_not_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracks, "KEY_PICTURE_S", 0.2)
    filmed = Filmed(PicturePlan(200_000, 160, 120, 15.0))
    assert [size_of(packet) is not None for packet in await filmed.pictures(1)] == [True]
    filmed.track.want_key_picture()
    loop = asyncio.get_running_loop()
    began = loop.time()
    keys: list[float] = []
    while loop.time() < began + 0.7:
        keys += [loop.time() for packet in await filmed.pictures(1) if size_of(packet)]
    assert len(keys) == 1
    assert keys[0] - began > 0.15
    filmed.track.rtt_s = 5.0
    filmed.track.want_key_picture()
    assert not any(size_of(packet) for packet in await filmed.pictures(10))


async def test_every_second_picture_can_be_lost_where_losses_are_many() -> None:
    filmed = Filmed(PicturePlan(200_000, 160, 120, 15.0))
    filmed.track.layered = True
    sent = await filmed.pictures(8)
    assert [packet.opaque for packet in sent] == [False, True] * 4
