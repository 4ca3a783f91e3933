"""Cameras: a video device through OpenCV, a video file in place of one, and a synthetic moving picture.

All give what `hardware.api.Camera` asks for; `hardware.devices` chooses. OpenCV and the FFmpeg in it write their own
complaints to stderr; they are silenced here, since every failure is raised with words of our own.
"""

from __future__ import annotations

import math
import os
import threading
import time
from fractions import Fraction
from pathlib import Path

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; read when FFmpeg is first used

import cv2
import numpy as np
from numpy.typing import NDArray

from hardware.api import CameraUnavailable, Picture
from hardware.numbered import draw_number
from hardware.pacing import Beat

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)

FIRST_PICTURE_TIMEOUT_S = 5.0  # USB cameras take up to 2 s to set their exposure
NEXT_PICTURE_TIMEOUT_S = 3.0  # in the dark they slow down, but not to this
_MAX_FILE_RATE = 120.0
_MOST_SKIPPED_S = 2
_FAILURES_THAT_MEAN_GONE = 5  # a broken JPEG now and then is ordinary on USB; a select() timeout is 10 s

_CLOSED = "the camera is closed"


class SyntheticCamera:
    """A calm moving picture with a clock and the number of the picture (`hardware.numbered`), for machines without a
    camera and for measuring. A picture that nobody reads in time is skipped, number and all, as on a real camera."""

    def __init__(self, width: int, height: int, rate: float) -> None:
        self.width, self.height = width, height
        self.rate = Fraction(rate).limit_denominator(1000)
        self._beat = Beat(float(self.rate), patience_s=1.0 / rate)
        self._ground = _soft_gradient(width, height)
        self._draw(0)  # OpenCV loads its font at the first text, which would make the first picture late

    def read(self) -> Picture:
        beat = self._beat.wait()
        if beat is None:
            raise CameraUnavailable(_CLOSED)
        number, due = beat
        return Picture(self._draw(number), due)

    def close(self) -> None:
        self._beat.close()

    def _draw(self, number: int) -> NDArray[np.uint8]:
        picture = self._ground.copy()
        self._draw_shapes(picture, number / float(self.rate))
        self._draw_clock(picture)
        draw_number(picture, number)
        return picture

    def _draw_shapes(self, picture: NDArray[np.uint8], seconds: float) -> None:
        width, height = self.width, self.height
        shift = 4  # sub-pixel positions: slow movement would jerk otherwise
        for index, (colour, size) in enumerate(_SHAPES):
            angle = seconds * (0.9 - 0.17 * index) + index * 2.1
            x = width * (0.5 + 0.36 * math.cos(angle))
            y = height * (0.42 + 0.24 * math.sin(angle * 1.3))
            centre = (int(x * (1 << shift)), int(y * (1 << shift)))
            cv2.circle(picture, centre, int(height * size * (1 << shift)), colour, -1, cv2.LINE_AA, shift)

    def _draw_clock(self, picture: NDArray[np.uint8]) -> None:
        scale = self.height / 240
        place = (int(self.width * 0.05), int(self.height * 0.14))
        text = time.strftime("%H:%M:%S")
        thickness = max(1, round(2 * scale))
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (250, 250, 250), thickness, cv2.LINE_AA)


_SHAPES: tuple[tuple[tuple[int, int, int], float], ...] = (  # BGR, radius as part of the height
    ((196, 214, 130), 0.13),
    ((140, 180, 240), 0.10),
    ((226, 170, 160), 0.075),
)


def _soft_gradient(width: int, height: int) -> NDArray[np.uint8]:
    corners = np.array([[[120, 84, 40], [132, 110, 62]], [[96, 108, 88], [110, 140, 128]]], np.float32)
    across = np.linspace(0, 1, width, dtype=np.float32)[np.newaxis, :, np.newaxis]
    down = np.linspace(0, 1, height, dtype=np.float32)[:, np.newaxis, np.newaxis]
    upper = corners[0, 0] * (1 - across) + corners[0, 1] * across
    lower = corners[1, 0] * (1 - across) + corners[1, 1] * across
    return np.ascontiguousarray((upper * (1 - down) + lower * down).astype(np.uint8))


class VideoFileCamera:
    """A video file over and over at its own rate, shown no larger than asked and never distorted. Files without a
    usable rate play at `rate`."""

    def __init__(self, path: Path, width: int, height: int, rate: float) -> None:
        self._path = path
        if not path.is_file():
            raise CameraUnavailable(f"there is no video file {path}", "check the path after file: in devices.camera")
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        picture = self._next() if self._capture.isOpened() else None
        if picture is None:
            self._capture.release()
            raise CameraUnavailable(f"{path} is no video that can be played", "give an MP4, WebM, MKV or AVI file")
        own_rate = self._capture.get(cv2.CAP_PROP_FPS)
        usable_rate = own_rate if math.isfinite(own_rate) and 0 < own_rate <= _MAX_FILE_RATE else rate
        self.rate = Fraction(usable_rate).limit_denominator(1001)
        self.width, self.height = _fit(picture.shape[1], picture.shape[0], width, height)
        self._rewind()
        self._beat = Beat(float(self.rate), patience_s=0.5)
        self._given = 0  # beats that have had their picture
        self._lock = threading.Lock()  # a capture must not be released under a read

    def read(self) -> Picture:
        beat = self._beat.wait()
        if beat is None:
            raise CameraUnavailable(_CLOSED)
        index, due = beat
        with self._lock:
            # Beats that were missed skip their pictures, so the film keeps its pace; after a long pause it just
            # goes on, since decoding what nobody saw would take longer than it is worth.
            missed = index - self._given
            if missed <= _MOST_SKIPPED_S * self.rate:
                for _ in range(missed):
                    if not self._capture.grab():
                        self._rewind()
            picture = self._next_or_first()
            self._given = index + 1
        if picture.shape[:2] != (self.height, self.width):
            size = (self.width, self.height)
            picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        return Picture(picture, due)

    def close(self) -> None:
        self._beat.close()
        with self._lock:
            self._capture.release()

    def _next(self) -> NDArray[np.uint8] | None:
        good, picture = self._capture.read()
        return np.asarray(picture, np.uint8) if good else None

    def _next_or_first(self) -> NDArray[np.uint8]:
        picture = self._next()
        if picture is None:
            self._rewind()
            picture = self._next()
        if picture is None:
            raise CameraUnavailable(f"{self._path} can no longer be read", "was the file removed or overwritten?")
        return picture

    def _rewind(self) -> None:
        self._capture.release()
        self._capture.open(str(self._path), cv2.CAP_FFMPEG)


def _fit(width: int, height: int, max_width: int, max_height: int) -> tuple[int, int]:
    """The same shape inside the given size, sides even as VP8 and JPEG like them."""
    scale = min(1.0, max_width / width, max_height / height)
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


class DeviceCamera:
    """A V4L2 device. A thread of its own keeps taking pictures, because a driver's buffer holds an old picture until
    somebody takes it; `read` gives the newest one that was not given yet."""

    def __init__(self, capture: cv2.VideoCapture, name: str, rate: float) -> None:
        """Takes over an opened capture; `open_device` makes one."""
        self._capture, self._name = capture, name
        self._interval = 1.0 / rate
        self._changed = threading.Condition()
        self._newest: Picture | None = None
        self._gone = False
        self._closed = False
        self._thread = threading.Thread(target=self._take_pictures, name="camera", daemon=True)
        self._thread.start()
        try:
            first = self._wait_for_picture(FIRST_PICTURE_TIMEOUT_S, take=False)
        except CameraUnavailable:
            self.close()
            raise
        self.height, self.width = first.pixels.shape[:2]
        own_rate = capture.get(cv2.CAP_PROP_FPS)
        real_rate = min(rate, own_rate) if math.isfinite(own_rate) and own_rate > 0 else rate
        self.rate = Fraction(real_rate).limit_denominator(1001)

    def read(self) -> Picture:
        return self._wait_for_picture(NEXT_PICTURE_TIMEOUT_S, take=True)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=2.0)  # a driver that hangs is left to the daemon thread

    def _wait_for_picture(self, timeout_s: float, take: bool) -> Picture:
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._gone or self._closed, timeout_s)
            if self._closed:
                raise CameraUnavailable(_CLOSED)
            if self._gone:
                raise CameraUnavailable(f"the camera {self._name} is gone", "plug it in again, or try another socket")
            if self._newest is None:
                raise CameraUnavailable(f"the camera {self._name} gives no picture", "unplug it and plug it in again")
            picture = self._newest
            if take:
                self._newest = None
            return picture

    def _take_pictures(self) -> None:
        due = 0.0
        failed = 0
        while not self._closed:
            good = self._capture.grab()
            now = time.monotonic()
            if good and now < due - self._interval / 4:
                continue  # faster than asked for: not worth decoding
            pixels = self._capture.retrieve()[1] if good else None
            if pixels is None:
                failed += 1
                if failed >= _FAILURES_THAT_MEAN_GONE:
                    break
                continue
            failed = 0
            due = max(due + self._interval, now)
            with self._changed:
                self._newest = Picture(np.asarray(pixels, np.uint8), now)
                self._changed.notify_all()
        with self._changed:
            self._gone = True
            self._changed.notify_all()
        self._capture.release()


def open_device(path: Path, width: int, height: int, rate: float) -> DeviceCamera:
    """Opens a /dev/video… device or a stable link to one."""
    if not path.exists():
        raise CameraUnavailable(
            f"there is no camera at {path}", "plug it in, or see `teleconsult config` for the names"
        )
    if not os.access(path, os.R_OK | os.W_OK):
        raise CameraUnavailable(f"the camera {path} may not be opened", "add this user to the group `video`")
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_V4L2)
    if not capture.isOpened():
        capture.release()
        raise CameraUnavailable(
            f"the camera {path} cannot be opened", "close other programs that use it, or unplug it and plug it in again"
        )
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    if width * height > 640 * 480:
        # Raw pictures beyond VGA do not fit through USB 2 at a useful rate.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
    capture.set(cv2.CAP_PROP_FPS, rate)
    return DeviceCamera(capture, path.name, rate)


def device_paths(dev: Path = Path("/dev")) -> list[Path]:
    """Cameras of this machine, stable names first. On a Pi the nodes from video10 on are codecs, not cameras."""
    stable = sorted((dev / "v4l" / "by-id").glob("*-video-index0"))
    named = {path.resolve() for path in stable}
    plain = sorted(path for path in dev.glob("video[0-9]") if path.resolve() not in named)
    # A USB camera has a second node, for metadata, which has a stable name of another index.
    other = {path.resolve() for path in (dev / "v4l" / "by-id").glob("*") if path not in stable}
    return stable + [path for path in plain if path.resolve() not in other]


def find_device(name: str, dev: Path = Path("/dev")) -> Path:
    """The device meant by a number, a path, a stable name or a part of one."""
    if name.isdecimal():
        return dev / f"video{int(name)}"
    if name.startswith("/"):
        return Path(name)
    paths = device_paths(dev)
    matches = [path for path in paths if path.name == name] or [
        path for path in paths if name.casefold() in path.name.casefold()
    ]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(path.name for path in matches or paths) or "none"
    problem = "several cameras match" if matches else "there is no camera called"
    raise CameraUnavailable(f"{problem} {name!r}", f"plug it in, or name one of those found: {known}")
