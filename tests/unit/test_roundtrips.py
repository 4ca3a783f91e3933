"""Round trips by sender and receiver reports."""

from __future__ import annotations

import struct

import pytest

from edge_agent.core.roundtrips import MOST_REMEMBERED, RoundTrips

VOICE, PICTURES, FAR = 1, 2, 9
NTP_S = 3_900_000_000.0


def sender_report(ssrc: int, at: float, blocks: bytes = b"") -> bytes:
    count = len(blocks) // 24
    header = struct.pack("!BBHIQIII", 0x80 | count, 200, 6 + 6 * count, ssrc, int((NTP_S + at) * 2**32), 0, 0, 0)
    return header + blocks


def block(ssrc: int, at: float, held_s: float) -> bytes:
    middle = int((NTP_S + at) * 2**32) >> 16 & 0xFFFFFFFF
    return struct.pack("!IIIIII", ssrc, 0, 0, 0, middle, int(held_s * 65536))


def receiver_report(*blocks: bytes) -> bytes:
    return struct.pack("!BBHI", 0x80 | len(blocks), 201, 1 + 6 * len(blocks), FAR) + b"".join(blocks)


@pytest.mark.parametrize("rtt_s", [0.05, 0.3, 1.3, 4.0])
def test_a_round_trip_longer_than_the_time_between_reports_is_known(rtt_s: float) -> None:
    trips = RoundTrips()
    for second in range(20):
        trips.left(sender_report(VOICE, second), float(second))
        trips.came(receiver_report(block(VOICE, second - 4, 0.25)), second - 4 + rtt_s + 0.25)
    assert trips.of(VOICE) == pytest.approx(rtt_s, abs=0.001)
    assert trips.shortest_s == trips.of(VOICE)
    assert trips.of(PICTURES) is None


def test_a_report_that_repeats_a_time_says_nothing() -> None:
    trips = RoundTrips()
    trips.left(sender_report(VOICE, 1.0), 1.0)
    trips.left(sender_report(VOICE, 1.0), 2.0)
    trips.came(receiver_report(block(VOICE, 1.0, 0.0)), 2.3)
    assert trips.shortest_s is None


def test_streams_are_told_apart_in_whatever_report_they_stand() -> None:
    trips = RoundTrips()
    trips.left(sender_report(VOICE, 1.0) + sender_report(PICTURES, 1.5), 2.0)
    trips.came(sender_report(FAR, 0.0, block(VOICE, 1.0, 0.1)) + receiver_report(block(PICTURES, 1.5, 0.0)), 2.5)
    assert trips.of(VOICE) == pytest.approx(0.4, abs=0.001)
    assert trips.of(PICTURES) == pytest.approx(0.5, abs=0.001)
    assert trips.shortest_s == trips.of(VOICE)


def test_a_change_is_followed() -> None:
    trips = RoundTrips()
    for second in range(40):
        trips.left(sender_report(VOICE, second), float(second))
        trips.came(receiver_report(block(VOICE, second, 0.0)), second + (0.3 if second < 20 else 0.9))
    assert trips.of(VOICE) == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize(
    "garbage", [b"", b"\x80", b"\x9f\xc9\x00\x01" + bytes(4), b"\x81\xc8\xff\xff" + bytes(30), bytes(100)]
)
def test_garbage_says_nothing_and_nothing_grows(garbage: bytes) -> None:
    trips = RoundTrips()
    trips.left(garbage, 1.0)
    trips.came(garbage, 2.0)
    trips.came(receiver_report(block(VOICE, 5.0, 0.0)), 3.0)
    assert trips.shortest_s is None
    for second in range(1000):
        trips.left(sender_report(VOICE, second), float(second))
    assert len(trips._left_at) <= MOST_REMEMBERED
