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
from aiortc.exceptions import InvalidStateError
from aiortc.mediastreams import VIDEO_CLOCK_RATE
from aiortc.rtcicetransport import candidate_to_aioice, parse_stun_turn_uri
from aiortc.rtp import RtpPacket
from aiortc.sdp import SessionDescription

from edge_agent import ipc
from edge_agent.core import opuspacket, progressive, red, sdp
from edge_agent.core.allocator import Motion
from edge_agent.core.farstill import StillAssembler, StillError
from edge_agent.core.lipsync import LipSync, Report
from edge_agent.core.nacks import Nacks
from edge_agent.core.pacer import longest_packet_bytes
from edge_agent.core.playout import MS, PlayoutBuffer, Pulled
from edge_agent.core.steering import (
    CHANNEL_ID,
    CHANNEL_LABEL,
    NO_PHOTO,
    PHOTO_WANTED,
    STILLS_ID,
    STILLS_LABEL,
    Steering,
    voice_wish,
)
from edge_agent.core.turns import ANSWER_BYTES, LEAST_LIVE_BPS, MOST_PROBE_BPS, QUESTION_BYTES, Probe
from edge_agent.core.voice import CONTROL_BPS, HEADER_BYTES, LinkMemory, PicturePlan
from edge_agent.core.wire import IceServer
from edge_agent.media import hooks, ice, opus
from edge_agent.media.egress import DATA_LOOK_S, IP_UDP_BYTES, egress_of
from edge_agent.media.linkshare import LinkShare
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
STILL_AGAIN_S = 1.0  # the last one is handed on again at most so often
# What is missing of one is asked for after the longest of these; the browser pauses for less than that share of it.
STILL_WAIT_S, STILL_WAIT_RTTS, STILL_WAIT_SHARE = 1.5, 2.0, 0.1
# Of the packets lost upwards: from here pictures are coded in layers, the lower sent twice, for fewer bits each.
LAYERS_ABOVE, LAYERS_ABOVE_IF_FAR, FAR_RTT_S = 0.06, 0.03, 0.4
WATCH_S = 0.25
STATS_S = 1.0
SHARE_S = 0.1
COUNT_S = 2.0  # of the far voice: of fewer packets one that is lost says too much
CEILING_S, CEILING_BY = 5.0, 0.05  # a REMB so often, and when it has changed by so much

_CODECS = {"audio": ("audio/red", "audio/opus"), "video": ("video/VP8", "video/rtx")}


class LegOwner(Protocol):
    def send(self, frame: ipc.FromMedia) -> None: ...

    def connected(self, leg: Leg) -> None: ...

    def over(self, leg: Leg, reason: str) -> None:
        """Once: the leg is lost, and not because it was closed here."""

    def photo_wanted(self, leg: Leg) -> None:
        """The doctor asks for a sharp one: `leg.send_photo` follows."""

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

        self._memory = link
        self._reported_at: object = None
        self._lost_up: float | None = None
        now = time.monotonic()
        self._link = LinkShare(link, now, held)
        self._allocation = self._link.allocation
        self._steering = Steering(self._allocation.down.voice, now, link.told_down_bps is not None)
        self._ceiling_bps, self._ceiling_at = 0, 0.0
        self._count_at = 0.0
        self.microphone = MicrophoneTrack(held, self._allocation.up.voice)
        self.camera = CameraTrack(held, self._allocation.up.pictures, self._room_for_pictures)
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
        without_pictures = self._link.known and self._allocation.up.pictures is None
        video = self._connection.addTransceiver(self.camera, direction="inactive" if without_pictures else "sendrecv")
        for transceiver in (audio, video):
            _prefer(transceiver, _CODECS[transceiver.kind])
        self._channel = self._connection.createDataChannel(CHANNEL_LABEL, negotiated=True, id=CHANNEL_ID)
        self._channel.on("message", self._asked)
        stills = self._connection.createDataChannel(
            STILLS_LABEL, negotiated=True, id=STILLS_ID, ordered=False, maxRetransmits=0
        )
        stills.on("message", self._take_still)
        self._photo = 0  # counts them
        self._photo_waits = False
        self._still = StillAssembler()
        self._last_still: bytes | None = None  # what is shown, where it is a still
        self._still_shown_at = 0.0
        self._stills_refused = 0
        self.egress = egress_of(audio.sender)
        self.egress.listener = self._link
        self.egress.set_rate(self._allocation.call_bps)
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
        self._ice.answered = lambda rtt_s, now: self._link.answered(rtt_s, QUESTION_BYTES + ANSWER_BYTES, now)
        return self._offer()

    def _offer(self) -> bytes:
        assert self._ice is not None  # noqa: S101
        described = ice.with_candidates(self._connection.localDescription.sdp, self._ice)
        down = self._allocation.down
        return sdp.compress(described, voice_wish(down.voice), self._steering.most_kbps(down, time.monotonic()))

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
        self._memory.forget_losses()  # of a link that was asked for more than it carries

    async def carries_live(self, in_full: bool) -> bool:
        """Whether the path has room for a call both ways: for the least that there is, or for this one's voice."""
        up, down = LEAST_LIVE_BPS, LEAST_LIVE_BPS
        if in_full:
            up, down = (
                max(LEAST_LIVE_BPS, min(share.voice.wire_bps + CONTROL_BPS, MOST_PROBE_BPS))
                for share in (self._allocation.up, self._allocation.down)
            )
        return self._ice is not None and await self._ice.carries(Probe(up, down, time.monotonic()))

    def want_key_frame(self) -> None:
        if self._last_still is not None:
            if time.monotonic() - self._still_shown_at >= STILL_AGAIN_S:
                self._show_still(self._last_still)
            return
        self._pictures.require_key_frame()
        self._ask_for_key_frame()

    def trace(self) -> bytes:
        """Of its link, `edge_agent.core.trace`."""
        return self._link.trace.pack()

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

    # --- who gets what of the link

    async def _share_link(self) -> None:
        while True:
            await asyncio.sleep(SHARE_S)
            now = time.monotonic()
            if self.microphone.rests:
                continue
            wanted = self._link.train_bytes(now, self._held)
            if wanted is not None and (sent := await self.egress.send_train(wanted)):
                self._link.train_sent(sent, now)
            self._obey(now)
            await self._steer(now)

    def _obey(self, now: float) -> None:
        before = self._allocation
        self._allocation = self._link.share(now, self._held, self._photo_waits)
        up = self._allocation.up
        if self._allocation.call_bps != before.call_bps:
            self.egress.set_rate(self._allocation.call_bps)
        self.camera.plan = up.pictures
        if up.voice != before.up.voice:
            self.microphone.plan = up.voice
        if up.voice.wire_bps != before.up.voice.wire_bps:
            self._say_plan()
        self.egress.sends_stills = up.motion is Motion.STILLS
        if self.egress.sends_stills:  # each of them counts, and there is time to mend it
            self.camera.layered = self.egress.sends_base_twice = False
        if self._allocation.down.motion is Motion.MOVING:
            self._last_still = None
        if up.motion is not before.up.motion or _size(up.pictures) != _size(before.up.pictures):
            self._say_pictures()

    async def _steer(self, now: float) -> None:
        """The far end's sending."""
        down = self._allocation.down
        if self._channel.readyState != "open":
            return
        ceiling_bps = self._steering.ceiling_bps(down)
        moved = abs(ceiling_bps - self._ceiling_bps) > CEILING_BY * self._ceiling_bps
        if down.motion is Motion.MOVING and self._link.known and (moved or now - self._ceiling_at > CEILING_S):
            self._ceiling_bps, self._ceiling_at = ceiling_bps, now
            await hooks.limit_far_end(self._video_receiver, ceiling_bps)
        if (order := self._steering.order(down, now, held=self._held)) is not None:
            log.info("far end told call=%s leg=%d order=%s", self.call.hex(), self.number, order)
            self._channel.send(order)
        self._ask_for_still(now)
        lost = self._memory.lost_up.share, self._memory.lost_down.share
        line = self._steering.line(self._allocation, lost, self._link.rtt_s, self._link.queue_s, now)
        if line is not None and not self._held:
            self._channel.send(line)

    # --- a sharp photo

    def _asked(self, message: str | bytes) -> None:
        """By the browser; anything else than what is known is ignored."""
        if message == PHOTO_WANTED and not self._held and not self._photo_waits:
            self._photo_waits = True
            self._owner.photo_wanted(self)

    @property
    def still_room_bps(self) -> float:
        """What a sharp still has of the link."""
        return max(0.0, self._allocation.call_bps - self._allocation.up.voice.wire_bps - CONTROL_BPS)

    def send_photo(self, stages: list[bytes]) -> None:
        """None: the camera gave none."""
        if not self._closed:
            self._start(self._send_photo(stages))

    async def _send_photo(self, stages: list[bytes]) -> None:
        self._photo += 1
        began = time.monotonic()
        try:
            if not stages:
                self._channel.send(NO_PHOTO)
            longest = longest_packet_bytes(self._allocation.call_bps) - self.egress.extra_bytes
            for message in progressive.messages(self._photo, stages, longest):
                await self.egress.room_for_data()
                while self._channel.bufferedAmount:  # noqa: ASYNC110 -- SCTP's own queue, of a message or two
                    await asyncio.sleep(DATA_LOOK_S)
                self._channel.send(message)
            log.info(
                "photo sent call=%s leg=%d bytes=%d seconds=%.1f",
                self.call.hex(), self.number, sum(map(len, stages)), time.monotonic() - began,
            )  # fmt: skip
        except InvalidStateError:
            pass  # the far end has closed it
        finally:
            self._photo_waits = False

    def _say_pictures(self) -> None:
        up = self._allocation.up
        width, height, rate = _size(up.pictures) or (0, 0, 0.0)
        log.info(
            "pictures call=%s leg=%d width=%d height=%d rate=%.2f reason=%s up_bps=%d rtt_ms=%d",
            self.call.hex(), self.number, width, height, rate, up.reason, up.rate_bps, 1000 * self._link.rtt_s,
        )  # fmt: skip

    def _say_plan(self) -> None:
        plan = self._allocation.up.voice
        log.info(
            "voice plan call=%s leg=%d bps=%d frame_ms=%d fec=%s red=%s depth=%d distance=%d wire_bps=%d loss=%.3f",
            self.call.hex(), self.number, plan.coding.bps, plan.coding.frame_ms, plan.coding.fec,
            self.microphone.opus_in_red is not None, plan.red_depth, plan.red_distance, plan.wire_bps,
            self._memory.lost_up.share,
        )  # fmt: skip

    def _take_rtt(self) -> None:
        if (rtt_s := self.egress.round_trips.shortest_s) is not None:
            self._rtt_s = self.camera.rtt_s = self.egress.rtt_s = rtt_s
            self._pictures.gap_wait_s = max(LEAST_GAP_WAIT_S, GAP_WAIT_RTTS * self._rtt_s)

    def _take_reports(self, report: dict[str, object], now: float) -> None:
        """What both ends lost of the voice."""
        if self.microphone.rests:
            return
        for entry in report.values():
            kind, of = getattr(entry, "type", ""), getattr(entry, "kind", "")
            if of == "audio" and kind == "remote-inbound-rtp" and entry.timestamp != self._reported_at:  # type: ignore[attr-defined]
                self._reported_at = entry.timestamp  # type: ignore[attr-defined]
                self._lost_up = entry.fractionLost / 256  # type: ignore[attr-defined]
                self._link.reported(self._lost_up, self.egress.voice_rtt_s, now)
                many = LAYERS_ABOVE_IF_FAR if (self._rtt_s or 0.0) >= FAR_RTT_S else LAYERS_ABOVE
                layered = self._memory.lost_up.share > (many / 2 if self.camera.layered else many)
                if self._allocation.up.motion is Motion.MOVING:
                    self.camera.layered = self.egress.sends_base_twice = layered
            elif of == "audio" and kind == "inbound-rtp" and now >= self._count_at:
                self._count_at = now + COUNT_S
                self._link.voice_counted(entry.packetsReceived, entry.packetsLost, now)  # type: ignore[attr-defined]

    # --- the far end's sound

    def _take_sound(self, packet: RtpPacket) -> None:
        payload, older = packet.payload, ()
        if not payload:
            return  # padding, where a browser has no other stream for it
        if packet.payload_type in hooks.red_payload_types(self._audio_receiver):
            try:
                _, payload, older = red.parse(payload)
            except red.RedError:
                return  # garbage
        now = time.monotonic()
        if not opuspacket.is_pause(payload):  # what a browser sends of a pause leaves when it likes
            ends_at = packet.timestamp + opuspacket.duration_samples(payload)
            wire_bytes = HEADER_BYTES + len(packet.payload) + self.egress.extra_bytes
            self._link.voice_arrived(ends_at, SAMPLE_RATE_HZ, wire_bytes, now)
        with self._sound_lock:
            self._sound.push(packet.ssrc, packet.sequence_number, packet.timestamp, payload, now, older)

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
        if self._ice is not None:
            await self._ice.until_fit_for_pictures()
        if self._allocation.up.motion is Motion.STILLS:
            await self.egress.room_for_still()
        else:
            await self.egress.room_for_pictures()

    def _take_picture(self, packet: RtpPacket) -> None:
        now = time.monotonic()
        self._link.picture_arrived(HEADER_BYTES + len(packet.payload) + self.egress.extra_bytes, now)
        if self._picture_ssrc not in (None, packet.ssrc):
            self._pictures.restart()
        self._picture_ssrc = packet.ssrc
        starts, data = False, b""
        if packet.payload:
            try:
                descriptor, data = VpxPayloadDescriptor.parse(packet.payload)
            except ValueError:
                return  # garbage
            starts = descriptor.partition_start == 1 and descriptor.partition_id == 0
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

    def _take_still(self, message: str | bytes) -> None:
        """A piece of one, while stills are what the browser was told to send."""
        if self._held or self._allocation.down.motion is not Motion.STILLS or isinstance(message, str):
            return
        try:
            frame = self._still.add(message, time.monotonic())
        except StillError as error:
            self._stills_refused += 1
            if self._stills_refused == 1:
                log.warning("still refused call=%s leg=%d reason=%s", self.call.hex(), self.number, error)
            return
        if frame is not None:
            self._pictures_received += 1
            log.info("still came call=%s leg=%d bytes=%d", self.call.hex(), self.number, len(frame))
            if self._channel.readyState == "open":
                self._channel.send(self._steering.still_got(self._still.still, ()))
            self._show_still(frame)

    def _ask_for_still(self, now: float) -> None:
        """For what was lost of it."""
        pictures = self._allocation.down.pictures
        if pictures is None or self._held or self._allocation.down.motion is not Motion.STILLS:
            return
        wait_s = max(STILL_WAIT_S, STILL_WAIT_RTTS * (self._rtt_s or 0.0), STILL_WAIT_SHARE / pictures.rate)
        if missing := self._still.missing(now, wait_s):
            self._channel.send(self._steering.still_got(self._still.still, missing))

    def _show_still(self, frame: bytes) -> None:
        self._last_still, self._still_shown_at = frame, time.monotonic()
        self._held_pictures.drop()
        if self._owner.far_picture(self, self._pictures.still(frame)):
            self._is_seen()

    def _is_seen(self) -> None:
        if not self._seen:
            self._seen = True
            self._owner.send(ipc.FirstSeen(self.call))

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
            else:
                self._last_still = None
                self._is_seen()
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
        if self._last_still is not None:
            return  # moving pictures are not to be had
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
            if self._ice is not None:
                self.egress.extra_bytes = self._ice.extra_bytes
                self._link.set_extra_bytes(self._ice.extra_bytes)
            self._start(self._watch())
            self._start(self._share_link())
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
        next_stats = 0.0
        while True:
            await asyncio.sleep(WATCH_S)
            now = time.monotonic()
            report = await self._connection.getStats()
            self._take_rtt()
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
            self._take_reports(report, now)
            if now >= next_stats:
                next_stats = now + STATS_S
                self._send_stats(report)

    def _send_stats(self, report: dict[str, object]) -> None:
        inbound = [entry for entry in report.values() if getattr(entry, "type", "") == "inbound-rtp"]
        sound = [entry for entry in inbound if entry.kind == "audio"]  # type: ignore[attr-defined]
        whole = [entry for entry in report.values() if getattr(entry, "type", "") == "transport"]
        up, down = self._allocation.up, self._allocation.down
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
                link_known=self._link.known,
                up_bps=round(up.rate_bps),
                down_bps=round(down.rate_bps),
                queue_ms=1000 * self._link.queue_s,
                pictures_up=up.motion.value,
                pictures_down=down.motion.value,
                reason_up=up.reason,
                reason_down=down.reason,
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


def _size(pictures: PicturePlan | None) -> tuple[int, int, float] | None:
    return None if pictures is None else (pictures.width, pictures.height, pictures.rate)


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
