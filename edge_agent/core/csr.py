"""What a kiosk says of its keys when it asks for an identity, and how it asks again later. Pure; used by both ends.

A request is a certificate signing request (PKCS #10) for an EC P-256 key, with the kiosk's X25519 key in an extension:
the one signature shows that whoever holds the signing key wants this sealing key beside it. Its subject means nothing,
for the hub chooses the name. A renewal is the certificate itself with a signature by its key over `renewal_statement`:
it names the certificate, so whoever catches one and says it again gets what the hub has given out anyway. The questions
of a self-test and of an update are the same with other statements.
"""

from __future__ import annotations

from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

MAX_PEM_BYTES = 4096  # a request of ours has about 600
SEAL_KEY = x509.ObjectIdentifier("2.25.208958593112453674987062839933734385998")  # of a UUID (ITU-T X.667)
SIGNS_FOR_THE_HUB = x509.ObjectIdentifier("2.25.158004208380225638093883217246509575748")  # extended key usage

_RENEWAL, _SELF_TEST = b"teleconsult renewal 1\0", b"teleconsult self-test 1\0"
_RELEASE = b"teleconsult release 1\0"
_ECDSA = ec.ECDSA(hashes.SHA256())


class BadRequest(ValueError):
    """Not a request that this kit makes; the message says what is wrong with it."""


class Keys(NamedTuple):
    """What a kiosk is known by. The private halves never leave it."""

    signing: ec.EllipticCurvePublicKey
    sealing: X25519PublicKey

    @property
    def signing_der(self) -> bytes:
        return self.signing.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    @property
    def sealing_raw(self) -> bytes:
        return self.sealing.public_bytes_raw()


def make_request(signing: ec.EllipticCurvePrivateKey, sealing: X25519PublicKey) -> str:
    """PEM."""
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.UnrecognizedExtension(SEAL_KEY, sealing.public_bytes_raw()), critical=False)
        .sign(signing, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM).decode("ascii")


def read_request(pem: str) -> Keys:
    """Raises BadRequest, whatever it is given."""
    if len(pem) > MAX_PEM_BYTES:
        raise BadRequest(f"a request has at most {MAX_PEM_BYTES} characters")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise BadRequest("the key is not of the curve P-256")
        if not request.is_signature_valid:
            raise BadRequest("the request is not signed by its own key")
        extension = request.extensions.get_extension_for_oid(SEAL_KEY).value
        if not isinstance(extension, x509.UnrecognizedExtension):
            raise BadRequest("there is no sealing key in it")
        sealing = X25519PublicKey.from_public_bytes(extension.value)
    except BadRequest:
        raise
    except x509.ExtensionNotFound:
        raise BadRequest("there is no sealing key in it") from None
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension):
        raise BadRequest("it is damaged, or no certificate request") from None
    return Keys(key, sealing)


def read_certificate(pem: str) -> x509.Certificate:
    """One of a kiosk's key. Raises BadRequest, whatever it is given."""
    if len(pem) > MAX_PEM_BYTES:
        raise BadRequest(f"a certificate has at most {MAX_PEM_BYTES} characters")
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        key = certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadRequest("it is damaged, or no certificate") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadRequest("the key is not of the curve P-256")
    return certificate


def sign_renewal(certificate: x509.Certificate, signing: ec.EllipticCurvePrivateKey) -> bytes:
    return signing.sign(renewal_statement(certificate), _ECDSA)


def sign_self_test(certificate: x509.Certificate, signing: ec.EllipticCurvePrivateKey) -> bytes:
    return signing.sign(self_test_statement(certificate), _ECDSA)


def sign_release_question(certificate: x509.Certificate, signing: ec.EllipticCurvePrivateKey) -> bytes:
    return signing.sign(release_statement(certificate), _ECDSA)


def check_renewal(certificate: x509.Certificate, signature: bytes) -> None:
    """Raises BadRequest where it is not by the certificate's key."""
    _check(certificate, signature, renewal_statement(certificate))


def check_self_test(certificate: x509.Certificate, signature: bytes) -> None:
    """Raises BadRequest where it is not by the certificate's key."""
    _check(certificate, signature, self_test_statement(certificate))


def check_release_question(certificate: x509.Certificate, signature: bytes) -> None:
    """Raises BadRequest where it is not by the certificate's key."""
    _check(certificate, signature, release_statement(certificate))


def renewal_statement(certificate: x509.Certificate) -> bytes:
    return _RENEWAL + certificate.fingerprint(hashes.SHA256())


def self_test_statement(certificate: x509.Certificate) -> bytes:
    return _SELF_TEST + certificate.fingerprint(hashes.SHA256())


def release_statement(certificate: x509.Certificate) -> bytes:
    return _RELEASE + certificate.fingerprint(hashes.SHA256())


def _check(certificate: x509.Certificate, signature: bytes, statement: bytes) -> None:
    key = certificate.public_key()
    try:
        assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 -- read_certificate has seen to it
        key.verify(signature, statement, _ECDSA)
    except InvalidSignature:
        raise BadRequest("it is not signed by the certificate's key") from None
