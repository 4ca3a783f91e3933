"""VP8 through the libvpx that PyAV's wheel brings along, by ctypes: what PyAV itself does not reach.

Rate and pictures a second change in place: only when one is asked for, and for a change of size, is a key picture made.
Where it is told to, every second picture is of an upper temporal layer: no other is built on it, so that it may be lost
or dropped. The library's file name carries a hash, so it is found by pattern; its structures are laid out here as
libvpx 1.16 has them (vpx/vpx_encoder.h, vpx/vpx_image.h), and tried with real pictures before they are used. Where that
fails, PyAV's encoder takes its place: a key picture with each change, and no layers.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from edge_agent.core.voice import PicturePlan

log = logging.getLogger(__name__)

I420 = NDArray[np.uint8]  # (height * 3 / 2, width), as OpenCV lays it out: Y, then U and V at half the size

BASE_SHARE = 0.75  # of the bits, for the layer that others are built on
LEAST_RATE = 5.0  # pictures a second that libvpx is told: stills are coded as a film of more bits a second
LONGEST_STEP = 2.5  # pictures' time that it is told has passed at most: after a pause it would spend on one all of it
INTERVAL_SHARE = 0.1  # of a new interval between pictures; libvpx itself takes every single one for the new rate
MOST_TRIAL_ERROR = 8.0  # grey levels of the picture that it is tried with

# Of the time that the rate carries: the encoder may run ahead of it by so much, and begins a call with so much saved.
BUFFER_MS, START_MS, AIM_MS = 1000, 500, 600
DROP_BELOW_PERCENT = 30  # of the buffer: then a picture is left out before it is coded
KEY_PICTURE_MS = 300  # of the rate, that a key picture may take; the next ones refine it
BEST_QUANTIZER, WORST_QUANTIZER = 2, 60
# As libvpx counts speeds, fixed whatever else the machine does: see docs/performance.md for what they cost and give.
SMALL_PIXELS, SMALL_SPEED, SPEED = 320 * 240, -4, -6
NOISE_SENSITIVITY = 0  # its denoiser costs more than it gives, with a noisy camera too


class CodedPicture(NamedTuple):
    data: bytes
    key: bool
    upper: bool  # no other is built on it


class PictureEncoder(Protocol):
    """One thread at a time."""

    def encode(
        self, picture: I420, plan: PicturePlan, at: float, *, key: bool = False, layered: bool = False
    ) -> CodedPicture | None:
        """`plan` holds from this picture on, which has its size; `at` is its time in seconds; `key` asks for one that
        can be shown without any other. None: it is left out, as it would not fit. Raises ValueError."""


@cache
def library() -> ctypes.CDLL | None:
    """libvpx with its signatures declared, or None, said once, where none is found that works as is known here."""
    for path in _candidates():
        try:
            vpx = ctypes.CDLL(path)
            _declare(vpx)
            _try_out(vpx)
        except (OSError, AttributeError, ValueError) as error:
            log.info("libvpx not used path=%s error=%s", path, error)
        else:
            return vpx
    log.warning(
        "no libvpx could be loaded as it is known here, PyAV's encoder is used: each change costs a key picture"
    )
    return None


def open_encoder() -> PictureEncoder:
    vpx = library()
    return LibvpxEncoder(vpx) if vpx is not None else PyavEncoder()


class LibvpxEncoder:
    """Obeys `PictureEncoder`."""

    def __init__(self, vpx: ctypes.CDLL) -> None:
        self._vpx = vpx
        self._context: _Context | None = None
        self._config = _Config()
        self._image = _Image()
        self._plan: PicturePlan | None = None
        self._last_at: float | None = None
        self._interval_s = 0.0  # between pictures, smoothed
        self._clock = 0  # what libvpx is told
        self._layered = False
        self._next_is_upper = False

    def __del__(self) -> None:
        self._close()

    def encode(
        self, picture: I420, plan: PicturePlan, at: float, *, key: bool = False, layered: bool = False
    ) -> CodedPicture | None:
        height, width = picture.shape[0] * 2 // 3, picture.shape[1]
        if (width, height) != (plan.width, plan.height):
            raise ValueError(f"a picture of {width}×{height}, planned is {plan.width}×{plan.height}")
        if plan != self._plan or layered != self._layered:
            self._change(plan, layered)
        whole = np.ascontiguousarray(picture, np.uint8)
        code = self._vpx.vpx_img_wrap(self._image, _I420, width, height, 1, whole.ctypes.data)
        if not code:
            raise ValueError("libvpx takes no such picture")
        upper = layered and self._next_is_upper and not key
        if layered:
            self._set(_SET_TEMPORAL_LAYER_ID, int(upper))
        ticks = self._passed(at, plan)
        flags = (_UPPER_FLAGS if upper else _BASE_FLAGS) | (_FORCE_KEY if key else 0)
        error = self._vpx.vpx_codec_encode(self._context, self._image, self._clock, ticks, flags, _REALTIME)
        self._clock += ticks
        self._check(error, "cannot code this")
        coded = self._taken()
        if coded is None:
            return None
        data, is_key = coded
        self._next_is_upper = not upper
        return CodedPicture(data, is_key, upper)

    # --- within

    def _change(self, plan: PicturePlan, layered: bool) -> None:
        if self._plan is None or (plan.width, plan.height) != (self._plan.width, self._plan.height):
            self._open(plan, layered)  # another size is a key picture anyway
        else:
            _configure(self._config, plan, layered)
            self._check(self._vpx.vpx_codec_enc_config_set(self._context, self._config), "does not change")
        self._set(_SET_MAX_INTRA_BITRATE_PCT, max(100, round(KEY_PICTURE_MS * max(plan.rate, LEAST_RATE) / 10)))
        if self._plan is None or plan.rate != self._plan.rate:
            self._interval_s = 1 / plan.rate
        self._plan, self._layered = plan, layered

    def _open(self, plan: PicturePlan, layered: bool) -> None:
        self._close()
        interface = self._vpx.vpx_codec_vp8_cx()
        self._check(self._vpx.vpx_codec_enc_config_default(interface, self._config, 0), "has no defaults")
        _configure(self._config, plan, layered)
        context = _Context()
        self._check(
            self._vpx.vpx_codec_enc_init_ver(context, interface, self._config, 0, _ENCODER_ABI_VERSION),
            "makes no encoder",
        )
        self._context = context
        self._set(_SET_CPU_USED, _speed(plan))
        self._set(_SET_NOISE_SENSITIVITY, NOISE_SENSITIVITY)
        self._clock, self._last_at, self._next_is_upper = 0, None, False

    def _passed(self, at: float, plan: PicturePlan) -> int:
        """What libvpx is told that one picture takes."""
        usual_s = 1 / plan.rate
        if self._last_at is not None:
            passed_s = min(max(at - self._last_at, usual_s), LONGEST_STEP * usual_s)
            self._interval_s += (passed_s - self._interval_s) * INTERVAL_SHARE
        self._last_at = at
        return round(self._interval_s * min(1.0, plan.rate / LEAST_RATE) * _TICKS_PER_S)

    def _taken(self) -> tuple[bytes, bool] | None:
        iterator = ctypes.c_void_p()
        pieces, key = [], False
        while found := self._vpx.vpx_codec_get_cx_data(self._context, ctypes.byref(iterator)):
            if found.contents.kind == _FRAME_PACKET:
                pieces.append(ctypes.string_at(found.contents.buf, found.contents.sz))
                key = bool(found.contents.flags & _IS_KEY)
        return (b"".join(pieces), key) if pieces else None

    def _set(self, request: int, value: int) -> None:
        # The value is a variable argument, and is passed as one where that differs (64-bit ARM on macOS).
        self._check(self._vpx.vpx_codec_control_(self._context, request, ctypes.c_int(value)), f"takes no {request}")

    def _check(self, error: int, what: str) -> None:
        if error:
            raise ValueError(f"libvpx {what} ({self._vpx.vpx_codec_err_to_string(error).decode()})")

    def _close(self) -> None:
        context, self._context = getattr(self, "_context", None), None
        if context is not None:
            self._vpx.vpx_codec_destroy(context)


class PyavEncoder:
    """The same without libvpx at hand: a new encoder, and so a key picture, for each change of the plan; no layers."""

    def __init__(self) -> None:
        self._plan: PicturePlan | None = None
        self._codec: Any = None
        self._count = 0

    def encode(
        self, picture: I420, plan: PicturePlan, at: float, *, key: bool = False, layered: bool = False
    ) -> CodedPicture | None:
        if plan != self._plan:
            self._codec, self._plan, self._count = _pyav_encoder(plan), plan, 0
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = self._count, Fraction(1, max(1, round(plan.rate)))
        self._count += 1
        if key:
            frame.pict_type = PictureType.I
        data = b"".join(map(bytes, self._codec.encode(frame)))
        return CodedPicture(data, not data[0] & 1, False) if data else None


def _pyav_encoder(plan: PicturePlan) -> Any:
    codec = av.CodecContext.create("libvpx", "w")
    codec.width, codec.height, codec.pix_fmt = plan.width, plan.height, "yuv420p"
    rate = max(1, round(plan.rate))
    bps = round(plan.bps * rate / plan.rate)
    codec.time_base = Fraction(1, rate)
    codec.bit_rate = bps
    codec.gop_size = 3000
    codec.qmin, codec.qmax = BEST_QUANTIZER, WORST_QUANTIZER
    codec.thread_count = 1
    codec.options = {
        "bufsize": str(bps * BUFFER_MS // 1000), "minrate": str(bps), "maxrate": str(bps),  # alike: a constant rate
        "cpu-used": str(_speed(plan)), "deadline": "realtime", "lag-in-frames": "0",
        "max-intra-rate": str(max(100, round(KEY_PICTURE_MS * rate / 10))), "drop-threshold": str(DROP_BELOW_PERCENT),
        "noise-sensitivity": str(NOISE_SENSITIVITY),
    }  # fmt: skip
    return codec


def _speed(plan: PicturePlan) -> int:
    return SMALL_SPEED if plan.width * plan.height <= SMALL_PIXELS else SPEED


# --- libvpx 1.16, as it is laid out

_ENCODER_ABI_VERSION = 39
_TICKS_PER_S = 90_000
_REALTIME = 1
_I420 = 0x102
_FRAME_PACKET, _IS_KEY = 0, 1
_FORCE_KEY = 1 << 0
_NO_REF_GOLDEN, _NO_REF_ALT = 1 << 17, 1 << 21
_NO_UPD_LAST, _NO_UPD_GOLDEN, _NO_UPD_ALT, _NO_UPD_ENTROPY = 1 << 18, 1 << 22, 1 << 23, 1 << 20
_BASE_FLAGS = _NO_REF_GOLDEN | _NO_REF_ALT | _NO_UPD_GOLDEN | _NO_UPD_ALT
_UPPER_FLAGS = _BASE_FLAGS | _NO_UPD_LAST | _NO_UPD_ENTROPY
_CBR = 1
_KEY_DISABLED = 0
_SET_CPU_USED, _SET_NOISE_SENSITIVITY, _SET_MAX_INTRA_BITRATE_PCT, _SET_TEMPORAL_LAYER_ID = 13, 15, 26, 30

_uint, _int = ctypes.c_uint, ctypes.c_int


class _Rational(ctypes.Structure):
    _fields_ = (("num", _int), ("den", _int))


class _Buffer(ctypes.Structure):
    _fields_ = (("buf", ctypes.c_void_p), ("sz", ctypes.c_size_t))


class _Config(ctypes.Structure):
    """vpx_codec_enc_cfg, the last fields left to `spare`: they keep their defaults."""

    _fields_ = (
        ("g_usage", _uint), ("g_threads", _uint), ("g_profile", _uint), ("g_w", _uint), ("g_h", _uint),
        ("g_bit_depth", _int), ("g_input_bit_depth", _uint), ("g_timebase", _Rational), ("g_error_resilient", _uint),
        ("g_pass", _int), ("g_lag_in_frames", _uint),
        ("rc_dropframe_thresh", _uint), ("rc_resize_allowed", _uint), ("rc_scaled_width", _uint),
        ("rc_scaled_height", _uint), ("rc_resize_up_thresh", _uint), ("rc_resize_down_thresh", _uint),
        ("rc_end_usage", _int), ("rc_twopass_stats_in", _Buffer), ("rc_firstpass_mb_stats_in", _Buffer),
        ("rc_target_bitrate", _uint), ("rc_min_quantizer", _uint), ("rc_max_quantizer", _uint),
        ("rc_undershoot_pct", _uint), ("rc_overshoot_pct", _uint),
        ("rc_buf_sz", _uint), ("rc_buf_initial_sz", _uint), ("rc_buf_optimal_sz", _uint),
        ("rc_2pass", _uint * 4), ("kf_mode", _int), ("kf_min_dist", _uint), ("kf_max_dist", _uint),
        ("ss_number_layers", _uint), ("ss_enable_auto_alt_ref", _int * 5), ("ss_target_bitrate", _uint * 5),
        ("ts_number_layers", _uint), ("ts_target_bitrate", _uint * 5), ("ts_rate_decimator", _uint * 5),
        ("ts_periodicity", _uint), ("ts_layer_id", _uint * 16), ("spare", ctypes.c_byte * 1024),
    )  # fmt: skip


class _Context(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p), ("iface", ctypes.c_void_p), ("err", _int), ("err_detail", ctypes.c_char_p),
        ("init_flags", ctypes.c_long), ("config", ctypes.c_void_p), ("priv", ctypes.c_void_p),
    )  # fmt: skip


class _Image(ctypes.Structure):
    """vpx_image is filled in by libvpx itself, of a size that it alone knows: 136 bytes on 64 bit."""

    _fields_ = (("all", ctypes.c_uint64 * 64),)


class _FramePacket(ctypes.Structure):
    _fields_ = (
        ("kind", _int), ("buf", ctypes.c_void_p), ("sz", ctypes.c_size_t), ("pts", ctypes.c_int64),
        ("duration", ctypes.c_ulong), ("flags", ctypes.c_uint32),
    )  # fmt: skip


def _configure(config: _Config, plan: PicturePlan, layered: bool) -> None:
    config.g_w, config.g_h = plan.width, plan.height
    config.g_threads = 1
    config.g_timebase = _Rational(1, _TICKS_PER_S)
    config.g_lag_in_frames = 0
    config.rc_end_usage = _CBR
    config.rc_target_bitrate = max(1, round(plan.bps * max(1.0, LEAST_RATE / plan.rate) / 1000))
    config.rc_dropframe_thresh = DROP_BELOW_PERCENT
    config.rc_resize_allowed = 0
    config.rc_min_quantizer, config.rc_max_quantizer = BEST_QUANTIZER, WORST_QUANTIZER
    config.rc_undershoot_pct, config.rc_overshoot_pct = 100, 15
    config.rc_buf_sz, config.rc_buf_initial_sz, config.rc_buf_optimal_sz = BUFFER_MS, START_MS, AIM_MS
    config.kf_mode = _KEY_DISABLED
    # With the flag against its update alone, probabilities go astray when a picture is left out.
    config.g_error_resilient = int(layered)
    config.ts_number_layers = config.ts_periodicity = 2 if layered else 1
    if layered:
        config.ts_target_bitrate[0] = max(1, round(BASE_SHARE * config.rc_target_bitrate))
        config.ts_target_bitrate[1] = max(config.ts_target_bitrate[0] + 1, config.rc_target_bitrate)
        config.ts_rate_decimator[0], config.ts_rate_decimator[1] = 2, 1
        config.ts_layer_id[0], config.ts_layer_id[1] = 0, 1


def _candidates() -> Iterator[str]:
    """The wheel's own alone: the system's is laid out as its version has it."""
    package = Path(av.__file__).parent
    for folder in (package.with_name("av.libs"), package / ".dylibs", package):
        yield from map(str, sorted(folder.glob("libvpx[-.]*")))


def _declare(vpx: ctypes.CDLL) -> None:
    pointer = ctypes.c_void_p
    context, config, image = (ctypes.POINTER(each) for each in (_Context, _Config, _Image))
    vpx.vpx_codec_vp8_cx.restype = pointer
    vpx.vpx_codec_vp8_cx.argtypes = ()
    vpx.vpx_codec_enc_config_default.argtypes = (pointer, config, _uint)
    vpx.vpx_codec_enc_init_ver.argtypes = (context, pointer, config, ctypes.c_long, _int)
    vpx.vpx_codec_enc_config_set.argtypes = (context, config)
    vpx.vpx_codec_encode.argtypes = (
        context, image, ctypes.c_int64, ctypes.c_ulong, ctypes.c_long, ctypes.c_ulong,
    )  # fmt: skip
    vpx.vpx_codec_get_cx_data.restype = ctypes.POINTER(_FramePacket)
    vpx.vpx_codec_get_cx_data.argtypes = (context, ctypes.POINTER(pointer))
    vpx.vpx_codec_control_.argtypes = (context, _int)  # and one more, see `LibvpxEncoder._set`
    vpx.vpx_codec_destroy.argtypes = (context,)
    vpx.vpx_codec_err_to_string.restype = ctypes.c_char_p
    vpx.vpx_codec_err_to_string.argtypes = (_int,)
    vpx.vpx_img_wrap.restype = pointer
    vpx.vpx_img_wrap.argtypes = (image, _int, _uint, _uint, _uint, pointer)


def _try_out(vpx: ctypes.CDLL) -> None:
    """Raises ValueError where it is not laid out as is known here: told by its defaults, and by what it makes."""
    config = _Config()
    vpx.vpx_codec_enc_config_default(vpx.vpx_codec_vp8_cx(), config, 0)
    found = (
        config.g_w, config.g_h, config.g_timebase.den, config.rc_target_bitrate, config.rc_max_quantizer,
        config.rc_buf_sz, config.kf_max_dist, config.ss_number_layers, config.ts_number_layers,
    )  # fmt: skip
    if found != (320, 240, 30, 256, 63, 6000, 128, 1, 1):
        raise ValueError(f"its configuration is laid out in another way: {found}")
    encoder = LibvpxEncoder(vpx)
    picture = np.full((96, 64), 128, np.uint8)
    picture[:64] = np.arange(64, dtype=np.uint8)
    first = encoder.encode(picture, PicturePlan(60_000, 64, 64, 10.0), 0.0)
    second = encoder.encode(picture, PicturePlan(30_000, 64, 64, 15.0), 0.1, layered=True)
    if first is None or second is None or not first.key or second.key:
        raise ValueError("it does not change in place")
    decoder: Any = av.CodecContext.create("libvpx", "r")
    for coded in (first, second):
        for frame in decoder.decode(av.Packet(coded.data)):
            luma = frame.to_ndarray(format="yuv420p")[:64]
            if luma.shape != (64, 64) or np.abs(luma.astype(int) - picture[:64]).mean() > MOST_TRIAL_ERROR:
                raise ValueError("what it makes is another picture")
