"""Who gets what of the link, each way: voice, what protects it, stills, moving pictures, and what waits for the hub.

Pure: rates, losses and `now` in, an `Allocation` out, asked a few times a second. Everything is counted in wire bits,
with headers, reports and retransmissions. What is taken away is taken at once; what is given is given late:

- The voice's coding gets better when the rate of the last `VOICE_WINDOW_S` allows it.
- Pictures go up one step of `FORMS` when the rate of the last `FORM_WINDOW_S` carries it with something to spare, and
  stay until much less is there than they need. A step that had to be taken back is tried again later each time.
- While a call is held, and in its first seconds, there is nothing to be careful of: the form is as the rate says.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, replace

from edge_agent.core.pacer import longest_packet_bytes
from edge_agent.core.split import messages_bps
from edge_agent.core.voice import (
    CONTROL_BPS,
    HEADER_BYTES,
    MARGIN,
    Direction,
    PicturePlan,
    VoicePlan,
    browser_plan,
    kiosk_plan,
)

PICTURE_HEADER_BYTES = HEADER_BYTES + 4  # VP8's own
PICTURES_CONTROL_BPS = 3_000  # beside CONTROL_BPS: reports on more packets, and on two streams
PICTURES_AGAIN = 0.04  # of their room is for what was lost of them, and as much as is lost
VOICE_SHARE = 0.45  # at most, beside moving pictures
MOST_VOICE_BPS = 110_000  # of the wire; more does not help it, and repairs losses only
UNMEASURED_VOICE_BPS = 90_000  # where losses may come of too much being sent, they are mended within this
USUAL_SHARE = 0.6  # of the longest packet that a link may have
LEAST_PICTURES_BPS = 6_000  # a rate that falls by and by makes pictures worse, and then fewer


class Motion(enum.Enum):
    NONE = "none"
    STILLS = "stills"
    MOVING = "moving"


@dataclass(frozen=True)
class _Form:
    width: int
    height: int
    rate: float  # pictures a second
    least_bps: int  # coded, without headers: with less than this it is not begun
    most_bps: int  # more does not show

    @property
    def motion(self) -> Motion:
        return Motion.STILLS if self.rate < 1 else Motion.MOVING


FORMS = (
    _Form(320, 240, 1 / 60, 400, 400),  # 3 kB
    _Form(320, 240, 1 / 5, 4_000, 4_800),
    _Form(160, 120, 7.5, 11_000, 40_000),
    _Form(240, 180, 12.0, 30_000, 80_000),
    _Form(320, 240, 15.0, 70_000, 500_000),
    _Form(640, 480, 15.0, 260_000, 1_500_000),
)
"""From the least on; a form's number in a way's state is its place here counted from 1, 0 being none."""
STILLS_FROM_BPS = {1: 22_000.0, 2: 29_000.0}  # of the link: below them the voice would pay for the stills

TO_RISE, TO_STAY = 1.2, 0.7  # times a form's least
FORM_WINDOW_S, VOICE_WINDOW_S = 3.0, 10.0
STEP_S = 2.5
SETTLING_S = 6.0  # of a call that is heard
RELAPSE_S = 30.0  # a step that held for less was one too many
FIRST_WAIT_S, LONGEST_WAIT_S = 15.0, 120.0
PAUSE_BELOW_BPS = 128_000.0  # beside a sharp still moving pictures pause; above, they share what there is
REPLAN_BY, REPLAN_S = 0.04, 2.0  # a voice plan is looked for when the rate has moved so far, or losses may have
LOSSY = 0.08
FINER_BY = 0.08  # a picture's rate in bits goes up by no less


@dataclass(frozen=True)
class Share:
    """Of one way."""

    rate_bps: float  # of the whole link
    voice: VoicePlan
    pictures: PicturePlan | None
    pictures_wire_bps: float = 0.0  # with headers and what is sent again
    reason: str = ""  # why there is not more: "", "thin", "lossy", "careful" (a step was taken back) or "guessed"

    @property
    def motion(self) -> Motion:
        if self.pictures is None:
            return Motion.NONE
        return Motion.STILLS if self.pictures.rate < 1 else Motion.MOVING


@dataclass(frozen=True)
class Allocation:
    up: Share  # from the kiosk
    down: Share
    messages_bps: float  # for MQTT, up
    call_bps: float  # for all else that leaves the kiosk


class Allocator:
    """Of one leg. `extra_bytes` goes on top of IPv4's packets: a relay's header, IPv6's."""

    def __init__(self, extra_bytes: int = 0) -> None:
        self._up, self._down = _Way(up=True), _Way(up=False)
        self._heard_since: float | None = None
        self.extra_bytes = extra_bytes

    def share(
        self, up: Direction, down: Direction, now: float, *, held: bool = False, still_waits: bool = False
    ) -> Allocation:
        """`held`: connected, and nobody is heard or seen yet. `still_waits`: a sharp still is on its way up, and goes
        before moving pictures."""
        if held:
            self._heard_since = None
        elif self._heard_since is None:
            self._heard_since = now
        settling = self._heard_since is None or now - self._heard_since < SETTLING_S
        messages = messages_bps(up.rate_bps)
        return Allocation(
            self._up.share(self._useful(up), now, settling, still_waits),
            self._down.share(self._useful(down), now, settling, False),
            messages,
            up.rate_bps - messages,
        )

    def _useful(self, way: Direction) -> Direction:
        """What is left when longer headers are paid."""
        usual_bytes = USUAL_SHARE * longest_packet_bytes(way.rate_bps)
        return replace(way, rate_bps=way.rate_bps * usual_bytes / (usual_bytes + self.extra_bytes))


class _Way:
    def __init__(self, up: bool) -> None:
        self._up = up
        self._rates: deque[tuple[float, float]] = deque()  # when, bit/s
        self._form = 0
        self._stepped_at = -1e9
        self._rose_at: float | None = None
        self._wait_s = 0.0  # before the next step up
        self._voice: VoicePlan | None = None
        self._voice_for: tuple[float, float, Motion] | None = None
        self._voice_at = -1e9
        self._picture_bps = 0

    def share(self, way: Direction, now: float, settling: bool, still_waits: bool) -> Share:
        if settling:
            self._rates.clear()  # a guess says nothing of what came after it
        self._rates.append((now, way.rate_bps))
        while now - self._rates[0][0] > VOICE_WINDOW_S:
            self._rates.popleft()
        self._choose_form(way, now, settling)
        form = FORMS[self._form - 1] if self._form else None
        voice = self._choose_voice(way, now, settling, form.motion if form else Motion.NONE)
        pictures = self._plan(form, way, voice)
        if still_waits and pictures is not None:
            pictures = None if way.rate_bps < PAUSE_BELOW_BPS else replace(pictures, bps=pictures.bps // 2)
        wire_bps = _wire_bps(pictures.bps, way.rate_bps, way.loss) if pictures else 0.0
        return Share(way.rate_bps, voice, pictures, wire_bps, self._why(way, now))

    def _least_of(self, window_s: float, now: float) -> float:
        return min(bps for at, bps in self._rates if now - at <= window_s)

    # --- pictures

    def _choose_form(self, way: Direction, now: float, settling: bool) -> None:
        stays = self._most_form(way.rate_bps, way, TO_STAY)
        if settling:
            rises = self._most_form(way.rate_bps, way, TO_RISE)
            self._form = max(min(self._form, stays), rises)
            self._stepped_at = now
            return
        if stays < self._form:
            if self._rose_at is not None and now - self._rose_at < RELAPSE_S:
                self._wait_s = min(LONGEST_WAIT_S, max(FIRST_WAIT_S, 2 * self._wait_s))
            self._form, self._stepped_at, self._rose_at = stays, now, None
            return
        if self._rose_at is not None and now - self._rose_at >= RELAPSE_S:
            self._wait_s, self._rose_at = 0.0, None
        steady = self._least_of(FORM_WINDOW_S, now)
        if self._most_form(steady, way, TO_RISE) > self._form and now - self._stepped_at >= max(STEP_S, self._wait_s):
            self._form += 1
            self._stepped_at = self._rose_at = now

    def _most_form(self, rate_bps: float, way: Direction, times: float) -> int:
        """The highest form that this rate carries with `times` its least."""
        coded = _coded_bps(rate_bps, way.loss, _voice_room_bps(replace(way, rate_bps=rate_bps), Motion.MOVING))
        found = 0
        for number, form in enumerate(FORMS, 1):
            if form.motion is Motion.STILLS:
                from_bps = STILLS_FROM_BPS[number]
                # On a thin link even a still stands before the voice, so there is none until it is measured.
                fits = way.measured and rate_bps >= from_bps * (1.0 if times > 1 else 0.82)
            else:
                fits = coded >= form.least_bps * times
            if fits:
                found = number
        return found

    def _plan(self, form: _Form | None, way: Direction, voice: VoicePlan) -> PicturePlan | None:
        if form is None:
            self._picture_bps = 0
            return None
        if form.motion is Motion.STILLS:
            return PicturePlan(form.most_bps, form.width, form.height, form.rate)
        coded = int(min(form.most_bps, max(LEAST_PICTURES_BPS, _coded_bps(way.rate_bps, way.loss, voice.wire_bps))))
        if coded < self._picture_bps or coded > self._picture_bps * (1 + FINER_BY) or coded == form.most_bps:
            self._picture_bps = coded
        return PicturePlan(self._picture_bps, form.width, form.height, form.rate)

    # --- voice

    def _choose_voice(self, way: Direction, now: float, settling: bool, motion: Motion) -> VoicePlan:
        rate_bps = way.rate_bps if settling else self._least_of(VOICE_WINDOW_S, now)
        last = self._voice_for
        moved = last is None or last[2] is not motion or abs(rate_bps - last[0]) > REPLAN_BY * last[0]
        if (
            self._voice is None
            or moved
            or (now - self._voice_at >= REPLAN_S and last is not None and way.loss != last[1])
        ):
            at_rate = replace(way, rate_bps=rate_bps)
            choose = kiosk_plan if self._up else browser_plan
            current = None if settling else self._voice  # there is nothing yet to be careful of
            self._voice = choose(at_rate, _voice_room_bps(at_rate, motion), current)
            self._voice_for, self._voice_at = (rate_bps, way.loss, motion), now
        return self._voice

    # --- in words

    def _why(self, way: Direction, now: float) -> str:
        if self._form == len(FORMS):
            return ""
        if not way.measured:
            return "guessed"
        if way.loss >= LOSSY:
            return "lossy"
        if self._wait_s and now - self._stepped_at < self._wait_s:
            return "careful"
        return "thin"


def _voice_room_bps(way: Direction, motion: Motion) -> float:
    """For voice, its headers and what protects it."""
    room = way.rate_bps * (1 - MARGIN) - CONTROL_BPS
    most = MOST_VOICE_BPS if way.measured else UNMEASURED_VOICE_BPS
    if motion is Motion.MOVING:
        return min(room * VOICE_SHARE, most)
    if motion is Motion.STILLS and way.rate_bps >= STILLS_FROM_BPS[2]:
        room -= _wire_bps(FORMS[1].most_bps, way.rate_bps, way.loss)
    return min(room, most)


def _coded_bps(rate_bps: float, loss: float, voice_bps: float) -> float:
    """What is left for coded moving pictures beside a voice that takes `voice_bps` of the wire."""
    room = (rate_bps - messages_bps(rate_bps)) * (1 - MARGIN) - CONTROL_BPS - PICTURES_CONTROL_BPS - voice_bps
    return room / _wire_bps(1.0, rate_bps, loss)


def _wire_bps(coded_bps: float, rate_bps: float, loss: float) -> float:
    """With headers and what is sent again."""
    headers = 1 - PICTURE_HEADER_BYTES / longest_packet_bytes(rate_bps)
    return coded_bps / headers / (1 - PICTURES_AGAIN - min(loss, 0.4))
