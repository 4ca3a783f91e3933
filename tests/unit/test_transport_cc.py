"""Transport-wide congestion control: numbers, reports, and what is made of them."""

from __future__ import annotations

import contextlib

import pytest
from aiortc.rtp import HeaderExtensionsMap, RtcpRrPacket, RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core import transport_cc
from edge_agent.core.transport_cc import MOST_A_REPORT, REFERENCE_S, TICK_S, URI, Arrivals, Departures, Fate

# Written by hand after the draft: a vector of one bit each, 3 lost of 9.
KNOWN = bytes.fromhex("0001 0009 000064 00 b6c0 10 20 30 40 50 60".replace(" ", ""))


def told(fci: bytes) -> list[tuple[int, float | None]]:
    base, reference, arrivals = transport_cc.parse(fci)
    return [
        (base + number, None if ticks is None else reference * REFERENCE_S + ticks * TICK_S)
        for number, ticks in enumerate(arrivals)
    ]


def test_a_known_report() -> None:
    base, reference, arrivals = transport_cc.parse(KNOWN)
    assert (base, reference) == (1, 100)
    assert arrivals == [0x10, 0x30, None, 0x60, 0xA0, None, 0xF0, 0x150, None]


@given(st.binary(max_size=60))
def test_garbage_is_refused_or_read(fci: bytes) -> None:
    with contextlib.suppress(ValueError):
        _, _, arrivals = transport_cc.parse(fci)
        assert len(arrivals) <= 0xFFFF
    reports, rest = transport_cc.reports_in(fci)
    assert len(rest) + sum(map(len, reports)) <= len(fci)


@pytest.mark.parametrize("cut", range(1, len(KNOWN)))
def test_a_report_that_is_cut_short(cut: int) -> None:
    with pytest.raises(ValueError, match="transport-cc"):
        transport_cc.parse(KNOWN[:cut])


@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0, 9)), min_size=1, max_size=300), st.integers(0, 0xFFFF)
)  # fmt: skip
def test_what_came_is_told_once_and_to_a_tick(steps: list[tuple[int, float]], first: int) -> None:
    arrivals, came, seq, now = Arrivals(), {}, first, 1000.0
    found: list[tuple[int, float | None]] = []
    for step, pause in steps:
        now += pause
        arrivals.came(seq & 0xFFFF, now)
        came[seq & 0xFFFF] = now
        seq += step
        if len(came) % 7 == 0:
            while (fci := arrivals.report()) is not None:
                found += told(fci)
    while (fci := arrivals.report()) is not None:
        assert len(fci) <= 8 + 2 * (MOST_A_REPORT // 7 + 1) + 2 * MOST_A_REPORT
        found += told(fci)
    received = [(number & 0xFFFF, at) for number, at in found if at is not None]
    assert len(received) == len(came)
    for number, at in received:
        assert at == pytest.approx(came[number], abs=TICK_S)
    lost = {number & 0xFFFF for number, at in found if at is None}
    assert lost.isdisjoint(came)


def test_what_comes_late_is_told_late() -> None:
    arrivals = Arrivals()
    for seq in (1, 2, 4):
        arrivals.came(seq, 10.0)
    first, none = arrivals.report(), arrivals.report()
    assert first is not None
    assert none is None
    assert [at is None for _, at in told(first)] == [False, False, True, False]
    arrivals.came(3, 10.1)
    second = arrivals.report()
    assert second is not None
    assert told(second) == [(3, pytest.approx(10.1, abs=TICK_S))]


def test_a_common_report_is_short() -> None:
    """Half a second of voice and pictures on 64 kbit/s, one lost."""
    arrivals = Arrivals()
    for seq in range(20):
        if seq != 7:
            arrivals.came(seq, 5.0 + seq * 0.025)
    fci = arrivals.report()
    assert fci is not None
    assert len(fci) <= 8 + 4 + 19


def test_a_far_end_that_jumps_begins_anew() -> None:
    arrivals = Arrivals()
    arrivals.came(10, 1.0)
    arrivals.came(40_000, 1.1)
    fci = arrivals.report()
    assert fci is not None
    assert told(fci) == [(40_000, pytest.approx(1.1, abs=TICK_S))]


# --- what left and what of it arrived


def test_the_fate_of_what_left() -> None:
    departures, arrivals = Departures(), Arrivals()
    sent = {}
    for number in range(70_000):  # beyond 16 bits
        now = number * 0.001
        seq = departures.left(100 + number % 50, now)
        sent[number + 1] = now
        if number % 10 != 3:
            arrivals.came(seq, now + 7.5)
        if number % 100 == 99:
            fci = arrivals.report()
            assert fci is not None
            fates = departures.reported(fci)
            assert len(fates) == 100 if number > 99 else 99
            for fate in fates:
                assert fate.sent_at == sent[fate.seq]
                assert fate.size_bytes == 100 + (fate.seq - 1) % 50
                lost = (fate.seq - 1) % 10 == 3
                assert (fate.received_at is None) == lost
                if fate.received_at is not None:
                    assert fate.received_at - fate.sent_at == pytest.approx(7.5, abs=2 * TICK_S)
    assert all(fate.received_at is None for fate in departures.reported(fci))  # all received ones are told already


def test_told_lost_and_then_received() -> None:
    departures = Departures()
    departures.left(100, 1.0)
    departures.left(200, 1.1)
    arrivals = Arrivals()
    arrivals._next = 1
    arrivals._newest = 0
    arrivals.came(2, 9.0)
    first = arrivals.report()
    assert first is not None
    assert [(fate.seq, fate.received_at is None) for fate in departures.reported(first)] == [(1, True), (2, False)]
    arrivals.came(1, 9.2)
    second = arrivals.report()
    assert second is not None
    assert departures.reported(second) == [Fate(1, 100, 1.0, pytest.approx(9.2, abs=TICK_S))]
    assert departures.reported(second) == []


def test_losses_are_told_as_come_to_a_browser_that_would_give_up_for_them() -> None:
    departures, arrivals = Departures(), Arrivals(forgiving=True)
    for seq in range(1, 41):
        departures.left(100, seq * 0.02)
        if seq % 5 != 2:
            arrivals.came(seq, 5.0 + seq * 0.02)
    fates = []
    while (fci := arrivals.report()) is not None:
        fates += departures.reported(fci)
    assert [fate.seq for fate in fates] == list(range(1, 41))
    for fate in fates:
        assert fate.received_at is not None
        assert fate.received_at - fate.sent_at == pytest.approx(5.0, abs=2 * TICK_S)


def test_what_is_missing_at_the_end_is_nobodys_yet() -> None:
    departures, arrivals = Departures(), Arrivals(forgiving=True)
    for seq in range(1, 5):
        departures.left(100, seq * 0.02)
    arrivals.came(1, 5.02)
    first = arrivals.report()
    assert first is not None
    assert [fate.seq for fate in departures.reported(first)] == [1]
    arrivals.came(4, 5.08)
    second = arrivals.report()
    assert second is not None
    assert [fate.seq for fate in departures.reported(second)] == [2, 3, 4]


# --- packets


def extensions() -> HeaderExtensionsMap:
    from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters, RTCRtpParameters

    known = HeaderExtensionsMap()
    known.configure(
        RTCRtpParameters(
            headerExtensions=[
                RTCRtpHeaderExtensionParameters(id=5, uri=URI),
                RTCRtpHeaderExtensionParameters(id=1, uri="urn:ietf:params:rtp-hdrext:sdes:mid"),
            ]
        )
    )
    return known


@pytest.mark.parametrize("mid", [None, "0", "long-mid"])
def test_numbers_in_packets_are_what_aiortc_reads(mid: str | None) -> None:
    packet = RtpPacket(payload_type=96, sequence_number=7, timestamp=8, ssrc=9, payload=b"\x7a" * 50, marker=1)
    packet.csrc = [77]
    packet.extensions.mid = mid
    plain = packet.serialize(extensions())
    assert transport_cc.number_in(plain, 5) is None
    data = transport_cc.numbered(plain, 5, 0xFE01)
    assert len(data) - len(plain) == (8 if mid is None else 4)
    assert transport_cc.number_in(data, 5) == 0xFE01
    assert transport_cc.number_in(data, 4) is None
    read = RtpPacket.parse(data, extensions())
    assert read.extensions.transport_sequence_number == 0xFE01
    assert read.extensions.mid == mid
    assert (read.payload, read.sequence_number, read.ssrc, read.csrc, read.marker) == (packet.payload, 7, 9, [77], 1)


@given(st.binary(min_size=12, max_size=80))
def test_numbers_are_looked_for_in_anything(data: bytes) -> None:
    found = transport_cc.number_in(data, 5)
    assert found is None or 0 <= found <= 0xFFFF


@pytest.mark.parametrize("more", range(4))
def test_reports_travel_in_compound_rtcp(more: int) -> None:
    fci = KNOWN + bytes(more)
    report = transport_cc.packet_of(fci, 1234, 5678)
    receiver_report = bytes(RtcpRrPacket(ssrc=1))
    assert len(report) % 4 == 0
    assert int.from_bytes(report[4:8], "big") == 1234
    assert int.from_bytes(report[8:12], "big") == 5678
    compound = receiver_report + report + receiver_report + report
    assert transport_cc.reports_in(compound) == ([fci, fci], receiver_report * 2)
    assert transport_cc.reports_in(receiver_report + report[:-4]) == ([], receiver_report + report[:-4])
