"""A hub of one waiting room in memory, to drive the console's page in tests: the structs of `hub.console` over the
paths of the hub, and a kiosk's side of WebRTC played by a second page (`/standin/kiosk`).

It checks every message of the page with `hub.console.parse` and lets a test do what a hub would rarely do: refuse,
go away, let the line die.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from hub import console, web

STATIC = Path(console.__file__).parent / "static"
CSP = web.POLICY
PASSWORD = "a good long password"


def now_ms() -> int:
    return int(time.time() * 1000)


class Standin:
    """One doctor signs in; `queue`, `cases` and `files` are the test's to fill, `received` is what the page said."""

    def __init__(self) -> None:
        self.name = "Dr Amara"
        self.signed_in: set[str] = set()
        self.available, self.until = True, ""
        self.doctors: list[console.DoctorCard] = []
        self.queue: list[console.RingCard] = []
        self.cases: dict[str, console.Case] = {}
        self.files: dict[str, tuple[bytes, str]] = {}
        self.call: console.CallUpdate | None = None
        self.leg = 0
        self.received: list[Any] = []
        self.advice_posts: list[tuple[str, str, bytes]] = []
        self.refuse_advice = ""
        self.lose_answer = False  # the next advice is kept, and the page told that it was not
        self.reachable = True
        self.may_offer = asyncio.Event()  # cleared, the kiosk waits with its offer
        self.may_offer.set()
        self._changed = asyncio.Condition()
        self._consoles: set[WebSocket] = set()
        self._kiosks: set[WebSocket] = set()
        self._offering: asyncio.Task[None] | None = None
        self.port = 0

    # --- for tests

    async def wait_for(self, kind: type, count: int = 1, within_s: float = 10) -> Any:
        """The `count`th message of this kind that the page sent."""

        def found() -> list[Any]:
            return [message for message in self.received if isinstance(message, kind)]

        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: len(found()) >= count), within_s)
        return found()[count - 1]

    async def wait_until(self, condition: Callable[[], bool], within_s: float = 10) -> None:
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(condition), within_s)

    async def send(self, message: console.ToConsole) -> None:
        for page in list(self._consoles):
            await page.send_text(console.encode(message))

    async def send_room(self) -> None:
        me = console.DoctorCard(name=self.name, available=self.available, in_call=self.call is not None)
        await self.send(console.Room(queue=tuple(self.queue), doctors=(me, *self.doctors)))

    async def send_inbox(self) -> None:
        await self.send(console.Inbox(cases=tuple(case.card for case in self.cases.values())))

    async def show(self, case: console.Case) -> None:
        self.cases[case.card.consult] = case
        await self.send_inbox()
        await self.send(console.CaseShown(case=case))

    async def ring(self, card: console.RingCard) -> None:
        self.queue.append(card)
        self.queue.sort(key=lambda one: (not one.emergency, one.requested_at))
        await self.send_room()

    async def set_call(self, **changes: Any) -> None:
        assert self.call is not None
        self.call = msgspec.structs.replace(self.call, **changes)
        await self.send(self.call)

    async def end(self, outcome: str) -> None:
        call = self.call
        await self.set_call(phase="ended", outcome=outcome)
        self.call = None
        if call is not None:
            self.queue = [card for card in self.queue if card.call != call.call]
        await self.tell_kiosk({"do": "end"})
        await self.send_room()

    async def new_leg(self, late: bool = False) -> None:
        """`late`: with no candidate either way, until `rest_of_leg`."""
        self.leg += 1
        await self.tell_kiosk({"do": "offer", "leg": self.leg, "late": late})

    async def rest_of_leg(self) -> None:
        await self.tell_kiosk({"do": "offer_rest", "leg": self.leg})

    async def patient_accepts(self) -> None:
        await self.set_call(phase="answered", answered_at=now_ms())
        await self.new_leg()

    async def tell_kiosk(self, message: dict[str, Any]) -> None:
        for page in list(self._kiosks):
            await page.send_text(json.dumps(message))

    async def go_away(self) -> None:
        """As a hub that is killed: sockets close, new ones are refused, until `reachable` is set again."""
        self.reachable = False
        for page in list(self._consoles):
            await page.close(1012)

    # --- HTTP

    async def login(self, request: Request) -> Response:
        body = await request.json()
        if body["password"] != PASSWORD:
            return JSONResponse({"error": "Name or password is wrong."}, 401)
        self.name = body["name"]
        self.signed_in.add(self.name)
        response = Response(status_code=204)
        response.set_cookie("session", self.name.replace(" ", "_"), httponly=True, samesite="strict")
        return response

    async def logout(self, request: Request) -> Response:
        self.signed_in.clear()
        return Response(status_code=204)

    async def me(self, request: Request) -> Response:
        if not self._knows(request.cookies):
            return JSONResponse({"error": "Sign in first."}, 401)
        may = ["give_advice", "see_patients", "take_calls"]
        return JSONResponse({"name": self.name, "role": "doctor", "permissions": may, "must_change": False})

    async def file(self, request: Request) -> Response:
        data, mime = self.files[request.path_params["digest"]]
        return Response(data, media_type=mime)

    async def closed_cases(self, request: Request) -> Response:
        before = int(request.query_params["before"])
        cards = [case.card for case in self.cases.values() if case.card.state == "closed"]
        older = [msgspec.to_builtins(card) for card in cards if card.opened_at < before]
        return JSONResponse({"cases": older, "more": False})

    async def advise(self, request: Request) -> Response:
        if self.refuse_advice:
            return JSONResponse({"error": self.refuse_advice}, 503)
        consult = request.path_params["consult"]
        form = await request.form()
        if self.lose_answer:
            self.lose_answer = False
            await self._keep_advice(consult, form)
            return JSONResponse({"error": "The hub was restarted."}, 503)
        await self._keep_advice(consult, form)
        return JSONResponse({"advice": str(form["advice"])}, 201)

    async def _keep_advice(self, consult: str, form: FormData) -> None:
        voice = form.get("voice")
        data = await voice.read() if voice is not None and not isinstance(voice, str) else b""
        self.advice_posts.append((consult, str(form["text"]).replace("\r\n", "\n"), data))
        reply = f"{len(self.advice_posts):064x}" if data else ""
        if data:
            self.files[reply] = (data, "audio/webm")
        card = console.AdviceCard(
            advice=str(form["advice"]), given_by=self.name, given_at=now_ms(), text=str(form["text"]),
            reply=reply,
        )  # fmt: skip
        case = self.cases[consult]
        answered = msgspec.structs.replace(case.card, state="answered")
        await self.show(msgspec.structs.replace(case, card=answered, advice=(*case.advice, card)))
        await self._noticed(card)

    # --- the console's page

    async def console_socket(self, page: WebSocket) -> None:
        if not self.reachable:
            await page.close(1013)
            return
        await page.accept()
        if not self._knows(page.cookies):
            await page.close(4401)
            return
        self._consoles.add(page)
        try:
            await self._greet(page)
            while True:
                await self._noticed(console.parse(await page.receive_text()))
                await self._obey(self.received[-1])
        except WebSocketDisconnect:
            pass
        finally:
            self._consoles.discard(page)

    async def _greet(self, page: WebSocket) -> None:
        resume = self.call.call if self.call is not None else ""
        hello = console.Hello(
            name=self.name, available=self.available, until=self.until, now=now_ms(), resume=resume,
            audio_processing=False,
        )  # fmt: skip
        await page.send_text(console.encode(hello))
        await self.send_room()
        await self.send_inbox()
        if self.call is not None:
            await page.send_text(console.encode(self.call))

    async def _obey(self, message: Any) -> None:
        match message:
            case console.SetAvailable():
                self.available, self.until = message.available, message.until
                await self.send_room()
            case console.Claim():
                await self._claim(message.call)
            case console.Release():
                self.call = None
                await self._mark_claimed(message.call, "")
            case console.Decline():
                await self.end("declined")
            case console.Talk():
                await self.set_call(phase="answered", answered_at=now_ms())
            case console.HangUp() if self.call is not None:
                await self.end("answered" if self.call.phase == "answered" else "cancelled")
            case console.RingKiosk():
                case = self.cases[message.consult]
                self.leg = 0
                self.call = console.CallUpdate(
                    call="c" * 16, consult=message.consult, kiosk=case.card.kiosk, phase="calling_kiosk",
                    kiosk_online=True,
                )  # fmt: skip
                await self.send(self.call)
            case console.SdpAnswer():
                await self.tell_kiosk({"do": "answer", "leg": message.leg, "sdp": message.sdp})
            case console.WantNewLeg():
                self.leg = max(self.leg, message.leg)
                await self.new_leg()
            case console.OpenCase() if message.consult in self.cases:
                await self.send(console.CaseShown(case=self.cases[message.consult]))
            case console.CloseCase():
                case = self.cases[message.consult]
                card = msgspec.structs.replace(case.card, state="closed")
                await self.show(msgspec.structs.replace(case, card=card))

    async def _claim(self, call: str) -> None:
        card = next(card for card in self.queue if card.call == call)
        if card.claimed_by:
            refused = console.Refused(request="claim", code="taken", text="Somebody else was first.", call=call)
            await self.send(refused)
            return
        self.call = console.CallUpdate(
            call=call, consult=card.consult, kiosk=card.kiosk, phase="claimed", kiosk_online=True
        )
        self.leg = 0
        await self.send(self.call)
        await self._mark_claimed(call, self.name)
        self._offering = asyncio.create_task(self._offer_when_allowed())

    async def _offer_when_allowed(self) -> None:
        await self.may_offer.wait()
        await self.new_leg()

    async def _mark_claimed(self, call: str, name: str) -> None:
        self.queue = [
            msgspec.structs.replace(card, claimed_by=name) if card.call == call else card for card in self.queue
        ]
        await self.send_room()

    # --- the kiosk's page

    async def kiosk_socket(self, page: WebSocket) -> None:
        await page.accept()
        self._kiosks.add(page)
        await self._noticed("kiosk")
        try:
            while True:
                message = await page.receive_json()
                if self.call is not None:
                    offer = console.KioskOffer(
                        call=self.call.call, leg=message["leg"], sdp=message["sdp"], ice_servers=()
                    )
                    await self.send(offer)
        except WebSocketDisconnect:
            self._kiosks.discard(page)

    # --- inside

    def _knows(self, cookies: dict[str, str]) -> bool:
        return cookies.get("session", "").replace("_", " ") in self.signed_in

    async def _noticed(self, message: Any) -> None:
        async with self._changed:
            self.received.append(message)
            self._changed.notify_all()


async def _index(request: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers={"Content-Security-Policy": CSP})


async def _kiosk_page(request: Request) -> Response:
    return HTMLResponse("<!doctype html><title>kiosk</title><script src='/standin/kiosk.js'></script>")


async def _kiosk_script(request: Request) -> Response:
    return FileResponse(Path(__file__).with_name("standin_kiosk.js"))


@asynccontextmanager
async def serving() -> AsyncIterator[Standin]:
    standin = Standin()
    app = Starlette(
        routes=[
            Route("/", _index),
            Route("/api/login", standin.login, methods=["POST"]),
            Route("/api/logout", standin.logout, methods=["POST"]),
            Route("/api/me", standin.me),
            Route("/api/files/{digest}", standin.file),
            Route("/api/cases", standin.closed_cases),
            Route("/api/cases/{consult}/advice", standin.advise, methods=["POST"]),
            Route("/health", lambda request: Response()),
            Route("/standin/kiosk", _kiosk_page),
            Route("/standin/kiosk.js", _kiosk_script),
            WebSocketRoute("/standin/kiosk-ws", standin.kiosk_socket),
            WebSocketRoute("/console/ws", standin.console_socket),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    listening = socket.create_server(("127.0.0.1", 0))  # connections wait in its backlog until the server takes them
    standin.port = listening.getsockname()[1]
    task = asyncio.create_task(server.serve([listening]))
    try:
        yield standin
    finally:
        server.should_exit = True
        await task
