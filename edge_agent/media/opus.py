"""Opus through the libopus that PyAV's wheel brings along, by ctypes: what PyAV itself does not reach.

The library's file name carries a hash, so it is found by pattern, and tried with a real packet before it is used.
Where that fails, PyAV's decoder takes its place: it decodes, but neither recovers nor conceals as well.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import av
import numpy as np
from av.packet import Packet
from numpy.typing import NDArray

from edge_agent.core.playout import Decoder
from hardware.api import BLOCK_SAMPLES, SAMPLE_RATE_HZ

log = logging.getLogger(__name__)

MOST_FRAME_SAMPLES = 120 * SAMPLE_RATE_HZ // 1000
GRAIN_SAMPLES = SAMPLE_RATE_HZ // 400  # concealment comes in whole 2.5 ms
SILENCE = b"\xf8\xff\xfe"  # an Opus frame of 20 ms of silence (RFC 6716: fullband CELT, mono)

Samples = NDArray[np.int16]


@cache
def library() -> ctypes.CDLL | None:
    """libopus with its signatures declared, or None, said once, where none is found that works."""
    for path in _candidates():
        try:
            opus = ctypes.CDLL(path)
            _declare(opus)
            if len(LibopusDecoder(opus).decode(SILENCE)) == BLOCK_SAMPLES:
                return opus
        except (OSError, AttributeError, ValueError) as error:
            log.info("libopus not used path=%s error=%s", path, error)
    log.warning("no libopus could be loaded, PyAV's is used: lost sound is recovered less well")
    return None


def open_decoder() -> Decoder:
    opus = library()
    return LibopusDecoder(opus) if opus is not None else PyavDecoder()


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


_OPUS_RESET_STATE = 4028


def _candidates() -> Iterator[str]:
    """The wheel's own first: it is the one that was tried with this PyAV."""
    package = Path(av.__file__).parent
    for folder in (package.with_name("av.libs"), package / ".dylibs", package):
        yield from map(str, sorted(folder.glob("libopus[-.]*")))
    if system := ctypes.util.find_library("opus"):
        yield system


def _declare(opus: ctypes.CDLL) -> None:
    pointer, number = ctypes.c_void_p, ctypes.c_int
    opus.opus_decoder_create.restype = pointer
    opus.opus_decoder_create.argtypes = (ctypes.c_int32, number, ctypes.POINTER(number))
    opus.opus_decoder_destroy.restype = None
    opus.opus_decoder_destroy.argtypes = (pointer,)
    opus.opus_decode.restype = number
    opus.opus_decode.argtypes = (
        pointer, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int16), number, number,
    )  # fmt: skip
    opus.opus_decoder_ctl.restype = number
    opus.opus_decoder_ctl.argtypes = (pointer, number)  # the one request used takes no argument
