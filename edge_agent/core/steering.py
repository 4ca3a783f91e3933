"""What the doctor's browser is told of how to send, over a data channel of the call: `hub/static/js/leg.js` obeys.

Pure: a way's share in, JSON out. A browser's voice is coded as its session description asks; its moving pictures are
as large, as many and as costly as `RTCRtpSender.setParameters` says; stills it sends over one of its own, at the pace
that it is told (`edge_agent/core/farstill.py`). Until it is told otherwise it sends no pictures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from edge_agent.core import farstill
from edge_agent.core.allocator import Allocation, Motion, Share
from edge_agent.core.sdp import VoiceWish
from edge_agent.core.voice import CONTROL_BPS, FEC_FROM_BPS, MARGIN, VoicePlan

CHANNEL_ID = 0  # negotiated beforehand: nothing is said on the link to open it
CHANNEL_LABEL = "link"
STILLS_ID, STILLS_LABEL = 1, "stills"  # from the browser, unordered and never sent again by SCTP
PHOTO_WANTED, NO_PHOTO = '{"photo":1}', '{"photo":0}'  # the browser asks for one; the kiosk's camera gave none
LINE_SHARE, LINE_BITS, LINE_S = 0.01, 1_600, 2.0  # of the link; one message with its headers; no more often
FREE_FROM_BPS, KNOWN_FOR_S = 400_000, 1.0  # at a call's start what is known of a link grows from train to train
MOST_MOVED = 0.25
LATER_S = 2.0  # a browser codes its voice anew at most so often, when it is for the better
PACE_MOVED_BY = 0.15  # less is no news


def voice_wish(plan: VoicePlan) -> VoiceWish:
    coding = plan.coding
    return VoiceWish(
        bps=coding.bps,
        frame_ms=coding.frame_ms,
        playback_hz=coding.bandwidth.value,
        fec=coding.bps >= FEC_FROM_BPS,  # a browser spends nothing on it until losses are reported to it
        dtx=coding.dtx,
        repeated=plan.red_depth > 0,
    )


class Steering:
    """Of one leg. `voice` is what its offer asks for; `is_told`: what the link carries is configured."""

    def __init__(self, voice: VoicePlan, now: float, is_told: bool = False) -> None:
        self.voice = voice
        self._voice_at = now - LATER_S
        self._most_kbps: int | None = None
        self._is_told = is_told
        self._is_thin: bool | None = None  # not known yet
        self._known_at = now
        self._last = ""
        self._pace_bps = 0.0
        self._line_at = now

    def order(self, share: Share, now: float, *, held: bool = False) -> str | None:
        """The JSON to send now; None: nothing that is new."""
        if share.voice != self.voice:
            saves = share.voice.wire_bps < self.voice.wire_bps
            if saves or held or now - self._voice_at >= LATER_S:
                self.voice, self._voice_at = share.voice, now
        most_kbps = self.most_kbps(share, now)
        told: dict[str, object] = {
            "video": None if self._is_thin is None else self._video(share), "voice": self._voice(),
        }  # fmt: skip
        if most_kbps is not None:
            told["most"] = most_kbps
        if not held and (still := self._still(share)) is not None:
            told["still"] = still
        order = json.dumps(told, separators=(",", ":"))
        if order == self._last:
            return None
        self._last = order
        return order

    def line(
        self, allocation: Allocation, loss: tuple[float, float], rtt_s: float, queue_s: float, now: float
    ) -> str | None:
        """How the line is, for the doctor's eyes, when it is time to say so. `loss`: shares, up and down; `queue_s`:
        what stands of the kiosk's own."""
        up, down = allocation.up, allocation.down
        if now - self._line_at < max(LINE_S, LINE_BITS / (LINE_SHARE * up.rate_bps)):
            return None
        self._line_at = now
        told = [
            round(up.rate_bps / 1000), round(down.rate_bps / 1000), round(100 * loss[0]), round(100 * loss[1]),
            round(1000 * rtt_s), round(1000 * queue_s), up.motion.value, down.motion.value, up.reason, down.reason,
        ]  # fmt: skip
        return json.dumps({"line": told}, separators=(",", ":"))

    def still_got(self, still: int, missing: Sequence[int]) -> str:
        """What is missing of it; nothing: it is whole."""
        return json.dumps({"got": [still, *missing]}, separators=(",", ":"))

    def most_kbps(self, share: Share, now: float) -> int | None:
        """Of all together, for the browser's own estimator; None: it is left alone, as on a link that is free. It tries
        900 and then 1,800 kbit/s, with 5 kB of padding before the voice, whenever it is told of new streams; what it
        has been told once it does not forget."""
        if self._is_thin is None:
            if share.reason == "guessed":
                self._known_at = now
            elif share.rate_bps >= FREE_FROM_BPS:
                self._is_thin = False
            elif self._is_told or now - self._known_at >= KNOWN_FOR_S:
                self._is_thin = True
        if not self._is_thin:
            return None
        kbps, was = round(share.rate_bps / 1000), self._most_kbps
        if was is None or abs(kbps - was) > MOST_MOVED * was:
            self._most_kbps = was = kbps
        return was

    def ceiling_bps(self, share: Share) -> int:
        """Of all that the browser may send (REMB): what it is told to, and what it may miss that by."""
        return int(min(share.rate_bps, 1.25 * (self.voice.wire_bps + CONTROL_BPS) + share.pictures_wire_bps * 1.25))

    def _video(self, share: Share) -> dict[str, float] | None:
        pictures = share.pictures
        if pictures is None or share.motion is not Motion.MOVING:
            return None
        return {"bps": pictures.bps, "height": pictures.height, "rate": pictures.rate}

    def _still(self, share: Share) -> dict[str, int] | None:
        """`bps` is for the voice and the stills together: in its pauses they go faster."""
        pictures = share.pictures
        if pictures is None or share.motion is not Motion.STILLS:
            return None
        pace_bps = share.rate_bps * (1 - MARGIN) - CONTROL_BPS
        if abs(pace_bps - self._pace_bps) > PACE_MOVED_BY * self._pace_bps:
            self._pace_bps = pace_bps
        return {
            "every": round(1 / pictures.rate), "bytes": farstill.MOST_BYTES, "height": pictures.height,
            "bps": round(self._pace_bps),
        }  # fmt: skip

    def _voice(self) -> dict[str, int | bool]:
        wish = voice_wish(self.voice)
        return {
            "bps": wish.bps, "ms": wish.frame_ms, "hz": wish.playback_hz, "fec": wish.fec, "dtx": wish.dtx,
            "red": wish.repeated,
        }  # fmt: skip
