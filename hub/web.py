"""The hub over HTTP: the console's page, sign-in, files, advice, joining; and the console's WebSocket.

Everything a browser may do is same-origin: an `Origin` that is not this host is refused for every unsafe method and
for the WebSocket, and the pages' policy loads nothing from elsewhere. Patients' data is never in a URL: consults and
files are named by ids.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from edge_agent.core.joining import IdentityReply, JoinRequest, RenewRequest, Waiting
from hub import accounts, cases, console_socket, views
from hub.config import HubSettings
from hub.database import explain
from hub.enrol import Enrolment, JoinRefused
from hub.outgoing import Outgoing
from hub.records import Consult, Content, Doctor
from hub.switchboard import Switchboard

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
COOKIE = "teleconsult-hub"
NOT_SIGNED_IN = 4401  # close code of the WebSocket
MAX_JSON_BYTES = 16 * 1024
MAX_ADVICE_CHARACTERS = 20_000
SHOWN_MIMES = re.compile(r"(image/(jpeg|png|webp)|(audio|video)/[a-z0-9.+-]+)")  # anything else is a download
REPLY_MIMES = re.compile(r"(audio|video)/(webm|ogg|mp4)")

POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Login(msgspec.Struct):
    name: str
    password: str


class Web:
    def __init__(
        self,
        settings: HubSettings,
        switchboard: Switchboard,
        enrolment: Enrolment,
        health: Callable[[], dict[str, object]],
    ) -> None:
        self._settings, self._switchboard, self._enrolment = settings, switchboard, enrolment
        self._health = health
        self._argon = ThreadPoolExecutor(1, thread_name_prefix="argon2")  # 64 MiB each: one at a time
        self._names = accounts.FailureLimit(failures=5, window_s=300)
        self._addresses = accounts.FailureLimit(failures=20, window_s=300)
        self._joins = accounts.FailureLimit(failures=20, window_s=300)

    def app(self) -> ASGIApp:
        app = Starlette(
            routes=[
                Route("/", self.page),
                Route("/health", self.health),
                Route("/ca.pem", self.ca),
                Route("/join", self.join, methods=["POST"]),
                Route("/renew", self.renew, methods=["POST"]),
                Route("/api/login", self.login, methods=["POST"]),
                Route("/api/logout", self.logout, methods=["POST"]),
                Route("/api/me", self.me),
                Route("/api/files/{digest:str}", self.file),
                Route("/api/cases", self.older_cases),
                Route("/api/cases/{consult:str}/advice", self.advice, methods=["POST"]),
                WebSocketRoute("/console/ws", self.socket),
                Mount("/static", StaticFiles(directory=STATIC, check_dir=False)),
            ],
            exception_handlers={
                HTTPException: _http_error,
                SQLAlchemyError: _store_error,
                OSError: _store_error,
            },
        )
        return Guard(app)

    # --- pages and state

    async def page(self, request: Request) -> Response:
        index = STATIC / "index.html"
        if not index.is_file():
            return PlainTextResponse("The console's pages are not installed.", 503)
        return FileResponse(index, headers={"Cache-Control": "no-cache"})

    async def health(self, request: Request) -> Response:
        state = self._health()
        return _json(state, 200 if state["ok"] else 503)

    async def ca(self, request: Request) -> Response:
        """The hub's CAs, to be held against the fingerprint in an invitation."""
        return Response(self._enrolment.ca_pem(), media_type="application/x-pem-file")

    # --- signing in

    async def login(self, request: Request) -> Response:
        wanted = await _body(request, Login)
        address, now = request.client.host if request.client else "", time.monotonic()
        if self._names.exceeded(wanted.name, now) or self._addresses.exceeded(address, now):
            return _error(429, "Too many wrong passwords. Wait five minutes, then try again.")
        switchboard = self._switchboard
        stored = await switchboard.database.run(accounts.stored_hash, wanted.name)
        loop = asyncio.get_running_loop()
        matches = await loop.run_in_executor(self._argon, accounts.password_matches, stored, wanted.password)
        token = None
        if matches:
            token = await switchboard.database.run(
                accounts.begin_session, wanted.name, self._settings.doctors.session_s, switchboard.now_ms()
            )
        if token is None:
            self._names.failed(wanted.name, now)
            self._addresses.failed(address, now)
            log.warning("sign-in failed address=%s", address)
            return _error(401, "Name or password is wrong.")
        self._names.forgive(wanted.name)
        response = Response(status_code=204)
        response.set_cookie(
            COOKIE,
            token,
            max_age=int(self._settings.doctors.session_s),
            httponly=True,
            samesite="strict",
            secure=self._settings.serves_https,
        )
        return response

    async def logout(self, request: Request) -> Response:
        await self._switchboard.database.run(accounts.end_session, request.cookies.get(COOKIE, ""))
        response = Response(status_code=204)
        response.delete_cookie(COOKIE)
        return response

    async def me(self, request: Request) -> Response:
        doctor = await self._doctor(request)
        return _json({"name": doctor.name, "role": doctor.role})

    async def socket(self, socket: WebSocket) -> None:
        try:
            doctor = await self._doctor(socket)
        except HTTPException:
            await socket.accept()  # a close code reaches the page only after the handshake
            await socket.close(NOT_SIGNED_IN, "not signed in")
            return
        await console_socket.serve(socket, self._switchboard, doctor)

    async def _doctor(self, connection: HTTPConnection) -> Doctor:
        token = connection.cookies.get(COOKIE, "")
        doctor = None
        if token:
            doctor = await self._switchboard.database.run(accounts.signed_in, token, self._switchboard.now_ms())
        if doctor is None:
            raise HTTPException(401, "Please sign in.")
        return doctor

    # --- cases

    async def older_cases(self, request: Request) -> Response:
        await self._doctor(request)
        if request.query_params.get("state") != "closed":
            raise HTTPException(400, "Only state=closed is listed here.")
        before = request.query_params.get("before", "")
        before_ms = int(before) if re.fullmatch(r"\d{1,15}", before) else 2**53
        found = await self._switchboard.database.run(views.closed_cases, before_ms)
        return _json({"cases": found, "more": len(found) == views.PAGE_CASES})

    async def file(self, request: Request) -> Response:
        await self._doctor(request)
        digest = request.path_params["digest"]
        found = await self._switchboard.database.run(_find_file, digest)
        if found is None:
            raise HTTPException(404, "This file is not here (yet).")
        kiosk, mime = found
        headers = {
            "Cache-Control": "private, max-age=31536000, immutable",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        }
        if not SHOWN_MIMES.fullmatch(mime.partition(";")[0].strip()):
            mime = "application/octet-stream"
            headers["Content-Disposition"] = f'attachment; filename="{digest[:16]}"'
        return FileResponse(self._switchboard.files.path(kiosk, digest), media_type=mime, headers=headers)

    async def advice(self, request: Request) -> Response:
        doctor = await self._doctor(request)
        most = self._settings.store.max_reply_bytes
        if int(request.headers.get("content-length") or 0) > most + MAX_ADVICE_CHARACTERS * 4 + 4096:
            raise HTTPException(413, f"The voice reply is too long; at most {most // 1024} KiB are taken.")
        async with request.form(max_files=1, max_fields=3, max_part_size=MAX_ADVICE_CHARACTERS * 4) as form:
            text = str(form.get("text") or "").strip().replace("\r\n", "\n")  # a browser's form has CRLF
            if len(text) > MAX_ADVICE_CHARACTERS:
                raise HTTPException(413, f"The text is too long; at most {MAX_ADVICE_CHARACTERS} characters are taken.")
            advice_id = str(form.get("advice") or "")
            duration = str(form.get("duration_ms") or "0")
            voice = await _voice_of(form.get("voice"), int(duration) if duration.isdecimal() else 0, most)
        if not text and voice is None:
            raise HTTPException(400, "Write the advice, or record it.")
        if not re.fullmatch(r"([0-9a-f]{16})?", advice_id):
            raise HTTPException(400, "The hub did not understand this request.")
        consult = request.path_params["consult"]
        advice = await self._switchboard.do(
            _give_advice, self._switchboard, consult, doctor.id, text, voice, bytes.fromhex(advice_id)
        )
        log.info("advice given consult=%s advice=%s doctor=%d", consult, advice, doctor.id)
        return _json({"advice": advice}, 201)

    # --- joining

    async def join(self, request: Request) -> Response:
        return await self._give_identity(request, self._enrolment.join(await _body(request, JoinRequest)), "joined")

    async def renew(self, request: Request) -> Response:
        return await self._give_identity(request, self._enrolment.renew(await _body(request, RenewRequest)), "renewed")

    async def _give_identity(
        self, request: Request, giving: Coroutine[Any, Any, IdentityReply | Waiting], done: str
    ) -> Response:
        address, now = request.client.host if request.client else "", time.monotonic()
        if self._joins.exceeded(address, now):
            giving.close()
            return _error(429, "Too many wrong codes. Wait five minutes, then try again.")
        try:
            given = await giving
        except JoinRefused as refusal:
            self._joins.failed(address, now)
            log.warning("kiosk refused address=%s: %s", address, refusal)
            return _error(403, str(refusal))
        if isinstance(given, Waiting):
            return _json(given, 202)
        log.info("kiosk %s kiosk=%s", done, given.kiosk)
        return _json(given)


class Guard:
    """Around everything: same origin for what changes something, and the headers that keep a page to itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        unsafe = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if unsafe and not _same_origin(Headers(scope=scope)):
            await self._refuse(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/api/"):
                    headers.setdefault("Cache-Control", "no-store")
                elif scope["path"].startswith("/static/"):
                    headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self._app(scope, receive, send_with_headers)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        log.warning("refused, from another origin path=%s", scope["path"])
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _error(403, "This request came from another site.")(scope, receive, send)


def _same_origin(headers: Headers) -> bool:
    """Whoever sends no Origin is no browser, and has no one else's cookie."""
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != ""


# --- in the database's thread


def _find_file(session: Session, digest: str) -> tuple[str, str] | None:
    found = select(Content.kiosk_id, Content.mime).where(Content.digest == digest, Content.complete).limit(1)
    row = session.execute(found).first()
    return None if row is None else (row[0], row[1])


def _give_advice(
    session: Session,
    out: Outgoing,
    switchboard: Switchboard,
    consult_id: str,
    doctor_id: int,
    text: str,
    voice: cases.VoiceReply | None,
    advice_id: bytes,
) -> str:
    consult = session.get(Consult, consult_id)
    if consult is None:
        raise HTTPException(404, "There is no such case.")
    doctor = session.get_one(Doctor, doctor_id)
    try:
        return cases.give_advice(
            session, out, switchboard.files, consult, doctor, text, voice, switchboard.now_ms(), advice_id
        )
    except cases.ForeignConsult:
        raise HTTPException(409, "This advice was given in another case.") from None


# --- small change


async def _voice_of(upload: Any, duration_ms: int, most_bytes: int) -> cases.VoiceReply | None:
    if not isinstance(upload, UploadFile):
        return None
    mime = (upload.content_type or "").lower()
    if not REPLY_MIMES.fullmatch(mime.partition(";")[0].strip()):
        raise HTTPException(415, "A voice reply is WebM, Ogg or MP4.")
    data = await upload.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise HTTPException(413, f"The voice reply is too long; at most {most_bytes // 1024} KiB are taken.")
    return cases.VoiceReply(data, mime, min(duration_ms, 24 * 3_600_000)) if data else None


async def _body(request: Request, schema: type[Any]) -> Any:
    received = b""
    async for part in request.stream():
        received += part
        if len(received) > MAX_JSON_BYTES:
            raise HTTPException(413, "This is too long.")
    try:
        return msgspec.json.decode(received, type=schema)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeError, RecursionError):
        raise HTTPException(400, "The hub did not understand this request.") from None


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _error(status: int, text: str) -> Response:
    return _json({"error": text}, status)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    return _error(error.status_code, error.detail)


async def _store_error(request: Request, error: Exception) -> Response:
    log.error("request failed path=%s: %s", request.url.path, explain(error))
    return _error(507, f"Not done: {explain(error)}.")
