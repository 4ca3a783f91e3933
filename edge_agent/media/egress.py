"""What leaves a leg, and when: aiortc's packets sorted, paced and numbered, and the far end's packets reported.

The order and the pace are `edge_agent.core.pacer`'s, the numbers and reports `edge_agent.core.transport_cc`'s. This is
the one module that reaches into aiortc's DTLS transport, through which everything of a call leaves and comes; the names
that it uses stand in `tests/unit/test_media_hooks.py`, which fails when one of them disappears (aiortc 1.16.0).
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import aiortc.codecs
import aiortc.codecs.vpx
import aiortc.rtcdtlstransport
import aiortc.rtcpeerconnection
import aiortc.rtcrtpreceiver
from aiortc import RTCDtlsTransport, RTCRtpSender
from aiortc.codecs.vpx import VpxPayloadDescriptor
from aiortc.rtcdtlstransport import State
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpHeaderExtensionParameters, RTCRtpSendParameters
from aiortc.rtcrtpreceiver import StreamStatistics

from edge_agent.core import lipsync, transport_cc
from edge_agent.core.lipsync import Report
from edge_agent.core.pacer import Kind, Pacer, longest_packet_bytes
from edge_agent.core.roundtrips import RECEIVER_REPORT, SENDER_REPORT, RoundTrips
from edge_agent.core.transport_cc import Arrivals, Departures, Fate

log = logging.getLogger(__name__)

IP_UDP_BYTES = 28  # IPv4
RTP_BYTES = 12
NUMBER_BYTES = 8  # the header extension with the transport-cc number
SRTP_TAG_BYTES, SRTCP_TAG_BYTES = 10, 14  # AES128_CM_SHA1_80
RTX_BYTES = 2
MARKER = 0x80  # in the second byte of RTP's header: the last packet of its picture
DTLS_BYTES = 37
CONTROL_BYTES = 300  # a longer packet of a data channel has a file in it
MOST_PADDING_BYTES = 240  # RFC 3550: its length is told in one byte
LEAST_TRAIN = 3  # packets

EXTENSION_ID = 3

REPORT_BYTES = 72  # of ours, as most are
REPORTS_SHARE = 0.03  # of the link
SHORTEST_REPORT_S, LONGEST_REPORT_S = 0.1, 1.0

# The far end answers numbers with a report each 250 ms, which is a tenth of 20 kbit/s. A number now and then gets one.
SPARING_BELOW_BPS = 48_000
SPARING_S = 0.5

AHEAD_S = 0.03  # of the link
LOOK_AGAIN_S, DATA_LOOK_S = 0.1, 0.02
TWICE_AFTER_S = 0.06  # losses come in company
LAST_AGAIN_S = 1.2  # of a still: the voice leaves room for one packet in so long
RETRANSMIT_AGAIN_RTTS = 0.8  # a packet is not sent again while its last copy is under way
RTCP_AT_REST_S = 5.0  # nobody asks for more; one a second was a tenth of 8 kbit/s
MOST_REMEMBERED = 512

MOST_SOURCES = 8  # a far end has three; reports tell of each, and 31 is all that one can hold
MOST_JITTER = 2**32 - 1  # that a report can tell
_SPOILT = (struct.error, ValueError, LookupError)  # what aiortc raises for packets that are not what they say

ReportListener = Callable[[Report], None]


class LinkListener(Protocol):
    """Learns what the link carries from what leaves, and bounds how much is under way."""

    def left(self, size_bytes: int, now: float) -> None:
        """Every packet, with all its headers."""

    def told(self, fates: Sequence[Fate], now: float) -> None:
        """Which of the numbered ones arrived, and when."""

    def has_room(self, now: float) -> bool:
        """For more than voice and control."""


def install() -> None:
    """Once, before the first peer connection."""
    aiortc.rtcpeerconnection.RTCDtlsTransport = PacedTransport
    aiortc.rtcrtpreceiver.StreamStatistics = _Statistics
    number = RTCRtpHeaderExtensionParameters(id=EXTENSION_ID, uri=transport_cc.URI)
    reports = RTCRtcpFeedback(type="transport-cc")
    for kind in ("audio", "video"):
        # The only one in use. sdes:mid tells what the SSRC tells, the level of the sound nobody reads, and
        # abs-send-time is for what transport-cc replaces.
        aiortc.codecs.HEADER_EXTENSIONS[kind][:] = [number]
        for codec in aiortc.codecs.CODECS[kind]:
            if not codec.mimeType.endswith("/rtx") and reports not in codec.rtcpFeedback:
                codec.rtcpFeedback.append(reports)


class PacedTransport(RTCDtlsTransport):
    def __init__(self, transport: Any, certificates: list[Any]) -> None:
        super().__init__(transport, certificates)
        # A tag of 10 bytes in each packet instead of 16. The offering side, which the kiosk is, chooses.
        self._srtp_profiles = sorted(self._srtp_profiles, key=lambda profile: b"GCM" in profile.openssl_profile)
        self.egress = Egress(super()._send_rtp, super()._send_data)
        self._sources: dict[int, None] = {}  # SSRCs, the latest heard last

    async def stop(self) -> None:
        await self.egress.close()
        await super().stop()

    def _register_rtp_sender(self, sender: Any, parameters: RTCRtpSendParameters) -> None:
        super()._register_rtp_sender(sender, parameters)
        numbers = [each.id for each in parameters.headerExtensions if each.uri == transport_cc.URI]
        self.egress.add_sender(sender, numbers[0] if numbers else None)

    async def _send_rtp(self, data: bytes) -> None:
        if self._state != State.CONNECTED:
            raise ConnectionError("Cannot send encrypted RTP, not connected")
        await self.egress.send_rtp(data)

    async def _send_data(self, data: bytes) -> None:
        if self._state != State.CONNECTED:
            raise ConnectionError("Cannot send encrypted data, not connected")
        await self.egress.send_data(data)

    # What aiortc lets through here ends the call: one packet that is not what it says costs no more than itself.

    async def _handle_rtcp_data(self, data: bytes) -> None:
        rest = self.egress.rtcp_came(data)
        if rest:
            with suppress(*_SPOILT):
                await super()._handle_rtcp_data(rest)

    async def _handle_rtp_data(self, data: bytes, arrival_time_ms: int) -> None:
        if len(data) < RTP_BYTES:
            return
        self.egress.rtp_came(data)
        self._heard_from(int.from_bytes(data[8:12], "big"))
        with suppress(*_SPOILT):
            await super()._handle_rtp_data(data, arrival_time_ms)

    def _heard_from(self, ssrc: int) -> None:
        """aiortc keeps all that it ever hears from, and its reports end for good when there are too many."""
        self._sources.pop(ssrc, None)
        self._sources[ssrc] = None
        if len(self._sources) <= MOST_SOURCES:
            return
        forgotten = next(iter(self._sources))
        del self._sources[forgotten]
        self._rtp_router.ssrc_table.pop(forgotten, None)
        for receiver in self._rtp_router.receivers:
            for name in ("active_ssrc", "remote_streams", "lsr", "lsr_time"):
                getattr(receiver, f"_RTCRtpReceiver__{name}").pop(forgotten, None)


class _Statistics(StreamStatistics):
    """aiortc's reports end for good when a far clock leaps so far that no report can tell it."""

    @property
    def jitter(self) -> int:
        return min(super().jitter, MOST_JITTER)


def egress_of(sender: RTCRtpSender) -> Egress:
    transport = sender.transport
    assert isinstance(transport, PacedTransport)  # noqa: S101 -- installed
    return transport.egress


@dataclass(slots=True)
class _Stream:
    kind: str
    sender: Any
    is_retransmission: bool = False
    newest: int | None = None


class Egress:
    """`send` and `send_encrypted` are the transport's own way out, for RTP and RTCP, and for data channels."""

    def __init__(
        self, send: Callable[[bytes], Awaitable[None]], send_encrypted: Callable[[bytes], Awaitable[None]]
    ) -> None:
        self.listener: LinkListener | None = None
        self.extra_bytes = 0  # of each packet's headers, beside those of IPv4 and UDP: a relay's, IPv6's
        self.pacer: Pacer[bytes] = Pacer(None, time.monotonic())
        self.report_listener: ReportListener | None = None  # told the far end's sender reports
        self.rtt_s = 0.25  # until it is known
        self.round_trips = RoundTrips()
        self.sends_base_twice = False  # the pictures that others are built on
        self.sends_stills = (
            False  # what pictures there are: a packet now and then, and no next one that tells of a loss
        )
        self._send, self._send_encrypted = send, send_encrypted
        self._streams: dict[int, _Stream] = {}
        self._extension_id: int | None = None
        self._departures = Departures()
        self._numbered_at = 0.0
        self._arrivals = Arrivals(forgiving=True)
        self._media_ssrc = 0
        self._report_at: float | None = None
        self._dropped: deque[int] = deque(maxlen=MOST_REMEMBERED)  # picture packets that never left
        self._retransmitted: dict[int, float] = {}
        self._again: set[asyncio.Task[None]] = set()
        self._rests = False
        self._rtcp_at = 0.0
        self._more = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def voice_rtt_s(self) -> float | None:
        """By the reports on the voice; None: not known yet."""
        voices = (ssrc for ssrc, each in self._streams.items() if each.kind == "audio" and not each.is_retransmission)
        return self.round_trips.of(next(voices, 0))

    def set_rate(self, rate_bps: float | None) -> None:
        """What may leave, headers included; also how long its packets may be."""
        self.pacer.set_rate(rate_bps, time.monotonic())
        around = IP_UDP_BYTES + RTP_BYTES + NUMBER_BYTES + RTX_BYTES + SRTP_TAG_BYTES
        aiortc.codecs.vpx.PACKET_MAX = longest_packet_bytes(rate_bps) - around
        self._more.set()

    def rest(self, rests: bool) -> None:
        """Nothing but a sign of life a second, and no reports: the link is for what is said in turns. What waits is
        dropped, and what the far end has missed is not sent again."""
        if rests and not self._rests:
            self.pacer = Pacer(self.pacer.rate_bps, time.monotonic())
            self._report_at = None
        self._rests = rests

    def _leaves(self, data: bytes, is_rtcp: bool, now: float) -> bool:
        """While resting."""
        if is_rtcp:
            if data[1] not in (SENDER_REPORT, RECEIVER_REPORT) or now - self._rtcp_at < RTCP_AT_REST_S:
                return False
            self._rtcp_at = now
            return True
        stream = self._streams.get(int.from_bytes(data[8:12], "big"))
        return stream is not None and stream.kind == "audio" and not stream.is_retransmission

    async def room_for_pictures(self) -> None:
        """Returns when little waits here that would be before a new picture: it is not coded to wait."""
        while (wait_s := self.pacer.picture_would_wait_s(time.monotonic()) - AHEAD_S) > 0 and not self._closed:  # noqa: ASYNC110 -- it is the link's time that is awaited
            await asyncio.sleep(min(wait_s, LOOK_AGAIN_S))

    async def room_for_still(self) -> None:
        """Returns when no picture waits here any more. On the links that have only stills the voice leaves no more than
        cracks; a still that was to wait for one to be coded would never come."""
        while self.pacer.picture_packets and not self._closed:  # noqa: ASYNC110 -- it is the link's time that is awaited
            await asyncio.sleep(LOOK_AGAIN_S)

    async def room_for_data(self) -> None:
        """Returns when no long data waits here any more."""
        while self.pacer.waiting(Kind.DATA) and not self._closed:  # noqa: ASYNC110 -- it is the link's time that is awaited
            await asyncio.sleep(DATA_LOOK_S)

    def add_sender(self, sender: Any, extension_id: int | None) -> None:
        self._extension_id = extension_id
        self._streams[sender._ssrc] = _Stream(sender.kind, sender)
        self._streams[sender._rtx_ssrc] = _Stream(sender.kind, sender, is_retransmission=True)

    # --- out

    async def send_rtp(self, data: bytes) -> None:
        now = time.monotonic()
        is_rtcp = aiortc.rtcdtlstransport.is_rtcp(data)
        if self._rests and not self._leaves(data, is_rtcp, now):
            return
        if is_rtcp:
            self.pacer.put(data, Kind.RTCP, self._size(Kind.RTCP, data), now)
        else:
            self._put_rtp(data, now)
        await self._let_go()

    async def send_data(self, data: bytes) -> None:
        kind = Kind.CONTROL if len(data) <= CONTROL_BYTES else Kind.DATA
        self.pacer.put(data, kind, self._size(kind, data), time.monotonic())
        await self._let_go()

    async def send_train(self, size_bytes: int) -> int:
        """Packets of padding one after another, unpaced, so that their arrival tells what the link carries. Returns how
        many bytes leave, 0 where the far end has no use for such."""
        stream = next(
            (each for each in self._streams.values() if each.is_retransmission and each.kind == "video"), None
        )
        payload_type = stream and stream.sender._RTCRtpSender__rtx_payload_type
        if stream is None or payload_type is None or self._extension_id is None or self._rests:
            return 0
        around = self._around_rtp_bytes + RTP_BYTES
        count = max(LEAST_TRAIN, -(-size_bytes // (around + MOST_PADDING_BYTES)))
        padding = max(1, min(MOST_PADDING_BYTES, -(-size_bytes // count) - around))
        for _ in range(count):
            seq = stream.sender._RTCRtpSender__rtx_sequence_number
            stream.sender._RTCRtpSender__rtx_sequence_number = (seq + 1) & 0xFFFF
            header = bytes([0xA0, payload_type]) + seq.to_bytes(2, "big") + bytes(4)
            packet = header + stream.sender._rtx_ssrc.to_bytes(4, "big") + bytes(padding - 1) + bytes([padding])
            await self._send(self._numbered(packet, always=True))
            self._has_left(padding + around)
        return count * (padding + around)

    @property
    def _around_rtp_bytes(self) -> int:
        return NUMBER_BYTES + SRTP_TAG_BYTES + IP_UDP_BYTES + self.extra_bytes

    def _size(self, kind: Kind, data: bytes) -> int:
        """On the wire."""
        if kind is Kind.RTCP:
            return len(data) + SRTCP_TAG_BYTES + IP_UDP_BYTES + self.extra_bytes
        if kind in (Kind.CONTROL, Kind.DATA):
            return len(data) + DTLS_BYTES + IP_UDP_BYTES + self.extra_bytes
        return len(data) + self._around_rtp_bytes

    def _has_left(self, size_bytes: int) -> None:
        if self.listener is not None:
            self.listener.left(size_bytes, time.monotonic())

    async def close(self) -> None:
        """Reports and goodbyes still leave, at once."""
        self._closed = True
        if self._pump is not None:
            self._pump.cancel()
        self.pacer.set_rate(None, time.monotonic())
        with suppress(ConnectionError):
            while (taken := self.pacer.take(time.monotonic())) is not None:
                if taken[0] is Kind.RTCP:
                    await self._send(taken[1])

    def _put_rtp(self, data: bytes, now: float) -> None:
        size = self._size(Kind.VOICE, data)
        seq = int.from_bytes(data[2:4], "big")
        stream = self._streams.get(int.from_bytes(data[8:12], "big"))
        if stream is None:
            return  # of no sender of ours
        elif stream.is_retransmission:
            self._put_retransmission(data, size, now)
        elif stream.kind == "audio":
            again = stream.newest is not None and (seq - stream.newest) & 0xFFFF >= 0x8000
            if not again:
                stream.newest = seq
            self.pacer.put(data, Kind.REDUNDANCY if again else Kind.VOICE, size, now)
        else:
            is_key, is_upper = _picture_of(data, _payload_at(data))
            timestamp = int.from_bytes(data[4:8], "big")
            dropped = self.pacer.put_picture(data, size, now, picture=timestamp, key=is_key, upper=is_upper)
            if self.sends_base_twice and not is_upper:
                asyncio.get_running_loop().call_later(TWICE_AFTER_S, self._send_twice, stream.sender, seq)
            if dropped:
                self._dropped.extend(int.from_bytes(packet[2:4], "big") for packet in dropped)
                if self.pacer.wants_key_picture:
                    stream.sender._send_keyframe()

    def _send_twice(self, sender: Any, seq: int) -> None:
        """As a retransmission that nobody has asked for, where the far end takes them as a stream of its own."""
        if not self._closed and not self._rests and sender._RTCRtpSender__rtx_payload_type is not None:
            again = asyncio.create_task(sender._retransmit(seq))
            self._again.add(again)
            again.add_done_callback(self._again.discard)

    def _put_retransmission(self, data: bytes, size: int, now: float) -> None:
        """Not of what was dropped on purpose, nor of what nothing is built on, which would come too late, and not twice
        for one gap."""
        start = _payload_at(data)
        original = int.from_bytes(data[start : start + 2], "big")
        last = self._retransmitted.get(original, -1e9)
        if original in self._dropped or now - last < RETRANSMIT_AGAIN_RTTS * self.rtt_s:
            return
        if _picture_of(data, start + RTX_BYTES)[1]:
            return
        self._retransmitted.pop(original, None)
        self._retransmitted[original] = now
        if len(self._retransmitted) > MOST_REMEMBERED:
            del self._retransmitted[next(iter(self._retransmitted))]
        self.pacer.put(data, Kind.RETRANSMISSION, size, now)

    def _take(self) -> tuple[Kind, bytes] | None:
        now = time.monotonic()
        if self.listener is not None:
            # Stills are few. On links that thin, with a report now and then, there seldom seems to be room.
            self.pacer.hold(not self.sends_stills and not self.listener.has_room(now))
        return self.pacer.take(now)

    async def _let_go(self) -> None:
        """What may leave now leaves; the pump sees to the rest."""
        while (taken := self._take()) is not None:
            await self._out(*taken)
        if self.pacer.next_time(time.monotonic()) is not None:
            self._wake()

    async def _out(self, kind: Kind, data: bytes) -> None:
        self._has_left(self._size(kind, data))
        if self.sends_stills and kind is Kind.PICTURE and data[1] & MARKER:
            stream, seq = self._streams[int.from_bytes(data[8:12], "big")], int.from_bytes(data[2:4], "big")
            asyncio.get_running_loop().call_later(LAST_AGAIN_S, self._send_twice, stream.sender, seq)
        with suppress(ConnectionError):  # between two packets the leg may have closed
            if kind in (Kind.CONTROL, Kind.DATA):
                await self._send_encrypted(data)
            elif kind is Kind.RTCP:
                self.round_trips.left(data, time.monotonic())
                await self._send(data)
            else:
                await self._send(self._numbered(data))

    def _numbered(self, data: bytes, always: bool = False) -> bytes:
        if self._extension_id is None or self._rests:
            return data
        now = time.monotonic()
        rate_bps = self.pacer.rate_bps
        sparing = rate_bps is not None and rate_bps < SPARING_BELOW_BPS and not always
        if sparing and now - self._numbered_at < SPARING_S:
            return data
        self._numbered_at = now
        size = len(data) + self._around_rtp_bytes
        return transport_cc.numbered(data, self._extension_id, self._departures.left(size, now))

    def _wake(self) -> None:
        self._more.set()
        if self._pump is None and not self._closed:
            self._pump = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            self._more.clear()
            now = time.monotonic()
            if self._report_at is not None and now >= self._report_at:
                self._report_at = None
                self._put_reports(now)
            while (taken := self._take()) is not None:
                await self._out(*taken)
            now = time.monotonic()
            times = [at for at in (self.pacer.next_time(now), self._report_at) if at is not None]
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(times) - now) if times else None):
                    await self._more.wait()

    # --- in

    def rtcp_came(self, data: bytes) -> bytes:
        """What is left of it for aiortc, which takes every transport-cc report for NACKs."""
        self.round_trips.came(data, time.monotonic())
        if self.report_listener is not None:
            for sent in lipsync.reports_in(data):
                self.report_listener(sent)
        reports, rest = transport_cc.reports_in(data)
        for fci in reports:
            try:
                fates = self._departures.reported(fci)
            except ValueError:
                continue  # garbage
            if fates and self.listener is not None:
                self.listener.told(fates, time.monotonic())
                self._wake()  # there may be room now
        return rest

    def rtp_came(self, data: bytes) -> None:
        if self._extension_id is None or self._rests or len(data) < RTP_BYTES:
            return
        number = transport_cc.number_in(data, self._extension_id)
        if number is None:
            return
        now = time.monotonic()
        self._arrivals.came(number, now)
        self._media_ssrc = int.from_bytes(data[8:12], "big")
        if self._report_at is None:
            self._report_at = now + self._report_every_s()
            self._wake()

    def _report_every_s(self) -> float:
        rate_bps = self.pacer.rate_bps
        if rate_bps is None:
            return SHORTEST_REPORT_S
        return min(LONGEST_REPORT_S, max(SHORTEST_REPORT_S, REPORT_BYTES * 8 / (REPORTS_SHARE * rate_bps)))

    def _put_reports(self, now: float) -> None:
        own_ssrc = next(iter(self._streams), 0)
        while (fci := self._arrivals.report()) is not None:
            report = transport_cc.packet_of(fci, own_ssrc, self._media_ssrc)
            self.pacer.put(report, Kind.RTCP, self._size(Kind.RTCP, report), now)


def _payload_at(data: bytes) -> int:
    start = RTP_BYTES + 4 * (data[0] & 0x0F)
    if data[0] & 0x10:
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    return start


def _picture_of(data: bytes, start: int) -> tuple[bool, bool]:
    """Whether a packet of VP8 begins a key picture, and whether it is of one that no other is built on."""
    try:
        descriptor, vp8 = VpxPayloadDescriptor.parse(data[start:])
    except ValueError:
        return False, False
    begins = descriptor.partition_start == 1 and descriptor.partition_id == 0
    return begins and bool(vp8) and not vp8[0] & 1, descriptor.tid is not None and descriptor.tid[0] > 0
