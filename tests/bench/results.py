"""What runs found, as lines of JSON in a folder: a run that is there already is not repeated."""

from __future__ import annotations

import hashlib
import platform
import statistics
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.rows import KITS

ROOT = Path(__file__).resolve().parents[2]
FILE = "calls.jsonl"
# What the kit's end of a call is made of; a change in it asks for new runs.
KIT_SOURCES = ("edge_agent/media/**/*.py", "edge_agent/core/**/*.py", "edge_agent/ipc.py", "hardware/*.py",
               "hub/static/js/leg.js")  # fmt: skip


class Way(msgspec.Struct):
    """One direction, by what arrived at its end."""

    pesq: float
    heard: float
    delay_p50_ms: int | None
    delay_p95_ms: int | None
    delays_ms: tuple[float | None, ...]
    voice_back_s: float | None
    delay_normal_s: float | None
    has_pictures: bool
    pictures_s: float
    picture_p50_ms: int | None
    picture_p95_ms: int | None
    freezes: int
    frozen: float
    ssim: float | None
    size: str
    concealed: float | None = None
    queue_p95_ms: int | None = None
    kbps: float = 0.0
    overflowed: int = 0


class Result(msgspec.Struct):
    row: str
    peer: str
    run: int
    seconds: float
    material: str
    at: str
    load: float  # the machine's, 1 minute
    connected_s: float | None  # None: never
    state: str  # of the connection at the end
    cpu: float | None  # processors, of the process under test
    pss_mb: float | None
    up: Way  # kiosk → doctor
    down: Way
    build: str = ""


class Summary(msgspec.Struct):
    """The median of the runs of one row and peer."""

    row: str
    peer: str
    runs: int
    load: float
    connected_s: float | None
    state: str
    cpu: float | None
    pss_mb: float | None
    up: Way
    down: Way


class Results:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / FILE

    def all(self) -> list[Result]:
        if not self._file.exists():
            return []
        lines = self._file.read_bytes().splitlines()
        found = []
        for line in lines:
            try:
                found.append(msgspec.json.decode(line, type=Result))
            except msgspec.DecodeError:  # of an older bench, or cut short by a kill
                continue
        return found

    def add(self, result: Result) -> None:
        with self._file.open("ab") as file:
            file.write(msgspec.json.encode(result) + b"\n")

    def has(self, row: str, peer: str, run: int, seconds: float, material: str) -> bool:
        wanted = (row, peer, run, seconds, material, build_of(peer))
        return any((r.row, r.peer, r.run, r.seconds, r.material, r.build) == wanted for r in self.all())


def summaries(results: Iterable[Result]) -> list[Summary]:
    """Of each row and peer the runs of the newest build, length and material."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in sorted(results, key=lambda each: each.at):
        group = groups.setdefault((result.row, result.peer), [])
        if group and _kind(group[-1]) != _kind(result):
            group.clear()
        group[:] = [other for other in group if other.run != result.run] + [result]
    return [_summary(group) for group in groups.values()]


def _kind(result: Result) -> tuple[Any, ...]:
    return result.build, result.seconds, result.material


def _summary(group: list[Result]) -> Summary:
    last = group[-1]
    return Summary(
        row=last.row, peer=last.peer, runs=len(group), load=max(result.load for result in group),
        connected_s=_median([result.connected_s for result in group]),
        state=", ".join(dict.fromkeys(result.state for result in group)),
        cpu=_median([result.cpu for result in group]), pss_mb=_median([result.pss_mb for result in group]),
        up=_median_way([result.up for result in group]), down=_median_way([result.down for result in group]),
    )  # fmt: skip


def _median_way(ways: list[Way]) -> Way:
    found: dict[str, Any] = {}
    for name in Way.__struct_fields__:
        values = [getattr(way, name) for way in ways]
        plain = all(
            value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in values
        )
        found[name] = _median(values) if plain else values[-1]
    return Way(**found)


def _median(values: list[Any]) -> Any:
    """None where most runs had none."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if len(known) * 2 > len(values) else None


@cache
def build_of(peer: str) -> str:
    if peer in KITS:
        digest = hashlib.sha256()
        for pattern in KIT_SOURCES:
            for path in sorted(ROOT.glob(pattern)):
                digest.update(path.read_bytes())
        return f"kit {digest.hexdigest()[:12]}"
    return f"aiortc {version('aiortc')}" if peer == "stock" else "chromium"


def machine() -> str:
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith(("model name", "Model"))), platform.machine(),
    )  # fmt: skip
    return model
