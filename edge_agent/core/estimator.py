"""How much may leave onto a link, from what is known of the packets that left.

Pure: what was sent and what the far end told of it in, with `now`; a rate and a bound on bytes in flight out. One way
of one path; rates and sizes are those on the wire, IP and UDP headers included. docs/bandwidth.md says which published
design each part follows, and what it does on RFC 8867's cases.

The rate rises while no queue stands, and falls to less than what the link hands over when one does, so that it drains.
It does not rise far above what was really sent. A start knows nothing: the bound that a round trip gives, and short
trains of useful packets, tell within a second what doubling would take many for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edge_agent.core.linkloss import LossModel
from edge_agent.core.queueing import Delivery, StandingQueue
from edge_agent.core.transport_cc import TICK_S, Fate

UNKNOWN_BPS = 28_000.0  # where nothing is known: voice and its headers
REMEMBERED_SHARE = 0.5  # of what the last call knew is begun with (after draft-ietf-tsvwg-careful-resume)

# The queue that is aimed at: more where packets are long for the link, and where a flow's share is small (as in Swift,
# section 3.2: flows with less give way later, which makes shares alike).
LEAST_TARGET_S, TARGET_S_AT_1M = 0.040, 0.008
DRAIN_S = 0.6  # in about so long the queue is to be gone
LEAST_FACTOR, MOST_FACTOR = 0.5, 0.95  # of what the link hands over, while it drains
DRAINED_SHARE = 0.87  # of what the link hands over is gone on with then
FAR_BELOW = 0.6  # of what was sent is handed over: the link is another, which needs no second look
STANDS = 0.85  # as much is handed over as was sent: the queue does not grow
USED = 0.7  # of the rate was sent, or what is handed over tells nothing

GROWTH_AT_1M_BPS = 30_000.0  # a second, with the square root of the rate: shares that are not alike come together
FASTER_AFTER_S = 4.0  # without a queue; then with the square of the time, as CUBIC looks for what has become free
MOST_GROWTH = 1.0  # a second
NEAR_FROM, NEAR_TO = 0.85, 1.2  # of what the link was last found to do
CAREFUL, FAST = 1.0, 2.0
EASE = 0.5  # a second at most, while less than the target stands
THIN_BPS = 100e3
MOST_CAREFUL = 0.06  # a second: calls of short and of long round trips alike
CARRIED_S = 3.0
LEAST_RISES = 0.02  # a report, of the way to what is seen
UNUSED = 1.5  # of what was really sent: above, nothing is known
UNUSED_AT_START = 2.0

TRAIN_S = 0.050  # so much of a link's time a train must take to be believed
FIRST_TRAIN_BYTES = 450
TRAIN_GROWTH = 4
MOST_TRAIN_BYTES = 8_000  # 1 Mbit/s can be seen, which is enough for all that a call shows; the rest is grown to
FEWEST_OF_TRAIN = 3
TRAIN_SHARE, TRAIN_MOST_SHARE = 0.8, 0.9  # of what a train shows is taken: others may be on the link
TRAIN_PATIENCE_S = 3.0

FOREIGN_AFTER_S, FOREIGN_AFTER_ANSWERS = 1.5, 3  # a queue that stays although less is sent is not ours
FOREIGN_REMEMBERED_S = 20.0  # so long the next that stands is taken for theirs at once
FOREIGN_CHECK_S = 15.0  # so long until it is looked anew whose it is
FOREIGN_LOSS_FACTOR = 0.85
FOREIGN_SEGMENT_BITS = 8 * 1200.0  # each round trip, as TCP

SILENCE_S = 1.0  # and two round trips
SILENCE_SHARE = 0.5  # of the last good rate is gone on with
RAMP_SHARE = 0.9  # and doubled up to


class Estimator:
    """`start_bps`: what the last call over this network learnt; None: nothing is known."""

    def __init__(
        self, now: float, start_bps: float | None = None, *, least_bps: float = 8_000.0, most_bps: float = 20e6
    ) -> None:
        self.known = False  # whether `rate_bps` is measured; else it is a guess
        self.silence = False  # nothing comes back; `rate_bps` keeps what was last known
        self.rtt_s: float | None = None
        self._least_bps, self._most_bps = least_bps, most_bps
        self._rate_bps = max(UNKNOWN_BPS, (start_bps or 0.0) * REMEMBERED_SHARE)
        self._expected_bps = start_bps or 0.0
        self._delivery, self._queue, self._losses = Delivery(), StandingQueue(), LossModel()
        self._starting = True
        self._link_bps = math.inf  # as far as is known, what the link does
        self._drained_bps = 0.0  # to be gone on with when no queue stands any more
        self._stands_since: float | None = None  # a queue, whatever is done
        self._unanswered_bps = 0.0  # the rate then
        self._is_foreign = False
        self._foreign_since = now
        self._foreign_until = now  # it is taken for that again sooner
        self._hold_until = now
        self._clear_since = now
        self._ramp_to_bps = 0.0
        self._carried: list[tuple[float, float]] = []  # when, how much was handed over
        self._updated_at = now
        self._heard_at = now
        self._every_s = 0.1  # between two reports
        self._age_s = 0.2  # of the newest packet that a report tells of
        self._least_age_s = 1.0
        self._unheard = 0  # packets since something came back
        self._stale_until = now  # of packets that left before, delays and losses are an outage's
        self._sent_since_report = self._told_since_report = 0
        self._train_bytes = FIRST_TRAIN_BYTES
        self._train: tuple[float, float, int] | None = None  # began, last left, bytes to come
        self._train_fates: list[Fate] = []
        self._trains_done = False

    @property
    def rate_bps(self) -> float:
        """All that may leave; what the allocator shares out."""
        return min(self._most_bps, max(self._least_bps, self._rate_bps))

    @property
    def queue_s(self) -> float:
        """What stands on the link."""
        return self._queue.seconds

    @property
    def loss(self) -> float:
        """Share of the packets, of late."""
        return self._losses.recent

    @property
    def inherent_loss(self) -> float:
        """Of it, what the link loses whatever is sent."""
        return self._losses.inherent

    @property
    def target_s(self) -> float:
        """The queue that may stand."""
        return LEAST_TARGET_S + TARGET_S_AT_1M * math.sqrt(1e6 / self.rate_bps)

    def remembered(self) -> float | None:
        """What the next call over this network may start from; None: nothing was learnt."""
        return self.rate_bps if self.known else None

    # --- what happens

    def sent(self, wire_bytes: int, now: float) -> None:
        """Each packet as it leaves, voice too, with or without a transport-cc number: before its fate is told."""
        if self._unheard == 0:
            self._heard_at = max(self._heard_at, now - self._every_s)  # a pause of ours is no silence of the link's
        self._unheard += 1
        self._sent_since_report += 1
        self._delivery.sent(wire_bytes, now)
        if self._train is not None and self._train[2] > 0:
            began, _, left = self._train
            self._train = (began, now, left - wire_bytes)

    def take_fates(self, fates: Sequence[Fate], now: float) -> None:
        """What a transport-cc report told."""
        if not fates:
            return
        self._every_s += 0.2 * (min(1.0, now - self._heard_at) - self._every_s)
        self._heard(now)
        fresh = [fate for fate in fates if fate.sent_at >= self._stale_until]
        for fate in fates:
            self._delivery.told(fate.sent_at, fate.received_at if fate.sent_at >= self._stale_until else None)
        if not fresh:
            return
        self._told_since_report += len(fresh)
        lost = sum(fate.received_at is None for fate in fresh)
        excess = self._losses.add(len(fresh), lost, self.rate_bps)
        came = [fate for fate in fresh if fate.received_at is not None]
        if came:
            for fate in came:
                if self._train is None or not self._train[0] <= fate.sent_at <= self._train[1]:  # that is its own queue
                    self._queue.add(fate.sent_at, fate.received_at or 0.0, fate.size_bytes)
            self._queue.update(self._link_bps)
            age_s = now - came[-1].sent_at
            self._age_s += 0.3 * (age_s - self._age_s)
            self._least_age_s += (1.0 if age_s < self._least_age_s else LEAST_RISES) * (age_s - self._least_age_s)
            self._note_train(came)
        self._update(excess, lost, now)

    def take_receiver_report(self, fraction_lost: float, rtt_s: float | None, now: float) -> None:
        """RFC 3550: the share lost since the last one, and the round trip where it can be told."""
        self._heard(now)
        packets, told = self._sent_since_report, self._told_since_report
        self._sent_since_report = self._told_since_report = 0
        if packets and told < packets / 2:  # else their fates are known one by one
            excess = self._losses.add(packets, packets * fraction_lost, self.rate_bps)
            if excess:
                self._lower(self.rate_bps * (1 - excess), self.rate_bps * (1 - excess), now)
        if rtt_s is not None:
            self.take_rtt(rtt_s, now)

    def take_rtt(self, rtt_s: float, now: float, wire_bytes: int = 0) -> None:
        """Of a question and its answer, of `wire_bytes` together where that is known: the link cannot have taken
        longer for their bits, so it is no slower than that."""
        self._heard(now)
        self.rtt_s = rtt_s if self.rtt_s is None else self.rtt_s + 0.3 * (rtt_s - self.rtt_s)
        if self._starting and rtt_s > 0:
            self._rate_bps = max(self._rate_bps, TRAIN_SHARE * 8 * wire_bytes / rtt_s)

    def tick(self, now: float) -> None:
        """Time passes: ten times a second or so."""
        patience_s = SILENCE_S + 2 * (self.rtt_s or self._age_s) + self._every_s
        if not self.silence and self._unheard > 2 and now - self._heard_at > patience_s:
            self.silence = True
        if self._train is not None and now - self._train[0] > TRAIN_PATIENCE_S:
            self._train, self._trains_done = None, True

    def has_room(self, now: float) -> bool:
        """Whether anything but voice may leave now: what is under way is bounded. Never asked for voice."""
        if self.silence:
            return False
        waits_s = self._least_age_s + self._every_s + self.target_s
        return 8 * self._delivery.in_flight_bytes <= self.rate_bps * waits_s + 8 * 3 * FIRST_TRAIN_BYTES

    # --- trains

    def probe(self, now: float) -> int | None:
        """Bytes wanted at once, unpaced, of something useful, in three numbered packets or more; None: nothing. For
        while nobody is heard yet: a train stands on the slowest links for a quarter of a second."""
        if self._trains_done or self._train is not None or self.silence or not self._starting:
            return None
        return int(self._train_bytes)

    def probe_sent(self, wire_bytes: int, now: float) -> None:
        """A train of this size is about to leave; its packets are told by `sent` as all others."""
        self._train = (now, now, wire_bytes)
        self._train_fates = []

    def _note_train(self, came: Sequence[Fate]) -> None:
        if self._train is None or self._train[2] > 0:
            return
        began, ended, _ = self._train
        self._train_fates += [fate for fate in came if began <= fate.sent_at <= ended]
        if came[-1].sent_at >= ended:
            fates, self._train = self._train_fates, None
            self._judge_train([fate.size_bytes for fate in fates], [fate.received_at or 0.0 for fate in fates])

    def _judge_train(self, sizes: list[int], arrivals: list[float]) -> None:
        if len(sizes) < FEWEST_OF_TRAIN:
            self._trains_done = True  # so much was lost that the next would tell no more
            return
        believed_bps = max(8 * sum(sizes) / TRAIN_S, self._expected_bps)
        shown_bps = 8 * sum(sizes[1:]) / max(arrivals[-1] - arrivals[0], TICK_S)
        self.known = True
        self._rate_bps = max(self._rate_bps, TRAIN_SHARE * min(shown_bps, believed_bps))
        self._train_bytes *= TRAIN_GROWTH
        if shown_bps < believed_bps:
            self._rate_bps = min(self._rate_bps, TRAIN_MOST_SHARE * shown_bps)
            self._link_bps = shown_bps
            self._trains_done, self._starting = True, False
        elif self._train_bytes > MOST_TRAIN_BYTES:
            self._trains_done = True

    # --- the rate

    def _heard(self, now: float) -> None:
        self._heard_at = now
        self._unheard = 0
        if self.silence:
            self.silence = False
            self._stale_until = now
            self._ramp_to_bps = max(self._ramp_to_bps, self.rate_bps)
            self._rate_bps = self.rate_bps * SILENCE_SHARE
            self._queue.restart()
            self._delivery.restart()

    def _update(self, excess: float, lost: int, now: float) -> None:
        passed_s, self._updated_at = min(0.5, now - self._updated_at), now
        rates = self._delivery.rates()
        if rates is not None:
            overflown = max(0.0, self.loss - self.inherent_loss)  # what is lost on the way has been handed over
            rates = rates[0] * (1 - overflown), rates[1]
            self._carried = [(at, bps) for at, bps in self._carried if now - at < CARRIED_S]
            self._carried.append((now, rates[0]))
        queue_s, target_s = self.queue_s, self.target_s
        if excess and not self._is_foreign:
            self._lower(self.rate_bps * (1 - excess), self.rate_bps * (1 - excess), now)
        if queue_s < target_s / 2:
            self._stands_since, self._is_foreign = None, False
            self._rate_bps, self._drained_bps = max(self._rate_bps, self._drained_bps), 0.0
            if now >= self._hold_until:
                self._grow(passed_s, now)
        elif self._is_foreign:
            self._share_with_others(lost, passed_s, now)
        elif rates is not None:
            if queue_s > target_s:
                self._answer_queue(queue_s, *rates, now)
            elif not self._starting:
                least_bps = self.rate_bps * (1 - EASE * passed_s)  # of a moment, which jitter spoils
                self._rate_bps = min(self._rate_bps, max(rates[0], least_bps))  # what stands there grows no further

    def _answer_queue(self, queue_s: float, handed_bps: float, sent_bps: float, now: float) -> None:
        stands = handed_bps > STANDS * sent_bps  # and does not grow by what we do
        if not stands:
            self._stands_since = None
        elif self._stands_since is None:
            self._stands_since, self._unanswered_bps = now, self.rate_bps
        if stands and self._is_somebody_elses(now):
            self._is_foreign = True
            self._foreign_since = now
            self._rate_bps = max(self.rate_bps, FOREIGN_LOSS_FACTOR * self._unanswered_bps)
        elif now >= self._hold_until or handed_bps < FAR_BELOW * sent_bps:
            factor = min(MOST_FACTOR, max(LEAST_FACTOR, 1 - queue_s / DRAIN_S))
            if stands and sent_bps < USED * self.rate_bps:  # what is handed over is all that was sent
                handed_bps = USED * self.rate_bps
            self._lower(handed_bps * factor, handed_bps, now)

    def _is_somebody_elses(self, now: float) -> bool:
        patience_s = max(FOREIGN_AFTER_S, FOREIGN_AFTER_ANSWERS * (self._least_age_s + 2 * self._every_s))
        patience_s += self.queue_s / (1 - LEAST_FACTOR)  # as long as one of ours takes to drain
        since = self._stands_since
        return now < self._foreign_until or (since is not None and now - since > patience_s)

    def _lower(self, rate_bps: float, handed_bps: float, now: float) -> None:
        self._rate_bps = max(self._least_bps, min(self.rate_bps, rate_bps))
        self._link_bps = max(handed_bps, self._least_bps)
        self._drained_bps = max(self._rate_bps, min(DRAINED_SHARE * handed_bps, self._drained_bps or math.inf))
        self._starting = False
        self.known = True
        self._ramp_to_bps = 0.0
        self._hold_until = now + self._answer_s
        self._clear_since = now

    @property
    def _answer_s(self) -> float:
        """After so long what a rate does can be seen."""
        return self._age_s + 2 * self._every_s

    def _grow(self, passed_s: float, now: float) -> None:
        rate_bps = self.rate_bps
        # As much as may stand in the queue until it is seen: near what the link was last found to do, and away from it.
        most_careful = MOST_CAREFUL * max(1.0, math.sqrt(THIN_BPS / rate_bps))  # those with less catch up
        careful = min(most_careful, CAREFUL * self.target_s / self._answer_s**2)
        fast = min(MOST_GROWTH, FAST * self.target_s / self._answer_s**2)
        if self._starting or rate_bps < RAMP_SHARE * self._ramp_to_bps:
            sooner_s = self._answer_s - self._every_s
            growth_bps = rate_bps * min(math.log(2) / sooner_s, FAST * self.target_s / sooner_s**2)
        else:
            clear_s = now - self._clear_since
            growth_bps = GROWTH_AT_1M_BPS * math.sqrt(rate_bps / 1e6) * (1 + (clear_s / FASTER_AFTER_S) ** 2)
            if math.isinf(self._link_bps):
                growth_bps = min(growth_bps, fast * rate_bps)
            elif rate_bps < NEAR_FROM * self._link_bps:
                growth_bps = fast * rate_bps
            else:
                growth_bps = min(growth_bps, careful * rate_bps)
        unused = UNUSED_AT_START if self._starting else UNUSED
        most_bps = min(self._most_bps, unused * max((bps for _, bps in self._carried), default=0.0))
        if rate_bps < most_bps:
            self._rate_bps = min(rate_bps + growth_bps * passed_s, most_bps)
            if self._rate_bps > NEAR_TO * self._link_bps:
                self._link_bps = math.inf  # it has become another

    def _share_with_others(self, lost: int, passed_s: float, now: float) -> None:
        """A queue that stays whatever we do is somebody else's: losses tell when to give way, as they tell TCP."""
        self._foreign_until = now + FOREIGN_REMEMBERED_S
        if now - self._foreign_since > FOREIGN_CHECK_S:  # two calls that take each other for that would fill the queue
            self._is_foreign, self._foreign_until, self._stands_since = False, now, None
        if now < self._hold_until:
            return
        if lost > self.inherent_loss * 20:
            self._rate_bps = self.rate_bps * FOREIGN_LOSS_FACTOR
            self._hold_until = now + self._answer_s
        else:
            self._rate_bps = min(self._most_bps, self.rate_bps + FOREIGN_SEGMENT_BITS / self._age_s**2 * passed_s)
