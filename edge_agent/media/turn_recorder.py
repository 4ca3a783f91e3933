"""A turn of a call that is spoken in turns: the microphone, coded and handed on in parts while it is spoken."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge_agent.core.turn_parts import CODING, LONGEST_S, PART_FRAMES
from edge_agent.media.opus import open_encoder

log = logging.getLogger(__name__)

SILENT_DEVICE_S = 3.0  # no block for so long: what there is goes out

Samples = NDArray[np.int16]
Part = Callable[[tuple[bytes, ...], bool], None]  # packets, whether they are the last


class TurnRecorder:
    """`hear` is the microphone's user. `part` is called from the recorder's thread, with `last` exactly once."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._blocks: queue.SimpleQueue[Samples | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="turn", daemon=True).start()

    def hear(self, block: Samples) -> None:
        self._blocks.put(block)

    def stop(self) -> None:
        self._blocks.put(None)

    def _run(self) -> None:
        packets: list[bytes] = []
        try:
            packets = self._record()
        except Exception:  # a coder's own kinds; what was coded before has gone out
            log.exception("turn not coded")
        self._part(tuple(packets), True)

    def _record(self) -> list[bytes]:
        """What is left for the last part."""
        encoder = open_encoder()
        size = CODING.frame_samples
        frames_left = int(LONGEST_S * 1000 / CODING.frame_ms)
        waiting: Samples = np.zeros(0, np.int16)
        packets: list[bytes] = []
        while frames_left > 0:
            try:
                block = self._blocks.get(timeout=SILENT_DEVICE_S)
            except queue.Empty:
                break
            if block is None:
                break
            waiting = np.concatenate([waiting, block])
            while len(waiting) >= size and frames_left > 0:
                packets.append(encoder.encode(waiting[:size], CODING))
                waiting = waiting[size:]
                frames_left -= 1
                if len(packets) > PART_FRAMES:  # one is kept for the last part
                    self._part(tuple(packets[:PART_FRAMES]), False)
                    del packets[:PART_FRAMES]
        if len(waiting) and frames_left > 0:
            packets.append(encoder.encode(np.pad(waiting, (0, size - len(waiting))), CODING))
        return packets
