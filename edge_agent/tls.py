"""The kiosk's side of TLS to the broker: cheap to set up again, and able to say why the other end refused.

A session is resumed where the broker still knows it, for a fraction of a full handshake's bytes. In TLS 1.3 the server
sends what that takes after the handshake, hence `keep_session`; and a refusal of the client's certificate comes then
too, when the client believes itself connected and has gone on to speak: hence `careful`.
"""

from __future__ import annotations

import select
import ssl
from typing import Any, cast

from edge_agent.core.joining import HUB_NAME
from edge_agent.identity import Identity

# The key exchange is the largest part of a full handshake that can be chosen: the hybrid ones with ML-KEM, which newer
# versions of OpenSSL would offer by themselves, are 2.3 kB more.
_CURVE = "X25519"
_PADDING = 0x10  # SSL_OP_TLSEXT_PADDING: fills the hello up to 512 bytes, for servers of 2013
_ANSWER_S = 10.0

_REFUSALS = {
    "CERTIFICATE_REVOKED": "this kiosk's certificate was revoked at the hub",
    "CERTIFICATE_EXPIRED": "this kiosk's certificate has run out",
    "UNKNOWN_CA": "the broker does not know the CA of this kiosk's certificate",
    "CERTIFICATE_UNKNOWN": "the broker does not accept this kiosk's certificate",
    "BAD_CERTIFICATE": "the broker does not accept this kiosk's certificate",
}


class CertificateRefused(ConnectionError):
    """By the broker; the message is for a technician."""


class _Socket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        context = cast(BrokerTls, self.context)
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


class BrokerTls(ssl.SSLContext):
    """Made by `of`. One for as long as the identity is the same: a session belongs to its context."""

    sslsocket_class = _Socket
    careful = False  # wait a round trip for what the broker says of our certificate; after an attempt that failed
    _session: ssl.SSLSession | None = None

    @classmethod
    def of(cls, identity: Identity) -> BrokerTls:
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        identity.set_up(context)
        context.set_ecdh_curve(_CURVE)
        context.options &= ~_PADDING
        return context

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        session, self._session = self._session, None  # a ticket is good once
        return super().wrap_socket(*arguments, **(named | {"session": session, "server_hostname": HUB_NAME}))

    def keep_session(self, sock: Any) -> None:
        """To be resumed by the next connection. Once something was read, see above."""
        if isinstance(sock, ssl.SSLSocket):
            self._session = sock.session
