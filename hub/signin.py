"""Signing in over HTTP: cookies, sessions, waits after wrong passwords, and changing one's own.

Three counts stand against guessing, all with waits that grow (`hub.attempts`): by where it comes from, by name from
there, and by name from everywhere. The last never waits more than a minute and does not hold for a browser in which
the account has signed in before; and the first two are a stranger's own. So nobody can lock a doctor out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from logging import getLogger
from typing import TypeVar

import msgspec
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from hub import accounts, attempts
from hub.accounts import SignedIn
from hub.attempts import Attempts
from hub.config import HubSettings
from hub.endpoint import Endpoint, account_of, error_answer, json_answer, read_body
from hub.outgoing import Outgoing
from hub.roles import permissions
from hub.switchboard import Switchboard

log = getLogger(__name__)

MAX_WAITING = 20  # sign-ins in line for the one thread that hashes
R = TypeVar("R")


class Login(msgspec.Struct):
    name: str
    password: str


class NewPassword(msgspec.Struct):
    old: str
    new: str


class Me(msgspec.Struct):
    name: str
    role: str
    permissions: list[str]
    must_change: bool  # nothing else is answered before the password is changed


class SignIn:
    def __init__(self, settings: HubSettings, switchboard: Switchboard) -> None:
        self._settings, self._switchboard = settings, switchboard
        self._database = switchboard.database
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="argon2")  # one at a time: each takes its memory
        self._hashing.submit(accounts.nobodys_hash)
        self._waiting = 0
        self._by_source = Attempts(free=20, first_wait_s=30, longest_wait_s=900)
        self._by_name_there = Attempts(free=5, first_wait_s=30, longest_wait_s=900)
        self._by_name_anywhere = Attempts(free=100, first_wait_s=5, longest_wait_s=60)
        prefix = "__Host-" if settings.serves_https else ""  # a browser then takes it from this host alone
        self.cookie, self.browser_cookie = f"{prefix}teleconsult-hub", f"{prefix}teleconsult-browser"

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("POST", "/api/login", self.login, "nothing", "Sign in.", {204: None}, takes=Login),
            Endpoint("POST", "/api/logout", self.logout, "nothing", "Sign out.", {204: None}),
            Endpoint("GET", "/api/me", self.me, "account", "Who is signed in.", {200: Me}, asked_by_page=True),
            Endpoint(
                "POST", "/api/password", self.password, "account",
                "Change one's own password; signs out everywhere else.", {204: None}, takes=NewPassword,
            ),
        ]  # fmt: skip

    async def account(self, connection: HTTPConnection, uses: bool = True) -> SignedIn:
        """Raises HTTPException 401."""
        token = connection.cookies.get(self.cookie, "")
        account = None
        if token:
            account = await self._database.run(
                accounts.signed_in, token, self._settings.doctors.idle_s, self._switchboard.now_ms(), uses=uses
            )
        if account is None:
            raise HTTPException(401, "Please sign in.")
        return account

    async def login(self, request: Request) -> Response:
        wanted = await read_body(request, Login)
        browser = request.cookies.get(self.browser_cookie, "")
        stored, known = await self._database.run(accounts.stored_hash, wanted.name, browser)
        tried = self._try(request, wanted.name, browser if known else "")
        matches = await self.hash(accounts.password_matches, stored, wanted.password)
        now_ms = self._switchboard.now_ms()
        begun = None
        if matches and stored is not None:
            rehash = await self.hash(accounts.rehashed, stored, wanted.password)
            begun = await self._database.run(
                accounts.begin_session, wanted.name, self._settings.doctors.session_s, now_ms,
                old_token=request.cookies.get(self.cookie, ""), browser=browser, rehash=rehash,
            )  # fmt: skip
        if begun is None:
            await self._database.run(accounts.sign_in_failed, wanted.name, now_ms)
            log.warning("sign-in failed address=%s", _address(request))
            return error_answer(401, "Name or password is wrong.")
        tried()
        return self._with_cookies(begun)

    async def logout(self, request: Request) -> Response:
        def end(session: Session, out: Outgoing) -> None:
            out.room = accounts.end_session(session, token, self._switchboard.now_ms()) is not None

        token = request.cookies.get(self.cookie, "")
        await self._switchboard.do(end)
        response = Response(status_code=204)
        response.delete_cookie(self.cookie, secure=self._settings.serves_https, httponly=True, samesite="strict")
        return response

    async def me(self, request: Request) -> Response:
        account = account_of(request)
        may = sorted(permissions(account.role))
        return json_answer(Me(account.name, account.role, [str(each) for each in may], account.must_change))

    async def password(self, request: Request) -> Response:
        account, wanted = account_of(request), await read_body(request, NewPassword)
        browser = request.cookies.get(self.browser_cookie, "")
        stored, known = await self._database.run(accounts.stored_hash, account.name, browser)
        tried = self._try(request, account.name, browser if known else "")
        if stored is None or not await self.hash(accounts.password_matches, stored, wanted.old):
            return error_answer(403, "The present password is wrong.")
        tried()
        if wanted.new == wanted.old:
            return error_answer(400, "The new password is the present one. Choose another.")
        try:
            hashed = await self.hash(accounts.hash_password, wanted.new, account.name)
        except accounts.AccountError as error:
            return error_answer(400, f"Choose another password: {error}.")

        def change(session: Session, out: Outgoing) -> accounts.Begun | None:
            out.room = True  # pages of the sessions that end close
            return accounts.change_own_password(
                session, account, stored, hashed, self._settings.doctors.session_s, self._switchboard.now_ms(), browser
            )

        begun = await self._switchboard.do(change)
        if begun is None:
            raise HTTPException(401, "Please sign in.")
        log.info("password changed account=%d", account.id)
        return self._with_cookies(begun)

    async def hash(self, function: Callable[..., R], *args: object) -> R:
        """Run one of argon2's in its thread. Raises HTTPException where too many are in line."""
        if self._waiting >= MAX_WAITING:
            raise HTTPException(503, "Many people are signing in just now. Try again in a few seconds.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._hashing, lambda: function(*args))
        finally:
            self._waiting -= 1

    def _try(self, request: Request, name: str, known_browser: str) -> Callable[[], None]:
        """Counts an attempt before it is judged; call what it returns once it proved right.

        Raises HTTPException where it is too early.
        """
        now, name = time.monotonic(), name.strip().casefold()[:100]
        where = f"browser {known_browser}" if known_browser else attempts.source(_address(request))
        counts = [(self._by_source, where), (self._by_name_there, f"{where} {name}")]
        if not known_browser:
            counts.append((self._by_name_anywhere, name))
        if wait_s := max(count.wait_s(key, now) for count, key in counts):
            log.warning("sign-in refused, too many attempts address=%s", _address(request))
            text = f"Too many wrong passwords. Wait {attempts.in_words(wait_s)}, then try again."
            raise HTTPException(429, text, {"Retry-After": str(int(wait_s) + 1)})
        for count, key in counts:
            count.count(key, now)

        def right() -> None:
            self._by_source.take_back(where)
            self._by_name_there.forgive(f"{where} {name}")
            self._by_name_anywhere.take_back(name)

        return right

    def _with_cookies(self, begun: accounts.Begun) -> Response:
        response = Response(status_code=204)
        for name, value, age_s in (
            (self.cookie, begun.token, self._settings.doctors.session_s),
            (self.browser_cookie, begun.browser, accounts.BROWSER_KNOWN_MS / 1000),
        ):
            response.set_cookie(
                name, value, max_age=int(age_s), httponly=True, samesite="strict", secure=self._settings.serves_https
            )
        return response


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
