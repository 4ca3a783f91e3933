"""How the link's rate is split between a call and the messages that wait: fixed shares, until it is measured.

Pure.
"""

from __future__ import annotations

MESSAGES_SHARE = 0.10
LEAST_MESSAGES_BPS = 1_000.0


def messages_bps(link_bps: float) -> float:
    """For MQTT while there is a call, headers included."""
    return max(LEAST_MESSAGES_BPS, MESSAGES_SHARE * link_bps)


def call_bps(link_bps: float) -> float:
    """For all that leaves through the call's pacer."""
    return link_bps - messages_bps(link_bps)
