"""Makes the Python environment of a release, without a network.

Most releases change the kit and nothing that it needs: then the libraries are the good release's, as hard links, which
cost neither time nor room, and only wheels that changed are installed over them (pip removes a name before it writes it
anew, so the good release keeps its own). Nothing in here runs the new release but the last check, which imports it.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from edge_agent.core.release import ReleaseError

_CHECK = "import kiosk.agent_process, kiosk.cli, edge_agent.media.process, edge_agent.update.run"
_LOCK = "requirements/base.txt"
_STEP_S = 1800.0  # numpy, av and OpenCV take minutes to unpack on a slow card


def build(release: Path, base: Path, wheels: list[Path]) -> None:
    """Makes `release/.venv` from the environment of `base`, with `wheels` in place of what they replace. Raises
    ReleaseError."""
    venv = release / ".venv"
    old = _site_of(base / ".venv")
    system = "include-system-site-packages = true" in (base / ".venv/pyvenv.cfg").read_text()  # the pins of a Pi
    python = Path(os.path.realpath(base / ".venv/bin/python"))
    _run("make an environment for", python, "-m", "venv", "--without-pip",
         *(["--system-site-packages"] if system else []), venv)  # fmt: skip
    _link_all(old, _site_of(venv))
    pip = (venv / "bin/python", "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet",
           "--no-index", "--no-deps", "--no-compile")  # fmt: skip
    if wheels:
        _run("install the libraries of", *pip, *wheels)
    _run("install", *pip, "--no-build-isolation", "--editable", release)
    _check_lock(release, _site_of(venv))
    # The services see it read-only and could not keep what they compile.
    for folder in ("kiosk", "edge_agent", "hardware", "hub", *([_site_of(venv)] if wheels else [])):
        _run("compile", venv / "bin/python", "-I", "-m", "compileall", "-q", release / folder)
    _run("start", venv / "bin/python", "-I", "-c", _CHECK)


def _check_lock(release: Path, site: Path) -> None:
    """What is locked and here is here in the locked version; what is not here is for other machines, or the last check
    misses it."""
    here = {}
    for folder in site.glob("*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
        here[_plain(name)] = version
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", (release / _LOCK).read_text(), re.MULTILINE):
        if here.get(_plain(name), version) != version:
            raise ReleaseError(f"this release needs {name} {version} and does not bring it; it is not installed")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _site_of(venv: Path) -> Path:
    found = sorted(venv.glob("lib/python3*/site-packages"))
    if not found:
        raise ReleaseError(f"{venv} is no environment; set this kiosk up again with scripts/provision")
    return found[-1]


def _link_all(source: Path, target: Path) -> None:
    """All but the kit itself, which was installed in place."""
    for folder, folders, files in os.walk(source):
        inner = Path(folder).relative_to(source)
        if not inner.parts:
            folders[:] = [each for each in folders if not each.startswith("teleconsult_kit-")]
            files = [each for each in files if not each.startswith("__editable__")]
        (target / inner).mkdir(exist_ok=True)
        for name in files:
            os.link(Path(folder, name), target / inner / name)


def _run(what: str, *words: object) -> None:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    try:
        done = subprocess.run(
            [str(word) for word in words], capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment,
            check=False, timeout=_STEP_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ReleaseError(f"cannot {what} this release: {error}; what runs stays") from None
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no word"]
        raise ReleaseError(f"cannot {what} this release: {last[0][:200]}; what runs stays")
