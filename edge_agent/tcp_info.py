"""What the kernel counts of a TCP connection (Linux, tcp_info of linux/tcp.h): what a meter of the link sees."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

_LAYOUT = struct.Struct("=8B24I4Q6I4Q2I2Q")  # as far as tcpi_bytes_retrans: Linux 4.19
HEADERS_BYTES = 52  # IPv4 and TCP with time stamps


@dataclass(frozen=True)
class TcpInfo:
    min_rtt_ms: float
    sent: int  # segments with data
    sent_again: int
    used_bytes: int  # both ways, headers and repetitions included


def tcp_info(sock: socket.socket | None) -> TcpInfo | None:
    """None where there is no connection, or the kernel is older."""
    if sock is None:
        return None
    try:
        values = _LAYOUT.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAYOUT.size))
    except (OSError, struct.error):
        return None
    numbers, wide, segments, bytes_sent = values[8:32], values[32:36], values[36:42], values[48]
    total_retrans, received = numbers[23], wide[3]
    segs_out, segs_in, _, min_rtt_us, _, data_segs_out = segments
    used = bytes_sent + received + HEADERS_BYTES * (segs_out + segs_in)
    return TcpInfo(min_rtt_us / 1000, data_segs_out, total_retrans, used)
