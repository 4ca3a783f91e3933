"""Reads a join code's QR code with the kiosk's camera, or from a picture or film in a file."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2

from edge_agent.core.joining import CodeError, parse_code, split_link
from hardware.devices import open_camera

WIDTH, HEIGHT, RATE = 1280, 720, 10.0
TIMEOUT_S = 120.0
TELL_EVERY_S = 5.0


def read_code(spec: str, say: Callable[[str], None], timeout_s: float = TIMEOUT_S) -> str:
    """What the code says: a code, or a link with the hub's address. `spec` as in devices.camera; `say` gets a line now
    and then. Blocks. Raises CameraUnavailable, HardwareError, CodeError when nothing was read in `timeout_s`."""
    camera = open_camera(spec, WIDTH, HEIGHT, RATE)
    detector = cv2.QRCodeDetector()
    began = told = time.monotonic()
    problem = "nothing that looks like a QR code was seen"
    try:
        while True:
            now = time.monotonic()
            if now - began > timeout_s:
                raise CodeError(
                    f"no join code was read in {timeout_s:.0f} s: {problem}. More light, no glare, all of the code in "
                    "the picture; or type the code that is printed beside it"
                )
            if now - told > TELL_EVERY_S:
                told = now
                say(f"  … {problem}")
            pixels = camera.read().pixels
            try:
                text, corners, _ = detector.detectAndDecode(pixels)
            except cv2.error:  # some crooked shapes make it divide by nothing
                continue
            if text:
                try:
                    parse_code(split_link(text)[0])
                except CodeError as error:
                    problem = f"a QR code was read, and it is no join code ({error})"
                    continue
                say("  read.")
                return text
            if corners is not None:
                problem = "a QR code is there and not sharp enough yet; hold it still, a little nearer or farther away"
    finally:
        camera.close()
