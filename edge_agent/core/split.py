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
MOST_WINDOW_BYTES = 4096  # half a second of 64 kbit/s
# While people speak in turns since the link carries nothing live. A part of a turn is two or three times what the queue
# of such a link takes, and what does not fit is lost and waited for.
TURNS_BELOW_BPS = 18_000
TURNS_WINDOW_BYTES = 1800  # of 8 kbit/s a round trip of 1.3 s, and half a second
TURNS_SHARE = 0.75  # for what is said; the connection at rest takes the rest
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


def window_bytes(link_bps: float) -> int | None:
    """TCP's receive window, which bounds the queue before the link down to the kiosk; None: the system's own."""
    return None if link_bps >= THIN_BELOW_BPS else MOST_WINDOW_BYTES


def turns_window_bytes(link_bps: float) -> int | None:
    """The same in turns; None: as always, the link being only lossy, or unknown."""
    return TURNS_WINDOW_BYTES if 0 < link_bps < TURNS_BELOW_BPS else None


def turns_pacing_bps(link_bps: float) -> float | None:
    """How fast what is said in turns may leave, as TCP's pacing counts it; None: as fast as TCP goes."""
    if not 0 < link_bps < TURNS_BELOW_BPS:
        return None
    payload_bytes = LARGEST_SEGMENT_BYTES - TCP_OPTIONS_BYTES
    return TURNS_SHARE * link_bps * payload_bytes / (LARGEST_SEGMENT_BYTES + IP_TCP_BYTES)


def segment_bytes(link_bps: float) -> int | None:
    """TCP's MSS, so that none of its packets holds voice up for long; None: the system's own."""
    if link_bps >= THIN_BELOW_BPS:
        return None
    if not link_bps:
        return LARGEST_SEGMENT_BYTES
    longest = min(longest_packet_bytes(link_bps), int(link_bps * LONGEST_TCP_S / 8))
    return min(LARGEST_SEGMENT_BYTES, max(SHORTEST_SEGMENT_BYTES, longest - IP_TCP_BYTES))
