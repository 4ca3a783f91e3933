"""A door of the agent's for self-tests and `teleconsult status`: a Unix socket in its run folder, which its own user
alone can open.

A self-test is a process of its own, so that nothing it does can stop the kiosk. Through here it learns what only the
agent knows, borrows devices while nobody is in a call, and hands in what it has found: then the lamp blinks the group,
the screen shows the telephone code and the speaker says it, so that no one broken thing keeps it from people.

JSON lines. What is borrowed goes back when the connection ends, and at once when a call begins. A person who presses
meanwhile is heard: only while somebody was asked to press does a short press mean the test, and holding is always an
emergency.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from edge_agent.core.findings import Group
from edge_agent.core.metered import Spent
from edge_agent.core.phonecode import MisheardCode, decode
from edge_agent.ipc import short_path
from hardware.api import Light
from hardware.gestures import Gesture, Pressed

log = logging.getLogger(__name__)

BLINKS_S = 120.0  # after a report; then the lamp is the patients' again
MAX_LINE_BYTES = 4096
ANSWER_S = 3.0


class AgentState(msgspec.Struct, frozen=True):
    """What only the agent knows."""

    quiet: bool  # no call, no message being made
    media_up: bool = False
    broker_up: bool = False
    clock_trusted: bool = False
    clock_wrong: bool = False
    conditions: tuple[str, ...] = ()
    unsent_since_ms: int = 0  # by the agent's clock; 0: nothing waits
    wall_ms: int = 0
    button_down_s: float = 0.0
    board: str = ""  # why there is none
    has_button: bool = False
    has_lamp: bool = False
    version: str = ""  # of the kit that runs


class WaitingItems(msgspec.Struct, frozen=True):
    """Messages and files of one urgency that the hub does not have."""

    what: str  # a `Priority`, in small letters
    consults: int
    items: int
    bytes: int  # of files
    since_ms: int


class AgentStatus(msgspec.Struct, frozen=True):
    """How things stand, for `teleconsult status`; no patients' data."""

    release: str
    broker_up: bool
    hub_reached: bool
    clock_trusted: bool
    conditions: tuple[str, ...]
    waiting: tuple[WaitingItems, ...]
    set_aside: int
    last_receipt_ms: int
    spent: Spent
    held: Literal["", "cheap_hours", "day", "month"]
    held_until_ms: int
    key_is_protected: bool


class Asks(msgspec.Struct, frozen=True, omit_defaults=True):
    """`state`; `status`, for people; `retry` what is set aside; `borrow` devices; `press`: somebody was asked to press;
    `light`: show this; `report` what was found."""

    do: Literal["state", "status", "retry", "borrow", "press", "light", "report"]
    light: str = ""
    code: str = ""
    failed: tuple[int, ...] = ()  # groups, the first of them the lamp's


class Says(msgspec.Struct, frozen=True, omit_defaults=True):
    state: AgentState | None = None
    status: AgentStatus | None = None
    lent: bool = False
    busy: bool = False  # a call has begun: let the devices go
    pressed: bool = False


class Report(msgspec.Struct, frozen=True):
    code: str  # "" while a test runs
    failed: tuple[Group, ...] = ()


class DoorOwner(Protocol):
    def own_state(self) -> AgentState: ...

    def own_status(self) -> AgentStatus: ...

    def try_again(self) -> None:
        """What is set aside."""

    def light_changed(self) -> None: ...

    def tell_report(self, report: Report) -> None:
        """On the screen and aloud."""


_decode_asks = msgspec.json.Decoder(Asks).decode
_decode_says = msgspec.json.Decoder(Says).decode


class Door:
    """The agent's side. `run` until cancelled."""

    def __init__(self, owner: DoorOwner, path: Path) -> None:
        self._owner, self._path = owner, path
        self._borrower: asyncio.StreamWriter | None = None
        self._asked_to_press = False
        self.light: Light | None = None  # what the lamp shows in place of a quiet one
        self.report = Report("")

    async def run(self) -> None:
        self._path.unlink(missing_ok=True)
        with short_path(self._path) as short:
            server = await asyncio.start_unix_server(self._serve, short, limit=MAX_LINE_BYTES)
        self._path.chmod(0o600)
        async with server:
            await server.serve_forever()

    def takes(self, gesture: Gesture) -> bool:
        """Whether this press is the test's alone."""
        if not (isinstance(gesture, Pressed) and self._asked_to_press and self._borrower is not None):
            return False
        _tell(self._borrower, Says(pressed=True))
        return True

    def call_began(self) -> None:
        if self._borrower is not None:
            log.info("self-test gives devices back: somebody needs them")
            _tell(self._borrower, Says(busy=True))
            self._give_back()

    def hub_reached(self) -> None:
        """What the line alone was to blame for is over."""
        if self.report.failed and set(self.report.failed) <= {Group.LINE, Group.HUB, Group.CLOCK}:
            self.report = Report("")
            self._show(None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self._asked(_decode_asks(line), writer)
                await writer.drain()
        except (msgspec.DecodeError, ValueError, ConnectionError) as error:
            log.warning("self-test speaks something else: %s", error)
        finally:
            if self._borrower is writer:
                self._give_back()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _asked(self, asks: Asks, writer: asyncio.StreamWriter) -> None:
        match asks.do:
            case "state":
                _tell(writer, Says(state=self._owner.own_state()))
            case "status":
                _tell(writer, Says(status=self._owner.own_status()))
            case "retry":
                self._owner.try_again()
                _tell(writer, Says(status=self._owner.own_status()))
            case "borrow":
                free = self._borrower is None and self._owner.own_state().quiet
                if free:
                    self._borrower = writer
                _tell(writer, Says(lent=free, busy=not free))
            case "press" | "light" if writer is self._borrower:
                self._asked_to_press = asks.do == "press"
                self._show(Light(asks.light) if asks.light else None)
                _tell(writer, Says(lent=True))
            case "press" | "light":
                _tell(writer, Says(busy=True))
            case "report":
                self._take_report(asks)
                _tell(writer, Says())

    def _take_report(self, asks: Asks) -> None:
        with contextlib.suppress(MisheardCode):
            decode(asks.code)
            self.report = Report(asks.code, tuple(Group(number) for number in asks.failed))
            log.info("self-test code=%s failed=%s", asks.code, ",".join(map(str, asks.failed)) or "-")
            blinks = Light(f"group_{asks.failed[0]}") if asks.failed else None
            self._show(blinks)
            if blinks is not None:
                asyncio.get_running_loop().call_later(BLINKS_S, self._stop_showing, blinks)
            self._owner.tell_report(self.report)

    def _stop_showing(self, light: Light) -> None:
        if self.light is light:
            self._show(None)

    def _give_back(self) -> None:
        self._borrower, self._asked_to_press = None, False
        if not self.report.failed:
            self._show(None)

    def _show(self, light: Light | None) -> None:
        if light is not self.light:
            self.light = light
            self._owner.light_changed()


def _tell(writer: asyncio.StreamWriter, says: Says) -> None:
    writer.write(msgspec.json.encode(says) + b"\n")


class AgentAway(ConnectionError):
    """No agent runs on this state folder, or it does not answer."""


class Visit:
    """A self-test's side; blocking. A context manager. Raises AgentAway when it opens."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(ANSWER_S)
        self._heard: queue.SimpleQueue[Says | None] = queue.SimpleQueue()
        self._busy: Callable[[], None] = lambda: None
        try:
            with short_path(path) as short:
                self._socket.connect(short)
        except OSError as error:
            self._socket.close()
            raise AgentAway(f"the agent does not answer ({error.strerror or error})") from None
        self._socket.settimeout(None)
        threading.Thread(target=self._listen, name="agent's door", daemon=True).start()

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def ask(self, asks: Asks) -> Says:
        """What it answers. Raises AgentAway."""
        try:
            self._socket.sendall(msgspec.json.encode(asks) + b"\n")
        except OSError as error:
            raise AgentAway(f"the agent went away ({error.strerror or error})") from None
        try:
            return self.hear(ANSWER_S)
        except TimeoutError:
            raise AgentAway("the agent does not answer") from None

    def state(self) -> AgentState:
        """Raises AgentAway."""
        state = self.ask(Asks("state")).state
        if state is None:
            raise AgentAway("the agent answers what this release does not understand")
        return state

    def hear(self, timeout_s: float) -> Says:
        """The next thing that it says. Raises AgentAway, and TimeoutError where it says nothing."""
        try:
            says = self._heard.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if says is None:
            raise AgentAway("the agent went away")
        return says

    def when_busy(self, call: Callable[[], None]) -> None:
        """From another thread, as soon as the devices are needed."""
        self._busy = call

    def _listen(self) -> None:
        rest = b""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            while data := self._socket.recv(MAX_LINE_BYTES):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    says = _decode_says(line)
                    if says.busy:
                        self._busy()
                    self._heard.put(says)
        self._heard.put(None)


def door_path(state_dir: Path) -> Path:
    return state_dir / "run" / "agent.sock"
