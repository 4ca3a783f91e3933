"""The Debian package's own scripts, on a scratch tree; `scripts/build-deb` makes the package."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

DEBIAN = Path(__file__).resolve().parents[2] / "debian"


def run(name: str, root: Path, *words: str, release: str = "1.1") -> None:
    """With the packaging's placeholders filled, below a scratch root."""
    text = (DEBIAN / name).read_text().replace("@RELEASE@", release).replace("#DEBHELPER#", "")
    text = text.replace("root=/opt/teleconsult", f"root={root}")
    assert name == "postinst" or words == ("remove",)  # a purge would be of this machine's
    subprocess.run(["sh", "-c", text, name, *words], check=True)


def tree(root: Path, *releases: str) -> Path:
    for each in releases:
        (root / f"releases/{each}/.venv").mkdir(parents=True)
        (root / f"releases/{each}/.venv/.complete").touch()
    return root


def links(root: Path) -> list[str]:
    return [str((root / name).readlink()) for name in ("current", "good")]


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is not on this machine")
def test_the_packages_release_runs_unless_a_newer_one_does(tmp_path: Path) -> None:
    root = tree(tmp_path / "opt", "1.1")
    run("postinst", root, "configure")
    assert links(root) == ["releases/1.1", "releases/1.1"]
    tree(root, "1.2")
    (root / "current").unlink()
    (root / "current").symlink_to("releases/1.2")  # by an update, on trial
    run("postinst", root, "configure", "1.1")
    assert links(root) == ["releases/1.2", "releases/1.1"]
    run("postinst", tree(root, "1.3"), "configure", "1.1", release="1.3")
    assert links(root) == ["releases/1.3", "releases/1.3"]
    shutil.rmtree(root / "releases/1.3")  # its package was downgraded
    run("postinst", root, "configure", "1.3")
    assert links(root) == ["releases/1.1", "releases/1.1"]


def test_what_updates_brought_goes_with_the_package(tmp_path: Path) -> None:
    root = tree(tmp_path / "opt", "1.1", "1.2")
    (root / "keys.json").write_text("{}")
    run("postrm", root, "remove")
    assert [path.name for path in root.iterdir()] == ["keys.json"]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not on this machine")
def test_shellcheck_finds_nothing() -> None:
    scripts = [DEBIAN / name for name in ("postinst", "postrm", "teleconsult")]
    scripts.append(DEBIAN.parent / "edge_agent/update/fallback")
    result = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
