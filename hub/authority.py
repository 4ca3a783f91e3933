"""The hub's own certificate authority: who is a kiosk, who is the hub, and who no longer is.

EC P-256 throughout, certificates short, for a handshake on a poor link carries two of them. All are valid from 1970,
because a kiosk without a clock of its own starts there and must still be able to join.

One folder holds `ca-<n>.pem` and their keys: one CA, or two while one hands over to the next. The newest signs kiosks,
the oldest the hub itself, so that whoever trusts either gets on with all others until `finish_rotation`. Several hub
processes may share the folder; each change is made under a lock and read from disk when needed.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_agent.core.csr import SIGNS_FOR_THE_HUB
from edge_agent.core.joining import HUB_NAME
from hub.keys import AuthorityError, KeyFiles, pem_of, write_whole

KIOSK_DAYS = 90
RENEW_DAYS = 30  # left of a kiosk's certificate when it is renewed: two thirds of its life are over

_FROM = datetime(1970, 1, 2, tzinfo=UTC)
_BUILT = datetime(2026, 1, 1, tzinfo=UTC)  # the hub's own clock may be at 1970, too: never count from before
_FOR_EVER = datetime(9999, 12, 31, tzinfo=UTC)
_CA_DAYS = 30 * 365
_SERVER_DAYS = 2 * 365
_SERVER_RENEW_DAYS = 60
_SIGNER = "_hub"  # not a valid kiosk id
_PEM = serialization.Encoding.PEM


class Ca(NamedTuple):
    number: int
    certificate: x509.Certificate
    key_path: Path


class Authority:
    def __init__(self, folder: Path, passphrase: Callable[[], bytes | None]) -> None:
        """`passphrase`: see `hub.keys`."""
        self._folder, self._keys = folder, KeyFiles(passphrase)
        self.cert_path = folder / "hub.pem"
        self.key_path = folder / "hub.key"  # in the clear: the broker reads it
        self.crl_path = folder / "crl.pem"
        self._signer_path = folder / "signer.pem"
        self._signer_key_path = folder / "signer.key"
        self._seal_key_path = folder / "seal.key"

    def ensure(self, names: list[str]) -> bool:
        """Make what is missing; renew the server's certificate when it runs out or names were added. True where
        something changed. Raises AuthorityError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked():
            before = self._state()
            if not self.cas:
                self._make_ca(1)
            if not self.key_path.exists():
                server_key = ec.generate_private_key(ec.SECP256R1())
                write_whole(self.key_path, pem_of(server_key, serialization.NoEncryption()), 0o600)
            if not self._server_certificate_serves(names):
                self._make_server_certificate(names)
            if not self._seal_key_path.exists():
                self._keys.make(self._seal_key_path, X25519PrivateKey.generate())
            if not self._signer_key_path.exists():
                self._signer_path.unlink(missing_ok=True)
                self._keys.make(self._signer_key_path, ec.generate_private_key(ec.SECP256R1()))
            if not self._signer_certificate_serves():
                self._make_signer_certificate()
            if not self._crl_covers(self.cas):
                self._write_crl(self.revoked)
            return before != self._state()

    # --- what others may know

    @property
    def cas(self) -> list[Ca]:
        """Oldest first."""
        found = []
        for path in self._folder.glob("ca-*.pem"):
            number = path.stem.removeprefix("ca-")
            key_path = path.with_suffix(".key")
            if number.isdecimal() and key_path.exists():
                found.append(Ca(int(number), x509.load_pem_x509_certificate(path.read_bytes()), key_path))
        return sorted(found, key=lambda ca: ca.number)

    @property
    def pem(self) -> str:
        """All CAs that are trusted now."""
        return "".join(ca.certificate.public_bytes(_PEM).decode("ascii") for ca in self.cas)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate (DER) of the CA that the hub's own certificate is of: what an invitation names."""
        return self.cas[0].certificate.fingerprint(hashes.SHA256())

    @property
    def signer_pem(self) -> str:
        return self._signer_path.read_text(encoding="ascii")

    @property
    def signing_key(self) -> ec.EllipticCurvePrivateKey:
        """What the hub signs its messages with."""
        return self._keys.read(self._signer_key_path, ec.EllipticCurvePrivateKey)

    @property
    def seal_key(self) -> X25519PrivateKey:
        """What messages to the hub are sealed to."""
        return self._keys.read(self._seal_key_path, X25519PrivateKey)

    # --- kiosks

    def issue(
        self, key: ec.EllipticCurvePublicKey, kiosk: str, life: timedelta = timedelta(days=KIOSK_DAYS)
    ) -> x509.Certificate:
        """For a kiosk that was admitted. Raises AuthorityError."""
        ca = self.cas[-1]
        return (
            _builder(_name(kiosk), ca.certificate.subject, key, _today() + life)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._ca_key(ca), hashes.SHA256())
        )

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether one of the CAs made it, whatever its date."""
        return any(_is_by(certificate, ca.certificate) for ca in self.cas)

    def is_due(self, certificate: x509.Certificate) -> bool:
        """Whether to renew it: two thirds of its life are over, or another CA signs now."""
        soon = _today() + timedelta(days=RENEW_DAYS)
        return certificate.not_valid_after_utc <= soon or not self.is_by_newest(certificate)

    def is_by_newest(self, certificate: x509.Certificate) -> bool:
        return _is_by(certificate, self.cas[-1].certificate)

    # --- revocation

    @property
    def revoked(self) -> frozenset[int]:
        """Serial numbers in the list as it is on disk."""
        return frozenset(entry.serial_number for each in self._crls for entry in each)

    @property
    def _crls(self) -> list[x509.CertificateRevocationList]:
        pem = self.crl_path.read_bytes() if self.crl_path.exists() else b""
        ends = b"-----END X509 CRL-----"
        return [x509.load_pem_x509_crl(part + ends) for part in pem.split(ends)[:-1]]

    def revoke(self, serials: Iterable[int]) -> bool:
        """Put them on the list besides those that are there. True where it changed."""
        with self._locked():
            now = self.revoked
            if now.issuperset(serials := frozenset(serials)):
                return False
            self._write_crl(now | serials)
            return True

    def _write_crl(self, serials: frozenset[int]) -> None:
        """One list a CA, for the broker asks each issuer's; each with all serials, which are random."""
        number = 1 + max((_crl_number(each) for each in self._crls), default=0)
        pems = []
        for ca in self.cas:
            # OpenSSL takes the later of two lists by this date, so it counts lists: a hub's clock may go back.
            builder = (
                x509.CertificateRevocationListBuilder()
                .issuer_name(ca.certificate.subject)
                .last_update(_FROM + timedelta(seconds=number))
                .next_update(_FOR_EVER)
                .add_extension(x509.CRLNumber(number), critical=False)
            )
            for serial in sorted(serials):
                entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_FROM).build()
                builder = builder.add_revoked_certificate(entry)
            pems.append(builder.sign(self._ca_key(ca), hashes.SHA256()).public_bytes(_PEM))
        write_whole(self.crl_path, b"".join(pems), 0o644)

    def _crl_covers(self, cas: list[Ca]) -> bool:
        return {each.issuer for each in self._crls} == {ca.certificate.subject for ca in cas}

    # --- one CA after another

    def rotate(self) -> Ca:
        """A new CA signs kiosks from now on; both are trusted. Raises AuthorityError while an earlier one goes on."""
        with self._locked():
            cas = self.cas
            if len(cas) > 1:
                raise AuthorityError("the last change of CA is still under way; end it first: hub ca rotate --finish")
            self._make_ca(cas[-1].number + 1)
            self._write_crl(self.revoked)
            return self.cas[-1]

    def finish_rotation(self, names: list[str]) -> Ca:
        """The older CA is trusted no more. Raises AuthorityError where there is but one."""
        with self._locked():
            cas = self.cas
            if len(cas) == 1:
                raise AuthorityError("there is one CA only; begin with: hub ca rotate")
            for old in cas[:-1]:
                old.key_path.unlink(missing_ok=True)  # first: without it the CA is none, whatever happens now
                (self._folder / f"ca-{old.number}.pem").unlink(missing_ok=True)
        self.ensure(names)
        return cas[-1]

    def _make_ca(self, number: int) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        # A name of its own, or whoever meets two hubs' takes the one for the other and speaks of broken signatures.
        name = _name(f"Teleconsult CA {number} {secrets.token_hex(4)}")
        certificate = (
            _builder(name, name, key.public_key(), _today() + timedelta(days=_CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_ca_key_usage(), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        path = self._folder / f"ca-{number}.pem"
        self._keys.make(path.with_suffix(".key"), key)
        write_whole(path, certificate.public_bytes(_PEM), 0o644)  # last: a CA counts only with both

    def _ca_key(self, ca: Ca) -> ec.EllipticCurvePrivateKey:
        return self._keys.read(ca.key_path, ec.EllipticCurvePrivateKey)

    # --- the hub's own certificates

    def _make_server_certificate(self, names: list[str]) -> None:
        ca = self.cas[0]
        certificate = (
            _builder(
                _name("Teleconsult hub"), ca.certificate.subject, self._server_key(),
                _today() + timedelta(days=_SERVER_DAYS),
            )
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._ca_key(ca), hashes.SHA256())
        )  # fmt: skip
        write_whole(self.cert_path, certificate.public_bytes(_PEM), 0o644)

    def _server_key(self) -> ec.EllipticCurvePublicKey:
        key = serialization.load_pem_private_key(self.key_path.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101
        return key.public_key()

    def _server_certificate_serves(self, names: list[str]) -> bool:
        if not self.cert_path.exists():
            return False
        certificate = x509.load_pem_x509_certificate(self.cert_path.read_bytes())
        known = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return (
            _is_by(certificate, self.cas[0].certificate)
            and certificate.public_key() == self._server_key()
            and {_general_name(name) for name in names} <= set(known)
            and certificate.not_valid_after_utc > _today() + timedelta(days=_SERVER_RENEW_DAYS)
        )

    def _make_signer_certificate(self) -> None:
        """As long as its CA: what it vouches for is taken up anew with every renewal of a kiosk."""
        ca = self.cas[0]
        certificate = (
            _builder(
                _name(_SIGNER), ca.certificate.subject, self.signing_key.public_key(),
                ca.certificate.not_valid_after_utc,
            )
            .add_extension(x509.ExtendedKeyUsage([SIGNS_FOR_THE_HUB]), critical=True)
            .sign(self._ca_key(ca), hashes.SHA256())
        )  # fmt: skip
        write_whole(self._signer_path, certificate.public_bytes(_PEM), 0o644)

    def _signer_certificate_serves(self) -> bool:
        if not self._signer_path.exists():
            return False
        certificate = x509.load_pem_x509_certificate(self._signer_path.read_bytes())
        return _is_by(certificate, self.cas[0].certificate)

    # ---

    def _state(self) -> list[bytes]:
        paths = (self.cert_path, self.key_path, self.crl_path, self._signer_path)
        return [self.pem.encode(), *(path.read_bytes() if path.exists() else b"" for path in paths)]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def server_names(configured: tuple[str, ...], *hosts: str) -> list[str]:
    """By which the hub is reached: the one for kiosks, and for browsers what was configured, this machine's names, and
    loopback."""
    host = socket.gethostname()
    names = [HUB_NAME, *configured, *hosts, host, f"{host.partition('.')[0]}.local", "localhost", "127.0.0.1", "::1"]
    return [name for name in dict.fromkeys(names) if name and name not in ("0.0.0.0", "::")]  # noqa: S104


def _today() -> datetime:
    return max(datetime.now(UTC), _BUILT)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(until)
    )


def _is_by(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _crl_number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _ca_key_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        key_cert_sign=True,
        crl_sign=True,
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
