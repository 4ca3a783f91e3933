"""The kiosk's configuration: one TOML file, working defaults for everything.

Read by `teleconsult agent` and `teleconsult media`; `teleconsult config` prints the effective one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from edge_agent.core.metered import MB, Hours, Plan
from edge_agent.core.outbox import Priority
from edge_agent.core.settings import Secret, SettingsError, load
from edge_agent.core.wire import MAX_CURRENCY

Kbps = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]
Megabytes = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]
Price = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]
HOURS = r"^$|^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class KioskSection(_Section, frozen=True):
    """Who it is comes with `teleconsult join` and is kept in the state folder, see `edge_agent.identity`."""

    state_dir: str = "~/.local/state/teleconsult"
    language: str = "en"
    languages: tuple[str, ...] = ("en", "fr", "sw")
    worker_pin_hash: Secret = ""  # from `teleconsult config set-pin`; empty: no worker's face
    prompts_dir: str = ""  # recorded prompts, <dir>/<language>/<name>.wav, in place of the spoken ones
    emergency_instruction: str = ""  # the clinic's own, shown and spoken when nobody can be reached


class DevicesSection(_Section, frozen=True):
    """Each opened by name, see `hardware.devices`."""

    camera: str = "auto"  # auto | none | synthetic | device:<number, path or name> | file:<video>
    microphone: str = "auto"  # auto | none | synthetic | device:<name> | wav:<file>
    speaker: str = "auto"  # auto | none | null | device:<name> | wav:<file that is written>
    board: str = "auto"  # auto | none | gpio | simulated
    button_gpio: int = 17  # BCM numbers; -1: not wired. A lamp of one colour has just one of the three
    lamp_red_gpio: int = 22
    lamp_green_gpio: int = 23
    lamp_blue_gpio: int = 24
    camera_width: Annotated[int, msgspec.Meta(ge=160, le=2560)] = 640
    camera_height: Annotated[int, msgspec.Meta(ge=120, le=1920)] = 480
    camera_rate: Annotated[float, msgspec.Meta(gt=0, le=60)] = 15.0


class SoundSection(_Section, frozen=True):
    # Who takes the doctor's voice out of the microphone's sound, and noise with it. software: the kiosk, for sound
    # cards; device: a speakerphone or sound server does it by itself; none: a headset, or nobody.
    echo: Literal["software", "device", "none"] = "software"


class HubSection(_Section, frozen=True):
    address: str = ""  # HOST:PORT; empty: where this kiosk has joined. For a hub that has moved


class BrokerSection(_Section, frozen=True):
    """Where it is comes with `teleconsult join`; given here, it has moved."""

    host: str = ""
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=1200)] = 30


class CallSection(_Section, frozen=True):
    ring_timeout_s: Seconds = 60.0  # nobody answers: a message is offered
    claim_timeout_s: Seconds = 45.0  # claimed, yet no talk: it is treated as unanswered
    reconnect_timeout_s: Seconds = 60.0  # a broken line becomes a message after this
    hub_reply_timeout_s: Seconds = 8.0  # a press the hub does not confirm leads to the message
    ended_screen_s: Seconds = 8.0
    draft_idle_s: Seconds = 180.0  # a draft left alone is saved with what it has
    max_voice_note_s: Seconds = 120.0


class LinkSection(_Section, frozen=True):
    """What the clinic's link carries, where that is known; 0: the kit's own guess."""

    up_kbps: Kbps = 0
    down_kbps: Kbps = 0


class BudgetSection(_Section, frozen=True):
    """A link that is paid for by the byte, see `edge_agent.core.metered`; 0: no limit, no price."""

    day_mb: Megabytes = 0.0  # a megabyte is a million bytes
    month_mb: Megabytes = 0.0
    price_per_mb: Price = 0.0
    cheap_price_per_mb: Price | None = None  # in the cheap hours; the same where it is left out
    currency: Annotated[str, msgspec.Meta(max_length=MAX_CURRENCY)] = ""
    cheap_hours: Annotated[str, msgspec.Meta(pattern=HOURS)] = ""  # as "22:00-06:00": what is held waits for them
    cheap_hours_hold: Literal["photos", "media"] = "photos"  # media: voice notes and small pictures too
    time_zone: str = ""  # as in "Africa/Nairobi"; empty: the machine's

    @property
    def plan(self) -> Plan:
        cheap = None
        if self.cheap_hours:
            start, end = (int(part[:2]) * 60 + int(part[3:]) for part in self.cheap_hours.split("-"))
            cheap = Hours(start, end)
        return Plan(
            day_bytes=round(self.day_mb * MB),
            month_bytes=round(self.month_mb * MB),
            price_per_mb=self.price_per_mb,
            cheap_price_per_mb=self.price_per_mb if self.cheap_price_per_mb is None else self.cheap_price_per_mb,
            cheap=cheap,
            held_from=Priority.PHOTO if self.cheap_hours_hold == "photos" else Priority.VOICE,
        )


class ScreenSection(_Section, frozen=True):
    host: Literal["127.0.0.1", "::1"] = "127.0.0.1"  # patients' data: never beyond the device
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8480  # 0: any free one
    worker_lock_s: Seconds = 120.0


class UpdateSection(_Section, frozen=True):
    """New releases, which the hub offers this kiosk; a technician's stick needs none of it."""

    from_hub: bool = True
    day_mb: Annotated[float, msgspec.Meta(ge=0, le=100_000)] = 20.0  # of the line, a day; 0: none


class LogSection(_Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"


class KioskSettings(_Section, frozen=True):
    kiosk: KioskSection = KioskSection()
    devices: DevicesSection = DevicesSection()
    sound: SoundSection = SoundSection()
    hub: HubSection = HubSection()
    broker: BrokerSection = BrokerSection()
    call: CallSection = CallSection()
    link: LinkSection = LinkSection()
    budget: BudgetSection = BudgetSection()
    screen: ScreenSection = ScreenSection()
    update: UpdateSection = UpdateSection()
    log: LogSection = LogSection()

    @property
    def state_dir(self) -> Path:
        return Path(self.kiosk.state_dir).expanduser()

    @property
    def identity_dir(self) -> Path:
        return self.state_dir / "identity"


def read_kiosk_settings(path: Path | None) -> KioskSettings:
    """Defaults where there is no path. Raises SettingsError."""
    if path is None:
        return KioskSettings()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from None
    settings = load(text, str(path), KioskSettings)
    _check_budget(settings.budget, str(path))
    return settings


def _check_budget(budget: BudgetSection, source: str) -> None:
    """What the schema cannot say. Raises SettingsError."""
    start, _, end = budget.cheap_hours.partition("-")
    if start and start == end:
        raise SettingsError(f"{source}: budget.cheap_hours: found {budget.cheap_hours!r}; they begin when they end")
    if budget.day_mb and budget.month_mb and budget.day_mb > budget.month_mb:
        raise SettingsError(
            f"{source}: budget.day_mb: found {budget.day_mb:g}; a day may not have more than the month,"
            f" budget.month_mb = {budget.month_mb:g}"
        )
    try:
        ZoneInfo(budget.time_zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SettingsError(
            f"{source}: budget.time_zone: found {budget.time_zone!r}; expected a name of the time zone database,"
            " such as 'Africa/Nairobi'"
        ) from None
