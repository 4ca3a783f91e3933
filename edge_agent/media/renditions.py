"""One photo in rising quality, so that a doctor sees something at once on whatever link, and more as it comes.

| name      | form | long side  | bytes     | goes to the hub                       |
|-----------|------|------------|-----------|---------------------------------------|
| thumbnail | WebP | ≤ 160      | ≤ 3,000   | first                                 |
| preview   | WebP | ≤ 640      | ≤ 25,000  | before the photos                     |
| ""        | JPEG | ≤ 1,600    | ≤ 150,000 | by itself; it completes the case      |
| original  | JPEG | ≤ 2,560    | ≤ 1,200,000 | when a doctor asks for it           |

What would be little smaller than the next one is left out. OpenCV's wheels carry libwebp on x86-64 and on aarch64.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

THUMBNAIL, PREVIEW, PHOTO, ORIGINAL = "thumbnail", "preview", "", "original"
JPEG, WEBP = "image/jpeg", "image/webp"
PAYS = 0.6  # a preview larger than this part of the photo is not worth its bytes
LOWEST_QUALITY = 10
SHRINK = 0.75  # of the side, where even the lowest quality is too large
LEAST_SIDE = 32


class Form(NamedTuple):
    mime: str
    max_side: int
    max_bytes: int
    quality: int  # at most


FORMS = {
    THUMBNAIL: Form(WEBP, 160, 3_000, 70),
    PREVIEW: Form(WEBP, 640, 25_000, 80),
    PHOTO: Form(JPEG, 1600, 150_000, 88),
    ORIGINAL: Form(JPEG, 2560, 1_200_000, 92),
}


class Rendition(NamedTuple):
    name: str
    mime: str
    data: bytes


def renditions(pixels: NDArray[np.uint8]) -> Iterator[Rendition]:
    """`pixels` are (height, width, 3) in BGR. The photo itself comes first; its name is ""."""
    photo = encoded(pixels, FORMS[PHOTO])
    yield Rendition(PHOTO, JPEG, photo)
    for name in (THUMBNAIL, PREVIEW):
        data = encoded(pixels, FORMS[name])
        if len(data) < PAYS * len(photo):
            yield Rendition(name, WEBP, data)
    original = encoded(pixels, FORMS[ORIGINAL])
    if len(photo) < PAYS * len(original):
        yield Rendition(ORIGINAL, JPEG, original)


def encoded(pixels: NDArray[np.uint8], form: Form) -> bytes:
    """In the best quality that keeps to the form's bytes; smaller where none does."""
    side = form.max_side
    while True:
        small = shrunk(pixels, side)
        data = _encode(small, form.mime, form.quality)
        if len(data) <= form.max_bytes:
            return data
        low, high, best = LOWEST_QUALITY, form.quality - 1, b""
        while low <= high:
            quality = (low + high) // 2
            data = _encode(small, form.mime, quality)
            if len(data) <= form.max_bytes:
                best, low = data, quality + 1
            else:
                high = quality - 1
        if best or side <= LEAST_SIDE:
            return best or data
        side = max(LEAST_SIDE, int(max(small.shape[:2]) * SHRINK))


def _encode(pixels: NDArray[np.uint8], mime: str, quality: int) -> bytes:
    import cv2

    if mime == WEBP:
        done, data = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])
    else:
        done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise OSError(f"OpenCV does not write {mime}")
    return data.tobytes()


def jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    return _encode(pixels, JPEG, quality)


def shrunk(pixels: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    import cv2

    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1.0:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
