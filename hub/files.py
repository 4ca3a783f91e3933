"""Files on the hub's disk: written in place while they arrive, moved to their name once their digest is verified.

`<root>/<kiosk>/<digest>.part` while incomplete, `<root>/<kiosk>/<digest>` after. The order is file, fsync, rename,
fsync of the folder (`sync`), then the commit of the row, so that a row never promises what the disk does not hold.
Called from the database's thread alone.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from edge_agent.core.ranges import ByteRanges

_READ_BYTES = 1024 * 1024


class FileStore:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[Path, int] = {}  # written since the last `sync`
        self._renamed: set[Path] = set()  # folders in which something was, since then

    def path(self, kiosk: str, digest: str) -> Path:
        return self._root / kiosk / digest

    def write(self, kiosk: str, digest: str, offset: int, data: bytes) -> None:
        """Into its place; on disk after `sync`. Raises OSError."""
        part = self._part(kiosk, digest)
        if part not in self._open:
            part.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._open[part] = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        view = memoryview(data)
        while view:
            written = os.pwrite(self._open[part], view, offset)
            view, offset = view[written:], offset + written

    def sync(self) -> None:
        """Everything written or moved is on disk when this returns; before the rows that claim it are committed."""
        try:
            for file in self._open.values():
                os.fdatasync(file)
            for folder in self._renamed:
                sync_folder(folder)
        finally:
            self.drop_open()

    def drop_open(self) -> None:
        """Close what is open, as after a transaction that failed."""
        for file in self._open.values():
            os.close(file)
        self._open.clear()
        self._renamed.clear()

    def holds_partly(self, kiosk: str, digest: str) -> bool:
        return self._part(kiosk, digest).exists()

    def was_moved(self, kiosk: str, digest: str) -> bool:
        """Verified and moved already, whatever its row says."""
        return not self._part(kiosk, digest).exists() and self.path(kiosk, digest).exists()

    def complete(self, kiosk: str, digest: str) -> bool:
        """Verify and move to its name, there for good after `sync`; False, and nothing is left, where the bytes are
        not those of the digest.

        Also where an earlier run was killed between the move and its commit.
        """
        part, path = self._part(kiosk, digest), self.path(kiosk, digest)
        descriptor = self._open.pop(part, None)
        if descriptor is None and not part.exists():
            return path.exists() and _digest(path) == digest
        if descriptor is None:
            descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _digest(part) != digest:
                part.unlink()
                return False
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.rename(path)
        self._renamed.add(path.parent)
        return True

    def put(self, kiosk: str, data: bytes) -> str:
        """Store a whole file, on disk when this returns; gives its digest."""
        digest = hashlib.sha256(data).hexdigest()
        if not self.path(kiosk, digest).exists():
            self._part(kiosk, digest).unlink(missing_ok=True)
            self.write(kiosk, digest, 0, data)
            if not self.complete(kiosk, digest):
                raise OSError(f"the disk gave back other bytes than were written, file={digest}")
            self.sync()
        return digest

    def read(self, kiosk: str, digest: str, offset: int, length: int) -> bytes:
        with self.path(kiosk, digest).open("rb") as file:
            return os.pread(file.fileno(), length, offset)

    def _part(self, kiosk: str, digest: str) -> Path:
        return self._root / kiosk / f"{digest}.part"


def ranges_of(stored: list[list[int]]) -> ByteRanges:
    return ByteRanges((start, end) for start, end in stored)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            digest.update(data)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """What was made, renamed or removed in it stays so."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
