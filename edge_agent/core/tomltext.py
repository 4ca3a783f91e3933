"""Sets single values in a TOML file that a person keeps, leaving their comments, order and other keys alone.

Pure. Knows the shape our configuration has: tables of one level, keys with a value on one line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

import tomli_w

from edge_agent.core.settings import SettingsError

Value = str | int | float | bool


def set_values(text: str, values: Mapping[str, Mapping[str, Value]], source: str = "the configuration") -> str:
    """`text` with `values[table][key]` set. Raises SettingsError where it is not TOML, or of another shape."""
    try:
        wanted = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{source}: not valid TOML: {error}") from None
    for table, keys in values.items():
        wanted.setdefault(table, {}).update(keys)
        for key, value in keys.items():
            text = _set(text, table, key, tomli_w.dumps({key: value}).rstrip("\n"))
    if _parsed(text) != wanted:  # an inline or dotted table, or a value over several lines
        changes = ", ".join(f"{table}.{key}" for table, keys in values.items() for key in keys)
        raise SettingsError(f"{source}: written in a way that cannot be changed here; set {changes} by hand")
    return text


def _set(text: str, table: str, key: str, line: str) -> str:
    lines = text.split("\n")
    header = re.compile(rf"\s*\[\s*{re.escape(table)}\s*\]\s*(#.*)?")
    start = next((number for number, each in enumerate(lines) if header.fullmatch(each)), None)
    if start is None:
        body = text.rstrip("\n")
        return (f"{body}\n\n" if body else "") + f"[{table}]\n{line}\n"
    end = next((number for number in range(start + 1, len(lines)) if re.match(r"\s*\[", lines[number])), len(lines))
    assigned = re.compile(rf"\s*{re.escape(key)}\s*=")
    for number in range(start + 1, end):
        if assigned.match(lines[number]):
            lines[number] = line + _comment_of(lines[number])
            return "\n".join(lines)
    while end > start + 1 and not lines[end - 1].strip():
        end -= 1
    return "\n".join([*lines[:end], line, *(lines[end:] or [""])])


def _comment_of(line: str) -> str:
    """The comment behind a value: the longest tail without which the line still means the same."""
    whole = _parsed(line)
    for found in re.finditer(r"\s*#", line):
        if whole is not None and _parsed(line[: found.start()]) == whole:
            return line[found.start() :]
    return ""


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
