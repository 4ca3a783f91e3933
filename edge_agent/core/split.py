"""What of the link is for MQTT, beside a call and without one; `edge_agent.core.allocator` shares out the rest.

Pure. Rates in bit/s, 0 where nobody knows.
"""

from __future__ import annotations

from edge_agent.core.pacer import longest_packet_bytes

MESSAGES_SHARE = 0.10
BURST_SHARE = 0.15  # on the thinnest links a call alone takes 80 %: faster, and packets queue up before the voice
THIN_BELOW_BPS = 512_000  # one that is good by half now may be a hundredth of it later in the same call
LARGEST_SEGMENT_BYTES = 536  # what every path carries (RFC 9293, 3.7.1)
USUAL_SEGMENT_BYTES = 1460
SHORTEST_SEGMENT_BYTES = 88  # Linux takes no less
LONGEST_TCP_S = 0.06  # of the link: one packet delays the next two or three of the voice, and ears wait for the latest
IP_TCP_BYTES = 40
TCP_OPTIONS_BYTES = 12  # its timestamps, within the segment
LEAST_BURST = 1.2  # of what they may use: the budget must be able to leave
LEAST_MESSAGES_BPS = 1_000.0
UNKNOWN_LINK_BPS = 64_000.0  # for messages a link that nobody knows is taken for a thin one: they can wait


def messages_bps(link_bps: float) -> float:
    """For MQTT while there is a call, headers included."""
    return max(LEAST_MESSAGES_BPS, MESSAGES_SHARE * (link_bps or UNKNOWN_LINK_BPS))


def pacing_bps(link_bps: float) -> float:
    """How fast what is sent of them in one go may leave, as TCP's pacing counts it: without headers. With gaps that
    voice slips into."""
    segment = (segment_bytes(link_bps) or USUAL_SEGMENT_BYTES) - TCP_OPTIONS_BYTES
    burst_bps = max(LEAST_BURST * messages_bps(link_bps), BURST_SHARE * (link_bps or UNKNOWN_LINK_BPS))
    return burst_bps * segment / (segment + IP_TCP_BYTES + TCP_OPTIONS_BYTES)


def segment_bytes(link_bps: float) -> int | None:
    """TCP's MSS, so that none of its packets holds voice up for long; None: the system's own."""
    if link_bps >= THIN_BELOW_BPS:
        return None
    if not link_bps:
        return LARGEST_SEGMENT_BYTES
    longest = min(longest_packet_bytes(link_bps), int(link_bps * LONGEST_TCP_S / 8))
    return min(LARGEST_SEGMENT_BYTES, max(SHORTEST_SEGMENT_BYTES, longest - IP_TCP_BYTES))
