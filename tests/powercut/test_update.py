"""Updates after power cuts: one version or the other starts, never neither."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.core.release import ReleaseError
from edge_agent.update.installed import FALLBACK, Installed
from tests.powercut import updater
from tests.powercut.disk import Disk, Operation, build, clear, environment, read_log
from tests.releases import KEYS, write_release

SEED = 20_261_125
ROOT = Path(__file__).resolve().parents[2]
OLD = {"kit/kiosk/a.py": b"a = 1\n" * 300, "kit/kiosk/same.py": b"same\n" * 200, "kit/requirements/base.txt": b"x\n"}
NEW = {**OLD, "kit/kiosk/a.py": b"a = 2\n" * 300, "kit/kiosk/new.py": b"new\n"}

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing, which builds the recorder")


def install_old(root: Path, bundle: Path) -> None:
    """As scripts/provision leaves it."""
    release = root / "releases/1.0"
    shutil.copytree(bundle / "kit", release)
    updater.build(release, release, [])
    (release / ".venv/.complete").write_text("a stamp\n")
    (root / "current").symlink_to("releases/1.0")
    Installed(root).pin(KEYS)


def record(memory: Path, end: str, without: str = "") -> tuple[Disk, list[Operation], Path]:
    root, bundle, log = memory / "opt", memory / "bundle", memory / f"log-{end}{without}"
    if not root.exists():
        install_old(root, write_release(memory / "old", "1.0", OLD))
        write_release(bundle, "1.1", NEW)
        shutil.copytree(root, memory / "start", symlinks=True)
    clear(root)
    shutil.copytree(memory / "start", root, symlinks=True)
    start = Disk(root)
    words = [sys.executable, "-m", "tests.powercut.updater", root, bundle, memory / "said", end]
    recorded = {**os.environ, **environment(build(memory), root, log, without)}
    subprocess.run([str(word) for word in words], check=True, env=recorded, cwd=ROOT)
    return start, read_log(log), root


def failures(image: Path) -> list[str]:
    """Boots it: again and again without its ever getting well."""
    wrong, installed = ["the pinned keys are gone"], Installed(image)
    with contextlib.suppress(ReleaseError):
        if installed.keys() == KEYS:
            wrong.pop()
    if not is_whole(installed, installed.good):
        wrong.append(f"the good release {installed.good!r} is not whole")
    for _ in range(6):
        done = subprocess.run(["sh", FALLBACK, image], capture_output=True, text=True, check=False)
        if done.returncode:
            wrong.append(f"the fallback failed: {done.stderr}")
        if not is_whole(installed, installed.current):
            wrong.append(f"what would start, {installed.current!r}, is not whole")
    if installed.current != installed.good:
        wrong.append(f"{installed.current} never got well, and still is not left for {installed.good}")
    return wrong


def is_whole(installed: Installed, version: str) -> bool:
    folder = installed.path(version)
    files = {"1.0": OLD, "1.1": NEW}.get(version, {}) | {
        ".venv/bin/teleconsult": updater.COMMAND.replace(b"%s", version.encode())
    }
    return installed.is_complete(version) and all(
        (folder / path.removeprefix("kit/")).exists() and (folder / path.removeprefix("kit/")).read_bytes() == data
        for path, data in files.items()
    )


def cuts(memory: Path, start: Disk, log: list[Operation], every: int, choose: random.Random) -> list[str]:
    """A cut after each `every`th operation, in each of the three ways."""
    wrong = []
    for number, operation in enumerate(log):
        start.apply(operation)
        if number % every and number != len(log) - 1:
            continue
        for keeps in ("nothing", "some", "all"):
            image = memory / "image"
            clear(image)
            start.cut(image, keeps, choose)  # type: ignore[arg-type]
            wrong += [f"{number} {keeps}: {each}" for each in failures(image)]
    return wrong


@pytest.mark.parametrize("end", ["trial", "confirm", "back"])
def test_a_power_cut_at_any_step_leaves_one_release_that_starts(memory: Path, end: str) -> None:
    start, log, root = record(memory, end)
    assert len(log) > 60
    assert Installed(root).current == ("1.0" if end == "back" else "1.1")
    assert Installed(root).good == ("1.1" if end == "confirm" else "1.0")
    assert cuts(memory, start, log, 7, random.Random(SEED)) == []


def test_nor_does_one_while_it_goes_back(memory: Path) -> None:
    """The shell's part, through starts that never get well."""
    _, _, root = record(memory, "trial")
    start, log = Disk(root), memory / "log-fallback"
    recorded = {**os.environ, **environment(build(memory), root, log)}
    for _ in range(6):
        subprocess.run(["sh", FALLBACK, root], check=True, env=recorded, capture_output=True)
    assert Installed(root).current == "1.0"
    assert cuts(memory, start, read_log(log), 1, random.Random(SEED)) == []


def test_without_fsync_it_does_not(memory: Path) -> None:
    """Or the proof would prove nothing."""
    start, log, _ = record(memory, "confirm", "all")
    assert cuts(memory, start, log, 5, random.Random(SEED)) != []


def test_an_update_that_was_cut_can_be_given_again(memory: Path) -> None:
    start, log, _ = record(memory, "confirm")
    choose = random.Random(SEED)
    for number, operation in enumerate(log):
        start.apply(operation)
        if number % 23:
            continue
        image = memory / "again"
        clear(image)
        start.cut(image, "some", choose)
        updater.main(image, memory / "bundle", memory / "said", "confirm")
        assert (Installed(image).current, Installed(image).good) == ("1.1", "1.1")
        assert is_whole(Installed(image), "1.1")
