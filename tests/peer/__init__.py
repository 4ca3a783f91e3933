"""A recorded old peer: the release before speaks with this one, both ways, while clinics are updated one by one.

`wire_0_1.py` is the protocol's module as that release has it, and `messages_0_1.json` what it put on the wire, a few of
every kind. When a release is out, `python -m tests.peer 0.2` records it, and what is older than it may go.
"""

from __future__ import annotations

import typing
from typing import Any

import msgspec

_BYTES = {"call": 8, "advice": 8, "turn": 8, "nonce": 8, "ids": 8, "digest": 32, "of": 32, "key": 32, "boot": 4, "consults": 16}


def samples(wire: Any) -> list[Any]:
    """Messages of every kind that this module knows: with what must be there, and with all that may be."""
    found = []
    for number, body in enumerate(wire.BODIES.values()):
        hints = typing.get_type_hints(body)
        optional = {field.name for field in msgspec.structs.fields(body) if not field.required}
        for names in (set(body.__struct_fields__) - optional, set(body.__struct_fields__)):
            fields = {name: value(hints[name], name, wire) for name in body.__struct_fields__ if name in names}
            stamp = wire.Stamp(b"boot", 12_345, True) if body.DURABLE and names >= optional else None
            consult = bytes(range(16)) if body.CHANNEL != "s" else b""
            found.append(wire.Message(body(**fields), consult, bytes([number] * 8), number, 1_700_000_000_000, stamp))
    return found


def value(kind: Any, name: str, wire: Any) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if name == "files" and len(typing.get_args(inner[0])) == 2:  # of a courier's receipt: consult and digest
        return ((bytes(16), bytes(range(32))),)
    if name == "files":
        return (bytes(range(32)),)
    if origin is tuple:
        if inner[-1] is Ellipsis:
            return (value(inner[0], name, wire),)
        return tuple(value(each, name, wire) for each in inner)
    if origin is typing.Literal:
        return inner[-1]
    if inner:
        return value(next(each for each in inner if each is not type(None)), name, wire)
    if kind is bytes:
        return bytes(range(1 if name == "of" else 0, _BYTES.get(name, 5) + (name == "of")))
    simple = {str: f"{name} é"[:20], int: 7, bool: True, float: 2.5}
    if kind in simple:
        return simple[kind]
    return kind(**{each: value(hint, each, wire) for each, hint in typing.get_type_hints(kind).items()})


def plain(message: Any) -> dict[str, Any]:
    whole = msgspec.json.decode(msgspec.json.encode(message))
    return {"kind": type(message.body).__name__, **whole, "body": fields_of(message.body)}


def fields_of(body: Any) -> dict[str, Any]:
    return {name: msgspec.json.decode(msgspec.json.encode(getattr(body, name))) for name in body.__struct_fields__}
