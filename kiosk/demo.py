"""`teleconsult demo`: broker, hub and a kiosk with a simulated board on one machine, in one folder.

It is a supervisor and nothing more: every part is the same program with the same configuration files as in a clinic,
started by the command that a technician would type. All that it makes is in its folder; it knows nothing of the parts
but their addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import random
import secrets
import shutil
import signal
import socket
import sys
import time
import tomllib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Origin

from edge_agent.core.tomltext import Value, set_values
from edge_agent.discovery import HubAddress
from edge_agent.identity import Identity, IdentityDamaged, NotJoined
from edge_agent.join import join
from edge_agent.media_process import ends_with_this_process
from edge_agent.private_files import write_private
from kiosk.children import Child
from kiosk.poor_link import PoorLink
from kiosk.worker import pin_hash

SITE = "Demo clinic"
DOCTOR = "doctor"
WORKER_PIN = "1234"
EMERGENCY = "This is the demo. Here stands what your clinic does when nobody can be reached."
ONLINE_TIMEOUT_S = 30.0
ONLINE_OVER_A_POOR_LINK_S = 120.0  # a TLS handshake takes seconds there, and may be lost and begun anew
PROBE_PAUSE_S = 0.05  # between questions to a port that does not answer yet
COMMAND = (sys.executable, "-m", "kiosk.cli")
HOME_OF_CODE = Path(__file__).resolve().parents[1]  # where -m looks first: another clone may be the working directory
_SEARCH_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin"  # Debian's mosquitto is in sbin


class DemoError(OSError):
    """One line that says what to do."""


class Ports(NamedTuple):
    broker: int  # the hub's
    kiosks: int  # the broker's with TLS
    hub: int
    screen: int


_FREE_PORTS = range(20_000, 32_000)
USUAL_PORTS = Ports(broker=0, kiosks=0, hub=8400, screen=8480)  # 0: any; nobody types the broker's


def run(folder: Path, simulated: bool = False, any_ports: bool = False, verbose: bool = False, link: str = "") -> int:
    """Until Ctrl-C, SIGTERM or the closing of the terminal; `link` is a poor one to put the kiosk behind. Raises
    DemoError, WillNotStart, PoorLinkUnavailable."""
    return asyncio.run(_run(folder.expanduser().absolute(), simulated, any_ports, verbose, link))


async def _run(folder: Path, simulated: bool, any_ports: bool, verbose: bool, link: str) -> int:
    stop = _stop_signals()
    with _only_one(folder), contextlib.ExitStack() as claims:
        poor_link = PoorLink(link, HOME_OF_CODE) if link else None
        demo = Demo(folder, claim_ports(folder, claims, any_ports), simulated, verbose, poor_link)
        running = asyncio.create_task(demo.run())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()  # raises
        finally:
            running.cancel()
            await asyncio.wait({running})
            demo.say("stopping …")
            await demo.stop()
        demo.say(f"all stopped; the data stays in {_short(folder)}")
    return 0


class Demo:
    """Starts the parts in the order in which they need one another, and stops them in reverse."""

    def __init__(
        self, folder: Path, ports: Ports, simulated: bool, verbose: bool, link: PoorLink | None = None
    ) -> None:
        self._folder, self._ports, self._simulated, self._link = folder, ports, simulated, link
        self._hub_host = link.hub_host if link else "127.0.0.1"  # as the kiosk sees it
        self._logs = folder / "logs"
        self._logs.mkdir(exist_ok=True)
        self._hub_toml, self._kiosk_toml = folder / "hub.toml", folder / "kiosk.toml"
        self._password_file = folder / "doctor.password"
        self._passphrase_file = folder / "ca.passphrase"
        self._echo = self._print_line if verbose else None
        self._children: list[Child] = []
        self._lives: list[asyncio.Task[None]] = []
        self._devices: dict[str, Value] = {}
        self.hub_url = f"http://127.0.0.1:{ports.hub}"
        self.screen_url = f"http://127.0.0.1:{ports.screen}"

    async def run(self) -> None:
        """Starts all, prints the box, and keeps all alive until cancelled. Raises DemoError, WillNotStart."""
        began = time.monotonic()
        await self._start()
        self.say(f"ready after {time.monotonic() - began:.1f} s")
        print(self._box(), flush=True)
        await asyncio.gather(*self._lives)

    async def stop(self) -> None:
        for child in reversed(self._children):
            await child.stop()
        if self._link:
            await self._link.close()

    async def _start(self) -> None:
        self.say("starting broker, hub and kiosk …")
        devices = asyncio.create_task(asyncio.to_thread(choose_devices, self._simulated))
        hub_is_new = not (self._folder / "hub").exists() or not self._password_file.exists()
        self._write_hub_toml()
        if not self._passphrase_file.exists():
            write_private(self._passphrase_file, secrets.token_urlsafe(24) + "\n")
        os.environ["TELECONSULT_CA_PASSPHRASE_FILE"] = str(self._passphrase_file)
        if hub_is_new:
            await self._make_account()
        _check_mosquitto()
        start = await self._command("hub", "broker-config", "--config", str(self._hub_toml))
        await self._child("broker", [start.strip()], self._until_broker_listens)
        await self._child("hub", [*COMMAND, "hub", "run", "--config", str(self._hub_toml)], self._until_hub_serves)
        self._devices = await devices
        await self._prepare_kiosk(hub_is_new)
        agent = [*COMMAND, "agent", "--config", str(self._kiosk_toml)]
        if self._link:
            agent = self._link.command(agent)
            await self._link.bring_out(self._ports.screen)
            await self._link.bring_in(self._ports.hub)
        await self._child("kiosk", agent, self._until_screen_serves)
        try:
            async with asyncio.timeout(ONLINE_OVER_A_POOR_LINK_S if self._link else ONLINE_TIMEOUT_S):
                await self._until_screen(lambda view: bool(view.get("online")))
        except TimeoutError:
            raise DemoError(f"the kiosk does not reach the hub; see the logs in {_short(self._logs)}") from None

    def say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that was closed
            print(f"{_style('2', 'demo  ')} {line}", flush=True)

    def _box(self) -> str:
        password = self._password_file.read_text(encoding="utf-8").strip()
        rows = [
            ("Kiosk screen", _style("1;36", self.screen_url)),
            ("Doctor's console", _style("1;36", self.hub_url)),
            ("", f"name {_style('1', DOCTOR)}   password {_style('1', password)}"),
            ("Board panel", _style("1;36", f"{self.screen_url}/board")),
            ("", ""),
            ("First", "sign in at the console and say that you are there;"),
            ("", "then press the button, on the kiosk screen or on the board panel."),
            ("Health worker", f"PIN {WORKER_PIN} opens the other side of the kiosk screen"),
            ("Devices", ", ".join(f"{name} {spec}" for name, spec in self._devices.items() if name != "board")),
            *([("Link", self._link.words)] if self._link else []),
            ("", ""),
            ("Ctrl-C", f"ends it. Logs are in {_short(self._logs)}"),
        ]
        return boxed("Teleconsult demo", rows)

    # --- parts

    async def _child(self, name: str, argv: Sequence[str], ready: Callable[[], Awaitable[None]]) -> None:
        child = Child(name, argv, self._logs / f"{name}.log", ready, self.say, self._echo, HOME_OF_CODE)
        self._children.append(child)
        self._lives.append(await child.start())

    async def _command(self, *arguments: str, typed: str = "") -> str:
        """One of the kit's own commands to its end; its standard output."""
        process = await asyncio.create_subprocess_exec(
            *COMMAND, *arguments, cwd=HOME_OF_CODE, start_new_session=True, preexec_fn=ends_with_this_process(),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            out, errors = await process.communicate(typed.encode())
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            lines = errors.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise DemoError(f"`teleconsult {' '.join(arguments[:2])}` failed: {lines[-1]}")
        return out.decode()

    async def _make_account(self) -> None:
        password = "-".join(secrets.token_hex(2) for _ in range(3))
        try:
            await self._command("hub", "account", "add", DOCTOR, "--config", str(self._hub_toml), typed=password + "\n")
        except DemoError:  # made by a start that was killed just after
            await self._command(
                "hub", "account", "password", DOCTOR, "--config", str(self._hub_toml), typed=password + "\n"
            )
        write_private(self._password_file, password + "\n")

    def _write_hub_toml(self) -> None:
        self._set(
            self._hub_toml,
            {
                "site": {"name": SITE},
                "store": {"data_dir": str(self._folder / "hub")},
                "listen": {"host": "127.0.0.1", "port": self._ports.hub},
                "broker": {
                    "host": "127.0.0.1",
                    "port": self._ports.broker,
                    "listen_host": self._hub_host,
                    "listen_port": self._ports.kiosks,
                },
                "doctors": {"first_account": DOCTOR},
            },
        )

    async def _prepare_kiosk(self, hub_is_new: bool) -> None:
        """Joins by itself, once, as `teleconsult join` does."""
        is_new = not self._kiosk_toml.exists()
        self._set(
            self._kiosk_toml,
            {
                "kiosk": {"state_dir": str(self._folder / "kiosk")},
                "devices": {**self._devices, "board": "simulated"},
                "hub": {"address": f"127.0.0.1:{self._ports.hub}"},
                "broker": {"host": self._hub_host, "port": self._ports.kiosks},
                "screen": {"port": self._ports.screen},
            },
        )
        if is_new:
            self._set(self._kiosk_toml, {"kiosk": {"emergency_instruction": EMERGENCY}})
        kiosk = tomllib.loads(self._kiosk_toml.read_text(encoding="utf-8"))["kiosk"]
        if not kiosk.get("worker_pin_hash"):
            hashed = await asyncio.to_thread(pin_hash, WORKER_PIN)
            self._set(self._kiosk_toml, {"kiosk": {"worker_pin_hash": hashed}})
        identity_dir = self._folder / "kiosk" / "identity"
        if hub_is_new or not _is_joined(identity_dir):
            invited = await self._command("hub", "invite", "--site", SITE, "--no-qr", "--config", str(self._hub_toml))
            code, hub = invited.split()[0], HubAddress("127.0.0.1", self._ports.hub)
            await asyncio.to_thread(join, code, identity_dir, hub, again=True)

    def _set(self, file: Path, values: dict[str, dict[str, Value]]) -> None:
        """Ports and devices are the demo's; whatever else a person wrote into the file stays."""
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        after = set_values(before, values, str(file))
        if after != before:
            write_private(file, after)

    # --- readiness

    async def _until_broker_listens(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self._ports.broker)
                writer.close()
                return
            await asyncio.sleep(PROBE_PAUSE_S)

    async def _until_hub_serves(self) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if (await http.get(f"{self.hub_url}/health")).status_code == 200:
                        return
                await asyncio.sleep(PROBE_PAUSE_S)

    async def _until_screen_serves(self) -> None:
        await self._until_screen(lambda view: True)

    async def _until_screen(self, shows: Callable[[dict[str, Any]], bool]) -> None:
        """What the agent tells the kiosk's page, which is all that a patient would see."""
        address = f"ws://127.0.0.1:{self._ports.screen}/ws"
        while True:
            with contextlib.suppress(OSError, WebSocketException):
                async with connect(address, origin=Origin(self.screen_url), proxy=None, max_size=None) as page:
                    async for frame in page:
                        if isinstance(frame, str) and shows(json.loads(frame)):
                            return
            await asyncio.sleep(PROBE_PAUSE_S)

    def _print_line(self, name: str, line: str) -> None:
        print(f"{_style('2', f'{name:6}')} {line}", flush=True)


def choose_devices(simulated: bool) -> dict[str, Value]:
    """The machine's own where it has them."""
    if simulated:
        return {"camera": "synthetic", "microphone": "synthetic", "speaker": "null"}
    from hardware.camera import device_paths  # with OpenCV and PortAudio, which nothing else here needs
    from hardware.devices import list_devices

    sound = list_devices() if _may_have_sound() else None
    return {
        "camera": "auto" if device_paths() else "synthetic",
        "microphone": "auto" if sound and sound.microphones else "synthetic",
        "speaker": "auto" if sound and sound.speakers else "null",
    }


def _may_have_sound() -> bool:
    """Whether there is a sound card or a sound server. Where there is neither, asking PortAudio would start PulseAudio
    to find out."""
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    servers = (runtime / "pulse/native", runtime / "pipewire-0")
    return (
        "PULSE_SERVER" in os.environ
        or any(server.exists() for server in servers)
        or any(Path("/proc/asound").glob("card[0-9]*"))
    )


def _is_joined(folder: Path) -> bool:
    try:
        Identity.load(folder)
    except (NotJoined, IdentityDamaged):
        return False
    return True


def _check_mosquitto() -> None:
    if shutil.which("mosquitto", path=_SEARCH_PATH) is None:
        raise DemoError("there is no mosquitto, the broker; install it: sudo apt-get install mosquitto")


# --- alone in its folder, on ports of its own


@contextlib.contextmanager
def _only_one(folder: Path) -> Any:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise DemoError(f"{folder}: {error.strerror}; name another folder with --dir") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            raise DemoError(
                f"another demo ({holder or 'just starting'}) is at work in {folder}; end it, or name another folder "
                "with --dir"
            ) from None
        _write_holder(lock)
        yield


def _write_holder(lock: IO[str]) -> None:
    lock.truncate(0)
    lock.write(f"process {os.getpid()}\n")
    lock.flush()


def claim_ports(folder: Path, claims: contextlib.ExitStack, any_ports: bool) -> Ports:
    """The last ones if they are free, so that a bookmark holds; else the usual ones; else any."""
    usual = Ports(*[0] * 4) if any_ports else USUAL_PORTS
    file = folder / "ports.json"
    try:
        last = Ports(*map(int, json.loads(file.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError):
        last = Ports(*[0] * 4)
    ports = Ports(
        _claim_port(claims, last.broker, usual.broker),
        _claim_port(claims, last.kiosks, usual.kiosks),
        _claim_port(claims, last.hub, usual.hub),
        _claim_port(claims, last.screen, usual.screen),
    )
    write_private(file, json.dumps(ports) + "\n")
    return ports


def _claim_port(claims: contextlib.ExitStack, *wishes: int) -> int:
    """A free port on loopback, and this user's claim to it among demos that start at the same moment: an abstract
    socket by its name, which the kernel lets go with the process and which leaves no file."""
    # None of those that the kernel gives to clients: they come and go before a part listens.
    for wish in (*filter(None, wishes), *random.sample(_FREE_PORTS, 50)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wish))
            except OSError:
                continue
            port: int = probe.getsockname()[1]
            claim = socket.socket(socket.AF_UNIX)
            try:
                claim.bind(f"\0teleconsult-demo-port-{port}")
            except OSError:
                claim.close()
                continue
            claims.enter_context(claim)
            return port
    raise DemoError("no free port on loopback was found; is a firewall or a security module in the way?")


def _stop_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    return stop


# --- what it looks like


def boxed(title: str, rows: Sequence[tuple[str, str]]) -> str:
    label_width = max(len(label) for label, _ in rows)
    lines = [f"{_style('2', label.ljust(label_width))}   {text}" if label or text else "" for label, text in rows]
    width = max(_width(line) for line in [*lines, title]) + 4
    edge = "─" * (width - len(title) - 3)
    return "\n".join(
        [
            f"╭─ {_style('1', title)} {edge}╮",
            "│" + " " * width + "│",
            *(f"│  {line}{' ' * (width - 2 - _width(line))}│" for line in lines),
            "│" + " " * width + "│",
            f"╰{'─' * width}╯",
        ]
    )


def _width(text: str) -> int:
    """On the screen: without what only colours."""
    width, inside = 0, False
    for character in text:
        if character == "\x1b":
            inside = True
        elif inside:
            inside = character != "m"
        else:
            width += 1
    return width


def _style(code: str, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def _short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
