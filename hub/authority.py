"""The hub's own certificate authority, for a LAN where nobody else gives certificates.

EC P-256. Kiosks trust it because its fingerprint is in their invitation. Certificates are valid from 1970, because a
kiosk without a clock of its own starts there and must still be able to join.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_FROM = datetime(1970, 1, 2, tzinfo=UTC)
_BUILT = datetime(2026, 1, 1, tzinfo=UTC)  # the hub's own clock may be at 1970, too: never count from before
_CA_DAYS = 30 * 365
_SERVER_DAYS = 2 * 365
_RENEW_DAYS = 60


class Authority:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ca_path = folder / "ca.pem"
        self.cert_path = folder / "hub.pem"  # with the CA's after it
        self.key_path = folder / "hub.key"

    def ensure(self, names: list[str]) -> None:
        """Make what is missing; renew the server's certificate when it runs out or names were added."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.ca_path.exists() or not self._ca_key_path.exists():
            self._make_ca()
        if not self._server_certificate_serves(names):
            self._make_server_certificate(names)

    @property
    def pem(self) -> str:
        return self.ca_path.read_text(encoding="ascii")

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the CA's certificate in DER."""
        return x509.load_pem_x509_certificate(self.ca_path.read_bytes()).fingerprint(hashes.SHA256())

    @property
    def _ca_key_path(self) -> Path:
        return self._folder / "ca.key"

    def _make_ca(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Teleconsult hub CA")])
        certificate = (
            _builder(name, name, key.public_key(), _CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(self._ca_key_path, _key_pem(key), 0o600)
        _write(self.ca_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)

    def _make_server_certificate(self, names: list[str]) -> None:
        ca = x509.load_pem_x509_certificate(self.ca_path.read_bytes())
        ca_key = serialization.load_pem_private_key(self._ca_key_path.read_bytes(), None)
        assert isinstance(ca_key, ec.EllipticCurvePrivateKey)  # noqa: S101
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Teleconsult hub")])
        certificate = (
            _builder(subject, ca.subject, key.public_key(), _SERVER_DAYS)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        _write(self.key_path, _key_pem(key), 0o600)
        _write(self.cert_path, certificate.public_bytes(serialization.Encoding.PEM) + self.ca_path.read_bytes(), 0o644)

    def _server_certificate_serves(self, names: list[str]) -> bool:
        if not self.cert_path.exists() or not self.key_path.exists():
            return False
        certificate = x509.load_pem_x509_certificate(self.cert_path.read_bytes())
        try:
            certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(self.ca_path.read_bytes()))
        except Exception:  # of another CA
            return False
        known = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        enough = {_general_name(name) for name in names} <= set(known)
        return enough and certificate.not_valid_after_utc > _today() + timedelta(days=_RENEW_DAYS)


def server_names(configured: tuple[str, ...], *hosts: str) -> list[str]:
    """By which the hub may be reached: what was configured, this machine's names, and loopback."""
    host = socket.gethostname()
    names = [*configured, *hosts, host, f"{host.partition('.')[0]}.local", "localhost", "127.0.0.1", "::1"]
    return [name for name in dict.fromkeys(names) if name and name not in ("0.0.0.0", "::")]  # noqa: S104


def _today() -> datetime:
    return max(datetime.now(UTC), _BUILT)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_today() + timedelta(days=days))
    )


def _key_usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    new.rename(path)
