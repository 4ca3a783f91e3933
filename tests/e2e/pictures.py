"""Numbered pictures, and what of them was seen at the other end.

`hardware.numbered` draws and reads the numbers. Here they become a file for Chromium's fake camera, are read off what
Chromium shows (`tap.js` hands over the brightness of each cell), and are judged: `seen` takes (time, number) pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hardware.numbered import COLUMNS, ROWS, draw_number, read_number

WIDTH, HEIGHT, RATE = 640, 480, 15
LOOP = 150  # pictures; 10 s

Sighting = tuple[float, int]  # seconds, number


class Seen(NamedTuple):
    per_second: float  # different pictures, over the whole time from the first to the last
    in_order_share: float  # of the steps from one picture to the next
    longest_gap_s: float


def make_camera_file(path: Path, first: int = 0) -> None:
    """A Y4M of LOOP numbered pictures, for --use-file-for-fake-video-capture, which loops it."""
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{RATE}:1 Ip A1:1 C420jpeg\n".encode())
        across = np.linspace(60, 180, WIDTH, dtype=np.uint8)
        for number in range(LOOP):
            picture = np.repeat(across[np.newaxis, :, np.newaxis], HEIGHT, axis=0).repeat(3, axis=2)
            x = round(WIDTH * (0.1 + 0.8 * abs(1 - 2 * number / LOOP)))
            cv2.circle(picture, (x, HEIGHT // 3), HEIGHT // 8, (90, 160, 230), -1, cv2.LINE_AA)
            draw_number(picture, first + number)
            file.write(b"FRAME\n" + cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420).tobytes())


def number_of_levels(levels: list[float]) -> int | None:
    """The number from the mean brightness of each cell, row by row, as `tap.js` reads them."""
    cells = np.array(levels, np.uint8).reshape(ROWS, COLUMNS)
    cell = 4
    picture: NDArray[np.uint8] = np.zeros((12 * cell, COLUMNS * cell), np.uint8)
    picture[-ROWS * cell :] = cells.repeat(cell, axis=0).repeat(cell, axis=1)
    return read_number(picture)


def seen(sightings: Iterable[Sighting], loop: int = 1 << 16) -> Seen:
    """Judges what was seen; `loop` is how many numbers there are before they begin anew. The same picture shown
    twice counts once. In order means forward, by less than half the loop."""
    fresh: list[Sighting] = []
    for at, number in sightings:
        if not fresh or number != fresh[-1][1]:
            fresh.append((at, number))
    if len(fresh) < 2:
        return Seen(0.0, 0.0, float("inf"))
    steps = [(later[1] - earlier[1]) % loop for earlier, later in pairwise(fresh)]
    gaps = [later[0] - earlier[0] for earlier, later in pairwise(fresh)]
    return Seen(
        per_second=(len(fresh) - 1) / (fresh[-1][0] - fresh[0][0]),
        in_order_share=sum(step < loop / 2 for step in steps) / len(steps),
        longest_gap_s=max(gaps),
    )
