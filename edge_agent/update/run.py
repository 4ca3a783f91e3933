"""One run of an update: asks what is known, does the next step, until there is none.

Killed anywhere, the next run goes on. It is the good release's code, also while another is on trial.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from edge_agent.core.release import Content, Keys, Machine, ReleaseError
from edge_agent.core.updating import Agent, Known, allowance, next_step
from edge_agent.door import AgentAway, Visit, door_path
from edge_agent.update.environment import build
from edge_agent.update.installed import Builds, Installed, State
from edge_agent.update.sources import HEADERS_BYTES, QUESTION_BYTES, Offered, Source

POLL_S = 1.0
RESTART_S = 150.0  # TimeoutStartSec= of the agent, and its stop
KEPT_EVERY_BYTES = 256 * 1024  # of what was spent, on disk: the card is spared


def this_machine() -> Machine:
    return Machine(platform.machine(), f"{sys.version_info.major}.{sys.version_info.minor}")


def ask_agent(state_dir: Path) -> Agent | None:
    try:
        with Visit(door_path(state_dir)) as visit:
            state = visit.state()
    except (AgentAway, TimeoutError):
        return None
    return Agent(state.quiet, state.broker_up, state.media_up, state.version)


def systemctl(*words: str) -> None:
    """To start the agent returns when it says that it is ready, or does not become so."""
    subprocess.run(["systemctl", *words], check=False, timeout=RESTART_S, stdin=subprocess.DEVNULL)


class Update:
    def __init__(
        self,
        installed: Installed,
        source: Source,
        ask: Callable[[], Agent | None],
        day_bytes: int,
        said: Callable[[str], None],
        systemctl: Callable[..., None] = systemctl,
        build: Builds = build,
        wall: Callable[[], float] = time.time,
        mono: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._installed, self._source, self._ask = installed, source, ask
        self._day_bytes, self._said, self._systemctl, self._build = day_bytes, said, systemctl, build
        self._wall, self._mono, self._pause = wall, mono, pause
        self._offered: Offered | None = None
        self._wanted: dict[str, Content] = {}
        self._machine = this_machine()
        self._trial_began = mono()
        self._state = State()
        self._unkept_bytes = 0
        self._well = True

    def check(self, keys: Keys) -> Offered | None:
        """What there is. Raises ReleaseError, OSError."""
        return self._source.look(keys, self._installed.current)

    def run(self, first_keys: Keys | None) -> bool:
        """Whether all is well: nothing to do, or done. `first_keys` are pinned where none are. Raises ReleaseError,
        OSError; what has been done so far stays."""
        with self._installed.alone():
            self._state = self._installed.state()
            if not self._installed.current:
                raise ReleaseError(
                    f"no release is installed in {self._installed.root}; its package or scripts/provision does that"
                )
            try:
                while self._installed.current != self._installed.good:  # of a run that was cut
                    if not self._step():
                        return False
                self._look(first_keys)
                while self._step():
                    pass
                return self._well
            finally:
                self._installed.keep(self._state)

    def _look(self, first_keys: Keys | None) -> None:
        keys = self._installed.keys()
        if keys is None:
            if first_keys is None:
                raise ReleaseError(
                    "this kiosk knows no release key, so it believes no release: join it to a hub that has one "
                    "(teleconsult hub release trust), or give --keys FILE"
                )
            keys = first_keys
            self._installed.pin(keys)
        if not self._source.by_hand:
            self.spent(QUESTION_BYTES)
        self._offered = self._source.look(keys, self._installed.current)
        if self._offered is None:
            return
        if self._offered.keys != keys:
            self._installed.pin(self._offered.keys)
            self._said(f"release key {self._offered.keys.signing[:8]}… takes over, as it was announced")
        manifest = self._offered.manifest
        if self._state.version != manifest.version or self._source.by_hand:
            self._state.version, self._state.tries = manifest.version, 0
        self._wanted = manifest.wanted(self._machine)
        if not self._installed.is_complete(manifest.version):
            self._installed.make_room(manifest.version, self._wanted)

    def _step(self) -> bool:
        """Whether it goes on at once."""
        installed, offered = self._installed, self._offered
        step = next_step(self._known())
        if step.why:
            self._said(step.why)
        match step.do:
            case "nothing":
                self._well = self._state.tries == 0
                return False
            case "fetch":
                assert offered is not None  # noqa: S101
                missing = installed.missing(self._wanted)
                sizes = [sum(content.size for content in each.values()) for each in (missing, self._wanted)]
                self._said(
                    f"release {offered.manifest.version}: {len(missing)} of {len(self._wanted)} files are new, "
                    f"{sizes[0]:,} of {sizes[1]:,} bytes before packing"
                )
                if not self._source.fetch(missing, installed, self):
                    self._said("it goes on at the next run")
                    return False
            case "prepare":
                assert offered is not None  # noqa: S101
                self._said(f"release {offered.manifest.version} is made ready")
                try:
                    installed.prepare(offered.manifest.version, self._wanted, offered.signed, self._build)
                except ReleaseError:
                    self._tried()
                    raise
            case "switch":
                assert offered is not None  # noqa: S101
                self._tried()  # before: what takes the kiosk down is not tried for ever
                self._said(f"release {offered.manifest.version} takes over from {installed.current}, on trial")
                installed.switch(offered.manifest.version)
                self._trial_began = self._mono()
                self._restart()
            case "watch":
                self._pause(POLL_S)
            case "confirm":
                installed.confirm()
                self._state.tries = 0
                # A hub on the same machine takes no part in a trial, nor runs from a release that is thrown away later.
                self._systemctl("try-restart", "teleconsult-hub.service")
                self._said(f"release {installed.current} is well, and good from now on")
            case "go_back":
                installed.go_back()
                self._restart()
                self._said(f"release {installed.current} runs again")
                self._well = False
                return False
        return True

    def _restart(self) -> None:
        self._systemctl("restart", "teleconsult-agent.service")
        self._systemctl("try-restart", "teleconsult-screen.service")  # its pages are of the other release

    def _tried(self) -> None:
        self._state.tries, self._state.tried_at = self._state.tries + 1, self._wall()
        self._installed.keep(self._state)

    def _known(self) -> Known:
        installed, offered, state = self._installed, self._offered, self._state
        current, good = installed.current, installed.good
        base = Known(current, good, self._ask(), trial_s=self._mono() - self._trial_began, by_hand=self._source.by_hand)
        if offered is None or current != good:
            return base
        prepared = installed.is_complete(offered.manifest.version)
        return Known(
            current, good, base.agent, offered.manifest.version, base.by_hand,
            has_files=prepared or not installed.missing(self._wanted), prepared=prepared, tries=state.tries,
            since_try_s=self._wall() - state.tried_at, may_fetch_bytes=self._left(),
        )  # fmt: skip

    # --- the gate of what is fetched

    def may_go(self) -> bool:
        agent = self._ask()
        if agent is not None and not agent.quiet:
            self._said("somebody uses the kiosk")
            return False
        if self._left() < HEADERS_BYTES:
            self._said("today's bytes for updates are used up")
            return False
        return True

    def spent(self, size_bytes: int) -> None:
        today = self._today()
        if self._state.spent_on != today:
            self._state.spent_on, self._state.spent_bytes = today, 0
        self._state.spent_bytes += size_bytes
        self._unkept_bytes += size_bytes
        if self._unkept_bytes >= KEPT_EVERY_BYTES:
            self._installed.keep(self._state)
            self._unkept_bytes = 0

    def _left(self) -> int:
        return allowance(self._day_bytes, self._state.spent_on, self._state.spent_bytes, self._today())

    def _today(self) -> int:
        return int(self._wall() // 86_400)
