"""How long a far sound must wait before it is played, learnt from when packets arrive.

Pure: arrivals in, a target out. Each arrival's delay is taken relative to the fastest of the last seconds; the worst of
each half second goes into a histogram that forgets, and the target is a high quantile of it: what the link does nearly
always, not the worst it ever did. Rare bursts that come again and again are found by a detector of their own. (After
the delay manager of WebRTC's NetEq.)
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np

SAMPLES_PER_MS = 48
GRAIN_MS = 10
MOST_DELAY_MS = 1000  # what comes later is no jitter but an outage, and nobody wants to talk with more
START_DELAY_MS = 40
BASE_WINDOW_S = 10.0  # in less, jitter moves the fastest itself, and the sound is stretched to and fro after it
RECENT_S, FAR_OFF_MS = 1.0, 500.0  # nothing so near the fastest for so long: the far clock has jumped, or the path
STEP_MS = 50  # the fastest is slower by as much: the path is another, and what was learnt is shifted with it
INTERVAL_S = 0.5  # of which the worst counts
FORGET = 0.983  # an interval: half of what was learnt counts after 20 s
QUANTILE = 0.97
FALL_INTERVALS = 2  # between two steps down: a target that goes up and down by turns is heard more than a high one
GAP_S = 0.2  # time in which nothing comes ages nothing
OUTAGE_S = 1.0  # nothing for so long: what has queued up meanwhile says nothing of the link's jitter
CATCH_UP_S = 2.0

PEAK_OVER_MS = 60
PEAKS = 3
PEAK_PERIOD_S = 15.0


class ArrivalDelay:
    def __init__(self) -> None:
        self._fastest: deque[tuple[float, float]] = deque()  # (active time, transit), transit rising
        self._active_s = 0.0  # runs on while packets come
        self._last_arrival: float | None = None
        self._weights = np.zeros(MOST_DELAY_MS // GRAIN_MS)
        self._intervals = 0
        self._interval_began = 0.0
        self._interval_worst: float | None = None
        self._interval_base: float | None = None  # when it began
        self._catching_up_until = 0.0
        self._peaks: deque[tuple[float, float]] = deque(maxlen=8)  # (active time, height)
        self._quantile_ms = START_DELAY_MS

    @property
    def target_ms(self) -> int:
        """How much later than the fastest packet a sound should be played."""
        return max(self._quantile_ms, self._peak_ms())

    @property
    def base_ms(self) -> float:
        """The fastest packet's transit, far clock to near clock."""
        return self._fastest[0][1] if self._fastest else 0.0

    def relative_ms(self, position: int, now: float) -> float:
        """How much slower than the fastest a sound at `position` (samples of the far clock) is that is here `now`."""
        return now * 1000 - position / SAMPLES_PER_MS - self.base_ms if self._fastest else 0.0

    def restart(self) -> None:
        """The far clock began anew; what was learnt of the link stays."""
        self._fastest.clear()
        self._interval_worst = self._interval_base = None

    def arrived(self, position: int, now: float, due: bool = True) -> None:
        """A packet came by itself. `due`: its sound was not there yet, so that its delay tells something."""
        since = now - self._last_arrival if self._last_arrival is not None else 0.0
        self._last_arrival = now
        self._active_s += min(max(0.0, since), GAP_S)
        if since > OUTAGE_S:
            # A browser's clock stands still for a while of it: held against the fastest packet of before, every sound
            # would be late for as long as that is remembered, and be cut to catch up.
            self.restart()
            self._catching_up_until = self._active_s + CATCH_UP_S
        transit = now * 1000 - position / SAMPLES_PER_MS
        while self._fastest and self._fastest[-1][1] >= transit:
            self._fastest.pop()
        self._fastest.append((self._active_s, transit))
        while self._fastest[0][0] < self._active_s - BASE_WINDOW_S:
            self._fastest.popleft()
        recent = next(each for each in self._fastest if each[0] >= self._active_s - RECENT_S)
        if recent[1] - self.base_ms > FAR_OFF_MS:
            while self._fastest[0] is not recent:
                self._fastest.popleft()
        if due:
            self._learn(transit - self.base_ms)
        if self._active_s - self._interval_began >= INTERVAL_S:
            self._close_interval()

    def recovered(self, position: int, now: float) -> None:
        """A lost packet's sound came with another packet: waiting for it pays, and counts."""
        if self._fastest:
            self._learn(self.relative_ms(position, now))

    def _learn(self, delay_ms: float) -> None:
        if self._active_s < self._catching_up_until:
            if delay_ms > self._quantile_ms:
                return
            self._catching_up_until = 0.0
        if delay_ms < MOST_DELAY_MS:
            self._interval_worst = max(delay_ms, self._interval_worst or 0.0)

    def _close_interval(self) -> None:
        self._interval_began = self._active_s
        worst, self._interval_worst = self._interval_worst, None
        slower = int(self.base_ms - self._interval_base) // GRAIN_MS if self._interval_base is not None else 0
        self._interval_base = self.base_ms
        if slower * GRAIN_MS >= STEP_MS:
            self._shift(slower)
            return
        if worst is None:
            return
        if worst > self._quantile_ms + PEAK_OVER_MS:
            self._peaks.append((self._active_s, worst))
        self._intervals += 1
        forget = min(FORGET, 1 - 2 / (self._intervals + 1))
        self._weights *= forget
        self._weights[int(worst) // GRAIN_MS] += 1 - forget
        reached = np.cumsum(self._weights) >= QUANTILE * self._weights.sum()
        quantile = (int(np.argmax(reached)) + 1) * GRAIN_MS
        if quantile >= self._quantile_ms:
            self._quantile_ms = quantile
        elif self._intervals % FALL_INTERVALS == 0:
            self._quantile_ms -= GRAIN_MS

    def _shift(self, grains: int) -> None:
        """All that was learnt is so much less above the fastest than it was."""
        grains = min(grains, len(self._weights) - 1)
        self._weights[0] += self._weights[1 : grains + 1].sum()
        self._weights[1:-grains] = self._weights[grains + 1 :]
        self._weights[-grains:] = 0.0
        self._quantile_ms = max(GRAIN_MS, self._quantile_ms - grains * GRAIN_MS)

    def _peak_ms(self) -> int:
        """The height of bursts while they keep coming, or 0."""
        if len(self._peaks) < PEAKS:
            return 0
        period = max(later[0] - peak[0] for peak, later in pairwise(list(self._peaks)[-PEAKS:]))
        if period > PEAK_PERIOD_S or self._active_s - self._peaks[-1][0] > 2 * period:
            return 0
        return int(max(height for _, height in list(self._peaks)[-PEAKS:])) // GRAIN_MS * GRAIN_MS + GRAIN_MS
