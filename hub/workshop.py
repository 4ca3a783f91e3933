"""What technicians do over HTTP: kiosks as machines, codes for new ones, approvals, revocation. No patients' data."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import segno
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge_agent.core.joining import join_link
from hub import audit, enrol
from hub.config import HubSettings
from hub.endpoint import HEX_4_BYTES, KIOSK_ID, Endpoint, account_of, json_answer, read_body
from hub.enrol import Enrolment
from hub.invitation_sheet import make_sheet
from hub.outgoing import Outgoing
from hub.records import Approval, Invitation, Kiosk
from hub.roles import Permission
from hub.switchboard import Switchboard

log = logging.getLogger(__name__)


class Asking(msgspec.Struct):
    """A device that asks for what a technician has to allow."""

    key: str  # as the device shows it
    why: Literal["expired", "replaced"]
    asked_at: int
    refused: bool


class SpentCard(msgspec.Struct):
    """On a metered link, as the kiosk counts; bytes with all headers."""

    at_ms: int  # when the kiosk said so
    day_bytes: int
    month_bytes: int
    day_limit: int  # 0: none
    month_limit: int
    month_cost: float
    currency: str
    held: Literal["", "cheap_hours", "day", "month"]  # photos wait for this
    held_until_ms: int


class KioskCard(msgspec.Struct):
    kiosk: str
    site: str
    joined_at: int
    online: bool
    last_seen: int  # when it went offline; 0 where it is online or was never seen
    software: str
    missing: list[str]  # devices
    warnings: list[str]
    clock_trusted: bool
    language: str
    certificate_until: int  # 0 where it was revoked
    asking: list[Asking]
    spent: SpentCard | None = None  # none: no budget is set there


class Kiosks(msgspec.Struct):
    kiosks: list[KioskCard]


class Which(msgspec.Struct):
    key: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{0,64}$")] = ""  # of several devices that ask for one id


class Invite(msgspec.Struct):
    site: Annotated[str, msgspec.Meta(max_length=200)] = ""
    kiosk: Annotated[str, msgspec.Meta(max_length=32)] = ""  # in place of a site: new hardware of this one
    count: Annotated[int, msgspec.Meta(ge=1, le=50)] = 1


class Code(msgspec.Struct):
    """Good once, and shown once: the hub keeps its hash alone."""

    code: str
    qr: list[str]  # rows of 0 and 1


class Invited(msgspec.Struct):
    codes: list[Code]
    sheet: str  # PDF, base64


class InvitationCard(msgspec.Struct):
    number: str
    site: str
    kiosk: str  # who has used it, or whose new hardware it is for
    replaces: bool
    made_at: int
    expires_at: int
    state: Literal["open", "used", "withdrawn"]


class Invitations(msgspec.Struct):
    invitations: list[InvitationCard]


class Workshop:
    def __init__(self, settings: HubSettings, switchboard: Switchboard, enrolment: Enrolment) -> None:
        self._settings, self._switchboard, self._enrolment = settings, switchboard, enrolment

    def endpoints(self) -> list[Endpoint]:
        kiosk = {"kiosk": KIOSK_ID}
        invite, approve = Permission.INVITE_KIOSKS, Permission.APPROVE_KIOSKS
        return [
            Endpoint(
                "GET", "/api/kiosks", self.kiosks, Permission.SEE_KIOSKS, "The kiosks and how they are.",
                {200: Kiosks}, asked_by_page=True,
            ),
            Endpoint(
                "GET", "/api/invitations", self.invitations, invite, "The invitations of the last 14 days.",
                {200: Invitations}, asked_by_page=True,
            ),
            Endpoint(
                "POST", "/api/invitations", self.invite, invite,
                "New codes with which kiosks join, each good once.", {201: Invited}, takes=Invite,
            ),
            Endpoint(
                "POST", "/api/invitations/{number}/withdraw", self.withdraw, invite,
                "Let nobody join with this code any more.", {204: None}, parts={"number": HEX_4_BYTES},
            ),
            Endpoint(
                "POST", "/api/kiosks/{kiosk}/approve", self.approve, approve,
                "Let a kiosk renew an expired certificate, or new hardware take over.", {204: None}, takes=Which,
                parts=kiosk,
            ),
            Endpoint(
                "POST", "/api/kiosks/{kiosk}/refuse", self.refuse, approve,
                "Tell a kiosk that waits for it that it gets none.", {204: None}, takes=Which, parts=kiosk,
            ),
            Endpoint(
                "POST", "/api/kiosks/{kiosk}/revoke", self.revoke, Permission.REVOKE_KIOSKS,
                "Cut a kiosk off within a minute, and keep it out.", {204: None}, parts=kiosk,
            ),
        ]  # fmt: skip

    async def kiosks(self, request: Request) -> Response:
        return json_answer(Kiosks(await self._switchboard.database.run(_kiosks)))

    # --- codes

    async def invitations(self, request: Request) -> Response:
        return json_answer(
            Invitations(await self._switchboard.database.run(_invitations, self._switchboard.now_ms()))
        )  # fmt: skip

    async def invite(self, request: Request) -> Response:
        who, wanted = account_of(request), await read_body(request, Invite)
        by = audit.account(who.id)
        try:
            codes = [
                await asyncio.to_thread(self._enrolment.invite, wanted.site, wanted.kiosk, by=by)
                for _ in range(wanted.count)
            ]
        except enrol.NoSuchKiosk:
            raise HTTPException(404, "There is no such kiosk.") from None
        except enrol.JoinRefused as error:
            raise HTTPException(400, str(error)) from None
        log.info("invitations made account=%d count=%d", who.id, len(codes))
        invited = await asyncio.to_thread(_printed, codes, *self._settings.invites_to, wanted.kiosk or wanted.site)
        return json_answer(invited, 201)

    async def withdraw(self, request: Request) -> Response:
        who, number = account_of(request), request.path_params["number"]
        await self._done(409, enrol.withdraw, number, self._switchboard.now_ms(), audit.account(who.id))
        log.info("invitation withdrawn account=%d", who.id)
        return Response(status_code=204)

    # --- kiosks

    async def approve(self, request: Request) -> Response:
        return await self._decide(request, enrol.approve, "approved")

    async def refuse(self, request: Request) -> Response:
        return await self._decide(request, enrol.refuse, "refused")

    async def _decide(self, request: Request, decision: Callable[..., Approval], what: str) -> Response:
        who, kiosk, wanted = account_of(request), request.path_params["kiosk"], await read_body(request, Which)
        by = audit.account(who.id)
        await self._done(409, decision, kiosk, self._switchboard.now_ms(), by, wanted.key)
        log.info("kiosk %s kiosk=%s by=%d", what, kiosk, who.id)
        return Response(status_code=204)

    async def revoke(self, request: Request) -> Response:
        who, kiosk = account_of(request), request.path_params["kiosk"]
        await self._done(404, enrol.revoke, kiosk, self._switchboard.now_ms(), audit.account(who.id))
        log.warning("kiosk revoked kiosk=%s by=%d", kiosk, who.id)
        return Response(status_code=204)

    async def _done(self, status: int, work: Callable[..., Any], *arguments: Any) -> None:
        """Raises HTTPException with this status where the work refuses."""

        def do(session: Session, out: Outgoing) -> None:
            work(session, *arguments)

        try:
            await self._switchboard.do(do)
        except (enrol.NoSuchKiosk, enrol.JoinRefused) as error:
            raise HTTPException(status, f"Not done: {error}.") from None


def _printed(codes: list[str], host: str, port: int, title: str) -> Invited:
    links = [join_link(host, port, code) for code in codes]
    rows = [["".join(map(str, row)) for row in segno.make(link, error="m").matrix_iter(border=0)] for link in links]
    sheet = make_sheet(title, list(zip(codes, links, strict=True)))
    return Invited([Code(*each) for each in zip(codes, rows, strict=True)], base64.b64encode(sheet).decode("ascii"))


# --- in the database's thread


def _kiosks(session: Session) -> list[KioskCard]:
    asking: dict[str, list[Asking]] = {}
    for each in enrol.approvals(session):
        card = Asking(each.key_hash[: enrol.SHOWN_CHARACTERS], each.why, each.asked_at, each.refused_at > 0)  # type: ignore[arg-type]
        asking.setdefault(each.kiosk_id, []).append(card)
    until = enrol.certificates_until(session)
    return [
        KioskCard(
            kiosk=row.id,
            site=row.site,
            joined_at=row.joined_at,
            online=row.online,
            last_seen=0 if row.online else row.gone_since,
            software=row.software,
            missing=[str(each) for each in row.missing],
            warnings=[str(each) for each in row.warnings],
            clock_trusted=row.clock_trusted,
            language=row.language,
            certificate_until=until.get(row.id, 0),
            asking=asking.get(row.id, []),
            spent=msgspec.convert(row.spent, SpentCard) if row.spent else None,
        )
        for row in session.scalars(select(Kiosk).order_by(Kiosk.site, Kiosk.id))
    ]


def _invitations(session: Session, now_ms: int) -> list[InvitationCard]:
    recent = select(Invitation).where(Invitation.expires_at > now_ms).order_by(Invitation.made_at.desc())
    return [
        InvitationCard(
            number=row.token_hash[: enrol.SHOWN_CHARACTERS],
            site=row.site,
            kiosk=row.kiosk_id or "",
            replaces=row.replaces,
            made_at=row.made_at,
            expires_at=row.expires_at,
            state="used" if row.used_at else "withdrawn" if row.withdrawn_at else "open",
        )
        for row in session.scalars(recent)
    ]
