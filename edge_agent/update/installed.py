"""What is installed: releases beside each other, and two links that say which one runs and which one is good.

    <root>/releases/VERSION/    the kit's files, manifest and signature, `.venv`; `.venv/.complete` is written last
    <root>/current, good        links to one of them each
    <root>/trial                a link that says RELEASE/COUNT, see `fallback`
    <root>/keys.json            whom this kiosk believes about releases (`Keys`); root's, so the agent cannot change it
    <root>/update/              what has come so far of the next release, and `state.json`

A power cut at any instant leaves `current` and `good` at releases that are whole: a release is synced before it is
called complete, and a link is made beside its name and renamed. What is left of an update that was cut is thrown away
or gone on with by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from edge_agent.core.release import (
    KIT,
    MANIFEST,
    SIGNATURE,
    WHEELS,
    Content,
    Keys,
    ReleaseError,
    SignedManifest,
    check_keys,
    distribution_of,
)
from edge_agent.private_files import sync_folder, write_private

ROOT = Path("/opt/teleconsult")
COMPLETE = ".venv/.complete"
SPARE_BYTES = 64 * 1024 * 1024  # of the card, for the store of cases
FALLBACK = Path(__file__).with_name("fallback")

# Makes `.venv` in a release's folder: (release, the good release, wheels that the good one has not installed)
Builds = Callable[[Path, Path, list[Path]], None]


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
        return self._named("good") or self.current  # it was set up, and nothing was ever updated

    def path(self, version: str) -> Path:
        return self.releases / version

    def is_complete(self, version: str) -> bool:
        return bool(version) and (self.path(version) / COMPLETE).exists()

    def keys(self) -> Keys | None:
        """Raises ReleaseError."""
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

    def missing(self, wanted: Mapping[str, Content]) -> dict[str, Content]:
        """What must come from elsewhere still: it is not in the good release, as a file or as a wheel that is
        installed there, and has not come yet. One of several with the same content."""
        here, found = self._files_here(), {}
        for path, content in wanted.items():
            if not (content.sha256 in here or self._is_installed(path) or (self.incoming / content.sha256).exists()):
                found[content.sha256] = path
        return {path: wanted[path] for path in found.values()}

    def make_room(self, version: str, wanted: Mapping[str, Content]) -> None:
        """Throws away what neither runs, is good nor is wanted. Raises ReleaseError where the card is too full."""
        for folder in self.releases.iterdir():
            if folder.name not in (self.current, self.good, version):
                shutil.rmtree(folder)
        digests = {content.sha256 for content in wanted.values()}
        for each in self.incoming.iterdir():
            if each.name.partition(".")[0] not in digests:
                each.unlink()
        room = os.statvfs(self.root)
        free = room.f_bavail * room.f_frsize
        # Packed and not, a wheel unpacked takes three times its size; hard links take a little.
        needs = 5 * sum(content.size for content in self.missing(wanted).values()) + SPARE_BYTES
        if free < needs:
            raise ReleaseError(
                f"the card has {free // 1_000_000} MB left and release {version} needs {needs // 1_000_000} MB; make "
                "room, or bring a larger card"
            )

    def take(self, path: str, content: Content, data: bytes) -> None:
        """Keeps what has come. Raises ReleaseError where it is another file."""
        if len(data) != content.size or hashlib.sha256(data).hexdigest() != content.sha256:
            raise ReleaseError(f"{path} is not what the manifest says")
        new = self.incoming / f"{content.sha256}.new"
        _write(new, data)
        new.rename(self.incoming / content.sha256)
        sync_folder(self.incoming)

    def prepare(self, version: str, wanted: Mapping[str, Content], signed: SignedManifest, build: Builds) -> None:
        """Makes the whole release out of what is here and what has come. Raises ReleaseError, OSError."""
        release, here = self.path(version), self._files_here()
        if release.exists():  # of an update that was cut
            shutil.rmtree(release)
        release.mkdir()
        wheels: list[Path] = []
        for path, content in wanted.items():
            source = self.incoming / content.sha256
            if not source.exists():
                if content.sha256 not in here:
                    continue  # a wheel, which is installed in the good release
                source = here[content.sha256]
            data = source.read_bytes()
            if hashlib.sha256(data).hexdigest() != content.sha256:
                source.unlink()  # only what has come: `here` was read a moment ago
                raise ReleaseError(f"{path} was damaged on the card; it comes anew")
            target = release / path.removeprefix(KIT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            if data.startswith(b"#!"):
                target.chmod(0o755)  # a stick's file system, and a manifest, do not keep it
            if path.startswith(WHEELS):
                wheels.append(target)
        (release / MANIFEST).write_bytes(signed.manifest)
        (release / SIGNATURE).write_bytes(signed.signature)
        build(release, self.path(self.good), wheels)
        for wheel in wheels:
            wheel.unlink()  # it is installed
        os.sync()
        _write(release / COMPLETE, b"")
        sync_folder((release / COMPLETE).parent)
        sync_folder(self.releases)

    # --- which one runs

    def switch(self, version: str) -> None:
        """From here on the next start of the agent starts this one, on trial."""
        if not self._named("good"):
            self._link("good", self.current)
        self._count_anew()
        self._put_fallback()
        self._link("current", version)

    def confirm(self) -> None:
        """What runs is good from now on."""
        self._link("good", self.current)
        self._count_anew()
        for each in self.incoming.iterdir():
            each.unlink()

    def go_back(self) -> None:
        self._link("current", self.good)
        self._count_anew()

    # --- the disk

    def _files_here(self) -> dict[str, Path]:
        """The good release's files, by digest."""
        good, found = self.path(self.good), {}
        for folder, folders, files in os.walk(good):
            folders[:] = [each for each in folders if each not in (".venv", "__pycache__")]
            for name in files:
                path = Path(folder, name)
                found[hashlib.sha256(path.read_bytes()).hexdigest()] = path
        return found

    def _is_installed(self, wheel: str) -> bool:
        """In the good release's environment."""
        name = distribution_of(wheel)
        return bool(name) and any(self.path(self.good).glob(f".venv/lib/python3*/site-packages/{name}.dist-info"))

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

    def _count_anew(self) -> None:
        (self.root / "trial").unlink(missing_ok=True)

    def _put_fallback(self) -> None:
        """It belongs to no release; the good one, whose code this is, brings it."""
        there, text = self.root / "fallback", FALLBACK.read_bytes()
        if not there.exists() or there.read_bytes() != text:
            new = self.root / ".new.fallback"
            _write(new, text)
            new.chmod(0o755)
            new.rename(there)
            sync_folder(self.root)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
