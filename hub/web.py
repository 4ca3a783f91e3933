"""The hub over HTTP: the console's page, cases and files, joining; and the console's WebSocket.

Every path is an `Endpoint` that says what it needs, and is refused to whoever has it not. Everything a browser may do
is same-origin: an `Origin` that is not this host is refused for every unsafe method and for the WebSocket, and the
pages' policy loads nothing from elsewhere. Patients' data is never in a URL: consults and files are named by ids.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from edge_agent.core.joining import IdentityReply, JoinRequest, RenewRequest, Waiting
from hub import attempts, audit, cases, console, console_socket, openapi, views
from hub.attempts import Attempts
from hub.config import HubSettings
from hub.database import explain
from hub.endpoint import (
    HEX_16_BYTES,
    HEX_32_BYTES,
    NUMBER,
    Endpoint,
    Handler,
    account_of,
    error_answer,
    json_answer,
    read_body,
)
from hub.enrol import Enrolment, JoinRefused
from hub.office import Office
from hub.outgoing import Outgoing
from hub.records import CaseFile, Consult, Content, Doctor
from hub.releases import Releases
from hub.roles import Permission, may
from hub.selftests import SelfTests
from hub.signin import SignIn
from hub.switchboard import NOT_SIGNED_IN, Switchboard
from hub.updates import Updates
from hub.workshop import Workshop

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
NOT_FOR_THIS_ROLE = 4403  # close code of the WebSocket
MAX_ADVICE_CHARACTERS = 20_000
VIEWED_AGAIN_S = 600.0  # a player asks for a file in pieces: one entry in the audit log for so long
MAX_VIEWED = 10_000
SHOWN_MIMES = re.compile(r"(image/(jpeg|png|webp)|(audio|video)/[a-z0-9.+-]+)")  # anything else is a download
REPLY_MIMES = re.compile(r"(audio|video)/(webm|ogg|mp4)")

POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class ClosedCases(msgspec.Struct):
    cases: list[console.CaseCard]
    more: bool


class AdviceKept(msgspec.Struct):
    advice: str


class Health(msgspec.Struct):
    ok: bool
    broker: bool
    intake_waiting: int
    refused: dict[str, int]


ADVICE_FORM = {
    "type": "object",
    "properties": {
        "advice": {"type": "string", "pattern": "^([0-9a-f]{16})?$"},
        "text": {"type": "string", "maxLength": MAX_ADVICE_CHARACTERS},
        "duration_ms": {"type": "string", "pattern": "^[0-9]{1,9}$"},
        "voice": {"type": "string", "format": "binary"},
    },
}


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
        self._sign_in = SignIn(settings, switchboard)
        self._office = Office(switchboard, self._sign_in)
        self._workshop = Workshop(settings, switchboard, enrolment)
        self._self_tests = SelfTests(settings, enrolment, switchboard.now_ms)
        self._updates = Updates(Releases(settings.data_dir), enrolment)
        self._joins = Attempts(free=20, first_wait_s=30, longest_wait_s=900)
        self._viewed: dict[tuple[str, str], float] = {}
        self._description = openapi.describe(self.endpoints(), self._sign_in.cookie)

    def endpoints(self) -> list[Endpoint]:
        """Every path but the pages' own files and the WebSocket."""
        case = {"consult": HEX_16_BYTES}
        return [
            Endpoint("GET", "/", self.page, "nothing", "The console's page.", {200: "text/html"}),
            Endpoint("GET", "/health", self.health, "nothing", "How the hub is.", {200: Health, 503: Health}),
            Endpoint("GET", "/openapi.json", self.openapi, "nothing", "This.", {200: "application/json"}),
            Endpoint("GET", "/ca.pem", self.ca, "nothing", "The hub's CAs.", {200: "application/x-pem-file"}),
            Endpoint(
                "POST", "/join", self.join, "nothing", "A kiosk joins.", {200: IdentityReply, 202: Waiting},
                takes=JoinRequest,
            ),
            Endpoint(
                "POST", "/renew", self.renew, "nothing", "A kiosk renews its certificate.",
                {200: IdentityReply, 202: Waiting}, takes=RenewRequest,
            ),
            *self._sign_in.endpoints(),
            Endpoint(
                "GET", "/api/files/{digest}", self.file, Permission.SEE_PATIENTS, "A file of a case, by its SHA-256.",
                {200: "*/*", 206: "*/*"}, parts={"digest": HEX_32_BYTES},
            ),
            Endpoint(
                "GET", "/api/cases", self.older_cases, Permission.SEE_PATIENTS, "Closed cases, the newest first.",
                {200: ClosedCases}, query={"state": "closed", "before": NUMBER},
            ),
            Endpoint(
                "POST", "/api/cases/{consult}/advice", self.advice, Permission.GIVE_ADVICE, "Advise on a case.",
                {201: AdviceKept}, form=ADVICE_FORM, parts=case,
            ),
            *self._workshop.endpoints(),
            *self._self_tests.endpoints(),
            *self._updates.endpoints(),
            *self._office.endpoints(),
        ]  # fmt: skip

    def app(self) -> ASGIApp:
        app = Starlette(
            routes=[
                *(Route(each.path, self._guarded(each), methods=[each.method]) for each in self.endpoints()),
                WebSocketRoute("/console/ws", self.socket),
                Mount("/static", StaticFiles(directory=STATIC, check_dir=False)),
            ],
            exception_handlers={
                HTTPException: _http_error,
                SQLAlchemyError: _store_error,
                OSError: _store_error,
            },
        )
        return Guard(app, self._settings.serves_https)

    def _guarded(self, endpoint: Endpoint) -> Handler:
        """Nothing reaches a handler that the endpoint does not say."""

        async def handle(request: Request) -> Response:
            if endpoint.needs != "nothing":
                account = await self._sign_in.account(request, uses=not endpoint.asked_by_page)
                if endpoint.needs != "account":
                    if account.must_change:
                        raise HTTPException(403, "Choose a password of your own first.")
                    if not may(account.role, endpoint.needs):
                        log.warning("refused path=%s account=%d role=%s", endpoint.path, account.id, account.role)
                        raise HTTPException(403, "This account may not do this.")
                request.state.account = account
            for name, pattern in endpoint.parts.items():
                if not re.fullmatch(pattern, request.path_params[name], re.ASCII):
                    raise HTTPException(404, "There is nothing here.")
            for name, pattern in endpoint.query.items():
                if (
                    not re.fullmatch(pattern, request.query_params.get(name, ""), re.ASCII)
                    and name in request.query_params
                ):
                    raise HTTPException(400, "The hub did not understand this request.")
            return await endpoint.handler(request)

        return handle

    # --- pages and state

    async def page(self, request: Request) -> Response:
        index = STATIC / "index.html"
        if not index.is_file():
            return PlainTextResponse("The console's pages are not installed.", 503)
        return FileResponse(index, headers={"Cache-Control": "no-cache"})

    async def health(self, request: Request) -> Response:
        state = self._health()
        return json_answer(state, 200 if state["ok"] else 503)

    async def openapi(self, request: Request) -> Response:
        return json_answer(self._description)

    async def ca(self, request: Request) -> Response:
        """The hub's CAs, to be held against the fingerprint in an invitation."""
        return Response(self._enrolment.ca_pem(), media_type="application/x-pem-file")

    async def socket(self, socket: WebSocket) -> None:
        try:
            account = await self._sign_in.account(socket)
        except HTTPException:
            await socket.accept()  # a close code reaches the page only after the handshake
            await socket.close(NOT_SIGNED_IN, "not signed in")
            return
        if account.must_change or not may(account.role, Permission.SEE_PATIENTS):
            await socket.accept()
            await socket.close(NOT_FOR_THIS_ROLE, "not for this account")
            return
        await console_socket.serve(socket, self._switchboard, account)

    # --- cases

    async def older_cases(self, request: Request) -> Response:
        who, before_ms = account_of(request), int(request.query_params.get("before") or 2**53)

        def read(session: Session) -> list[console.CaseCard]:
            audit.append(session, self._switchboard.now_ms(), audit.account(who.id), "closed_cases_listed")
            return views.closed_cases(session, before_ms)

        found = await self._switchboard.database.run(read)
        return json_answer(ClosedCases(found, len(found) == views.PAGE_CASES))

    async def file(self, request: Request) -> Response:
        who, digest = account_of(request), request.path_params["digest"]
        now_ms, again = self._switchboard.now_ms(), self._views_again(who.session, digest)
        found = await self._switchboard.database.run(_find_file, digest, None if again else who.id, now_ms)
        if found is None:
            raise HTTPException(404, "This file is not here (yet).")
        self._remember_view(who.session, digest)
        kiosk, mime, damage = found
        headers = {
            "Cache-Control": "no-store",  # nothing of a patient stays in a browser that others use
            "Content-Security-Policy": "default-src 'none'; sandbox",
        }
        mime = mime.partition(";")[0].strip()  # a kiosk wrote it: nothing else of it goes into a header
        if damage or not SHOWN_MIMES.fullmatch(mime):
            mime = "application/octet-stream"
            headers["Content-Disposition"] = f'attachment; filename="{digest[:16]}"'
        return FileResponse(self._switchboard.files.path(kiosk, digest), media_type=mime, headers=headers)

    async def advice(self, request: Request) -> Response:
        doctor = account_of(request)
        most = self._settings.store.max_reply_bytes
        length = request.headers.get("content-length", "")
        if not re.fullmatch(NUMBER, length, re.ASCII):
            raise HTTPException(411, "The hub must be told how long this is.")
        if int(length) > most + MAX_ADVICE_CHARACTERS * 4 + 4096:
            raise HTTPException(413, f"The voice reply is too long; at most {most // 1024} KiB are taken.")
        async with request.form(max_files=1, max_fields=3, max_part_size=MAX_ADVICE_CHARACTERS * 4) as form:
            if any(isinstance(form.get(name), UploadFile) for name in ("text", "advice", "duration_ms")):
                raise HTTPException(400, "The hub did not understand this request.")
            text = str(form.get("text") or "").strip().replace("\r\n", "\n")  # a browser's form has CRLF
            if len(text) > MAX_ADVICE_CHARACTERS:
                raise HTTPException(413, f"The text is too long; at most {MAX_ADVICE_CHARACTERS} characters are taken.")
            advice_id = str(form.get("advice") or "")
            duration = str(form.get("duration_ms") or "0")
            duration_ms = int(duration) if re.fullmatch(r"[0-9]{1,9}", duration) else 0
            voice = await _voice_of(form.get("voice"), duration_ms, most)
        if "\0" in text:
            raise HTTPException(400, "The hub did not understand this request.")
        if not text and voice is None:
            raise HTTPException(400, "Write the advice, or record it.")
        if not re.fullmatch(r"([0-9a-f]{16})?", advice_id):
            raise HTTPException(400, "The hub did not understand this request.")
        consult = request.path_params["consult"]
        advice = await self._switchboard.do(
            _give_advice, self._switchboard, consult, doctor.id, text, voice, bytes.fromhex(advice_id)
        )
        log.info("advice given consult=%s advice=%s doctor=%d", consult, advice, doctor.id)
        return json_answer(AdviceKept(advice), 201)

    def _views_again(self, session: str, digest: str) -> bool:
        at = self._viewed.get((session, digest))
        return at is not None and time.monotonic() - at < VIEWED_AGAIN_S

    def _remember_view(self, session: str, digest: str) -> None:
        if not self._views_again(session, digest):
            if len(self._viewed) >= MAX_VIEWED:
                self._viewed.clear()
            self._viewed[(session, digest)] = time.monotonic()

    # --- joining

    async def join(self, request: Request) -> Response:
        asked = await read_body(request, JoinRequest, from_page=False)
        return await self._give_identity(request, self._enrolment.join(asked), "joined")

    async def renew(self, request: Request) -> Response:
        asked = await read_body(request, RenewRequest, from_page=False)
        return await self._give_identity(request, self._enrolment.renew(asked), "renewed")

    async def _give_identity(
        self, request: Request, giving: Coroutine[Any, Any, IdentityReply | Waiting], done: str
    ) -> Response:
        address, now = attempts.source(request.client.host if request.client else ""), time.monotonic()
        if wait_s := self._joins.wait_s(address, now):
            giving.close()
            return error_answer(429, f"Too many wrong codes. Wait {attempts.in_words(wait_s)}, then try again.")
        try:
            given = await giving
        except JoinRefused as refusal:
            self._joins.count(address, now)
            log.warning("kiosk refused address=%s: %s", address, " ".join(str(refusal).split()))  # it quotes the kiosk
            return error_answer(403, str(refusal))
        if isinstance(given, Waiting):
            return json_answer(given, 202)
        log.info("kiosk %s kiosk=%s", done, given.kiosk)
        return json_answer(given)


class Guard:
    """Around everything: same origin for what changes something, and the headers that keep a page to itself."""

    def __init__(self, app: ASGIApp, https: bool) -> None:
        self._app, self._https = app, https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        unsafe = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if unsafe and not _same_origin(Headers(scope=scope), self._https):
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
        log.warning("refused, from another origin path=%s", quote(scope["path"]))
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await error_answer(403, "This request came from another site.")(scope, receive, send)


def _same_origin(headers: Headers, https: bool) -> bool:
    """Every browser says where an unsafe request or a WebSocket comes from. Whoever does not is no browser, and may
    go on only without anybody's cookie."""
    origin, host = headers.get("origin"), headers.get("host", "").lower()
    if origin is None:
        return "cookie" not in headers
    own = [f"https://{host}"] if https else [f"http://{host}", f"https://{host}"]  # the latter: a proxy before us
    return host != "" and origin.lower() in own


# --- in the database's thread


def _find_file(session: Session, digest: str, viewer: int | None, now_ms: int) -> tuple[str, str, str] | None:
    """`(kiosk, type, damage)`; where there is a `viewer`, with its entry in the audit log."""
    found = (
        select(Content.kiosk_id, Content.mime, Content.damage)
        .where(Content.digest == digest, Content.complete)
        .limit(1)
    )
    row = session.execute(found).first()
    if row is None:
        return None
    if viewer is not None:
        consult = session.scalar(select(CaseFile.consult_id).where(CaseFile.digest == digest).limit(1))
        about = (f"file:{digest}", f"consult:{consult}" if consult else "")
        audit.append(session, now_ms, audit.account(viewer), "file_viewed", *about)
    return row[0], row[1], row[2]


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


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    return error_answer(error.status_code, error.detail, error.headers)


async def _store_error(request: Request, error: Exception) -> Response:
    log.error("request failed path=%s: %s", request.url.path, explain(error))
    return error_answer(507, f"Not done: {explain(error)}.")
