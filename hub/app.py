"""The hub, put together: database, broker's configuration, MQTT link, waiting room, web."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import uvicorn
from sqlalchemy.orm import Session

from edge_agent.core import trust
from edge_agent.core.joining import HUB_NAME
from hub import accounts, broker
from hub.advertise import advertised
from hub.authority import Authority, server_names
from hub.certificates import CertificateWatch
from hub.config import HubSettings
from hub.console import MAX_CLIENT_BYTES
from hub.database import Database
from hub.enrol import Enrolment
from hub.files import FileStore
from hub.intake import Intake
from hub.keys import passphrase_of_operator
from hub.mqtt import Link
from hub.sealing import Sealing
from hub.switchboard import Switchboard
from hub.web import Web

log = logging.getLogger(__name__)

CLOSE_S = 3  # for requests under way, at a stop


def now_ms() -> int:
    return int(time.time() * 1000)


def names_of(settings: HubSettings) -> list[str]:
    """By which browsers and kiosks reach the hub."""
    hosts = (settings.listen.host, settings.broker.listen_host, settings.broker.kiosk_host)
    return server_names(settings.listen.names, *hosts)


def open_authority(settings: HubSettings) -> Authority:
    """The hub's CA with a certificate for every name it is reached by. Raises AuthorityError."""
    authority = Authority(settings.data_dir / "ca", passphrase_of_operator(settings.authority.plain_key))
    authority.ensure(names_of(settings))
    return authority


def prepare_broker(settings: HubSettings, run_as: str = "") -> str:
    """Write mosquitto's configuration; returns the path of the script that starts it. May be called before the hub
    first runs."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return str(broker.prepare(settings, open_authority(settings), run_as))


class Supervisor(Protocol):
    """Whoever started the hub and starts it again."""

    def ready(self) -> None: ...

    def stopping(self) -> None: ...

    async def watch(self, alive: Callable[[], Awaitable[bool]]) -> None:
        """For ever, on the hub's event loop."""


def run(
    settings: HubSettings, ready: Callable[[str], None] | None = None, supervisor: Supervisor | None = None
) -> None:
    """Until SIGTERM or SIGINT. `ready` gets the hub's address once it listens.

    Raises DatabaseError, BrokerError, AuthorityError, OSError where it cannot start.
    """
    asyncio.run(serve(settings, ready, supervisor))


async def serve(
    settings: HubSettings, ready: Callable[[str], None] | None = None, supervisor: Supervisor | None = None
) -> None:
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = open_authority(settings)
    broker.prepare(settings, authority)
    database = Database(settings.database_url, settings.data_dir)
    try:
        first_password = database.do(accounts.first_account, settings.doctors.first_account, now_ms())
        if first_password is not None:
            _print_first_account(settings.doctors.first_account, first_password)
        await _serve(settings, authority, database, ready, supervisor)
    finally:
        database.close()


async def _serve(
    settings: HubSettings, authority: Authority, database: Database, ready: Callable[[str], None] | None,
    supervisor: Supervisor | None,
) -> None:  # fmt: skip
    files = FileStore(settings.data_dir / "files")
    sealing = Sealing(trust.OwnKeys(authority.signing_key, authority.seal_key), settings.broker.process)
    switchboard = Switchboard(settings, database, files, sealing)
    intake = Intake(
        database, files, switchboard.calls, switchboard.replies, settings.store, sealing, switchboard.deliver
    )  # fmt: skip
    link = Link(settings, sealing, intake.put, switchboard.noticed, switchboard.link_up)
    switchboard.publish = link.publish
    enrolment = Enrolment(settings, database, authority, now_ms)

    def health() -> dict[str, object]:
        return {
            "ok": True,
            "broker": link.connected,
            "intake_waiting": intake.waiting,
            "refused": dict(intake.counters),
        }

    async def alive() -> bool:
        """The database's thread takes work, also where it fails. The line to the broker, as every part, ends the hub
        where its task ends."""
        await database.run(_nothing)
        return True

    web = Web(settings, switchboard, enrolment, health)
    config = _uvicorn_config(settings, authority, web)
    server = _Server(config)

    config.load()
    own_tls = _show_kiosks_own_certificate(settings, authority, config.ssl)

    def renewed() -> None:
        if own_tls is not None:
            own_tls.load_cert_chain(authority.cert_path, authority.key_path)

    watch = CertificateWatch(settings, authority, names_of(settings), switchboard.do, now_ms, renewed)
    listening = _listen(settings)

    def stop() -> None:
        server.should_exit = True
        switchboard.close_all()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await switchboard.start()
    async with asyncio.TaskGroup() as tasks:
        parts = [
            tasks.create_task(part)
            for part in (switchboard.run(), switchboard.run_upkeep(), intake.run(), link.run(), watch.run())
        ]  # fmt: skip
        address = _address(settings, listening.getsockname()[1])
        log.info("hub ready address=%s process=%s", address, settings.broker.process)
        if ready is not None:
            ready(address)
        if supervisor is not None:
            parts.append(tasks.create_task(supervisor.watch(alive)))
            supervisor.ready()
        try:
            async with advertised(settings.listen.host, listening.getsockname()[1]):
                await server.serve([listening])
        finally:
            if supervisor is not None:
                supervisor.stopping()
            await link.say_offline()
            for part in parts:
                part.cancel()
    log.info("hub stopped")


def _nothing(session: Session) -> None:
    pass


class _Server(uvicorn.Server):
    """Uvicorn without signals of its own: they are the hub's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(settings: HubSettings) -> socket.socket:
    """Raises OSError with a line that names the setting."""
    host, port = settings.listen.host, settings.listen.port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"the hub cannot listen on {host} port {port}: {reason}; see listen.host and listen.port, and whether "
            "another hub runs"
        ) from None


def _address(settings: HubSettings, port: int) -> str:
    host = settings.listen.names[0] if settings.listen.names else settings.listen.host
    return f"{'https' if settings.serves_https else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _uvicorn_config(settings: HubSettings, authority: Authority, web: Web) -> uvicorn.Config:
    own = settings.serves_own_certificate
    return uvicorn.Config(
        web.app(),
        ssl_certfile=(str(authority.cert_path) if own else settings.listen.tls_cert or None),
        ssl_keyfile=(str(authority.key_path) if own else settings.listen.tls_key or None),
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        ws="websockets-sansio",
        ws_max_size=MAX_CLIENT_BYTES,
        ws_ping_interval=10,
        ws_ping_timeout=20,
        timeout_graceful_shutdown=CLOSE_S,
        proxy_headers=False,
    )


def _show_kiosks_own_certificate(
    settings: HubSettings, authority: Authority, tls: ssl.SSLContext | None
) -> ssl.SSLContext | None:
    """Whatever certificate browsers are shown, a kiosk believes the hub's CA alone: it asks for `HUB_NAME`. Returns the
    context with the hub's own certificate."""
    if tls is None or settings.serves_own_certificate:
        return tls
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(authority.cert_path, authority.key_path)

    def choose(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if name == HUB_NAME:
            connection.context = own

    tls.sni_callback = choose
    return own


def _print_first_account(name: str, password: str) -> None:
    """On the terminal, not in the log: shown once, kept nowhere."""
    print(f"First account: name {name}   password {password}   (shown once; change it with", flush=True)
    print(f"               teleconsult hub account password {name})", flush=True)
