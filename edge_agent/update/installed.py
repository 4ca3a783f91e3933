"""What is installed: releases beside each other, and two links that say which one runs and which one is good.

    <root>/releases/VERSION/    the release's files, its manifest and signature, `.venv`; `complete` is written last
    <root>/current, good        links to one of them each
    <root>/trial                a link that says RELEASE/COUNT, see `fallback`
    <root>/keys.json            whom this kiosk believes about releases (`Keys`); root's, so the agent cannot change it
    <root>/update/              what has come so far of the next release, and `state.json`

A power cut at any instant leaves `current` and `good` at releases that are whole: a release is synced before it is
called complete, and a link is made beside its name and renamed. What is left of an update that was cut is thrown away or
gone on with by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from edge_agent.core.release import (
    MANIFEST,
    SIGNATURE,
    WHEELS,
    Keys,
    Manifest,
    ReleaseError,
    ReleaseFile,
    check_keys,
    read_manifest,
)
from edge_agent.private_files import sync_folder, write_private

ROOT = Path("/opt/teleconsult")
COMPLETE = "complete"
SPARE_BYTES = 64 * 1024 * 1024  # of the card, for the store of cases
FALLBACK = Path(__file__).with_name("fallback")

# Makes `.venv` in the release's folder: (release, base or None, wheels that the base has not, names that it has too many)
Builds = Callable[[Path, Path | None, list[Path], list[str]], None]


class State(msgspec.Struct):
    """Of updates, across runs."""

    version: str = ""  # that was tried
    tries: int = 0
    tried_at: float = 0.0
    spent_on: int = 0  # a day's number
    spent_bytes: int = 0


class Installed:
    def __init__(self, root: Path = ROOT) -> None:
        self.root, self.releases = root, root / "releases"
        self._update = root / "update"
        self.incoming = self._update / "incoming"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Raises ReleaseError where another update runs, or this user may not."""
        try:
            self.incoming.mkdir(parents=True, exist_ok=True)
            self.releases.mkdir(exist_ok=True)
            lock = os.open(self._update / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ReleaseError(f"{self.root} cannot be written ({error.strerror}); use sudo") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise ReleaseError("another update is under way; it goes on") from None
        finally:
            os.close(lock)

    # --- what is here

    @property
    def current(self) -> str:
        return self._named("current")

    @property
    def good(self) -> str:
        return self._named("good")

    def path(self, version: str) -> Path:
        return self.releases / version

    def is_complete(self, version: str) -> bool:
        return bool(version) and (self.path(version) / COMPLETE).exists()

    def manifest(self, version: str) -> Manifest | None:
        """Of an installed release; None where it was installed without one."""
        try:
            return read_manifest((self.path(version) / MANIFEST).read_bytes()) if version else None
        except (OSError, ReleaseError):
            return None

    def keys(self) -> Keys | None:
        try:
            return check_keys(msgspec.json.decode((self.root / "keys.json").read_bytes(), type=Keys))
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, ReleaseError) as error:
            raise ReleaseError(f"{self.root / 'keys.json'} is damaged ({error}); bring the keys by hand") from None

    def pin(self, keys: Keys) -> None:
        write_private(self.root / "keys.json", msgspec.json.encode(keys).decode())

    def state(self) -> State:
        try:
            return msgspec.json.decode((self._update / "state.json").read_bytes(), type=State)
        except (OSError, msgspec.DecodeError):
            return State()

    def keep(self, state: State) -> None:
        write_private(self._update / "state.json", msgspec.json.encode(state).decode())

    # --- from a manifest to a release

    def needed(self, manifest: Manifest) -> list[ReleaseFile]:
        """What of it must come from elsewhere: neither here already nor a wheel that the good release has installed.
        One of several with the same content."""
        here = {(file.sha256, file.size) for _, file in self._files_here()}
        base = self.manifest(self.good)
        if base is not None and base.python == manifest.python and base.architecture == manifest.architecture:
            here |= {(file.sha256, file.size) for file in base.files if file.path.startswith(WHEELS)}
        wanted = {file.sha256: file for file in manifest.files if (file.sha256, file.size) not in here}
        return list(wanted.values())

    def missing(self, manifest: Manifest) -> list[ReleaseFile]:
        """Of what is needed, what has not come yet."""
        return [file for file in self.needed(manifest) if not (self.incoming / file.sha256).exists()]

    def make_room(self, manifest: Manifest) -> None:
        """Throws away what neither runs, is good nor is wanted. Raises ReleaseError where the card is too full."""
        for each in self.releases.iterdir():
            if each.name not in (self.current, self.good, manifest.version):
                shutil.rmtree(each)
        wanted = {file.sha256 for file in manifest.files}
        for each in self.incoming.iterdir():
            if each.name.partition(".")[0] not in wanted:
                each.unlink()
        room = os.statvfs(self.root)
        free = room.f_bavail * room.f_frsize
        needs = 4 * sum(file.size for file in self.needed(manifest)) + manifest.size // 4 + SPARE_BYTES
        if free < needs:
            raise ReleaseError(
                f"the card has {free // 1_000_000} MB left and release {manifest.version} needs "
                f"{needs // 1_000_000} MB; make room, or bring a larger card"
            )

    def take(self, file: ReleaseFile, data: bytes) -> None:
        """Keeps what has come. Raises ReleaseError where it is another file."""
        if len(data) != file.size or hashlib.sha256(data).hexdigest() != file.sha256:
            raise ReleaseError(f"{file.path} is not what the manifest says; it is asked for anew")
        part = self.incoming / f"{file.sha256}.new"
        _write(part, data)
        part.rename(self.incoming / file.sha256)
        sync_folder(self.incoming)

    def prepare(self, manifest: Manifest, raw: bytes, signature: bytes, build: Builds) -> None:
        """Makes the whole release out of what is here and what has come. Raises ReleaseError, OSError."""
        release, base = self.path(manifest.version), self.manifest(self.good)
        shutil.rmtree(release, ignore_errors=True)  # of an update that was cut
        release.mkdir()
        here = {file.sha256: path for path, file in self._files_here()}
        have = {file.sha256 for file in base.files if file.path.startswith(WHEELS)} if base else set()
        wheels: list[Path] = []
        for file in manifest.files:
            source = self.incoming / file.sha256
            if not source.exists():
                if file.sha256 not in here and file.path.startswith(WHEELS) and file.sha256 in have:
                    continue  # installed in the base's `.venv`
                source = here[file.sha256]
            data = source.read_bytes()
            if hashlib.sha256(data).hexdigest() != file.sha256:
                source.unlink()  # the card has changed it: it comes anew
                raise ReleaseError(f"{file.path} was damaged on the card; it is asked for anew")
            target = release / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            if file.path.startswith(WHEELS):
                wheels.append(target)
        (release / MANIFEST).write_bytes(raw)
        (release / SIGNATURE).write_bytes(signature)
        build(release, self.path(self.good) if base else None, wheels, _gone(base, manifest))
        for wheel in wheels:
            wheel.unlink()  # it is installed
        os.sync()
        _write(release / COMPLETE, b"")
        sync_folder(release)
        sync_folder(self.releases)

    # --- which one runs

    def switch(self, version: str) -> None:
        """From here on the next start of the agent starts this one, on trial."""
        with contextlib.suppress(FileNotFoundError):
            (self.root / "trial").unlink()
        self._put_fallback()
        self._link("current", version)

    def confirm(self) -> None:
        """What runs is good from now on."""
        self._link("good", self.current)
        with contextlib.suppress(FileNotFoundError):
            (self.root / "trial").unlink()
        for each in self.incoming.iterdir():
            each.unlink()

    def go_back(self) -> None:
        self._link("current", self.good)
        with contextlib.suppress(FileNotFoundError):
            (self.root / "trial").unlink()

    # --- the disk

    def _files_here(self) -> Iterator[tuple[Path, ReleaseFile]]:
        for version in {self.good, self.current} - {""}:
            if self.is_complete(version) and (manifest := self.manifest(version)) is not None:
                for file in manifest.files:
                    if (path := self.path(version) / file.path).exists():
                        yield path, file

    def _named(self, link: str) -> str:
        try:
            return os.path.basename(os.readlink(self.root / link))
        except OSError:
            return ""

    def _link(self, name: str, version: str) -> None:
        new = self.root / f".new.{name}"
        new.unlink(missing_ok=True)
        new.symlink_to(f"releases/{version}")
        new.rename(self.root / name)
        sync_folder(self.root)

    def _put_fallback(self) -> None:
        """It belongs to no release; the good one, whose code this is, brings it."""
        there, text = self.root / "fallback", FALLBACK.read_bytes()
        if not there.exists() or there.read_bytes() != text:
            new = self.root / ".new.fallback"
            _write(new, text)
            new.chmod(0o755)
            new.rename(there)
            sync_folder(self.root)


def _gone(base: Manifest | None, manifest: Manifest) -> list[str]:
    """Distributions that the base has installed and this release has not."""
    now = _distributions(manifest)
    return sorted(_distributions(base) - now) if base else []


def _distributions(manifest: Manifest) -> set[str]:
    return {file.path[len(WHEELS) :].partition("-")[0] for file in manifest.files if file.path.startswith(WHEELS)}


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
