"""The one thread that feeds the speaker: the call's sound, and prompts over it.

Paced by the speaker itself; where there is none, by the clock, so that a prompt still ends when it should. Opened
when something is to be heard, closed a few seconds after.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.core.playout import Pulled
from edge_agent.media.capture import RETRY_S, DeviceState, describe
from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ, Speaker

log = logging.getLogger(__name__)

BLOCK_S = BLOCK_SAMPLES / SAMPLE_RATE_HZ
LINGER_S = 5.0
CALL_LEVEL_UNDER_PROMPT = 0.5

Samples = NDArray[np.int16]
SILENCE: Samples = np.zeros(BLOCK_SAMPLES, np.int16)


class CallSound(Protocol):
    def pull_sound(self) -> Pulled | None:
        """20 ms of the far end, from the speaker's thread; None for silence."""

    def sound_heard(self) -> None:
        """Some of the far end's sound has gone to a real speaker."""


class Prompt:
    """A file decoded in a thread of its own, a little ahead of the speaker."""

    def __init__(self, path: str, loop: bool, ended: Callable[[bool, str], None]) -> None:
        """`ended(whole, error)` is called once, from any thread."""
        self._path, self._loop, self._ended = path, loop, ended
        self._blocks: queue.Queue[Samples | None] = queue.Queue(maxsize=25)
        self._stopped = threading.Event()
        self._over = threading.Lock()
        self._error = ""
        threading.Thread(target=self._decode, name="prompt", daemon=True).start()

    def next_block(self) -> Samples | None:
        """Silence while the file is being opened; None at the end."""
        try:
            return self._blocks.get_nowait()
        except queue.Empty:
            return SILENCE

    def end(self, whole: bool) -> None:
        self._stopped.set()
        if self._over.acquire(blocking=False):
            self._ended(whole and not self._error, self._error)

    def _decode(self) -> None:
        try:
            while not self._stopped.is_set():
                if not self._decode_once():
                    raise ValueError("there is no sound in it")
                if not self._loop:
                    break
        except Exception as error:  # PyAV raises many kinds for what is no sound file
            self._error = f"{self._path.rpartition('/')[2]} cannot be played: {error}"
            log.warning("prompt not played: %s", self._error)
        self._put(None)

    def _decode_once(self) -> bool:
        import av

        rest: Samples = np.zeros(0, np.int16)
        any_sound = False
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
        with av.open(self._path) as container:
            if not container.streams.audio:
                raise ValueError("there is no sound in it")
            for frame in itertools.chain(container.decode(audio=0), [None]):  # None: what the resampler still holds
                for piece in resampler.resample(frame):
                    rest = np.concatenate([rest, piece.to_ndarray().reshape(-1)])
                while len(rest) >= BLOCK_SAMPLES:
                    block, rest = rest[:BLOCK_SAMPLES], rest[BLOCK_SAMPLES:]
                    any_sound = True
                    if not self._put(block):
                        return True
        if len(rest):
            any_sound = True
            self._put(np.pad(rest, (0, BLOCK_SAMPLES - len(rest))))
        return any_sound

    def _put(self, block: Samples | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._blocks.put(block, timeout=0.5)
            except queue.Full:
                continue
            return True
        return False


class SpeakerMixer:
    def __init__(
        self,
        open_speaker: Callable[[], Speaker],
        changed: Callable[[], None],
        present: bool = True,
        stays_open: bool = False,
    ) -> None:
        """`present=False`: the configuration says that there is none, so it is not looked for again."""
        self.state = DeviceState("speaker", changed)
        self._open = open_speaker
        self._present, self._stays_open = present, stays_open
        self._call: CallSound | None = None
        self._prompt: Prompt | None = None
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="speaker", daemon=True)
        self._thread.start()

    def set_call(self, call: CallSound | None) -> None:
        with self._wake:
            self._call = call
            self._wake.notify_all()

    def play(self, prompt: Prompt) -> None:
        with self._wake:
            replaced, self._prompt = self._prompt, prompt
            self._wake.notify_all()
        if replaced is not None:
            replaced.end(whole=False)

    def stop_playing(self) -> None:
        with self._wake:
            prompt, self._prompt = self._prompt, None
        if prompt is not None:
            prompt.end(whole=False)

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self.stop_playing()
        self._thread.join(timeout=2.0)

    # --- the thread

    def _run(self) -> None:
        speaker = self._opened()
        last_use = open_again = time.monotonic()
        clock = time.monotonic()
        while not self._closed:
            if self._call is None and self._prompt is None:
                if speaker is not None and not self._stays_open and time.monotonic() - last_use > LINGER_S:
                    _close(speaker)
                    speaker = None
                with self._wake:
                    retry = RETRY_S if self._present and self.state.error is not None else None
                    timeout = 0.5 if speaker is not None else retry
                    woken = self._wake.wait_for(lambda: self._call or self._prompt or self._closed, timeout)
                if not woken and speaker is None and timeout is not None:
                    speaker = self._opened()
                    last_use = time.monotonic()
                continue
            now = time.monotonic()
            last_use = now
            if speaker is None and (self.state.error is None or (self._present and now >= open_again)):
                speaker = self._opened()
                open_again = time.monotonic() + RETRY_S
            block, heard = self._mix()
            if speaker is None:
                clock = max(clock, now - 0.1) + BLOCK_S
                time.sleep(max(0.0, clock - now))
                continue
            try:
                speaker.write(block)
            except Exception as error:  # a driver may raise anything; the call goes on
                self.state.set(describe(error))
                _close(speaker)
                speaker = None
                continue
            if heard is not None:
                heard.sound_heard()
        if speaker is not None:
            _close(speaker)

    def _opened(self) -> Speaker | None:
        try:
            speaker = self._open()
        except Exception as error:
            self.state.set(describe(error))
            return None
        self.state.set(None)
        return speaker

    def _mix(self) -> tuple[Samples, CallSound | None]:
        call, prompt = self._call, self._prompt
        pulled = call.pull_sound() if call is not None else None
        block = pulled.samples if pulled is not None else SILENCE
        heard = call if pulled is not None and pulled.heard else None
        if prompt is None:
            return block, heard
        over = prompt.next_block()
        if over is None:
            with self._wake:
                if self._prompt is prompt:
                    self._prompt = None
            prompt.end(whole=True)
            return block, heard
        mixed = block.astype(np.int32) * CALL_LEVEL_UNDER_PROMPT + over
        return np.clip(mixed, -32768, 32767).astype(np.int16), heard


def _close(speaker: Speaker) -> None:
    try:
        speaker.close()
    except Exception as error:
        log.warning("speaker could not be closed: %s", error)
