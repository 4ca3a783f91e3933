"""How the link's rate is split between a call and the messages that wait: fixed shares, until it is measured.

Pure.
"""

from __future__ import annotations

MESSAGES_SHARE = 0.10
LEAST_MESSAGES_BPS = 1_000.0
UNKNOWN_LINK_BPS = 64_000.0  # for messages a link that nobody knows is taken for a thin one: they can wait


def messages_bps(link_bps: float) -> float:
    """For MQTT while there is a call, headers included; 0: the link is not known."""
    return max(LEAST_MESSAGES_BPS, MESSAGES_SHARE * (link_bps or UNKNOWN_LINK_BPS))


def call_bps(link_bps: float) -> float:
    """For all that leaves through the call's pacer."""
    return link_bps - messages_bps(link_bps)
