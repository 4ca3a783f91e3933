"""A folder in memory for what must be plain for a while: a recording under way, a reply that a player reads.

Under systemd it lies in the service's runtime directory, else in /dev/shm. Where neither is, it lies on the card, and
the log says so.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
from pathlib import Path

log = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- a folder of our own in it, checked


def make_plain_space(store: Path) -> Path:
    """Empty, for this user alone; what an earlier process left in it is gone. Raises OSError."""
    folder = _place(store)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} belongs to somebody else; remove it")
    return folder


def _place(store: Path) -> Path:
    if given := os.environ.get("RUNTIME_DIRECTORY"):
        return Path(given.split(":")[0]) / "plain"
    if os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
        mark = hashlib.sha256(os.fsencode(store.resolve())).hexdigest()[:16]
        return SHARED_MEMORY / f"teleconsult-{os.geteuid()}-{mark}"
    log.warning("no folder in memory: recordings under way are written to the card, not encrypted, in %s", store)
    return store / "plain"
