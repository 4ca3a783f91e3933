"""The kiosk's clock: `edge_agent.core.clock`, fed with this machine's clocks, and what of it is on disk."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import secrets
import time
from pathlib import Path

import msgspec

from edge_agent.core import wire
from edge_agent.core.clock import Clock

log = logging.getLogger(__name__)

LOOK_S = 10.0
BUILT_MS = 1_790_000_000_000  # September 2026: this release knows no earlier time

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TIME_ERROR = 5  # adjtimex(2): not synchronised
_TIMEX_BYTES = 256  # longer than struct timex; zeros ask and change nothing


class _Saved(msgspec.Struct, array_like=True):
    floor_ms: int = 0
    boot: bytes = b""
    offset_ms: int | None = None  # of a clock that the hub has set, good for as long as the machine runs


class KioskClock:
    """`saved` is what `to_save` gave last, b"" for nothing."""

    def __init__(self, saved: bytes) -> None:
        try:
            kept = msgspec.msgpack.decode(saved, type=_Saved) if saved else _Saved()
        except msgspec.DecodeError as error:
            log.error("saved time unreadable reason=%s", error)
            kept = _Saved()
        self._clock = Clock(time.monotonic(), _system_ms(), max(BUILT_MS, kept.floor_ms), _boot())
        if kept.offset_ms is not None and kept.boot == self._clock.boot:
            self._clock.resume(kept.offset_ms)
        self.look()
        log.info("clock source=%s", self._clock.source)

    @property
    def trusted(self) -> bool:
        return self._clock.trusted

    @property
    def wrong(self) -> bool:
        """Those who should know say what does not fit together."""
        return self._clock.contradicted

    def wall_ms(self) -> int:
        return self._clock.wall_ms(time.monotonic())

    def trusted_ms(self) -> int | None:
        return self._clock.trusted_ms(time.monotonic())

    def dates_ms(self) -> int | None:
        return self._clock.dates_ms(time.monotonic())

    def doubt(self) -> bool:
        return self._clock.doubt()

    def stamp(self) -> wire.Stamp:
        return self._clock.stamp(time.monotonic())

    def for_sending(self, message: wire.Message) -> wire.Message:
        return self._clock.for_sending(message, time.monotonic())

    def look(self) -> bool:
        """Whether anything changed."""
        changed = self._clock.look(time.monotonic(), _system_ms(), _synchronised())
        if changed:
            log.info("clock source=%s contradicted=%s", self._clock.source, self._clock.contradicted)
        return changed

    def ask(self) -> wire.TimeAsked:
        return self._clock.ask(time.monotonic(), secrets.token_bytes(wire.NONCE_BYTES))

    def told(self, answer: wire.TimeTold) -> bool:
        """Whether it is believed."""
        believed = self._clock.told(time.monotonic(), answer)
        if believed:
            log.info("clock source=hub system_off_by_ms=%d", _system_ms() - self.wall_ms())
        else:
            log.warning("clock not set: the hub's time is too late an answer, or before what is known here")
        return believed

    def to_save(self) -> bytes:
        """Every few minutes: what was once trusted is the floor of the next start."""
        clock = self._clock
        saved = _Saved(clock.floor_ms, clock.boot)
        if clock.trusted:
            saved.floor_ms = max(clock.floor_ms, self.wall_ms())
            saved.offset_ms = clock.offset_ms if clock.source == "hub" else None
        return msgspec.msgpack.encode(saved)


def _system_ms() -> int:
    return time.time_ns() // 1_000_000


def _boot() -> bytes:
    """Of the machine, not of this process."""
    try:
        text = _BOOT_ID.read_bytes()
    except OSError:
        text = secrets.token_bytes(16)
    return hashlib.sha256(text).digest()[: wire.BOOT_BYTES]


def _synchronised() -> bool:
    """By NTP or a peer of it, whichever program does it."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return False
    state = adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return 0 <= state != _TIME_ERROR
