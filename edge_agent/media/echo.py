"""Echo, noise and level where sound is captured: the speaker tells what it plays, the microphone's sound goes through.

Sound cards alone: a file that plays the microphone hears no loudspeaker. What is played is taken where the device takes
it, prompts, ring tones and silence included, so that it keeps the device's time.
"""

from __future__ import annotations

import importlib
import logging
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.core.echo import EchoCanceller
from edge_agent.core.played import PlayedSound
from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ, Microphone, Speaker
from hardware.sound import DeviceMicrophone, DeviceSpeaker

log = logging.getLogger(__name__)

WAIT_S = 0.01  # for the speaker's callback, when it comes after the microphone's: a block not known is a block heard
NOISE_LEVEL = 0  # of 0 to 3: by 6 dB; more costs a clean voice more than it is worth
MOST_GAIN_DB = 15.0  # for a patient who speaks softly, a step away
HEADROOM_DB = 14.0  # a voice of the usual level stays as it is
BEGIN_BLOCKS = 150  # until the package's gain, which begins at its most, has come down to none
BEGIN_LEVEL = 1600.0  # root mean square of 16 bits; the usual voice, -26 dB

Block = NDArray[np.int16]


class EchoPath:
    """The kiosk's loudspeaker and microphone, in one room."""

    def __init__(self, setting: str) -> None:
        """`setting` is `sound.echo` of the configuration."""
        self._wanted = setting == "software"
        self._played = PlayedSound()
        self._news = threading.Condition()  # the two devices call from a thread each
        self._pace = 1.0
        self._has_voice = True

    def speaker(self, opened: Speaker) -> Speaker:
        if self._wanted and isinstance(opened, DeviceSpeaker):
            opened.tap = self._heard
        return opened

    def microphone(self, opened: Microphone) -> Microphone:
        if self._wanted and isinstance(opened, DeviceMicrophone):
            return CleanMicrophone(opened, self)
        return opened

    def reference(self, canceller: EchoCanceller) -> tuple[NDArray[np.float32], EchoCanceller]:
        """What was played in these 20 ms; and a new canceller in place of one that knows another timing."""
        wanted = BLOCK_SAMPLES, canceller.timing.pace, canceller.timing.shift
        with self._news:
            self._news.wait_for(lambda: not self._played.is_late(*wanted), WAIT_S)
            starts = self._played.starts
            reference = self._played.read(*wanted)
            self._pace = canceller.timing.pace
            return reference, canceller if self._played.starts == starts else self.canceller()

    def canceller(self) -> EchoCanceller:
        return EchoCanceller(self._pace)

    def voice(self) -> Voice | None:
        """None, and a line in the log the first time, where the package is missing: the echo is taken out all the
        same."""
        if not self._has_voice:
            return None
        try:
            return Voice(importlib.import_module("pywebrtc_audio"))
        except (ImportError, AttributeError, TypeError) as error:
            self._has_voice = False
            log.warning("the microphone's noise and level stay as they are: pip install pywebrtc-audio error=%s", error)
            return None

    def _heard(self, block: Block) -> None:
        with self._news:
            self._played.add(_floating(block))
            self._news.notify()


class CleanMicrophone:
    def __init__(self, microphone: Microphone, path: EchoPath) -> None:
        self._microphone, self._path = microphone, path
        self._canceller = path.canceller()
        self._voice = path.voice()

    def read(self) -> Block:
        captured = _floating(self._microphone.read())
        reference, self._canceller = self._path.reference(self._canceller)
        clean = self._canceller.process(captured, reference)
        block = np.clip(np.rint(clean * 32768), -32768, 32767).astype(np.int16)
        return block if self._voice is None else self._voice.process(block, self._canceller.voice)

    def close(self) -> None:
        self._microphone.close()


class Voice:
    """WebRTC's noise suppression and gain control. The gain follows a voice in the room alone, never an echo's rest."""

    def __init__(self, package: Any) -> None:
        """Raises AttributeError or TypeError where the package is another version than we know."""
        self._noise = package.AudioProcessor(
            sample_rate=SAMPLE_RATE_HZ, high_pass_filter=True, noise_suppression=True, ns_level=NOISE_LEVEL
        )
        self._gain = package.GainController(
            sample_rate=SAMPLE_RATE_HZ, max_gain_db=MOST_GAIN_DB, headroom_db=HEADROOM_DB
        )
        self._begin_without_gain()

    def process(self, block: Block, voice: float) -> Block:
        quiet = self._noise.process(block)
        levelled: Block = self._gain.process(quiet, min(voice, self._noise.speech_probability))
        return levelled

    def _begin_without_gain(self) -> None:
        """By something like syllables: what does not pause would be taken for noise."""
        syllable = np.random.default_rng(0).normal(0, BEGIN_LEVEL, BLOCK_SAMPLES).astype(np.int16)
        pause = (syllable // 300).astype(np.int16)
        for number in range(BEGIN_BLOCKS):
            speaks = number % 15 < 10
            self._gain.process(syllable if speaks else pause, float(speaks))


def _floating(block: Block) -> NDArray[np.float32]:
    return block.astype(np.float32) / np.float32(32768)
