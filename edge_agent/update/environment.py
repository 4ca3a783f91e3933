"""Makes the Python environment of a release, without a network.

Most releases change the kit and nothing that it needs: then the libraries are the good release's, as hard links, which
cost neither time nor room, and only wheels that changed are installed over them (pip removes a name before it writes it
anew, so the good release keeps its own). Nothing in here runs the new release but the last check, which imports it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from edge_agent.core.release import KIT, ReleaseError

_CHECK = "import kiosk.agent_process, kiosk.cli, edge_agent.media.process, edge_agent.update.run"
_KIT = ("kiosk", "edge_agent", "hardware", "hub", "teleconsult_kit", "kit.pth")
_STEP_S = 1800.0  # numpy, av and OpenCV take minutes to unpack on a slow card


def build(release: Path, base: Path | None, wheels: list[Path], gone: list[str]) -> None:
    """Makes `release/.venv`. `base` has everything but `wheels`, and `gone` too much; without one `wheels` are all.
    Raises ReleaseError."""
    python = _python_of(base) if base else Path(os.path.realpath("/usr/bin/python3"))
    make(release, release, base, wheels, gone, python, _sees_system(base) if base else _on_a_pi())
    command = release / ".venv/bin/python"
    _run("start", command, "-I", "-c", _CHECK)


def make(
    release: Path, final: Path, base: Path | None, wheels: list[Path], gone: list[str], python: Path, system: bool
) -> None:
    """`final` is where the release will be: a package is built elsewhere. `system`: sees Debian's own libraries, as the
    pins of a Raspberry Pi need."""
    venv = release / ".venv"
    options = (["--system-site-packages"] if system else []) + (["--without-pip"] if base else [])
    _run("make an environment for", python, "-m", "venv", *options, venv)
    site = _site_of(venv)
    if base is not None:
        _link_all(_site_of(base / ".venv"), site)
    pip = [venv / "bin/python", "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
    if wheels:
        _run("install", *pip, "install", "--no-index", "--no-deps", *wheels)
    if gone:
        _run("install", *pip, "uninstall", "--yes", *gone)
    (site / "kit.pth").write_text(f"{final / KIT}\n")
    command = venv / "bin/teleconsult"
    command.unlink(missing_ok=True)
    command.write_text(
        f"#!{final}/.venv/bin/python\nimport sys\n\nfrom kiosk.cli import main\n\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    # The services see it read-only and could not keep what they compile.
    _run("compile", python, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash",
         "-s", release, "-p", final, release / KIT)  # fmt: skip


def _python_of(base: Path) -> Path:
    return Path(os.path.realpath(base / ".venv/bin/python"))


def _sees_system(base: Path) -> bool:
    text = (base / ".venv/pyvenv.cfg").read_text()
    return "include-system-site-packages = true" in text


def _on_a_pi() -> bool:
    try:
        return "Raspberry Pi" in Path("/proc/device-tree/model").read_text(errors="replace")
    except OSError:
        return False


def _site_of(venv: Path) -> Path:
    found = sorted(venv.glob("lib/python3*/site-packages"))
    if not found:
        raise ReleaseError(f"{venv} is no environment; install a release with its package or scripts/provision")
    return found[-1]


def _link_all(source: Path, target: Path) -> None:
    """All but the kit itself."""
    for folder, folders, files in os.walk(source):
        inner = Path(folder).relative_to(source)
        if not inner.parts:
            folders[:] = [each for each in folders if not _is_kit(each)]
            files = [each for each in files if not _is_kit(each)]
        (target / inner).mkdir(exist_ok=True)
        for name in files:
            os.link(Path(folder, name), target / inner / name)


def _is_kit(name: str) -> bool:
    """Also where it was installed as a wheel, or in place."""
    return name.partition("-")[0] in _KIT or name.startswith("__editable__")


def _run(what: str, *words: object) -> None:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    try:
        done = subprocess.run(
            [str(word) for word in words], capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment,
            check=False, timeout=_STEP_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ReleaseError(f"cannot {what} this release: {error}; it stays as it was") from None
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no word"]
        raise ReleaseError(f"cannot {what} this release: {last[0][:200]}; it stays as it was")
