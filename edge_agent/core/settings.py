"""One TOML file checked against a schema of msgspec structs, for kiosk and hub alike.

Pure: text in, settings out. An error names file and key, what was found and what is allowed.
"""

from __future__ import annotations

import re
import tomllib
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import msgspec
import tomli_w

Secret = Annotated[str, msgspec.Meta(extra={"secret": True})]
"""A string that `effective` masks."""

MASK = "********"
_Settings = TypeVar("_Settings", bound=msgspec.Struct)


class SettingsError(ValueError):
    """One line that a technician can act on."""


def load(text: str, source: str, schema: type[_Settings]) -> _Settings:
    """The settings in `text`, defaults for what it leaves out. Raises SettingsError naming `source`.

    Schemas are structs with `forbid_unknown_fields=True`, so that a misspelt key is found.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{source}: not valid TOML: {error}") from None
    try:
        return msgspec.convert(raw, schema)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source}: {_explain(str(error), raw, schema)}") from None


def effective(settings: msgspec.Struct) -> str:
    """The whole configuration as TOML, secrets masked."""
    return tomli_w.dumps(_masked_struct(settings))


def _explain(message: str, raw: dict[str, Any], schema: type[msgspec.Struct]) -> str:
    what, _, path = message.partition(" - at `$")
    keys = re.findall(r"[^.`\[\]]+", path.removesuffix("`"))
    if unknown := re.fullmatch(r"Object contains unknown field `(.+)`", what):
        known = ", ".join(_struct_at(schema, keys).__struct_fields__)
        return f"{'.'.join([*keys, unknown[1]])}: unknown key; known here: {known}"
    found: Any = raw
    for key in keys:
        found = found[int(key)] if isinstance(found, list) else found.get(key) if isinstance(found, dict) else None
    return f"{'.'.join(keys) or 'top level'}: found {found!r}; {what[0].lower()}{what[1:]}"


def _struct_at(schema: type[msgspec.Struct], keys: list[str]) -> type[msgspec.Struct]:
    for key in keys:
        hint = get_type_hints(schema).get(key)
        for candidate in (hint, *get_args(hint)):
            if isinstance(candidate, type) and issubclass(candidate, msgspec.Struct):
                schema = candidate
    return schema


def _masked_struct(settings: msgspec.Struct) -> dict[str, Any]:
    hints = get_type_hints(type(settings), include_extras=True)
    return {
        name: _masked(getattr(settings, name), hints[name])
        for name in settings.__struct_fields__
        if getattr(settings, name) is not None
    }


def _masked(value: Any, hint: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return _masked_struct(value)
    if isinstance(value, (list, tuple)):
        return [_masked(item, None) for item in value]
    if value and any(getattr(meta, "extra", None) == {"secret": True} for meta in getattr(hint, "__metadata__", ())):
        return MASK
    return str(value) if not isinstance(value, (str, int, float, bool, dict)) else value
