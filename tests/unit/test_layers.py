"""The layer rule, read off the imports: kiosk → edge_agent → hardware, hub → the wire format alone, pure cores pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("kiosk", "edge_agent", "hardware", "hub")

MAY_IMPORT = {
    "hardware": {"hardware"},
    "edge_agent": {"edge_agent", "hardware"},
    "kiosk": {"kiosk", "edge_agent", "hardware"},
    "hub": {"hub"},
}
# The one place that wires, and the demo it starts.
WIRING = {"kiosk.cli", "kiosk.demo"}
# What both ends of the wire must agree on; all of it pure.
SHARED_WITH_HUB = {
    f"edge_agent.core.{name}"
    for name in (
        "wire", "sdp", "ranges", "settings", "joining", "trust", "csr", "opuspacket", "courier", "findings",
        "phonecode", "release",
    )
}  # fmt: skip

PURE = ["edge_agent/core", "hardware/gestures.py", "hub/waiting.py", "hub/roles.py", "hub/attempts.py"]
# Of the standard library what neither reads, writes, waits, runs nor tells the time.
PURE_MAY_IMPORT = set(
    """__future__ abc array base64 binascii bisect collections copy dataclasses enum fractions functools hashlib heapq
    hmac ipaddress itertools json math numbers operator re secrets statistics string struct textwrap tomllib types
    typing unicodedata urllib.parse zlib""".split()  # noqa: SIM905
) | {"numpy", "msgspec", "tomli_w", "cryptography"}
# Within pure modules: their own kin, and the contract of the hardware for its types.
PURE_MAY_IMPORT_OF_THE_KIT = {"edge_agent.core", "hardware.api"}


class Import(NamedTuple):
    importer: str
    imported: str  # the longest dotted name that is known to be a module
    at_top: bool
    line: int

    def __str__(self) -> str:
        return f"{self.importer} line {self.line} imports {self.imported}"


def module_name(path: Path, root: Path = ROOT) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imports_of(source: str, importer: str, root: Path = ROOT) -> Iterator[Import]:
    tree = ast.parse(source)
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(importer, alias.name, id(node) in top, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*importer.split(".")[: -node.level], *filter(None, [node.module])])
            for alias in node.names:
                inner = root.joinpath(*base.split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").exists()
                yield Import(importer, f"{base}.{alias.name}" if is_module else base, id(node) in top, node.lineno)


def crossing(found: Import) -> bool:
    """Whether this import goes where its part may not."""
    part, target = found.importer.partition(".")[0], found.imported.partition(".")[0]
    if target not in PARTS or found.importer in WIRING or target in MAY_IMPORT[part]:
        return False
    return not (part == "hub" and found.imported in SHARED_WITH_HUB)


def impure(found: Import) -> bool:
    """Whether this import brings the world into a pure core."""
    target = found.imported.partition(".")[0]
    if target in PARTS:
        return not any(
            found.imported == kin or found.imported.startswith(kin + ".") for kin in PURE_MAY_IMPORT_OF_THE_KIT
        ) and (found.imported != "hub.waiting")
    return not {target, found.imported} & PURE_MAY_IMPORT


SOURCES = sorted(path for part in PARTS for path in (ROOT / part).rglob("*.py"))
PURE_SOURCES = [path for path in SOURCES if any(path.relative_to(ROOT).as_posix().startswith(pure) for pure in PURE)]


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_go_downwards_only(path: Path) -> None:
    wrong = [str(found) for found in imports_of(path.read_text(), module_name(path)) if crossing(found)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", PURE_SOURCES, ids=module_name)
def test_pure_cores_import_nothing_of_the_world(path: Path) -> None:
    wrong = [str(found) for found in imports_of(path.read_text(), module_name(path)) if impure(found)]
    assert not wrong, "\n".join(wrong)


def test_the_command_imports_the_parts_when_it_needs_them() -> None:
    """So that `teleconsult --help` answers at once and a kiosk without the hub's libraries still starts."""
    found = imports_of((ROOT / "kiosk/cli.py").read_text(), "kiosk.cli")
    wrong = [str(each) for each in found if each.at_top and each.imported.partition(".")[0] in (*PARTS, "msgspec")]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("importer", "line"),
    [
        ("hardware.camera", "from edge_agent.core import wire"),
        ("edge_agent.runner", "import kiosk.webapp"),
        ("edge_agent.runner", "from hub.config import HubSettings"),
        ("kiosk.webapp", "from hub import console"),
        ("hub.app", "from edge_agent import ipc"),
        ("hub.app", "from edge_agent.core import call"),
        ("hub.app", "from hardware import api"),
    ],
)
def test_the_rule_finds_a_crossing(importer: str, line: str) -> None:
    assert [found for found in imports_of(line, importer) if crossing(found)]


@pytest.mark.parametrize(
    "line", ["import asyncio", "from time import monotonic", "import socket", "from hub import app", "import aiortc",
             "from edge_agent import ipc", "from .. import ipc"]
)  # fmt: skip
def test_the_rule_finds_an_impure_core(line: str) -> None:
    assert [found for found in imports_of(line, "edge_agent.core.call") if impure(found)]
