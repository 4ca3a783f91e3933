"""Truncated, doubled, reordered and forged RTP, RED, RTCP and STUN, jumps of all numbers, silence: only declared errors
come out, nothing grows, and ordinary packets are heard and seen again soon after. A few seconds here; `scripts/fuzz`
goes on for longer. `tests/adapters/test_media_impaired.py` does the same to a real media process.
"""

from __future__ import annotations

import struct
from random import Random
from typing import Any

import aioice.stun
import aiortc.rtcrtpreceiver
import pytest
from aiortc import RTCRtpReceiver, RTCRtpSender
from aiortc.rtcdtlstransport import RTCCertificate
from aiortc.rtcrtpparameters import (
    RTCRtpCodecParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpReceiveParameters,
    RTCRtpSendParameters,
)
from aiortc.rtp import RtpPacket
from hypothesis import example, given
from hypothesis import strategies as st

from edge_agent.core import red, transport_cc
from edge_agent.core.delay import MOST_DELAY_MS
from edge_agent.core.playout import CUT_MS, IDLE_SAMPLES, MOST_PACKETS, PlayoutBuffer, Samples
from edge_agent.core.transport_cc import MOST_REMEMBERED, Arrivals, Departures
from edge_agent.core.voice import Coding
from edge_agent.media import egress, hooks, ice, opus
from edge_agent.media.pictures import MOST_PACKETS as MOST_PICTURE_PACKETS
from edge_agent.media.pictures import PictureAssembler
from hardware.api import BLOCK_SAMPLES
from tests.impairments import WAYS, Mangler, rtcp
from tests.listening import coded

BLOCK_S = 0.02
HEARD_AGAIN_S = 1.5
SEEN_AGAIN = 4  # key pictures
MOST_OPUS_SAMPLES = 5760  # of one call into the decoder: what its buffer holds
VIDEO = 97

SEEDS = st.integers(0, 2**32 - 1)
SOME_WAYS = st.one_of(st.just(frozenset(WAYS)), st.frozensets(st.sampled_from(WAYS), min_size=1))


class CheckedDecoder:
    """The real one, which writes where it is told to: never more than it has room for."""

    def __init__(self) -> None:
        self._decoder = opus.open_decoder()

    def decode(self, payload: bytes) -> Samples:
        return self._decoder.decode(payload)

    def recover(self, payload: bytes, samples: int) -> Samples:
        assert 0 < samples <= MOST_OPUS_SAMPLES
        return self._decoder.recover(payload, samples)

    def conceal(self, samples: int) -> Samples:
        assert 0 < samples <= MOST_OPUS_SAMPLES
        return self._decoder.conceal(samples)

    def reset(self) -> None:
        self._decoder.reset()


def voice(number: int, timestamp: int, with_red: bool) -> bytes:
    frames = coded(Coding())
    payload = frames[number % len(frames)]
    if with_red:
        payload = red.build(hooks.OPUS, payload, [red.Older(BLOCK_SAMPLES, frames[(number - 1) % len(frames)])])
    header = struct.pack("!BBHLL", 0x80, hooks.RED if with_red else hooks.OPUS, number % 2**16, timestamp % 2**32, 7)
    return header + payload


def push(buffer: PlayoutBuffer, data: bytes, now: float) -> None:
    """As a leg takes it from aiortc."""
    try:
        packet = RtpPacket.parse(data)
        payload, older = packet.payload, ()
        if packet.payload_type == hooks.RED:
            _, payload, older = red.parse(payload)
    except ValueError:
        return
    if packet.payload_type in (hooks.OPUS, hooks.RED):
        buffer.push(packet.ssrc, packet.sequence_number, packet.timestamp, payload, now, older)


@given(SEEDS, SOME_WAYS, st.sampled_from([0.1, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 8.0]), st.booleans())
@example(0, frozenset(["stray_timestamp"]), 0.5, 0.0, False)
@example(6, frozenset(["red"]), 0.5, 0.0, True)
@example(1, frozenset(["jump_timestamp"]), 0.1, 8.0, True)
def test_the_voice_returns(seed: int, ways: frozenset[str], share: float, silence_s: float, clock_stops: bool) -> None:
    """A second of voice, two of madness, perhaps silence, while which the far clock may stand still; then voice."""
    mangler = Mangler(Random(seed), ways, share)
    buffer = PlayoutBuffer(CheckedDecoder())
    storm, silence = range(50, 150), range(150, 150 + int(silence_s / BLOCK_S))
    after = silence.stop + int(HEARD_AGAIN_S / BLOCK_S)
    sent, heard, behind_ms = 0, [], []
    for pull in range(after + 50):
        now = pull * BLOCK_S
        mangler.mad = pull in storm
        if pull not in silence:
            stopped = len(silence) if clock_stops and pull >= silence.stop else 0
            for packet in mangler.mangle(voice(sent, (pull - stopped) * BLOCK_SAMPLES, seed % 2 == 1)):
                push(buffer, packet, now)
            sent += 1
        pulled = buffer.pull(now)
        heard.append(pulled is not None and pulled.heard)
        behind_ms.append(buffer.buffer_ms - buffer.target_ms)
        if pulled is not None:
            assert pulled.samples.shape == (BLOCK_SAMPLES,)
        assert len(buffer._frames) <= MOST_PACKETS + 4
        assert len(buffer._ready) <= IDLE_SAMPLES
    assert sum(heard[after:]) >= 45, f"of 50 blocks {HEARD_AGAIN_S} s after {dict(mangler.done)}"
    assert buffer.target_ms <= MOST_DELAY_MS + BLOCK_S * 1000
    assert max(behind_ms[after:]) <= CUT_MS


@given(st.integers(0, 2**32 - 1), SOME_WAYS)
def test_pictures_return(seed: int, ways: frozenset[str]) -> None:
    mangler, assembler = Mangler(Random(seed), ways, share=0.3), PictureAssembler()
    seen_after, times = 0, []
    keys_after = 0
    for number in range(300):  # of three packets each, every tenth a key picture
        now, key = number / 15, number % 10 == 0
        mangler.mad = 30 <= number < 100
        keys_after += key and number >= 100
        for part in range(3):
            first = bytes([0x10 if part == 0 else 0, 0 if key else 1]) + bytes(8)
            head = struct.pack(
                "!BBHLL", 0x80, VIDEO | 0x80 * (part == 2), (number * 3 + part) % 2**16, number * 6000, 9
            )
            for data in mangler.mangle(head + first):
                try:
                    packet = RtpPacket.parse(data)
                except ValueError:
                    continue
                if not packet.payload:
                    continue
                for picture in assembler.add(
                    packet.sequence_number, packet.timestamp, packet.marker == 1, packet.payload[0] == 0x10,
                    packet.payload[1:], now,
                ):  # fmt: skip
                    times.append(picture.time_ms)
                    seen_after += keys_after > SEEN_AGAIN
        assert len(assembler._packets) <= MOST_PICTURE_PACKETS
    assert seen_after >= 100
    assert times == sorted(times)


# --- bytes that are not what they say


@given(st.binary(max_size=300))
def test_red_comes_back_or_is_none(data: bytes) -> None:
    try:
        parsed = red.parse(data)
    except red.RedError:
        return
    assert len(parsed.payload) + sum(len(each.payload) for each in parsed.older) <= len(data)


@given(
    st.lists(st.one_of(st.binary(max_size=80), SEEDS.map(lambda seed: rtcp(Random(seed), (1, 2), (3,)))), max_size=20)
)
def test_reports_of_what_left(parts: list[bytes]) -> None:
    departures = Departures()
    for number, data in enumerate(parts):
        for _ in range(200):
            departures.left(100, number)
        reports, rest = transport_cc.reports_in(data)
        assert len(rest) <= len(data)
        for fci in [*reports, data]:
            try:
                fates = departures.reported(fci)
            except ValueError:
                continue
            assert len(fates) <= MOST_REMEMBERED
        assert len(departures._sent) <= MOST_REMEMBERED


@given(st.lists(st.tuples(st.integers(0, 2**16 - 1), st.sampled_from([0.0, 0.02, 0.3, 70.0])), max_size=200), SEEDS)
def test_reports_of_what_came(numbers: list[tuple[int, float]], start: int) -> None:
    """Whatever the numbers, a report is short, and after some of them all is told."""
    arrivals, now = Arrivals(), float(start)
    for number, pause_s in numbers:
        now += pause_s
        arrivals.came(number, now)
    reports = []
    while (fci := arrivals.report()) is not None:
        reports.append(fci)
        transport_cc.parse(fci)
        assert len(fci) <= 8 + 3 * transport_cc.MOST_A_REPORT
        assert len(reports) <= len(numbers)
    assert len(arrivals) == 0


@given(st.one_of(st.binary(max_size=120), SEEDS.map(lambda seed: spoilt_stun(Random(seed)))))
def test_stun_is_parsed_or_no_stun(data: bytes) -> None:
    try:
        ice._parse_message(data)
    except ValueError:
        return


def spoilt_stun(dice: Random) -> bytes:
    """A header that is right, with attributes of lengths that are not."""
    body = b""
    for _ in range(dice.randint(1, 4)):
        kind, length = dice.choice(list(aioice.stun.ATTRIBUTES_BY_TYPE)), dice.choice((0, 1, 3, 4, 5, 8, 20, 65535))
        body += struct.pack("!HH", kind, length) + dice.randbytes(dice.choice((0, length % 24)))
        body += bytes(-len(body) % 4)
    return struct.pack("!HHL", dice.choice((0x0001, 0x0101, 0x0111)), len(body), 0x2112A442) + dice.randbytes(12) + body


# --- through aiortc


class NoIce:
    """An ICE transport through which nothing goes."""

    role = "controlling"

    async def _send(self, data: bytes) -> None: ...


@pytest.fixture(scope="module")
def certificate() -> RTCCertificate:
    return RTCCertificate.generateCertificate()


@pytest.fixture
def _statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiortc.rtcrtpreceiver, "StreamStatistics", egress._Statistics)


OPUS_CODEC = RTCRtpCodecParameters("audio/opus", 48_000, 2, hooks.OPUS)
RED_CODEC = RTCRtpCodecParameters("audio/red", 48_000, 2, hooks.RED)
NUMBERS = [RTCRtpHeaderExtensionParameters(id=egress.EXTENSION_ID, uri=transport_cc.URI)]


async def leg(certificate: RTCCertificate) -> tuple[Any, Any, Any, list[RtpPacket]]:
    """A transport with a receiver and a sender of voice, and what the receiver hands on."""
    came: list[RtpPacket] = []
    transport = egress.PacedTransport(NoIce(), [certificate])
    receiver: Any = RTCRtpReceiver("audio", transport)
    receiver._track = aiortc.rtcrtpreceiver.RemoteStreamTrack("audio")
    hooks.tap(receiver, came.append)
    await receiver.receive(RTCRtpReceiveParameters(codecs=[OPUS_CODEC, RED_CODEC], headerExtensions=NUMBERS))
    receiver._set_rtcp_ssrc(1)
    sender: Any = RTCRtpSender("audio", transport)
    transport._register_rtp_sender(sender, RTCRtpSendParameters(codecs=[OPUS_CODEC], headerExtensions=NUMBERS))
    return transport, receiver, sender, came


@pytest.mark.usefixtures("_statistics")
def test_no_clock_leaps_further_than_a_report_can_tell() -> None:
    stream = aiortc.rtcrtpreceiver.StreamStatistics(48_000)
    for number in range(2000):
        stream.add(RtpPacket(sequence_number=number, timestamp=(2**32 - 1) * (number % 2)))
        assert len(report(stream)) == 24


def report(stream: Any) -> bytes:
    """As aiortc makes it each second."""
    return bytes(
        aiortc.rtcrtpreceiver.RtcpReceiverInfo(
            ssrc=1, fraction_lost=stream.fraction_lost, packets_lost=stream.packets_lost,
            highest_sequence=stream.max_seq, jitter=stream.jitter, lsr=0, dlsr=0,
        )
    )  # fmt: skip
