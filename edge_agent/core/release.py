"""What a release of the kit is, and whose word makes one. Pure; used by both ends.

A release is a folder: `manifest.json` names its version and each file with digest and size, `manifest.sig` is the raw
Ed25519 signature over that file's bytes. Two keys may sign: the *signing key*, which is in use, and the *recovery key*,
which lies offline until the other is lost. A kiosk pins both when it joins. A signed manifest may announce the keys of
after it (`Keys`, numbered upwards): the signing key a new signing key, the recovery key both. So keys change without
anybody going to a kiosk, and who has stolen a signing key cannot take the recovery key's place.

A kiosk that missed a change of keys is told the manifests that announced it, one after the other (`follow`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
PLATFORM = 1  # what comes with the package alone: units, Debian's packages, Python. A release may ask for a newer one
MAX_MANIFEST_BYTES = 2 * 1024 * 1024
MAX_FILE_BYTES = 512 * 1024 * 1024
MAX_FILES = 20_000
KEY_BYTES = 32

KIT, WHEELS, REQUIREMENTS = "kit/", "wheels/", "requirements.txt"

_VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){1,3}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[0-9a-f]{64}")
_PATH = re.compile(r"[A-Za-z0-9._@+~-]+(/[A-Za-z0-9._@+~-]+)*")
_NOT_OURS = (MANIFEST, SIGNATURE, "complete", ".venv")  # of the folder that it is installed in


class ReleaseError(ValueError):
    """One line: what is wrong with it, and what to do. Nothing was changed."""


class Keys(msgspec.Struct, frozen=True):
    """Public keys, hex. Numbers count up, so that an announcement said again moves nobody back."""

    number: int
    signing: str
    recovery: str


class ReleaseFile(msgspec.Struct, frozen=True):
    path: str  # below the release's folder, with `/`
    sha256: str
    size: int


class Manifest(msgspec.Struct, frozen=True):
    version: str  # 1.2 or 1.2.3
    files: tuple[ReleaseFile, ...]
    architecture: str = ""  # as Debian names it; "": any
    python: str = ""  # 3.11; "": any
    platform: int = 0
    keys: Keys | None = None  # from now on

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.version, self.architecture, self.python and f"py{self.python}")))

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


class SignedManifest(msgspec.Struct, frozen=True):
    """JSON: the bytes as they were signed, base64."""

    manifest: bytes
    signature: bytes


class ReleaseRequest(msgspec.Struct, frozen=True):
    """JSON of `POST /release`: a kiosk asks what it should run. The signature is over `csr.release_statement`."""

    certificate: str  # PEM
    signature: str  # hex of DER
    version: str  # that it runs
    signing_key: str = ""  # hex: the one that it believes; "": it has pinned none
    architecture: str = ""
    python: str = ""


class ReleaseReply(msgspec.Struct, frozen=True):
    """JSON. Empty where there is nothing newer for this kiosk; else what leads to its release, which is the last: those
    before it announce keys that it does not have."""

    chain: tuple[SignedManifest, ...] = ()


def version_key(version: str) -> tuple[int, ...]:
    """To be compared. Raises ReleaseError."""
    if not _VERSION.fullmatch(version):
        raise ReleaseError(f"{version[:40]!r} is no version, such as 1.4.0")
    numbers = tuple(map(int, version.split(".")))
    return numbers + (0,) * (4 - len(numbers))


def read_manifest(raw: bytes) -> Manifest:
    """Checks all but the signature. Raises ReleaseError, whatever it is given."""
    if len(raw) > MAX_MANIFEST_BYTES:
        raise ReleaseError(f"{MANIFEST} has more than {MAX_MANIFEST_BYTES} bytes; it is none of a release")
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ReleaseError(f"{MANIFEST} is damaged, or of another kind ({error}); copy the release again") from None
    version_key(manifest.version)
    if not re.fullmatch(r"[a-z0-9]{0,20}", manifest.architecture) or not re.fullmatch(
        r"(\d\.\d{1,3})?", manifest.python
    ):
        raise ReleaseError(f"{MANIFEST} names no architecture or no version of Python")
    if not 0 < len(manifest.files) <= MAX_FILES:
        raise ReleaseError(f"{MANIFEST} names {len(manifest.files)} files; a release has 1 to {MAX_FILES}")
    seen: set[str] = set()
    for file in manifest.files:
        parts = PurePosixPath(file.path).parts
        if not _PATH.fullmatch(file.path) or len(file.path) > 300 or ".." in parts or "." in file.path.split("/"):
            raise ReleaseError(f"{MANIFEST} names a file where none may be: {file.path[:80]!r}")
        if parts[0] in _NOT_OURS or file.path in seen:
            raise ReleaseError(f"{MANIFEST} names {file.path[:80]!r}, which it may not, or twice")
        if not _DIGEST.fullmatch(file.sha256) or not 0 <= file.size <= MAX_FILE_BYTES:
            raise ReleaseError(f"{MANIFEST} has no SHA-256 or no size of {file.path[:80]!r}")
        seen.add(file.path)
    if manifest.keys is not None:
        check_keys(manifest.keys)
    return manifest


def check_keys(keys: Keys) -> Keys:
    """Raises ReleaseError."""
    if not (keys.number > 0 and _KEY.fullmatch(keys.signing) and _KEY.fullmatch(keys.recovery)):
        raise ReleaseError("these are no release keys: a number from 1 and two keys of 64 hexadecimal digits")
    if keys.signing == keys.recovery:
        raise ReleaseError("signing key and recovery key are the same; then one that is lost is both")
    return keys


def verify(raw: bytes, signature: bytes, keys: Keys) -> tuple[Manifest, Keys]:
    """The manifest and the keys of after it. Raises ReleaseError: it is not signed by one of these keys, or announces
    what its signer may not."""
    by_recovery = _signed_by(keys.recovery, raw, signature)
    if not by_recovery and not _signed_by(keys.signing, raw, signature):
        raise ReleaseError(
            f"{SIGNATURE} is not by this kiosk's release key ({keys.signing[:8]}…), so the release is not installed; "
            "get it from whoever makes your releases"
        )
    manifest = read_manifest(raw)
    new = manifest.keys
    if new is None or new.number <= keys.number:
        return manifest, keys
    if new.recovery != keys.recovery and not by_recovery:
        raise ReleaseError("the release announces another recovery key, which the recovery key alone may")
    return manifest, new


def follow(chain: Iterable[SignedManifest], keys: Keys) -> tuple[Manifest, Keys]:
    """The last of them, and the keys of after it; each is signed with the keys of after the one before. Raises
    ReleaseError."""
    manifest = None
    for each in chain:
        manifest, keys = verify(each.manifest, each.signature, keys)
    if manifest is None:
        raise ReleaseError("there is no release in this answer")
    return manifest, keys


def check_fits(manifest: Manifest, architecture: str, python: str) -> None:
    """Raises ReleaseError where it is for another machine."""
    for what, wanted, here in (
        ("a machine of", manifest.architecture, architecture),
        ("Python", manifest.python, python),
    ):
        if wanted not in ("", here):
            raise ReleaseError(f"release {manifest.version} is for {what} {wanted}, and this is {here}")
    if manifest.platform > PLATFORM:
        raise ReleaseError(
            f"release {manifest.version} needs newer units than these (platform {manifest.platform}, here {PLATFORM}): "
            "install it with its package or scripts/provision"
        )


def _signed_by(key: str, raw: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, raw)
    except (InvalidSignature, ValueError):
        return False
    return True
