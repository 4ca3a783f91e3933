"""What the kiosk sends: the microphone as coded packets, the camera as pictures that aiortc encodes.

A track runs from the moment its leg is offered; while it is held the voice is silence, of which next to nothing is
sent, and no picture goes out, so that the first sound after the answer waits for nothing but the link.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
from aiortc.mediastreams import VIDEO_CLOCK_RATE, VIDEO_TIME_BASE, MediaStreamError, MediaStreamTrack
from av.frame import Frame
from av.packet import Packet
from numpy.typing import NDArray

from edge_agent.core import red
from edge_agent.core.voice import Coding, PicturePlan, VoicePlan
from edge_agent.media.opus import SILENCE
from edge_agent.media.voice import VoiceCoder, VoicePacket
from hardware.api import SAMPLE_RATE_HZ, Picture

WHILE_HELD = VoicePlan(Coding(dtx=True))
QUEUED_PACKETS = 5
MICROPHONE_WAIT_S = 1.0  # a pause is told at least twice in this; then silence is, so that the line is known to live

EARLY_S = 0.02  # a camera's stamps tremble by so much

_SOUND_TIME_BASE = Fraction(1, SAMPLE_RATE_HZ)


class MicrophoneTrack(MediaStreamTrack):
    """`hear` is the microphone's user; coding happens in its thread. While held, it codes silence."""

    kind = "audio"

    def __init__(self, held: bool, plan: VoicePlan) -> None:
        super().__init__()
        self.held = held
        self.plan = plan  # of another thread's next frame
        self.opus_in_red: int | None = None  # where the far end takes RED: Opus' payload type in it
        self._event_loop = asyncio.get_running_loop()
        self._coder: VoiceCoder | None = None
        self._packets: deque[VoicePacket] = deque(maxlen=QUEUED_PACKETS)
        self._arrived = asyncio.Event()
        self._sent_at = self._event_loop.time()
        self._sent_position = 0
        self._shift = 0  # samples that were told as silence while the microphone gave none

    def hear(self, block: NDArray[np.int16]) -> None:
        self._coder = self._coder or VoiceCoder()
        sound, plan = (np.zeros_like(block), WHILE_HELD) if self.held else (block, self.plan)
        packets = self._coder.code(sound, plan, self.opus_in_red)
        if packets:
            self._event_loop.call_soon_threadsafe(self._take, packets)

    def _take(self, packets: list[VoicePacket]) -> None:
        self._packets.extend(packets)
        self._drop_outdated()
        self._arrived.set()

    async def recv(self) -> Packet[Any]:
        if self.readyState != "live":
            raise MediaStreamError
        payload, position = await self._next()
        self._sent_at, self._sent_position = self._event_loop.time(), position
        packet = Packet(payload)
        packet.time_base = _SOUND_TIME_BASE
        packet.pts = position
        return packet

    async def _next(self) -> tuple[bytes, int]:
        self._drop_outdated()
        try:
            async with asyncio.timeout_at(self._sent_at + MICROPHONE_WAIT_S):
                while not self._packets:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            waited = int(MICROPHONE_WAIT_S * SAMPLE_RATE_HZ)
            self._shift += waited
            silence = SILENCE if self.opus_in_red is None else red.build(self.opus_in_red, SILENCE)
            return silence, self._sent_position + waited
        packet = self._packets.popleft()
        return packet.payload, packet.position + self._shift

    def _drop_outdated(self) -> None:
        """What was coded before the far end's answer."""
        while self._packets and self._packets[0].in_red != (self.opus_in_red is not None):
            self._packets.popleft()


class CameraTrack(MediaStreamTrack):
    """`see` is the camera's user. Only the newest picture is ever sent."""

    kind = "video"

    def __init__(self, held: bool, plan: PicturePlan | None, room: Callable[[], Awaitable[None]]) -> None:
        """`room` returns when the link can take the next one."""
        super().__init__()
        self.held = held
        self._room = room
        self.plan = plan  # None: no pictures are sent
        self.pictures_sent = 0
        self._event_loop = asyncio.get_running_loop()
        self._newest: Picture | None = None
        self._arrived = asyncio.Event()
        self._started_at: float | None = None
        self._due_at = 0.0
        self._last_pts = -1

    def see(self, picture: Picture) -> None:
        if self.held or self.plan is None or picture.captured_at < self._due_at:
            return
        self._due_at = max(self._due_at + 1 / self.plan.rate, picture.captured_at - EARLY_S)
        self._event_loop.call_soon_threadsafe(self._take, picture)

    def _take(self, picture: Picture) -> None:
        self._newest = picture
        self._arrived.set()

    async def recv(self) -> Frame:
        if self.readyState != "live":
            raise MediaStreamError
        await self._room()
        while (picture := self._newest) is None:
            self._arrived.clear()
            await self._arrived.wait()
        self._newest = None
        if self._started_at is None:
            self._started_at = picture.captured_at
        frame = av.VideoFrame.from_ndarray(picture.pixels, format="bgr24")
        if self.plan is not None and (scale := min(self.plan.width / frame.width, self.plan.height / frame.height)) < 1:
            frame = frame.reformat(round(frame.width * scale / 2) * 2, round(frame.height * scale / 2) * 2)
        self._last_pts = max(
            self._last_pts + 1, round((picture.captured_at - self._started_at) * VIDEO_CLOCK_RATE)
        )  # a camera may stamp two pictures alike
        frame.pts = self._last_pts
        frame.time_base = VIDEO_TIME_BASE
        self.pictures_sent += 1
        return frame
