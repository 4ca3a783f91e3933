"""The kiosk's configuration: one TOML file, working defaults for everything.

Read by `teleconsult agent` and `teleconsult media`; `teleconsult config` prints the effective one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edge_agent.core.settings import Secret, SettingsError, load

Kbps = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]


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
    return load(text, str(path), KioskSettings)
