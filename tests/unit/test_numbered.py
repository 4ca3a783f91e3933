"""The number in a picture survives what the kit does to pictures, and nothing else is taken for one."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hardware.camera import SyntheticCamera
from hardware.numbered import draw_number, read_number


def picture(width: int = 160, height: int = 120, number: int = 0) -> NDArray[np.uint8]:
    noise = np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8)
    draw_number(noise, number)
    return noise


@given(st.integers(0, 65535), st.sampled_from([(160, 120), (320, 180), (640, 480), (1024, 600), (97, 71)]))
def test_what_is_drawn_is_read(number: int, size: tuple[int, int]) -> None:
    assert read_number(picture(*size, number)) == number


def test_numbers_wrap() -> None:
    assert read_number(picture(number=65536 + 7)) == 7


@pytest.mark.parametrize("size", [(160, 120), (176, 144), (320, 240), (1280, 960), (233, 171)])
def test_scaling_keeps_it(size: tuple[int, int]) -> None:
    for number in range(0, 65536, 4099):
        assert read_number(cv2.resize(picture(640, 480, number), size, interpolation=cv2.INTER_AREA)) == number


def test_dim_light_and_a_shadow_keep_it() -> None:
    shade = np.linspace(0.9, 0.35, 640)[np.newaxis, :, np.newaxis]
    for number in range(0, 65536, 4099):
        assert read_number((picture(640, 480, number) * shade * 0.8 + 30).astype(np.uint8)) == number


def test_grey_pictures_are_read() -> None:
    assert read_number(cv2.cvtColor(picture(number=4711), cv2.COLOR_BGR2GRAY)) == 4711


@pytest.mark.parametrize("bit_rate", [30_000, 150_000])
def test_vp8_at_160_by_120_keeps_it(bit_rate: int) -> None:
    camera = SyntheticCamera(160, 120, 15)
    shown = []
    for number in range(0, 60000, 1499):
        pixels = camera._ground.copy()
        camera._draw_shapes(pixels, number / 15)
        draw_number(pixels, number)
        shown.append((number, pixels))
    decoded = list(_through_vp8([pixels for _, pixels in shown], bit_rate))
    assert [read_number(pixels) for pixels in decoded] == [number for number, _ in shown]


def _through_vp8(pictures: list[NDArray[np.uint8]], bit_rate: int) -> Iterator[NDArray[np.uint8]]:
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 160, 120, "yuv420p"
    encoder.time_base = Fraction(1, 15)
    encoder.bit_rate = bit_rate
    encoder.options = {"deadline": "realtime", "lag-in-frames": "0", "cpu-used": "8"}
    decoder = av.CodecContext.create("vp8", "r")
    for index, pixels in enumerate([*pictures, None]):
        frame = None
        if pixels is not None:
            frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
            frame.pts = index
        for packet in encoder.encode(frame):
            for shown in decoder.decode(packet):
                yield shown.to_ndarray(format="bgr24")


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(np.zeros((120, 160, 3), np.uint8), id="black"),
        pytest.param(np.full((120, 160, 3), 255, np.uint8), id="white"),
        pytest.param(np.zeros((3, 3, 3), np.uint8), id="tiny"),
        pytest.param(SyntheticCamera(160, 120, 15)._ground, id="no strip"),
    ],
)
def test_no_number_is_read_where_there_is_none(pixels: NDArray[np.uint8]) -> None:
    assert read_number(pixels) is None


def test_noise_is_hardly_ever_a_number() -> None:
    random = np.random.default_rng(1)
    coarse = random.integers(0, 2, (1000, 12, 14), dtype=np.uint8) * 255
    read = [read_number(cv2.resize(cells, (160, 120), interpolation=cv2.INTER_NEAREST)) for cells in coarse]
    assert sum(number is not None for number in read) <= 5


def test_a_strip_torn_between_two_numbers_is_refused() -> None:
    mixed = picture(number=0b0101_0101_0101_0101)
    other = picture(number=0b1010_1010_1010_1010)
    mixed[:, 80:] = other[:, 80:]
    assert read_number(mixed) is None
