"""`teleconsult hub …`: what the command line says becomes a call. Errors go up: `kiosk.cli` says them in one line."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import segno
from sqlalchemy import select
from sqlalchemy.orm import Session

from edge_agent.core.joining import join_link
from hub import accounts, app, audit
from hub.config import HubSettings, read_hub_settings
from hub.database import Database
from hub.enrol import Enrolment
from hub.records import AuditEntry, Doctor, Kiosk
from hub.roles import Role


def add_arguments(
    hub: argparse.ArgumentParser, default_config: Path, start_logging: Callable[[str, bool], None]
) -> None:
    """Add the hub's actions to the parser of `teleconsult hub`. Each leaves a `run` that takes the parsed arguments;
    without --config it reads `default_config` where that is there. `start_logging` takes level and --debug."""
    actions = hub.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, function: Any, text: str, under: Any = actions) -> argparse.ArgumentParser:
        def run(arguments: argparse.Namespace) -> int:
            file = arguments.config or (default_config if default_config.exists() else None)
            return int(function(arguments, read_hub_settings(file)) or 0)

        parser: argparse.ArgumentParser = under.add_parser(name, help=text, description=text)
        parser.add_argument(
            "--config", type=Path, metavar="FILE", help=f"the hub's TOML file (default: {default_config})"
        )
        parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks, log more")
        parser.set_defaults(run=run, start_logging=start_logging)
        return parser

    action("run", _run, "Run the hub until it is stopped.")
    invite = action("invite", _invite, "Print codes with which kiosks join, each good once and for 14 days.")
    invite.add_argument("--site", required=True, help="the clinic's name, as doctors see it")
    invite.add_argument("--count", type=_count, default=1, help="how many codes (default: 1)")
    invite.add_argument("--no-qr", action="store_true", help="the codes alone")
    action("kiosks", _kiosks, "List the kiosks that have joined.")
    config = action("broker-config", _broker_config, "Write mosquitto's configuration and print its path.")
    config.add_argument("--run-as", default="", metavar="USER", help="the user that mosquitto runs as")
    account = actions.add_parser("account", help="Doctors' accounts.", description="Doctors' accounts.")
    kinds = account.add_subparsers(dest="account", required=True, metavar="ACTION")
    for name, function, text in (
        ("add", _account_add, "Add an account; its password is asked for, or made and printed."),
        ("password", _account_password, "Set an account's password."),
        ("disable", _account_disable, "Sign an account out and let it in no more."),
        ("enable", _account_enable, "Let a disabled account in again."),
    ):
        action(name, function, text, kinds).add_argument("name")
    action("list", _account_list, "List the accounts.", kinds)
    kinds.choices["add"].add_argument("--role", choices=list(Role), default=Role.DOCTOR, help="default: doctor")
    role = action("role", _account_role, "Give an account another role.", kinds)
    role.add_argument("name")
    role.add_argument("role", choices=list(Role))
    log = actions.add_parser("audit", help="The audit log.", description="The audit log.")
    parts = log.add_subparsers(dest="audit", required=True, metavar="ACTION")
    checked = action("verify", _audit_verify, "Say whether the log is as it was written, and print its head.", parts)
    checked.add_argument(
        "--head", type=_head, metavar="NUMBER:HASH", help="a head printed earlier, which the log must still hold"
    )
    shown = action("show", _audit_show, "Print the log.", parts)
    shown.add_argument("--last", type=int, default=50, metavar="COUNT", help="how many (default: 50; 0: all)")
    shown.add_argument("--json", action="store_true", help="one JSON object a line, with the hashes")


def _run(arguments: argparse.Namespace, settings: HubSettings) -> None:
    arguments.start_logging(settings.log.level, arguments.debug)
    app.run(settings)


def _invite(arguments: argparse.Namespace, settings: HubSettings) -> None:
    database = _open(settings)
    try:
        enrolment = Enrolment(settings, database, app.open_authority(settings), app.now_ms)
        host = _host_for_kiosks(settings)
        for _ in range(arguments.count):
            code = enrolment.invite(arguments.site)
            print(code)
            if not arguments.no_qr:
                segno.make(join_link(host, settings.listen.port, code), error="m").terminal(compact=True)
    finally:
        database.close()
    where = f" --hub {host}:{settings.listen.port}" if host else ""
    print(f"On the kiosk: teleconsult join CODE{where}", file=sys.stderr)


def _host_for_kiosks(settings: HubSettings) -> str:
    """Empty where it listens on every address and has no name: then a kiosk finds it on its network."""
    names = settings.listen.names
    return names[0] if names else settings.listen.host if settings.listen.host not in ("0.0.0.0", "::") else ""  # noqa: S104


def _kiosks(arguments: argparse.Namespace, settings: HubSettings) -> None:
    def read(session: Session) -> list[Kiosk]:
        return list(session.scalars(select(Kiosk).order_by(Kiosk.id)))

    for kiosk in _do(settings, read):
        print(f"{kiosk.id:32}  {'online ' if kiosk.online else 'offline'}  {kiosk.site}")


def _broker_config(arguments: argparse.Namespace, settings: HubSettings) -> None:
    print(app.prepare_broker(settings, arguments.run_as))


def _account_add(arguments: argparse.Namespace, settings: HubSettings) -> None:
    password, made = _ask_password()
    hashed = accounts.hash_password(password, arguments.name)

    def add(session: Session) -> None:
        accounts.add_account(session, arguments.name, hashed, app.now_ms(), arguments.role, by=audit.command())

    _do(settings, add)
    print(f"Account {arguments.name!r} added, as {arguments.role}." + (f" Password: {password}" if made else ""))


def _account_password(arguments: argparse.Namespace, settings: HubSettings) -> None:
    password, made = _ask_password()
    hashed = accounts.hash_password(password, arguments.name)

    def set_(session: Session) -> None:
        doctor = accounts.existing(session, arguments.name)
        accounts.set_password(session, doctor, hashed, app.now_ms(), by=audit.command())

    _do(settings, set_)
    print(f"Password of {arguments.name!r} set." + (f" Password: {password}" if made else ""))


def _account_disable(arguments: argparse.Namespace, settings: HubSettings) -> None:
    _set_disabled(settings, arguments.name, True)
    print(f"Account {arguments.name!r} disabled.")


def _account_enable(arguments: argparse.Namespace, settings: HubSettings) -> None:
    _set_disabled(settings, arguments.name, False)
    print(f"Account {arguments.name!r} enabled.")


def _set_disabled(settings: HubSettings, name: str, disabled: bool) -> None:
    def set_(session: Session) -> None:
        accounts.set_disabled(session, accounts.existing(session, name), disabled, app.now_ms(), by=audit.command())

    _do(settings, set_)


def _account_role(arguments: argparse.Namespace, settings: HubSettings) -> None:
    def set_(session: Session) -> None:
        doctor = accounts.existing(session, arguments.name)
        accounts.set_role(session, doctor, arguments.role, app.now_ms(), by=audit.command())

    _do(settings, set_)
    print(f"Account {arguments.name!r} is now {arguments.role}.")


def _account_list(arguments: argparse.Namespace, settings: HubSettings) -> None:
    def read(session: Session) -> list[Doctor]:
        return list(session.scalars(select(Doctor).order_by(Doctor.name)))

    for doctor in _do(settings, read):
        print(f"{doctor.name:32}  {doctor.role:13}  {'disabled' if doctor.disabled else 'active'}")


def _audit_verify(arguments: argparse.Namespace, settings: HubSettings) -> int:
    try:
        head = _do(settings, audit.verify, arguments.head)
    except audit.ChainBroken as broken:
        print(f"broken: {broken}")
        return 1
    print(f"intact: {head.seq} entries, head {head}")
    return 0


def _audit_show(arguments: argparse.Namespace, settings: HubSettings) -> None:
    """Reading it is an entry too."""

    def read(session: Session) -> list[str]:
        audit.append(session, app.now_ms(), audit.command(), "audit_exported" if arguments.json else "audit_viewed")
        count = arguments.last
        wanted = reversed(audit.latest(session, count=count)) if count > 0 else audit.entries(session)
        return [_audit_line(entry, arguments.json) for entry in wanted]

    for line in _do(settings, read):
        print(line)


def _audit_line(entry: AuditEntry, as_json: bool) -> str:
    if as_json:
        return json.dumps({name: getattr(entry, name) for name in ("seq", "at", "who", "what", "about", "hash")})
    at = datetime.fromtimestamp(entry.at / 1000, UTC)
    return f"{entry.seq:8}  {at:%Y-%m-%d %H:%M:%S}Z  {entry.who:16}  {entry.what:20}  {entry.about}"


def _ask_password() -> tuple[str, bool]:
    """`(password, made)`: typed twice at a terminal, one line where input is piped, made where it is empty."""
    if not sys.stdin.isatty():
        typed = sys.stdin.readline().rstrip("\n")
    else:
        typed = getpass.getpass("Password (empty: make one): ")
        if typed and getpass.getpass("Again: ") != typed:
            raise accounts.AccountError("the two are not the same; nothing was changed")
    return (typed, False) if typed else (accounts.new_password(), True)


def _open(settings: HubSettings) -> Database:
    return Database(settings.database_url, settings.data_dir)


def _do(settings: HubSettings, work: Any, *args: Any) -> Any:
    database = _open(settings)
    try:
        return database.do(work, *args)
    finally:
        database.close()


def _head(text: str) -> audit.Head:
    try:
        return audit.parse_head(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 500:
        raise argparse.ArgumentTypeError("a number from 1 to 500")
    return int(text)
