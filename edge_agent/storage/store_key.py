"""Where the store's key comes from, and what is made of it.

A secret of at least 32 bytes, from the first of

    $CREDENTIALS_DIRECTORY/teleconsult-store-key    from systemd, which keeps it sealed to the machine's TPM
    <state_dir>/store.key                           made here, for its owner alone; whoever has the card has it

HKDF-SHA256 (RFC 5869) makes of it a key for the database, with its salt so that a database whose first bytes are
damaged can still be read, and one for the names of files. Files themselves have keys of their own, in the database.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edge_agent.private_files import sync_folder, write_private

log = logging.getLogger(__name__)

CREDENTIAL = "teleconsult-store-key"
KEY_FILE = "store.key"
LEAST_BYTES = 32


@dataclass(frozen=True)
class StoreKey:
    """`database` is what SQLCipher takes as a raw key and salt, in hexadecimal."""

    database: str
    names: bytes
    protected: bool  # not on the card as it is
    earlier: str = ""  # a database key that may still be in use: the file's, now that there is a credential

    def name_of(self, digest: bytes) -> str:
        """Under which a file with that SHA-256 lies: who has the card alone cannot tell which file it is."""
        return hmac.digest(self.names, digest, hashlib.sha256).hex()


def find_key(state_dir: Path) -> StoreKey:
    """Makes one where there is none. Raises OSError."""
    if _credential() is None:
        _make_key_file(state_dir / KEY_FILE)
    return read_key(state_dir)


def read_key(state_dir: Path) -> StoreKey:
    """Raises FileNotFoundError where there is none, OSError."""
    given = _credential()
    if given is None:
        secret = (state_dir / KEY_FILE).read_bytes().strip()
        return StoreKey(_derive(secret, b"database", 48).hex(), _derive(secret, b"names", 32), protected=False)
    try:
        earlier = _derive((state_dir / KEY_FILE).read_bytes().strip(), b"database", 48).hex()
    except FileNotFoundError:
        earlier = ""
    return StoreKey(_derive(given, b"database", 48).hex(), _derive(given, b"names", 32), True, earlier)


def forget_earlier(state_dir: Path) -> None:
    """The key file, once nothing needs it any more."""
    (state_dir / KEY_FILE).unlink(missing_ok=True)
    sync_folder(state_dir)


def _credential() -> bytes | None:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    try:
        secret = (Path(folder) / CREDENTIAL).read_bytes().strip()
    except FileNotFoundError:
        return None
    if len(secret) < LEAST_BYTES:
        raise OSError(f"the credential {CREDENTIAL} has {len(secret)} bytes, at least {LEAST_BYTES} are needed")
    return secret


def _make_key_file(path: Path) -> None:
    if path.exists():
        if len(path.read_bytes().strip()) >= LEAST_BYTES:
            return
        aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        path.rename(aside)
        log.error("store key damaged set_aside=%s: a new one is made", aside)
    write_private(path, secrets.token_hex(32) + "\n")


def _derive(secret: bytes, purpose: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, None, b"teleconsult store 1 " + purpose).derive(secret)
