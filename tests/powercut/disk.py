"""A model of a disk that loses power: what `recorder.c` has seen, replayed up to any operation.

After a cut a file holds what it held when it was last fsynced, and of what was written since nothing, all, or any
512-byte sectors; a folder has the entries of its last fsync, and of later changes (made, renamed, removed) none or any,
but no change of a name whose earlier change is lost. A rename happens whole. There is no other order, so the model is
harder on a program than ext4 with ordered data is.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

SECTOR_BYTES = 512
SOURCE = Path(__file__).with_name("recorder.c")
_HEAD = struct.Struct("=cQqII")

Keeps = Literal["nothing", "some", "all"]  # of what was not yet fsynced; "all" is a kill, which the page cache outlives


class Operation(NamedTuple):
    what: str
    handle: int
    offset: int
    path: str
    data: bytes


class NotUnderstood(AssertionError):
    """The program used a call that the recorder does not follow."""


@cache
def build(folder: Path) -> Path:
    """The recorder as a shared object. Raises OSError or CalledProcessError where there is no compiler."""
    made = folder / "recorder.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", made, SOURCE, "-ldl", "-lpthread"], check=True)
    return made


def environment(recorder: Path, root: Path, log: Path, without: str = "") -> dict[str, str]:
    """For a program whose doings below `root` go into `log`. `without`: what is not fsynced: files, folders or all."""
    return {"LD_PRELOAD": str(recorder), "RECORD_ROOT": str(root), "RECORD_LOG": str(log), "RECORD_WITHOUT": without}


def read_log(log: Path) -> list[Operation]:
    data, at, found = log.read_bytes(), 0, []
    while at < len(data):
        what, handle, offset, path_length, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        path = data[at : at + path_length].decode()
        at += path_length
        found.append(Operation(what.decode(), handle, offset, path, data[at : at + length]))
        at += length
    return found


@dataclass(eq=False)
class _File:
    now: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # offset and data, or a length and None


@dataclass(eq=False)
class _Link:
    """Made with its target: there whole or not at all."""

    target: str


@dataclass(eq=False)
class _Folder:
    now: dict[str, _Entry] = field(default_factory=dict)
    durable: dict[str, _Entry] = field(default_factory=dict)


_Entry = _File | _Folder | _Link


@dataclass(eq=False)
class _Change:
    """Of entries, made durable as one."""

    entries: list[tuple[_Folder, str, _Entry | None]]


class Disk:
    """Everything in `folder` is durable at the beginning."""

    def __init__(self, folder: Path) -> None:
        self._at = folder
        self._root = _read(folder)
        self._handles: dict[int, _Entry] = {}
        self._changes: list[_Change] = []

    def apply(self, operation: Operation) -> None:
        what, handle, offset, path, data = operation
        match what:
            case "O":
                self._handles[handle] = self._find(path)
            case "C":
                file = _File()
                self._handles[handle] = file
                self._change((path, file))
            case "M":
                self._change((path, _Folder()))
            case "R":
                self._change((path, None), (data.decode(), self._find(path)))
            case "U" | "X":
                self._change((path, None))
            case "W":
                file = self._file(handle)
                _write(file.now, offset, data)
                file.pending.append((offset, data))
            case "T":
                file = self._file(handle)
                _resize(file.now, offset)
                file.pending.append((offset, None))
            case "L":
                self._change((path, _Link(data.decode())))
            case "S":
                self._sync(self._handles[handle])
            case "A":
                for one in list(self._everything()):
                    self._sync(one)
            case _:
                raise NotUnderstood(f"{path or what}: the recorder does not follow it")

    def cut(self, folder: Path, keeps: Keeps, choose: random.Random) -> None:
        """Writes into a new `folder` what a power cut now leaves."""
        kept = self._survivors(keeps, choose)

        def write(at: Path, one: _Entry) -> None:
            if isinstance(one, _File):
                at.write_bytes(_left_of(one, keeps, choose))
                at.chmod(0o600)
                return
            if isinstance(one, _Link):
                at.symlink_to(one.target)
                return
            at.mkdir(mode=0o700)
            for name, inner in kept[one].items():
                write(at / name, inner)

        write(folder, self._root)

    def _survivors(self, keeps: Keeps, choose: random.Random) -> dict[_Folder, dict[str, _Entry]]:
        entries = {folder: dict(folder.now if keeps == "all" else folder.durable) for folder in self._folders()}
        if keeps == "some":
            lost: set[tuple[_Folder, str]] = set()
            likely = choose.random()
            for change in self._changes:
                names = {(folder, name) for folder, name, _ in change.entries}
                if names & lost or choose.random() < likely:
                    lost |= names
                    continue
                for folder, name, inner in change.entries:
                    if inner is None:
                        entries.setdefault(folder, {}).pop(name, None)
                    else:
                        entries.setdefault(folder, {})[name] = inner
        return entries

    def _folders(self) -> Iterator[_Folder]:
        return (one for one in self._everything() if isinstance(one, _Folder))

    def _everything(self) -> Iterator[_Entry]:
        seen: set[_Entry] = set()
        waiting: list[_Entry] = [self._root]
        while waiting:
            one = waiting.pop()
            if one in seen:
                continue
            seen.add(one)
            yield one
            if isinstance(one, _Folder):
                waiting += [*one.now.values(), *one.durable.values()]
                waiting += [inner for c in self._changes for f, _, inner in c.entries if f is one and inner is not None]

    def _change(self, *entries: tuple[str, _Entry | None]) -> None:
        change = _Change([])
        for path, inner in entries:
            folder = self._find(os.path.dirname(path))
            assert isinstance(folder, _Folder)
            name = os.path.basename(path)
            if inner is None:
                del folder.now[name]
            else:
                folder.now[name] = inner
            change.entries.append((folder, name, inner))
        self._changes.append(change)

    def _sync(self, one: _Entry) -> None:
        if isinstance(one, _Link):
            return
        if isinstance(one, _File):
            one.durable = bytes(one.now)
            one.pending.clear()
            return
        names: set[tuple[_Folder, str]] = set()
        durable = []
        for change in reversed(self._changes):  # with what was done earlier to the same names
            own = {(folder, name) for folder, name, _ in change.entries}
            if own & names or any(folder is one for folder, _ in own):
                names |= own
                durable.append(change)
        for change in reversed(durable):
            self._changes.remove(change)
            for folder, name, inner in change.entries:
                if inner is None:
                    folder.durable.pop(name, None)
                else:
                    folder.durable[name] = inner

    def _file(self, handle: int) -> _File:
        file = self._handles[handle]
        assert isinstance(file, _File)
        return file

    def _find(self, path: str) -> _Entry:
        one: _Entry = self._root
        for part in Path(path).relative_to(self._at).parts:
            assert isinstance(one, _Folder)
            one = one.now[part]
        return one


def _read(path: Path) -> _Folder:
    folder = _Folder()
    for inner in path.iterdir():
        if inner.is_symlink():
            folder.now[inner.name] = _Link(os.readlink(inner))
        elif inner.is_dir():
            folder.now[inner.name] = _read(inner)
        else:
            data = inner.read_bytes()
            folder.now[inner.name] = _File(bytearray(data), data)
    folder.durable = dict(folder.now)
    return folder


def _left_of(file: _File, keeps: Keeps, choose: random.Random) -> bytes:
    if keeps == "all":
        return bytes(file.now)
    left = bytearray(file.durable)
    if keeps == "some":
        likely = choose.random()
        for offset, data in file.pending:
            if data is None:
                if choose.random() < likely:
                    _resize(left, offset)
                continue
            end = offset + len(data)
            for start in range(offset // SECTOR_BYTES * SECTOR_BYTES, end, SECTOR_BYTES):
                if choose.random() < likely:
                    first, last = max(start, offset), min(start + SECTOR_BYTES, end)
                    _write(left, first, data[first - offset : last - offset])
    return bytes(left)


def _write(data: bytearray, offset: int, piece: bytes) -> None:
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


def _resize(data: bytearray, length: int) -> None:
    if length < len(data):
        del data[length:]
    else:
        data.extend(bytes(length - len(data)))


def clear(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
