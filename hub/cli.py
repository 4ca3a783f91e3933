"""`teleconsult hub …`: what the command line says becomes a call. Errors go up: `kiosk.cli` says them in one line."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import segno
from cryptography.hazmat.primitives import hashes
from sqlalchemy import select
from sqlalchemy.orm import Session

from edge_agent.core import phonecode, trust
from edge_agent.core.courier import NotWhole, Sealed
from edge_agent.core.findings import GROUP_NAMES, Verdict
from edge_agent.core.joining import join_link
from edge_agent.core.release import ReleaseError
from hub import accounts, app, audit, enrol
from hub import backup as backups
from hub.authority import Ca
from hub.config import HubSettings, read_hub_settings
from hub.courier import CourierIntake
from hub.database import Database
from hub.enrol import Enrolment
from hub.invitation_sheet import make_sheet
from hub.keys import AuthorityError
from hub.mqtt import software
from hub.records import Approval, AuditEntry, Doctor, Kiosk
from hub.releases import Releases, Stage
from hub.roles import Role
from hub.sealing import ask_again


class CourierStick(Protocol):
    """What `import` needs of `kiosk.stick.Stick`."""

    def prepare(self, way: str, kiosk: str) -> None: ...

    def kiosks(self, way: str) -> list[str]: ...

    def bundles(self, way: str, kiosk: str) -> list[Path]: ...

    def read(self, path: Path) -> Iterable[Sealed]: ...

    def write(self, way: str, kiosk: str, name: str, content: Iterable[Sealed]) -> None: ...

    def remove(self, path: Path) -> None: ...


def add_arguments(
    hub: argparse.ArgumentParser,
    default_config: Path,
    start_logging: Callable[[str, bool], None],
    open_stick: Callable[[Path], CourierStick],
    supervisor: Callable[[], app.Supervisor],
) -> None:
    """Add the hub's actions to the parser of `teleconsult hub`. Each leaves a `run` that takes the parsed arguments;
    without --config it reads `default_config` where that is there. `start_logging` takes level and --debug,
    `open_stick` the folder of a courier's stick; `supervisor` gives whoever is told how the hub is."""
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
        parser.set_defaults(run=run, start_logging=start_logging, open_stick=open_stick, supervisor=supervisor)
        return parser

    action("run", _run, "Run the hub until it is stopped.")
    brought = action("import", _import, "Take in what a courier's stick has brought, and put the answers on it.")
    brought.add_argument("folder", type=Path, metavar="FOLDER", help="where the stick is mounted")
    backup = action("backup", _backup, "Write all that the hub keeps to a file, beside a running hub or without one.")
    backup.add_argument(
        "file", metavar="FILE", help="patients' data in the clear; - for standard output, to encrypt it"
    )
    restored = action("restore", _restore, "Put a backup back, on a machine without a hub.")
    restored.add_argument("file", metavar="FILE", help="- for standard input")
    again = action(
        "ask-again", _ask_again, "After a restore by other means: have kiosks send again what they still hold."
    )
    again.add_argument("--since", type=_day, required=True, metavar="YYYY-MM-DD", help="when that backup was made")
    invite = action("invite", _invite, "Print codes with which kiosks join, each good once and for 14 days.")
    what = invite.add_mutually_exclusive_group(required=True)
    what.add_argument("--site", help="the clinic's name, as doctors see it")
    what.add_argument("--for", dest="for_kiosk", metavar="KIOSK", help="new hardware takes over this kiosk's identity")
    what.add_argument("--list", action="store_true", help="show the invitations and what became of them")
    what.add_argument("--revoke", metavar="NUMBER", help="withdraw an invitation, by its number in the list")
    invite.add_argument("--count", type=_count, default=1, help="how many codes (default: 1)")
    invite.add_argument("--pdf", type=Path, metavar="FILE", help="write a sheet to print, a QR code for each")
    invite.add_argument("--no-qr", action="store_true", help="the codes alone")
    kiosks = actions.add_parser(
        "kiosks", help="The kiosks that have joined.", description="The kiosks that have joined."
    )
    what_kiosks = kiosks.add_subparsers(dest="kiosks", required=True, metavar="ACTION")
    action("list", _kiosks_list, "List them, and what they wait for.", what_kiosks)
    approve = action("approve", _kiosks_approve, "Let a kiosk renew an expired certificate, or new hardware take over.",
                     what_kiosks)  # fmt: skip
    refuse = action("refuse", _kiosks_refuse, "Tell a kiosk that waits for an approval that it gets none.", what_kiosks)
    for asked in (approve, refuse):
        asked.add_argument("kiosk")
        asked.add_argument("--key", default="", help="of several devices that ask for one id, the one with this key")
    action("revoke", _kiosks_revoke, "Cut a kiosk off within a minute, and keep it out.", what_kiosks).add_argument(
        "kiosk"
    )
    decode = action("decode", _decode, "Say what a kiosk's telephone code means, as its self-test gives it.")
    decode.add_argument("code", nargs="+", metavar="CODE", help="ten digits, in groups or not")
    decode.add_argument("--json", action="store_true", help="as one JSON object")
    ca = actions.add_parser(
        "ca", help="The hub's certificate authority.", description="The hub's certificate authority."
    )
    what_ca = ca.add_subparsers(dest="ca", required=True, metavar="ACTION")
    action("show", _ca_show, "Show the CAs, and who still lives on an older one.", what_ca)
    rotate = action("rotate", _ca_rotate, "Let a new CA take over; both are trusted until --finish.", what_ca)
    rotate.add_argument("--finish", action="store_true", help="trust the older one no more")
    rotate.add_argument("--force", action="store_true", help="finish, though some kiosks must join anew then")
    release = actions.add_parser(
        "release", help="Releases of the kit for kiosks.", description="Releases of the kit for kiosks."
    )
    what_release = release.add_subparsers(dest="release", required=True, metavar="ACTION")
    trust_ = action("trust", _release_trust, "Tell kiosks that join whose releases to believe.", what_release)
    trust_.add_argument("file", type=Path, metavar="FILE", help="keys.json, as scripts/build-release keys makes it")
    trust_.add_argument("--again", action="store_true", help="although this hub has told its kiosks of others")
    added = action("add", _release_add, "Take a release in. No kiosk takes it before it is staged.", what_release)
    added.add_argument("folder", type=Path, metavar="FOLDER")
    stage = action("stage", _release_stage, "Say which kiosks may take a release, in place of what was said before.",
                   what_release)  # fmt: skip
    stage.add_argument("version")
    stage.add_argument("--site", action="append", default=[], help="all kiosks of this clinic; may be given again")
    stage.add_argument("--kiosk", action="append", default=[], help="this kiosk; may be given again")
    stage.add_argument("--share", type=_percent, default=0, metavar="PERCENT", help="so many of all kiosks; 100: all")
    action("list", _release_list, "List them, who may take them, and who runs them.", what_release)
    config = action(
        "broker-config", _broker_config, "Write mosquitto's configuration and print the script that starts it."
    )
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
    app.run(settings, supervisor=arguments.supervisor())


def _import(arguments: argparse.Namespace, settings: HubSettings) -> int:
    stick: CourierStick = arguments.open_stick(arguments.folder)
    kiosks = stick.kiosks("to-hub")
    if not kiosks:
        print("There is nothing on this stick for a hub.")
        return 0
    authority = app.open_authority(settings)
    database = _open(settings)
    try:
        intake = CourierIntake(settings, database, trust.OwnKeys(authority.signing_key, authority.seal_key), app.now_ms)
        return asyncio.run(_take_in(stick, kiosks, intake))
    finally:
        database.close()


async def _take_in(stick: CourierStick, kiosks: list[str], intake: CourierIntake) -> int:
    await intake.start()
    refused = 0
    for kiosk in kiosks:
        paths = stick.bundles("to-hub", kiosk)
        for number, path in enumerate(paths, 1):
            try:
                await intake.take(kiosk, stick.read(path))
            except NotWhole as error:
                print(f"{kiosk}: {path.name} is passed over: {error}. The clinic writes it again at its next export.")
            print(f"{kiosk}: {number} of {len(paths)} parcels", flush=True)
        answers = await intake.answers(kiosk)
        if answers:
            stick.prepare("from-hub", kiosk)
            older = stick.bundles("from-hub", kiosk)
            stick.write("from-hub", kiosk, f"{app.now_ms():015d}", answers)
            for path in older:  # receipts of before are said again, as long as their parcels are on the stick
                stick.remove(path)
        result = intake.result(kiosk)
        refused += result.refused
        print(f"{kiosk}: {result.confirmed} messages and {result.files_whole} files are here and confirmed.")
        if result.refused:
            print(f"{kiosk}: {result.refused} messages were refused: not of a kiosk that has joined and may speak.")
    if not await intake.tell():
        print(
            "The broker is not reached: consoles show this when something else changes, or when the hub is restarted."
        )
    print("Send the stick back to the clinic: the answers are on it.")
    return 1 if refused else 0


def _backup(arguments: argparse.Namespace, settings: HubSettings) -> None:
    def write(to: BinaryIO) -> backups.Counted:
        return backups.back_up(settings, to, software(), app.now_ms())

    to_pipe = arguments.file == "-"
    counted = write(sys.stdout.buffer) if to_pipe else backups.write_backup(Path(arguments.file), write)
    what = "" if settings.database_url.startswith("sqlite") else " The database is not in it: back it up BEFORE this."
    print(f"{counted.files} files, {counted.bytes / 1e6:.1f} MB, and the CA.{what}", file=sys.stderr)
    _do(settings, audit.append, app.now_ms(), audit.command(), "backed_up")


def _restore(arguments: argparse.Namespace, settings: HubSettings) -> None:
    if arguments.file == "-":
        about = backups.restore(settings, sys.stdin.buffer)
    else:
        with open(arguments.file, "rb") as file:
            about = backups.restore(settings, file)

    def note(session: Session) -> None:
        ask_again(session, about.made_at_ms)
        audit.append(session, app.now_ms(), audit.command(), "restored")

    _do(settings, note)
    print(f"Restored as it was on {enrol.when(about.made_at_ms)} UTC. Start broker and hub: kiosks are asked for what")
    print("they sent since. What they do not have any more, and what was done at the hub since, is lost.")


def _ask_again(arguments: argparse.Namespace, settings: HubSettings) -> None:
    def note(session: Session) -> None:
        ask_again(session, arguments.since)
        audit.append(session, app.now_ms(), audit.command(), "asked_again")

    _do(settings, note)
    print("Start the hub anew: kiosks are asked for what they sent since then, each when it is next online.")


def _day(text: str) -> int:
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        raise argparse.ArgumentTypeError("a day, as in 2026-09-30") from None


def _invite(arguments: argparse.Namespace, settings: HubSettings) -> None:
    if arguments.list:
        _invitations(settings)
    elif arguments.revoke:
        gone = _do(settings, enrol.withdraw, arguments.revoke, app.now_ms(), audit.command())
        print(f"Invitation {gone.token_hash[: enrol.SHOWN_CHARACTERS]} for {gone.site} is withdrawn.")
    else:
        _new_invitations(arguments, settings)


def _new_invitations(arguments: argparse.Namespace, settings: HubSettings) -> None:
    database = _open(settings)
    try:
        enrolment = Enrolment(settings, database, app.open_authority(settings), app.now_ms)
        site, kiosk = arguments.site or "", arguments.for_kiosk or ""
        codes = [enrolment.invite(site, kiosk, by=audit.command()) for _ in range(arguments.count)]
    finally:
        database.close()
    host, port = settings.invites_to
    links = [join_link(host, port, code) for code in codes]
    if arguments.pdf:
        sheet = make_sheet(arguments.site or arguments.for_kiosk, list(zip(codes, links, strict=True)))
        _write_private(arguments.pdf, sheet)
        print(f"{len(codes)} codes are in {arguments.pdf}. Keep it like a key: each lets one kiosk in.")
        return
    for code, link in zip(codes, links, strict=True):
        print(code)
        if not arguments.no_qr:
            segno.make(link, error="m").terminal(compact=True)
    where = f" --hub {host}:{port}" if host else ""
    print(f"On the kiosk: teleconsult join CODE{where}", file=sys.stderr)


def _write_private(path: Path, data: bytes) -> None:
    """For its owner alone, also where it was there before."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(data)


def _invitations(settings: HubSettings) -> None:
    now_ms = app.now_ms()
    for each in _do(settings, enrol.invitations):
        if each.withdrawn_at:
            state = "withdrawn"
        elif each.used_at:
            state = f"used by {each.kiosk_id}"
        elif each.expires_at <= now_ms:
            state = "too old"
        else:
            state = f"good until {enrol.when(each.expires_at)} UTC"
        for_kiosk = f" (new hardware of {each.kiosk_id})" if each.replaces else ""
        print(f"{each.token_hash[: enrol.SHOWN_CHARACTERS]}  {state:32}  {each.site}{for_kiosk}")


def _kiosks_list(arguments: argparse.Namespace, settings: HubSettings) -> None:
    def read(session: Session) -> list[tuple[Kiosk, str, list[Approval]]]:
        asking = enrol.approvals(session)
        return [
            (kiosk, _state(session, kiosk), [each for each in asking if each.kiosk_id == kiosk.id])
            for kiosk in session.scalars(select(Kiosk).order_by(Kiosk.id))
        ]

    for kiosk, state, asking in _do(settings, read):
        print(f"{kiosk.id:32}  {'online ' if kiosk.online else 'offline'}  {state:40}  {kiosk.site}")
        for each in asking:
            what = "was refused" if each.refused_at else "waits for approval"
            print(f"    {what} ({each.why}, key {each.key_hash[: enrol.SHOWN_CHARACTERS]})")


def _state(session: Session, kiosk: Kiosk) -> str:
    certificate = enrol.newest_certificate(session, kiosk.id, enrol.key_hash(kiosk.sign_key))
    if certificate is None or certificate.revoked_at:
        return "revoked"
    until = "ran out on" if certificate.expires_at <= app.now_ms() else "certificate until"
    return f"{until} {enrol.when(certificate.expires_at)}"


def _kiosks_approve(arguments: argparse.Namespace, settings: HubSettings) -> None:
    given = _do(settings, enrol.approve, arguments.kiosk, app.now_ms(), audit.command(), arguments.key)
    what = "renews its certificate" if given.why == enrol.EXPIRED else "goes over to the new hardware"
    print(f"{arguments.kiosk} {what} when it asks the next time, within a few minutes.")


def _kiosks_refuse(arguments: argparse.Namespace, settings: HubSettings) -> None:
    _do(settings, enrol.refuse, arguments.kiosk, app.now_ms(), audit.command(), arguments.key)
    print(f"{arguments.kiosk} is told so when it asks the next time. `hub kiosks approve` still lets it in.")


def _kiosks_revoke(arguments: argparse.Namespace, settings: HubSettings) -> None:
    count = _do(settings, enrol.revoke, arguments.kiosk, app.now_ms(), audit.command())
    print(f"{arguments.kiosk} is revoked ({count} certificates); the hub cuts it off in a few seconds.")
    print(f"To let new hardware be {arguments.kiosk}: teleconsult hub invite --for {arguments.kiosk}")


def _decode(arguments: argparse.Namespace, settings: HubSettings) -> None:
    heard = phonecode.decode(" ".join(arguments.code))
    cause = heard.cause
    if arguments.json:
        groups = {group.name.lower(): verdict.name.lower() for group, verdict in heard.verdicts.items()}
        print(json.dumps({"groups": groups, "cause": cause.name if cause else "", "number": heard.cause_number}))
        return
    if cause is not None:
        print(f"First of all: {cause.what}\n  {cause.do}")
    elif heard.cause_number:
        print(f"First of all: cause {heard.cause_number}, which this release does not know; update the hub.")
    else:
        print("Nothing is wrong with what was tested.")
    for verdict, text in _VERDICTS:
        names = [f"{GROUP_NAMES[group]} ({group})" for group, given in heard.verdicts.items() if given is verdict]
        if names:
            print(f"{text}: {', '.join(names)}")


_VERDICTS = (
    (Verdict.FAIL, "Failed"), (Verdict.WARN, "Not quite right"), (Verdict.PASS, "Good"),
    (Verdict.UNTESTED, "Not tested"),
)  # fmt: skip


def _ca_show(arguments: argparse.Namespace, settings: HubSettings) -> None:
    authority = app.open_authority(settings)
    cas = authority.cas
    for ca in cas:
        roles = " and ".join(
            role for role, its in (("the hub's certificate", cas[0]), ("kiosks", cas[-1])) if its == ca
        )
        print(f"CA {ca.number}  signs {roles}, until {ca.certificate.not_valid_after_utc:%Y-%m-%d}")
        print(f"      {ca.certificate.fingerprint(hashes.SHA256()).hex(':')}")
    if len(cas) > 1:
        behind = _do(settings, enrol.behind, authority)
        print(f"{len(behind)} kiosks do not know CA {cas[-1].number} yet{': ' if behind else ''}{', '.join(behind)}")


def _ca_rotate(arguments: argparse.Namespace, settings: HubSettings) -> None:
    authority = app.open_authority(settings)
    if not arguments.finish:

        def rotate(session: Session) -> Ca:
            audit.append(session, app.now_ms(), audit.command(), "ca_rotated", f"ca:{authority.cas[-1].number + 1}")
            return authority.rotate()  # what cannot be audited is not done

        ca = _do(settings, rotate)
        print(
            f"CA {ca.number} signs kiosks from now on. Each gets to know it within a week, when it next asks the hub."
        )
        print("When `teleconsult hub ca show` names no kiosk any more: teleconsult hub ca rotate --finish")
        return
    behind = _do(settings, enrol.behind, authority)
    if behind and not arguments.force:
        raise AuthorityError(
            f"{len(behind)} kiosks do not know the new CA yet ({', '.join(behind[:10])}) and would have to join anew; "
            "wait until they have been online, or add --force"
        )

    def finish(session: Session) -> Ca:
        number = authority.cas[-1].number
        audit.append(session, app.now_ms(), audit.command(), "ca_rotation_finished", f"ca:{number}")
        return authority.finish_rotation(app.names_of(settings))

    ca = _do(settings, finish)
    print(f"CA {ca.number} alone is trusted now. Invitations from before are void; make new ones.")


def _release_trust(arguments: argparse.Namespace, settings: HubSettings) -> None:
    keys = Releases(settings.data_dir).trust(arguments.file, arguments.again)
    _audit(settings, "release_keys_trusted", f"key:{keys.signing[:16]}", f"key:{keys.recovery[:16]}")
    print(f"Kiosks that join from now on believe releases signed by {keys.signing[:16]}…")


def _release_add(arguments: argparse.Namespace, settings: HubSettings) -> None:
    manifest = Releases(settings.data_dir).add(arguments.folder)
    _audit(settings, "release_added", f"release:{manifest.version}")
    print(
        f"Release {manifest.version} is here. Let kiosks take it: "
        f"teleconsult hub release stage {manifest.version} --share 10"
    )


def _release_stage(arguments: argparse.Namespace, settings: HubSettings) -> None:
    known = _do(settings, lambda session: {kiosk.id: kiosk.site for kiosk in session.scalars(select(Kiosk))})
    for what, given, here in (("kiosk", arguments.kiosk, known.keys()), ("site", arguments.site, known.values())):
        if unknown := [each for each in given if each not in here]:
            raise ReleaseError(
                f"there is no {what} {unknown[0]!r}; nothing was changed. See: teleconsult hub kiosks list"
            )
    stage = Stage(tuple(arguments.kiosk), tuple(arguments.site), arguments.share)
    Releases(settings.data_dir).stage(arguments.version, stage)
    _audit(settings, "release_staged", f"release:{arguments.version}", *(f"kiosk:{each}" for each in stage.kiosks),
           f"share:{stage.share}")  # fmt: skip
    count = sum(stage.takes(kiosk, site, arguments.version) for kiosk, site in known.items())
    print(f"{count} of {len(known)} kiosks may take release {arguments.version}, when each next asks.")


def _release_list(arguments: argparse.Namespace, settings: HubSettings) -> None:
    releases = Releases(settings.data_dir)
    kiosks = _do(settings, lambda session: [(k.id, k.site, k.software) for k in session.scalars(select(Kiosk))])
    before, stages = None, releases.stages()
    for manifest, _ in releases.all():
        stage = stages.get(manifest.version, Stage())
        may = sum(stage.takes(kiosk, site, manifest.version) for kiosk, site, _ in kiosks)
        run = sum(software == manifest.version for _, _, software in kiosks)
        size, more = releases.packed_bytes(manifest), ""
        if before is not None:
            more = f", {releases.packed_bytes(manifest, before):,} after {before.version}"
        print(f"{manifest.version:24}  {may} of {len(kiosks)} kiosks may take it, {run} run it  {size:,} bytes{more}")
        before = manifest


def _audit(settings: HubSettings, what: str, *about: str) -> None:
    _do(settings, lambda session: audit.append(session, app.now_ms(), audit.command(), what, *about))


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


def _percent(text: str) -> int:
    if not text.isdecimal() or int(text) > 100:
        raise argparse.ArgumentTypeError("a number from 0 to 100")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 500:
        raise argparse.ArgumentTypeError("a number from 1 to 500")
    return int(text)
