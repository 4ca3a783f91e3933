"""One self-test: measures what can be measured at the same time, judges it, and hands the result to the agent.

Works without an agent, a hub, a network or a board: what cannot be asked is told as what it is, and a probe that breaks
is a finding of its own. Ends within a minute.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edge_agent.clock import BUILT_MS
from edge_agent.config import KioskSettings
from edge_agent.core import checks, line_checks
from edge_agent.core.checks import Hand, Programs
from edge_agent.core.findings import Finding, Group, Verdict, failed, untested, verdict_of, worst
from edge_agent.core.phonecode import encode, of_findings
from edge_agent.door import AgentAway, AgentState, Asks, Visit, door_path
from edge_agent.identity import Identity, IdentityDamaged, NotJoined
from edge_agent.selftest import devices, line, machine
from hardware.api import Board, HardwareError, Light
from hardware.devices import open_board

PRESS_S = 15.0
LAMP_S = 20.0  # what the lamp says where no agent does it
_DAY_MS = 86_400_000


class Asker(Protocol):
    """Whoever stands before the kiosk."""

    def press_now(self) -> None: ...

    def saw_lamp(self) -> bool: ...


@dataclass(frozen=True)
class Result:
    findings: list[Finding]
    code: str
    failed: tuple[Group, ...]  # the root's first

    @property
    def ok(self) -> bool:
        return not self.failed


@dataclass
class Options:
    silent: bool = False  # play nothing
    configuration: str = ""  # what is wrong with it; the settings are the defaults then
    asker: Asker | None = None
    sys: Path = Path("/sys")
    lamp_s: float = LAMP_S
    found: Callable[[Finding], None] = field(default=lambda finding: None)
    said: Callable[[str], None] = field(default=lambda what: None)


def run(settings: KioskSettings, options: Options) -> Result:
    abandon = threading.Event()
    findings: list[Finding] = []
    visit, agent = _visit(settings)
    lent = agent is None or (agent.quiet and visit is not None and _borrow(visit, abandon))
    trusted_ms = _trusted(agent, machine.synchronised())
    identity, problem = _identity(settings)
    throttled = machine.throttled(options.sys)
    works: dict[str, Callable[[], list[Finding]]] = {
        "power": lambda: [
            checks.judge_power(throttled),
            checks.judge_heat(machine.celsius(options.sys), throttled),
            checks.judge_memory(machine.available_bytes()),
        ],
        "card": lambda: _card(settings, options, agent),
        "programs": lambda: checks.judge_programs(
            Programs(
                agent is not None, None if agent is None else agent.media_up, options.configuration, machine.units()
            )
        ),
        "line": lambda: _line(settings, options, identity, problem, agent, trusted_ms),
    }
    section = settings.devices
    if lent:
        works["camera"] = lambda: devices.in_time(
            lambda: devices.camera(section, abandon), [failed("camera", "camera_frozen", "its driver hangs")]
        )
        works["sound"] = lambda: devices.in_time(
            lambda: devices.sound(section, abandon, options.silent),
            [failed("microphone", "microphone_missing", "its driver hangs")],
        )
    else:
        busy = "the kiosk is in use"
        findings += [
            untested("camera", Group.CAMERA, busy),
            untested("microphone", Group.MICROPHONE, busy),
            untested("speaker", Group.SPEAKER, busy),
        ]
    with ThreadPoolExecutor(len(works), thread_name_prefix="self-test") as pool:
        running = {pool.submit(work): name for name, work in works.items()}
        for done in as_completed(running):
            try:
                found = done.result()
            except Exception as error:  # a bug in a probe, or a driver's: the others go on
                found = [failed(running[done], "probe_failed", f"{type(error).__name__}: {error}")]
            findings += found
            for each in found:
                options.found(each)
    board = _board(settings, options, visit, agent) if lent or agent is None else _board_of(agent, Hand())
    for each in board:
        options.found(each)
    result = _result([*findings, *board])
    _report(settings, visit, result, options.lamp_s)
    return result


def _result(findings: list[Finding]) -> Result:
    heard = of_findings(findings)
    root = worst(findings)
    groups = [group for group in Group if verdict_of(group, findings) is Verdict.FAIL]
    groups.sort(key=lambda group: (root is None or group is not root.group, group))
    return Result(sorted(findings, key=lambda each: each.group), encode(heard), tuple(groups))


# --- the agent


def _visit(settings: KioskSettings) -> tuple[Visit | None, AgentState | None]:
    try:
        visit = Visit(door_path(settings.state_dir))
        return visit, visit.state()
    except AgentAway:
        return None, None


def _borrow(visit: Visit, abandon: threading.Event) -> bool:
    """Devices, until the visit ends or a call begins."""
    try:
        if not visit.ask(Asks("borrow")).lent:
            return False
    except (AgentAway, TimeoutError):
        return False
    visit.when_busy(abandon.set)
    return True


def _report(settings: KioskSettings, visit: Visit | None, result: Result, lamp_s: float) -> None:
    """To the agent, which has lamp, screen and voice; without one the lamp alone is left."""
    try:
        if visit is not None:
            with visit:
                visit.ask(Asks("report", code=result.code, failed=tuple(int(group) for group in result.failed)))
                return
    except (AgentAway, TimeoutError):
        pass
    if result.failed:
        with contextlib.suppress(HardwareError):
            board = _open_board(settings)
            board.show(Light(f"group_{result.failed[0].value}"))
            threading.Event().wait(lamp_s)  # for the time that it is shown
            board.close()


# --- the parts


def _identity(settings: KioskSettings) -> tuple[Identity | None, str]:
    try:
        return Identity.load(settings.identity_dir), ""
    except NotJoined:
        return None, "none"
    except (IdentityDamaged, OSError) as error:
        return None, str(error)


def _trusted(agent: AgentState | None, synchronised: bool) -> Callable[[], int | None]:
    """The time that certificates' dates are judged by."""
    if agent is not None and agent.clock_trusted:
        ahead = agent.wall_ms - _system_ms()
        return lambda: _system_ms() + ahead
    return _system_ms if synchronised else lambda: None


def _card(settings: KioskSettings, options: Options, agent: AgentState | None) -> list[Finding]:
    found = checks.judge_card(machine.card(_nearest(settings), options.sys))
    conditions = agent.conditions if agent is not None else ()
    if "store_damaged" in conditions:
        problem: str | None = "the agent has set a damaged one aside and begun anew"
    elif "disk_broken" in conditions:
        problem = "the agent cannot write to it"
    else:
        problem = machine.store_problem(settings.state_dir)
    return [*found, checks.judge_store(problem)]


def _nearest(settings: KioskSettings) -> Path:
    """The state folder, or what is to hold it."""
    folder = settings.state_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _line(
    settings: KioskSettings, options: Options, identity: Identity | None, problem: str, agent: AgentState | None,
    trusted_ms: Callable[[], int | None],
) -> list[Finding]:  # fmt: skip
    measured = line.measure(settings, identity, trusted_ms, options.said)
    off_by_ms = None if measured.hub_ms is None else measured.at_ms - measured.hub_ms
    clock = checks.judge_clock(
        synchronised=machine.synchronised(), trusted=None if agent is None else agent.clock_trusted,
        contradicted=agent is not None and agent.clock_wrong, off_by_ms=off_by_ms, not_before_ms=BUILT_MS,
        now_ms=_system_ms(),
    )  # fmt: skip
    oldest = None
    if agent is not None:
        oldest = max(0, agent.wall_ms - agent.unsent_since_ms) if agent.unsent_since_ms else 0
    member = line_checks.Membership(
        problem=problem,
        kiosk="" if identity is None else f"{identity.kiosk} ({identity.site})",
        days_left=None if identity is None else _days_left(identity, trusted_ms(), off_by_ms),
        oldest_unsent_ms=oldest,
    )
    return [clock, *line_checks.judge_line(measured.line), *line_checks.judge_hub(measured.line, member)]


def _days_left(identity: Identity, trusted_ms: int | None, off_by_ms: int | None) -> float | None:
    """By the best clock there is; None where the system's is plainly wrong."""
    now_ms = trusted_ms
    if off_by_ms is not None:
        now_ms = _system_ms() - off_by_ms
    if now_ms is None and _system_ms() >= identity.certificate.not_valid_before_utc.timestamp() * 1000:
        now_ms = _system_ms()
    return None if now_ms is None else (identity.expires_at.timestamp() * 1000 - now_ms) / _DAY_MS


def _board_of(agent: AgentState, hand: Hand) -> list[Finding]:
    stuck = 30.0 if "button_stuck" in agent.conditions else agent.button_down_s
    return checks.judge_board(agent.board, stuck, agent.has_button, agent.has_lamp, hand)


def _board(settings: KioskSettings, options: Options, visit: Visit | None, agent: AgentState | None) -> list[Finding]:
    if agent is not None and visit is not None:
        return _board_of(agent, _asked_through(visit, agent, options.asker))
    if settings.devices.board == "none":
        return checks.judge_board("", 0.0, False, False, Hand())
    try:
        board = _open_board(settings)
    except HardwareError as error:
        return checks.judge_board(str(error), 0.0, True, True, Hand())
    try:
        return _asked_here(board, options.asker)
    finally:
        board.close()


def _asked_through(visit: Visit, agent: AgentState, asker: Asker | None) -> Hand:
    """The agent holds the board."""
    if asker is None:
        return Hand()
    pressed = saw = None
    try:
        if agent.has_button:
            pressed = False
            if visit.ask(Asks("press", light=Light.CALLING.value)).lent:
                asker.press_now()
                with contextlib.suppress(TimeoutError):
                    pressed = visit.hear(PRESS_S).pressed
        if agent.has_lamp and visit.ask(Asks("light", light=Light.LIVE.value)).lent:
            saw = asker.saw_lamp()
    except (AgentAway, TimeoutError):
        return Hand()
    return Hand(pressed, saw)


def _asked_here(board: Board, asker: Asker | None) -> list[Finding]:
    felt = threading.Event()
    states: list[tuple[bool, float]] = []

    def changed(pressed: bool, at: float) -> None:
        states.append((pressed, at))
        if pressed and len(states) > 1:
            felt.set()

    held_s, pressed, saw = 0.0, None, None
    if board.has_button:
        board.watch_button(changed)
        if states and states[0][0]:  # down already: wait whether it comes up
            began = time.monotonic()
            while time.monotonic() - began < checks.STUCK_S and len(states) == 1:
                time.sleep(0.05)
            held_s = time.monotonic() - began if len(states) == 1 else 0.0
        if asker is not None:
            board.show(Light.CALLING)
            asker.press_now()
            pressed = felt.wait(PRESS_S)
    if board.has_lamp and asker is not None:
        board.show(Light.LIVE)
        saw = asker.saw_lamp()
    return checks.judge_board("", held_s, board.has_button, board.has_lamp, Hand(pressed, saw))


def _open_board(settings: KioskSettings) -> Board:
    section = settings.devices
    return open_board(
        section.board, button_gpio=section.button_gpio, lamp_red_gpio=section.lamp_red_gpio,
        lamp_green_gpio=section.lamp_green_gpio, lamp_blue_gpio=section.lamp_blue_gpio,
    )  # fmt: skip


def _system_ms() -> int:
    return time.time_ns() // 1_000_000
