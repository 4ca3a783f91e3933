"""Opus through the libopus that PyAV's wheel brings along, by ctypes: what PyAV itself does not reach.

The library's file name carries a hash, so it is found by pattern, and tried with real packets before it is used.
Where that fails, PyAV's coders take its place: that decoder neither recovers nor conceals as well, and that encoder is
made anew, with a seam, when its rate or its frames change.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from av.packet import Packet
from numpy.typing import NDArray

from edge_agent.core.playout import Decoder
from edge_agent.core.voice import Bandwidth, Coding
from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ

log = logging.getLogger(__name__)

MOST_FRAME_SAMPLES = 120 * SAMPLE_RATE_HZ // 1000
GRAIN_SAMPLES = SAMPLE_RATE_HZ // 400  # concealment comes in whole 2.5 ms
SILENCE = b"\xf8\xff\xfe"  # an Opus frame of 20 ms of silence (RFC 6716: fullband CELT, mono)

MOST_PACKET_BYTES = 1275 * 6  # RFC 6716, section 3.4: six frames of 20 ms

Samples = NDArray[np.int16]


class Encoder(Protocol):
    """Mono at 48 kHz; one thread at a time."""

    def encode(self, samples: Samples, coding: Coding) -> bytes:
        """One packet of exactly `coding.frame_ms`. A change of `coding` holds from this packet on."""


@cache
def library() -> ctypes.CDLL | None:
    """libopus with its signatures declared, or None, said once, where none is found that works."""
    for path in _candidates():
        try:
            opus = ctypes.CDLL(path)
            _declare(opus)
            packet = LibopusEncoder(opus).encode(np.zeros(BLOCK_SAMPLES, np.int16), Coding())
            if len(LibopusDecoder(opus).decode(packet)) == BLOCK_SAMPLES:
                return opus
        except (OSError, AttributeError, ValueError) as error:
            log.info("libopus not used path=%s error=%s", path, error)
    log.warning(
        "no libopus could be loaded, PyAV's coders are used: lost sound is recovered less well, and a change of rate "
        "is heard"
    )
    return None


def sound_frame(block: Samples, position: int) -> av.AudioFrame:
    """As PyAV's encoders want it."""
    frame = av.AudioFrame.from_ndarray(block.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE_HZ
    frame.time_base = Fraction(1, SAMPLE_RATE_HZ)
    frame.pts = position
    return frame


def open_decoder() -> Decoder:
    opus = library()
    return LibopusDecoder(opus) if opus is not None else PyavDecoder()


def open_encoder() -> Encoder:
    opus = library()
    return LibopusEncoder(opus) if opus is not None else PyavEncoder()


class LibopusEncoder:
    """Obeys `Encoder`; everything changes in place, without a seam."""

    def __init__(self, opus: ctypes.CDLL) -> None:
        self._opus = opus
        error = ctypes.c_int()
        self._state = opus.opus_encoder_create(SAMPLE_RATE_HZ, 1, _OPUS_APPLICATION_VOIP, ctypes.byref(error))
        if not self._state:
            raise OSError(f"libopus makes no encoder ({error.value})")
        self._out = ctypes.create_string_buffer(MOST_PACKET_BYTES)
        self._coding: Coding | None = None

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._opus.opus_encoder_destroy(self._state)

    def encode(self, samples: Samples, coding: Coding) -> bytes:
        if coding != self._coding:
            self._set(_OPUS_SET_BITRATE, coding.bps)
            self._set(_OPUS_SET_INBAND_FEC, int(coding.fec))
            self._set(_OPUS_SET_PACKET_LOSS_PERC, coding.expected_loss_percent)
            self._set(_OPUS_SET_DTX, int(coding.dtx))
            self._set(_OPUS_SET_MAX_BANDWIDTH, _OPUS_BANDWIDTHS[coding.bandwidth])
            self._coding = coding
        if len(samples) != coding.frame_samples:
            raise ValueError(f"{len(samples)} samples for a frame of {coding.frame_ms} ms")
        whole = np.ascontiguousarray(samples, np.int16)
        pcm = whole.ctypes.data_as(ctypes.POINTER(ctypes.c_int16))
        count = self._opus.opus_encode(self._state, pcm, len(whole), self._out, MOST_PACKET_BYTES)
        if count < 0:
            raise ValueError(f"libopus cannot code this ({count})")
        return self._out.raw[:count]

    def _set(self, request: int, value: int) -> None:
        # The value is a variable argument, and is passed as one where that differs (64-bit ARM on macOS).
        if (error := self._opus.opus_encoder_ctl(self._state, request, ctypes.c_int32(value))) != 0:
            raise ValueError(f"libopus takes no {value} for {request} ({error})")


class PyavEncoder:
    """The same without libopus at hand: a new encoder for each change, and pauses that are coded like the rest."""

    def __init__(self) -> None:
        self._coding: Coding | None = None
        self._position = 0

    def encode(self, samples: Samples, coding: Coding) -> bytes:
        if coding != self._coding:
            self._codec = _pyav_encoder(coding)
            self._coding = coding
        packets = self._codec.encode(sound_frame(samples, self._position))
        self._position += len(samples)
        if not packets:
            raise ValueError("PyAV keeps a frame back")
        return bytes(packets[0])


class LibopusDecoder:
    """Obeys `edge_agent.core.playout.Decoder`: mono at 48 kHz, one thread at a time."""

    def __init__(self, opus: ctypes.CDLL) -> None:
        self._opus = opus
        error = ctypes.c_int()
        self._state = opus.opus_decoder_create(SAMPLE_RATE_HZ, 1, ctypes.byref(error))
        if not self._state:
            raise OSError(f"libopus makes no decoder ({error.value})")
        self._out = np.empty(MOST_FRAME_SAMPLES, np.int16)

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._opus.opus_decoder_destroy(self._state)

    def decode(self, payload: bytes) -> Samples:
        return self._decode(payload, MOST_FRAME_SAMPLES, fec=False)

    def recover(self, payload: bytes, samples: int) -> Samples:
        return self._decode(payload, samples, fec=True)

    def conceal(self, samples: int) -> Samples:
        return self._decode(None, samples, fec=False)

    def reset(self) -> None:
        self._opus.opus_decoder_ctl(self._state, ctypes.c_int(_OPUS_RESET_STATE))

    def _decode(self, payload: bytes | None, samples: int, fec: bool) -> Samples:
        out = self._out.ctypes.data_as(ctypes.POINTER(ctypes.c_int16))
        count = self._opus.opus_decode(self._state, payload, len(payload or b""), out, samples, int(fec))
        if count < 0:
            raise ValueError(f"no Opus ({count})")
        return self._out[:count].copy()


class PyavDecoder:
    """The same without libopus at hand: what is lost is the last sound again."""

    def __init__(self) -> None:
        self._last: Samples = np.zeros(BLOCK_SAMPLES, np.int16)
        self.reset()

    def decode(self, payload: bytes) -> Samples:
        if not payload:  # to PyAV this would be the end of the stream
            raise ValueError("no Opus (empty)")
        try:
            frames = self._codec.decode(Packet(payload))
        except av.FFmpegError as error:
            raise ValueError(str(error)) from None
        pieces = [frame.to_ndarray().reshape(-1) for frame in frames]
        if not pieces:
            raise ValueError("no Opus (nothing in it)")
        self._last = np.concatenate(pieces)
        return self._last

    def recover(self, payload: bytes, samples: int) -> Samples:
        return self.conceal(samples)

    def conceal(self, samples: int) -> Samples:
        tail = self._last[-min(len(self._last), BLOCK_SAMPLES) :]
        self._last = (np.resize(tail, samples) * 0.7).astype(np.int16)
        return self._last

    def reset(self) -> None:
        self._codec = av.CodecContext.create("libopus", "r")
        self._codec.format = "s16"
        self._codec.layout = "mono"
        self._codec.sample_rate = SAMPLE_RATE_HZ


# Of opus_defines.h.
_OPUS_APPLICATION_VOIP = 2048
_OPUS_SET_BITRATE = 4002
_OPUS_SET_MAX_BANDWIDTH = 4004
_OPUS_SET_INBAND_FEC = 4012
_OPUS_SET_PACKET_LOSS_PERC = 4014
_OPUS_SET_DTX = 4016
_OPUS_RESET_STATE = 4028
_OPUS_BANDWIDTHS = {Bandwidth.NARROW: 1101, Bandwidth.WIDE: 1103, Bandwidth.FULL: 1105}


def _pyav_encoder(coding: Coding) -> av.AudioCodecContext:
    codec = av.CodecContext.create("libopus", "w")
    codec.bit_rate = coding.bps
    codec.format, codec.layout, codec.sample_rate = "s16", "mono", SAMPLE_RATE_HZ
    codec.time_base = Fraction(1, SAMPLE_RATE_HZ)
    codec.options = {
        "application": "voip",
        "frame_duration": str(coding.frame_ms),
        "fec": str(int(coding.fec)),
        "packet_loss": str(coding.expected_loss_percent),
        "cutoff": str(coding.bandwidth.value // 2),
    }
    codec.open()
    return codec


def _candidates() -> Iterator[str]:
    """The wheel's own first: it is the one that was tried with this PyAV."""
    package = Path(av.__file__).parent
    for folder in (package.with_name("av.libs"), package / ".dylibs", package):
        yield from map(str, sorted(folder.glob("libopus[-.]*")))
    if system := ctypes.util.find_library("opus"):
        yield system


def _declare(opus: ctypes.CDLL) -> None:
    pointer, number = ctypes.c_void_p, ctypes.c_int
    samples = ctypes.POINTER(ctypes.c_int16)
    opus.opus_encoder_create.restype = pointer
    opus.opus_encoder_create.argtypes = (ctypes.c_int32, number, number, ctypes.POINTER(number))
    opus.opus_encoder_destroy.restype = None
    opus.opus_encoder_destroy.argtypes = (pointer,)
    opus.opus_encode.restype = ctypes.c_int32
    opus.opus_encode.argtypes = (pointer, samples, number, ctypes.c_char_p, ctypes.c_int32)
    opus.opus_encoder_ctl.restype = number
    opus.opus_encoder_ctl.argtypes = (pointer, number)  # and one more, see `LibopusEncoder._set`
    opus.opus_decoder_create.restype = pointer
    opus.opus_decoder_create.argtypes = (ctypes.c_int32, number, ctypes.POINTER(number))
    opus.opus_decoder_destroy.restype = None
    opus.opus_decoder_destroy.argtypes = (pointer,)
    opus.opus_decode.restype = number
    opus.opus_decode.argtypes = (
        pointer, ctypes.c_char_p, ctypes.c_int32, samples, number, number,
    )  # fmt: skip
    opus.opus_decoder_ctl.restype = number
    opus.opus_decoder_ctl.argtypes = (pointer, number)  # the one request used takes no argument
