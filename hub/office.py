"""What administrators do over HTTP: accounts, the audit log. No patients' data. Kiosks are `hub.workshop`'s."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from hub import accounts, audit
from hub.endpoint import NUMBER, Endpoint, account_of, json_answer, read_body
from hub.outgoing import Outgoing
from hub.records import Doctor
from hub.roles import Permission, Role
from hub.signin import SignIn
from hub.switchboard import Switchboard

log = logging.getLogger(__name__)

R = TypeVar("R")


class AccountCard(msgspec.Struct):
    id: int
    name: str
    role: str
    disabled: bool
    must_change: bool
    created_at: int


class Accounts(msgspec.Struct):
    accounts: list[AccountCard]


class NewAccount(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    role: Role = Role.DOCTOR


class Made(msgspec.Struct):
    """A password that the hub made: shown once, to be changed at the first sign-in."""

    password: str


class SetRole(msgspec.Struct):
    role: Role


class SetDisabled(msgspec.Struct):
    disabled: bool


class AuditLine(msgspec.Struct):
    seq: int
    at: int
    who: str
    what: str
    about: str


class AuditPage(msgspec.Struct):
    entries: list[AuditLine]
    head: str
    more: bool


class Office:
    def __init__(self, switchboard: Switchboard, sign_in: SignIn) -> None:
        self._switchboard, self._sign_in = switchboard, sign_in

    def endpoints(self) -> list[Endpoint]:
        account = {"account": NUMBER}
        manage = Permission.MANAGE_ACCOUNTS
        return [
            Endpoint("GET", "/api/accounts", self.accounts, manage, "The accounts.", {200: Accounts}),
            Endpoint("POST", "/api/accounts", self.add, manage, "Add an account.", {201: Made}, takes=NewAccount),
            Endpoint(
                "POST", "/api/accounts/{account}/password", self.reset, manage,
                "Give an account a new password, and sign it out.", {200: Made}, parts=account,
            ),
            Endpoint(
                "POST", "/api/accounts/{account}/role", self.set_role, manage,
                "Give an account another role, and sign it out.", {204: None}, takes=SetRole, parts=account,
            ),
            Endpoint(
                "POST", "/api/accounts/{account}/disabled", self.set_disabled, manage,
                "Let an account in no more, or again.", {204: None}, takes=SetDisabled, parts=account,
            ),
            Endpoint(
                "GET", "/api/audit", self.audit, Permission.READ_AUDIT, "The audit log, the newest first.",
                {200: AuditPage}, query={"before": NUMBER},
            ),
        ]  # fmt: skip

    # --- accounts

    async def accounts(self, request: Request) -> Response:
        return json_answer(Accounts(await self._switchboard.database.run(_accounts)))

    async def add(self, request: Request) -> Response:
        who, wanted = account_of(request), await read_body(request, NewAccount)
        password, hashed = await self._made(wanted.name)

        def add(session: Session, out: Outgoing) -> int:
            return accounts.add_account(
                session, wanted.name, hashed, self._switchboard.now_ms(), wanted.role,
                by=audit.account(who.id), must_change=True,
            ).id  # fmt: skip

        added = await self._do(add)
        log.info("account added account=%d role=%s by=%d", added, wanted.role, who.id)
        return json_answer(Made(password), 201)

    async def reset(self, request: Request) -> Response:
        who, account_id = account_of(request), _account_id(request)
        password, hashed = await self._made("")

        def reset(session: Session, out: Outgoing) -> None:
            doctor, out.room = self._other(session, account_id, who.id), True
            accounts.set_password(
                session, doctor, hashed, self._switchboard.now_ms(), by=audit.account(who.id), must_change=True
            )

        await self._do(reset)
        log.info("password reset account=%d by=%d", account_id, who.id)
        return json_answer(Made(password))

    async def set_role(self, request: Request) -> Response:
        who, account_id = account_of(request), _account_id(request)
        wanted = await read_body(request, SetRole)

        def set_(session: Session, out: Outgoing) -> None:
            doctor, out.room = self._other(session, account_id, who.id), True
            accounts.set_role(session, doctor, wanted.role, self._switchboard.now_ms(), by=audit.account(who.id))

        await self._do(set_)
        log.info("role set account=%d role=%s by=%d", account_id, wanted.role, who.id)
        return Response(status_code=204)

    async def set_disabled(self, request: Request) -> Response:
        who, account_id = account_of(request), _account_id(request)
        wanted = await read_body(request, SetDisabled)

        def set_(session: Session, out: Outgoing) -> None:
            doctor, out.room = self._other(session, account_id, who.id), True
            accounts.set_disabled(
                session, doctor, wanted.disabled, self._switchboard.now_ms(), by=audit.account(who.id)
            )  # fmt: skip

        await self._do(set_)
        log.info("account disabled=%s account=%d by=%d", wanted.disabled, account_id, who.id)
        return Response(status_code=204)

    # --- audit

    async def audit(self, request: Request) -> Response:
        who, before = account_of(request), int(request.query_params.get("before") or 0)

        def read(session: Session) -> AuditPage:
            audit.append(session, self._switchboard.now_ms(), audit.account(who.id), "audit_viewed")
            entries = audit.latest(session, before)
            lines = [AuditLine(each.seq, each.at, each.who, each.what, each.about) for each in entries]
            return AuditPage(lines, str(audit.head(session)), bool(lines) and lines[-1].seq > 1)

        return json_answer(await self._switchboard.database.run(read))

    # --- inside

    async def _made(self, name: str) -> tuple[str, str]:
        password = accounts.new_password()
        return password, await self._sign_in.hash(accounts.hash_password, password, name)

    async def _do(self, work: Callable[[Session, Outgoing], R]) -> R:
        try:
            return await self._switchboard.do(work)
        except accounts.AccountError as error:
            raise HTTPException(409, f"Not done: {error}.") from None

    def _other(self, session: Session, account_id: int, own_id: int) -> Doctor:
        """Own account excepted: one slip would be the end of it. Raises HTTPException."""
        if account_id == own_id:
            raise HTTPException(409, "Not to your own account: ask another administrator.")
        doctor = session.get(Doctor, account_id)
        if doctor is None:
            raise HTTPException(404, "There is no such account.")
        return doctor


def _account_id(request: Request) -> int:
    return int(request.path_params["account"])


def _accounts(session: Session) -> list[AccountCard]:
    return [
        AccountCard(row.id, row.name, row.role, row.disabled, row.must_change, row.created_at)
        for row in session.scalars(select(Doctor).order_by(Doctor.name))
    ]
