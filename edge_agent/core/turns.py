"""Whether a call can be live, or has to be spoken in turns: down when nothing live fits, back by itself when it does.

Pure. There is no estimate of the link's rate, so a live call is judged by what becomes of it, second by second:

1. Lossy: over `LOSSY` of the voice's packets are lost one way, in both halves of the last `WINDOW_S`.
2. Thin: one way delivers less than `THIN_BPS`, loses packets, and the round trip is `QUEUE_S` longer than the shortest
   of this call, in both halves: a queue stands that what is sent will not let drain.

While in turns the live connection is kept and carries next to nothing. Now and then, while nobody speaks and nothing
waits, it is asked with a second of questions whose answers are as long: at the least rate of a live call, then at the
rate that this one would have. Live fits when enough of both come back, and the last no later than the first.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

WINDOW_S = 10.0
LOSSY = 0.30  # RED four deep mends less than this well enough to be understood
THIN_BPS = 16_000  # 6 kbit/s of voice with its headers and reports
QUEUE_S = 0.5
THIN_LOSS = 0.08  # with a standing queue: what is sent does not fit. A plan that fits loses what the air loses
AT_REST_BPS = 4_000  # what comes of a far end that sends no voice: reports, on two streams
LEAST_PACKETS = 5  # in half a window; fewer say nothing
PATIENCE_S = 4.0  # between two samples; a longer gap is an outage, which is judged elsewhere

FIRST_PROBE_S = 5.0
PROBE_AGAIN_S = 8.0
LONGEST_PAUSE_S = 60.0
RELAPSE_S = 60.0  # live again for less than this: it is tried half as often
SECOND_PROBE_S = 1.0
ANSWER_TIMEOUT_S = 12.0  # of a probe; then its connection is gone

LEAST_LIVE_BPS = 18_000
MOST_PROBE_BPS = 64_000
PROBE_S = 1.0
QUESTION_BYTES, ANSWER_BYTES = 124, 92  # STUN with its headers, as sent
WAITS_S = 0.15  # longer than the first answers took: a queue that the questions have made
ANSWERED = 0.65  # of the questions: both ways lose a fifth, or one a third
GIVE_UP_S = 4.0  # after the last question


class LinkSample(NamedTuple):
    """Counts since the leg's start, but for `rtt_s` and `lost_up`."""

    sent_bytes: int  # headers included
    received_bytes: int
    sound_received: int  # packets of the far voice
    sound_lost: int
    lost_up: float | None  # share of the kiosk's voice, by the far end's newest report; None: none yet
    rtt_s: float  # 0: unknown


class LiveWatch:
    """Judges a live call. A new one for each leg that is heard."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, LinkSample]] = deque()
        self._least_rtt_s = math.inf

    def sample(self, sample: LinkSample, now: float) -> bool:
        """Whether nothing live fits, by all that is known with this sample, one a second."""
        if self._samples:
            at, last = self._samples[-1]
            if now - at > PATIENCE_S or sample.received_bytes <= last.received_bytes:
                self._samples.clear()
        if sample.rtt_s:
            self._least_rtt_s = min(self._least_rtt_s, sample.rtt_s)
        self._samples.append((now, sample))
        while now - self._samples[0][0] > WINDOW_S + 0.5:
            self._samples.popleft()
        if now - self._samples[0][0] < WINDOW_S - 0.5:
            return False
        middle = len(self._samples) // 2
        samples = list(self._samples)
        halves = (samples[: middle + 1], samples[middle:])
        return any(all(judge(half) for half in halves) for judge in (_lossy_down, _lossy_up, self._thin))

    def _thin(self, half: list[tuple[float, LinkSample]]) -> bool:
        (began, first), (ended, last) = half[0], half[-1]
        rtts = [sample.rtt_s for _, sample in half if sample.rtt_s]
        if not rtts or min(rtts) < self._least_rtt_s + QUEUE_S:
            return False
        lost_up = _lost_up(half)
        delivered = (last.sent_bytes - first.sent_bytes) * (1 - lost_up)
        thin_up = lost_up > THIN_LOSS and delivered * 8 < THIN_BPS * (ended - began)
        received = last.received_bytes - first.received_bytes
        return thin_up or (_lost_down(half) > THIN_LOSS and received * 8 < THIN_BPS * (ended - began))


def rests(before: LinkSample, after: LinkSample, seconds: float) -> bool:
    """Whether the far end has stopped sending its voice, by two samples so far apart."""
    return (after.received_bytes - before.received_bytes) * 8 < AT_REST_BPS * seconds


def _lossy_down(half: list[tuple[float, LinkSample]]) -> bool:
    return _lost_down(half) > LOSSY


def _lossy_up(half: list[tuple[float, LinkSample]]) -> bool:
    return _lost_up(half) > LOSSY


def _lost_down(half: list[tuple[float, LinkSample]]) -> float:
    first, last = half[0][1], half[-1][1]
    lost, received = last.sound_lost - first.sound_lost, last.sound_received - first.sound_received
    return lost / (lost + received) if lost + received >= LEAST_PACKETS and lost > 0 else 0.0


def _lost_up(half: list[tuple[float, LinkSample]]) -> float:
    """The far end reports each few seconds: what its reports have said throughout."""
    return min((sample.lost_up for _, sample in half if sample.lost_up is not None), default=0.0)


class WayBack:
    """When to ask the live path whether it fits again. `begin` when turns begin, `end` when they are over."""

    def __init__(self) -> None:
        self._pause_s = PROBE_AGAIN_S
        self._live_since = -math.inf
        self._due: float | None = None
        self._asked_at: float | None = None
        self._in_full = False

    def begin(self, now: float) -> None:
        if now - self._live_since < RELAPSE_S:
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        else:
            self._pause_s = PROBE_AGAIN_S
        self._due, self._asked_at, self._in_full = now + max(FIRST_PROBE_S, self._pause_s / 2), None, False

    def end(self, now: float, live: bool) -> None:
        self._due = self._asked_at = None
        if live:
            self._live_since = now

    def next_deadline(self) -> float | None:
        return self._due if self._asked_at is None else self._asked_at + ANSWER_TIMEOUT_S

    def probe(self, now: float, quiet: bool) -> bool | None:
        """Whether to ask now, and if so at the call's full rate; None: not now. `quiet`: nobody speaks, nothing that
        was said is on its way, and the far end sends nothing live any more."""
        if self._asked_at is not None and now - self._asked_at >= ANSWER_TIMEOUT_S:
            self.answered(False, now)
        if self._due is None or self._asked_at is not None or now < self._due:
            return None
        if not quiet:
            self._due = now + SECOND_PROBE_S
            return None
        self._asked_at = now
        return self._in_full

    def answered(self, fits: bool, now: float) -> bool:
        """Whether live fits again."""
        if self._asked_at is None:
            return False
        self._asked_at = None
        back = fits and self._in_full
        self._in_full = fits and not back
        self._due = now + (SECOND_PROBE_S if self._in_full else self._pause_s)
        return back


class Probe:
    """A second of questions on the live path, and what their answers tell."""

    def __init__(self, up_bps: float, down_bps: float, now: float) -> None:
        a_second = max(up_bps / (8 * QUESTION_BYTES), down_bps / (8 * ANSWER_BYTES))
        self.every_s = 1 / a_second
        self._count = max(10, math.ceil(a_second * PROBE_S))
        self._began = now
        self._asked_at: list[float] = []
        self._took_s: dict[int, float] = {}

    def ask(self, now: float) -> int | None:
        """The number of a question that is due; None: none is."""
        number = len(self._asked_at)
        if number >= self._count or self._hopeless(now) or now < self._began + number * self.every_s:
            return None
        self._asked_at.append(now)
        return number

    def answered(self, number: int, now: float) -> None:
        self._took_s.setdefault(number, now - self._asked_at[number])

    def verdict(self, now: float) -> bool | None:
        """Whether the link carries it; None while that is open."""
        if self._hopeless(now):
            return False
        asked, answered = len(self._asked_at), len(self._took_s)
        if asked < self._count:
            return None
        waited_s = now - self._asked_at[-1]
        if answered < asked and waited_s < min(GIVE_UP_S, 2 * self._least_s + WAITS_S):
            return None
        return answered >= ANSWERED * asked

    def _hopeless(self, now: float) -> bool:
        """A queue grows: the rest would only make it longer."""
        return bool(self._took_s) and max(self._took_s.values()) > self._least_s + WAITS_S + self._jitter_s

    @property
    def _least_s(self) -> float:
        return min(self._took_s.values(), default=GIVE_UP_S)

    @property
    def _jitter_s(self) -> float:
        """By the first third: a path whose delay trembles is no full one."""
        early = [self._took_s[number] for number in range(self._count // 3) if number in self._took_s]
        return max(early) - self._least_s if early else 0.0
