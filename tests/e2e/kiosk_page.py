"""The kiosk's screen and board, driven over the two WebSockets their pages use."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import av
import msgspec
import websockets
from websockets.asyncio.client import ClientConnection, connect

from hardware.numbered import read_number
from kiosk.screen import PictureKind, View
from tests.e2e.pictures import Sighting
from tests.e2e.reconnecting import ReconnectingClient

T = TypeVar("T")
Dial = Callable[[str, int], socket.socket]  # how to reach the kiosk's loopback from elsewhere

_decode_view = msgspec.json.Decoder(View).decode


class Change(NamedTuple, Generic[T]):
    at: float  # time.time()
    value: T


class _Client(ReconnectingClient):
    """Keeps one WebSocket up over restarts of the agent."""

    def __init__(self, port: int, path: str, dial: Dial | None) -> None:
        super().__init__()
        self._port, self._path, self._dial = port, path, dial

    async def open(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        url = f"ws://127.0.0.1:{self._port}{self._path}"
        while True:
            try:
                way = await asyncio.to_thread(self._dial, "127.0.0.1", self._port) if self._dial else None
                async with connect(url, sock=way, proxy=None, max_size=2**22, open_timeout=5) as opened:
                    await self._opened(opened)
                    await self._note(opened)
                    async for frame in opened:
                        self._take(frame, time.time())
                        await self._note(opened)
            except (OSError, websockets.WebSocketException, TimeoutError):
                await asyncio.sleep(0.1)
            finally:
                self._socket = None

    async def _note(self, opened: ClientConnection) -> None:
        async with self._changed:
            self._socket = opened
            self._changed.notify_all()

    async def _opened(self, opened: ClientConnection) -> None:
        pass

    def _take(self, frame: str | bytes, at: float) -> None:
        raise NotImplementedError


class KioskPage(_Client):
    """What the page on the kiosk's screen would show, and what a finger on it does."""

    def __init__(self, port: int, dial: Dial | None = None) -> None:
        super().__init__(port, "/ws", dial)
        self.views: list[Change[View]] = []
        self.far_pictures: list[Sighting] = []  # (Unix seconds, number) of each far picture that could be decoded
        self.decoded_at: list[float] = []  # Unix seconds of each far picture, numbered or not
        self.undecodable = 0
        self._decoder: av.VideoCodecContext | None = None

    @property
    def view(self) -> View:
        return self.views[-1].value

    async def act(self, do: str, value: str = "") -> None:
        await self.send({"do": do, "value": value})

    async def until(self, wanted: Callable[[View], bool], what: str, timeout_s: float = 15.0) -> View:
        """The view as soon as it is as wanted."""
        return (await self.when(wanted, what, timeout_s, since=max(0, len(self.views) - 1))).value

    async def when(
        self, wanted: Callable[[View], bool], what: str, timeout_s: float = 15.0, since: int = 0
    ) -> Change[View]:
        """The first of `views[since:]` that is as wanted, with its time; waits for it."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                while True:
                    for change in self.views[since:]:
                        if wanted(change.value):
                            return change
                    since = len(self.views)
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"the kiosk's screen did not show {what} in {timeout_s} s: {self._brief()}") from None

    def _brief(self) -> str:
        """The last view without its words, for people who read failures."""
        if not self.views:
            return "it shows nothing"
        view = self.views[-1].value
        shown = {name: getattr(view, name) for name in view.__struct_fields__ if name not in ("words", "complaints")}
        return f"it shows { ({name: value for name, value in shown.items() if value}) }"

    async def until_sees(self, since: float, timeout_s: float = 10.0) -> Sighting:
        """The first numbered far picture that arrived after `since` (Unix seconds)."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                while not (fresh := [sighting for sighting in self.far_pictures if sighting[0] >= since]):
                    await self._changed.wait()
                return fresh[0]
        except TimeoutError:
            raise AssertionError(f"no numbered picture reached the kiosk's screen in {timeout_s} s") from None

    async def _opened(self, opened: ClientConnection) -> None:
        self._decoder = None
        await opened.send('{"do":"pictures_as","value":"vp8"}')

    def _take(self, frame: str | bytes, at: float) -> None:
        if isinstance(frame, str):
            self.views.append(Change(at, _decode_view(frame)))
        elif frame[0] == PictureKind.FAR_VP8:
            self._decode(bool(frame[1] & 1), frame[6:], at)

    def _decode(self, key: bool, data: bytes, at: float) -> None:
        if self._decoder is None:
            if not key:
                return  # the page would wait too
            self._decoder = av.CodecContext.create("vp8", "r")
        try:
            for picture in self._decoder.decode(av.Packet(data)):
                self.decoded_at.append(at)
                number = read_number(picture.to_ndarray(format="gray"))
                if number is not None:
                    self.far_pictures.append((at, number))
        except av.error.FFmpegError:
            self.undecodable += 1


class Lamp(NamedTuple):
    light: str
    pressed: bool


class BoardPanel(_Client):
    """The panel of the simulated board: the finger on the real button's path, the eye on the lamp."""

    def __init__(self, port: int, dial: Dial | None = None) -> None:
        super().__init__(port, "/board/ws", dial)
        self.lamps: list[Change[Lamp]] = []

    @property
    def light(self) -> str:
        return self.lamps[-1].value.light

    async def down(self) -> float:
        """Unix seconds of the press."""
        at = time.time()
        await self.send({"do": "down"})
        return at

    async def up(self) -> None:
        await self.send({"do": "up"})

    async def press(self, hold_s: float = 0.1) -> float:
        """As the board saw it: on a busy machine what was sent apart may arrive at once, and would be bounce."""
        at = await self.down()
        await self._until_pressed(True)
        await asyncio.sleep(hold_s)  # a finger's time on the button,
        await self.up()
        await self._until_pressed(False)
        await asyncio.sleep(0.1)  # and off it: what is shorter is bounce
        return at

    async def _until_pressed(self, pressed: bool) -> None:
        async with asyncio.timeout(10.0), self._changed:
            await self._changed.wait_for(lambda: bool(self.lamps) and self.lamps[-1].value.pressed is pressed)

    async def until_light(self, *lights: str, timeout_s: float = 10.0, since: int | None = None) -> Change[Lamp]:
        """The first lamp of `lights`, from now on or from `lamps[since]` on."""
        index = max(0, len(self.lamps) - 1) if since is None else since
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                while True:
                    for change in self.lamps[index:]:
                        if change.value.light in lights:
                            return change
                    index = len(self.lamps)
                    await self._changed.wait()
        except TimeoutError:
            lamps = [change.value.light for change in self.lamps[-5:]]
            raise AssertionError(f"the lamp did not show {lights} in {timeout_s} s; last {lamps}") from None

    def _take(self, frame: str | bytes, at: float) -> None:
        shown = msgspec.json.decode(frame)
        self.lamps.append(Change(at, Lamp(shown["light"], shown["pressed"])))
