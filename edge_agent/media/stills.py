"""Single pictures: a case's photo, the preview while it is taken, the far picture for pages without WebCodecs."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent import ipc
from edge_agent.core import progressive
from edge_agent.media.pictures import EncodedPicture
from edge_agent.media.renditions import WEBP, Form, encoded, jpeg, renditions, shrunk
from hardware.api import Picture

log = logging.getLogger(__name__)

PHOTO_CHOICE = 3  # the sharpest of so many
PHOTO_SETTLE_S = 0.4  # a camera just opened still finds its exposure
PHOTO_TIMEOUT_S = 5.0
STAGE_QUALITY = 85  # at most
PREVIEW_WIDTH, PREVIEW_EVERY_S, PREVIEW_QUALITY = 320, 1 / 8, 70
FAR_EVERY_S, FAR_QUALITY = 1 / 15, 75
FAR_QUEUED = 30


class Photographer:
    """`see` is the camera's user; `ended(error)` is called once, from a thread of its own."""

    def __init__(
        self,
        keep: Callable[[NDArray[np.uint8]], None],
        just_opened: bool,
        ended: Callable[[str], None],
        why_dark: Callable[[], str],
    ) -> None:
        """`keep` is given the sharpest picture, in that thread."""
        self._keep, self._ended, self._why_dark = keep, ended, why_dark
        self._settle = PHOTO_SETTLE_S if just_opened else 0.0
        self._pictures: queue.SimpleQueue[Picture] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="photo", daemon=True).start()

    def see(self, picture: Picture) -> None:
        self._pictures.put(picture)

    def _run(self) -> None:
        error = ""
        try:
            self._keep(self._sharpest())
        except queue.Empty:
            error = self._why_dark() or "the camera gave no picture: check the plug"
        except Exception as problem:
            error = f"the photo could not be written: {problem}"
        if error:
            log.warning("photo failed: %s", error)
        self._ended(error)

    def _sharpest(self) -> NDArray[np.uint8]:
        deadline = time.monotonic() + PHOTO_TIMEOUT_S
        chosen: list[tuple[float, NDArray[np.uint8]]] = []
        opened_at: float | None = None
        while len(chosen) < PHOTO_CHOICE:
            picture = self._pictures.get(timeout=max(0.01, deadline - time.monotonic()))
            opened_at = picture.captured_at if opened_at is None else opened_at
            if picture.captured_at - opened_at >= self._settle:
                chosen.append((sharpness(picture.pixels), picture.pixels))
        return max(chosen, key=lambda pair: pair[0])[1]


class Preview:
    """`see` is the camera's user; gives small JPEGs, about 8 a second."""

    def __init__(self, show: Callable[[bytes], None]) -> None:
        self._show = show
        self._next = 0.0

    def see(self, picture: Picture) -> None:
        if picture.captured_at >= self._next:
            self._next = max(self._next + PREVIEW_EVERY_S, picture.captured_at)
            self._show(jpeg(shrunk(picture.pixels, PREVIEW_WIDTH), PREVIEW_QUALITY))


class FarPictureDecoder:
    """VP8 to JPEG in a thread of its own; `show(picture)` is called from it."""

    def __init__(self, show: Callable[[EncodedPicture], None], failed: Callable[[], None]) -> None:
        """`failed`: a picture was no VP8; the next one must be a key frame."""
        self._show, self._failed = show, failed
        self._pictures: queue.Queue[EncodedPicture | None] = queue.Queue(maxsize=FAR_QUEUED)
        threading.Thread(target=self._run, name="far-picture", daemon=True).start()

    def decode(self, picture: EncodedPicture) -> bool:
        """False while the thread is too far behind."""
        try:
            self._pictures.put_nowait(picture)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        while True:
            try:
                self._pictures.put_nowait(None)
            except queue.Full:
                self._pictures.get()  # nobody will see it
            else:
                return

    def _run(self) -> None:
        import av

        codec: Any = av.CodecContext.create("libvpx", "r")
        next_time_ms = 0.0
        while (picture := self._pictures.get()) is not None:
            try:
                frames = codec.decode(av.Packet(picture.data))
            except av.FFmpegError:
                self._failed()
                continue
            due = picture.still or picture.time_ms >= next_time_ms
            if frames and due and self._pictures.qsize() < FAR_QUEUED // 2:
                next_time_ms = max(next_time_ms + 1000 * FAR_EVERY_S, float(picture.time_ms))
                data = jpeg(frames[-1].to_ndarray(format="bgr24"), FAR_QUALITY)
                self._show(picture._replace(key=True, data=data))


def sharpness(pixels: NDArray[np.uint8]) -> float:
    """The variance of the Laplacian: blur takes the edges first."""
    import cv2

    return float(cv2.Laplacian(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), cv2.CV_64F).var())


def write_renditions(path: Path, pixels: NDArray[np.uint8]) -> Iterator[ipc.PhotoRendition]:
    """The photo itself to `path`, the others beside it; tells of those."""
    for name, mime, data in renditions(pixels):
        file = path.with_name(f"{path.name}.{name}") if name else path
        file.write_bytes(data)
        if name:
            yield ipc.PhotoRendition(name, mime, str(file))


def in_stages(pixels: NDArray[np.uint8], room_bps: float) -> list[bytes]:
    """WebP in rising quality, as `edge_agent.core.progressive` says, where the link has `room_bps` for it."""
    return [
        encoded(pixels, Form(WEBP, side, progressive.most_bytes(stage, room_bps), STAGE_QUALITY))
        for stage, side in enumerate(progressive.SIDES)
    ]
