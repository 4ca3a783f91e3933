"""What a film looks like at so many bits: the kit's VP8, and what was weighed against it.

    scripts/bench-pictures --corpus FOLDER        the tables of docs/performance.md, in about two minutes

The film is `video/*` of the folder, 10 s of it, scaled to each form. SSIM and PSNR are those of the luma that a decoder
shows against the picture as it was taken, over all pictures, one that was left out counting as the one before it. The
time is the processor's, in one thread, encoding alone.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from unittest.mock import patch

import aiortc.codecs.vpx
import av
import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.core.voice import PicturePlan
from edge_agent.media import hooks, vpx
from edge_agent.media.tracks import CameraTrack, fitted
from edge_agent.media.vpx import I420, CodedPicture, PyavEncoder
from hardware.api import Picture
from tests.bench.marks import ssim

SECONDS = 10
FORMS = (
    PicturePlan(30_000, 160, 120, 5.0),
    PicturePlan(60_000, 320, 240, 10.0),
    PicturePlan(120_000, 320, 240, 15.0),
    PicturePlan(300_000, 640, 480, 15.0),
)
NOISE = 6.0  # grey levels, of a cheap camera in a dim room

Bgr = NDArray[np.uint8]


class Encoder(Protocol):
    def encode(self, picture: I420, plan: PicturePlan, at: float, *, layered: bool = False) -> CodedPicture | None: ...


class Way(NamedTuple):
    """Of coding a film."""

    name: str
    open: Callable[[], Encoder] = vpx.open_encoder
    codec: str = "libvpx"
    layered: bool = False
    settings: dict[str, int] = {}  # noqa: RUF012 -- never changed; constants of `edge_agent.media.vpx`


class Marks(NamedTuple):
    kbps: float
    ssim: float
    psnr_db: float
    cpu_ms: float  # for one picture
    left_out: int


class Vp9:
    """As browsers call it up in a call: real time, one pass, a constant rate, cyclic refresh."""

    def __init__(self, speed: int) -> None:
        self._speed = speed
        self._codec: Any = None
        self._count = 0

    def encode(self, picture: I420, plan: PicturePlan, at: float, *, layered: bool = False) -> CodedPicture | None:
        if self._codec is None:
            codec: Any = av.CodecContext.create("libvpx-vp9", "w")
            codec.width, codec.height, codec.pix_fmt = plan.width, plan.height, "yuv420p"
            codec.time_base, codec.framerate = Fraction(1, round(plan.rate)), Fraction(round(plan.rate))
            codec.bit_rate, codec.gop_size, codec.thread_count = plan.bps, 3000, 1
            codec.qmin, codec.qmax = 2, 60
            codec.options = {
                "minrate": str(plan.bps), "maxrate": str(plan.bps), "bufsize": str(plan.bps), "deadline": "realtime",
                "cpu-used": str(self._speed), "lag-in-frames": "0", "aq-mode": "3", "row-mt": "0", "auto-alt-ref": "0",
                "error-resilience": "0", "static-thresh": "0", "max-intra-rate": str(round(30 * plan.rate)),
            }  # fmt: skip
            self._codec = codec
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = self._count, self._codec.time_base
        self._count += 1
        data = b"".join(map(bytes, self._codec.encode(frame)))
        return CodedPicture(data, self._count == 1, False) if data else None


def judge(way: Way, plan: PicturePlan, film: list[Bgr], prepare: Callable[[Bgr], Bgr] = lambda taken: taken) -> Marks:
    """`prepare` makes of a picture what is coded; it is compared with the picture itself."""
    with patch.multiple(vpx, **way.settings) if way.settings else nullcontext():
        encoder, decoder = way.open(), av.CodecContext.create(way.codec, "r")
        size, left_out, cpu_s = 0, 0, 0.0
        likeness, errors = [], []
        shown = np.zeros((plan.height, plan.width), np.uint8)
        for number in range(round(SECONDS * plan.rate)):
            taken = film[round(number * len(film) / SECONDS / plan.rate) % len(film)]
            true = fitted(taken, plan.width, plan.height)
            planes = fitted(prepare(taken), plan.width, plan.height)
            real = replace(plan, width=true.shape[1], height=true.shape[0] * 2 // 3)
            began = time.thread_time()
            coded = encoder.encode(planes, real, number / plan.rate, layered=way.layered)
            cpu_s += time.thread_time() - began
            if coded is None:
                left_out += 1
            else:
                size += len(coded.data)
                for frame in decoder.decode(av.Packet(coded.data)):  # type: ignore[attr-defined]
                    shown = frame.to_ndarray(format="yuv420p")[: real.height]
            luma = true[: real.height]
            likeness.append(ssim(luma, shown))
            errors.append(float(((luma.astype(float) - shown) ** 2).mean()))
    count = len(likeness)
    psnr_db = float(10 * np.log10(255**2 / np.mean(errors)))
    return Marks(size * 8 / SECONDS / 1000, float(np.mean(likeness)), psnr_db, 1000 * cpu_s / count, left_out)


def read_film(folder: Path) -> list[Bgr]:
    films = sorted((folder / "video").glob("*.*"))
    if not films:
        raise ValueError(f"{folder}: a film is needed as {folder}/video/*")
    with av.open(str(films[0])) as container:
        pictures = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
        rate = float(container.streams.video[0].average_rate or 30)
    return pictures[: round(SECONDS * rate)]


def noisy(seed: int) -> Callable[[Bgr], Bgr]:
    random = np.random.default_rng(seed)

    def prepare(taken: Bgr) -> Bgr:
        return np.clip(taken + random.normal(0, NOISE, taken.shape), 0, 255).astype(np.uint8)

    return prepare


def smoothed(prepare: Callable[[Bgr], Bgr]) -> Callable[[Bgr], Bgr]:
    return lambda taken: np.asarray(cv2.bilateralFilter(prepare(taken), 5, 20, 3), np.uint8)


CODECS = (
    Way("VP8, the kit's"),
    Way("VP8 in two layers", layered=True),
    Way("VP8 by PyAV", PyavEncoder),
    Way("VP9, speed 8", lambda: Vp9(8), "libvpx-vp9"),
    Way("VP9, speed 7", lambda: Vp9(7), "libvpx-vp9"),
    Way("VP9, speed 5", lambda: Vp9(5), "libvpx-vp9"),
)
SPEEDS = tuple(
    Way(f"VP8, speed {-speed}", settings={"SPEED": speed, "SMALL_SPEED": speed}) for speed in (-4, -6, -8, -12)
)
DENOISERS = tuple(Way(f"noise sensitivity {level}", settings={"NOISE_SENSITIVITY": level}) for level in (0, 1, 4))


def table(ways: tuple[Way, ...], film: list[Bgr], prepare: Callable[[Bgr], Bgr] = lambda taken: taken) -> Iterator[str]:
    yield "| film | coded by | kbit/s | SSIM | PSNR | processor's time | left out |"
    yield "|---|---|---|---|---|---|---|"
    for plan in FORMS:
        first = None
        for way in ways:
            marks = judge(way, plan, film, prepare)
            first = first or marks
            yield (
                f"| {plan.width}×{plan.height}, {plan.rate:.0f}/s, {plan.bps // 1000} kbit/s | {way.name} "
                f"| {marks.kbps:.1f} | {marks.ssim:.3f} | {marks.psnr_db:.1f} dB "
                f"| × {marks.cpu_ms / first.cpu_ms:.2f} | {marks.left_out} |"
            )


async def _kits_path_ms(film: list[Bgr], plan: PicturePlan) -> float:
    """The processor's time for one picture from the camera's pixels to payloads; of the whole process."""

    async def at_once() -> None:
        pass

    track, packer = CameraTrack(False, plan, at_once), hooks._PicturePacker()
    began = time.process_time()
    for number, taken in enumerate(film):
        track.see(Picture(taken, number / plan.rate))
        await asyncio.sleep(0)
        if track._newest is not None:
            with suppress(TimeoutError):  # one that libvpx leaves out
                async with asyncio.timeout(1):
                    packer.pack(await track.recv())
    return 1000 * (time.process_time() - began) / len(film)


async def _stocks_path_ms(film: list[Bgr], plan: PicturePlan) -> float:
    """The same as aiortc has it: a frame that the track scales, then its encoder in the default executor."""
    with patch.multiple(aiortc.codecs.vpx, MIN_BITRATE=plan.bps, MAX_BITRATE=plan.bps, DEFAULT_BITRATE=plan.bps):
        encoder, loop = aiortc.codecs.vpx.Vp8Encoder(), asyncio.get_running_loop()
        began = time.process_time()
        for number, taken in enumerate(film):
            frame = av.VideoFrame.from_ndarray(taken, format="bgr24").reformat(plan.width, plan.height)
            frame.pts, frame.time_base = round(number * 90_000 / plan.rate), Fraction(1, 90_000)
            await loop.run_in_executor(None, encoder.encode, frame, False)
    return 1000 * (time.process_time() - began) / len(film)


def path_table(film: list[Bgr]) -> Iterator[str]:
    yield "| camera of 640×480, sent as | the kit | stock aiortc | ratio |"
    yield "|---|---|---|---|"
    taken = [np.asarray(cv2.resize(each, (640, 480)), np.uint8) for each in film[::2]] * 2
    for plan in (PicturePlan(250_000, 320, 240, 15.0), PicturePlan(500_000, 640, 480, 15.0)):
        kit_ms = min(asyncio.run(_kits_path_ms(taken, plan)) for _ in range(3))
        stock_ms = min(asyncio.run(_stocks_path_ms(taken, plan)) for _ in range(3))
        yield (
            f"| {plan.width}×{plan.height}, {plan.rate:.0f}/s, {plan.bps // 1000} kbit/s "
            f"| {kit_ms:.1f} ms | {stock_ms:.1f} ms | {kit_ms / stock_ms:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="a folder with a film: video/*")
    film = read_film(parser.parse_args().corpus)
    parts = (
        ("Codecs", table(CODECS, film)),
        ("Speeds", table(SPEEDS, film)),
        ("Libvpx's denoiser, a clean camera", table(DENOISERS, film)),
        (f"The same, noise of {NOISE:.0f} grey levels", table(DENOISERS, film, noisy(1))),
        ("From the camera's pixels to payloads, the processor's time for a picture", path_table(film)),
        ("The same noise, smoothed before", table(DENOISERS[:1], film, smoothed(noisy(1)))),
    )
    for heading, lines in parts:
        print(f"\n{heading}:\n")
        for line in lines:
            print(line, flush=True)


if __name__ == "__main__":
    main()
