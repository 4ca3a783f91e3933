"""One update, from what lies in a folder to the new release on trial or good: `python -m tests.powercut.updater
ROOT BUNDLE SAID END`. END is `trial`, `confirm` or `back`. What is done it says in the file SAID."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edge_agent.core.release import MANIFEST, SIGNATURE, SignedManifest, verify
from edge_agent.update.installed import Installed
from edge_agent.update.run import this_machine

COMMAND = b"#!/bin/sh\necho %s\n" * 40


def build(release: Path, base: Path, wheels: list[Path]) -> None:
    """In place of pip, which would be recorded for minutes: what it leaves, some files below `.venv`."""
    (release / ".venv/bin").mkdir(parents=True)
    (release / ".venv/bin/teleconsult").write_bytes(COMMAND.replace(b"%s", release.name.encode()))
    (release / ".venv/bin/python").symlink_to("/usr/bin/python3")


def main(root: Path, bundle: Path, said: Path, end: str) -> None:
    heard = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    installed = Installed(root)
    with installed.alone():
        keys = installed.keys()
        assert keys is not None
        signed = SignedManifest((bundle / MANIFEST).read_bytes(), (bundle / SIGNATURE).read_bytes())
        manifest, keys = verify(signed.manifest, signed.signature, keys)
        installed.pin(keys)
        wanted = manifest.wanted(this_machine())
        installed.make_room(manifest.version, wanted)
        for path, content in installed.missing(wanted).items():
            installed.take(path, content, (bundle / path).read_bytes())
        installed.prepare(manifest.version, wanted, signed, build)
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
