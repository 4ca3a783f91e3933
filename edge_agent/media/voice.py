"""The kiosk's voice from samples to RTP payloads: coded, repeated, with its pauses left out.

What decides how is `edge_agent.core.voice`; a new plan holds from the next frame on, without a seam.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.core import red
from edge_agent.core.voice import VoicePlan
from edge_agent.media.opus import open_encoder

Samples = NDArray[np.int16]


class VoicePacket(NamedTuple):
    position: int  # of its own frame's first sample, at 48 kHz since the start
    payload: bytes
    in_red: bool


class VoiceCoder:
    """One thread at a time."""

    def __init__(self) -> None:
        self._encoder = open_encoder()
        self._repeater = red.Repeater()
        self._waiting: Samples = np.zeros(0, np.int16)
        self._position = 0

    def code(self, block: Samples, plan: VoicePlan, opus_in_red: int | None) -> list[VoicePacket]:
        """`block` of any length, mono at 48 kHz. `opus_in_red`: Opus' payload type where the far end takes RED, else
        None: then nothing is repeated."""
        self._waiting = np.concatenate([self._waiting, block])
        packets = []
        while len(self._waiting) >= (size := plan.coding.frame_samples):
            frame = self._encoder.encode(self._waiting[:size], plan.coding)
            position, self._position = self._position, self._position + size
            self._waiting = self._waiting[size:]
            depth = 0 if opus_in_red is None else plan.red_depth
            older = self._repeater.older(position, frame, depth, plan.red_distance)
            if older is not None:
                payload = frame if opus_in_red is None else red.build(opus_in_red, frame, older)
                packets.append(VoicePacket(position, payload, opus_in_red is not None))
        return packets
