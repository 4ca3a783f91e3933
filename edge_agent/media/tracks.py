"""What the kiosk sends: the microphone and the camera as coded packets.

A track runs from the moment its leg is offered; while it is held the voice is silence, of which next to nothing is
sent, and no picture goes out, so that the first sound after the answer waits for nothing but the link.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
from aiortc.mediastreams import VIDEO_CLOCK_RATE, VIDEO_TIME_BASE, MediaStreamError, MediaStreamTrack
from av.packet import Packet
from numpy.typing import NDArray

from edge_agent.core import red
from edge_agent.core.voice import Coding, PicturePlan, VoicePlan
from edge_agent.media.opus import SILENCE
from edge_agent.media.voice import VoiceCoder, VoicePacket
from edge_agent.media.vpx import I420, CodedPicture, PictureEncoder, open_encoder
from hardware.api import SAMPLE_RATE_HZ, Picture

WHILE_HELD = VoicePlan(Coding(dtx=True))
QUEUED_PACKETS = 5
MICROPHONE_WAIT_S = 1.0  # a pause is told at least twice in this; then silence is, so that the line is known to live

EARLY_S = 0.02  # a camera's stamps tremble by so much
KEY_PICTURE_S, KEY_PICTURE_RTTS = 2.0, 2.0  # no two key pictures within the longer of them

_SOUND_TIME_BASE = Fraction(1, SAMPLE_RATE_HZ)


class MicrophoneTrack(MediaStreamTrack):
    """`hear` is the microphone's user; coding happens in its thread. While held, it codes silence."""

    kind = "audio"

    def __init__(self, held: bool, plan: VoicePlan) -> None:
        super().__init__()
        self.held = held
        self.rests = False  # not even silence is coded: a packet a second says that the line lives
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
        if self.rests:
            return
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
    """`see` is the camera's user. Only the newest picture is ever coded, in a thread, when there is room for it."""

    kind = "video"

    def __init__(self, held: bool, plan: PicturePlan | None, room: Callable[[], Awaitable[None]]) -> None:
        """`room` returns when the link can take the next one."""
        super().__init__()
        self.held = held
        self._room = room
        self.plan = plan  # of the next picture; its size is what a picture is to fit into. None: none are sent
        self.layered = False  # every second picture may be lost without harm to the others
        self.rtt_s = 0.0
        self.pictures_sent = self.key_pictures_sent = 0
        self._event_loop = asyncio.get_running_loop()
        self._newest: Picture | None = None
        self._arrived = asyncio.Event()
        self._started_at: float | None = None
        self._due_at = 0.0
        self._last_pts = -1
        self._encoder: PictureEncoder | None = None
        self._key_wanted = False
        self._key_at = float("-inf")

    def see(self, picture: Picture) -> None:
        if self.held or self.plan is None or picture.captured_at < self._due_at:
            return
        interval_s = 1 / self.plan.rate
        after_a_gap = picture.captured_at - self._due_at >= interval_s
        self._due_at = (picture.captured_at - EARLY_S if after_a_gap else self._due_at) + interval_s
        self._event_loop.call_soon_threadsafe(self._take, picture)

    def want_key_picture(self) -> None:
        """The far end has lost what the pictures are built on. It gets one when the last is old enough."""
        self._key_wanted = True

    def _take(self, picture: Picture) -> None:
        self._newest = picture
        self._arrived.set()

    async def recv(self) -> Packet[Any]:
        while self.readyState == "live":
            await self._room()
            while (picture := self._newest) is None:
                self._arrived.clear()
                await self._arrived.wait()
            self._newest = None
            if self.plan is None:
                continue
            now = self._event_loop.time()
            key = self._key_wanted and now - self._key_at >= max(KEY_PICTURE_S, KEY_PICTURE_RTTS * self.rtt_s)
            coded = await asyncio.to_thread(self._code, picture, self.plan, key)
            if coded is not None:
                if coded.key:
                    self._key_wanted, self._key_at = False, now
                    self.key_pictures_sent += 1
                return self._packet(coded, picture.captured_at)
        raise MediaStreamError

    def _code(self, picture: Picture, plan: PicturePlan, key: bool) -> CodedPicture | None:
        self._encoder = self._encoder or open_encoder()
        planes = fitted(picture.pixels, plan.width, plan.height)
        real = replace(plan, width=planes.shape[1], height=planes.shape[0] * 2 // 3)
        return self._encoder.encode(planes, real, picture.captured_at, key=key, layered=self.layered)

    def _packet(self, coded: CodedPicture, captured_at: float) -> Packet[Any]:
        """Its `opaque` tells the packetizer whether others are built on it."""
        if self._started_at is None:
            self._started_at = captured_at
        # A camera may stamp two pictures alike.
        self._last_pts = max(self._last_pts + 1, round((captured_at - self._started_at) * VIDEO_CLOCK_RATE))
        packet = Packet(coded.data)
        packet.pts, packet.time_base = self._last_pts, VIDEO_TIME_BASE
        packet.opaque = coded.upper
        self.pictures_sent += 1
        return packet


def fitted(pixels: NDArray[np.uint8], width: int, height: int) -> I420:
    """A picture of BGR as planes that are no larger, of the same shape, with even sides."""
    own_height, own_width = pixels.shape[:2]
    scale = min(1.0, width / own_width, height / own_height)
    size = max(2, round(own_width * scale / 2) * 2), max(2, round(own_height * scale / 2) * 2)
    if size != (own_width, own_height):
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2YUV_I420), np.uint8)
