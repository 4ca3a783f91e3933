"""The kiosk's web app: the page, its WebSocket, photos, and the panel of a simulated board.

It serves the screen of this machine alone. A request from another address, for another Host or from another page is
refused, so that neither the clinic's network nor a web page open in the same browser reaches patients' data. What the
page shows comes through `KioskPort`; this module knows nothing of calls or cases.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from hardware.api import LIGHT_PATTERNS, Light
from kiosk.screen import (
    MAX_ACTION_BYTES,
    Action,
    BadAction,
    PictureKind,
    View,
    encode_picture,
    encode_view,
    parse_action,
)

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
MAX_WAITING_VP8 = 12  # nearly a second at 15/s: a page further behind starts over at a key frame
KEY_FRAME_WAIT_S = 1.0  # a page asks no more often
CLOSE_BAD_DATA = 1007  # RFC 6455, 7.4.1
CLOSE_POLICY = 1008


class Picture(NamedTuple):
    kind: PictureKind
    key: bool
    time_ms: int
    data: bytes
    still: bool = False  # the next one may come a minute later


class KioskPort(Protocol):
    """What the web app needs of the agent. All of it is called on, and calls back on, the event loop."""

    def view(self) -> View: ...

    def act(self, action: Action) -> None: ...

    def subscribe(self, changed: Callable[[Picture | None], None]) -> Callable[[], None]:
        """`changed(None)`: there is a new view; `changed(picture)`: one more picture. Gives what unsubscribes."""

    async def file(self, id: str) -> bytes | None:
        """A JPEG that may be shown now: of the draft, or of what the worker's face has open."""

    def board(self) -> SimulatedButtonAndLamp | None:
        """None where the board is real."""


class SimulatedButtonAndLamp(Protocol):
    """What the board panel needs of `hardware.simulated.SimulatedBoard`."""

    def press(self) -> None: ...

    def release(self) -> None: ...

    def subscribe(self, changed: Callable[[Light, bool], None]) -> Callable[[], None]: ...


def make_app(agent: KioskPort) -> Starlette:
    app = _WebApp(agent)
    routes = [
        Route("/", app.page),
        Route("/light-patterns", app.light_patterns),
        Route("/files/{id}", app.file),
        Route("/board", app.board_page),
        WebSocketRoute("/ws", app.page_socket),
        WebSocketRoute("/board/ws", app.board_socket),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    starlette = Starlette(routes=routes)
    starlette.add_middleware(OwnPageOnly)
    return starlette


def make_server(app: Starlette, host: str, port: int) -> uvicorn.Server:
    """To be run with `serve()` on the agent's event loop. The kit's logging is kept, and no request is logged: paths
    name patients' files."""
    return uvicorn.Server(
        uvicorn.Config(
            app, host=host, port=port, lifespan="off", access_log=False, log_config=None, server_header=False,
            ws_max_size=2 * MAX_ACTION_BYTES, ws_per_message_deflate=False, ws_ping_interval=20, ws_ping_timeout=20,
            timeout_graceful_shutdown=1,
        )
    )  # fmt: skip


class OwnPageOnly:
    """Refuses whoever is not this machine's own page, and sets the headers that keep the page to itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        if reason := _why_refused(connection):
            log.warning("request refused reason=%s", reason)
            if scope["type"] == "websocket":
                await receive()  # the connect event; a close before accepting answers 403
                await send({"type": "websocket.close", "code": CLOSE_POLICY, "reason": reason})
            else:
                await PlainTextResponse(f"Refused: {reason}.\n", 403)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = {key.lower(): value for key, value in message["headers"]}
                message["headers"] = [*message["headers"], *_page_headers(connection, headers)]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _why_refused(connection: HTTPConnection) -> str:
    """Empty where the request comes from this machine and, if a page sent it, from our page."""
    client = connection.client
    if client is None or not _is_loopback(client.host):
        return "only this machine may ask"
    server = connection.scope.get("server") or ("", 0)
    host = connection.headers.get("host", "").lower()
    name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "80")
    if not (name == "localhost" or _is_loopback(name.strip("[]"))) or port != str(server[1]):
        return "another host name"  # DNS rebinding
    origin = connection.headers.get("origin")
    if origin is not None and origin.lower() != f"http://{host}":
        return "another page asks"
    site, mode = connection.headers.get("sec-fetch-site"), connection.headers.get("sec-fetch-mode")
    if site in ("cross-site", "same-site") and mode != "navigate":
        return "another page asks"
    return ""


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _page_headers(connection: HTTPConnection, present: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    socket = f"ws://{connection.headers['host']}"  # older WebKit does not read 'self' as covering it
    policy = (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' {socket}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        b"content-security-policy": policy.encode("latin-1"),
        b"cross-origin-opener-policy": b"same-origin",
        b"cross-origin-resource-policy": b"same-origin",
        b"referrer-policy": b"no-referrer",
        b"x-content-type-options": b"nosniff",
        b"cache-control": b"no-cache",  # a new release shows at once
    }
    return [(key, value) for key, value in headers.items() if key not in present]


class _WebApp:
    def __init__(self, agent: KioskPort) -> None:
        self._agent = agent
        self._pages: list[_Page] = []
        self._pictures_as = ""
        self.bad_frames = 0  # of pages that sent something else than an action

    # --- HTTP

    async def page(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def light_patterns(self, request: Request) -> Response:
        return JSONResponse({light.value: [list(step) for step in steps] for light, steps in LIGHT_PATTERNS.items()})

    async def file(self, request: Request) -> Response:
        jpeg = await self._agent.file(request.path_params["id"])
        if jpeg is None:
            return PlainTextResponse("There is no such picture, or it may not be shown now.\n", 404)
        return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "no-store"})

    async def board_page(self, request: Request) -> Response:
        if self._agent.board() is None:
            return PlainTextResponse("This kiosk has a real button and lamp; its board is not simulated.\n", 404)
        return FileResponse(STATIC / "board.html")

    # --- the page's socket

    async def page_socket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        page = _Page(websocket, self._agent)
        self._pages.append(page)
        unsubscribe = self._agent.subscribe(page.changed)
        log.info("page opened pages=%d", len(self._pages))
        sending = asyncio.create_task(page.send_all())
        try:
            while (text := await _receive_frame(websocket)) is not None:
                self._act(page, parse_action(text))
        except BadAction as error:
            await self._close_bad(websocket, str(error))
        finally:
            unsubscribe()
            self._pages.remove(page)
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
            self._choose_pictures()
            log.info("page closed pages=%d dropped_pictures=%d", len(self._pages), page.dropped_pictures)

    def _act(self, page: _Page, action: Action) -> None:
        if action.do == "pictures_as":
            page.pictures_as = "jpeg" if action.value == "jpeg" else "vp8"
            self._choose_pictures()
            page.ask_for_key()  # opened in a call, it would have to wait for the next still
        else:
            self._agent.act(action)

    def _choose_pictures(self) -> None:
        """The far picture comes in one form: the one that every open page can show."""
        wishes = {page.pictures_as for page in self._pages} - {""}
        if not wishes:
            return
        kind = "jpeg" if "jpeg" in wishes else "vp8"
        if kind != self._pictures_as:
            self._pictures_as = kind
            self._agent.act(Action(do="pictures_as", value=kind))

    async def _close_bad(self, websocket: WebSocket, reason: str) -> None:
        self.bad_frames += 1
        log.warning("page sent garbage count=%d", self.bad_frames)
        with suppress(RuntimeError, WebSocketDisconnect):  # it may be gone by now
            await websocket.close(CLOSE_BAD_DATA, reason.encode()[:120].decode(errors="ignore"))

    # --- the board panel's socket

    async def board_socket(self, websocket: WebSocket) -> None:
        board = self._agent.board()
        if board is None:
            await websocket.close(CLOSE_POLICY, "the board is not simulated")
            return
        await websocket.accept()
        loop = asyncio.get_running_loop()
        states: asyncio.Queue[tuple[Light, bool]] = asyncio.Queue()
        unsubscribe = board.subscribe(
            lambda light, pressed: _call_soon(loop, states.put_nowait, (light, pressed))  # from any thread
        )
        sending = asyncio.create_task(_send_board_states(websocket, states))
        holds = False
        try:
            while (text := await _receive_frame(websocket)) is not None:
                holds = _parse_board_action(text).do == "down"
                if holds:
                    board.press()
                else:
                    board.release()
        except BadAction as error:
            await self._close_bad(websocket, str(error))
        finally:
            if holds:  # the panel was closed under the finger
                board.release()
            unsubscribe()
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending


class _Page:
    """One open page. A slow one loses pictures, then shows the next key frame; the newest view always reaches it."""

    def __init__(self, websocket: WebSocket, agent: KioskPort) -> None:
        self._websocket = websocket
        self._agent = agent
        self._wake = asyncio.Event()
        self._wake.set()  # the first view
        self._view_due = True
        self._vp8: deque[Picture] = deque()
        self._newest: dict[PictureKind, Picture] = {}  # a JPEG replaces the one before it
        self._awaits_key = True
        self._asked_for_key_at = -KEY_FRAME_WAIT_S
        self.pictures_as = ""  # not yet said
        self.dropped_pictures = 0

    def changed(self, picture: Picture | None) -> None:
        if picture is None:
            self._view_due = True
        elif picture.kind is PictureKind.FAR_VP8:
            self._queue_vp8(picture)
        else:
            self.dropped_pictures += picture.kind in self._newest
            self._newest[picture.kind] = picture
        self._wake.set()

    def _queue_vp8(self, picture: Picture) -> None:
        if picture.key:  # nothing before it is needed any more
            self.dropped_pictures += len(self._vp8)
            self._vp8.clear()
            self._awaits_key = False
        elif self._awaits_key:  # opened in a call, or fallen behind
            self.dropped_pictures += 1
            self.ask_for_key()
            return
        elif len(self._vp8) >= MAX_WAITING_VP8:
            self.dropped_pictures += len(self._vp8) + 1
            self._vp8.clear()
            self._awaits_key = True
            self.ask_for_key()
            return
        self._vp8.append(picture)

    def ask_for_key(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._asked_for_key_at >= KEY_FRAME_WAIT_S:
            self._asked_for_key_at = now
            self._agent.act(Action(do="key_frame"))

    async def send_all(self) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):  # closed under our hands: page_socket sees it too
            while True:
                await self._wake.wait()
                self._wake.clear()
                while item := self._next():
                    if isinstance(item, View):
                        await self._websocket.send_text(encode_view(item))
                    else:
                        await self._websocket.send_bytes(encode_picture(*item))

    def _next(self) -> View | Picture | None:
        if self._view_due:
            self._view_due = False
            return self._agent.view()
        if self._newest:
            return self._newest.pop(next(iter(self._newest)))
        return self._vp8.popleft() if self._vp8 else None


class _BoardAction(msgspec.Struct, frozen=True):
    do: Literal["down", "up"]


_decode_board_action = msgspec.json.Decoder(_BoardAction).decode


def _parse_board_action(text: str | bytes) -> _BoardAction:
    try:
        return _decode_board_action(text)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeError, RecursionError) as error:
        raise BadAction(str(error)) from None


async def _receive_frame(websocket: WebSocket) -> str | bytes | None:
    """The next frame; None when the page has gone. Raises BadAction for a binary one."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        return None
    text = message.get("text")
    if text is None:
        raise BadAction("a page sends text only")
    return str(text)


async def _send_board_states(websocket: WebSocket, states: asyncio.Queue[tuple[Light, bool]]) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):
        while True:
            light, pressed = await states.get()
            await websocket.send_json({"light": light.value, "pressed": pressed})


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[..., Any], *arguments: Any) -> None:
    with suppress(RuntimeError):  # the loop closes while a lamp still blinks
        loop.call_soon_threadsafe(call, *arguments)
