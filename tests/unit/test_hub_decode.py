"""`teleconsult hub decode`: what the technician hears over the telephone becomes words."""

from __future__ import annotations

import json

import pytest

from edge_agent.core import findings, phonecode
from edge_agent.core.findings import Group
from kiosk.cli import WRONG_USE, main


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def code(*found: findings.Finding) -> str:
    return phonecode.encode(phonecode.of_findings(list(found)))


def test_the_root_comes_first_then_every_group(capsys: pytest.CaptureFixture[str]) -> None:
    words = code(
        findings.failed("names", "no_dns"), findings.warned("heat", "warm"), findings.passed("disk", Group.STORAGE, "")
    ).split()
    assert main(["hub", "decode", *words]) == 0
    first, do, *groups = capsys.readouterr().out.splitlines()
    assert first == f"First of all: {findings.BY_NAME['no_dns'].what}"
    assert do.strip() == findings.BY_NAME["no_dns"].do
    assert groups[:3] == ["Failed: line (8)", "Not quite right: power, heat and memory (1)", "Good: memory card (2)"]
    assert "camera (4)" in groups[3]


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hub", "decode", "--json", code(findings.failed("camera", "camera_black"))]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["cause"] == "camera_black"
    assert said["groups"]["camera"] == "fail"


def test_a_misheard_digit_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    right = code(findings.failed("camera", "camera_black"))
    wrong = right[:-1] + str((int(right[-1]) + 1) % 10)
    assert main(["hub", "decode", wrong]) == WRONG_USE
    said = capsys.readouterr().err
    assert "read out once more" in said
    assert len(said.splitlines()) == 1
