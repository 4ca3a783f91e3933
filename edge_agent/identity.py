"""Who this kiosk is: its keys, made here and never leaving, and what the hub said of them.

In `<state_dir>/identity/`, for the owner alone:

    sign.key      EC P-256: the client's side of TLS, and the kiosk's messages (`edge_agent.core.trust`)
    seal.key      X25519: messages to the kiosk are sealed to it
    kiosk.pem     the certificate, made of `hub.json` for those who read files
    hub.json      the hub's answer (`IdentityReply`) and its address; the identity is there when this is

A joining kiosk makes its keys in `identity.new/` beside it and keeps them there until the hub has answered, however
often it is interrupted: the same keys may ask again with the same code. Then the folders change places.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from edge_agent.core.csr import SIGNS_FOR_THE_HUB, make_request
from edge_agent.core.joining import IdentityReply
from edge_agent.core.release import Keys
from edge_agent.core.wire import is_kiosk_id
from edge_agent.private_files import sync_folder, write_private

K = TypeVar("K", ec.EllipticCurvePrivateKey, X25519PrivateKey)
_PKCS8 = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


class NotJoined(LookupError):
    """There is no identity: one line that says what to do."""


class IdentityDamaged(OSError):
    """What is on disk, or what the hub answered, is no identity: one line that says what to do."""


class _Kept(msgspec.Struct, frozen=True):
    hub: str  # origin: where to renew
    reply: IdentityReply


@dataclass(frozen=True)
class Identity:
    """`load` it; all of it is checked then. `signing_key` and `seal_key` are the kiosk's, the hub's are public."""

    folder: Path
    kiosk: str
    site: str
    signing_key: ec.EllipticCurvePrivateKey
    seal_key: X25519PrivateKey
    certificate: x509.Certificate
    cas: tuple[x509.Certificate, ...]  # of the hub; two while one hands over to the next
    hub_signing_key: ec.EllipticCurvePublicKey
    hub_seal_key: X25519PublicKey
    broker: tuple[str, int]
    hub: str  # origin, as in https://hub.example:8443
    release_keys: Keys | None = None  # as they were when it joined; `edge_agent.update` has those of now

    @classmethod
    def load(cls, folder: Path) -> Identity:
        """Raises NotJoined, IdentityDamaged."""
        _settle(folder)
        try:
            kept = msgspec.json.decode((folder / "hub.json").read_bytes(), type=_Kept)
        except FileNotFoundError:
            raise NotJoined("this kiosk has not joined a hub; get a code there and do: teleconsult join CODE") from None
        except (OSError, msgspec.DecodeError) as error:
            raise IdentityDamaged(f"{folder / 'hub.json'} cannot be read ({error}); join the hub anew") from None
        return _assemble(folder, kept)

    @property
    def certificate_path(self) -> Path:
        return self.folder / "kiosk.pem"

    @property
    def key_path(self) -> Path:
        return self.folder / "sign.key"

    @property
    def expires_at(self) -> datetime:
        return self.certificate.not_valid_after_utc

    @property
    def certificate_pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def renewed(self, reply: IdentityReply) -> Identity:
        """Keeps what the hub answered to a renewal. Raises IdentityDamaged, having changed nothing."""
        return _keep(
            self.folder, self.hub, msgspec.structs.replace(reply, release_keys=self.release_keys or reply.release_keys)
        )


class NewIdentity:
    """Keys that wait for their certificate. Made once, and found again by whoever joins again. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._new = folder, folder.with_name(folder.name + ".new")
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _settle(folder)
        self._new.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._signing_key = _key(self._new / "sign.key", ec.EllipticCurvePrivateKey, _new_signing_key)
        self._seal_key = _key(self._new / "seal.key", X25519PrivateKey, X25519PrivateKey.generate)
        sync_folder(folder.parent)

    @property
    def request(self) -> str:
        """PEM."""
        return make_request(self._signing_key, self._seal_key.public_key())

    def take(self, hub: str, reply: IdentityReply) -> Identity:
        """Is this kiosk's identity from now on. Raises IdentityDamaged, having changed nothing."""
        _keep(self._new, hub, reply)
        old = self._folder.with_name(self._folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        if self._folder.exists():
            self._folder.rename(old)
        _settle(self._folder)
        shutil.rmtree(old, ignore_errors=True)
        return Identity.load(self._folder)


def _settle(folder: Path) -> None:
    """Ends a change of places that was interrupted."""
    new = folder.with_name(folder.name + ".new")
    if not folder.exists() and (new / "hub.json").exists():
        new.rename(folder)
        sync_folder(folder.parent)


def _keep(folder: Path, hub: str, reply: IdentityReply) -> Identity:
    kept = _Kept(hub, reply)
    identity = _assemble(folder, kept)
    write_private(folder / "kiosk.pem", identity.certificate_pem)  # of the same key as the one before: either will do
    write_private(folder / "hub.json", msgspec.json.encode(kept).decode())
    return identity


def _assemble(folder: Path, kept: _Kept) -> Identity:
    """Checks that all fits together: the hub's word is not taken for what can be seen. Raises IdentityDamaged."""
    reply = kept.reply
    try:
        signing_key = _read_key(folder / "sign.key", ec.EllipticCurvePrivateKey)
        seal_key = _read_key(folder / "seal.key", X25519PrivateKey)
        certificate = x509.load_pem_x509_certificate(reply.certificate.encode())
        cas = tuple(x509.load_pem_x509_certificates(reply.ca.encode()))
        signer = x509.load_pem_x509_certificate(reply.signer.encode())
        hub_signing_key = signer.public_key()
        hub_seal_key = X25519PublicKey.from_public_bytes(bytes.fromhex(reply.seal_key))
        if certificate.public_key() != signing_key.public_key():
            raise ValueError("the certificate is of another key")
        if not is_kiosk_id(reply.kiosk) or certificate.subject.rfc4514_string() != f"CN={reply.kiosk}":
            raise ValueError("the certificate is of another kiosk")
        if not _is_by(certificate, cas) or not _is_by(signer, cas):
            raise ValueError("a certificate is not of the hub's CA")
        usage = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if SIGNS_FOR_THE_HUB not in usage or not isinstance(hub_signing_key, ec.EllipticCurvePublicKey):
            raise ValueError("the hub's signing certificate is made for something else")
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
        raise IdentityDamaged(f"this kiosk's identity in {folder} is not right ({error}); join the hub anew") from None
    return Identity(
        folder, reply.kiosk, reply.site, signing_key, seal_key, certificate, cas, hub_signing_key, hub_seal_key,
        (reply.host, reply.port), kept.hub, reply.release_keys,
    )  # fmt: skip


def _is_by(certificate: x509.Certificate, cas: tuple[x509.Certificate, ...]) -> bool:
    for ca in cas:
        try:
            certificate.verify_directly_issued_by(ca)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False


def _new_signing_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _key(path: Path, kind: type[K], make: Callable[[], K]) -> K:
    """The one that is there, or a new one on disk."""
    try:
        return _read_key(path, kind)
    except FileNotFoundError:
        pass
    except ValueError:
        path.unlink()  # nobody has a certificate for it yet
    key = make()
    write_private(path, key.private_bytes(*_PKCS8).decode("ascii"))
    return key


def _read_key(path: Path, kind: type[K]) -> K:
    """Raises OSError, ValueError."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path.name}: {error}") from None
    if not isinstance(key, kind):
        raise ValueError(f"{path.name} is a key of another kind")
    return key
