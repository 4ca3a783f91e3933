"""The command `teleconsult` as a technician types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from kiosk.cli import FAILED, OK, WRONG_USE, exit_code, main, one_line

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ["agent", "media", "hub", "join", "config", "devices", "demo"]


def run(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kiosk.cli", *arguments],
        cwd=ROOT,
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


def test_help_answers_without_loading_a_part() -> None:
    script = (
        "import sys, kiosk.cli\n"
        "try: kiosk.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "parts = ('edge_agent', 'hardware', 'hub', 'msgspec', 'numpy', 'asyncio', 'httpx')\n"
        "print('loaded', [name for name in parts if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.endswith("loaded []\n"), result.stdout + result.stderr
    assert all(command in result.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    out = capsys.readouterr().out
    assert left.value.code == OK
    assert f"examples:\n  teleconsult {command}" in out
    assert "exit codes:" in out


@pytest.mark.parametrize("words", [[], ["no-such-command"], ["media"], ["join", "--qr=x"], ["demo", "--ports", "8400"]])
def test_a_wrong_command_line_has_its_exit_code(words: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == WRONG_USE


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("[kiosk]\nlangauge = 'en'\n", "kiosk.langauge: unknown key; known here:"),
        ("[screen]\nport = 'x'\n", "screen.port: found 'x'; expected"),
        ("[screen", "not valid TOML"),
    ],
)
@pytest.mark.parametrize("command", [["config", "--check"], ["agent"], ["media", "--socket", "none"]])
def test_a_wrong_file_is_one_line_with_file_and_key(tmp_path: Path, command: list[str], toml: str, says: str) -> None:
    file = tmp_path / "kiosk.toml"
    file.write_text(toml)
    result = run(*command, "--config", str(file))
    assert result.returncode == WRONG_USE
    assert result.stdout == ""
    assert result.stderr.startswith(f"teleconsult: {file}: {says}" if "[screen]" not in says else "teleconsult: ")
    assert result.stderr.count("\n") == 1


def test_a_file_that_is_named_must_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--config", str(tmp_path / "none.toml")]) == WRONG_USE
    assert "none.toml: cannot be read" in capsys.readouterr().err


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    result = run("config", "--debug", "--config", str(tmp_path / "none.toml"))
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "SettingsError" in result.stderr


def test_a_bug_is_not_dressed_up() -> None:
    assert exit_code(KeyError("x")) is None


def test_an_error_of_the_system_names_the_file() -> None:
    error = PermissionError(13, "Permission denied", "/etc/teleconsult/kiosk.toml")
    assert exit_code(error) == FAILED
    assert one_line(error) == "/etc/teleconsult/kiosk.toml: Permission denied"


def test_the_effective_configuration_is_whole_and_can_be_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "kiosk.toml"
    file.write_text('[kiosk]\nlanguage = "sw"\nworker_pin_hash = "$argon2id$secret"\n')
    assert main(["config", "--config", str(file)]) == OK
    out = capsys.readouterr().out
    assert 'language = "sw"' in out
    assert "ring_timeout_s = 60.0" in out
    assert "secret" not in out
    (tmp_path / "again.toml").write_text(out)
    assert main(["config", "--check", "--config", str(tmp_path / "again.toml")]) == OK


def test_the_hubs_configuration_is_printed_with_its_secrets_masked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "hub.toml"
    file.write_text('[ice]\nturn_urls = ["turn:turn.example.org"]\nturn_secret = "opensesame"\n')
    assert main(["config", "--hub", "--config", str(file)]) == OK
    out = capsys.readouterr().out
    assert "turn:turn.example.org" in out
    assert "opensesame" not in out


def test_a_pin_is_kept_as_its_hash_beside_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "kiosk.toml"
    file.write_text('# ours\n[kiosk]\nlanguage = "sw"\n')
    result = run("config", "set-pin", "--config", str(file), typed="4711\n")
    assert result.returncode == OK, result.stderr
    text = file.read_text()
    assert text.startswith('# ours\n[kiosk]\nlanguage = "sw"\nworker_pin_hash = "$argon2id$')
    assert PasswordHasher().verify(text.split('"')[3], "4711")
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_pin_can_be_printed_for_many_kiosks(tmp_path: Path) -> None:
    result = run("config", "set-pin", "--print", typed="4711\n")
    assert PasswordHasher().verify(result.stdout.strip(), "4711")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("pin", ["", "123", "12345678901234", "12a4", "١٢٣٤"])
def test_what_the_screen_cannot_type_is_no_pin(tmp_path: Path, pin: str) -> None:
    file = tmp_path / "kiosk.toml"
    result = run("config", "set-pin", "--config", str(file), typed=pin + "\n")
    assert result.returncode == WRONG_USE
    assert "4 to 12 digits" in result.stderr
    assert not file.exists()


def test_a_mistyped_code_names_its_group_before_anybody_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["join", "0000B", "0000P", "00000"]) == WRONG_USE
    assert "look at group 3 (00000) first" in capsys.readouterr().err


def test_devices_are_listed_or_said_to_be_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices"]) == OK
    out = capsys.readouterr().out
    assert all(f"{kind}s:" in out for kind in ("camera", "microphone", "speaker"))
