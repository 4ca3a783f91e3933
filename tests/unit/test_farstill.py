"""Stills that come in messages from a browser, which may be anybody's: a key frame of VP8, or nothing."""

from __future__ import annotations

import struct

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.farstill import MOST_BYTES, PIECE_BYTES, StillAssembler, StillError, check_key_frame


def frame_of(width: int = 320, height: int = 240, quality: int = 20) -> bytes:
    """As a browser makes it: by libwebp, out of its RIFF."""
    y, x = np.mgrid[0:height, 0:width]
    grey = (120 + 60 * np.sin(x / 30) + 40 * ((x // 64 + y // 64) % 2)).astype(np.uint8)
    coded = cv2.imencode(".webp", np.stack([grey, grey, 255 - grey], axis=2), [cv2.IMWRITE_WEBP_QUALITY, quality])
    webp = bytes(coded[1])
    assert webp[12:16] == b"VP8 "
    return webp[20 : 20 + int.from_bytes(webp[16:20], "little")]


def messages(frame: bytes, number: int = 1) -> list[bytes]:
    return [
        struct.pack("!BHH", number, offset, len(frame)) + frame[offset : offset + PIECE_BYTES]
        for offset in range(0, len(frame), PIECE_BYTES)
    ]


def added(assembler: StillAssembler, came: list[bytes], now: float = 0.0) -> list[bytes]:
    return [frame for message in came if (frame := assembler.add(message, now)) is not None]


@pytest.mark.parametrize(("width", "height"), [(320, 240), (426, 240), (161, 121)])
def test_a_lossy_webp_holds_a_key_frame_that_a_decoder_of_vp8_takes(width: int, height: int) -> None:
    frame = frame_of(width, height)
    check_key_frame(frame)
    (picture,) = av.CodecContext.create("libvpx", "r").decode(av.Packet(frame))  # type: ignore[attr-defined]
    assert (picture.width, picture.height) == (width, height)


def test_a_still_comes_with_its_last_message_in_whatever_order_and_once() -> None:
    still = frame_of()
    first, *rest = messages(still)
    assert len(rest) >= 4
    assembler = StillAssembler()
    assert added(assembler, [*reversed(rest), rest[0]]) == []
    assert added(assembler, [first]) == [still]
    assert added(assembler, messages(still)) == []


def test_a_newer_still_takes_the_place_of_one_and_an_older_one_does_not() -> None:
    still, other = frame_of(), frame_of(quality=5)
    assembler = StillAssembler()
    assert added(assembler, messages(still, 255)[:-1] + messages(other, 0)) == [other]
    assert added(assembler, messages(still, 255)) == []
    assert added(assembler, messages(still, 1)[:2] + messages(other, 1) + messages(still, 1)[2:]) == [still]


def test_what_others_have_overtaken_is_asked_for_and_the_end_when_nothing_comes_any_more() -> None:
    came = messages(frame_of())
    last = len(came) - 1
    assembler = StillAssembler()
    assert assembler.missing(9.0, 2.0) == []
    added(assembler, [came[0], came[3]], 10.0)
    assert assembler.missing(11.9, 2.0) == []
    added(assembler, [], 11.0)
    assert assembler.add(came[2], 11.9) is None
    assert assembler.missing(12.0, 2.0) == [1]
    assert assembler.missing(13.9, 2.0) == [], "asked for"
    assert assembler.missing(14.0, 2.0) == [1, *range(4, last + 1)]
    assert added(assembler, [came[1], *came[4:]], 15.0) == [frame_of()]
    assert assembler.missing(99.0, 2.0) == []


FRAME = frame_of()


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        FRAME[:9],
        FRAME[:10],
        FRAME[:100],
        b"RIFF" + bytes(4) + b"WEBPVP8 " + FRAME,
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        b"\xff\xd8\xff\xe0" + bytes(200),
        b"\x12\x00\x0a\x0a" + bytes(200),  # AV1
        b"\x82\x49\x83\x42" + bytes(200),  # VP9
        b"\x2f" + bytes(200),  # WebP without losses
        bytes([FRAME[0] | 1]) + FRAME[1:],  # built on another
        bytes([FRAME[0] | 0x0E]) + FRAME[1:],  # of a version that is none
        bytes([FRAME[0] & ~0x10]) + FRAME[1:],  # not to be shown
        FRAME[:3] + bytes(3) + FRAME[6:],
        FRAME[:6] + struct.pack("<HH", 16383, 16383) + FRAME[10:],
        FRAME[:6] + struct.pack("<HH", 0, 240) + FRAME[10:],
        b"\xf0\xff\xff" + FRAME[3:],  # a first partition longer than all
    ],
)
def test_what_is_no_such_picture_is_refused(bad: bytes) -> None:
    with pytest.raises(StillError):
        check_key_frame(bad)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\1\0\0\0\5",
        struct.pack("!BHH", 1, 0, MOST_BYTES + 1) + b"RIFF",
        struct.pack("!BHH", 1, 0, 3) + b"RIFF",
        struct.pack("!BHH", 1, 65535, 3000) + b"RIFF",
        struct.pack("!BHH", 1, 1, 5) + b"RIFF",
        struct.pack("!BHH", 1, 0, 400) + b"RIFF",
        struct.pack("!BHH", 1, 0, 4) + b"RIFFRIFF",
    ],
)
def test_messages_out_of_bounds_are_refused_and_the_next_still_comes(bad: bytes) -> None:
    assembler = StillAssembler()
    added(assembler, messages(FRAME)[:2])
    with pytest.raises(StillError):
        assembler.add(bad, 0.0)
    assert added(assembler, messages(FRAME, 2)) == [FRAME]


@given(st.lists(st.binary(max_size=300) | st.sampled_from(messages(FRAME)), max_size=40))
def test_whatever_comes_nothing_else_is_raised_and_little_is_kept(came: list[bytes]) -> None:
    assembler = StillAssembler()
    for message in came:
        try:
            frame = assembler.add(message, 0.0)
        except StillError:
            continue
        assert frame is None or len(frame) <= MOST_BYTES
