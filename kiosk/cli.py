"""The command `teleconsult`: the one place that wires the parts together.

Every part is imported when its subcommand runs, so `--help` answers at once and a kiosk needs nothing of the hub.
What people can put right (a setting, a device, a file, an address) is said in one line that says what to do; a
traceback is a bug, or wanted with `--debug`.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pwd

    from edge_agent.config import KioskSettings

SERVICE_USER = "teleconsult"  # systemd/teleconsult.sysusers
OK, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130

EXIT_CODES = """exit codes:
  0    done
  1    it could not be done; one line on standard error says why and what to try
  2    the command line or a configuration file is wrong; trying again will not help
  130  interrupted with Ctrl-C
"""

# Errors that are written for people, by module: one that was never imported cannot have been raised.
_WRONG_USE = [
    ("edge_agent.core.settings", "SettingsError"),
    ("edge_agent.core.joining", "CodeError"),
    ("edge_agent.core.trace", "TraceError"),
    ("edge_agent.core.phonecode", "MisheardCode"),
]
_FOR_PEOPLE = [
    ("hardware.api", "HardwareError"),
    ("edge_agent.storage.database", "StoreError"),
    ("edge_agent.core.release", "ReleaseError"),
    ("hub.accounts", "AccountError"),
    ("hub.enrol", "JoinRefused"),
    ("hub.enrol", "NoSuchKiosk"),
]


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = make_parser(with_hub="hub" in words[:2])
    options = parser.parse_args(words)
    try:
        return int(options.run(options) or OK)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `teleconsult config | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        code = exit_code(error)
        if code is None or options.debug:
            raise
        print(f"teleconsult: {one_line(error)}", file=sys.stderr)
        return code


def exit_code(error: Exception) -> int | None:
    """None for what is a bug."""
    if isinstance(error, _imported(_WRONG_USE)):
        return WRONG_USE
    if isinstance(error, (OSError, *_imported(_FOR_PEOPLE))):
        return FAILED
    return None


def one_line(error: Exception) -> str:
    if type(error).__module__ == "builtins" and isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _imported(names: Sequence[tuple[str, str]]) -> tuple[type[Exception], ...]:
    return tuple(getattr(sys.modules[module], name) for module, name in names if module in sys.modules)


# --- the command line


def make_parser(with_hub: bool = True) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="teleconsult",
        description="A teleconsult kit for clinics on poor links: kiosk, agent and hub.",
        epilog=f"To see all of it on one machine: teleconsult demo\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="print the version and leave")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_agent(commands)
    _add_media(commands)
    _add_hub(commands, with_hub)
    _add_join(commands)
    _add_export(commands)
    _add_config(commands)
    _add_devices(commands)
    _add_trace(commands)
    _add_selftest(commands)
    _add_status(commands)
    _add_update(commands)
    _add_demo(commands)
    return parser


class _Version(argparse.Action):
    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, nargs=0, **named)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"teleconsult {_release()}")
        parser.exit()


def _release() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("teleconsult-kit")
    except PackageNotFoundError:
        return "(run from its source folder)"


def _command(commands: Any, name: str, summary: str, examples: str, more: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.{more}",
        epilog=f"examples:\n{examples}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # SUPPRESS: a default here would undo a --debug that stood before.
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks, log more")
    return parser


def _add_kiosk_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"the kiosk's TOML file (default: {_kiosk_default()})"
    )


def _add_agent(commands: Any) -> None:
    parser = _command(
        commands,
        "agent",
        "run the kiosk: its screen, its store, its line to the hub",
        "  teleconsult agent\n  teleconsult agent --config kiosk.toml\n",
        "\nIt starts the media process by itself and serves the screen on this machine alone.",
    )
    _add_kiosk_config(parser)
    parser.set_defaults(run=_agent)


def _add_media(commands: Any) -> None:
    parser = _command(
        commands,
        "media",
        "run the kiosk's camera, sound and calls; the agent starts this",
        "  teleconsult media --socket /run/teleconsult/media.sock --config kiosk.toml\n",
    )
    parser.add_argument("--socket", type=Path, required=True, metavar="PATH", help="the agent's Unix socket")
    _add_kiosk_config(parser)
    parser.set_defaults(run=_media)


def _add_hub(commands: Any, whole: bool) -> None:
    parser = _command(
        commands,
        "hub",
        "run and look after the doctors' hub",
        "  teleconsult hub run --config hub.toml\n"
        '  teleconsult hub invite --site "Clinic by the river" --count 3\n'
        '  teleconsult hub account add "Dr. Asha"\n',
    )
    if whole:
        from hub.cli import add_arguments
        from kiosk.notify import Supervisor

        add_arguments(parser, _hub_default(), _start_logging, _stick, Supervisor)


def _add_join(commands: Any) -> None:
    parser = _command(
        commands,
        "join",
        "make this kiosk one of a hub's, with the code that `teleconsult hub invite` prints",
        "  teleconsult join 5DYH4-X6J0Z-S1FP2-7CEJV-JZG3B-8KYPK-M6TJK-S20G7\n"
        "  teleconsult join 5DYH4-… --hub 192.168.1.20:8443 --name hill-clinic\n"
        "  teleconsult join --qr\n",
        "\nThe hub is found on the local network, or by --hub. It is told nothing unless it proves to be the one\n"
        "that the code is from. Keys and certificate go into the kiosk's state folder, and the keys never leave it.\n"
        "Interrupted at any step, the same command can be given again. Root joins for the service's own user.",
    )
    parser.add_argument("code", metavar="CODE", nargs="*", help="eight groups of five characters; a code works once")
    parser.add_argument("--qr", action="store_true", help="read the code from a sheet held before the kiosk's camera")
    parser.add_argument("--camera", metavar="SPEC", help="the camera for --qr (default: the configured one)")
    parser.add_argument("--hub", metavar="HOST:PORT", help="where the hub is (default: found by zeroconf)")
    parser.add_argument("--name", default="", help="the name this kiosk would like, e.g. hill-clinic")
    parser.add_argument("--site", default="", help="refuse a code that is for another clinic than this")
    parser.add_argument("--again", action="store_true", help="although this kiosk has joined a hub already")
    _add_kiosk_config(parser)
    parser.set_defaults(run=_join)


def _add_export(commands: Any) -> None:
    parser = _command(
        commands,
        "export",
        "write what the hub does not have yet to a courier's stick, and take in what it has answered",
        "  sudo teleconsult export /media/stick\n  sudo teleconsult export --receipts /media/stick\n",
        "\nThe agent must be running; it goes on meanwhile. What is written is signed and sealed to the hub, where\n"
        "`teleconsult hub import` takes it in and puts the answers on the stick. Interrupted or given again, it goes\n"
        "on; whatever arrives twice, by stick and by link, counts once.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the stick is mounted")
    parser.add_argument("--receipts", action="store_true", help="only take in what the hub has answered")
    _add_kiosk_config(parser)
    parser.set_defaults(run=_export)


def _add_config(commands: Any) -> None:
    parser = _command(
        commands,
        "config",
        "print the configuration as it is in effect, secrets masked",
        "  teleconsult config\n"
        "  teleconsult config --config kiosk.toml --check\n"
        "  teleconsult config --hub --config hub.toml\n"
        "  teleconsult config set-pin\n",
    )
    parser.add_argument(
        "action", nargs="?", choices=["set-pin"], help="set the PIN of the health workers' side of the screen"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the TOML file")
    parser.add_argument("--hub", action="store_true", help="it is the hub's, not the kiosk's")
    parser.add_argument("--check", action="store_true", help="print nothing, say only whether it is right")
    parser.add_argument("--print", action="store_true", help="with set-pin: print the hash, change no file")
    parser.set_defaults(run=_config)


def _add_devices(commands: Any) -> None:
    parser = _command(
        commands,
        "devices",
        "list this machine's cameras, microphones and speakers by the names that the configuration takes",
        "  teleconsult devices\n",
    )
    parser.set_defaults(run=_devices)


def _add_trace(commands: Any) -> None:
    parser = _command(
        commands,
        "trace",
        "tell what the link did in a call, and what was made of it",
        "  teleconsult trace /var/lib/teleconsult/traces/5f0c…-1.trace\n"
        "  teleconsult trace call.trace --svg call.svg\n",
        "A kiosk keeps a trace of each call in the folder `traces` of its state: times, sizes and rates, nothing of\n"
        "who talked or what was said. The plot shows what was estimated then, and what today's estimator makes of\n"
        "it.\n",
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw it there too")
    parser.set_defaults(run=_trace)


def _add_selftest(commands: Any) -> None:
    parser = _command(
        commands,
        "selftest",
        "test everything this kiosk needs, and give the result in ten digits to read out by telephone",
        "  sudo teleconsult selftest\n  sudo teleconsult selftest --ask\n  teleconsult selftest --json --silent\n",
        "\nTakes half a minute and at most 200 kB of the line; the agent may run meanwhile, and a call goes first.\n"
        "`teleconsult hub decode` says what the digits mean. Exit code 1: something failed.",
    )
    parser.add_argument("--ask", action="store_true", help="ask whoever stands here to press the button, see the lamp")
    parser.add_argument("--silent", action="store_true", help="play no sound, so that the speaker is not tested")
    parser.add_argument("--json", action="store_true", help="one JSON object, and no progress")
    _add_kiosk_config(parser)
    parser.set_defaults(run=_selftest)


def _add_status(commands: Any) -> None:
    parser = _command(
        commands,
        "status",
        "tell how this kiosk stands: its line, what waits, its budget, its card",
        "  sudo teleconsult status\n  teleconsult status --json\n  sudo teleconsult status --retry\n",
        "\nAsks the running agent, or reads the card where none runs; changes nothing. Exit code 1: it could not\n"
        "be told what waits.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--retry", action="store_true", help="have the agent send at once what was set aside")
    _add_kiosk_config(parser)
    parser.set_defaults(run=_status)


def _add_update(commands: Any) -> None:
    parser = _command(
        commands,
        "update",
        "take the release that the hub offers this kiosk, or one from a folder",
        "  sudo teleconsult update --check\n  sudo teleconsult update\n"
        "  sudo teleconsult update /media/stick/release\n",
        "\nOnly a release that is signed by this kiosk's release key is taken, outside calls and within the day's\n"
        "bytes (update.day_mb). The one before stays, and runs again where the new one does not get well. Interrupted\n"
        "at any step, the next run goes on: teleconsult-update.timer starts one every quarter of an hour.",
    )
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="a release that somebody has brought")
    parser.add_argument("--check", action="store_true", help="change nothing, say what there is")
    parser.add_argument("--keys", type=Path, metavar="FILE", help="whom to believe, where this kiosk knows nobody yet")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("/opt/teleconsult"),
        metavar="DIR",
        help="where releases are (default: %(default)s)",
    )
    _add_kiosk_config(parser)
    parser.set_defaults(run=_update)


def _add_demo(commands: Any) -> None:
    parser = _command(
        commands,
        "demo",
        "run broker, hub and a kiosk with a simulated board on this machine",
        "  teleconsult demo\n  teleconsult demo --simulated --dir /tmp/demo\n",
        "\nIt prints three addresses to open in a browser. Ctrl-C ends all of it; data stays in its folder.",
    )
    parser.add_argument(
        "--simulated", action="store_true", help="a made-up picture and voice, even where there is a camera"
    )
    parser.add_argument("--dir", type=Path, default=Path(".demo"), help="its folder (default: %(default)s)")
    parser.add_argument(
        "--ports",
        choices=["usual", "auto"],
        default="usual",
        help="usual: 8400 and 8480 where they are free; auto: any free ones (default: %(default)s)",
    )
    parser.add_argument("--verbose", action="store_true", help="show the logs of all parts here")
    parser.add_argument(
        "--link",
        default="",
        metavar="SPEC",
        help="put the kiosk behind a poor link, as in 64,200ms,2%%,1.0s or up=18,down=20,650ms,2%%,2s or trace=FILE, "
        "or one of the kit's own: 18, 24, 32, 64, 128, 256, vsat, 384, 1000, outages, steps (as root, from a clone)",
    )
    parser.set_defaults(run=_demo)


# --- what they do


def _agent(options: argparse.Namespace) -> int:
    from kiosk.agent_process import run

    settings, file = _kiosk_settings(options)
    _start_logging(settings.log.level, options.debug)
    return run(settings, file)


def _media(options: argparse.Namespace) -> int:
    from edge_agent.media.process import run

    settings, _ = _kiosk_settings(options)
    _start_logging(settings.log.level, options.debug)
    return run(options.socket, settings)


def _join(options: argparse.Namespace) -> int:
    from edge_agent.core.settings import SettingsError
    from edge_agent.join import join, parse_address

    if bool(options.code) == options.qr:
        raise SettingsError("give the code, or --qr to show it to the camera")
    hub = parse_address(options.hub) if options.hub else None
    settings, _ = _kiosk_settings(options)
    code = _code_from_camera(options.camera or settings.devices.camera) if options.qr else " ".join(options.code)
    if options.config is None:
        _become_the_service()
        settings, _ = _kiosk_settings(options)  # its home is another
    identity = join(
        code, settings.identity_dir, hub, options.name, options.site, options.again,
        waiting=lambda said: print(f"{said}\nWaiting; Ctrl-C ends that, and the same command goes on.", flush=True),
    )  # fmt: skip
    print(f"This kiosk is now {identity.kiosk} ({identity.site}) of the hub at {identity.hub}.")
    print(
        f"Its certificate holds until {identity.expires_at:%Y-%m-%d} and is renewed by itself. Keys: {identity.folder}"
    )
    print("Start or restart its agent: sudo systemctl restart teleconsult-agent, or teleconsult agent")
    return OK


def _stick(folder: Path) -> Any:
    from kiosk.stick import Stick

    return Stick(folder)


def _export(options: argparse.Namespace) -> int:
    from kiosk.courier import export

    service = _service() if options.config is None else None
    if service is not None:
        os.environ["HOME"] = service.pw_dir  # where its state is; the stick is written by whoever asks
    settings, _ = _kiosk_settings(options)
    waiting = export(
        options.folder, settings.state_dir / "run", lambda line: print(line, flush=True),
        receipts_only=options.receipts,
    )  # fmt: skip
    if waiting:
        print(f"{waiting} consult{' waits' if waiting == 1 else 's wait'} here for the health centre's word.")
        if not options.receipts:
            print(f"All of it is on the stick in {options.folder}, which may be taken out once it is unmounted.")
    else:
        print("Nothing waits here: the health centre has everything.")
    return OK


def _status(options: argparse.Namespace) -> int:
    from kiosk.status import retry, run

    service = _service() if options.config is None else None
    if service is not None:
        os.environ["HOME"] = service.pw_dir  # where its state is
    settings, _ = _kiosk_settings(options)
    return retry(settings) if options.retry else run(settings, _release(), as_json=options.json)


def _code_from_camera(spec: str) -> str:
    from edge_agent.join_qr import read_code

    print("Hold the sheet before the camera, a hand's width away …", flush=True)
    return read_code(spec, lambda line: print(line, flush=True))


def _become_the_service() -> None:
    """Root joins for the user that the agent runs as, who must be able to read the keys."""
    service = _service()
    if service is None:
        return
    os.initgroups(service.pw_name, service.pw_gid)
    os.setgid(service.pw_gid)
    os.setuid(service.pw_uid)
    os.environ["HOME"] = service.pw_dir


def _service() -> pwd.struct_passwd | None:
    """The agent's own user, where root asks for an agent that is installed as a service."""
    import pwd

    if os.geteuid() != 0 or not _kiosk_default().is_relative_to("/etc"):
        return None
    try:
        return pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return None


def _config(options: argparse.Namespace) -> int:
    from edge_agent.core.settings import SettingsError, effective

    if options.action == "set-pin":
        if options.hub or options.check:
            raise SettingsError("config set-pin is for the kiosk's file; it goes with --config and --print alone")
        return _set_pin(options)
    if options.hub:
        from hub.config import read_hub_settings

        file = options.config or _existing(_hub_default())
        settings: Any = read_hub_settings(file)
    else:
        settings, file = _kiosk_settings(options)
    if options.check:
        print(f"{file or 'no file, so the defaults'}: right")
    else:
        print(f"# in effect, from {file or 'the defaults: there is no file'}")
        print(effective(settings), end="")
    return OK


def _set_pin(options: argparse.Namespace) -> int:
    from edge_agent.core.settings import SettingsError
    from edge_agent.core.tomltext import set_values
    from edge_agent.private_files import write_private
    from kiosk.worker import pin_hash

    try:
        hashed = pin_hash(_ask_pin())
    except ValueError as error:
        raise SettingsError(f"{error}; nothing was changed") from None
    if options.print:
        print(hashed)
        return OK
    file = _kiosk_file(options)
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(file, set_values(text, {"kiosk": {"worker_pin_hash": hashed}}, str(file)))
    print(f"The PIN is set in {file}; it holds when the agent has been restarted.")
    return OK


def _ask_pin() -> str:
    """Twice from a terminal, once from a pipe."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().strip()
    from getpass import getpass

    pin = getpass("New PIN (4 to 12 digits): ")
    if pin != getpass("The same again: "):
        raise ValueError("the two PINs differ")
    return pin


def _devices(options: argparse.Namespace) -> int:
    from hardware.devices import list_devices

    found = list_devices()
    for kind, names in (("camera", found.cameras), ("microphone", found.microphones), ("speaker", found.speakers)):
        print(f"{kind}s:" if names else f"{kind}s: none found")
        for name in names:
            print(f'  {kind} = "device:{name}"')
    print('To use one, put its line under [devices] in the kiosk\'s file; "auto" takes the first that works.')
    return OK


def _trace(options: argparse.Namespace) -> int:
    from edge_agent.core.trace import Story, svg, told

    try:
        story = Story(options.file.read_bytes())
        print(told(story))
        if options.svg is not None:
            options.svg.write_text(svg(story), encoding="utf-8")
    except OSError as error:
        print(f"teleconsult: {error.filename}: {error.strerror}", file=sys.stderr)
        return WRONG_USE
    return OK


def _selftest(options: argparse.Namespace) -> int:
    from kiosk.selftest import run

    if options.config is None:
        _become_the_service()
    return run(lambda: _kiosk_settings(options)[0], as_json=options.json, ask=options.ask, silent=options.silent)


def _update(options: argparse.Namespace) -> int:
    from kiosk.update import run

    service = _service() if options.config is None else None
    if service is not None:
        os.environ["HOME"] = service.pw_dir  # where its identity is; what is written belongs to root
    return run(_kiosk_settings(options)[0], options.root, options.folder, options.keys, options.check)


def _demo(options: argparse.Namespace) -> int:
    from kiosk.demo import run

    return run(options.dir, options.simulated, options.ports == "auto", options.verbose, options.link)


# --- files and logs


def _default_file(part: str, name: str) -> Path:
    """The system's where there is one or root asks, else the user's own."""
    system = Path("/etc") / part / name
    try:
        there = system.exists()
    except PermissionError:  # another service's folder, where kiosk and hub are on one machine
        there = True
    if there or os.geteuid() == 0:
        return system
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / part / name


def _kiosk_default() -> Path:
    return _default_file("teleconsult", "kiosk.toml")


def _hub_default() -> Path:
    return _default_file("teleconsult-hub", "hub.toml")


def _existing(file: Path) -> Path | None:
    return file if file.exists() else None


def _kiosk_file(options: argparse.Namespace) -> Path:
    given: Path | None = options.config
    return given or _kiosk_default()


def _kiosk_settings(options: argparse.Namespace) -> tuple[KioskSettings, Path | None]:
    """A file that is named must be there; the default one need not."""
    from edge_agent.config import read_kiosk_settings

    file = options.config or _existing(_kiosk_default())
    return read_kiosk_settings(file), file


def _start_logging(level: str, debug: bool) -> None:
    """One line an event on standard error; the journal has its own clock."""
    clock = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(
        level=logging.DEBUG if debug else level.upper(), format=f"{clock}%(levelname)s %(name)s %(message)s"
    )


if __name__ == "__main__":
    sys.exit(main())
