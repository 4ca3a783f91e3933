"""Updates of kiosks over HTTP: what each should run, and the files of it. No patients' data."""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from edge_agent.core.release import ReleaseError, ReleaseReply, ReleaseRequest, version_key
from hub.endpoint import HEX_32_BYTES, Endpoint, json_answer, read_body
from hub.enrol import Enrolment, JoinRefused
from hub.releases import Releases

log = logging.getLogger(__name__)


class Updates:
    def __init__(self, releases: Releases, enrolment: Enrolment) -> None:
        self._releases, self._enrolment = releases, enrolment

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "POST", "/release", self.ask, "nothing", "What a kiosk should run.", {200: ReleaseReply},
                takes=ReleaseRequest,
            ),
            Endpoint(
                "GET", "/release/files/{digest}", self.file, "nothing", "A file of a release, as xz, also in pieces.",
                {200: "application/x-xz", 206: "application/x-xz"}, parts={"digest": HEX_32_BYTES},
            ),
        ]  # fmt: skip

    async def ask(self, request: Request) -> Response:
        asked = await read_body(request, ReleaseRequest, from_page=False)
        try:
            version_key(asked.version)
            kiosk, site = await self._enrolment.who_updates(asked)
        except ReleaseError as error:
            raise HTTPException(400, f"{error}.") from None
        except JoinRefused as refusal:
            raise HTTPException(403, str(refusal)) from None
        try:
            reply = self._releases.offer(kiosk, site, asked)
        except ReleaseError as error:
            log.warning("no release offered kiosk=%s reason=%s", kiosk, error)
            return json_answer(ReleaseReply())
        log.info(
            "release asked kiosk=%s runs=%s offered=%s", kiosk, asked.version, "a newer one" if reply.chain else "-"
        )
        return json_answer(reply)

    async def file(self, request: Request) -> Response:
        path = self._releases.path(request.path_params["digest"])
        if not path.is_file():
            raise HTTPException(404, "There is no such file.")
        return FileResponse(
            path, media_type="application/x-xz", headers={"Cache-Control": "immutable, max-age=31536000"}
        )
