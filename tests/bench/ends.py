"""The two ends of a measured call: the kit's media process, stock aiortc, or a browser, each in a namespace of the lab.

An end speaks and shows the known material and says afterwards what it said, heard, showed and saw: its `Testimony`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import av
import cv2
import numpy as np
from playwright.async_api import Page, Playwright, Route

from edge_agent import ipc
from edge_agent.core import sdp
from edge_agent.core.wire import IceServer
from hardware.numbered import read_number
from tests.adapters.media_bench import MediaBench, cpu_s, pss_mb
from tests.bench.devices import EAR, LENS, MOUTH, read_sightings
from tests.bench.marks import Sighting
from tests.bench.material import Grey, Material, grey
from tests.bench.recording import Piece, Sound, lay_out, read_pieces, read_pieces_from
from tests.bench.rows import Tuning
from tests.bench.stock_main import SIGHTED, STILL_EVERY_S, STILLS
from tests.e2e.pictures import HEIGHT, WIDTH, number_of_levels
from tests.e2e.tap import CHROMIUM
from tests.linklab.lab import Namespace

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
CONSOLE_SCRIPTS = ROOT / "hub" / "static" / "js"
SETTLE_S = 40.0  # longer than this nobody waits for a call to begin
CALL = b"benchcal"

Still = tuple[float, int, Grey]  # when shown, number, at the originals' size

PAGE = """<!doctype html><meta charset="utf-8"><title>bench</title>
<video id="own" autoplay muted playsinline></video><video id="far" autoplay playsinline></video>
<script src="/page.js"></script>"""


@dataclass
class Testimony:
    said: Sound
    heard: Sound
    shown: list[Sighting]
    seen: list[Sighting]
    stills: list[Still]
    size: str = ""  # of the far picture at the end, as 320×240


@dataclass(frozen=True)
class Meter:
    """Counts since the start of an end."""

    cpu_s: float = 0.0
    pss_mb: float = 0.0
    concealed: float = 0.0  # samples, or whatever unit `played` has
    played: float = 0.0


class End(Protocol):
    async def meter(self) -> Meter: ...

    async def state(self) -> str:
        """As RTCPeerConnection's: connected, failed, closed …"""

    async def testimony(self) -> Testimony: ...


class NearEnd(End, Protocol):
    """The one that offers."""

    async def offer(self) -> str: ...

    async def take_answer(self, answer: str) -> None: ...


# --- the kit


class KitEnd:
    """The media process as the kiosk has it, driven as the agent drives it."""

    def __init__(self, bench: MediaBench, material: Material) -> None:
        self._bench, self._material = bench, material
        self._taken = {MOUTH: 0, EAR: 0}  # bytes

    @property
    def frames(self) -> list[tuple[float, Any]]:
        """What has come from the process, with its time; whoever listens for long clears it."""
        return self._bench.frames

    def take_pieces(self) -> list[list[Piece]]:
        """What was said and what was played, each since it was last asked."""
        taken = []
        for name, offset in self._taken.items():
            pieces, self._taken[name] = read_pieces_from(self._bench.folder / name, offset)
            taken.append(pieces)
        return taken

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, where: Namespace, folder: Path, material: Material, told: tuple[int, int] | None, paced: bool
    ) -> AsyncIterator[KitEnd]:
        """`told`: what the link carries up and down, in kbit/s, in its configuration."""

        def command(socket_path: Path, config: Path) -> list[str]:
            program = [sys.executable, "-m", "tests.bench.kit_main", str(socket_path), str(config)]
            more = [] if paced else ["unpaced"]
            return where.command([*program, str(material.patient), str(material.film), str(folder), *more])

        link = {} if told is None else {"link": {"up_kbps": told[0], "down_kbps": told[1]}}
        async with MediaBench(folder, {"board": "none"}, command, link).running() as bench:
            await bench.expect(ipc.MediaReady)
            yield cls(bench, material)

    async def offer(self) -> str:
        self._bench.send(ipc.StartCall(CALL, 1, (), held=False))
        return sdp.decompress((await self._bench.expect(ipc.OfferMade)).sdp)

    async def take_answer(self, answer: str) -> None:
        self._bench.send(ipc.TakeAnswer(CALL, 1, sdp.compress(answer)))

    async def state(self) -> str:
        states = {ipc.MediaConnected: "connected", ipc.MediaLost: "failed"}
        return next((states[type(frame)] for _, frame in reversed(self._bench.frames) if type(frame) in states), "new")

    async def meter(self) -> Meter:
        stats = next((frame for _, frame in reversed(self._bench.frames) if isinstance(frame, ipc.CallStats)), None)
        return Meter(
            self._bench.cpu_s(),
            self._bench.pss_mb(),
            stats.concealed_ms if stats else 0,
            time.monotonic() * 1000,  # something is played all the time
        )

    async def testimony(self) -> Testimony:
        self._bench.send(ipc.StopCall())
        self._bench.writer.close()
        await self._bench.process.wait()
        seen, stills, size = await asyncio.to_thread(self._pictures)
        return Testimony(**_devices_heard(self._bench.folder), seen=seen, stills=stills, size=size)

    def _pictures(self) -> tuple[list[Sighting], list[Still], str]:
        """What a page would show, by the time it was handed over."""
        decoder: Any = av.CodecContext.create("libvpx", "r")
        seen: list[Sighting] = []
        stills: list[Still] = []
        size, next_still = "", 0.0
        for at, frame in self._bench.frames:
            if not isinstance(frame, ipc.FarPicture):
                continue
            with contextlib.suppress(av.FFmpegError):
                for decoded in decoder.decode(av.Packet(frame.data)):
                    picture = decoded.to_ndarray(format="bgr24")
                    size = f"{decoded.width}×{decoded.height}"
                    if (number := read_number(picture)) is not None:
                        seen.append((at, number))
                        if at >= next_still:
                            next_still = at + STILL_EVERY_S
                            stills.append((at, number, _full_size(grey(picture))))
        return seen, stills, size


# --- stock aiortc


class StockEnd:
    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process, self._folder = process, folder
        self._state = "new"
        self._offer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, where: Namespace, folder: Path, material: Material) -> AsyncIterator[StockEnd]:
        program = [
            sys.executable,
            "-m",
            "tests.bench.stock_main",
            str(material.patient),
            str(material.film),
            str(folder),
        ]
        with (folder / "stock.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *where.command(program),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, cwd=ROOT,
            )  # fmt: skip
        end = cls(process, folder)
        try:
            yield end
        finally:
            await end._stop()
            await end._listening

    async def offer(self) -> str:
        return await asyncio.wait_for(self._offer, SETTLE_S)

    async def take_answer(self, answer: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"answer": answer}).encode() + b"\n")
        await self._process.stdin.drain()

    async def state(self) -> str:
        return self._state

    async def meter(self) -> Meter:
        if self._process.returncode is not None:
            return Meter()
        return Meter(cpu_s(self._process.pid), pss_mb(self._process.pid))

    async def testimony(self) -> Testimony:
        await self._stop()
        stills = await asyncio.to_thread(self._stills)
        return Testimony(**_devices_heard(self._folder), seen=read_sightings(self._folder / SIGHTED), stills=stills)

    def _stills(self) -> list[Still]:
        path = self._folder / STILLS
        if not path.exists():
            return []
        with np.load(path) as kept:
            return [
                (float(at), int(number), _full_size(kept[f"arr_{index}"]))
                for index, (at, number) in enumerate(zip(kept["times"], kept["numbers"], strict=True))
            ]

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            self._state = said.get("state", self._state)
            if "offer" in said:
                self._offer.set_result(said["offer"])

    async def _stop(self) -> None:
        if self._process.returncode is not None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


# --- a browser


class BrowserEnd:
    """Headless Chromium; `tuning` is how it is limited by hand, None for its defaults."""

    def __init__(self, page: Page, clock_ms: float, tuning: Tuning | None) -> None:
        self._page, self._clock_ms, self._tuning = page, clock_ms, tuning

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        playwright: Playwright,
        where: Namespace,
        folder: Path,
        wav: Path,
        film: Path,
        tuning: Tuning | None = None,
    ) -> AsyncIterator[BrowserEnd]:
        folder.mkdir(exist_ok=True)
        inside = folder / "chromium"
        inside.write_text(f'#!/bin/sh\nexec {" ".join(where.command([CHROMIUM]))} "$@"\n')
        inside.chmod(0o755)
        browser = await playwright.chromium.launch(
            executable_path=str(inside),
            args=[
                "--no-sandbox",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={wav}",
                f"--use-file-for-fake-video-capture={film}",
                "--autoplay-policy=no-user-gesture-required",
                # Nothing but the call may use the link.
                "--disable-features=WebRtcHideLocalIpsWithMdns",
                "--disable-background-networking",
                "--disable-component-update",
                "--host-resolver-rules=MAP * ~NOTFOUND",
            ],
        )
        try:
            page = await browser.new_page()
            await page.route("**/*", _serve)
            await page.goto("http://localhost/")
            end = cls(page, await _clock_ms(page), tuning)
            await page.evaluate("pictures => bench.open(pictures)", tuning is None or tuning.video_bps > 0)
            yield end
        finally:
            await browser.close()

    async def answer_as_console(self, offer: str, servers: Sequence[IceServer] = ()) -> str:
        given = [
            {"urls": list(each.urls), "username": each.username, "credential": each.credential} for each in servers
        ]
        answer: str = await self._page.evaluate(
            "([offer, servers]) => bench.answerAsConsole(offer, servers)", [offer, given]
        )
        return answer

    async def add_candidates(self, offer: str) -> None:
        """The same offer again, with more of them."""
        await self._page.evaluate("offer => bench.addCandidates(offer)", offer)

    async def answer_by_now(self) -> str:
        """The console's answer with the candidates that have come."""
        answer: str = await self._page.evaluate("bench.answerByNow()")
        return answer

    async def chosen_pair(self) -> tuple[str, ...]:
        """The types of this end's candidate and of the far one; empty before there is a connection."""
        return tuple(await self._page.evaluate("bench.chosenPair()"))

    async def answer(self, offer: str) -> str:
        arguments = [self._munged(offer), self._red]
        answer: str = await self._page.evaluate("([offer, red]) => bench.makeAnswer(offer, red)", arguments)
        await self._limit()
        return answer

    async def offer(self) -> str:
        offer: str = await self._page.evaluate("red => bench.makeOffer(red)", self._red)
        return offer

    async def take_answer(self, answer: str) -> None:
        await self._page.evaluate("answer => bench.takeAnswer(answer)", self._munged(answer))
        await self._limit()

    async def state(self) -> str:
        state: str = (await self._counts())["state"]
        return state

    async def meter(self) -> Meter:
        counts = await self._counts()
        return Meter(concealed=counts.get("concealed", 0), played=counts.get("played", 0))

    async def testimony(self) -> Testimony:
        counts = await self._counts()
        stills = []
        for index in range(await self._page.evaluate("bench.notes.stills.length")):
            still = await self._page.evaluate("index => bench.takeStill(index)", index)
            if (number := number_of_levels(still["levels"])) is not None:
                picture = np.frombuffer(base64.b64decode(still["grey"]), np.uint8).reshape(HEIGHT, WIDTH)
                stills.append((self._monotonic(still["at"]), number, picture))
        return Testimony(
            said=await self._sound("mouth"),
            heard=await self._sound("ear"),
            shown=await self._sightings("lens"),
            seen=await self._sightings("screen"),
            stills=stills,
            size=f"{counts['width']}×{counts['height']}" if counts.get("width") else "",
        )

    @property
    def _red(self) -> bool:
        return self._tuning is not None and self._tuning.red

    def _munged(self, far_sdp: str) -> str:
        """What the far end is made to ask for decides what is sent from here."""
        return far_sdp if self._tuning is None else munged(far_sdp, self._tuning)

    async def _limit(self) -> None:
        if self._tuning is not None:
            limits = [
                self._tuning.voice_bps, self._tuning.video_bps, self._tuning.scale_down, self._tuning.picture_rate
            ]  # fmt: skip
            await self._page.evaluate("limits => bench.limitSending(...limits)", limits)

    async def _counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = await self._page.evaluate("bench.counts()")
        return counts

    async def _sound(self, name: str) -> Sound:
        return lay_out(await self.take_pieces(name))

    async def take_pieces(self, name: str) -> list[Piece]:
        """Of "mouth" or "ear", since it was last asked."""
        taken = await self._page.evaluate("name => bench.takeSound(name)", name)
        samples = np.frombuffer(base64.b64decode(taken["samples"]), "<i2")
        pieces, offset = [], 0
        for at, rate, length in zip(taken["at"], taken["rate"], taken["length"], strict=True):
            pieces.append(Piece(self._monotonic(at), rate, samples[offset : offset + length]))
            offset += length
        return pieces

    async def _sightings(self, name: str) -> list[Sighting]:
        noted = await self._page.evaluate("name => bench.notes[name].map(({at, levels}) => [at, levels])", name)
        numbers = ((self._monotonic(at), number_of_levels(levels)) for at, levels in noted)
        return [(at, number) for at, number in numbers if number is not None]

    def _monotonic(self, page_ms: float) -> float:
        return (page_ms + self._clock_ms) / 1000


def munged(text: str, tuning: Tuning) -> str:
    """A far end's SDP with the limits of `tuning` in it: Opus's rate and packet time (RFC 7587), and the rate at which
    Chromium starts its picture."""
    opus = re.search(r"a=rtpmap:(\d+) opus/48000/2", text)
    assert opus is not None
    pattern = rf"a=fmtp:{opus[1]} .*"
    wishes = f"a=fmtp:{opus[1]} minptime=10;useinbandfec=1;maxaveragebitrate={tuning.voice_bps}"
    packets = f"a=ptime:{tuning.ptime_ms}\r\na=maxptime:120"
    text = re.sub(pattern, f"{wishes}\r\n{packets}", text, count=1)
    if (vp8 := re.search(r"a=rtpmap:(\d+) VP8/90000\r\n", text)) and tuning.video_bps:
        kbps = tuning.video_bps // 1000
        start = f"a=fmtp:{vp8[1]} x-google-start-bitrate={kbps};x-google-max-bitrate={kbps}\r\n"
        text = text.replace(vp8[0], vp8[0] + start, 1)
    return text


async def _serve(route: Route) -> None:
    """The page and the console's scripts, without any network."""
    path = route.request.url.partition("localhost")[2]
    if path == "/":
        await route.fulfill(body=PAGE, content_type="text/html")
    elif path == "/page.js":
        await route.fulfill(path=HERE / "page.js", content_type="text/javascript")
    elif path.startswith("/js/") and (script := CONSOLE_SCRIPTS / Path(path).name).is_file():
        await route.fulfill(path=script, content_type="text/javascript")
    else:
        await route.fulfill(status=404)


async def _clock_ms(page: Page) -> float:
    """CLOCK_MONOTONIC at performance.now() = 0: of many questions the one that was answered fastest."""
    best = (float("inf"), 0.0)
    for _ in range(40):
        asked = time.monotonic()
        now_ms: float = await page.evaluate("bench.now()")
        took = time.monotonic() - asked
        best = min(best, (took, (asked + took / 2) * 1000 - now_ms))
    return best[1]


def _devices_heard(folder: Path) -> dict[str, Any]:
    return {
        "said": lay_out(read_pieces(folder / MOUTH)),
        "heard": lay_out(read_pieces(folder / EAR)),
        "shown": read_sightings(folder / LENS),
    }


def _full_size(picture: Grey) -> Grey:
    return np.asarray(cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR), np.uint8)
