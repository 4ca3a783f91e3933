"""One update, from what lies in a folder to the new release on trial or good: `python -m tests.powercut.updater
ROOT BUNDLE SAID END`. END is `trial`, `confirm` or `back`. What is done it says in the file SAID."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edge_agent.core.release import MANIFEST, SIGNATURE, verify
from edge_agent.update.installed import Installed


def build(release: Path, base: Path | None, wheels: list[Path], gone: list[str]) -> None:
    """In place of pip, which would be recorded for minutes: what it leaves, some files below `.venv`."""
    (release / ".venv/bin").mkdir(parents=True)
    (release / ".venv/bin/teleconsult").write_text(f"#!/bin/sh\necho {release.name}\n" * 40)
    (release / ".venv/bin/python").symlink_to("/usr/bin/python3")


def main(root: Path, bundle: Path, said: Path, end: str) -> None:
    heard = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    installed = Installed(root)
    with installed.alone():
        keys = installed.keys()
        assert keys is not None
        raw, signature = (bundle / MANIFEST).read_bytes(), (bundle / SIGNATURE).read_bytes()
        manifest, keys = verify(raw, signature, keys)
        installed.pin(keys)
        installed.make_room(manifest)
        for file in installed.missing(manifest):
            installed.take(file, (bundle / file.path).read_bytes())
        installed.prepare(manifest, raw, signature, build)
        os.write(heard, b"prepared\n")
        installed.switch(manifest.version)
        os.write(heard, b"switched\n")
        if end == "confirm":
            installed.confirm()
            os.write(heard, b"confirmed\n")
        elif end == "back":
            installed.go_back()
            os.write(heard, b"back\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), sys.argv[4])
