"""Cameras in real time: the synthetic one, video files, and a device (played by OpenCV's own capture of a file)."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from hardware import camera
from hardware.api import Camera, CameraUnavailable
from hardware.camera import DeviceCamera, SyntheticCamera, VideoFileCamera, device_paths, find_device
from hardware.numbered import draw_number, read_number
from tests.timing import in_real_time


def write_video(path: Path, numbers: range, rate: int = 25, width: int = 160, height: int = 120) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 500_000
        for number in numbers:
            pixels = np.full((height, width, 3), 90, np.uint8)
            draw_number(pixels, number)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="bgr24")))
        container.mux(stream.encode(None))
    return path


def read_until_it_fails(camera: Camera) -> None:
    for _ in range(50):
        camera.read()


# --- synthetic


@in_real_time
def test_the_synthetic_camera_numbers_its_pictures_in_real_time() -> None:
    synthetic = SyntheticCamera(320, 240, 25)
    assert (synthetic.width, synthetic.height, synthetic.rate) == (320, 240, Fraction(25))
    first = synthetic.read()
    pictures = [first, *(synthetic.read() for _ in range(12))]
    numbers = [read_number(picture.pixels) for picture in pictures]
    assert numbers == [round((picture.captured_at - first.captured_at) * 25) for picture in pictures]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= numbers[-1] - 1  # a busy machine may lose a picture
    assert first.pixels.shape == (240, 320, 3)
    assert 0 <= time.monotonic() - pictures[-1].captured_at < 0.1
    assert not np.array_equal(pictures[0].pixels[:100], pictures[-1].pixels[:100])  # it moves


@in_real_time
def test_a_late_reader_of_the_synthetic_camera_gets_the_newest() -> None:
    synthetic = SyntheticCamera(160, 120, 25)
    synthetic.read()
    time.sleep(0.4)
    picture = synthetic.read()
    number = read_number(picture.pixels)
    assert number is not None
    assert number >= 9
    assert time.monotonic() - picture.captured_at < 0.06


def test_close_ends_a_read_of_the_synthetic_camera() -> None:
    synthetic = SyntheticCamera(160, 120, 0.1)
    synthetic.read()
    threading.Timer(0.05, synthetic.close).start()
    with pytest.raises(CameraUnavailable):
        synthetic.read()


@in_real_time
def test_the_synthetic_camera_is_cheap() -> None:
    synthetic = SyntheticCamera(640, 480, 15)
    synthetic.read()
    spent, started = time.thread_time(), time.monotonic()
    for _ in range(15):
        synthetic.read()
    assert (time.thread_time() - spent) / (time.monotonic() - started) < 0.05


# --- video files


@in_real_time
def test_a_file_plays_at_its_own_rate_over_and_over(tmp_path: Path) -> None:
    film = VideoFileCamera(write_video(tmp_path / "film.webm", range(100, 110)), 640, 480, 15)
    assert (film.width, film.height, film.rate) == (160, 120, Fraction(25))
    started = time.monotonic()
    pictures = [film.read() for _ in range(25)]
    assert time.monotonic() - started == pytest.approx(24 / 25, abs=0.06)
    assert [read_number(picture.pixels) for picture in pictures] == [100 + index % 10 for index in range(25)]
    assert pictures[24].captured_at - pictures[0].captured_at == pytest.approx(24 / 25)
    film.close()


@in_real_time
def test_a_late_reader_of_a_file_finds_the_film_gone_on(tmp_path: Path) -> None:
    film = VideoFileCamera(write_video(tmp_path / "film.webm", range(50)), 640, 480, 15)
    film.read()
    time.sleep(0.8)
    number = read_number(film.read().pixels)
    assert number is not None
    assert 20 <= number <= 24
    film.close()


def test_a_large_file_is_made_smaller_and_keeps_its_shape(tmp_path: Path) -> None:
    film = VideoFileCamera(write_video(tmp_path / "film.webm", range(3), width=640, height=360), 320, 240, 15)
    assert (film.width, film.height) == (320, 180)
    picture = film.read()
    assert picture.pixels.shape == (180, 320, 3)
    assert read_number(picture.pixels) == 0
    film.close()
    with pytest.raises(CameraUnavailable):
        film.read()


@pytest.mark.parametrize("content", [b"", b"a letter, not a film", bytes(range(256)) * 100])
def test_a_file_that_is_no_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(content)
    with pytest.raises(CameraUnavailable, match=r"film\.mp4") as caught:
        VideoFileCamera(path, 640, 480, 15)
    assert caught.value.hint


@in_real_time
def test_a_file_cut_off_plays_what_is_there(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.webm", range(50))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    film = VideoFileCamera(path, 640, 480, 15)
    numbers = [read_number(film.read().pixels) for _ in range(40)]
    assert numbers[:5] == [0, 1, 2, 3, 4]
    assert numbers.count(0) >= 2
    film.close()


def test_a_file_that_vanishes_under_way(tmp_path: Path) -> None:
    path = write_video(tmp_path / "film.webm", range(5))
    film = VideoFileCamera(path, 640, 480, 15)
    film.read()
    path.unlink()
    with pytest.raises(CameraUnavailable, match="no longer"):
        read_until_it_fails(film)
    film.close()


def test_nothing_is_written_to_stderr(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"a letter, not a film")
    code = (
        "import sys, pathlib\nfrom hardware import camera\nfrom hardware.api import Camera, CameraUnavailable\n"
        "for open_it in (lambda: camera.VideoFileCamera(pathlib.Path(sys.argv[1]), 640, 480, 15),\n"
        "                lambda: camera.open_device(pathlib.Path(sys.argv[1]), 640, 480, 15)):\n"
        "    try:\n        open_it()\n    except CameraUnavailable as error:\n        print(error.what)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "film.mp4"], capture_output=True, text=True)
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""


# --- devices


def film_as_device(path: Path, rate: float) -> DeviceCamera:
    """A file's capture in place of a device's: it gives pictures as fast as they are taken, and then it is gone."""
    return DeviceCamera(cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), "film", rate)


class SlowCapture:
    """A device that gives `rate` numbered pictures a second, like a driver that blocks until the next one."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.number = -1
        self.retrieved = 0

    def grab(self) -> bool:
        time.sleep(1 / self.rate)
        self.number += 1
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        self.retrieved += 1
        pixels = np.zeros((120, 160, 3), np.uint8)
        draw_number(pixels, self.number)
        return True, pixels

    def get(self, _property: int) -> float:
        return self.rate

    def release(self) -> None:
        pass


def test_an_unplugged_device(tmp_path: Path) -> None:
    device = film_as_device(write_video(tmp_path / "film.webm", range(10)), 1000.0)
    assert (device.width, device.height) == (160, 120)
    with pytest.raises(CameraUnavailable, match="is gone") as caught:
        read_until_it_fails(device)
    assert "plug" in caught.value.hint
    device.close()


def test_a_device_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "film.webm").write_bytes(b"nothing")
    with pytest.raises(CameraUnavailable):
        film_as_device(tmp_path / "film.webm", 15)


def test_a_device_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "NEXT_PICTURE_TIMEOUT_S", 0.1)
    capture = SlowCapture(50)
    device = DeviceCamera(capture, "slow", 50)  # type: ignore[arg-type]
    device.read()
    capture.rate = 0.5
    with pytest.raises(CameraUnavailable, match="gives no picture"):
        read_until_it_fails(device)
    capture.rate = 50
    device.close()


@in_real_time
def test_a_device_never_gives_an_old_picture_or_one_twice() -> None:
    capture = SlowCapture(50)
    device = DeviceCamera(capture, "slow", 50)  # type: ignore[arg-type]
    device.read()
    time.sleep(0.3)
    picture = device.read()
    assert time.monotonic() - picture.captured_at < 0.06
    numbers = [read_number(device.read().pixels) for _ in range(5)]
    assert numbers == sorted(set(numbers))
    device.close()
    with pytest.raises(CameraUnavailable, match="closed"):
        device.read()


@in_real_time
def test_a_device_that_is_faster_than_asked_is_not_decoded_in_vain() -> None:
    capture = SlowCapture(100)
    device = DeviceCamera(capture, "fast", 20)  # type: ignore[arg-type]
    assert device.rate == 20
    started, before = time.monotonic(), capture.retrieved
    for _ in range(15):
        device.read()
    assert time.monotonic() - started == pytest.approx(0.75, abs=0.12)
    assert capture.retrieved - before <= 16
    device.close()


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    """A /dev with a USB camera (two nodes), a camera without a stable name, and a Pi's codec nodes."""
    for name in ("video0", "video1", "video2", "video10", "video31"):
        (tmp_path / name).touch()
    by_id = tmp_path / "v4l" / "by-id"
    by_id.mkdir(parents=True)
    (by_id / "usb-Acme_HD_Camera_1234-video-index0").symlink_to("../../video0")
    (by_id / "usb-Acme_HD_Camera_1234-video-index1").symlink_to("../../video1")
    return tmp_path


def test_cameras_are_found_by_their_stable_names_first(dev: Path) -> None:
    assert [path.name for path in device_paths(dev)] == ["usb-Acme_HD_Camera_1234-video-index0", "video2"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("0", "video0"),
        ("12", "video12"),
        ("usb-Acme_HD_Camera_1234-video-index0", "v4l/by-id/usb-Acme_HD_Camera_1234-video-index0"),
        ("acme", "v4l/by-id/usb-Acme_HD_Camera_1234-video-index0"),
        ("video2", "video2"),
    ],
)
def test_a_camera_is_meant_by_number_or_name(dev: Path, name: str, path: str) -> None:
    assert find_device(name, dev) == dev / path


def test_a_camera_is_meant_by_its_path() -> None:
    assert find_device("/dev/video7") == Path("/dev/video7")


@pytest.mark.parametrize(("name", "problem"), [("nobody", "no camera called"), ("video", "several")])
def test_a_name_that_no_camera_or_more_than_one_has(dev: Path, name: str, problem: str) -> None:
    with pytest.raises(CameraUnavailable, match=problem) as caught:
        find_device(name, dev)
    assert "usb-Acme_HD_Camera" in caught.value.hint


def test_a_machine_without_cameras(tmp_path: Path) -> None:
    assert device_paths(tmp_path) == []
    with pytest.raises(CameraUnavailable):
        find_device("acme", tmp_path)
    with pytest.raises(CameraUnavailable, match="no camera at"):
        camera.open_device(tmp_path / "video0", 640, 480, 15)
