"""The hub, put together: database, broker's configuration, MQTT link, waiting room, web. The one place that knows
all."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from hub import accounts, broker
from hub.authority import Authority, server_names
from hub.config import HubSettings
from hub.console import MAX_CLIENT_BYTES
from hub.database import Database
from hub.enrol import Enrolment
from hub.files import FileStore
from hub.intake import Intake
from hub.mqtt import Link
from hub.switchboard import Switchboard
from hub.web import Web

log = logging.getLogger(__name__)

CLOSE_S = 3  # for requests under way, at a stop


def now_ms() -> int:
    return int(time.time() * 1000)


def open_authority(settings: HubSettings) -> Authority:
    """The hub's CA with a certificate for every name it is reached by."""
    authority = Authority(settings.data_dir / "ca")
    hosts = (settings.listen.host, settings.broker.listen_host, settings.broker.kiosk_host)
    authority.ensure(server_names(settings.listen.names, *hosts))
    return authority


def prepare_broker(settings: HubSettings, run_as: str = "") -> str:
    """Write mosquitto's configuration; returns its path. May be called before the hub first runs."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return str(broker.prepare(settings, open_authority(settings), run_as))


def run(settings: HubSettings, ready: Callable[[str], None] | None = None) -> None:
    """Until SIGTERM or SIGINT. `ready` gets the hub's address once it listens.

    Raises DatabaseError, BrokerError, OSError where it cannot start.
    """
    asyncio.run(serve(settings, ready))


async def serve(settings: HubSettings, ready: Callable[[str], None] | None = None) -> None:
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = open_authority(settings)
    broker.prepare(settings, authority)
    database = Database(settings.database_url, settings.data_dir)
    try:
        first_password = database.do(accounts.first_account, settings.doctors.first_account, now_ms())
        if first_password is not None:
            _print_first_account(settings.doctors.first_account, first_password)
        await _serve(settings, authority, database, ready)
    finally:
        database.close()


async def _serve(
    settings: HubSettings, authority: Authority, database: Database, ready: Callable[[str], None] | None
) -> None:
    files = FileStore(settings.data_dir / "files")
    switchboard = Switchboard(settings, database, files)
    intake = Intake(database, files, switchboard.calls, settings.store, switchboard.deliver)
    link = Link(settings, intake.put, switchboard.noticed, switchboard.link_up)
    switchboard.publish = link.publish
    enrolment = Enrolment(settings, database, authority, now_ms)

    def health() -> dict[str, object]:
        return {
            "ok": True,
            "broker": link.connected,
            "intake_waiting": intake.waiting,
            "refused": dict(intake.counters),
        }

    web = Web(settings, switchboard, enrolment, health)
    server = _Server(_uvicorn_config(settings, authority, web))
    await switchboard.start()
    async with asyncio.TaskGroup() as tasks:
        parts = [
            tasks.create_task(part, name=name)
            for name, part in {
                "waiting room": switchboard.run(),
                "intake": intake.run(),
                "upkeep": switchboard.run_upkeep(),
                "broker link": link.run(),
            }.items()
        ]
        try:
            await _until_stopped(settings, server, switchboard, ready)
        finally:
            switchboard.close_all()
            with suppress(Exception):
                await link.say_offline()
            for part in parts:
                part.cancel()


async def _until_stopped(
    settings: HubSettings, server: _Server, switchboard: Switchboard, ready: Callable[[str], None] | None
) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop, switchboard)
    serving = asyncio.create_task(server.serve())
    started = asyncio.create_task(server.listening.wait())
    await asyncio.wait((serving, started), return_when=asyncio.FIRST_COMPLETED)
    if started.done():
        address = server.address(settings)
        log.info("hub ready address=%s process=%s", address, settings.broker.process)
        if ready is not None:
            ready(address)
    started.cancel()
    await serving
    log.info("hub stopped")


class _Server(uvicorn.Server):
    """Uvicorn in a loop that is not its own: signals are the hub's, a port that is taken is an error."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    def stop(self, switchboard: Switchboard) -> None:
        switchboard.close_all()
        self.should_exit = True

    def address(self, settings: HubSettings) -> str:
        port = self.servers[0].sockets[0].getsockname()[1]
        host = settings.listen.names[0] if settings.listen.names else settings.listen.host
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if settings.serves_https else 'http'}://{host}:{port}"

    async def serve(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        try:
            await self._serve(None)
        except SystemExit:  # uvicorn's way to say that it could not bind, which it has logged
            raise OSError(
                f"cannot listen on {self.config.host} port {self.config.port}: is another hub running? See listen.port"
            ) from None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(None)
        if self.started:
            self.listening.set()


def _uvicorn_config(settings: HubSettings, authority: Authority, web: Web) -> uvicorn.Config:
    own = settings.serves_https and not settings.listen.tls_cert
    return uvicorn.Config(
        web.app(),
        host=settings.listen.host,
        port=settings.listen.port,
        ssl_certfile=(str(authority.cert_path) if own else settings.listen.tls_cert or None),
        ssl_keyfile=(str(authority.key_path) if own else settings.listen.tls_key or None),
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        ws="websockets-sansio",
        ws_max_size=MAX_CLIENT_BYTES,
        ws_ping_interval=10,
        ws_ping_timeout=20,
        timeout_graceful_shutdown=CLOSE_S,
        proxy_headers=False,
    )


def _print_first_account(name: str, password: str) -> None:
    """On the terminal, not in the log: shown once, kept nowhere."""
    print(f"First account: name {name}   password {password}   (shown once; change it with", flush=True)
    print(f"               teleconsult hub account password {name})", flush=True)
