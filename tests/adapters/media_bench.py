"""The media process run for real over its socket, and a far end made of stock aiortc."""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
import tomli_w
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack, VideoStreamTrack
from numpy.typing import NDArray

from edge_agent import ipc
from edge_agent.core import sdp
from hardware.api import BLOCK_SAMPLES
from hardware.numbered import draw_number

CALL = b"callcall"
START = """
import logging, sys
from pathlib import Path
from edge_agent.config import read_kiosk_settings
from edge_agent.media.process import run
logging.basicConfig(level="INFO", format="%(levelname)s %(name)s %(message)s")
sys.exit(run(Path(sys.argv[1]), read_kiosk_settings(Path(sys.argv[2]))))
"""

Frame = TypeVar("Frame")
Command = Callable[[Path, Path], list[str]]


def plain_command(socket_path: Path, config: Path) -> list[str]:
    return [sys.executable, "-c", START, str(socket_path), str(config)]


def elsewhere(prefix: Sequence[str]) -> Command:
    return lambda socket_path, config: [*prefix, *plain_command(socket_path, config)]


class MediaBench:
    """In the agent's place: listens, starts the process, keeps every frame that it sends."""

    def __init__(
        self,
        folder: Path,
        devices: dict[str, Any],
        command: Command = plain_command,
        settings: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        """`command(socket, config)` starts the process; `settings` beside its devices; `env` is added to its
        environment."""
        self.folder, self.devices, self.command = folder, devices, command
        self.settings = settings or {}
        self._env = {**os.environ, **(env or {})}
        self.log = ""
        self.frames: list[tuple[float, Any]] = []
        self._news = asyncio.Condition()
        self._link: ipc.Link | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[MediaBench]:
        socket_path = self.folder / "media.sock"
        config = self.folder / "kiosk.toml"
        config.write_text(tomli_w.dumps({"devices": self.devices, **self.settings}))
        connected: asyncio.Future[ipc.Link] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            link = ipc.Link(reader, writer, ipc.FromMedia)
            self.writer = writer
            connected.set_result(link)
            while (frame := await link.receive()) is not None:
                async with self._news:
                    self.frames.append((time.monotonic(), frame))
                    self._news.notify_all()

        async with await asyncio.start_unix_server(serve, socket_path):
            self.started_at = time.monotonic()
            self.process = await asyncio.create_subprocess_exec(
                *self.command(socket_path, config), stderr=asyncio.subprocess.PIPE, env=self._env
            )
            try:
                self._link = await asyncio.wait_for(connected, 20)
                yield self
            finally:
                self.writer.close()
                if self.process.returncode is None:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(asyncio.shield(self._drain()), 10)
                if self.process.returncode is None:
                    self.process.send_signal(signal.SIGKILL)
                    await self.process.wait()
                    raise AssertionError("the media process did not end with its socket")

    async def _drain(self) -> str:
        assert self.process.stderr is not None
        self.log = (await self.process.stderr.read()).decode()
        await self.process.wait()
        print(self.log)
        return self.log

    async def ended(self) -> tuple[int, str]:
        """Exit code and log, once the process has ended by itself."""
        log = await asyncio.wait_for(self._drain(), 10)
        return self.process.returncode or 0, log

    def send(self, frame: Any) -> None:
        assert self._link is not None
        self._link.send(frame)

    async def expect(
        self,
        kind: type[Frame],
        matching: Callable[[Frame], bool] = lambda _: True,
        within_s: float = 15.0,
        after: int = 0,
    ) -> Frame:
        """The first such frame, come or to come; `after` skips the frames before that index."""

        def find() -> Frame | None:
            return next((f for _, f in self.frames[after:] if isinstance(f, kind) and matching(f)), None)

        async with asyncio.timeout(within_s), self._news:
            await self._news.wait_for(lambda: find() is not None)
        found = find()
        assert found is not None
        return found

    async def expect_pictures(self, count: int, within_s: float = 20.0, after: int = 0) -> list[ipc.FarPicture]:
        def pictures() -> list[ipc.FarPicture]:
            return [frame for _, frame in self.frames[after:] if isinstance(frame, ipc.FarPicture)]

        async with asyncio.timeout(within_s), self._news:
            await self._news.wait_for(lambda: len(pictures()) >= count)
        return pictures()

    def at(self, kind: type[Any]) -> float:
        """When the first frame of a kind came."""
        return next(at for at, frame in self.frames if isinstance(frame, kind))

    def at_picture(self, number: int) -> float:
        """When the far picture of that number, from 0, came."""
        return [at for at, frame in self.frames if isinstance(frame, ipc.FarPicture)][number]

    async def connect(self, far: FarEnd, leg: int = 1, held: bool = False) -> None:
        self.send(ipc.StartCall(CALL, leg, (), held))
        offer = await self.expect(ipc.OfferMade, lambda frame: frame.leg == leg)
        assert len(offer.sdp) <= 800
        self.send(ipc.TakeAnswer(CALL, leg, await far.answer(offer.sdp)))
        await self.expect(ipc.MediaConnected, lambda frame: frame.leg == leg)

    async def stays(self, seconds: float) -> None:
        """Lets the call go on, by its own statistics, and fails when it is lost meanwhile."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            frame = await self.next_frame()
            assert not isinstance(frame, ipc.MediaLost), frame

    async def next_frame(self, within_s: float = 15.0) -> Any:
        count = len(self.frames)
        async with asyncio.timeout(within_s), self._news:
            await self._news.wait_for(lambda: len(self.frames) > count)
        return self.frames[count][1]

    def pss_mb(self) -> float:
        return pss_mb(self.process.pid)

    def cpu_s(self) -> float:
        return cpu_s(self.process.pid)


def cpu_s(pid: int) -> float:
    """Of all its threads since its start."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no Pss in smaps_rollup")


class Stutter:
    """How far this machine is from real time: the longest that a thread was kept waiting. Sound is judged only while
    that is little; what a far end on a busy machine sends is no measure of the media process."""

    MOST_S = 0.05

    def __init__(self) -> None:
        self._longest_s = 0.0
        self._over = threading.Event()

    def __enter__(self) -> Stutter:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def start_over(self) -> None:
        self._longest_s = 0.0

    @property
    def too_busy(self) -> bool:
        others = os.getloadavg()[0] > (os.cpu_count() or 1)  # jitter buffers remember the last minute too
        return others or self._longest_s > self.MOST_S

    def _watch(self) -> None:
        while not self._over.is_set():
            before = time.monotonic()
            time.sleep(0.005)
            self._longest_s = max(self._longest_s, time.monotonic() - before - 0.005)


async def eventually(true: Callable[[], bool], within_s: float = 5.0) -> None:
    """For what no event tells: a process's end, a stock connection's state."""
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class FarEnd:
    """Stock aiortc in the doctor's place: speaks `speech` in a loop, shows numbered pictures, keeps what it gets."""

    def __init__(self, speech: NDArray[np.int16], rate: int = 15) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self.sound = LoopedSound(speech)
        self.picture = NumberedPictures(rate)
        self.connection.addTrack(self.sound)
        self.connection.addTrack(self.picture)
        self.heard: list[NDArray[np.int16]] = []
        self.pictures: list[av.VideoFrame] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.connection.on("track", lambda track: self._tasks.append(asyncio.ensure_future(self._keep(track))))

    async def answer(self, offer: bytes) -> bytes:
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp.decompress(offer), "offer"))
        await self.connection.setLocalDescription()
        return sdp.compress(self.connection.localDescription.sdp)

    async def _keep(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if isinstance(frame, av.AudioFrame):
                    stereo = frame.to_ndarray().reshape(-1, 2)
                    self.heard.append(stereo[:, 0].copy())
                else:
                    self.pictures.append(frame)

    async def close(self) -> None:
        await self.connection.close()
        for task in self._tasks:
            task.cancel()


class LoopedSound(MediaStreamTrack):
    kind = "audio"

    def __init__(self, speech: NDArray[np.int16]) -> None:
        super().__init__()
        self._blocks = self._rounds(speech)
        self._count = 0
        self._started_at: float | None = None

    @staticmethod
    def _rounds(speech: NDArray[np.int16]) -> Iterator[NDArray[np.int16]]:
        while True:
            for start in range(0, len(speech) - BLOCK_SAMPLES + 1, BLOCK_SAMPLES):
                yield speech[start : start + BLOCK_SAMPLES]

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        now = time.monotonic()
        self._started_at = self._started_at or now
        await asyncio.sleep(max(0.0, self._started_at + self._count * 0.02 - now))
        frame = av.AudioFrame.from_ndarray(next(self._blocks).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = 48_000
        frame.time_base = fractions.Fraction(1, 48_000)
        frame.pts = self._count * BLOCK_SAMPLES
        self._count += 1
        return frame


class NumberedPictures(VideoStreamTrack):
    def __init__(self, rate: int) -> None:
        super().__init__()
        self._rate, self.count = rate, 0
        self._started_at: float | None = None

    async def recv(self) -> av.VideoFrame:
        if self.readyState != "live":
            raise MediaStreamError
        now = time.monotonic()
        self._started_at = self._started_at or now
        await asyncio.sleep(max(0.0, self._started_at + self.count / self._rate - now))
        pixels = np.full((240, 320, 3), 120, np.uint8)
        pixels[:, :, 0] = np.linspace(0, 255, 320, dtype=np.uint8)
        draw_number(pixels, self.count % 65536)
        frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
        frame.pts, frame.time_base = self.count * 90_000 // self._rate, fractions.Fraction(1, 90_000)
        self.count += 1
        return frame
