"""What a bad link, a broken far end or a hostile one does to packets: RTP, RED and RTCP, before they are encrypted.

Pure and deterministic: the dice are handed in. `Mangler` is a far end that goes mad for a while; no longer `mad`, it is
an ordinary one again, which goes on with whatever numbers it has come to.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Collection
from random import Random

RTP_BYTES = 12
BIG_JUMP = 30_000  # sequence numbers
WAYS = (
    "lost", "twice", "late", "cut", "flipped", "emptied", "padded", "extended", "red", "stray_sequence",
    "stray_timestamp", "stray_ssrc", "other_payload_type", "jump_sequence", "jump_back", "jump_timestamp",
    "change_ssrc",
)  # fmt: skip


class Mangler:
    """`mangle` takes one RTP packet and gives those that leave in its place, in their order."""

    def __init__(
        self,
        dice: Random,
        ways: Collection[str] = WAYS,
        share: float = 0.5,
        number_extension: int = 3,
        payload_types: tuple[int, int] = (96, 110),
    ) -> None:
        """`share` of the packets have one of `ways` done to them while mad. `number_extension`: the id of the header
        extension that lies; `payload_types`: of Opus and RED."""
        self.mad = True
        self.done: Counter[str] = Counter()
        self._dice, self._share = dice, share
        self._extension, self._payload_types = number_extension, payload_types
        self._held: list[bytes] = []
        self._sequence_shift: dict[int, int] = {}  # by SSRC, for good
        self._timestamp_shift: dict[int, int] = {}
        self.ssrcs: dict[int, int] = {}  # what each has become
        self._ways: list[Callable[[bytes], list[bytes]]] = [getattr(self, f"_{way}") for way in WAYS if way in ways]

    def mangle(self, rtp: bytes) -> list[bytes]:
        packet = self._renumbered(rtp)
        if not self.mad or self._dice.random() >= self._share:
            held, self._held = self._held, []
            return [packet, *held]
        way = self._dice.choice(self._ways)
        self.done[way.__name__] += 1
        return way(packet)

    # --- once

    def _lost(self, packet: bytes) -> list[bytes]:
        return []

    def _twice(self, packet: bytes) -> list[bytes]:
        return [packet] * self._dice.randint(2, 5)

    def _late(self, packet: bytes) -> list[bytes]:
        self._held.append(packet)
        return []

    def _cut(self, packet: bytes) -> list[bytes]:
        return [packet[: self._dice.randint(0, len(packet))]]

    def _flipped(self, packet: bytes) -> list[bytes]:
        spoilt = bytearray(packet)
        for _ in range(self._dice.randint(1, 8)):
            spoilt[self._dice.randrange(min(RTP_BYTES, len(spoilt) - 1), len(spoilt))] ^= 1 << self._dice.randrange(8)
        return [bytes(spoilt)]

    def _emptied(self, packet: bytes) -> list[bytes]:
        return [packet[:RTP_BYTES]]

    def _padded(self, packet: bytes) -> list[bytes]:
        """The last byte tells more padding than there is packet, or all of it."""
        return [bytes([packet[0] | 0x20]) + packet[1:] + bytes([self._dice.choice((0, 1, 4, len(packet) % 256, 255))])]

    def _extended(self, packet: bytes) -> list[bytes]:
        """A header extension, or a list of sources, that is not what it says."""
        lie = self._dice.randrange(4)
        if lie == 0:
            return [bytes([packet[0] & 0xF0 | 15]) + packet[1:]]
        if lie == 1:
            return [bytes([packet[0] | 0x10]) + packet[1:RTP_BYTES] + b"\xbe\xde\xff\xff" + packet[RTP_BYTES:]]
        length = self._dice.choice((0, 2, 14))  # in bytes less one; the number has 2
        element = bytes([self._extension << 4 | length]) + self._bytes(length + 1)
        element += bytes(-len(element) % 4)
        profile = b"\xbe\xde" if lie == 2 else b"\x10\x00"
        heading = profile + struct.pack("!H", len(element) // 4)
        return [bytes([packet[0] | 0x10]) + packet[1:RTP_BYTES] + heading + element + packet[RTP_BYTES:]]

    def _red(self, packet: bytes) -> list[bytes]:
        """Older frames with lengths, offsets and counts that cannot be."""
        blocks = b"".join(
            bytes([0x80 | self._dice.choice((self._payload_types[0], 5))])
            + (self._dice.getrandbits(14) << 10 | self._dice.choice((0, 1, 5, 1023))).to_bytes(3, "big")
            for _ in range(self._dice.choice((0, 1, 3, 40)))
        )
        own = bytes([self._payload_types[0]]) if self._dice.random() < 0.7 else b""
        return [self._as(packet, self._payload_types[-1]) + blocks + own + self._bytes(self._dice.choice((0, 3, 40)))]

    def _stray_sequence(self, packet: bytes) -> list[bytes]:
        return [packet[:2] + self._bytes(2) + packet[4:]]

    def _stray_timestamp(self, packet: bytes) -> list[bytes]:
        near = self._dice.random() < 0.7  # within what could still be the same clock
        shift = self._dice.randint(-600_000, 90_000) if near else self._dice.getrandbits(32)
        timestamp = (int.from_bytes(packet[4:8], "big") + shift) % 2**32
        return [packet, packet[:4] + timestamp.to_bytes(4, "big") + packet[8:]]

    def _stray_ssrc(self, packet: bytes) -> list[bytes]:
        return [packet[:8] + self._bytes(4) + packet[12:]]

    def _other_payload_type(self, packet: bytes) -> list[bytes]:
        return [self._as(packet, self._dice.choice((0, 13, 63, 95, 97, 98, 127))) + packet[RTP_BYTES:]]

    # --- for good

    def _jump_sequence(self, packet: bytes) -> list[bytes]:
        return self._jump(packet, self._dice.choice((BIG_JUMP, 1000)))

    def _jump_back(self, packet: bytes) -> list[bytes]:
        return self._jump(packet, -self._dice.choice((BIG_JUMP, 1000)))

    def _jump(self, packet: bytes, shift: int) -> list[bytes]:
        own = int.from_bytes(packet[8:12], "big")
        self._sequence_shift[own] = self._sequence_shift.get(own, 0) + shift
        return []

    def _jump_timestamp(self, packet: bytes) -> list[bytes]:
        own = int.from_bytes(packet[8:12], "big")
        shift = self._dice.choice((-96_000, 48_000, 480_000, -480_000, self._dice.getrandbits(32)))
        self._timestamp_shift[own] = self._timestamp_shift.get(own, 0) + shift
        return []

    def _change_ssrc(self, packet: bytes) -> list[bytes]:
        own = int.from_bytes(packet[8:12], "big")
        origin = next((first for first, now in self.ssrcs.items() if now == own), own)
        self.ssrcs[origin] = self._dice.getrandbits(32)
        return []

    # --- within

    def _renumbered(self, packet: bytes) -> bytes:
        ssrc = int.from_bytes(packet[8:12], "big")
        ssrc = self.ssrcs.get(ssrc, ssrc)
        sequence = (int.from_bytes(packet[2:4], "big") + self._sequence_shift.get(ssrc, 0)) % 2**16
        timestamp = (int.from_bytes(packet[4:8], "big") + self._timestamp_shift.get(ssrc, 0)) % 2**32
        return packet[:2] + struct.pack("!HLL", sequence, timestamp, ssrc) + packet[RTP_BYTES:]

    def _as(self, packet: bytes, payload_type: int) -> bytes:
        """Its header, for another payload."""
        return packet[:1] + bytes([packet[1] & 0x80 | payload_type]) + packet[2:RTP_BYTES]

    def _bytes(self, count: int) -> bytes:
        return bytes(self._dice.getrandbits(8) for _ in range(count))


def rtcp(dice: Random, senders: tuple[int, ...], receivers: tuple[int, ...], transport_cc: bytes = b"") -> bytes:
    """A compound packet of things that cannot be: values, lengths and counts. `senders` are SSRCs whose packets it
    speaks of, `receivers` those it pretends to be; `transport_cc` a genuine report to spoil."""

    def number(bits: int) -> int:
        return dice.choice((0, 1, 2 ** (bits - 1), 2**bits - 1, dice.getrandbits(bits)))

    def packet(kind: int, count: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        return struct.pack("!BBH", 0x80 | count & 0x1F, kind, len(body) // 4) + body

    def block() -> bytes:
        lost = struct.pack("!L", number(8) << 24 | number(24))
        return struct.pack("!L", dice.choice(senders)) + lost + struct.pack("!LLLL", *(number(32) for _ in range(4)))

    own = struct.pack("!L", dice.choice(receivers))
    of = struct.pack("!L", dice.choice((*senders, 0)))
    count = dice.choice((0, 1, 2, 31))
    parts = []
    for _ in range(dice.randint(1, 3)):
        match dice.randrange(9):
            case 0:  # SR
                info = struct.pack("!QLLL", number(64), number(32), number(32), number(32))
                parts.append(packet(200, count, own + info + b"".join(block() for _ in range(count))))
            case 1:  # RR, and one that tells of more blocks than it has
                parts.append(packet(201, count, own + block() * dice.choice((count, 1))))
            case 2:  # REMB of no rate, all rates, and for more streams than it names
                rate = struct.pack("!BBH", dice.choice((1, 2, 255)), number(8), number(16))
                parts.append(packet(206, 15, own + bytes(4) + b"REMB" + rate + of))
            case 3:  # NACK of everything
                parts.append(packet(205, 1, own + of + struct.pack("!HH", number(16), 0xFFFF) * dice.choice((1, 20))))
            case 4:  # PLI, FIR, SLI
                parts.append(packet(206, dice.choice((1, 2, 4)), own + of))
            case 5:
                parts.append(packet(203, count, own * min(count, 2)))  # BYE
            case 6:  # SDES that ends in the middle of an item
                parts.append(packet(202, 1, own + bytes([1, dice.choice((0, 3, 255))]) + b"k"))
            case 7:  # transport-cc: counts and chunks that lie
                header = struct.pack("!HHL", number(16), number(16), number(32))
                chunks = b"".join(struct.pack("!H", number(16)) for _ in range(dice.randrange(12)))
                parts.append(packet(205, 15, own + of + (transport_cc or header + chunks)))
            case 8:  # what nobody knows
                parts.append(packet(dice.choice((192, 195, 204, 207)), count, own * 3))
    whole = bytearray(b"".join(parts))
    match dice.randrange(5):
        case 0:
            return bytes(whole[: dice.randint(0, len(whole))])
        case 1:
            whole[dice.randrange(len(whole))] = dice.getrandbits(8)
        case 2:
            whole[0] |= 0x20  # padding, of a length that the last byte tells
        case _:
            pass
    return bytes(whole)
