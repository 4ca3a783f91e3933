"""A photo's forms keep to their bytes whatever is on it, and the hub tells a picture from what is none by its head."""

from __future__ import annotations

import random
import struct

import cv2
import numpy as np
import pytest

from edge_agent.media.renditions import FORMS, PAYS, renditions, shrunk
from hub import pictures


def scene(width: int, height: int, grain: float) -> np.ndarray:
    """Skin-like ground with a patch, and `grain` of a sensor's noise on it."""
    y, x = np.mgrid[0:height, 0:width]
    patch = np.clip(200 - np.hypot(x - width / 2, y - height / 2) * 300 / width, 0, 110)
    picture = np.stack([150 - patch / 2, 170 - patch, 215 - patch / 3], axis=-1)
    return np.clip(picture + np.random.default_rng(1).normal(0, grain, picture.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("grain", [0, 6, 90])
@pytest.mark.parametrize("size", [(2560, 1920), (640, 480), (480, 640), (40, 30)])
def test_every_form_keeps_to_its_bytes(size: tuple[int, int], grain: float):
    made = list(renditions(scene(*size, grain)))
    assert made[0].name == "", "the photo itself comes first"
    assert len({each.name for each in made}) == len(made)
    for each in made:
        form = FORMS[each.name]
        assert len(each.data) <= form.max_bytes
        shape = cv2.imdecode(np.frombuffer(each.data, np.uint8), 1).shape
        assert max(shape[:2]) <= form.max_side
        assert shape[0] / shape[1] == pytest.approx(size[1] / size[0], rel=0.05)
        assert pictures.damage_of(each.data) == ""
        assert pictures._size(each.data) == (shape[1], shape[0])


def test_what_would_hardly_be_smaller_is_left_out():
    made = {each.name: len(each.data) for each in renditions(scene(2560, 1920, 6))}
    assert set(made) == {"", "thumbnail", "preview", "original"}
    assert made["thumbnail"] < made["preview"] < PAYS * made[""] < PAYS * made["original"]
    small = {each.name for each in renditions(scene(640, 480, 0))}
    assert "original" not in small, "the photo is all that the camera gave"


def test_only_what_is_larger_is_shrunk():
    pixels = scene(64, 48, 0)
    assert shrunk(pixels, 64) is pixels
    assert shrunk(pixels, 32).shape == (24, 32, 3)


# --- at the hub


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0) + bytes(40)


def jpeg_of(width: int, height: int) -> bytes:
    exif = b"\xff\xe1" + struct.pack(">H", 60_000) + bytes(59_998)
    return b"\xff\xd8" + exif + b"\xff\xff\xc2" + struct.pack(">HBHH", 17, 8, height, width) + bytes(20)


@pytest.mark.parametrize("make", [png, jpeg_of])
def test_a_decompression_bomb_is_known_by_its_head(make):
    assert pictures.damage_of(make(60_000, 60_000)) == "too_large"
    assert pictures.damage_of(make(9_000, 10)) == "too_large"
    assert pictures.damage_of(make(8_000, 8_000)) == "too_large"
    assert pictures.damage_of(make(2560, 1920)) == ""
    assert pictures.damage_of(make(0, 100)) == "no_picture"


def test_a_webp_that_moves_or_is_huge():
    def extended(flags: int, width: int, height: int) -> bytes:
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        return b"RIFF" + bytes(4) + b"WEBPVP8X" + struct.pack("<IB3x", 10, flags) + sides

    assert pictures.damage_of(extended(0x10, 640, 480)) == ""
    assert pictures.damage_of(extended(0x02, 640, 480)) == "no_picture"
    assert pictures.damage_of(extended(0, 16_000, 16_000)) == "too_large"
    lossless = cv2.imencode(".webp", scene(320, 200, 0), [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    assert pictures._size(lossless) == (320, 200)


def test_whatever_it_is_it_is_judged():
    good = jpeg_of(100, 100)
    chance = random.Random(3)
    for _ in range(3000):
        cut = bytearray(good[: chance.randrange(60_100)])
        for _ in range(chance.randrange(4)):
            if cut:
                cut[chance.randrange(min(len(cut), 40))] = chance.randrange(256)
        assert pictures.damage_of(bytes(cut)) in ("", "no_picture", "too_large")
    for junk in (b"", b"\xff\xd8\xff", b"RIFF1234WEBPVP8 ", b"GIF89a", b"<svg xmlns='http://www.w3.org/2000/svg'>"):
        assert pictures.damage_of(junk) == "no_picture"
