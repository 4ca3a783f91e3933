"""A hub's data as one tar, made while the hub runs, and put back on an empty machine.

What is in it, in this order: `about.json`; the CA, its keys sealed with the operator's passphrase as they lie on the
disk; `hub.db`, as it was at one instant; `files/`, which hold at least what that database tells of, since a file is on
the disk before its row is; `whole.json`, without which it is not all there. The broker's state is not in it: nothing
that it has is promised to anybody. With PostgreSQL the database is left to its own tools.

The tar holds patients' data in the clear. It goes to a file for its owner alone, or to standard output, where a
program that encrypts takes it.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from hub.config import HubSettings
from hub.files import sync_folder

FORMAT = 1
_CA, _FILES, _DATABASE, _ABOUT, _WHOLE = "ca", "files", "hub.db", "about.json", "whole.json"
_RESTORING = ".restoring"  # in the data directory: what is not yet in its place


class BackupError(OSError):
    """One line that says what to do."""


class About(msgspec.Struct, frozen=True):
    format: int
    made_at_ms: int
    software: str
    has_database: bool


class Counted(NamedTuple):
    files: int
    bytes: int


def back_up(settings: HubSettings, to: BinaryIO, software: str, now_ms: int) -> Counted:
    """Write a backup. Raises OSError, sqlite3.Error."""
    data = settings.data_dir
    database = _sqlite_path(settings)
    if not (data / _CA).is_dir():
        raise BackupError(f"there is no hub in {data}: nothing to back up")
    files = size = 0
    with tarfile.open(fileobj=to, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        _add_bytes(tar, _ABOUT, msgspec.json.encode(About(FORMAT, now_ms, software, database is not None)))
        for path in sorted((data / _CA).rglob("*")):
            if path.is_file():
                tar.add(path, str(path.relative_to(data)), recursive=False)
        if database is not None:
            with tempfile.TemporaryDirectory(dir=data, prefix=".backup-") as folder:
                copy = Path(folder) / _DATABASE
                _copy_database(database, copy)
                tar.add(copy, _DATABASE)
        for path in _found_files(data / _FILES):
            added = _add_file(tar, path, str(path.relative_to(data)))
            if added is not None:
                files, size = files + 1, size + added
        _add_bytes(tar, _WHOLE, json.dumps({"files": files}).encode())
    return Counted(files, size)


def write_backup(path: Path, write: Callable[[BinaryIO], Counted]) -> Counted:
    """To a file that is there whole or not at all, for its owner alone. Raises OSError."""
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            counted = write(file)
            file.flush()
            os.fsync(descriptor)
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.absolute().parent)
    return counted


def restore(settings: HubSettings, source: BinaryIO) -> About:
    """Into an empty data directory; whole or, when it is killed, to be called again. Raises BackupError, OSError."""
    data = settings.data_dir
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    restoring = data / _RESTORING
    if restoring.exists() and any(restoring.iterdir()):  # an earlier one did not come to its end: what is here, is its
        for left in (restoring, data / _CA, data / _FILES):
            shutil.rmtree(left, ignore_errors=True)
    database = _sqlite_path(settings)
    there = [path for path in (data / _CA, data / _FILES, database) if path is not None and path.exists()]
    if there:
        raise BackupError(f"there is a hub in {data} already ({there[0].name}); restore into an empty data directory")
    restoring.mkdir(mode=0o700, exist_ok=True)
    try:
        about = _unpack(source, restoring)
        if about.has_database:
            if database is None:
                raise BackupError("this backup is of a hub with SQLite; store.database_url names another database")
            _check_database(restoring / _DATABASE)
        elif database is not None:
            raise BackupError("this backup is of a hub with PostgreSQL; name it in store.database_url, restored first")
    except (tarfile.TarError, EOFError, ValueError, sqlite3.DatabaseError) as error:
        shutil.rmtree(restoring)
        raise BackupError(f"this is no whole backup of a hub: {error}. Nothing was restored") from None
    except BackupError:
        shutil.rmtree(restoring)
        raise
    _sync_tree(restoring)
    for name in (_CA, _FILES):
        if (restoring / name).exists():
            (restoring / name).rename(data / name)
    if database is not None and about.has_database:
        shutil.move(restoring / _DATABASE, database)
        sync_folder(database.parent)
    sync_folder(data)
    shutil.rmtree(restoring)
    return about


def _unpack(source: BinaryIO, folder: Path) -> About:
    about, files = None, 0
    with tarfile.open(fileobj=source, mode="r|*") as tar:
        for member in tar:
            if member.name == _WHOLE:
                if about is None or json.loads(_bytes_of(tar, member))["files"] != files:
                    raise BackupError("this backup lacks files; take another one. Nothing was restored")
                if about.has_database != (folder / _DATABASE).exists():
                    raise BackupError("this backup lacks its database; take another one. Nothing was restored")
                return about
            if member.name == _ABOUT:
                about = msgspec.json.decode(_bytes_of(tar, member), type=About)
                if about.format > FORMAT:
                    raise BackupError(f"a newer release has made this backup ({about.software}): install that one")
                continue
            top = member.name.split("/", 1)[0]
            if not member.isfile() or top not in (_CA, _FILES, _DATABASE):
                raise BackupError(f"this is no backup of a hub: there is {member.name!r} in it. Nothing was restored")
            files += top == _FILES
            tar.extract(member, folder, filter="data")
            (folder / member.name).chmod(0o600)
    raise BackupError("this backup ends too early: it was cut off. Nothing was restored")


def _bytes_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file is not None else b""


def _sqlite_path(settings: HubSettings) -> Path | None:
    """None where the database is another."""
    url = settings.database_url
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def _copy_database(path: Path, copy: Path) -> None:
    """In one reading transaction, which holds up no writer (WAL)."""
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def _check_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise BackupError(f"the database in this backup is damaged ({found}); take another one. Nothing was restored")


def _found_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else []


def _add_file(tar: tarfile.TarFile, path: Path, name: str) -> int | None:
    """As long as it is now; None where it has got its name meanwhile, and is there whole."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        if not name.endswith(".part") or not path.with_suffix("").exists():
            return None
        path, name = path.with_suffix(""), name.removesuffix(".part")
        file = path.open("rb")
    with file:
        member = tar.gettarinfo(arcname=name, fileobj=file)
        tar.addfile(member, file)
        return member.size


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    tar.addfile(member, io.BytesIO(data))


def _sync_tree(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            descriptor = os.open(Path(folder) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(folder))
