"""What leaves a leg: aiortc's packets sorted, paced and numbered."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aiortc.codecs.vpx import VpxPayloadDescriptor
from aiortc.mediastreams import VIDEO_TIME_BASE
from aiortc.rtp import (
    RTCP_PSFB_PLI,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpSenderInfo,
    RtcpSrPacket,
    RtpPacket,
)
from av.packet import Packet

from edge_agent.core import transport_cc
from edge_agent.core.pacer import Kind
from edge_agent.core.transport_cc import Arrivals
from edge_agent.media import hooks
from edge_agent.media.egress import EXTENSION_ID, SPARING_S, Egress

VOICE, PICTURES, AGAIN = 1, 2, 3


class Sender:
    def __init__(self, kind: str, ssrc: int, rtx_ssrc: int) -> None:
        self.kind, self._ssrc, self._rtx_ssrc = kind, ssrc, rtx_ssrc
        self.key_pictures = 0
        self._RTCRtpSender__rtx_payload_type: int | None = 97
        self._RTCRtpSender__rtx_sequence_number = 65534
        self.bench: Any = None

    def _send_keyframe(self) -> None:
        self.key_pictures += 1

    async def _retransmit(self, sequence_number: int) -> None:
        await self.bench.egress.send_rtp(
            rtp(AGAIN, 900 + sequence_number, sequence_number.to_bytes(2, "big") + bytes(9))
        )


class Listener:
    """Of what leaves."""

    def __init__(self) -> None:
        self.fates: list[Any] = []
        self.sizes: list[int] = []
        self.room = True

    def left(self, size_bytes: int, now: float) -> None:
        self.sizes.append(size_bytes)

    def told(self, fates: Any, now: float) -> None:
        self.fates.extend(fates)

    def has_room(self, now: float) -> bool:
        return self.room


class Bench:
    """An egress whose packets end here."""

    def __init__(self, extension_id: int | None = EXTENSION_ID) -> None:
        self.left: list[tuple[float, bytes]] = []
        self.data: list[bytes] = []
        self.egress = Egress(self._send, self._send_data)
        self.pictures = Sender("video", PICTURES, AGAIN)
        self.pictures.bench = self
        self.egress.add_sender(Sender("audio", VOICE, 77), extension_id)
        self.egress.add_sender(self.pictures, extension_id)

    async def _send(self, data: bytes) -> None:
        self.left.append((time.monotonic(), data))

    async def _send_data(self, data: bytes) -> None:
        self.data.append(data)

    @property
    def names(self) -> list[str]:
        return [_name(data) for _, data in self.left]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.left) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.002)


def _name(data: bytes) -> str:
    if 192 <= data[1] <= 208:
        return "rtcp"
    packet = RtpPacket.parse(data)
    return f"{({VOICE: 'voice', PICTURES: 'picture', AGAIN: 'again'})[packet.ssrc]} {packet.sequence_number}"


@pytest.fixture
async def bench() -> Any:
    bench = Bench()
    yield bench
    await bench.egress.close()
    bench.egress.set_rate(None)  # what it sets is the process's


def rtp(ssrc: int, seq: int, payload: bytes = bytes(60), timestamp: int = 0, marker: int = 1) -> bytes:
    packet = RtpPacket(96, marker, seq, timestamp, ssrc, payload)
    return packet.serialize()


def vp8(
    seq: int, *, key: bool = False, upper: bool = False, size: int = 400, starts: bool = True, last: bool = True
) -> bytes:
    descriptor = VpxPayloadDescriptor(int(starts), 0, picture_id=seq, tid=(int(upper), 0), tl0picidx=1)
    payload = bytes(descriptor) + bytes([0 if key else 1]) + bytes(size)
    return rtp(PICTURES, seq, payload, timestamp=seq * 6000, marker=int(last))


async def test_voice_overtakes_pictures_and_reports_do_too(bench: Bench) -> None:
    bench.egress.set_rate(64_000)
    for seq in range(1, 4):
        await bench.egress.send_rtp(vp8(seq))
    await bench.egress.send_rtp(bytes(RtcpRrPacket(ssrc=1)))
    await bench.egress.send_rtp(rtp(VOICE, 9))
    await bench.egress.send_data(b"data")
    assert bench.names == ["picture 1", "voice 9"]
    await bench.until(5)
    assert bench.names == ["picture 1", "voice 9", "rtcp", "picture 2", "picture 3"]
    times = [at for at, _ in bench.left]
    assert times[-1] - times[0] >= (460 + 126 + 50 + 460) * 8 / 64_000 - 0.01


async def test_a_round_trip_counts_from_the_moment_at_which_the_report_leaves(bench: Bench) -> None:
    middle = 0x12345678
    sent = RtcpSenderInfo(ntp_timestamp=middle << 16, rtp_timestamp=0, packet_count=1, octet_count=60)
    bench.egress.set_rate(2_000)
    await bench.egress.send_rtp(rtp(VOICE, 9))
    await bench.egress.send_rtp(bytes(RtcpSrPacket(ssrc=VOICE, sender_info=sent)))
    assert bench.names == ["voice 9"]  # and the report waits
    await bench.until(2)
    told = RtcpReceiverInfo(VOICE, 0, 0, 1, 0, lsr=middle, dlsr=0)
    bench.egress.rtcp_came(bytes(RtcpRrPacket(ssrc=PICTURES, reports=[told])))
    elapsed_s = time.monotonic() - bench.left[-1][0]
    assert bench.egress.voice_rtt_s is not None
    assert elapsed_s - 0.01 <= bench.egress.voice_rtt_s <= elapsed_s + 0.05


async def test_an_older_number_of_the_voice_is_a_copy(bench: Bench) -> None:
    bench.egress.set_rate(64_000)
    await bench.egress.send_rtp(rtp(VOICE, 0xFFFF))
    await bench.egress.send_rtp(rtp(VOICE, 0))
    await bench.egress.send_rtp(rtp(VOICE, 0xFFFF))
    await bench.until(3)
    assert bench.egress.pacer.sent == {Kind.VOICE: 2, Kind.REDUNDANCY: 1}


async def test_numbers_are_those_of_leaving(bench: Bench) -> None:
    bench.egress.set_rate(64_000)
    for seq in range(1, 3):
        await bench.egress.send_rtp(vp8(seq))
    await bench.egress.send_rtp(rtp(VOICE, 9))
    await bench.until(3)
    assert bench.names == ["picture 1", "voice 9", "picture 2"]
    assert [transport_cc.number_in(data, EXTENSION_ID) for _, data in bench.left] == [1, 2, 3]


async def test_on_the_thinnest_links_few_are_numbered(bench: Bench) -> None:
    bench.egress.set_rate(18_000)
    for seq in range(10):
        await bench.egress.send_rtp(rtp(VOICE, seq))
    assert [transport_cc.number_in(data, EXTENSION_ID) for _, data in bench.left] == [1, *[None] * 9]
    assert SPARING_S <= 0.5


async def test_a_far_end_that_knows_no_numbers_gets_none() -> None:
    bench = Bench(extension_id=None)
    await bench.egress.send_rtp(rtp(VOICE, 9))
    assert bench.left[0][1] == rtp(VOICE, 9)
    await bench.egress.close()


async def test_what_the_far_end_reports_is_told_and_the_rest_of_its_rtcp_left(bench: Bench) -> None:
    listener = bench.egress.listener = Listener()
    for seq in range(3):
        await bench.egress.send_rtp(rtp(VOICE, seq))
    arrivals = Arrivals()
    for number in (1, 3):
        arrivals.came(number, 50 + number)
    fci = arrivals.report()
    assert fci is not None
    rest = bytes(RtcpRrPacket(ssrc=1))
    assert bench.egress.rtcp_came(rest + transport_cc.packet_of(fci, 1, 2)) == rest
    assert [(fate.seq, fate.received_at) for fate in listener.fates] == [(1, 51.0), (2, None), (3, 53.0)]
    assert bench.egress.rtcp_came(transport_cc.packet_of(b"garbage!", 1, 2)) == b""


async def test_everything_that_leaves_is_told_with_all_its_headers(bench: Bench) -> None:
    listener = bench.egress.listener = Listener()
    bench.egress.extra_bytes = 24  # a relay's and IPv6's
    await bench.egress.send_rtp(rtp(VOICE, 1))
    await bench.egress.send_rtp(bytes(RtcpRrPacket(ssrc=1)))
    await bench.egress.send_data(bytes(50))
    assert listener.sizes == [12 + 60 + 8 + 10 + 28 + 24, 8 + 14 + 28 + 24, 50 + 37 + 28 + 24]
    assert len(bench.left[0][1]) == 12 + 60 + 8  # SRTP's tag and the rest are put around it


async def test_with_enough_under_way_only_voice_and_control_leave(bench: Bench) -> None:
    listener = bench.egress.listener = Listener()
    listener.room = False
    await bench.egress.send_rtp(vp8(1, key=True))
    await bench.egress.send_data(b"short")
    await bench.egress.send_data(bytes(600))
    await bench.egress.send_rtp(rtp(VOICE, 1))
    assert (bench.names, bench.data) == (["voice 1"], [b"short"])
    listener.room = True
    arrivals = Arrivals()
    arrivals.came(1, 50.0)
    fci = arrivals.report()
    assert fci is not None
    bench.egress.rtcp_came(transport_cc.packet_of(fci, 1, 2))  # makes room, and wakes it
    await bench.until(2)
    assert bench.names == ["voice 1", "picture 1"]


async def test_a_train_is_padding_that_a_far_end_numbers_and_drops(bench: Bench) -> None:
    listener = bench.egress.listener = Listener()
    bench.egress.set_rate(18_000)
    assert await bench.egress.send_train(450) == 450
    assert 2000 <= await bench.egress.send_train(2000) < 2010
    packets = [RtpPacket.parse(data) for _, data in bench.left]
    assert {(packet.ssrc, packet.payload_type, packet.payload) for packet in packets} == {(AGAIN, 97, b"")}
    assert [packet.sequence_number for packet in packets] == [
        (65534 + number) & 0xFFFF for number in range(len(packets))
    ]
    assert [transport_cc.number_in(data, EXTENSION_ID) for _, data in bench.left] == list(range(1, len(packets) + 1))
    assert max(listener.sizes) <= 300
    bench.pictures._RTCRtpSender__rtx_payload_type = None  # a far end without retransmissions
    assert await bench.egress.send_train(450) == 0


async def test_what_comes_is_reported(bench: Bench) -> None:
    for seq in range(5):
        bench.egress.rtp_came(transport_cc.numbered(rtp(4242, seq), EXTENSION_ID, 100 + seq))
    bench.egress.rtp_came(rtp(4242, 9))  # without
    await bench.until(1)
    report = bench.left[0][1]
    (fci,), rest = transport_cc.reports_in(report)
    base, _, arrivals = transport_cc.parse(fci)
    assert (base, len(arrivals), None in arrivals, rest) == (100, 5, False, b"")
    assert int.from_bytes(report[8:12], "big") == 4242


async def test_dropped_pictures_ask_for_a_key_and_are_not_sent_again(bench: Bench) -> None:
    bench.egress.set_rate(64_000)
    await bench.egress.send_rtp(vp8(1, key=True, size=9000))
    await bench.egress.send_rtp(vp8(2, size=9000))
    await bench.egress.send_rtp(vp8(3))
    await bench.egress.send_rtp(vp8(4))
    assert bench.pictures.key_pictures >= 1
    for original in (3, 4):
        await bench.egress.send_rtp(rtp(AGAIN, 500 + original, original.to_bytes(2, "big") + bytes(30)))
    await bench.egress.send_rtp(rtp(AGAIN, 600, (1).to_bytes(2, "big") + bytes(30)))
    await bench.egress.send_rtp(rtp(AGAIN, 601, (1).to_bytes(2, "big") + bytes(30)))  # its NACK twice
    bench.egress.set_rate(None)
    await bench.until(3)
    assert bench.names == ["picture 1", "again 600", "picture 2"]


async def test_what_nothing_is_built_on_is_not_sent_again(bench: Bench) -> None:
    for number, upper in ((7, True), (8, False)):
        start = bytes(VpxPayloadDescriptor(1, 0, picture_id=1, tid=(int(upper), 1), tl0picidx=1)) + bytes(30)
        await bench.egress.send_rtp(rtp(AGAIN, number, number.to_bytes(2, "big") + start))
    assert bench.names == ["again 8"]


async def test_where_losses_are_many_and_late_to_mend_what_others_are_built_on_is_sent_twice(bench: Bench) -> None:
    bench.egress.sends_base_twice = True
    await bench.egress.send_rtp(vp8(1))
    await bench.egress.send_rtp(vp8(2, upper=True))
    await bench.until(3)
    bench.egress.sends_base_twice = False
    await bench.egress.send_rtp(vp8(3))
    await asyncio.sleep(0.1)
    assert bench.names == ["picture 1", "picture 2", "again 901", "picture 3"]
    assert bench.left[2][0] - bench.left[0][0] >= 0.05


async def test_of_a_still_the_last_packet_is_sent_twice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is lost no next picture tells the far end so for a minute."""
    monkeypatch.setattr("edge_agent.media.egress.LAST_AGAIN_S", 0.05)
    bench.egress.sends_stills = True
    await bench.egress.send_rtp(vp8(1, last=False))
    await bench.egress.send_rtp(vp8(2))
    await bench.until(3)
    bench.egress.sends_stills = False
    await bench.egress.send_rtp(vp8(3))
    await asyncio.sleep(0.1)
    assert bench.names == ["picture 1", "picture 2", "again 902", "picture 3"]


async def test_stills_leave_though_enough_seems_under_way(bench: Bench) -> None:
    bench.egress.set_rate(24_000)
    bench.egress.listener = listener = Listener()
    listener.room = False
    await bench.egress.send_rtp(vp8(1))
    assert bench.names == []
    bench.egress.sends_stills = True
    await bench.egress.send_rtp(rtp(VOICE, 1))
    await bench.until(2)
    assert bench.names == ["voice 1", "picture 1"]


async def test_a_still_is_coded_though_voice_leaves_little_and_no_two_wait(bench: Bench) -> None:
    bench.egress.set_rate(24_000)
    await bench.egress.send_rtp(rtp(VOICE, 1, bytes(600)))  # the link is busy with it for 0.2 s
    began = time.monotonic()
    await bench.egress.room_for_still()
    assert time.monotonic() - began < 0.05
    await bench.egress.send_rtp(vp8(1))
    await bench.egress.room_for_still()
    assert bench.names[-1] == "picture 1"


async def test_a_packet_is_sent_again_when_its_last_copy_must_have_been_lost(bench: Bench) -> None:
    bench.egress.rtt_s = 0.05
    again = (1).to_bytes(2, "big") + bytes(30)
    for number in range(3):
        await bench.egress.send_rtp(rtp(AGAIN, number, again))
        if number == 1:
            await asyncio.sleep(0.06)
    assert bench.names == ["again 0", "again 2"]


async def test_upper_pictures_are_told_by_their_layer(bench: Bench) -> None:
    bench.egress.set_rate(64_000)
    await bench.egress.send_rtp(vp8(1))
    await bench.egress.send_rtp(vp8(2, upper=True))
    await bench.egress.send_rtp(vp8(3))
    await bench.until(3)
    assert bench.names == ["picture 1", "picture 3", "picture 2"]


async def test_there_is_room_when_the_link_is_done_with_the_pictures_before(bench: Bench) -> None:
    bench.egress.set_rate(64_000)
    began = time.monotonic()
    await bench.egress.send_rtp(vp8(1, size=1900))  # a quarter of a second
    await asyncio.wait_for(bench.egress.room_for_pictures(), 2)
    assert 0.1 < time.monotonic() - began < 0.5


async def test_the_packetizer_is_told_how_long_packets_may_be(bench: Bench) -> None:
    bench.egress.set_rate(64_000)
    packer, picture = hooks._PicturePacker(), Packet(bytes(3000))
    picture.pts, picture.time_base = 0, VIDEO_TIME_BASE
    payloads, _ = packer.pack(picture)
    await bench.egress.send_rtp(rtp(PICTURES, 1, max(payloads, key=len)))
    assert bench.egress.pacer.sent_bytes[Kind.PICTURE] <= 480
    bench.egress.set_rate(None)
    assert max(map(len, packer.pack(picture)[0])) > 900


async def test_goodbyes_leave_when_it_closes(bench: Bench) -> None:
    bench.egress.set_rate(8_000)
    await bench.egress.send_rtp(vp8(1, size=1000))
    await bench.egress.send_rtp(vp8(2))
    await bench.egress.send_rtp(bytes(RtcpRrPacket(ssrc=1)))
    await bench.egress.close()
    assert bench.names == ["picture 1", "rtcp"]


async def test_at_rest_next_to_nothing_leaves(bench: Bench) -> None:
    """The link is for what is said in turns."""
    bench.egress.set_rate(20_000)
    for seq in range(20):
        await bench.egress.send_rtp(vp8(seq, key=seq == 0))
    left = len(bench.left)
    bench.egress.rest(True)
    report = bytes(RtcpRrPacket(ssrc=VOICE))
    key_frame_wanted = bytes(RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=VOICE, media_ssrc=9))
    for data in (rtp(VOICE, 1), rtp(AGAIN, 1, b"\0\1again"), vp8(30), key_frame_wanted, report, report):
        await bench.egress.send_rtp(data)
    arrived = transport_cc.numbered(rtp(9, 1), EXTENSION_ID, 5)
    bench.egress.rtp_came(arrived)
    await bench.until(left + 2)
    await asyncio.sleep(0.5)  # nothing of what waited, and no report
    assert sorted(bench.names[left:]) == ["rtcp", "voice 1"]
    assert transport_cc.number_in(bench.left[-1][1], EXTENSION_ID) is None
    bench.egress.rest(False)
    await bench.egress.send_rtp(rtp(VOICE, 2))
    await bench.until(left + 3)
