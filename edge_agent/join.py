"""Makes this kiosk one of a hub's: checks the hub against the code, hands in the token, keeps what comes back.

Before anything is sent, the hub must show the CA whose fingerprint is in the code; the token then goes over TLS that
ends at this CA alone, so whoever else answers at the address learns nothing. Only a hub on this very machine may speak
plain HTTP.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from edge_agent.config import read_kiosk_settings
from edge_agent.core.joining import JoinCode, JoinReply, JoinRequest, parse_code, same_fingerprint, split_link
from edge_agent.core.settings import SettingsError
from edge_agent.core.tomltext import Value, set_values
from edge_agent.core.wire import is_kiosk_id
from edge_agent.discovery import HubAddress, find_hubs

TIMEOUT_S = 20.0  # a link by satellite takes seconds for a handshake
MAX_REPLY_BYTES = 64 * 1024


class JoinError(ConnectionError):
    """One line: what happened and what to do. Nothing was changed."""


class WrongHub(JoinError):
    """Another hub than the code is from; it was told nothing."""


class NoHub(JoinError):
    """Nobody answers there, or somebody who is no hub."""


class Joined(NamedTuple):
    kiosk: str
    site: str
    hub: HubAddress
    config: Path


def parse_address(text: str) -> HubAddress:
    """`host:port`, `[v6]:port`. Raises SettingsError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise SettingsError(f"{text!r} is no HOST:PORT, such as 192.168.1.20:8443")
    return HubAddress(host, int(port))


def join(
    code_text: str,
    config: Path,
    hub: HubAddress | None = None,
    name: str = "",
    again: bool = False,
    find: Callable[[], Sequence[HubAddress]] = find_hubs,
) -> Joined:
    """`code_text` is a code as typed, or the link of a QR code. Blocks.

    Raises CodeError, SettingsError, JoinError; nothing was changed then.
    """
    code_text, address_text = split_link(code_text)
    code = parse_code(code_text)
    if hub is None and address_text:
        hub = parse_address(address_text)
    if name and not is_kiosk_id(name):
        raise SettingsError(f"--name {name!r}: a kiosk's name has 3 to 32 of a-z, 0-9 and inner hyphens")
    settings = read_kiosk_settings(config if config.exists() else None)
    if settings.kiosk.id and not again:
        raise JoinError(f"this kiosk has joined already, as {settings.kiosk.id}; to join anew add --again")
    _check_writable(config)  # before the token is spent
    address, reply = _ask([hub] if hub else _found(find), code, name)
    _keep(config, reply)
    return Joined(reply.kiosk, reply.site, address, config)


def _found(find: Callable[[], Sequence[HubAddress]]) -> Sequence[HubAddress]:
    hint = "give its address: teleconsult join CODE --hub HOST:PORT (`teleconsult hub invite` prints it)"
    try:
        hubs = find()
    except OSError as error:
        raise NoHub(f"the network cannot be searched for a hub ({error.strerror or error}); {hint}") from None
    if not hubs:
        raise NoHub(f"no hub was found on this network; {hint}")
    return hubs


def _ask(addresses: Sequence[HubAddress], code: JoinCode, name: str) -> tuple[HubAddress, JoinReply]:
    """The first hub whose CA is the code's. Others on the same network are no error while one is right."""
    problems: list[JoinError] = []
    for address in addresses:
        try:
            return address, _ask_one(address, code, name)
        except (WrongHub, NoHub) as problem:
            problems.append(problem)
    wrong = [problem for problem in problems if isinstance(problem, WrongHub)]
    raise (wrong or problems)[0]


def _ask_one(address: HubAddress, code: JoinCode, name: str) -> JoinReply:
    origin, ca_pem = _find_ca(address)
    try:
        ca_der = load_pem_x509_certificate(ca_pem).public_bytes(Encoding.DER)
    except ValueError:
        raise NoHub(f"what answers at {address} is no teleconsult hub; check the address") from None
    if not same_fingerprint(code, ca_der):
        raise WrongHub(
            f"the hub at {address} is not the one that the code is from (another CA); nothing was sent. "
            "Check the address (--hub HOST:PORT), or ask for a new code if the hub was set up anew"
        )
    request = msgspec.json.encode(JoinRequest(code.token.hex(), name))
    try:
        with _client(_trusting(ca_pem.decode())) as http:
            response = http.post(f"{origin}/join", content=request, headers={"origin": origin})
    except httpx.HTTPError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise WrongHub(
                f"the hub at {address} shows the right CA but has no certificate of it ({error}); the token was not "
                "sent. If this kiosk's clock is wrong, set it"
            ) from None
        raise NoHub(f"the hub at {address} broke off ({error}); try again") from None
    return _reply(address, response)


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


def _reply(address: HubAddress, response: httpx.Response) -> JoinReply:
    if response.status_code >= 400:
        try:
            says = msgspec.json.decode(response.content, type=dict[str, str])["error"]
        except (msgspec.DecodeError, KeyError):
            says = f"it answered {response.status_code}"
        raise JoinError(f"the hub at {address} did not take this kiosk: {says}")
    try:
        reply = msgspec.json.decode(response.content[:MAX_REPLY_BYTES], type=JoinReply)
    except msgspec.DecodeError as error:
        raise JoinError(f"the hub at {address} answers what this release cannot read ({error}); update both") from None
    if not is_kiosk_id(reply.kiosk):
        raise JoinError(f"the hub at {address} gave a name that is none, {reply.kiosk!r}; update both")
    return reply


def _client(context: ssl.SSLContext) -> httpx.Client:
    return httpx.Client(verify=context, timeout=TIMEOUT_S, trust_env=False)


def _trusting_nobody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _trusting(ca_pem: str) -> ssl.SSLContext:
    """Only this CA, and a certificate that is made for servers. The CA makes those for the hub alone, so whatever
    address it was reached by is right."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=ca_pem)
    return context


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# --- what is kept


def _keep(config: Path, reply: JoinReply) -> None:
    """Password and CA in files named by the kiosk, so that the last step, the configuration, switches over from one
    identity to the other at once."""
    password_file = config.parent / f"{reply.kiosk}.password"
    ca_file = config.parent / f"{reply.kiosk}-hub-ca.pem"
    write_private(password_file, reply.password + "\n")
    write_private(ca_file, reply.ca)
    broker: dict[str, Value] = {
        "host": reply.host,
        "port": reply.port,
        "ca_file": str(ca_file.resolve()) if reply.tls else "",
        "username": reply.username,
        "password_file": str(password_file.resolve()),
    }
    text = config.read_text(encoding="utf-8") if config.exists() else ""
    write_private(config, set_values(text, {"kiosk": {"id": reply.kiosk}, "broker": broker}, str(config)))


def _check_writable(config: Path) -> None:
    try:
        config.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=config.parent):
            pass
        if config.exists():
            set_values(config.read_text(encoding="utf-8"), {"kiosk": {"id": "x"}}, str(config))
    except OSError as error:
        raise SettingsError(
            f"{config}: cannot be written: {error.strerror or error}; name another with --config, or use sudo"
        ) from None


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, for the owner alone. Root writes for whoever owns the folder: the service's own user."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if os.geteuid() == 0:
                folder = os.stat(path.parent)
                os.fchown(file.fileno(), folder.st_uid, folder.st_gid)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder_descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder_descriptor)
    finally:
        os.close(folder_descriptor)
