"""The microphone's track: ready packets with the right times, whatever changes under way."""

from __future__ import annotations

import asyncio
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


async def test_the_camera_sends_no_more_than_planned() -> None:
    pixels = np.zeros((480, 640, 3), np.uint8)
    small = CameraTrack(held=False, plan=PicturePlan(30_000, 160, 120, 5.0), room=at_once)
    sent = []
    for number in range(30):  # two seconds of a camera that gives 15 a second
        small.see(Picture(pixels, 100 + number / 15))
        await asyncio.sleep(0)
        if small._newest is not None:
            sent.append(await small.recv())

    assert 9 <= len(sent) <= 11
    assert {(frame.width, frame.height) for frame in sent} == {(160, 120)}  # type: ignore[attr-defined]

    none = CameraTrack(held=False, plan=None, room=at_once)
    none.see(Picture(pixels, 100.0))
    await asyncio.sleep(0)
    assert none._newest is None
