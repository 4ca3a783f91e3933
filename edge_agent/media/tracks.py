"""What the kiosk sends: the microphone as Opus, the camera as pictures that aiortc encodes.

A track runs from the moment its leg is offered; while it is held the voice is silence and no picture goes out, so
that the first sound after the answer waits for nothing but the link.
"""

from __future__ import annotations

import asyncio
from collections import deque
from fractions import Fraction
from typing import Any

import av
import numpy as np
from aiortc.mediastreams import VIDEO_CLOCK_RATE, VIDEO_TIME_BASE, MediaStreamError, MediaStreamTrack
from av.frame import Frame
from av.packet import Packet
from numpy.typing import NDArray

from edge_agent.media.opus import SILENCE
from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ, Picture

SOUND_BPS = 32_000  # Opus, mono, fullband: transparent for speech; poor links get less, by their own work
QUEUED_BLOCKS = 5
MICROPHONE_WAIT_S = 0.1  # then silence is sent, so that the far end knows the line is alive

_BLOCK_S = BLOCK_SAMPLES / SAMPLE_RATE_HZ
_SOUND_TIME_BASE = Fraction(1, SAMPLE_RATE_HZ)


class SoundEncoder:
    """Opus, 20 ms a packet. One thread at a time."""

    def __init__(self, bit_rate: int) -> None:
        codec = av.CodecContext.create("libopus", "w")
        codec.bit_rate = bit_rate
        codec.format = "s16"
        codec.layout = "mono"
        codec.sample_rate = SAMPLE_RATE_HZ
        codec.time_base = _SOUND_TIME_BASE
        codec.options = {"application": "voip"}
        self._codec = codec
        self._samples = 0

    def encode(self, block: NDArray[np.int16]) -> list[bytes]:
        frame = sound_frame(block, self._samples)
        self._samples += len(block)
        return [bytes(packet) for packet in self._codec.encode(frame)]


def sound_frame(block: NDArray[np.int16], position: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(block.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE_HZ
    frame.time_base = _SOUND_TIME_BASE
    frame.pts = position
    return frame


class MicrophoneTrack(MediaStreamTrack):
    """`hear` is the microphone's user; encoding happens in its thread."""

    kind = "audio"

    def __init__(self, held: bool) -> None:
        super().__init__()
        self.held = held
        self._event_loop = asyncio.get_running_loop()
        self._encoder: SoundEncoder | None = None
        self._packets: deque[bytes] = deque(maxlen=QUEUED_BLOCKS)
        self._arrived = asyncio.Event()
        self._position = 0
        self._silent_until: float | None = None  # set while the microphone gives nothing: when the next block is due

    def hear(self, block: NDArray[np.int16]) -> None:
        if self.held:
            packets = [SILENCE]
        else:
            self._encoder = self._encoder or SoundEncoder(SOUND_BPS)
            packets = self._encoder.encode(block)
        self._event_loop.call_soon_threadsafe(self._take, packets)

    def _take(self, packets: list[bytes]) -> None:
        self._packets.extend(packets)
        self._arrived.set()

    async def recv(self) -> Packet[Any]:
        if self.readyState != "live":
            raise MediaStreamError
        if not await self._microphone_gives():
            self._packets.append(SILENCE)
        packet = Packet(self._packets.popleft())
        packet.time_base = _SOUND_TIME_BASE
        packet.pts = self._position
        self._position += BLOCK_SAMPLES
        return packet

    async def _microphone_gives(self) -> bool:
        if self._packets:
            self._silent_until = None
            return True
        self._arrived.clear()
        now = self._event_loop.time()
        wait = MICROPHONE_WAIT_S if self._silent_until is None else max(0.0, self._silent_until - now)
        try:
            async with asyncio.timeout(wait):
                await self._arrived.wait()
        except TimeoutError:
            if self._silent_until is None:
                self._position += int((MICROPHONE_WAIT_S - _BLOCK_S) * SAMPLE_RATE_HZ)
                self._silent_until = now + MICROPHONE_WAIT_S
            self._silent_until += _BLOCK_S
            return False
        self._silent_until = None
        return True


class CameraTrack(MediaStreamTrack):
    """`see` is the camera's user. Only the newest picture is ever sent."""

    kind = "video"

    def __init__(self, held: bool) -> None:
        super().__init__()
        self.held = held
        self.pictures_sent = 0
        self._event_loop = asyncio.get_running_loop()
        self._newest: Picture | None = None
        self._arrived = asyncio.Event()
        self._started_at: float | None = None
        self._last_pts = -1

    def see(self, picture: Picture) -> None:
        if not self.held:
            self._event_loop.call_soon_threadsafe(self._take, picture)

    def _take(self, picture: Picture) -> None:
        self._newest = picture
        self._arrived.set()

    async def recv(self) -> Frame:
        if self.readyState != "live":
            raise MediaStreamError
        while (picture := self._newest) is None:
            self._arrived.clear()
            await self._arrived.wait()
        self._newest = None
        if self._started_at is None:
            self._started_at = picture.captured_at
        frame = av.VideoFrame.from_ndarray(picture.pixels, format="bgr24")
        self._last_pts = max(
            self._last_pts + 1, round((picture.captured_at - self._started_at) * VIDEO_CLOCK_RATE)
        )  # a camera may stamp two pictures alike
        frame.pts = self._last_pts
        frame.time_base = VIDEO_TIME_BASE
        self.pictures_sent += 1
        return frame
