"""Mosquitto's configuration as the kit wants it: who may connect, to what, and how much.

Written into one folder: `start`, `mosquitto.conf`, `acl`, copies of the certificates that it reads, and the hub's own
password. The broker is a service of its own (or the demo's child); here is only what it reads. Holds for mosquitto
2.0.11, which Debian 12 has, and 2.0.21 of Debian 13.

There are two listeners. Kiosks speak TLS with certificates of both sides: the name in a kiosk's certificate is its user
name, which the ACL holds to its topics, and its client id, so that none can take over another's session. The hub speaks
to a plain one on loopback, with a password that nobody else has.

A reload (SIGHUP) has mosquitto read everything here anew and make a new TLS context: a certificate that was revoked is
refused from then on, by a resumed session too, for the tickets of the old context are worth nothing.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
import secrets
import shlex
import signal
import ssl
from pathlib import Path

from edge_agent.core import wire
from hub.authority import Authority
from hub.config import BrokerSection, HubSettings

# Mosquitto's own format, "$7$": PBKDF2 with SHA-512. Its 101 rounds are enough, for no person chooses these passwords.
_ROUNDS = 101
_SALT_BYTES = 12
_MAX_QUEUED_MESSAGES = 1000  # a client: the rest is in its sender's store
_MAX_IN_FLIGHT = 256  # to the hub; a kiosk asks for fewer
_MAX_QUEUED_BYTES = 32 * 1024 * 1024

# For mosquitto, which has no words for it: session tickets of 32 bytes that name a session in the
# broker's memory, in place of the whole session with the kiosk's certificate, and one of them rather than two.
TLS_CONFIGURATION = """# Written by `teleconsult hub`; the broker is started with OPENSSL_CONF naming this file.
openssl_conf = broker
[broker]
ssl_conf = tls
[tls]
system_default = listeners
[listeners]
Options = -SessionTicket
NumTickets = 1
"""


class BrokerError(OSError):
    """One line that says what to do."""


def prepare(settings: HubSettings, authority: Authority, run_as: str = "") -> Path:
    """Write what is missing or changed; returns the path of the script that starts the broker.

    `run_as` is the user that mosquitto runs as, by default the one that calls this.
    """
    folder = settings.broker_dir
    user = run_as or pwd.getpwuid(os.getuid()).pw_name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "state").mkdir(exist_ok=True, mode=0o700)
        _write(folder / "acl", acl(settings.broker.username))
        _write(folder / "openssl.cnf", TLS_CONFIGURATION)
        _write(folder / "mosquitto.conf", configuration(settings, user))
        _write(folder / "start", start_script(folder))
        (folder / "start").chmod(0o700)
        copy_certificates(folder, authority)
        if not settings.broker_password_path.exists():
            settings.broker_password_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(settings.broker_password_path, secrets.token_urlsafe(32) + "\n")
        password = settings.broker_password_path.read_text(encoding="utf-8").strip()
        if not _has_password(folder / "passwords", settings.broker.username, password):
            _write(folder / "passwords", f"{settings.broker.username}:{password_hash(password)}\n")
        if run_as:
            _give_to(run_as, [folder, *folder.iterdir()])
    except (OSError, KeyError) as error:
        raise BrokerError(
            f"the broker's configuration in {folder} can't be written: {error}; see broker.config_dir"
        ) from None
    return folder / "start"


def start_script(folder: Path) -> str:
    """The broker becomes the process that runs it. What it refuses is told at the level of debugging alone, where it
    tells of every packet as well; those lines go no further than here."""
    every_packet = r": (Received [A-Z]+ from|Sending [A-Z]+ to|No will message|Will message|\t)"
    return f"""#!/bin/bash
# Written by `teleconsult hub`; changes made here are overwritten.
export OPENSSL_CONF={shlex.quote(str(folder / "openssl.cnf"))}
PATH=$PATH:/usr/sbin:/usr/local/sbin
exec mosquitto -c {shlex.quote(str(folder / "mosquitto.conf"))} 2> >(exec grep --line-buffered -vP '{every_packet}' >&2)
"""


def copy_certificates(folder: Path, authority: Authority) -> bool:
    """What the broker needs of the CA, where the broker may read it; in force with the next `reload`. True where
    something changed."""
    changed = [
        _write(folder / "ca.pem", authority.pem),
        _write(folder / "crl.pem", authority.crl_path.read_text(encoding="ascii")),
        _write(folder / "hub.key", authority.key_path.read_text(encoding="ascii")),
        _write(folder / "hub.pem", authority.cert_path.read_text(encoding="ascii")),
    ]
    return any(changed)


def configuration(settings: HubSettings, user: str) -> str:
    folder, broker = settings.broker_dir, settings.broker
    lines = [
        "# Written by `teleconsult hub`; changes made here are overwritten.",
        f"user {user}",
        f"pid_file {folder / 'mosquitto.pid'}",
        "allow_anonymous false",
        f"password_file {folder / 'passwords'}",
        f"acl_file {folder / 'acl'}",
        "persistence true",
        f"persistence_location {folder / 'state'}/",
        "autosave_interval 60",
        f"message_size_limit {wire.MAX_MESSAGE_BYTES}",
        f"max_queued_messages {_MAX_QUEUED_MESSAGES}",
        f"max_queued_bytes {_MAX_QUEUED_BYTES}",
        f"max_inflight_messages {_MAX_IN_FLIGHT}",
        "persistent_client_expiration 14d",
        "max_keepalive 1200",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "log_type debug",  # see start_script
        "connection_messages false",
        "set_tcp_nodelay true",
        f"listener {broker.port} 127.0.0.1",
        f"listener {broker.listen_port} {broker.listen_host}",
        f"cafile {folder / 'ca.pem'}",
        f"crlfile {folder / 'crl.pem'}",
        f"certfile {folder / 'hub.pem'}",
        f"keyfile {folder / 'hub.key'}",
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "tls_version tlsv1.3",
    ]
    return "\n".join(lines) + "\n"


def tls_context(settings: BrokerSection) -> ssl.SSLContext | None:
    """How the hub speaks to its broker: in the clear on its own machine."""
    return ssl.create_default_context(cafile=str(Path(settings.ca_file).expanduser())) if settings.ca_file else None


def acl(hub_user: str) -> str:
    """A kiosk is held to its own topics by its user name; the hub's name is not a valid kiosk id."""
    root = wire.TOPIC_ROOT
    return "\n".join(
        [
            f"pattern write {root}/%u/u/#",
            f"pattern read {root}/%u/d/#",
            f"pattern read {root}/{wire.ALL_KIOSKS}/d/#",
            f"user {hub_user}",
            f"topic readwrite {root}/#",
            "topic readwrite tc1h/#",
            "",
        ]
    )


def password_hash(password: str, salt: bytes | None = None) -> str:
    salt = salt or secrets.token_bytes(_SALT_BYTES)
    derived = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS)
    return f"$7${_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(derived).decode()}"


def reload(folder: Path) -> None:
    """Have a running broker read its files again. Raises BrokerError; a broker that does not run needs nothing."""
    path = folder / "mosquitto.pid"
    try:
        pid = int(path.read_text(encoding="ascii"))
        if b"mosquitto" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return  # left by a broker that was killed; the number is somebody else's by now
        os.kill(pid, signal.SIGHUP)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return
    except PermissionError:
        raise BrokerError(
            f"the broker (process {pid}) runs as another user and can't be told what has changed; "
            "reload it, or run it as the hub's user"
        ) from None


def _has_password(path: Path, username: str, password: str) -> bool:
    """And is the only one who has one."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    name, _, stored = lines[0].partition(":") if len(lines) == 1 else ("", "", "")
    fields = stored.split("$")
    return name == username and len(fields) == 5 and stored == password_hash(password, base64.b64decode(fields[3]))


def _write(path: Path, text: str) -> bool:
    """Whole or not at all; keeps the owner of what was there, so that the broker can go on reading it. True where it
    is another now."""
    before = path.stat() if path.exists() else None
    if before is not None and path.read_text(encoding="utf-8") == text:
        return False
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
        if before is not None and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, before.st_uid, before.st_gid)
    new.rename(path)
    return True


def _give_to(user: str, paths: list[Path]) -> None:
    account = pwd.getpwnam(user)
    if account.pw_uid != os.geteuid():
        for path in paths:
            os.chown(path, account.pw_uid, account.pw_gid)
