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
from aiortc.rtcicetransport import candidate_to_aioice, parse_stun_turn_uri
from aiortc.rtp import RtpPacket
from aiortc.sdp import SessionDescription

from edge_agent import ipc
from edge_agent.core import sdp
from edge_agent.core.wire import IceServer
from edge_agent.media import hooks, ice
from edge_agent.media.pictures import EncodedPicture, PictureAssembler
from edge_agent.media.playout import PlayoutBuffer, Pulled
from edge_agent.media.tracks import CameraTrack, MicrophoneTrack, SoundDecoder

log = logging.getLogger(__name__)

STALLED_AFTER_S = 3.0
DEAD_AFTER_S = 30.0  # silent for so long: browsers have given the path up too
KEY_FRAME_REQUEST_S = 0.5  # at most one PLI in this time
WATCH_S = 0.25
STATS_S = 1.0

_CODECS = {"audio": ("audio/opus",), "video": ("video/VP8", "video/rtx")}


class LegOwner(Protocol):
    def send(self, frame: ipc.FromMedia) -> None: ...

    def connected(self, leg: Leg) -> None: ...

    def over(self, leg: Leg, reason: str) -> None:
        """Once: the leg is lost, and not because it was closed here."""

    def far_picture(self, leg: Leg, picture: EncodedPicture) -> bool:
        """False when it was dropped on its way: the leg goes on from the next key frame."""


class Leg:
    def __init__(self, call: bytes, number: int, ice_servers: tuple[IceServer, ...], held: bool, owner: LegOwner):
        self.call, self.number = call, number
        self.is_connected = False
        self._owner = owner
        self._held = held
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard = self._seen = False
        self._ice: ice.Connection | None = None

        self.microphone = MicrophoneTrack(held)
        self.camera = CameraTrack(held)
        self._sound = PlayoutBuffer(SoundDecoder().decode)
        self._sound_lock = threading.Lock()  # pushed by the loop, pulled by the speaker's thread
        self._pictures = PictureAssembler()
        self._pictures_received = 0
        self._picture_ssrc: int | None = None
        self._key_frame_asked_at = 0.0

        self._connection = RTCPeerConnection(
            RTCConfiguration(iceServers=_usable(ice_servers), bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        )
        audio = self._connection.addTransceiver(self.microphone)
        video = self._connection.addTransceiver(self.camera)
        for transceiver in (audio, video):
            _prefer(transceiver, _CODECS[transceiver.kind])
        hooks.tap(audio.receiver, self._take_sound)
        hooks.tap(video.receiver, self._take_picture)
        self._video_receiver = video.receiver
        self._connection.on("connectionstatechange", self._state_changed)

    async def offer(self) -> bytes:
        """With the candidates that are known soon, compressed. With more of them it is sent again."""
        await self._connection.setLocalDescription()
        self._ice = ice.connection_of(self._connection)
        self._ice.found = self._offer_again
        return self._offer()

    def _offer(self) -> bytes:
        assert self._ice is not None  # noqa: S101
        return sdp.compress(ice.with_candidates(self._connection.localDescription.sdp, self._ice))

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

    def _take_candidates(self, answer: str) -> None:
        (first, *_) = SessionDescription.parse(answer).media
        remote = self._connection.remoteDescription
        if self._ice is not None and remote is not None and f"a=ice-ufrag:{first.ice.usernameFragment}" in remote.sdp:
            self._ice.add_late_candidates([candidate_to_aioice(each) for each in first.ice_candidates])

    def unhold(self) -> None:
        if not self._held:
            return
        self._held = self.microphone.held = self.camera.held = False
        self.want_key_frame()

    def want_key_frame(self) -> None:
        self._pictures.require_key_frame()
        self._ask_for_key_frame()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        sound = self._sound
        log.info(
            "leg closed call=%s leg=%d sound_lost=%d sound_late=%d sound_starvations=%d pictures_received=%d",
            self.call.hex(), self.number, sound.lost, sound.late, sound.starvations, self._pictures_received,
        )  # fmt: skip
        for task in self._tasks:
            task.cancel()
        self.microphone.stop()
        self.camera.stop()
        await self._connection.close()

    # --- the far end's sound

    def _take_sound(self, packet: RtpPacket) -> None:
        with self._sound_lock:
            self._sound.push(packet.timestamp, packet.payload)

    def pull_sound(self) -> Pulled | None:
        with self._sound_lock:
            pulled = self._sound.pull()
        return None if self._held else pulled

    def sound_heard(self) -> None:
        if not self._heard:
            self._heard = True
            self._loop.call_soon_threadsafe(self._owner.send, ipc.FirstHeard(self.call))

    # --- the far end's picture

    def _take_picture(self, packet: RtpPacket) -> None:
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
            if self._held:
                continue
            if not self._owner.far_picture(self, picture):
                self._pictures.require_key_frame()
            elif not self._seen:
                self._seen = True
                self._owner.send(ipc.FirstSeen(self.call))
        if self._pictures.wants_key_frame:
            self._ask_for_key_frame()

    def _ask_for_key_frame(self) -> None:
        now = time.monotonic()
        if self._picture_ssrc is not None and now - self._key_frame_asked_at >= KEY_FRAME_REQUEST_S:
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
        next_stats = 0.0
        while True:
            await asyncio.sleep(WATCH_S)
            now = time.monotonic()
            report = await self._connection.getStats()
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
            if now >= next_stats:
                next_stats = now + STATS_S
                self._send_stats(report)

    def _send_stats(self, report: dict[str, object]) -> None:
        inbound = [entry for entry in report.values() if getattr(entry, "type", "") == "inbound-rtp"]
        rtts = [getattr(entry, "roundTripTime", None) for entry in report.values()]
        self._owner.send(
            ipc.CallStats(
                call=self.call,
                leg=self.number,
                rtt_ms=1000 * min((rtt for rtt in rtts if rtt is not None), default=0.0),
                packets_received=sum(entry.packetsReceived for entry in inbound),  # type: ignore[attr-defined]
                packets_lost=max(0, sum(entry.packetsLost for entry in inbound)),  # type: ignore[attr-defined]
                pictures_received=self._pictures_received,
                pictures_sent=self.camera.pictures_sent,
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
