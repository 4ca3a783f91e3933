"""The shell scripts that people start, and the locks that they install from."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(path for path in (*(ROOT / "scripts").iterdir(), ROOT / ".ci/run") if path.is_file())
SHELL = [path for path in SCRIPTS if path.read_text().startswith("#!/usr/bin/env bash")]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_can_be_started(path: Path) -> None:
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/usr/bin/env ")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not on this machine")
def test_shellcheck_finds_nothing() -> None:
    assert len(SHELL) >= 5
    result = subprocess.run(["shellcheck", *SHELL], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_hashes_for_all_and_names_no_address(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"^--", text, re.MULTILINE)
    entries = re.split(r"\n(?=[A-Za-z0-9])", text)[1:]
    assert entries
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_what_runs_is_locked_and_the_tests_run_with_the_same() -> None:
    def locked(name: str) -> dict[str, str]:
        found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE)
        return {package.lower(): version for package, version in found}

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base, test = locked("base.txt"), locked("test.txt")

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=\[;]", requirement)[0].strip().lower() for requirement in requirements}

    assert names(project["dependencies"]) <= base.keys()
    assert names(project["optional-dependencies"]["test"]) <= test.keys()
    assert base.items() <= test.items()
