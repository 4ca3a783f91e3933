"""When a far picture is to be shown, so that lips and voice go together.

Pure. Sender reports (RFC 3550, 6.4.1) tell for each stream which of its RTP times is which time of the far end's clock;
the speaker tells which of the voice's times is played now. A picture that is due with sound still in the buffer is
held until then, never for long: late pictures are not worth a late voice, and pictures are never ahead by much.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MOST_HOLD_S = 0.4
SHARE = 0.1  # of a new observation of the voice's delay
JUMP_S = 0.25  # off by more: the far clock, or the buffer, is another
STALE_S = 10.0  # a voice that was played longer ago holds nothing

SENDER_REPORT = 200
_NTP_FRACTION = 2.0**32


class Report(NamedTuple):
    ssrc: int
    far_s: float  # NTP's
    timestamp: int  # RTP's


class _Clock(NamedTuple):
    ssrc: int
    rate_hz: int
    report: Report

    def far_s(self, timestamp: int) -> float:
        ticks = (timestamp - self.report.timestamp + 2**31) % 2**32 - 2**31
        return self.report.far_s + ticks / self.rate_hz


def reports_in(rtcp: bytes) -> Iterator[Report]:
    """The sender reports of a compound packet, which may be garbage."""
    at = 0
    while len(rtcp) - at >= 4:
        length = 4 + 4 * int.from_bytes(rtcp[at + 2 : at + 4], "big")
        if rtcp[at + 1] == SENDER_REPORT and length >= 28 and len(rtcp) - at >= 28:
            ssrc, ntp, timestamp = struct.unpack_from("!IQI", rtcp, at + 4)
            if ntp:  # 0: it knows no time
                yield Report(ssrc, ntp / _NTP_FRACTION, timestamp)
        at += length


class LipSync:
    def __init__(self, voice_hz: int, picture_hz: int) -> None:
        self._rates = (voice_hz, picture_hz)
        self._reports: dict[int, Report] = {}
        self._behind_s: float | None = None  # the voice as it is played, behind the far end's clock as it shows here
        self._played_at = 0.0

    def report(self, report: Report) -> None:
        if report.ssrc not in self._reports and len(self._reports) >= 8:
            self._reports.clear()
        self._reports[report.ssrc] = report

    def voice_plays(self, ssrc: int, timestamp: int, now: float) -> None:
        """Told each now and then: what is given to the speaker now."""
        report = self._reports.get(ssrc)
        if report is None:
            return
        behind_s = now - _Clock(ssrc, self._rates[0], report).far_s(timestamp)
        if self._behind_s is None or abs(behind_s - self._behind_s) > JUMP_S:
            self._behind_s = behind_s
        else:
            self._behind_s += SHARE * (behind_s - self._behind_s)
        self._played_at = now

    def hold_s(self, ssrc: int, timestamp: int, now: float) -> float:
        """How long a picture waits before it is shown."""
        report = self._reports.get(ssrc)
        if report is None or self._behind_s is None or now - self._played_at > STALE_S:
            return 0.0
        due = _Clock(ssrc, self._rates[1], report).far_s(timestamp) + self._behind_s
        wait_s = due - now
        return wait_s if 0 < wait_s <= MOST_HOLD_S else MOST_HOLD_S if MOST_HOLD_S < wait_s < 2 * MOST_HOLD_S else 0.0
