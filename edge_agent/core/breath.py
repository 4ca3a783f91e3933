"""What goes into a link while nothing comes out of it: a small question now and then.

Pure. In an outage a modem keeps what it is given. Seconds of old voice and pictures would come out first when the link
is back, and the new voice only behind them. So once the far end has been silent for well longer than it usually is, no
sound and no picture goes, and the path is asked instead whether it lives; with the first thing that is heard, all goes.
Pictures are held sooner: they are most of what waits, and one that comes a moment later harms nobody.
"""

from __future__ import annotations

import math

LEAST_SILENCE_S = 1.2  # of a far end that speaks; a handover between two masts may take one
LEAST_SILENCE_OF_PICTURES_S = 0.5  # the far end's pauses in speech have a packet each 0.4 s
USUAL_GAPS = 4.0  # as many of the longest gap that there usually is: a far end may have little to say
USUAL_GAPS_OF_PICTURES = 2.0
FORGETTING_S = 8.0
FIRST_S = 5.0  # what is usual is not known yet
PROBE_S = 0.3  # between the questions; of those too some wait in the modem


class Breath:
    def __init__(self, now: float) -> None:
        self._began = self._heard_at = now
        self._usual_gap_s = 0.0

    def heard(self, now: float) -> None:
        """Anything at all of the far end."""
        gap_s = now - self._heard_at
        if not self.held(now):  # an outage is no habit
            self._usual_gap_s = max(gap_s, self._usual_gap_s * math.exp(-gap_s / FORGETTING_S))
        self._heard_at = now

    def held(self, now: float) -> bool:
        return self._silent(now, LEAST_SILENCE_S, USUAL_GAPS)

    def pictures_held(self, now: float) -> bool:
        return self._silent(now, LEAST_SILENCE_OF_PICTURES_S, USUAL_GAPS_OF_PICTURES)

    def _silent(self, now: float, least_s: float, gaps: float) -> bool:
        silence_s = max(least_s, gaps * self._usual_gap_s)
        return now - self._began > FIRST_S and now - self._heard_at > silence_s
