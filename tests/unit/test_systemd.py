"""The unit files, as systemd itself reads them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "systemd").glob("*.service"))
# What `systemd-analyze security` may say at most; 10 is no sandbox at all.
EXPOSED = {"agent": 1.5, "hub": 1.5, "broker": 1.5, "selftest": 1.5, "journal": 4.5, "update": 2.0, "screen": 7.0}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_nothing_wrong(unit: Path, tmp_path: Path) -> None:
    for each in (ROOT / "systemd").glob("teleconsult*.t*"):
        shutil.copy(each, tmp_path)  # the target and the timer
    for each in UNITS:  # programs that are installed on a kiosk, not here
        text = re.sub(r"/(opt|usr)/\S*/(teleconsult|cage|chromium|mosquitto)(?=[ )\"'])", "/bin/true", each.read_text())
        (tmp_path / each.name).write_text(text)
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit.name)],
        capture_output=True, text=True, env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin:/usr/sbin"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "teleconsult-" not in result.stderr, result.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_no_unit_is_more_exposed_than_it_must_be(unit: Path) -> None:
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    exposed = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert exposed is not None, said
    assert float(exposed[1]) <= EXPOSED[unit.stem.removeprefix("teleconsult-")], said


@pytest.mark.parametrize("name", ["agent", "hub", "broker", "screen"])
def test_what_must_run_is_started_for_ever(name: str) -> None:
    text = (ROOT / f"systemd/teleconsult-{name}.service").read_text()
    assert "\nRestart=always\n" in text
    assert "\nStartLimitIntervalSec=0\n" in text
    assert "\nWantedBy=teleconsult.target\n" in text


@pytest.mark.parametrize("name", ["agent", "hub"])
def test_a_watchdog_stands_by(name: str) -> None:
    text = (ROOT / f"systemd/teleconsult-{name}.service").read_text()
    assert "\nType=notify\n" in text
    assert "\nWatchdogSec=60\n" in text


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not on this machine")
def test_every_user_of_a_unit_is_made_and_owns_its_folders(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    subprocess.run(["systemd-sysusers", f"--root={root}", str(ROOT / "systemd/teleconsult.sysusers")], check=True)
    made = {line.split(":")[0] for line in (root / "etc/passwd").read_text().splitlines()}
    groups = {line.split(":")[0] for line in (root / "etc/group").read_text().splitlines()}
    units = "".join(unit.read_text() for unit in UNITS)
    folders = (ROOT / "systemd/teleconsult.tmpfiles").read_text()
    assert set(re.findall(r"^User=(\S+)", units, re.MULTILINE)) == made - {"root"}
    assert set(re.findall(r"^d \S+ 0750 (\S+) \S+$", folders, re.MULTILINE)) <= made
    assert "gpio" in groups


def test_a_wrong_configuration_is_not_tried_for_ever() -> None:
    from kiosk.cli import WRONG_USE

    for name in ("agent", "hub"):
        assert f"RestartPreventExitStatus={WRONG_USE}\n" in (ROOT / f"systemd/teleconsult-{name}.service").read_text()
