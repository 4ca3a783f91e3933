"""What time it is, on a machine that may not know: no clock of its own that runs while it is off, and no network yet.

Pure: the monotonic clock and the system's are handed in. Time goes on by the monotonic clock alone, from a beginning
that is moved only when somebody who knows says so, so that the system's clock may jump as it likes:

    nobody     the system's clock as it was found, but never before the floor       not trusted
    system     the operating system says that it is synchronised                    trusted
    hub        its answer, signed and to our nonce, so that it is no older one      trusted, before the system's

The floor is the later of the build's time and the last one that was trusted and saved. Whoever says less is
contradicted, unless hub and system say the same: then the floor was wrong.

Certificates' dates are judged by a trusted clock alone, and where they fail by the system's word the hub is asked
first: whoever spoofs the system's time must not shut this kiosk out (`doubt`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edge_agent.core import wire

TOLERANCE_MS = 120_000  # two clocks that both are right
MAX_ROUND_TRIP_S = 20.0  # an answer that took longer says too little

Source = Literal["nobody", "system", "hub"]


class Clock:
    """`mono` is seconds of the monotonic clock, `boot` the start of the machine that it counts from."""

    def __init__(self, mono: float, system_ms: int, floor_ms: int, boot: bytes) -> None:
        self.boot, self.floor_ms = boot, floor_ms
        self.source: Source = "nobody"
        self.contradicted = False  # somebody says what cannot be: the technician must look
        self._offset_ms = max(system_ms, floor_ms) - round(mono * 1000)
        self._system_ms: int | None = None  # by a synchronised system, as an offset too
        self._doubted = False
        self._asked: tuple[bytes, float] | None = None

    @property
    def trusted(self) -> bool:
        return self.source != "nobody"

    def wall_ms(self, mono: float) -> int:
        """The best there is."""
        return self._offset_ms + round(mono * 1000)

    def trusted_ms(self, mono: float) -> int | None:
        return self.wall_ms(mono) if self.trusted else None

    def dates_ms(self, mono: float) -> int | None:
        """What certificates are judged by; None: not by their dates."""
        return self.wall_ms(mono) if self.source == "hub" or (self.trusted and not self._doubted) else None

    def doubt(self) -> bool:
        """A certificate's dates do not fit. Whether to go on without them, to ask the hub."""
        if self.source == "hub":
            return False
        self._doubted = True
        return True

    def resume(self, offset_ms: int) -> None:
        """An earlier process of the same boot knew the time."""
        self._offset_ms, self.source = offset_ms, "hub"

    @property
    def offset_ms(self) -> int:
        """Between wall clock and monotonic clock."""
        return self._offset_ms

    # what others say

    def look(self, mono: float, system_ms: int, synchronised: bool) -> bool:
        """Now and then. Whether anything changed."""
        before = (self.source, self.contradicted)
        self._system_ms = system_ms - round(mono * 1000) if synchronised else None
        if self.source == "hub":
            self.contradicted = synchronised and abs(system_ms - self.wall_ms(mono)) > TOLERANCE_MS
        elif synchronised and system_ms >= self.floor_ms:
            self._offset_ms, self.source, self.contradicted = system_ms - round(mono * 1000), "system", False
        elif synchronised:
            self.contradicted = True
        return before != (self.source, self.contradicted)

    def ask(self, mono: float, nonce: bytes) -> wire.TimeAsked:
        self._asked = (nonce, mono)
        return wire.TimeAsked(nonce)

    def told(self, mono: float, answer: wire.TimeTold) -> bool:
        """Whether it is believed."""
        if self._asked is None:
            return False
        nonce, asked_at = self._asked
        if answer.nonce != nonce or mono - asked_at > MAX_ROUND_TRIP_S:
            return False
        self._asked = None
        hub_ms = answer.time_ms + round((mono - asked_at) * 500)
        offset_ms = hub_ms - round(mono * 1000)
        same = self._system_ms is not None and abs(self._system_ms - offset_ms) <= TOLERANCE_MS
        if hub_ms < self.floor_ms and not same:
            self.contradicted = True
            return False
        self.floor_ms = min(self.floor_ms, hub_ms)
        self.contradicted = self._system_ms is not None and not same
        self._offset_ms, self.source, self._doubted = offset_ms, "hub", False
        return True

    # records

    def stamp(self, mono: float) -> wire.Stamp:
        return wire.Stamp(self.boot, round(mono * 1000), self.trusted)

    def for_sending(self, message: wire.Message, mono: float) -> wire.Message:
        """With the time of now, and its own times by the clock as it is known now. `message.sent_at_ms` is when it was
        made, as its stamp says."""
        now_ms, stamp = self.wall_ms(mono), message.stamp
        if stamp is None or stamp.clock_trusted:
            return msgspec.structs.replace(message, sent_at_ms=now_ms)
        if stamp.boot != self.boot:
            stamp = msgspec.structs.replace(stamp, same_boot=False)
            return msgspec.structs.replace(message, sent_at_ms=now_ms, stamp=stamp)
        shift_ms = self._offset_ms + stamp.mono_ms - message.sent_at_ms
        stamp = msgspec.structs.replace(stamp, clock_trusted=self.trusted)
        body = _shifted(message.body, shift_ms)
        return msgspec.structs.replace(message, body=body, sent_at_ms=now_ms, stamp=stamp)


def _shifted(body: wire.Body, shift_ms: int) -> wire.Body:
    """Its times, which all end in `_at_ms`; 0 is none."""
    times = {
        name: max(1, value + shift_ms)
        for name in body.__struct_fields__
        if name.endswith("_at_ms") and (value := getattr(body, name))
    }
    return msgspec.structs.replace(body, **times)
