"""The kiosk's side of TLS to hub and broker: by a clock that may be wrong; and to the broker cheap to set up again, and
able to say why the other end refused.

A session is resumed where the broker still knows it, for a fraction of a full handshake's bytes. In TLS 1.3 the server
sends what that takes after the handshake, hence `keep_session`; and a refusal of the client's certificate comes then
too, when the client believes itself connected and has gone on to speak: hence `careful`.

OpenSSL would judge a certificate's dates by the system's clock, which on a kiosk may say anything: it is told to look
at chain, name and purpose alone, and the dates are judged here, by the kiosk's own clock, where that is trusted.
"""

from __future__ import annotations

import contextlib
import select
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Self, cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edge_agent.core.joining import HUB_NAME
from edge_agent.identity import Identity

# The key exchange is the largest part of a full handshake that can be chosen: the hybrid ones with ML-KEM, which newer
# versions of OpenSSL would offer by themselves, are 2.3 kB more.
_CURVE = "X25519"
_PADDING = 0x10  # SSL_OP_TLSEXT_PADDING: fills the hello up to 512 bytes, for servers of 2013
_ANSWER_S = 10.0
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, for which Python has no name

RAN_OUT = "this kiosk's certificate has run out"
_REFUSALS = {
    "CERTIFICATE_REVOKED": "this kiosk's certificate was revoked at the hub",
    "CERTIFICATE_EXPIRED": RAN_OUT,
    "UNKNOWN_CA": "the broker does not know the CA of this kiosk's certificate",
    "CERTIFICATE_UNKNOWN": "the broker does not accept this kiosk's certificate",
    "BAD_CERTIFICATE": "the broker does not accept this kiosk's certificate",
}


class CertificateRefused(ConnectionError):
    """By the broker; the message is for a technician."""


class OutOfDate(ConnectionError):
    """The other end's certificate, by a trusted clock; the message is for a technician."""


class _Socket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        context = cast(HubTls, self.context)
        context.check_dates(self.getpeercert(binary_form=True) or b"")
        if not context.careful:
            return
        select.select([self], [], [], _ANSWER_S)
        timeout = self.gettimeout()
        self.setblocking(False)
        try:
            super().recv(1)
        except ssl.SSLWantReadError:
            pass  # the ticket for the next session: it has accepted us
        except ssl.SSLError as error:
            for name, text in _REFUSALS.items():
                if name in (error.reason or ""):
                    raise CertificateRefused(text) from None
            raise
        finally:
            self.settimeout(timeout)


def _system_ms() -> int | None:
    return time.time_ns() // 1_000_000


class HubTls(ssl.SSLContext):
    """Trusts CAs of a hub, which vouch for `HUB_NAME`, and nobody else. Made by `trusting`."""

    sslsocket_class = _Socket
    careful = False  # wait a round trip for what the broker says of our certificate; after an attempt that failed
    _cas: tuple[x509.Certificate, ...] = ()
    _dates_ms: Callable[[], int | None]

    @classmethod
    def trusting(cls, cas: tuple[x509.Certificate, ...], dates_ms: Callable[[], int | None]) -> Self:
        """`dates_ms` gives the time by which certificates are judged, None for not by time."""
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags |= _NO_CHECK_TIME
        context._cas, context._dates_ms = cas, dates_ms
        context.load_verify_locations(cadata="".join(ca.public_bytes(Encoding.PEM).decode("ascii") for ca in cas))
        return context

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*arguments, **(named | {"server_hostname": HUB_NAME}))

    def check_dates(self, certificate_der: bytes) -> None:
        """Of the certificate that was verified, and of the CA that vouches for it. Raises OutOfDate."""
        now_ms = self._dates_ms()
        if now_ms is None:
            return
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        certificate = x509.load_der_x509_certificate(certificate_der)
        for each in (certificate, *(ca for ca in self._cas if ca.subject == certificate.issuer)):
            if now < each.not_valid_before_utc:
                raise OutOfDate(f"the certificate is not valid before {each.not_valid_before_utc:%Y-%m-%d}")
            if now > each.not_valid_after_utc:
                raise OutOfDate(f"the certificate was valid until {each.not_valid_after_utc:%Y-%m-%d}")


class BrokerTls(HubTls):
    """With this kiosk's certificate. Made by `of`; one for as long as the identity is the same: a session belongs to
    its context."""

    _session: ssl.SSLSession | None = None

    @classmethod
    def of(cls, identity: Identity, dates_ms: Callable[[], int | None] = _system_ms) -> BrokerTls:
        context = cls.trusting(identity.cas, dates_ms)
        context.load_cert_chain(identity.certificate_path, identity.key_path)
        # Debian 12's Python takes P-256 and the like alone here; its OpenSSL offers X25519 first and knows no ML-KEM.
        with contextlib.suppress(ssl.SSLError):
            context.set_ecdh_curve(_CURVE)
        context.options &= ~_PADDING
        return context

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        session, self._session = self._session, None  # a ticket is good once
        return super().wrap_socket(*arguments, **(named | {"session": session}))

    def keep_session(self, sock: Any) -> None:
        """To be resumed by the next connection. Once something was read, see above."""
        if isinstance(sock, ssl.SSLSocket):
            self._session = sock.session
