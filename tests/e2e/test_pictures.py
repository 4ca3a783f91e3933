"""The judge of pictures, on paper."""

import cv2
import numpy as np
import pytest

from hardware.numbered import COLUMNS, ROWS, draw_number, read_number
from tests.e2e.pictures import HEIGHT, LOOP, RATE, WIDTH, make_camera_file, number_of_levels, seen


def test_the_camera_file_holds_its_numbers(tmp_path):

    path = tmp_path / "camera.y4m"
    make_camera_file(path, first=700)
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FPS) == RATE
    numbers = []
    while (taken := video.read())[0]:
        numbers.append(read_number(taken[1]))
    assert numbers == list(range(700, 700 + LOOP))


@pytest.mark.parametrize("number", [0, 1, 4660, 65535])
def test_a_number_is_read_from_the_brightness_of_its_cells(number):
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    draw_number(picture, number)
    strip = picture[-ROWS * (HEIGHT // 12) :, :, 0]
    centres = strip[HEIGHT // 24 :: HEIGHT // 12, WIDTH // COLUMNS // 2 :: WIDTH // COLUMNS][:ROWS, :COLUMNS]
    assert number_of_levels([float(level) * 0.8 + 20 for level in centres.flatten()]) == number


def test_grey_cells_give_no_number():
    assert number_of_levels([120.0] * ROWS * COLUMNS) is None


def test_a_smooth_run_over_the_end_of_the_loop():
    result = seen([(index / 15, (140 + index) % 150) for index in range(31)], loop=150)
    assert result == pytest.approx((15.0, 1.0, 1 / 15))


def test_a_picture_shown_twice_counts_once():
    assert seen([(0.0, 1), (0.1, 1), (0.2, 2), (0.3, 2), (0.4, 3)]).per_second == pytest.approx(5.0)


def test_disorder_and_gaps_are_seen():
    result = seen([(0.0, 1), (0.1, 3), (0.2, 2), (1.4, 4)])
    assert result.in_order_share == pytest.approx(2 / 3)
    assert result.longest_gap_s == pytest.approx(1.2)


@pytest.mark.parametrize("sightings", [[], [(0.0, 7)], [(0.0, 7), (5.0, 7)]])
def test_a_frozen_or_missing_picture_is_no_picture(sightings):
    assert seen(sightings).per_second == 0.0
