"""A call as aiortc makes it by itself: its own RTCPeerConnection at its defaults, sound and pictures in and out.

    python -m tests.bench.stock_main WAV FILM FOLDER

Prints its offer as a line of JSON, takes the answer as one, prints every state of the connection, and ends with its
standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ
from hardware.numbered import read_number
from tests.bench.devices import EAR, LENS, MOUTH, NotingCamera, NotingMicrophone, NotingSpeaker
from tests.bench.material import grey

SIGHTED = "screen.sightings"
STILLS = "stills.npz"
STILL_EVERY_S = 1.0
_SIGHTING = struct.Struct("<dI")


class DeviceTrack(MediaStreamTrack):
    """The newest of what a device gives; read in a thread of its own, as every example of aiortc does."""

    def __init__(self, kind: str, read: Callable[[], av.AudioFrame | av.VideoFrame]) -> None:
        super().__init__()
        self.kind = kind
        self._read = read
        self._frames: asyncio.Queue[Any] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._started = False

    async def recv(self) -> Any:
        if self.readyState != "live":
            raise MediaStreamError
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, daemon=True).start()
        return await self._frames.get()

    def _run(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            while self.readyState == "live":
                self._loop.call_soon_threadsafe(self._put, self._read())

    def _put(self, frame: Any) -> None:
        while self._frames.qsize() >= 5:
            self._frames.get_nowait()
        self._frames.put_nowait(frame)


def microphone(device: NotingMicrophone) -> Callable[[], av.AudioFrame]:
    position = 0

    def read() -> av.AudioFrame:
        nonlocal position
        frame = av.AudioFrame.from_ndarray(device.read().reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = SAMPLE_RATE_HZ, Fraction(1, SAMPLE_RATE_HZ), position
        position += BLOCK_SAMPLES
        return frame

    return read


def camera(device: NotingCamera) -> Callable[[], av.VideoFrame]:
    first: float | None = None

    def read() -> av.VideoFrame:
        nonlocal first
        picture = device.read()
        first = picture.captured_at if first is None else first
        frame = av.VideoFrame.from_ndarray(picture.pixels, format="bgr24")
        frame.pts, frame.time_base = round((picture.captured_at - first) * 90_000), Fraction(1, 90_000)
        return frame

    return read


async def play(track: MediaStreamTrack, speaker: NotingSpeaker) -> None:
    with contextlib.suppress(MediaStreamError):
        while True:
            frame = await track.recv()
            samples = frame.to_ndarray().reshape(-1, 2)[:, 0].copy()
            await asyncio.to_thread(speaker.write, samples)


async def watch(track: MediaStreamTrack, folder: Path) -> None:
    """Reads the number off each picture, and keeps one a second whole."""
    stills: list[tuple[float, int, Any]] = []
    next_still = 0.0
    with (folder / SIGHTED).open("ab", buffering=0) as notes, contextlib.suppress(MediaStreamError):
        try:
            while True:
                frame = await track.recv()
                at = time.monotonic()
                picture = frame.to_ndarray(format="bgr24")
                number = read_number(picture)
                if number is None:
                    continue
                notes.write(_SIGHTING.pack(at, number))
                if at >= next_still:
                    next_still = at + STILL_EVERY_S
                    stills.append((at, number, grey(picture)))
        finally:
            times, numbers = [at for at, _, _ in stills], [number for _, number, _ in stills]
            np.savez(folder / STILLS, *(still for *_, still in stills), times=times, numbers=numbers)


async def main(wav: Path, film: Path, folder: Path) -> None:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connection.addTrack(DeviceTrack("audio", microphone(NotingMicrophone(wav, folder / MOUTH))))
    connection.addTrack(DeviceTrack("video", camera(NotingCamera(film, folder / LENS))))
    tasks: list[asyncio.Task[None]] = []

    @connection.on("track")
    def _(track: MediaStreamTrack) -> None:
        work = play(track, NotingSpeaker(folder / EAR)) if track.kind == "audio" else watch(track, folder)
        tasks.append(asyncio.ensure_future(work))

    @connection.on("connectionstatechange")
    def _() -> None:
        say({"state": connection.connectionState})

    await connection.setLocalDescription(await connection.createOffer())
    say({"offer": connection.localDescription.sdp})
    answer = json.loads(await asyncio.to_thread(sys.stdin.readline))["answer"]
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await asyncio.to_thread(sys.stdin.read)
    await connection.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def say(what: dict[str, str]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*map(Path, sys.argv[1:])))
