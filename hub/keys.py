"""The hub's private keys on disk: encrypted with the operator's passphrase, written whole or not at all.

The passphrase comes from a file: the systemd credential `ca-passphrase`, or the one that TELECONSULT_CA_PASSPHRASE_FILE
names. Without one, keys are written in the clear only where the configuration says so (`authority.plain_key`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from hub.files import sync_folder

log = logging.getLogger(__name__)

PASSPHRASE_FILE = "TELECONSULT_CA_PASSPHRASE_FILE"  # noqa: S105 -- the name of a variable
CREDENTIAL = "ca-passphrase"
MIN_PASSPHRASE_BYTES = 12

PrivateKey = ec.EllipticCurvePrivateKey | X25519PrivateKey
K = TypeVar("K", ec.EllipticCurvePrivateKey, X25519PrivateKey)


class AuthorityError(OSError):
    """The hub's keys cannot be made, read or used: one line that says what to do."""


class KeyFiles:
    """`passphrase` is asked when a key is needed, for most of the hub's commands need none."""

    def __init__(self, passphrase: Callable[[], bytes | None]) -> None:
        self._passphrase = passphrase

    def make(self, path: Path, key: PrivateKey) -> None:
        passphrase = self._passphrase()
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            encryption = serialization.BestAvailableEncryption(passphrase)
        write_whole(path, pem_of(key, encryption), 0o600)

    def read(self, path: Path, kind: type[K]) -> K:
        """Encrypts a key that is still in the clear, once there is a passphrase."""
        passphrase = self._passphrase()
        try:
            pem = path.read_bytes()
            plain = b"ENCRYPTED" not in pem.partition(b"\n")[0]
            key = serialization.load_pem_private_key(pem, None if plain else passphrase)
        except TypeError:
            raise AuthorityError(f"{path} is encrypted; {_HINT}") from None
        except ValueError:
            raise AuthorityError(f"{path} cannot be read: the passphrase is another, or the file is damaged") from None
        if not isinstance(key, kind):
            raise AuthorityError(f"{path} is a key of another kind; put back the one that the hub wrote")
        if plain and passphrase is not None:
            self.make(path, key)
            log.info("key encrypted file=%s", path.name)
        return key


_HINT = (
    f"put a passphrase into a file of mode 0600 and name it in {PASSPHRASE_FILE}, or give it to the service as the "
    f"credential {CREDENTIAL}"
)


def passphrase_of_operator(plain_key: bool) -> Callable[[], bytes | None]:
    """Reads it when asked. Raises AuthorityError then, where there is none and there must be one."""
    warned: list[bool] = []

    def read() -> bytes | None:
        path = _passphrase_path()
        if path is not None:
            return _read_passphrase(path)
        if not plain_key:
            raise AuthorityError(
                f"the key of the hub's CA wants a passphrase: {_HINT}. On a machine of which nobody can take the disk, "
                "authority.plain_key = true does without"
            )
        if not warned:
            warned.append(True)
            log.warning("the CA's key is on disk in the clear, as authority.plain_key says")
        return None

    return read


def _passphrase_path() -> Path | None:
    if named := os.environ.get(PASSPHRASE_FILE):
        return Path(named)
    if folder := os.environ.get("CREDENTIALS_DIRECTORY"):
        credential = Path(folder) / CREDENTIAL
        return credential if credential.exists() else None
    return None


def _read_passphrase(path: Path) -> bytes:
    try:
        passphrase = path.read_bytes().strip()
    except OSError as error:
        raise AuthorityError(f"the passphrase of the CA in {path} cannot be read: {error.strerror}") from None
    if len(passphrase) < MIN_PASSPHRASE_BYTES:
        raise AuthorityError(f"the passphrase of the CA in {path} is shorter than {MIN_PASSPHRASE_BYTES} characters")
    return passphrase


def pem_of(key: PrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def write_whole(path: Path, data: bytes, mode: int) -> None:
    """Root writes for whoever owns the folder: the hub's own user."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        if os.geteuid() == 0:
            folder = path.parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
        os.fsync(descriptor)
    new.rename(path)
    sync_folder(path.parent)
