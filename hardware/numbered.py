"""Pictures that carry their own number: a strip of large black and white cells along the bottom edge.

The strip survives scaling (its geometry is relative to the picture) and VP8 at 160×120. Layout: two rows of 14 cells
over the full width, each row a twelfth of the picture's height. The outer columns are references: white at the left
and black at the right of the upper row, black and white in the lower. The 24 cells between them, row by row, most
significant bit first and white for 1, hold the 16-bit number and its CRC-8 (polynomial 0x07, start 0x5A).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

NUMBERS = 1 << 16  # numbers wrap here
COLUMNS = 14
ROWS = 2
ROW_PART = 12  # a row is this part of the picture's height

_MIN_CONTRAST = 40.0  # between the references, of 255
_MIN_CERTAINTY = 0.15  # a cell nearer to the threshold than this part of the contrast is not believed


def draw_number(picture: NDArray[np.uint8], number: int) -> None:
    """Draws the strip of `number` modulo 65536 into a (height, width, 3) picture, in place."""
    value = number % NUMBERS
    data = (value << 8) | _crc8(value)
    bits = [(data >> shift) & 1 for shift in range(23, -1, -1)]
    cells = np.array([[1, *bits[:12], 0], [0, *bits[12:], 1]], np.uint8) * 255
    height, width = picture.shape[:2]
    top = _strip_top(height)
    strip = cv2.resize(cells, (width, height - top), interpolation=cv2.INTER_NEAREST)
    picture[top:] = strip[:, :, np.newaxis]


def read_number(picture: NDArray[np.uint8]) -> int | None:
    """The number in a (height, width, 3) or grey (height, width) picture; None where no strip can be read."""
    height, width = picture.shape[:2]
    if height < 2 * ROW_PART or width < 2 * COLUMNS:
        return None
    strip = picture[_strip_top(height) :]
    grey = strip if strip.ndim == 2 else strip.mean(axis=2)
    levels = _cell_levels(grey)
    # Light may fall off from left to right: each side has a white and a black of its own.
    slope = np.linspace(0.0, 1.0, COLUMNS)
    white = levels[0, 0] * (1 - slope) + levels[1, -1] * slope
    black = levels[1, 0] * (1 - slope) + levels[0, -1] * slope
    contrast = white - black
    if contrast.min() < _MIN_CONTRAST:
        return None
    position = (levels - black) / contrast - 0.5
    data_cells = position[:, 1:-1].reshape(-1)
    if np.abs(data_cells).min() < _MIN_CERTAINTY:
        return None
    data = 0
    for bit in data_cells > 0:
        data = (data << 1) | int(bit)
    value = data >> 8
    return value if _crc8(value) == data & 0xFF else None


def _strip_top(height: int) -> int:
    return height - ROWS * max(1, height // ROW_PART)


def _cell_levels(grey: NDArray[np.generic]) -> NDArray[np.float64]:
    """The mean of the middle half of every cell, away from the edges that scaling and VP8 smear."""
    height, width = grey.shape
    levels = np.empty((ROWS, COLUMNS))
    for row in range(ROWS):
        y0, y1 = _middle_half(row, ROWS, height)
        for column in range(COLUMNS):
            x0, x1 = _middle_half(column, COLUMNS, width)
            levels[row, column] = grey[y0:y1, x0:x1].mean()
    return levels


def _middle_half(index: int, count: int, length: int) -> tuple[int, int]:
    start = round((index + 0.25) * length / count)
    return start, max(start + 1, round((index + 0.75) * length / count))


def _crc8(value: int) -> int:
    crc = 0x5A
    for byte in (value >> 8, value & 0xFF):
        crc ^= byte
        for _ in range(8):
            crc = ((crc << 1) ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc
