"""A voice note: the microphone to an Opus file (Ogg), page by page on disk as it is spoken."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ

log = logging.getLogger(__name__)

NOTE_BPS = 16_000
LEVEL_EVERY_BLOCKS = 5  # 10 a second
FULL_SCALE_DB = 50.0  # a level of 0.0 is this far below the loudest sound
SILENT_DEVICE_S = 3.0  # no block for so long: what there is gets closed

Level = Callable[[float, int], None]  # 0.0 to 1.0, milliseconds so far
Ended = Callable[[int, str], None]  # milliseconds, error


class Recorder:
    """`hear` is the microphone's user. Ends by itself at `max_seconds`, or when the microphone stays silent."""

    def __init__(self, path: str, max_seconds: float, level: Level, ended: Ended, why_silent: Callable[[], str]):
        """`level` and `ended` are called from the recorder's thread, `ended` once, with the file closed.
        `why_silent` tells what is wrong with a microphone that gives nothing."""
        self._path = path
        self._most_samples = int(max_seconds * SAMPLE_RATE_HZ)
        self._level, self._ended, self._why_silent = level, ended, why_silent
        self._blocks: queue.SimpleQueue[NDArray[np.int16] | None] = queue.SimpleQueue()
        self._samples = 0
        threading.Thread(target=self._run, name="recorder", daemon=True).start()

    def hear(self, block: NDArray[np.int16]) -> None:
        self._blocks.put(block)

    def stop(self) -> None:
        self._blocks.put(None)

    def _run(self) -> None:
        error = ""
        try:
            self._record()
        except Exception as problem:  # a full disk, a folder that is gone: PyAV wraps them in kinds of its own
            error = f"the recording could not be written: {problem}"
        if not error and self._samples == 0:
            error = self._why_silent() or "nothing was recorded"
        if self._samples == 0:
            Path(self._path).unlink(missing_ok=True)
        if error:
            log.warning("recording failed: %s", error)
        self._ended(self._samples * 1000 // SAMPLE_RATE_HZ, error)

    def _record(self) -> None:
        import av

        from edge_agent.media.opus import sound_frame

        options = {"page_duration": "500000", "flush_packets": "1"}  # µs: what a power cut may take of it
        with av.open(self._path, "w", format="ogg", options=options) as container:
            stream: Any = container.add_stream("libopus", rate=SAMPLE_RATE_HZ, layout="mono")
            stream.bit_rate = NOTE_BPS
            stream.options = {"application": "voip", "frame_duration": "20"}
            last_block = time.monotonic()
            peak = 0.0
            while self._samples < self._most_samples:
                try:
                    block = self._blocks.get(timeout=0.5)
                except queue.Empty:
                    if time.monotonic() - last_block > SILENT_DEVICE_S:
                        break
                    continue
                if block is None:
                    break
                last_block = time.monotonic()
                container.mux(stream.encode(sound_frame(block, self._samples)))
                self._samples += len(block)
                peak = max(peak, loudness(block))
                if self._samples // BLOCK_SAMPLES % LEVEL_EVERY_BLOCKS == 0:
                    self._level(peak, self._samples * 1000 // SAMPLE_RATE_HZ)
                    peak = 0.0
            container.mux(stream.encode(None))


def loudness(block: NDArray[np.int16]) -> float:
    """0.0 for silence to 1.0 for full scale, even to the ear (in decibels)."""
    rms = float(np.sqrt(np.mean(np.square(block, dtype=np.float64))))
    return 0.0 if rms < 1.0 else min(1.0, max(0.0, 1.0 + 20.0 * float(np.log10(rms / 32768.0)) / FULL_SCALE_DB))
