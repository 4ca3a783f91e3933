"""What goes into a link while nothing comes out of it: hardly anything.

Pure. In an outage a modem keeps what it is given. Seconds of old voice and pictures would come out first when the link
is back, and the new voice only behind them. So once the far end has been silent for well longer than it usually is,
five packets a second go, which are enough to say that the link is back; with the first thing that is heard, all do.
"""

from __future__ import annotations

import math

LEAST_SILENCE_S = 1.2  # of a far end that speaks; a handover between two masts may take one
USUAL_GAPS = 4.0  # as many of the longest gap that there usually is: a far end may have little to say
FORGETTING_S = 8.0
FIRST_S = 5.0  # what is usual is not known yet
PROBE_S = 0.2
PROBE_BYTES = 200  # a longer one is a picture's


class Breath:
    def __init__(self, now: float) -> None:
        self._began = self._heard_at = now
        self._usual_gap_s = 0.0
        self._probed_at = -math.inf

    def heard(self, now: float) -> None:
        """Anything at all of the far end."""
        gap_s = now - self._heard_at
        if not self.held(now):  # an outage is no habit
            self._usual_gap_s = max(gap_s, self._usual_gap_s * math.exp(-gap_s / FORGETTING_S))
        self._heard_at = now

    def held(self, now: float) -> bool:
        silence_s = max(LEAST_SILENCE_S, USUAL_GAPS * self._usual_gap_s)
        return now - self._began > FIRST_S and now - self._heard_at > silence_s

    def may_send(self, now: float, size_bytes: int) -> bool:
        """Of each packet of sound, picture or report, once."""
        if not self.held(now):
            return True
        if now - self._probed_at < PROBE_S or size_bytes > PROBE_BYTES:
            return False
        self._probed_at = now
        return True
