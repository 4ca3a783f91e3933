"""The waiting room: who is next, who is rung, what a kiosk may expect, and what time alone decides.

Pure: the calls and doctors as they stand, and `now_ms`; out come answers and effects. Times are Unix milliseconds
of the hub's clock, not a monotonic one, because they come from a database that several processes share and that
outlives them all.

Rules:
1. Emergencies come first, then the oldest request. Nobody overtakes within a kind.
2. A call rings every available doctor who is in no call. An emergency that nobody has taken for
   `everyone_after_ms` rings every doctor with an open console, available or not, in a call or not.
3. A doctor's page or a kiosk may be gone for `gone_ms` in a call; then the call is over. A call in which the doctor
   and the patient talk does not need the kiosk's MQTT: it goes on while their media does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Phase = Literal["ringing", "claimed", "answered", "ended", "calling_kiosk"]
PresenceState = Literal["here", "busy", "nobody"]

RELOAD_GRACE_MS = 10_000  # a doctor who reloads the page has not left: kiosks are not told


@dataclass(frozen=True)
class Rules:
    everyone_after_ms: int = 30_000
    give_up_ms: int = 300_000
    kiosk_ring_ms: int = 60_000
    gone_ms: int = 60_000


@dataclass(frozen=True)
class WaitingDoctor:
    id: int
    available: bool
    connected: bool  # a console is open
    gone_since_ms: int = 0  # when the last one closed
    until: str = ""  # "hh:mm" when they said they are back
    until_at_ms: int = 0  # the moment that means


@dataclass(frozen=True)
class WaitingCall:
    """A call that has not ended."""

    id: str
    kiosk: str
    phase: Phase
    requested_at_ms: int
    emergency_at_ms: int = 0  # 0: not an emergency
    everyone: bool = False
    doctor: int | None = None
    kiosk_online: bool = True
    kiosk_gone_since_ms: int = 0
    media_lost: bool = False  # either end says that sound and picture are gone

    @property
    def emergency(self) -> bool:
        return self.emergency_at_ms > 0


@dataclass(frozen=True)
class Expectation:
    """What a kiosk tells its patient about the doctors."""

    state: PresenceState
    position: int = 0
    until: str = ""


@dataclass(frozen=True)
class RingEveryone:
    call: str


@dataclass(frozen=True)
class EndCall:
    call: str
    outcome: Literal["unanswered", "link_lost", "doctor_gone"]


Effect = RingEveryone | EndCall


def in_order(calls: Iterable[WaitingCall]) -> list[WaitingCall]:
    """The queue: calls that ring, in the order they will be taken."""
    ringing = (call for call in calls if call.phase == "ringing")
    return sorted(ringing, key=lambda call: (not call.emergency, call.requested_at_ms, call.id))


def in_call(calls: Iterable[WaitingCall]) -> set[int]:
    """Doctors who hold a call."""
    return {call.doctor for call in calls if call.doctor is not None and call.phase != "ended"}


def rings(call: WaitingCall, doctor: WaitingDoctor, busy: set[int]) -> bool:
    """Whether this doctor's console rings for this call; `busy` as of `in_call`."""
    if call.phase != "ringing" or not doctor.connected:
        return False
    return call.everyone or (doctor.available and doctor.id not in busy)


def expectation(kiosk: str, calls: Sequence[WaitingCall], doctors: Iterable[WaitingDoctor], now_ms: int) -> Expectation:
    """What to tell this kiosk. Its position is that of its own call, or the one a call would get."""
    doctors = list(doctors)
    queue = in_order(calls)
    own = [place for place, call in enumerate(queue, 1) if call.kiosk == kiosk]
    position = own[0] if own else len(queue) + 1
    present = {doctor.id for doctor in doctors if doctor.available and _present(doctor, now_ms)}
    if present - in_call(calls):
        return Expectation("here", position if own else 0)
    if present:
        return Expectation("busy", position)
    expected = [(doctor.until_at_ms, doctor.until) for doctor in doctors if doctor.until_at_ms > now_ms]
    return Expectation("nobody", own[0] if own else 0, min(expected)[1] if expected else "")


def due(calls: Iterable[WaitingCall], doctors: Iterable[WaitingDoctor], now_ms: int, rules: Rules) -> list[Effect]:
    """What time has decided by now."""
    by_id = {doctor.id: doctor for doctor in doctors}
    return [
        effect
        for call in calls
        for at_ms, effect in _deadlines(call, by_id, rules)
        if at_ms <= now_ms
    ]  # fmt: skip


def next_due_ms(
    calls: Iterable[WaitingCall], doctors: Iterable[WaitingDoctor], now_ms: int, rules: Rules
) -> int | None:
    """When to look again if nothing else happens: a deadline of a call, or a kiosk's expectation that changes."""
    by_id = {doctor.id: doctor for doctor in doctors}
    moments = [at_ms for call in calls for at_ms, _ in _deadlines(call, by_id, rules)]
    for doctor in by_id.values():
        if doctor.available and not doctor.connected and doctor.gone_since_ms + RELOAD_GRACE_MS > now_ms:
            moments.append(doctor.gone_since_ms + RELOAD_GRACE_MS)
        if doctor.until_at_ms > now_ms:
            moments.append(doctor.until_at_ms)
    return min(moments, default=None)


def _deadlines(call: WaitingCall, doctors: dict[int, WaitingDoctor], rules: Rules) -> list[tuple[int, Effect]]:
    """At most one way to end is named, the earliest, so that a call never ends twice in one look."""
    ends: list[tuple[int, Effect]] = []
    effects: list[tuple[int, Effect]] = []
    doctor = doctors.get(call.doctor) if call.doctor is not None else None
    if call.phase == "ringing":
        ends.append((call.requested_at_ms + rules.give_up_ms, EndCall(call.id, "unanswered")))
        if call.emergency and not call.everyone:
            effects.append((call.emergency_at_ms + rules.everyone_after_ms, RingEveryone(call.id)))
    if call.phase == "calling_kiosk":
        ends.append((call.requested_at_ms + rules.kiosk_ring_ms, EndCall(call.id, "unanswered")))
    if doctor is not None and not doctor.connected:
        ends.append((doctor.gone_since_ms + rules.gone_ms, EndCall(call.id, "doctor_gone")))
    if not call.kiosk_online and (call.phase in ("ringing", "claimed", "calling_kiosk") or call.media_lost):
        ends.append((call.kiosk_gone_since_ms + rules.gone_ms, EndCall(call.id, "link_lost")))
    if ends:
        effects.append(min(ends, key=lambda end: end[0]))
    return effects


def _present(doctor: WaitingDoctor, now_ms: int) -> bool:
    return doctor.connected or (doctor.gone_since_ms > 0 and now_ms < doctor.gone_since_ms + RELOAD_GRACE_MS)
