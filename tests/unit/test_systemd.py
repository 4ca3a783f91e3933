"""The unit files, as systemd itself reads them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "systemd").glob("*.service"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_nothing_wrong(unit: Path, tmp_path: Path) -> None:
    for each in UNITS:  # programs that are installed on a kiosk, not here
        text = re.sub(r"/(opt|usr)/\S*/(teleconsult|cage|chromium|mosquitto)(?=[ )\"'])", "/bin/true", each.read_text())
        (tmp_path / each.name).write_text(text)
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit.name)],
        capture_output=True, text=True, env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin:/usr/sbin"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "teleconsult-" not in result.stderr, result.stderr


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
