"""A self-test's judgements on the kiosk itself: what was measured becomes findings. Pure.

`edge_agent.selftest` measures; of the line and the hub judges `edge_agent.core.line_checks`.

None means that it could not be measured here, which is no fault. The limits are given where they are used, with their
reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.core.findings import Finding, Group, failed, passed, untested, warned

# --- power, heat and memory

# Of the Raspberry Pi's firmware, `vcgencmd get_throttled`: bits 0 to 3 now, 16 to 19 since the start.
_UNDER_VOLTAGE, _CAPPED, _THROTTLED, _SOFT_LIMIT = 1, 2, 4, 8
_SINCE_START = 16

WARM_C, HOT_C = 75.0, 84.0  # a Pi slows down from 80, and hard from 85
LEAST_MEMORY_BYTES = 60 * 1024 * 1024  # a call takes some 40 MB more


def judge_power(throttled: int | None) -> Finding:
    if throttled is None:
        return untested("power", Group.POWER, "this machine does not say how its voltage is")
    if throttled & _UNDER_VOLTAGE:
        return failed("power", "under_voltage", f"the voltage is too low now (0x{throttled:x})")
    if throttled & (_UNDER_VOLTAGE << _SINCE_START):
        return warned("power", "under_voltage_once", f"the voltage has dropped since the start (0x{throttled:x})")
    return passed("power", Group.POWER, f"voltage good since the start (0x{throttled:x})")


def judge_heat(celsius: float | None, throttled: int | None) -> Finding:
    slowed = throttled is not None and bool(throttled & (_CAPPED | _THROTTLED | _SOFT_LIMIT))
    slowed = slowed and not (throttled or 0) & _UNDER_VOLTAGE  # that slows down too
    if celsius is None and not slowed:
        return untested("heat", Group.POWER, "this machine has no thermometer")
    says = "slowed down by heat" if celsius is None else f"{celsius:.0f} °C"
    if slowed or (celsius is not None and celsius >= HOT_C):
        return failed("heat", "too_hot", says)
    if celsius is not None and celsius >= WARM_C:
        return warned("heat", "warm", says)
    return passed("heat", Group.POWER, says)


def judge_memory(available_bytes: int | None) -> Finding:
    if available_bytes is None:
        return untested("memory", Group.POWER, "this machine does not say")
    says = f"{available_bytes // 2**20} MiB free"
    if available_bytes < LEAST_MEMORY_BYTES:
        return failed("memory", "memory_short", says)
    return passed("memory", Group.POWER, says)


# --- the card

FULL_BYTES = 16 * 1024 * 1024  # where the store takes no file any more
LOW_BYTES = 200 * 1024 * 1024
SLOW_FSYNC_MS = 500.0  # a press is felt before the disk, but a saved message waits for it
_ENDED_LIFE, _NEARLY = 11, 9  # JEDEC eMMC 5.1, EXT_CSD 268: tenths of its life used, 11 for more than all
_PRE_EOL_URGENT, _PRE_EOL_WARNING = 3, 2  # EXT_CSD 267: reserve blocks


@dataclass(frozen=True, slots=True)
class Card:
    free_bytes: int | None = None
    read_only: bool = False
    write_error: str = ""  # what a write and fsync failed with
    fsyncs_ms: Sequence[float] = ()
    life_tenths: Sequence[int] = ()  # type A and B; 0: it does not say
    pre_eol: int = 0


def judge_card(card: Card) -> list[Finding]:
    return [_space(card), _writing(card), _wear(card)]


def _space(card: Card) -> Finding:
    if card.free_bytes is None:
        return untested("disk space", Group.STORAGE, "the file system does not say")
    says = f"{card.free_bytes // 2**20} MiB free"
    if card.free_bytes < FULL_BYTES:
        return failed("disk space", "disk_full", says)
    if card.free_bytes < LOW_BYTES:
        return warned("disk space", "disk_low", says)
    return passed("disk space", Group.STORAGE, says)


def _writing(card: Card) -> Finding:
    if card.read_only:
        return failed("disk writing", "card_read_only", "the state folder is read-only")
    if card.write_error:
        full = card.free_bytes is not None and card.free_bytes < FULL_BYTES
        return failed("disk writing", "disk_full" if full else "card_read_only", card.write_error)
    if not card.fsyncs_ms:
        return untested("disk writing", Group.STORAGE, "nothing was written")
    p99 = float(np.percentile(np.asarray(card.fsyncs_ms), 99))
    says = f"{len(card.fsyncs_ms)} writes, the slowest hundredth over {p99:.0f} ms"
    return (
        warned("disk writing", "card_slow", says)
        if p99 > SLOW_FSYNC_MS
        else passed("disk writing", Group.STORAGE, says)
    )


def _wear(card: Card) -> Finding:
    life = max(card.life_tenths, default=0)
    if not life and not card.pre_eol:
        return untested("disk wear", Group.STORAGE, "the card does not say")
    says = f"up to {min(life, 10) * 10} % of its life used, reserve {card.pre_eol or 'unknown'}"
    if life >= _ENDED_LIFE or card.pre_eol >= _PRE_EOL_URGENT:
        return failed("disk wear", "card_worn", says)
    if life >= _NEARLY or card.pre_eol == _PRE_EOL_WARNING:
        return warned("disk wear", "card_wearing", says)
    return passed("disk wear", Group.STORAGE, says)


def judge_store(problem: str | None) -> Finding:
    """`problem`: "" for a store that was read through without one, None where there is none yet."""
    if problem is None:
        return untested("store", Group.STORAGE, "there is none yet")
    return failed("store", "store_damaged", problem) if problem else passed("store", Group.STORAGE, "whole")


# --- the camera

_DARKEST_MEAN, _DARKEST_SPREAD = 14.0, 4.0  # of 255: a covered lens; a dim room has lights and edges in it
SHARP_ENOUGH = 12.0  # variance of the Laplacian at 320 wide: print out of focus has 3 to 8, a face in focus 40 and more


def judge_camera(pictures: Sequence[NDArray[np.uint8]]) -> list[Finding]:
    """`pictures`: (height, width, 3), one after the other as they came, at least three."""
    grey = [_small_grey(picture) for picture in pictures]
    height, width = pictures[0].shape[:2]
    last = grey[-1]
    mean, spread, sharp = float(last.mean()), float(last.std()), sharpness(last)
    says = f"{width}×{height}, brightness {mean:.0f}, sharpness {sharp:.0f}"
    if mean < _DARKEST_MEAN and spread < _DARKEST_SPREAD:
        return [failed("camera", "camera_black", says)]
    if all(np.array_equal(picture, pictures[0]) for picture in pictures[1:]):  # a sensor's noise never repeats
        return [failed("camera", "camera_frozen", f"{says}; {len(pictures)} times the same to the last bit")]
    if sharp < SHARP_ENOUGH:
        return [warned("camera", "camera_blurred", says)]
    return [passed("camera", Group.CAMERA, says)]


def sharpness(grey: NDArray[np.float32]) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000)."""
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return float(laplacian.var())


def _small_grey(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Some 320 wide, by averaging: noise would pass for sharpness otherwise."""
    grey = picture.astype(np.float32).mean(axis=2)
    by = max(1, round(grey.shape[1] / 320))
    height, width = grey.shape[0] // by * by, grey.shape[1] // by * by
    blocks = grey[:height, :width].reshape(height // by, by, width // by, by)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


# --- the clock

WRONG_CLOCK_MS = 120_000


def judge_clock(
    *,
    synchronised: bool,
    trusted: bool | None,
    contradicted: bool,
    off_by_ms: int | None,
    not_before_ms: int,
    now_ms: int,
) -> Finding:
    """`off_by_ms`: this clock less the hub's, as told over TLS. `trusted` and `contradicted` are the agent's, which
    goes by the hub's signed time; None where it does not run. `not_before_ms`: when this release was made."""
    if off_by_ms is not None and abs(off_by_ms) > WRONG_CLOCK_MS:
        says = f"{_long(off_by_ms)} {'before' if off_by_ms > 0 else 'behind'} the hub's"
        if trusted:  # by the hub's own time
            return warned("clock", "clock_wrong", f"the system's is {says}; the kiosk goes by the hub's")
        return failed("clock", "clock_wrong", says)
    if contradicted:
        return failed("clock", "clock_wrong", "the hub's time and the system's do not fit together")
    if now_ms < not_before_ms and not trusted:
        return failed("clock", "clock_wrong", "it says a time before this release was made")
    if off_by_ms is not None:
        return passed("clock", Group.CLOCK, f"the hub's, to {abs(off_by_ms) / 1000:.1f} s")
    if trusted or synchronised:
        return passed("clock", Group.CLOCK, "set by the network" if synchronised else "set by the hub")
    return warned("clock", "clock_untrusted", "nobody has set it since the start")


def _long(off_by_ms: int) -> str:
    seconds = abs(off_by_ms) / 1000
    return f"{seconds / 86400:.0f} days" if seconds > 2 * 86400 else f"{seconds / 60:.0f} minutes"


# --- button and lamp


STUCK_S = 5.0  # longer than a hand that happens to be there


@dataclass(frozen=True, slots=True)
class Hand:
    """What was asked of whoever stands there; None: nobody was asked."""

    pressed: bool | None = None
    saw_lamp: bool | None = None


def judge_board(problem: str, held_s: float, has_button: bool, has_lamp: bool, hand: Hand) -> list[Finding]:
    """`problem`: why the board cannot be used. `held_s`: how long the button has been down, watched all the while."""
    if problem:
        return [failed("button", "board_missing", problem)]
    if not has_button:
        button = untested("button", Group.BUTTON, "none is wired")
    elif held_s >= STUCK_S and not hand.pressed:
        button = failed("button", "button_stuck", f"down for {held_s:.0f} s, and nobody was asked to press it")
    elif hand.pressed is False:
        button = failed("button", "button_not_felt", "asked for, and not felt")
    else:
        button = passed("button", Group.BUTTON, "pressed and felt" if hand.pressed else "up")
    if not has_lamp:
        lamp = untested("lamp", Group.BUTTON, "none is wired")
    elif hand.saw_lamp is None:
        lamp = untested("lamp", Group.BUTTON, "nobody was asked whether it lights")
    else:
        lamp = (
            passed("lamp", Group.BUTTON, "seen")
            if hand.saw_lamp
            else failed("lamp", "lamp_not_seen", "lit, and not seen")
        )
    return [button, lamp]


# --- the kiosk's programs


@dataclass(frozen=True, slots=True)
class Programs:
    """`agent`: whether it answered. `units` by name as `systemctl is-active` says, empty where there is no systemd."""

    agent: bool
    media: bool | None = None
    configuration: str = ""  # what is wrong with it
    units: Sequence[tuple[str, str]] = ()


_WELL = ("active", "activating", "reloading")


def judge_programs(programs: Programs) -> list[Finding]:
    units = dict(programs.units)
    screen = units.pop("teleconsult-screen.service", "")
    found = []
    if programs.configuration:
        found.append(failed("configuration", "configuration_wrong", programs.configuration))
    else:
        found.append(passed("configuration", Group.SOFTWARE, "right"))
    if not programs.agent:
        found.append(failed("agent", "agent_down", "it does not answer"))
    elif programs.media is False:
        found.append(failed("agent", "media_down", "it answers, without sound and picture"))
    else:
        found.append(passed("agent", Group.SOFTWARE, "answers"))
    down = [f"{name} {state}" for name, state in units.items() if state not in _WELL]
    if not programs.units:
        found.append(untested("services", Group.SOFTWARE, "systemd does not run them here"))
    elif down:
        found.append(failed("services", "unit_failed", ", ".join(down)))
    else:
        found.append(passed("services", Group.SOFTWARE, f"{len(units)} run"))
    if screen:
        well = screen in _WELL
        found.append(
            passed("screen", Group.SOFTWARE, "runs") if well else warned("screen", "screen_down", f"it is {screen}")
        )
    return found
