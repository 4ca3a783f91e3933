"""Small releases, signed as real ones are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_agent.core.release import MANIFEST, SIGNATURE, Content, Keys, Manifest

SIGNING, RECOVERY, NEXT = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))


def public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


KEYS = Keys(1, public(SIGNING), public(RECOVERY))


def make_manifest(version: str, files: Mapping[str, bytes], **more: object) -> bytes:
    entries = {path: Content(hashlib.sha256(data).hexdigest(), len(data)) for path, data in files.items()}
    return msgspec.json.encode(Manifest(version, entries, **more))  # type: ignore[arg-type]


def write_release(
    folder: Path, version: str, files: Mapping[str, bytes], key: Ed25519PrivateKey = SIGNING, **more: object
) -> Path:
    raw = make_manifest(version, files, **more)
    for path, data in {**files, MANIFEST: raw, SIGNATURE: key.sign(raw)}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder
