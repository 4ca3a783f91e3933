"""What an update does next. Pure: all that is known is handed in, times as seconds since.

    fetch → prepare → switch → on trial (watch) → confirm
                                               └→ back to the last good one

`current` is what runs, `good` what has proven itself; on trial they differ. A version is confirmed when its agent says
that it is ready (by then its store is open), its media process runs and it has reached the hub's broker; within
`TRIAL_S`, or it goes back. It is begun only while the version before it reaches the broker, so that a dead line is not
taken for a bad release; where the line dies just then, it is tried again later, `MOST_TRIES` times in all.

Whatever this misses (killed, or the power cut) `edge_agent/update/fallback` finds: it counts the starts of a version on
trial.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TRIAL_S = 300.0
AGAIN_S = (0.0, 3600.0, 6 * 3600.0)  # until the next try, after so many
MOST_TRIES = len(AGAIN_S)
FIRST_CHUNK_BYTES, LEAST_CHUNK_BYTES, MOST_CHUNK_BYTES = 8 * 1024, 4 * 1024, 256 * 1024
CHUNK_S = 1.0  # a call that begins waits no longer for what is under way; 4 KiB take 2 s at 18 kbit/s


@dataclass(frozen=True, slots=True)
class Agent:
    """How the kiosk's agent is, as its door says it."""

    quiet: bool  # no call, nobody uses the kiosk
    broker_up: bool = False
    media_up: bool = False
    version: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    current: str  # versions; "": none
    good: str
    agent: Agent | None = None  # None: it does not answer
    wanted: str = ""  # "": nothing newer
    by_hand: bool = False  # a technician stands here with the release: the line is not asked for
    has_files: bool = False  # all that the wanted release needs is here
    prepared: bool = False  # it is whole on the disk
    tries: int = 0  # of the wanted version, so far
    since_try_s: float = 0.0
    trial_s: float = 0.0  # so far, as this process has seen it
    may_fetch_bytes: int = 0  # of today's allowance


@dataclass(frozen=True, slots=True)
class Step:
    do: Literal["nothing", "fetch", "prepare", "switch", "watch", "confirm", "go_back"]
    why: str = ""


def next_step(known: Known) -> Step:
    agent = known.agent
    if known.current != known.good and known.good:
        return _on_trial(known)
    if not known.wanted or known.wanted == known.current:
        return Step("nothing", "this kiosk runs the newest release that is meant for it")
    if known.tries >= MOST_TRIES:
        return Step("nothing", f"release {known.wanted} failed here {known.tries} times and is not tried again")
    if agent is not None and not agent.quiet:
        return Step("nothing", "somebody uses the kiosk; it goes on later")
    if not known.has_files:
        if known.may_fetch_bytes < LEAST_CHUNK_BYTES and not known.by_hand:
            return Step("nothing", "today's bytes for updates are used up; it goes on tomorrow")
        return Step("fetch")
    if 0.0 <= known.since_try_s < AGAIN_S[known.tries]:  # below 0: a clock that was wrong
        return Step("nothing", f"release {known.wanted} did not get well here; it is tried again later")
    if not known.prepared:
        return Step("prepare")
    if agent is not None and not agent.broker_up and not known.by_hand:
        return Step("nothing", "the hub is not reached, so a new release could not show that it works; it waits")
    return Step("switch")


def _on_trial(known: Known) -> Step:
    agent = known.agent
    if agent is not None and agent.version == known.current and agent.media_up and (agent.broker_up or known.by_hand):
        return Step("confirm")
    if known.trial_s < TRIAL_S:
        return Step("watch")
    lacks = "its agent does not answer"
    if agent is not None:
        lacks = "its agent does not reach the hub" if agent.media_up else "its media process does not run"
    return Step("go_back", f"release {known.current} did not get well within {TRIAL_S:g} s: {lacks}")


def next_chunk(size_bytes: int, took_s: float) -> int:
    """How much to ask for next, when so much took so long."""
    if took_s > CHUNK_S:
        size_bytes //= 2
    elif took_s < CHUNK_S / 2:
        size_bytes *= 2
    return max(LEAST_CHUNK_BYTES, min(size_bytes, MOST_CHUNK_BYTES))


def allowance(day_bytes: int, spent_on: int, spent_bytes: int, today: int) -> int:
    """What is left of today's bytes. Days are numbers; one other than today is over, or a clock was wrong."""
    return max(0, day_bytes - (spent_bytes if spent_on == today else 0))
