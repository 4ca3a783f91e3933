"""Mosquitto's configuration as the kit wants it: who may connect, to what, and how much.

Written into one folder: `mosquitto.conf`, `acl`, `passwords`, and the hub's own password. The broker is a service of
its own (or the demo's child); here is only what it reads. Holds for mosquitto 2.0.11, which Debian 12 has.
"""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
import secrets
import signal
from pathlib import Path

from edge_agent.core import wire
from hub.authority import Authority
from hub.config import HubSettings

# Mosquitto's own format, "$7$": PBKDF2 with SHA-512. Its 101 rounds are enough, for no person chooses these passwords.
_ROUNDS = 101
_SALT_BYTES = 12
_MAX_QUEUED_MESSAGES = 1000  # a client: the rest is in its sender's store
_MAX_QUEUED_BYTES = 32 * 1024 * 1024


class BrokerError(OSError):
    """One line that says what to do."""


def prepare(settings: HubSettings, authority: Authority, run_as: str = "") -> Path:
    """Write what is missing or changed; returns the path of `mosquitto.conf`.

    `run_as` is the user that mosquitto runs as, by default the one that calls this.
    """
    folder = settings.broker_dir
    user = run_as or pwd.getpwuid(os.getuid()).pw_name
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "state").mkdir(exist_ok=True, mode=0o700)
        _write(folder / "acl", acl(settings.broker.username))
        _write(folder / "mosquitto.conf", configuration(settings, authority, user))
        if not (folder / "passwords").exists():
            _write(folder / "passwords", "")
        if not settings.broker_password_path.exists():
            settings.broker_password_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(settings.broker_password_path, secrets.token_urlsafe(32) + "\n")
        password = settings.broker_password_path.read_text(encoding="utf-8").strip()
        if not _has_password(folder / "passwords", settings.broker.username, password):
            set_password(folder, settings.broker.username, password)
        if run_as:
            _give_to(run_as, [folder, *folder.iterdir()])
    except (OSError, KeyError) as error:
        raise BrokerError(
            f"the broker's configuration in {folder} can't be written: {error}; see broker.config_dir"
        ) from None
    return folder / "mosquitto.conf"


def configuration(settings: HubSettings, authority: Authority, user: str) -> str:
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
        "max_inflight_messages 40",
        "persistent_client_expiration 14d",
        "max_keepalive 1200",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "connection_messages false",
        "set_tcp_nodelay true",
        f"listener {broker.port} 127.0.0.1",
    ]
    if broker.listen_host:
        lines += [
            f"listener {broker.listen_port} {broker.listen_host}",
            f"certfile {authority.cert_path}",
            f"keyfile {authority.key_path}",
            "tls_version tlsv1.2",
        ]
    return "\n".join(lines) + "\n"


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


def set_password(folder: Path, username: str, password: str) -> None:
    """Add the user, or change its password; in force once the broker has read it (`reload`)."""
    path = folder / "passwords"
    others = [line for line in _lines(path) if line.partition(":")[0] != username]
    _write(path, "\n".join([*others, f"{username}:{password_hash(password)}"]) + "\n")


def remove_user(folder: Path, username: str) -> None:
    path = folder / "passwords"
    _write(path, "".join(f"{line}\n" for line in _lines(path) if line.partition(":")[0] != username))


def password_hash(password: str, salt: bytes | None = None) -> str:
    salt = salt or secrets.token_bytes(_SALT_BYTES)
    derived = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS)
    return f"$7${_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(derived).decode()}"


def reload(folder: Path) -> None:
    """Have a running broker read its users again. Raises BrokerError; a broker that does not run needs nothing."""
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
            f"the broker (process {pid}) runs as another user and can't be told of the new kiosk; "
            "reload it, or run it as the hub's user"
        ) from None


def _has_password(path: Path, username: str, password: str) -> bool:
    for line in _lines(path):
        name, _, stored = line.partition(":")
        fields = stored.split("$")
        if name == username and len(fields) == 5:
            return stored == password_hash(password, base64.b64decode(fields[3]))
    return False


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line]


def _write(path: Path, text: str) -> None:
    """Whole or not at all; keeps owner and mode of what was there, so that the broker can go on reading it."""
    before = path.stat() if path.exists() else None
    if before is not None and path.read_text(encoding="utf-8") == text:
        return
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


def _give_to(user: str, paths: list[Path]) -> None:
    account = pwd.getpwnam(user)
    if account.pw_uid != os.geteuid():
        for path in paths:
            os.chown(path, account.pw_uid, account.pw_gid)
