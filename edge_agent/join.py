"""Makes this kiosk one of a hub's, and keeps it one: checks the hub against the code, hands in token and keys, keeps
the certificate that comes back; asks for a newer one in time.

Before anything is sent, the hub must show the CA whose fingerprint is in the code; the token then goes over TLS that
ends at this CA alone, so whoever else answers at the address learns nothing. Only a hub on this very machine may speak
plain HTTP. A kiosk that joins may be in 1970 or 2050, and nobody has told it the time yet whom it may believe: it
looks at chain and name alone. A renewal goes by the kiosk's clock, where that is trusted. It is signed by the kiosk's
key rather than asked for over mutual TLS: the hub's web server would have to ask every doctor's browser for a
certificate, too.
"""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates

from edge_agent.clock import KioskClock
from edge_agent.core.csr import sign_renewal
from edge_agent.core.joining import (
    HUB_NAME,
    IdentityReply,
    JoinCode,
    JoinRequest,
    RenewRequest,
    Waiting,
    parse_code,
    same_fingerprint,
    split_link,
)
from edge_agent.core.settings import SettingsError
from edge_agent.core.wire import is_kiosk_id
from edge_agent.discovery import HubAddress, find_hubs
from edge_agent.identity import Identity, IdentityDamaged, NewIdentity, NotJoined
from edge_agent.tls import HubTls, OutOfDate

TIMEOUT_S = 20.0  # a link by satellite takes seconds for a handshake
MAX_REPLY_BYTES = 64 * 1024
APPROVAL_PAUSE_S, APPROVAL_LONGEST_PAUSE_S = 3.0, 30.0  # each question is a new connection: 3 kB

_ADVICE = "hub.address in the kiosk's configuration"


class JoinError(ConnectionError):
    """One line: what happened and what to do. Nothing was changed."""


class WrongHub(JoinError):
    """Another hub than the code is from; it was told nothing."""


class NoHub(JoinError):
    """Nobody answers there, or somebody who is no hub."""


class Refused(JoinError):
    """The hub has looked at it and says no."""


def parse_address(text: str) -> HubAddress:
    """`host:port`, `[v6]:port`. Raises SettingsError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise SettingsError(f"{text!r} is no HOST:PORT, such as 192.168.1.20:8443")
    return HubAddress(host, int(port))


def join(
    code_text: str,
    folder: Path,
    hub: HubAddress | None = None,
    name: str = "",
    site: str = "",
    again: bool = False,
    find: Callable[[], Sequence[HubAddress]] = find_hubs,
    waiting: Callable[[str], None] = lambda said: None,
) -> Identity:
    """`code_text` is a code as typed, or the link of a QR code; the identity is kept in `folder`. Blocks, also while
    somebody has to approve: `waiting` is told so once.

    Raises CodeError, SettingsError, JoinError; nothing was changed then, and the same can be tried again.
    """
    code_text, address_text = split_link(code_text)
    code = parse_code(code_text)
    if hub is None and address_text:
        hub = parse_address(address_text)
    if name and not is_kiosk_id(name):
        raise SettingsError(f"--name {name!r}: a kiosk's name has 3 to 32 of a-z, 0-9 and inner hyphens")
    if not again:
        _check_not_joined(folder)
    try:
        new = NewIdentity(folder)  # before the token is spent
    except OSError as error:
        raise SettingsError(
            f"{folder}: cannot be written: {error.strerror or error}; see kiosk.state_dir, or use sudo"
        ) from None
    request = JoinRequest(code.token.hex(), new.request, name, site)
    addresses = [hub] if hub else _found(find)
    told, pause_s = False, APPROVAL_PAUSE_S
    while True:
        address, origin, reply = _ask(addresses, code, request)
        if isinstance(reply, IdentityReply):
            try:
                return new.take(origin, reply)
            except IdentityDamaged as error:
                raise JoinError(f"the hub at {address} answers what cannot be used: {error}") from None
        if not told:
            waiting(reply.waiting)
            told = True
        addresses = [address]
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, APPROVAL_LONGEST_PAUSE_S)


def _check_not_joined(folder: Path) -> None:
    try:
        identity = Identity.load(folder)
    except (NotJoined, IdentityDamaged):
        return
    raise JoinError(f"this kiosk has joined already, as {identity.kiosk}; to join anew add --again")


def renew(identity: Identity, address: str = "", clock: KioskClock | None = None) -> Identity | Waiting:
    """Asks the hub for a newer certificate; gives the identity as it is then. `address` is where the hub is now, if it
    has moved. Blocks. Raises JoinError, SettingsError, IdentityDamaged."""
    origin, clock = origin_to_ask(identity.hub, address), clock or KioskClock(b"")
    signature = sign_renewal(identity.certificate, identity.signing_key).hex()
    body = msgspec.json.encode(RenewRequest(identity.certificate_pem, signature))
    where = urlsplit(origin).netloc
    try:
        with _client(HubTls.trusting(identity.cas, clock.dates_ms)) as http:
            response = _post(http, f"{origin}/renew", body)
    except httpx.HTTPError as error:
        if old := _out_of_date(error):
            if clock.doubt():  # the system's word alone: whoever spoofs it must not shut this kiosk out
                return renew(identity, address, clock)
            raise WrongHub(
                f"the hub at {where} shows an old certificate: {old}. Start the hub anew: it renews its own"
            ) from None
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise WrongHub(
                f"what answers at {where} is not this kiosk's hub (it has another CA); see {_ADVICE}"
            ) from None
        raise NoHub(f"the hub at {where} cannot be asked for a newer certificate ({error})") from None
    reply = _reply(where, response)
    return reply if isinstance(reply, Waiting) else identity.renewed(reply)


def origin_to_ask(origin: str, address: str) -> str:
    """Where the hub is that was at `origin` when this kiosk joined, if it has moved to `address`. In the clear on this
    machine alone: what comes back says whom to believe. Raises SettingsError."""
    scheme, netloc = urlsplit(origin)[:2]
    host = parse_address(address or netloc).host
    return f"{scheme if is_loopback(host) else 'https'}://{address or netloc}"


def _found(find: Callable[[], Sequence[HubAddress]]) -> Sequence[HubAddress]:
    hint = "give its address: teleconsult join CODE --hub HOST:PORT (`teleconsult hub invite` prints it)"
    try:
        hubs = find()
    except OSError as error:
        raise NoHub(f"the network cannot be searched for a hub ({error.strerror or error}); {hint}") from None
    if not hubs:
        raise NoHub(f"no hub was found on this network; {hint}")
    return hubs


def _ask(
    addresses: Sequence[HubAddress], code: JoinCode, request: JoinRequest
) -> tuple[HubAddress, str, IdentityReply | Waiting]:
    """The first hub whose CA is the code's, and its origin. Others on the same network are no error while one is
    right."""
    problems: list[JoinError] = []
    for address in addresses:
        try:
            return address, *_ask_one(address, code, request)
        except (WrongHub, NoHub) as problem:
            problems.append(problem)
    wrong = [problem for problem in problems if isinstance(problem, WrongHub)]
    raise (wrong or problems)[0]


def _ask_one(address: HubAddress, code: JoinCode, request: JoinRequest) -> tuple[str, IdentityReply | Waiting]:
    origin, ca_pem = _find_ca(address)
    try:
        cas = load_pem_x509_certificates(ca_pem)
    except ValueError:
        raise NoHub(f"what answers at {address} is no teleconsult hub; check the address") from None
    ca = next((each for each in cas if same_fingerprint(code, each.public_bytes(Encoding.DER))), None)
    if ca is None:
        raise WrongHub(
            f"the hub at {address} is not the one that the code is from (another CA); nothing was sent. "
            "Check the address (--hub HOST:PORT), or ask for a new code if the hub was set up anew"
        )
    try:
        with _client(HubTls.trusting((ca,), lambda: None)) as http:
            response = _post(http, f"{origin}/join", msgspec.json.encode(request))
    except httpx.HTTPError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise WrongHub(
                f"the hub at {address} shows the right CA but has no certificate of it ({error}); the token was not "
                "sent. Somebody may stand between: use another network, or tell whoever looks after the hub"
            ) from None
        raise NoHub(f"the hub at {address} broke off ({error}); try again") from None
    return origin, _reply(str(address), response)


def _find_ca(address: HubAddress) -> tuple[str, bytes]:
    """`(origin, PEM)` from whoever answers, unverified: the fingerprint decides. Nothing is sent but the question."""
    schemes = ("http", "https") if is_loopback(address.host) else ("https",)
    problem = ""
    for scheme in schemes:
        try:
            with _client(_trusting_nobody()) as http:
                response = http.get(f"{scheme}://{address}/ca.pem")
            if response.status_code == 200:
                return f"{scheme}://{address}", response.content[:MAX_REPLY_BYTES]
            raise NoHub(f"what answers at {address} is no teleconsult hub; check the address")
        except httpx.HTTPError as error:
            problem = str(error) or "no answer in time"
    if "SSL" in problem:
        raise NoHub(f"{address} does not speak TLS, so it is no hub that a kiosk may join; check the address")
    raise NoHub(f"no hub answers at {address} ({problem}); is it running, and is this its address? See --hub")


def _reply(address: str, response: httpx.Response) -> IdentityReply | Waiting:
    if response.status_code >= 400:
        try:
            says = msgspec.json.decode(response.content, type=dict[str, str])["error"]
        except (msgspec.DecodeError, KeyError):
            says = f"it answered {response.status_code}"
        refused = Refused if response.status_code == 403 else JoinError
        raise refused(f"the hub at {address} did not take this kiosk: {says}")
    schema = Waiting if response.status_code == 202 else IdentityReply
    try:
        return msgspec.json.decode(response.content[:MAX_REPLY_BYTES], type=schema)
    except msgspec.DecodeError as error:
        raise JoinError(f"the hub at {address} answers what this release cannot read ({error}); update both") from None


def _post(http: httpx.Client, url: str, body: bytes) -> httpx.Response:
    return http.post(url, content=body, extensions={"sni_hostname": HUB_NAME})


def _out_of_date(error: BaseException | None) -> OutOfDate | None:
    """What httpx and httpcore have wrapped."""
    while error is not None and not isinstance(error, OutOfDate):
        error = error.__cause__ or error.__context__
    return error


def _client(context: ssl.SSLContext) -> httpx.Client:
    return httpx.Client(verify=context, timeout=TIMEOUT_S, trust_env=False)


def _trusting_nobody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
