"""The machine under the kiosk: power, heat, memory, card, store, clock, services. Each probe takes a second at most but
the writes to a slow card, and raises nothing for what this machine does not have."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from edge_agent.core.checks import Card
from edge_agent.storage import store_key
from edge_agent.storage.database import look_for_damage

FSYNCS, FSYNC_BYTES = 20, 4096
STORE_S = 4.0
STORE_FILE = "store/kiosk.db"
FSYNCS_S = 3.0  # no longer, however slow the card is
UNITS = (
    "teleconsult-agent.service", "teleconsult-screen.service", "teleconsult-hub.service", "teleconsult-broker.service",
)  # fmt: skip

_THROTTLED = Path("devices/platform/soc/soc:firmware/get_throttled")
_ST_RDONLY = 1
_TIME_ERROR = 5  # adjtimex(2)


def throttled(sys: Path = Path("/sys")) -> int | None:
    """The firmware's bits, of a Raspberry Pi."""
    try:
        return int((sys / _THROTTLED).read_text(), 16)
    except (OSError, ValueError):
        pass
    if (tool := shutil.which("vcgencmd")) is None:
        return None
    said = _said([tool, "get_throttled"])
    try:
        return int(said.partition("=")[2], 16)
    except ValueError:
        return None


def celsius(sys: Path = Path("/sys")) -> float | None:
    """The hottest of what the kernel calls a processor's or the whole machine's."""
    found = []
    for zone in sorted((sys / "class/thermal").glob("thermal_zone*")):
        try:
            kind, degrees = (zone / "type").read_text(), int((zone / "temp").read_text()) / 1000
        except (OSError, ValueError):
            continue
        if any(word in kind for word in ("cpu", "soc", "pkg", "acpitz")) and 0 < degrees < 150:
            found.append(degrees)
    return max(found, default=None)


def available_bytes(proc: Path = Path("/proc")) -> int | None:
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def card(folder: Path, sys: Path = Path("/sys")) -> Card:
    """Of the file system that holds the kiosk's state folder, which is written to and left as it was."""
    free, read_only, problem, times = None, False, "", []
    try:
        state = os.statvfs(folder)
        free, read_only = state.f_bavail * state.f_frsize, bool(state.f_flag & _ST_RDONLY)
    except OSError as error:
        problem = f"{folder}: {error.strerror}"
    if not problem and not read_only:
        try:
            times = list(_fsyncs_ms(folder))
        except OSError as error:
            problem = f"{folder}: {error.strerror}"
    life, pre_eol = _wear(folder, sys)
    return Card(free, read_only, problem, times, life, pre_eol)


def _fsyncs_ms(folder: Path) -> Iterator[float]:
    path, until = folder / f".selftest-{os.getpid()}", time.monotonic() + FSYNCS_S
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.unlink(path)  # whatever happens, nothing is left behind
        for _ in range(FSYNCS):
            began = time.monotonic()
            os.write(descriptor, bytes(FSYNC_BYTES))
            os.fsync(descriptor)
            yield (time.monotonic() - began) * 1000
            if time.monotonic() > until:
                return
    finally:
        os.close(descriptor)


def _wear(folder: Path, sys: Path) -> tuple[tuple[int, ...], int]:
    """What an eMMC, or an SD card that says it, tells of its life (kernel: Documentation/ABI/testing/sysfs-mmc)."""
    try:
        number = os.stat(folder).st_dev
        block = (sys / f"dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    except OSError:
        return (), 0
    for holder in (block, block.parent):  # a partition's device is its disk
        try:
            life = tuple(int(word, 16) for word in (holder / "device/life_time").read_text().split())
            return life, int((holder / "device/pre_eol_info").read_text(), 16)
        except (OSError, ValueError):
            continue
    return (), 0


def store_problem(state_dir: Path) -> str | None:
    """Empty where it is whole; None where that cannot be told: there is none, its key is not ours to read, or it is
    busy, or too large for now."""
    try:
        key = store_key.read_key(state_dir)
    except OSError:
        return None
    return look_for_damage(state_dir / STORE_FILE, key, STORE_S)


def synchronised() -> bool:
    """Whether the operating system says that its clock is set."""
    try:
        state: int = ctypes.CDLL(None).adjtimex(
            ctypes.create_string_buffer(256)
        )  # longer than struct timex; asks alone
    except (OSError, AttributeError):
        return False
    return 0 <= state != _TIME_ERROR


def units() -> list[tuple[str, str]]:
    """Those of ours that are enabled or running, with their states. Empty without systemd."""
    if shutil.which("systemctl") is None or not Path("/run/systemd/system").is_dir():
        return []
    found = []
    for unit in UNITS:
        said = _said(["systemctl", "show", unit, "--property=LoadState,ActiveState,UnitFileState"])
        state = dict(line.partition("=")[::2] for line in said.splitlines())
        wanted = state.get("UnitFileState") == "enabled" or state.get("ActiveState") not in ("inactive", None)
        if state.get("LoadState") == "loaded" and wanted:
            found.append((unit, state.get("ActiveState", "unknown")))
    return found


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=3, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
