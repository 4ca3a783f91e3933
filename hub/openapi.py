"""The hub's OpenAPI description, made from its endpoints. The console's WebSocket is not HTTP: see `hub/console.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from hub.endpoint import Endpoint, ErrorAnswer

_REFERENCE = "#/components/schemas/{name}"


def describe(endpoints: Iterable[Endpoint], cookie: str) -> dict[str, Any]:
    endpoints = list(endpoints)
    structs: dict[type, None] = {ErrorAnswer: None}
    for endpoint in endpoints:
        structs.update({kind: None for kind in endpoint.answers.values() if isinstance(kind, type)})
        if endpoint.takes is not None:
            structs[endpoint.takes] = None
    schemas, components = msgspec.json.schema_components(list(structs), ref_template=_REFERENCE)
    of = dict(zip(structs, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Teleconsult hub",
            "version": "1",
            "description": "What the doctor's console and a joining kiosk use. An unsafe method needs an Origin header "
            "that is the hub's own wherever a cookie is sent.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"session": {"type": "apiKey", "in": "cookie", "name": cookie}},
        },
    }


def _operation(endpoint: Endpoint, of: Mapping[type, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": f"{endpoint.method.lower()} {endpoint.path}",
        "responses": {
            **{str(status): _answer(kind, of) for status, kind in endpoint.answers.items()},
            "default": {"description": "Why not.", "content": _json(of[ErrorAnswer])},
        },
    }
    if endpoint.needs != "nothing":
        operation["security"] = [{"session": []}]
        operation["description"] = (
            "For whoever is signed in." if endpoint.needs == "account" else f"Needs the permission {endpoint.needs}."
        )
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _pattern(endpoint.parts[name])}
        for name in re.findall(r"{(\w+)}", endpoint.path)
    ] + [{"name": name, "in": "query", "schema": _pattern(pattern)} for name, pattern in endpoint.query.items()]
    if parameters:
        operation["parameters"] = parameters
    if endpoint.takes is not None:
        operation["requestBody"] = {"required": True, "content": _json(of[endpoint.takes])}
    elif endpoint.form is not None:
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": endpoint.form}}}
    return operation


def _answer(kind: type | str | None, of: Mapping[type, dict[str, Any]]) -> dict[str, Any]:
    if kind is None:
        return {"description": "Done."}
    if isinstance(kind, str):
        return {"description": "Here it is.", "content": {kind: {}}}
    return {"description": "Here it is.", "content": _json(of[kind])}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _pattern(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^({pattern})$"}
