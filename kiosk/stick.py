"""A courier's stick: bundles from kiosks to their hub and back, and a word for whoever finds it.

    <folder>/teleconsult/README.txt
    <folder>/teleconsult/to-hub/<kiosk>/<name>.bundle
    <folder>/teleconsult/from-hub/<kiosk>/<name>.bundle

A bundle is written beside its name, synced, and renamed: pulled out at any moment, a stick has whole bundles and
leftovers that everybody passes over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from edge_agent.core.courier import NotWhole, Sealed, check, records, written
from edge_agent.core.wire import is_kiosk_id
from edge_agent.private_files import sync_folder

TO_HUB, FROM_HUB = "to-hub", "from-hub"
SUFFIX, PART = ".bundle", ".part"
README = """This stick carries messages between a village clinic and its health centre.

Please bring it to the health centre, or back to the clinic that it came from.
Nothing on it can be read without the health centre's keys.

At the health centre:  teleconsult hub import FOLDER
At the clinic:         teleconsult export FOLDER

FOLDER is where this stick is seen. Both can be given again at any time; nothing is counted twice.
"""


class StickUnusable(OSError):
    """One line that says what to do."""


class Stick:
    def __init__(self, folder: Path) -> None:
        """Raises StickUnusable."""
        if not folder.is_dir():
            raise StickUnusable(f"{folder} is no folder; put the stick in, and give the folder where it is mounted")
        self._root = folder / "teleconsult"

    def prepare(self, way: str, kiosk: str) -> None:
        """For this kiosk's bundles; the hub puts what waits for it on the stick, though it may have brought nothing.
        Raises OSError."""
        self._make(self._root / way / kiosk)
        readme = self._root / "README.txt"
        if not readme.exists():
            self._put(readme, [README.encode()])

    def kiosks(self, way: str) -> list[str]:
        folder = self._root / way
        found = folder.iterdir() if folder.is_dir() else ()
        return sorted(each.name for each in found if each.is_dir() and is_kiosk_id(each.name))

    def bundles(self, way: str, kiosk: str) -> list[Path]:
        """In the order of their names; leftovers are not among them."""
        folder = self._root / way / kiosk
        return sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []

    def holds(self, way: str, kiosk: str, name: str) -> bool:
        """Whether that bundle is there, and whole."""
        path = self._path(way, kiosk, name)
        try:
            with path.open("rb") as file:
                check(file)
        except (NotWhole, FileNotFoundError):
            return False
        return True

    def write(self, way: str, kiosk: str, name: str, content: Iterable[Sealed]) -> None:
        """On the stick when it returns. Raises OSError, and what `content` raises, with nothing but leftovers there."""
        path = self._path(way, kiosk, name)
        self._make(path.parent)
        self._put(path, written(content))

    def read(self, path: Path) -> Iterator[Sealed]:
        """Raises NotWhole before the first record is given, OSError."""
        with path.open("rb") as file:
            check(file)
            file.seek(0)
            yield from records(file)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def clear_leftovers(self, way: str, kiosk: str) -> None:
        folder = self._root / way / kiosk
        for part in folder.glob(f"*{PART}") if folder.is_dir() else ():
            part.unlink(missing_ok=True)

    def _path(self, way: str, kiosk: str, name: str) -> Path:
        return self._root / way / kiosk / f"{name}{SUFFIX}"

    def _make(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make(folder.parent)
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)

    def _put(self, path: Path, pieces: Iterable[bytes]) -> None:
        part = path.with_name(f"{path.name}{PART}")
        with part.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
