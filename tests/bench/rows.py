"""What is measured: the links, what is promised on each, and how a browser is tuned by hand for that very link."""

from __future__ import annotations

from typing import NamedTuple

from tests.linklab.spec import LINKS, Link

PEERS_IN_WORDS = {
    "kit": "the kit's media process ↔ Chromium",
    "told": "the kit's media process ↔ Chromium, told in its configuration what the link carries",
    "unpaced": "the same as `told`, with its pacer letting everything go at once",
    "stock": "aiortc's own RTCPeerConnection ↔ Chromium, both at their defaults",
    "chromium": "Chromium ↔ Chromium at its defaults",
    "tuned": "Chromium ↔ Chromium, tuned by hand for the very link",
}
PEERS = tuple(PEERS_IN_WORDS)
KITS = ("kit", "told", "unpaced")
USUAL_PEERS = ("kit", "stock", "chromium", "tuned")

PACKETS_PER_S = 50  # of voice at 20 ms
VOICE_OVERHEAD_BITS = 8 * (20 + 8 + 12 + 8 + 10)  # IPv4, UDP, RTP, its extensions, SRTP's tag


class Tuning(NamedTuple):
    """Of a browser's sending, by SDP and `setParameters`."""

    voice_bps: int
    ptime_ms: int
    red: bool = False
    video_bps: int = 0  # 0: no video at all
    scale_down: float = 1.0  # of 640×480
    picture_rate: float = 15.0


class Target(NamedTuple):
    """What is promised of the kit's voice; `up` is kiosk → doctor."""

    up_pesq: float
    down_pesq: float
    heard: float
    delay_p95_ms: float


class Row(NamedTuple):
    name: str
    link: Link
    tuning: Tuning
    target: Target | None  # None: see the row's own words

    @property
    def kbps(self) -> tuple[int, int]:
        """Up and down; the least of them where it changes, as whoever must say one number would."""
        up, down = (round(min(bps for _, bps in way.rate.steps) / 1000) for way in self.link)
        return up, down


def _above(mean_kbps: float) -> Tuning:
    """24 kbit/s at 20 ms, and of what that leaves 85 % for the picture."""
    voice_bps = 24_000 + PACKETS_PER_S * VOICE_OVERHEAD_BITS
    return Tuning(24_000, 20, video_bps=round(0.85 * (mean_kbps * 1000 - voice_bps)))


_TUNINGS = {
    "18": Tuning(6_000, 120),
    "24": Tuning(6_000, 120, red=True),
    "32": Tuning(12_000, 60),
    "64": Tuning(12_000, 60, video_bps=30_000, scale_down=4.0, picture_rate=5.0),
    "128": Tuning(16_000, 40, video_bps=78_000, scale_down=2.0, picture_rate=10.0),
    "256": _above(256),
    "vsat": _above(256),
    "384": _above(384),
    "1000": _above(1000),
    "outages": _above(200),
    "steps": _above(264),  # the mean: whoever tunes by hand tunes once
}

_TARGETS = {
    "18": Target(2.9, 2.9, 0.97, 1200),
    "24": Target(2.7, 2.7, 0.97, 950),
    "32": Target(3.3, 3.3, 0.99, 700),
    "64": Target(3.5, 3.5, 0.99, 550),
    "128": Target(3.4, 3.4, 0.99, 500),
    "256": Target(3.4, 2.8, 0.98, 450),
    "vsat": Target(3.9, 3.9, 1.0, 550),
    "384": Target(3.5, 3.2, 0.99, 400),
    "1000": Target(4.1, 4.1, 1.0, 200),
    "steps": Target(3.5, 3.5, 0.98, 500),
}

ROWS = {name: Row(name, link, _TUNINGS[name], _TARGETS.get(name)) for name, link in LINKS.items()}
