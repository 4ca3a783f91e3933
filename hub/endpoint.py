"""What a path of the hub's HTTP is: who may use it, what it takes, what it answers. The one description that routing,
the check of permissions and the OpenAPI page (`hub.openapi`) are made from, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from hub.accounts import SignedIn
from hub.roles import Permission

MAX_JSON_BYTES = 16 * 1024
NUMBER = r"\d{1,15}"  # of a row, or of milliseconds: fits every database's integers
KIOSK_ID = r"[a-z0-9][a-z0-9-]{1,30}[a-z0-9]"
HEX_32_BYTES = r"[0-9a-f]{64}"
HEX_16_BYTES = r"[0-9a-f]{32}"
HEX_4_BYTES = r"[0-9a-f]{8}"

Needs = Permission | Literal["nothing", "account"]
Handler = Callable[[Request], Awaitable[Response]]


class ErrorAnswer(msgspec.Struct, frozen=True):
    """A sentence for whoever reads it."""

    error: str


@dataclass(frozen=True)
class Endpoint:
    method: Literal["GET", "POST"]
    path: str  # `{name}` for a part that varies
    handler: Handler
    needs: Needs  # "account": any that is signed in, also with a password that must be changed
    summary: str
    answers: Mapping[int, type | str | None]  # by status: a struct (JSON), a media type, or nothing
    takes: type | None = None  # a JSON body
    form: Mapping[str, Any] | None = None  # a multipart body, as JSON schema
    parts: Mapping[str, str] = field(default_factory=dict)  # the patterns of what varies in the path
    query: Mapping[str, str] = field(default_factory=dict)  # optional parameters and their patterns
    asked_by_page: bool = False  # by itself, again and again: does not count as use of the session


def account_of(request: Request) -> SignedIn:
    """Whoever an endpoint that needs an account was called by."""
    account = request.state.account
    assert isinstance(account, SignedIn)  # noqa: S101
    return account


async def read_body(request: Request, schema: type[Any], from_page: bool = True) -> Any:
    """The JSON body. Raises HTTPException. A page must call it JSON: no page of another site can have a browser send
    that unasked."""
    if from_page and request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "The hub takes JSON here.")
    received = b""
    async for part in request.stream():
        received += part
        if len(received) > MAX_JSON_BYTES:
            raise HTTPException(413, "This is too long.")
    try:
        return msgspec.json.decode(received, type=schema)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeError, RecursionError):
        raise HTTPException(400, "The hub did not understand this request.") from None


def json_answer(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def error_answer(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(ErrorAnswer(text)), status, media_type="application/json", headers=dict(headers or {})
    )
