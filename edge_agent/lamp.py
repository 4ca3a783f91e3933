"""What the lamp says, of everything that the agent knows: calls first, then what waits, then what is out of order."""

from __future__ import annotations

from edge_agent.core.call import State, Status
from hardware.api import Light

QUIET = (State.IDLE, State.SAVED, State.ENDED)  # nothing is under way: screen and lamp are free

# What needs a technician. Without a connection a message can still be left: that is no fault.
FAULTS = frozenset(
    {
        "button_stuck", "broker_refused", "certificate_wrong", "identity_in_use", "disk_full", "disk_broken",
        "not_joined",
    }
)  # fmt: skip

_LIGHTS = {
    State.RINGING: Light.CALLING,
    State.CLAIMED: Light.CLAIMED,
    State.LIVE: Light.LIVE,
    State.LOST: Light.LOST,
    State.TURNS: Light.MESSAGE,
    State.INCOMING: Light.CALLING,
    State.OFFER: Light.MESSAGE,
    State.DRAFT: Light.MESSAGE,
    State.EMERGENCY: Light.EMERGENCY,
}


def light(status: Status, *, advice_waits: bool, faulty: bool, reachable: bool, tested: Light | None = None) -> Light:
    """`tested`: what a self-test wants shown while nobody needs the lamp."""
    if status.emergency and status.state in (State.RINGING, State.LOST):
        return Light.EMERGENCY
    if status.speaking:
        return Light.LIVE
    if status.state not in QUIET:
        return _LIGHTS[status.state]
    if tested is not None:
        return tested
    if advice_waits:
        return Light.WAITING
    if faulty:
        return Light.FAULT
    return Light.READY if reachable else Light.MESSAGE
