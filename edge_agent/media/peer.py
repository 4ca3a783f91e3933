"""One leg of a call: a peer connection that the kiosk offers, with its tracks, its buffers and its watch.

The leg says what happens to it by sending frames of `edge_agent.ipc`; which leg is heard and seen is the process's
to decide.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Protocol

from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.codecs.vpx import VpxPayloadDescriptor
from aiortc.mediastreams import VIDEO_CLOCK_RATE
from aiortc.rtcicetransport import candidate_to_aioice, parse_stun_turn_uri
from aiortc.rtp import RtpPacket
from aiortc.sdp import SessionDescription

from edge_agent import ipc
from edge_agent.core import red, sdp
from edge_agent.core.lipsync import LipSync, Report
from edge_agent.core.nacks import Nacks
from edge_agent.core.playout import MS, PlayoutBuffer, Pulled
from edge_agent.core.split import call_bps
from edge_agent.core.turns import LEAST_LIVE_BPS, MOST_PROBE_BPS, Probe
from edge_agent.core.voice import CONTROL_BPS, FEC_FROM_BPS, CallPlan, LinkMemory, plan_call
from edge_agent.core.wire import IceServer
from edge_agent.media import hooks, ice, opus
from edge_agent.media.egress import IP_UDP_BYTES, egress_of
from edge_agent.media.pictures import (
    GAP_WAIT_RTTS,
    LEAST_GAP_WAIT_S,
    EncodedPicture,
    HeldPictures,
    PictureAssembler,
)
from edge_agent.media.tracks import CameraTrack, MicrophoneTrack
from hardware.api import SAMPLE_RATE_HZ

log = logging.getLogger(__name__)

STALLED_AFTER_S = 3.0
DEAD_AFTER_S = 30.0  # silent for so long: browsers have given the path up too
KEY_FRAME_REQUEST_S, KEY_FRAME_REQUEST_RTTS = 0.5, 1.5  # at most one PLI in the longer of them
LAYERS_ABOVE, NO_LAYERS_BELOW = 0.06, 0.03  # of the packets lost upwards: layers cost some sharpness
WATCH_S = 0.25
STATS_S = 1.0
PLAN_S = 2.0
START_PICTURES_BPS = 300_000  # as browsers begin by themselves

_CODECS = {"audio": ("audio/red", "audio/opus"), "video": ("video/VP8", "video/rtx")}


class LegOwner(Protocol):
    def send(self, frame: ipc.FromMedia) -> None: ...

    def connected(self, leg: Leg) -> None: ...

    def over(self, leg: Leg, reason: str) -> None:
        """Once: the leg is lost, and not because it was closed here."""

    def far_picture(self, leg: Leg, picture: EncodedPicture) -> bool:
        """False when it was dropped on its way: the leg goes on from the next key frame."""


class Leg:
    def __init__(
        self,
        call: bytes,
        number: int,
        ice_servers: tuple[IceServer, ...],
        held: bool,
        owner: LegOwner,
        link: LinkMemory,
    ) -> None:
        self.call, self.number = call, number
        self.is_connected = False
        self._owner = owner
        self._held = held
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard = self._seen = False
        self._ice: ice.Connection | None = None

        self._link = link
        self._reported_at: object = None
        self._lost_up: float | None = None
        self._plan = plan_call(link.estimate())
        self.microphone = MicrophoneTrack(held, self._plan.up)
        self.camera = CameraTrack(held, self._plan.pictures_up, self._room_for_pictures)
        self._sound = PlayoutBuffer(opus.open_decoder())
        self._sound_lock = threading.Lock()  # pushed by the loop, pulled by the speaker's thread
        self._pictures = PictureAssembler()
        self._lip_sync = LipSync(SAMPLE_RATE_HZ, VIDEO_CLOCK_RATE)  # under the sound's lock
        self._held_pictures = HeldPictures()
        self._show_timer: asyncio.TimerHandle | None = None
        self._nacks = Nacks()
        self._ask_timer: asyncio.TimerHandle | None = None
        self._rtt_s: float | None = None
        self._pictures_received = 0
        self._picture_ssrc: int | None = None
        self._key_frame_asked_at = 0.0

        self._connection = RTCPeerConnection(
            RTCConfiguration(iceServers=_usable(ice_servers), bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        )
        hooks.shorten_reports(self._connection)
        audio = self._connection.addTransceiver(self.microphone)
        with_pictures = self._plan.pictures_up is not None
        video = self._connection.addTransceiver(self.camera, direction="sendrecv" if with_pictures else "inactive")
        for transceiver in (audio, video):
            _prefer(transceiver, _CODECS[transceiver.kind])
        self.egress = egress_of(audio.sender)
        self.egress.set_rate(call_bps(link.estimate().up.rate_bps))
        self.egress.report_listener = self._take_sender_report
        hooks.tap(audio.receiver, self._take_sound)
        hooks.tap(video.receiver, self._take_picture)
        hooks.on_key_frame_request(video.sender, self.camera.want_key_picture)
        self._audio_receiver, self._video_receiver = audio.receiver, video.receiver
        self._connection.on("connectionstatechange", self._state_changed)

    async def offer(self) -> bytes:
        """With the candidates that are known soon, compressed. With more of them it is sent again."""
        await self._connection.setLocalDescription()
        self._ice = ice.connection_of(self._connection)
        self._ice.found = self._offer_again
        return self._offer()

    def _offer(self) -> bytes:
        assert self._ice is not None  # noqa: S101
        described = ice.with_candidates(self._connection.localDescription.sdp, self._ice)
        return sdp.compress(described, *_wishes(self._plan))

    def _offer_again(self) -> None:
        if not self._closed and not self.is_connected:
            self._owner.send(ipc.OfferMade(self.call, self.number, self._offer()))

    async def take_answer(self, answer: bytes) -> None:
        """The same answer again may have more candidates. Raises ValueError for what is no answer to this leg's
        offer."""
        text = sdp.decompress(answer)
        if self._connection.signalingState != "have-local-offer":
            self._take_candidates(text)
            return
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(text, "answer"))
        except (ValueError, AssertionError, LookupError, AttributeError) as error:
            raise ValueError(f"an answer that does not fit: {error}") from None
        self.microphone.opus_in_red = hooks.OPUS if sdp.takes_red(text) else None
        self._say_plan()

    def _take_candidates(self, answer: str) -> None:
        (first, *_) = SessionDescription.parse(answer).media
        remote = self._connection.remoteDescription
        if self._ice is not None and remote is not None and f"a=ice-ufrag:{first.ice.usernameFragment}" in remote.sdp:
            self._ice.add_late_candidates([candidate_to_aioice(each) for each in first.ice_candidates])

    def unhold(self) -> None:
        if not self._held:
            return
        self._held = self.microphone.held = self.microphone.rests = self.camera.held = False
        self.egress.rest(False)
        self.camera.want_key_picture()
        self.want_key_frame()

    def rest(self) -> None:
        """The connection stays, and leaves the link to what is said in turns."""
        self._held = self.microphone.held = self.microphone.rests = self.camera.held = True
        self.egress.rest(True)
        self._link.forget_losses()  # of a link that was asked for more than it carries

    async def carries_live(self, in_full: bool) -> bool:
        """Whether the path has room for a call both ways: for the least that there is, or for this one's voice."""
        up, down = LEAST_LIVE_BPS, LEAST_LIVE_BPS
        if in_full:
            up, down = (
                max(LEAST_LIVE_BPS, min(plan.wire_bps + CONTROL_BPS, MOST_PROBE_BPS))
                for plan in (self._plan.up, self._plan.down)
            )
        return self._ice is not None and await self._ice.carries(Probe(up, down, time.monotonic()))

    def want_key_frame(self) -> None:
        self._pictures.require_key_frame()
        self._ask_for_key_frame()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        sound = self._sound.counts
        log.info(
            "leg closed call=%s leg=%d sound_lost=%d sound_late=%d sound_recovered=%d sound_starvations=%d "
            "pictures_received=%d pictures_sent=%d key_pictures_sent=%d",
            self.call.hex(), self.number, sound.lost, sound.late, sound.red_recovered + sound.fec_recovered,
            sound.starvations, self._pictures_received, self.camera.pictures_sent, self.camera.key_pictures_sent,
        )  # fmt: skip
        for task in self._tasks:
            task.cancel()
        for timer in (self._ask_timer, self._show_timer):
            if timer is not None:
                timer.cancel()
        self.microphone.stop()
        self.camera.stop()
        await self._connection.close()

    # --- the plan

    async def _plan_anew(self) -> None:
        """Of the kiosk's own voice; what the far end was asked for stands in the offer, until the next leg."""
        plan = await asyncio.to_thread(plan_call, self._link.estimate(), self._plan.up)
        if plan.up != self._plan.up:
            told_anew = plan.up.wire_bps != self._plan.up.wire_bps
            self._plan = replace(self._plan, up=plan.up)
            self.microphone.plan = plan.up
            if told_anew:
                self._say_plan()

    def _say_plan(self) -> None:
        plan = self._plan.up
        log.info(
            "voice plan call=%s leg=%d bps=%d frame_ms=%d fec=%s red=%s depth=%d distance=%d wire_bps=%d loss=%.3f",
            self.call.hex(), self.number, plan.coding.bps, plan.coding.frame_ms, plan.coding.fec,
            self.microphone.opus_in_red is not None, plan.red_depth, plan.red_distance, plan.wire_bps,
            self._link.lost_up.share,
        )  # fmt: skip

    def _take_rtt(self, report: dict[str, object]) -> None:
        rtts = [getattr(entry, "roundTripTime", None) for entry in report.values()]
        known = [rtt for rtt in rtts if rtt is not None and rtt >= 0]
        if known:
            self._rtt_s = self.camera.rtt_s = self.egress.rtt_s = min(known)
            self._pictures.gap_wait_s = max(LEAST_GAP_WAIT_S, GAP_WAIT_RTTS * self._rtt_s)

    def _take_reports(self, report: dict[str, object]) -> None:
        """What both ends lost of the voice."""
        if self.microphone.rests:
            return
        for entry in report.values():
            kind, of = getattr(entry, "type", ""), getattr(entry, "kind", "")
            if of == "audio" and kind == "remote-inbound-rtp" and entry.timestamp != self._reported_at:  # type: ignore[attr-defined]
                self._reported_at = entry.timestamp  # type: ignore[attr-defined]
                self._lost_up = entry.fractionLost / 256  # type: ignore[attr-defined]
                self._link.lost_up.add(self._lost_up)
                lost = self._link.lost_up.share
                self.camera.layered = lost > (NO_LAYERS_BELOW if self.camera.layered else LAYERS_ABOVE)
            elif of == "audio" and kind == "inbound-rtp":
                self._link.lost_down.add_counts(entry.packetsReceived, entry.packetsLost)  # type: ignore[attr-defined]

    # --- the far end's sound

    def _take_sound(self, packet: RtpPacket) -> None:
        payload, older = packet.payload, ()
        if packet.payload_type in hooks.red_payload_types(self._audio_receiver):
            try:
                _, payload, older = red.parse(payload)
            except red.RedError:
                return  # garbage
        with self._sound_lock:
            self._sound.push(packet.ssrc, packet.sequence_number, packet.timestamp, payload, time.monotonic(), older)

    def pull_sound(self) -> Pulled | None:
        now = time.monotonic()
        with self._sound_lock:
            playing = self._sound.playing
            pulled = self._sound.pull(now)
            if playing is not None and pulled is not None and pulled.heard:
                self._lip_sync.voice_plays(*playing, now)
        return None if self._held else pulled

    def sound_heard(self) -> None:
        if not self._heard:
            self._heard = True
            self._loop.call_soon_threadsafe(self._owner.send, ipc.FirstHeard(self.call))

    # --- pictures

    async def _room_for_pictures(self) -> None:
        await self.egress.room_for_pictures()

    def _take_picture(self, packet: RtpPacket) -> None:
        if self._picture_ssrc not in (None, packet.ssrc):
            self._pictures.restart()
        self._picture_ssrc = packet.ssrc
        try:
            descriptor, data = VpxPayloadDescriptor.parse(packet.payload)
        except ValueError:
            return  # padding, or garbage
        starts = descriptor.partition_start == 1 and descriptor.partition_id == 0
        now = time.monotonic()
        for picture in self._pictures.add(
            packet.sequence_number, packet.timestamp, packet.marker == 1, starts, data, now
        ):
            self._pictures_received += 1
            if not self._held:
                with self._sound_lock:
                    hold_s = self._lip_sync.hold_s(packet.ssrc, picture.timestamp, now)
                self._held_pictures.add(picture, now + hold_s)
        self._show_pictures()
        self._ask_for_pictures()

    def _take_sender_report(self, report: Report) -> None:
        with self._sound_lock:
            self._lip_sync.report(report)

    def _show_pictures(self) -> None:
        """Those whose sound is played now."""
        if self._show_timer is not None:
            self._show_timer.cancel()
            self._show_timer = None
        if self._closed or self._held:
            self._held_pictures.drop()
        while (picture := self._held_pictures.take(self._loop.time())) is not None:
            if not self._owner.far_picture(self, picture):
                self._held_pictures.drop()
                self._pictures.require_key_frame()
            elif not self._seen:
                self._seen = True
                self._owner.send(ipc.FirstSeen(self.call))
        if (next_time := self._held_pictures.next_time()) is not None:
            self._show_timer = self._loop.call_at(next_time, self._show_pictures)

    def _ask_for_pictures(self) -> None:
        """For what they lack, and a key frame where that takes too long."""
        if self._closed or self._picture_ssrc is None:
            return
        now = time.monotonic()
        if due := self._nacks.due(self._pictures.missing(), now, self._rtt_s):
            self._start(hooks.ask_again(self._video_receiver, self._picture_ssrc, due))
        self._pictures.wait_over(now)
        if self._pictures.wants_key_frame:
            self._ask_for_key_frame()
        if self._ask_timer is not None:
            self._ask_timer.cancel()
        next_time = self._nacks.next_time()
        self._ask_timer = None if next_time is None else self._loop.call_at(next_time, self._ask_for_pictures)

    def _ask_for_key_frame(self) -> None:
        now = time.monotonic()
        pause_s = max(KEY_FRAME_REQUEST_S, KEY_FRAME_REQUEST_RTTS * (self._rtt_s or 0.0))
        if self._picture_ssrc is not None and now - self._key_frame_asked_at >= pause_s:
            self._key_frame_asked_at = now
            self._start(hooks.request_key_frame(self._video_receiver, self._picture_ssrc))

    # --- the line

    def _state_changed(self) -> None:
        state = self._connection.connectionState
        log.info("leg state call=%s leg=%d state=%s", self.call.hex(), self.number, state)
        if state == "connected" and not self.is_connected:
            self.is_connected = True
            self._start(self._watch())
            self._owner.connected(self)
        elif state == "failed":
            self._lost("the path to the far end is gone" if self.is_connected else "no path to the far end was found")
        elif state == "closed":
            self._lost("the far end closed it")

    def _lost(self, reason: str) -> None:
        if not self._closed:
            self._owner.over(self, reason)

    async def _watch(self) -> None:
        """Stalls by the count of packets that arrive (RTP and RTCP; STUN has its own watch), and the statistics."""
        received, last_change, stalled = -1, time.monotonic(), False
        next_stats, next_plan = 0.0, time.monotonic() + PLAN_S
        while True:
            await asyncio.sleep(WATCH_S)
            now = time.monotonic()
            report = await self._connection.getStats()
            self._take_rtt(report)
            count = sum(entry.packetsReceived for entry in report.values() if entry.type == "transport")
            if count != received:
                received, last_change = count, now
                if stalled:
                    stalled = False
                    log.info("leg flows again call=%s leg=%d", self.call.hex(), self.number)
                    self._owner.send(ipc.MediaFlowing(self.call, self.number))
                    self.want_key_frame()
            elif now - last_change >= STALLED_AFTER_S and not stalled:
                stalled = True
                log.warning("leg stalled call=%s leg=%d", self.call.hex(), self.number)
                self._owner.send(ipc.MediaStalled(self.call, self.number))
            elif now - last_change >= DEAD_AFTER_S:
                self._lost(f"nothing came for {DEAD_AFTER_S:.0f} s")
                return
            if self._pictures.wants_key_frame and not self._held and not stalled:
                self._ask_for_key_frame()
            if now >= next_plan:
                next_plan = now + PLAN_S
                self._take_reports(report)
                await self._plan_anew()
            if now >= next_stats:
                next_stats = now + STATS_S
                self._send_stats(report)

    def _send_stats(self, report: dict[str, object]) -> None:
        inbound = [entry for entry in report.values() if getattr(entry, "type", "") == "inbound-rtp"]
        sound = [entry for entry in inbound if entry.kind == "audio"]  # type: ignore[attr-defined]
        whole = [entry for entry in report.values() if getattr(entry, "type", "") == "transport"]
        with self._sound_lock:
            counts, buffer_ms, target_ms = self._sound.counts, self._sound.buffer_ms, self._sound.target_ms
        self._owner.send(
            ipc.CallStats(
                call=self.call,
                leg=self.number,
                rtt_ms=1000 * (self._rtt_s or 0.0),
                packets_received=sum(entry.packetsReceived for entry in inbound),  # type: ignore[attr-defined]
                packets_lost=max(0, sum(entry.packetsLost for entry in inbound)),  # type: ignore[attr-defined]
                pictures_received=self._pictures_received,
                pictures_sent=self.camera.pictures_sent,
                concealed_ms=counts.concealed_samples // MS,
                stretched_ms=counts.stretched_samples // MS,
                red_recovered=counts.red_recovered,
                fec_recovered=counts.fec_recovered,
                sound_late=counts.late,
                buffer_ms=buffer_ms,
                target_ms=target_ms,
                sent_bytes=sum(e.bytesSent + IP_UDP_BYTES * e.packetsSent for e in whole),  # type: ignore[attr-defined]
                received_bytes=sum(e.bytesReceived + IP_UDP_BYTES * e.packetsReceived for e in whole),  # type: ignore[attr-defined]
                sound_received=sum(entry.packetsReceived for entry in sound),  # type: ignore[attr-defined]
                sound_lost=max(0, sum(entry.packetsLost for entry in sound)),  # type: ignore[attr-defined]
                lost_up=self._lost_up,
            )
        )

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await work
            except ConnectionError:
                pass  # the leg is closing
            except Exception:
                log.exception("failed call=%s leg=%d", self.call.hex(), self.number)

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _prefer(transceiver: RTCRtpTransceiver, mime_types: tuple[str, ...]) -> None:
    known = RTCRtpSender.getCapabilities(transceiver.kind).codecs
    transceiver.setCodecPreferences([codec for name in mime_types for codec in known if codec.mimeType == name])


def _wishes(plan: CallPlan) -> tuple[sdp.VoiceWish, sdp.PictureWish | None]:
    coding, pictures = plan.down.coding, plan.pictures_down
    voice = sdp.VoiceWish(
        bps=coding.bps,
        frame_ms=coding.frame_ms,
        playback_hz=coding.bandwidth.value,
        fec=coding.bps >= FEC_FROM_BPS,  # a browser spends nothing on it until losses are reported to it
        dtx=coding.dtx,
        repeated=plan.down.red_depth > 0,
    )
    if pictures is None:
        return voice, None
    return voice, sdp.PictureWish(min(pictures.bps, START_PICTURES_BPS) // 1000, pictures.bps // 1000)


def _usable(servers: tuple[IceServer, ...]) -> list[RTCIceServer]:
    """Without those that aiortc could not parse; an empty list, not None, which would mean a public STUN server."""
    usable = []
    for server in servers:
        urls = []
        for url in server.urls:
            try:
                parse_stun_turn_uri(url)
            except ValueError:
                log.warning("ICE server left out, its address is not understood")
            else:
                urls.append(url)
        if urls:
            usable.append(RTCIceServer(urls=urls, username=server.username, credential=server.credential))
    return usable
