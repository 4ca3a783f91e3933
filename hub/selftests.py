"""The hub's part in a kiosk's self-test: its time and TURN servers, something to measure the line by, and the telephone
code in words. No patients' data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge_agent.core import phonecode
from edge_agent.core.findings import GROUP_NAMES
from edge_agent.core.joining import SelfTestReply, SelfTestRequest
from hub.calls import ice_servers
from hub.config import HubSettings
from hub.endpoint import Endpoint, json_answer, read_body
from hub.enrol import Enrolment, JoinRefused
from hub.roles import Permission

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 64 * 1024
TEST_TTL_S = 300.0  # of TURN credentials


class Spoken(msgspec.Struct):
    code: Annotated[str, msgspec.Meta(max_length=40)]


class GroupHeard(msgspec.Struct):
    number: int
    name: str
    verdict: str  # pass, warn, fail, untested


class CodeHeard(msgspec.Struct):
    groups: list[GroupHeard]
    what: str  # the root of it, "" where nothing is wrong
    do: str


class SelfTests:
    def __init__(self, settings: HubSettings, enrolment: Enrolment, now_ms: Callable[[], int]) -> None:
        self._ice, self._enrolment, self._now_ms = settings.ice, enrolment, now_ms

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "POST", "/selftest", self.ask, "nothing", "What a kiosk's self-test must know.",
                {200: SelfTestReply}, takes=SelfTestRequest,
            ),
            Endpoint(
                "POST", "/line", self.line, "nothing", "Takes up to 64 KiB and answers as many zeros: a line's rate.",
                {200: "application/octet-stream"},
            ),
            Endpoint(
                "POST", "/api/selftest/decode", self.decode, Permission.SEE_KIOSKS, "A telephone code in words.",
                {200: CodeHeard}, takes=Spoken,
            ),
        ]  # fmt: skip

    async def ask(self, request: Request) -> Response:
        asked = await read_body(request, SelfTestRequest, from_page=False)
        try:
            kiosk = await self._enrolment.who_tests(asked)
        except JoinRefused as refusal:
            raise HTTPException(403, str(refusal)) from None
        log.info("self-test kiosk=%s", kiosk)
        now_ms = self._now_ms()
        return json_answer(SelfTestReply(now_ms, ice_servers(self._ice, "selftest", now_ms, TEST_TTL_S)))

    async def line(self, request: Request) -> Response:
        """Never more than it took: nobody gains by asking."""
        taken = 0
        async for part in request.stream():
            taken += len(part)
            if taken > MAX_LINE_BYTES:
                raise HTTPException(413, "This is too long.")
        return Response(bytes(taken), media_type="application/octet-stream")

    async def decode(self, request: Request) -> Response:
        spoken = await read_body(request, Spoken)
        try:
            heard = phonecode.decode(spoken.code)
        except phonecode.MisheardCode as error:
            text = str(error)
            raise HTTPException(400, f"{text[0].upper()}{text[1:]}.") from None
        what, do = ("", "") if heard.cause is None else (heard.cause.what, heard.cause.do)
        if heard.cause is None and heard.cause_number:
            what, do = f"Cause {heard.cause_number}, which this release does not know.", "Update the hub."
        groups = [
            GroupHeard(int(group), GROUP_NAMES[group], verdict.name.lower())
            for group, verdict in heard.verdicts.items()
        ]
        return json_answer(CodeHeard(groups, what, do))
