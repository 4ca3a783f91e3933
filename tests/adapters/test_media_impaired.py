"""A real media process in a call whose far end goes mad: what it sends is cut, doubled, reordered, forged and numbered
anew, before and after encryption; its reports lie, and strangers send rubbish to the same port. Then it falls silent,
and then it speaks: the process lives, is no larger, and is heard and seen.

One storm by one seed here; `scripts/fuzz` raises more and longer ones, with a longer silence.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import aiortc.codecs
import aiortc.rtcrtpsender
import numpy as np
import pylibsrtp
import pytest
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpCodecParameters, RTCRtpHeaderExtensionParameters
from aiortc.rtp import RtpPacket, is_rtcp
from av.packet import Packet
from numpy.typing import NDArray

from edge_agent import ipc
from edge_agent.core import sdp, transport_cc
from edge_agent.core.voice import VoicePlan
from edge_agent.media import egress, hooks
from edge_agent.media.voice import VoiceCoder
from tests.adapters.media_bench import FarEnd, LoopedSound, MediaBench, Stutter
from tests.adapters.test_media_process import Voices, kiosk
from tests.e2e import speech
from tests.impairments import WAYS, Mangler, rtcp

STORM_S, SILENCE_S = 3.0, 1.5
LONG_SEEDS, LONG_STORM_S, LONG_SILENCE_S = 20, 12.0, 8.0
HEARD_AGAIN_S = 1.5
WINDOW_S = 8.1  # `speech.heard` judges 8 s
MOST_GROWTH_MB = 25.0
STRANGERS_S = 0.01
# SRTP itself refuses, at either end, all that comes after a number that is far ahead of its own.
ENCRYPTABLE = [way for way in WAYS if way not in ("stray_sequence", "jump_back")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "storm" in metafunc.fixturenames:
        long = metafunc.config.getoption("--hypothesis-profile", None) == "long"
        storms = [(seed, LONG_STORM_S, LONG_SILENCE_S) for seed in range(LONG_SEEDS)] if long else []
        metafunc.parametrize("storm", storms or [(0, STORM_S, SILENCE_S)], ids=lambda storm: f"seed {storm[0]}")


class SpeechInRed(LoopedSound):
    """As a browser sends it: each packet with the frame before it."""

    def __init__(self, samples: NDArray[np.int16]) -> None:
        super().__init__(samples)
        self._coder = VoiceCoder()

    async def recv(self) -> Any:
        frame = await super().recv()
        if self.readyState != "live":
            raise MediaStreamError
        (coded,) = self._coder.code(frame.to_ndarray()[0], VoicePlan(red_depth=1), hooks.OPUS)
        packet = Packet(coded.payload)
        packet.pts, packet.time_base = coded.position, frame.time_base
        return packet


class MadFarEnd(FarEnd):
    """Speaks RED, numbers its packets, and has a `Mangler` and lying reports between itself and the wire."""

    def __init__(self, samples: NDArray[np.int16], dice: Random) -> None:
        self.came: list[RtpPacket] = []
        self.mangler = Mangler(dice, ENCRYPTABLE)
        self.mangler.mad = self.silent = False
        self._dice = dice
        super().__init__(samples)
        voice, _ = self.connection.getTransceivers()
        voice.sender.replaceTrack(SpeechInRed(samples))

    async def answer(self, offer: bytes) -> bytes:
        answer = await super().answer(offer)
        voice, _ = self.connection.getTransceivers()
        hooks.tap(voice.receiver, self.came.append)
        self._transport: Any = voice.sender.transport
        self._stand_between(self._transport)
        return answer

    def calm_down(self) -> None:
        """And do what is asked of the streams by the numbers that they have now."""
        self.mangler.mad = False
        senders = self._transport._rtp_router.senders
        for origin, ssrc in self.mangler.ssrcs.items():
            if origin in senders:
                senders[ssrc] = senders[origin]

    def _stand_between(self, transport: Any) -> None:
        send, send_encrypted = transport._send_rtp, transport.transport._send
        senders = {each.sender._ssrc for each in self.connection.getTransceivers()}

        async def mad_send(data: bytes) -> None:
            if self.silent:
                return
            packets = [data] if is_rtcp(data) else self.mangler.mangle(data)
            if self.mangler.mad and self._dice.random() < 0.2:
                kiosk_ssrcs = tuple({packet.ssrc for packet in self.came}) or (1,)
                packets.append(rtcp(self._dice, kiosk_ssrcs, tuple(senders)))
            for packet in packets:
                try:
                    await send(packet)
                except (pylibsrtp.Error, ValueError):
                    continue  # it encrypts no half headers, none that are numbered far back, and none over its length

        async def mad_send_encrypted(data: bytes) -> None:
            media = bool(data) and 127 < data[0] < 192
            if not (self.mangler.mad and media and self._dice.random() < 0.1):
                await send_encrypted(data)
                return
            for packet in self._dice.choice(ENCRYPTED_WAYS)(data, self._dice):
                await send_encrypted(packet)

        transport._send_rtp, transport.transport._send = mad_send, mad_send_encrypted


ENCRYPTED_WAYS: tuple[Callable[[bytes, Random], list[bytes]], ...] = (
    lambda data, dice: [data[: dice.randint(1, len(data))]],
    lambda data, dice: [data] * dice.randint(2, 20),
    lambda data, dice: [data[:-1] + bytes([data[-1] ^ 1])],
    lambda data, dice: [data[:12] + dice.randbytes(len(data))],
)


def from_a_stranger(dice: Random) -> bytes:
    match dice.randrange(6):
        case 0:
            return b""
        case 1:  # STUN with an attribute that is cut short
            kind = dice.choice((0x0006, 0x0008, 0x0009, 0x0020, 0x0024, 0x8028, 0x802A))
            body = struct.pack("!HH", kind, 1) + dice.randbytes(4)
            return (
                struct.pack("!HHL", dice.choice((1, 0x101, 0x111)), len(body), 0x2112A442) + dice.randbytes(12) + body
            )
        case 2:
            return bytes([dice.choice((20, 21, 22, 23)), 0xFE, 0xFD]) + dice.randbytes(dice.choice((0, 10, 60)))  # DTLS
        case 3:
            return bytes([0x80, dice.choice((96, 110, 200, 205))]) + dice.randbytes(dice.choice((0, 10, 60)))
        case _:
            return dice.randbytes(dice.randint(1, 1400))


async def strangers(offer: bytes, dice: Random) -> None:
    """At each address that the kiosk has told, until cancelled."""
    places = re.findall(r"a=candidate:\d+ 1 udp \d+ (\d+\.\d+\.\d+\.\d+) (\d+) typ host", sdp.decompress(offer))
    assert places
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        while True:
            for host, port in places:
                stranger.sendto(from_a_stranger(dice), (host, int(port)))
            await asyncio.sleep(STRANGERS_S)


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Voices:
    return Voices(tmp_path_factory.mktemp("voices"))


@pytest.fixture
def _far_end_with_red(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock aiortc, taught what a browser knows."""
    red = RTCRtpCodecParameters("audio/red", 48_000, 2, hooks.RED, parameters={f"{hooks.OPUS}/{hooks.OPUS}": None})
    monkeypatch.setitem(aiortc.codecs.CODECS, "audio", [*aiortc.codecs.CODECS["audio"], red])
    monkeypatch.setattr(aiortc.rtcrtpsender, "get_encoder", hooks._get_encoder)
    number = RTCRtpHeaderExtensionParameters(id=egress.EXTENSION_ID, uri=transport_cc.URI)
    for kind in ("audio", "video"):
        monkeypatch.setitem(aiortc.codecs.HEADER_EXTENSIONS, kind, [*aiortc.codecs.HEADER_EXTENSIONS[kind], number])


@pytest.mark.usefixtures("_far_end_with_red")
async def test_after_a_storm_there_is_voice(
    tmp_path: Path,
    voices: Voices,
    storm: tuple[int, float, float],
) -> None:
    seed, storm_s, silence_s = storm
    dice = Random(seed)
    far = MadFarEnd(voices.doctor, dice)
    async with MediaBench(tmp_path, kiosk(voices, tmp_path)).running() as bench:
        try:
            await bench.connect(far)
            await bench.expect(ipc.FirstHeard)
            await bench.expect(ipc.FirstSeen)
            offer = await bench.expect(ipc.OfferMade)
            before_mb, before_cpu_s = bench.pss_mb(), bench.cpu_s()

            far.mangler.mad = True
            others = asyncio.create_task(strangers(offer.sdp, dice))
            await bench.stays(storm_s)
            others.cancel()
            far.calm_down()
            far.silent = True
            await bench.stays(silence_s)
            far.silent = False
            storm_cpu_s = bench.cpu_s() - before_cpu_s

            await bench.stays(HEARD_AGAIN_S)
            heard = await heard_at_the_kiosk(bench, voices, tmp_path)
            came, frames = len(far.came), len(bench.frames)
            await bench.expect_pictures(5, after=frames)
            await bench.stays(1.0)
            assert len(far.came) - came >= 10
            after_mb = bench.pss_mb()
        finally:
            await far.close()
    print(f"{dict(far.mangler.done)}; {before_mb:.0f} to {after_mb:.0f} MB, {storm_cpu_s:.1f} s of CPU; {heard}")
    assert far.mangler.done.total() >= 20 * storm_s
    assert after_mb - before_mb <= MOST_GROWTH_MB
    assert "Traceback" not in bench.log
    assert heard.share >= 0.9


async def heard_at_the_kiosk(bench: MediaBench, voices: Voices, folder: Path) -> speech.Heard:
    """Of the next stretch, or of a later one where this machine was too busy to judge by it."""
    with Stutter() as stutter:
        for _ in range(3):
            stutter.start_over()
            before = len(speech.read_wav(folder / "speaker.wav"))
            await bench.stays(WINDOW_S)
            played = speech.read_wav(folder / "speaker.wav")[before:]
            heard = await asyncio.to_thread(speech.heard, voices.doctor, played)
            if heard.share >= 0.9 or not stutter.too_busy:
                return heard
            print(heard)
    pytest.skip("this machine is too busy to judge sound by: run this test alone")
