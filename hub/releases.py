"""Releases of the kit for kiosks: which are here, and which kiosks may take which. `hub.updates` has them over HTTP.

In `<data dir>/releases/`: `keys.json`, every set of release keys that was in force, the newest last; `stages.json`, who
may take what; a folder for each release with its manifest and signature; `files/<SHA-256>.xz`. The hub signs nothing:
the keys that do are not here, and a kiosk believes those that it was told when it joined, so whoever has the hub cannot
make a release. Files are public software; who asks for one must know its digest.
"""

from __future__ import annotations

import hashlib
import lzma
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edge_agent.core.release import (
    KIT,
    MANIFEST,
    SIGNATURE,
    WHEELS,
    Keys,
    Manifest,
    ReleaseError,
    ReleaseReply,
    ReleaseRequest,
    SignedManifest,
    check_keys,
    read_manifest,
    verify,
    version_key,
)
from hub.files import sync_folder


class Stage(msgspec.Struct, frozen=True):
    """Which kiosks may take a version: any that is named, at a site that is named, or in the share."""

    kiosks: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    share: int = 0  # percent, by a hash of name and version: who is in at 10 is in at 50 too

    def takes(self, kiosk: str, site: str, version: str) -> bool:
        place = int.from_bytes(hashlib.sha256(f"{version}\0{kiosk}".encode()).digest()[:4]) % 100
        return kiosk in self.kiosks or site in self.sites or place < self.share


class Releases:
    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "releases"
        self._files = self._folder / "files"

    # --- for whoever looks after the hub

    def keys(self) -> tuple[Keys, ...]:
        """The newest last. Raises ReleaseError."""
        try:
            kept = msgspec.json.decode((self._folder / "keys.json").read_bytes(), type=tuple[Keys, ...])
        except FileNotFoundError:
            return ()
        except msgspec.DecodeError as error:
            raise ReleaseError(f"{self._folder / 'keys.json'} is damaged ({error})") from None
        return tuple(check_keys(each) for each in kept)

    def trust(self, file: Path, again: bool = False) -> Keys:
        """What kiosks that join from now on are told to believe. Raises ReleaseError, OSError."""
        try:
            keys = check_keys(msgspec.json.decode(file.read_bytes(), type=Keys))
        except msgspec.DecodeError as error:
            raise ReleaseError(f"{file} is no file of release keys ({error}); see scripts/build-release keys") from None
        if self.keys() and not again:
            raise ReleaseError(
                "this hub has release keys, which its kiosks believe; a release announces new ones to them. For kiosks "
                "that join from now on alone: --again"
            )
        self._keep("keys.json", msgspec.json.encode((*self.keys(), keys)))
        return keys

    def add(self, folder: Path) -> Manifest:
        """Takes a release in; no kiosk takes it yet. Raises ReleaseError, OSError."""
        keys = self.keys()
        if not keys:
            raise ReleaseError("this hub has no release keys yet: teleconsult hub release trust FILE")
        raw, signature = _read(folder, MANIFEST), _read(folder, SIGNATURE)
        manifest, new = verify(raw, signature, keys[-1])
        for path, content in manifest.files.items():
            if not path.startswith((KIT, WHEELS)):
                continue  # for who sets a kiosk up
            data = _read(folder, path)
            if len(data) != content.size or hashlib.sha256(data).hexdigest() != content.sha256:
                raise ReleaseError(f"{folder / path} is not what the manifest says; copy the release again")
            name = f"files/{content.sha256}.xz"
            if not (self._folder / name).exists():
                self._keep(name, lzma.compress(data, check=lzma.CHECK_NONE))
        self._keep(f"{manifest.version}/{SIGNATURE}", signature)
        self._keep(f"{manifest.version}/{MANIFEST}", raw)
        if new != keys[-1]:
            self._keep("keys.json", msgspec.json.encode((*keys, new)))
        return manifest

    def stage(self, version: str, stage: Stage) -> None:
        """In place of what was said of it before. Raises ReleaseError where it is not here."""
        if version not in {manifest.version for manifest, _ in self.all()}:
            raise ReleaseError(f"release {version} is not here; teleconsult hub release list shows those that are")
        self._keep("stages.json", msgspec.json.encode({**self.stages(), version: stage}))

    def stages(self) -> dict[str, Stage]:
        try:
            return msgspec.json.decode((self._folder / "stages.json").read_bytes(), type=dict[str, Stage])
        except FileNotFoundError:
            return {}

    def all(self) -> Iterator[tuple[Manifest, SignedManifest]]:
        """The oldest first."""
        found = []
        for path in self._folder.glob(f"*/{MANIFEST}"):
            raw = path.read_bytes()
            found.append((read_manifest(raw), SignedManifest(raw, (path.parent / SIGNATURE).read_bytes())))
        yield from sorted(found, key=lambda each: version_key(each[0].version))

    def packed_bytes(self, manifest: Manifest, without: Manifest | None = None) -> int:
        """What of it lies here; without what a kiosk has that runs another."""
        has = {content.sha256 for content in without.files.values()} if without else set()
        wanted = {content.sha256 for content in manifest.files.values()} - has
        return sum(path.stat().st_size for digest in wanted if (path := self.path(digest)).exists())

    def path(self, digest: str) -> Path:
        return self._files / f"{digest}.xz"

    # --- for kiosks

    def offer(self, kiosk: str, site: str, asked: ReleaseRequest) -> ReleaseReply:
        """Raises ReleaseError."""
        stages, now = self.stages(), version_key(asked.version)
        newer = [
            (manifest, signed)
            for manifest, signed in self.all()
            if version_key(manifest.version) > now
            and stages.get(manifest.version, Stage()).takes(kiosk, site, manifest.version)
        ]
        if not newer:
            return ReleaseReply()
        return ReleaseReply(self._chain(newer[-1][1], asked.signing_key))

    def _chain(self, target: SignedManifest, signing_key: str) -> tuple[SignedManifest, ...]:
        """From the keys that a kiosk believes to those that the target is signed with."""
        keys = next((each for each in self.keys() if each.signing == signing_key), None)
        if keys is None:
            raise ReleaseError("this kiosk believes release keys that are not this hub's")
        chain: list[SignedManifest] = []
        while True:
            if _after(target, keys) is not None:
                return (*chain, target)
            steps = [
                (new, signed) for _, signed in self.all() if (new := _after(signed, keys)) and new.number > keys.number
            ]
            if not steps:
                raise ReleaseError("no release announces the key that the newest is signed with to this kiosk's")
            keys, step = max(steps, key=lambda each: each[0].number)
            chain.append(step)

    def _keep(self, name: str, data: bytes) -> None:
        """Whole or not at all, on disk when it returns. Root writes for whoever owns the folder."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = path.with_name(f".{path.name}.new")
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if os.geteuid() == 0:
            owner = os.stat(self._folder.parent)
            for each in (new, path.parent, self._folder):
                os.chown(each, owner.st_uid, owner.st_gid)
        new.replace(path)
        sync_folder(path.parent)


def _after(signed: SignedManifest, keys: Keys) -> Keys | None:
    """The keys that hold once a kiosk with these has read it; None where it would not believe it."""
    try:
        return verify(signed.manifest, signed.signature, keys)[1]
    except ReleaseError:
        return None


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError:
        raise ReleaseError(f"{folder} has no {name}, so it is no release, or not all of one") from None
