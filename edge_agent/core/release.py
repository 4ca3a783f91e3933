"""What a release of the kit is, and whose word makes one. Pure; used by both ends.

A release is a folder: `manifest.json` names its version and each file with digest and size, `manifest.sig` is the raw
Ed25519 signature over that file's bytes. Two keys may sign: the *signing key*, which is in use, and the *recovery key*,
which lies offline until the other is lost. A kiosk pins both when it joins. A signed manifest may announce the keys of
after it (`Keys`, numbered upwards): the signing key a new signing key, the recovery key both. So keys change without
anybody going to a kiosk, and who has stolen a signing key cannot take the recovery key's place.

A kiosk that missed a change of keys is told the manifests that announced it, one after the other (`follow`).

Of the files a kiosk wants `kit/…`, which is what its release's folder is made of, and those of `wheels/…` that are for
it; the rest is for who sets a kiosk up (`scripts/build-bundle`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
PLATFORM = 1  # what comes with the package alone: units, Debian's packages, Python. A release may ask for a newer one
MAX_MANIFEST_BYTES = 2 * 1024 * 1024
MAX_FILE_BYTES = 512 * 1024 * 1024
MAX_FILES = 20_000
KEY_BYTES = 32

KIT, WHEELS = "kit/", "wheels/"

_VERSION = re.compile(r"(\d{1,6}(?:\.\d{1,6}){1,3})(\+[0-9a-z.]{1,40})?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[0-9a-f]{64}")
_PATH = re.compile(r"[A-Za-z0-9._@+~%:-]+(/[A-Za-z0-9._@+~%:-]+)*")
_WHEEL = re.compile(
    r"wheels/([A-Za-z0-9._]+)-([A-Za-z0-9._+!]+)(?:-\d[^-]*)?-([a-z0-9.]+)-([a-z0-9.]+)-([a-z0-9._]+)\.whl"
)
_NOT_OURS = (".venv", MANIFEST, SIGNATURE)  # in the folder that it is installed in


class ReleaseError(ValueError):
    """One line: what is wrong with it, and what to do. Nothing was changed."""


class Keys(msgspec.Struct, frozen=True):
    """Public keys, hex. Numbers count up, so that an announcement said again moves nobody back."""

    number: int
    signing: str
    recovery: str


class Content(msgspec.Struct, frozen=True):
    sha256: str
    size: int


class Manifest(msgspec.Struct, frozen=True):
    version: str  # 1.2.3, or 1.2.3+a0b1c2d3 of a commit between releases
    files: Mapping[str, Content]  # by path below the release's folder, with `/`
    platform: int = 0
    keys: Keys | None = None  # from now on

    def wanted(self, machine: Machine) -> dict[str, Content]:
        """What a kiosk needs of it. Raises ReleaseError where it is for other machines."""
        wheels = [path for path in self.files if path.startswith(WHEELS)]
        own = {path for path in wheels if machine.takes(path)}
        if any(not path.endswith("-any.whl") for path in wheels) and all(path.endswith("-any.whl") for path in own):
            raise ReleaseError(f"release {self.version} is not for {machine.processor} with Python {machine.python}")
        return {path: each for path, each in self.files.items() if path.startswith(KIT) or path in own}


class Machine(NamedTuple):
    processor: str  # as wheels name it: aarch64, x86_64
    python: str  # 3.11

    def takes(self, wheel: str) -> bool:
        """Whether this wheel is for it (PEP 425); which of several GNU C libraries is not looked at."""
        found = _WHEEL.fullmatch(wheel)
        if found is None:
            return False
        pythons, abis, platforms = (part.split(".") for part in found.groups()[2:])
        minor = int(self.python.split(".")[1])
        by_abi3 = "abi3" in abis and any(re.fullmatch(r"cp3\d+", p) and int(p[3:]) <= minor for p in pythons)
        right = by_abi3 or not {"py3", f"py3{minor}", f"cp3{minor}"}.isdisjoint(pythons)
        return right and any(p == "any" or p.endswith(f"_{self.processor}") for p in platforms)


def distribution_of(wheel: str) -> str:
    """`name-version`, as its folder in site-packages is called before `.dist-info`."""
    found = _WHEEL.fullmatch(wheel)
    return f"{found[1]}-{found[2]}" if found else ""


class SignedManifest(msgspec.Struct, frozen=True):
    """JSON: the bytes as they were signed, base64."""

    manifest: bytes
    signature: bytes


class ReleaseRequest(msgspec.Struct, frozen=True):
    """JSON of `POST /release`: a kiosk asks what it should run. The signature is over `csr.release_statement`."""

    certificate: str  # PEM
    signature: str  # hex of DER
    version: str  # that it runs
    signing_key: str  # hex: the one that it believes


class ReleaseReply(msgspec.Struct, frozen=True):
    """JSON. Empty where there is nothing newer for this kiosk; else what leads to its release, which is the last: those
    before it announce keys that it does not have."""

    chain: tuple[SignedManifest, ...] = ()


def version_key(version: str) -> tuple[int, ...]:
    """To be compared; a commit's name counts for nothing. Raises ReleaseError."""
    found = _VERSION.fullmatch(version)
    if found is None:
        raise ReleaseError(f"{version[:40]!r} is no version, such as 1.4.0")
    numbers = tuple(map(int, found[1].split(".")))
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
    if not 0 < len(manifest.files) <= MAX_FILES:
        raise ReleaseError(f"{MANIFEST} names {len(manifest.files)} files; a release has 1 to {MAX_FILES}")
    for path, content in manifest.files.items():
        parts = path.split("/")
        if not _PATH.fullmatch(path) or len(path) > 300 or {".", ".."} & set(parts) or set(parts[:2]) & set(_NOT_OURS):
            raise ReleaseError(f"{MANIFEST} names a file where none may be: {path[:80]!r}")
        if not _DIGEST.fullmatch(content.sha256) or not 0 <= content.size <= MAX_FILE_BYTES:
            raise ReleaseError(f"{MANIFEST} has no SHA-256 or no size of {path[:80]!r}")
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


def check_fits(manifest: Manifest, machine: Machine) -> None:
    """Raises ReleaseError where it is for another machine."""
    manifest.wanted(machine)
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
