"""The hub's configuration: one TOML file, working defaults for everything.

Out of the box it serves one machine: SQLite in the data directory, HTTP and broker on loopback. Where `listen.host` is
beyond loopback the hub serves HTTPS, with the certificate named here or one of its own CA.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import msgspec

from edge_agent.core.settings import Secret, SettingsError, load

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]
Bytes = Annotated[int, msgspec.Meta(ge=1, le=2**32)]


_PLACE = r"[A-Za-z0-9.-]+(:\d{1,5})?"
_STUN_URL = re.compile("stun:" + _PLACE)
_TURN_URL = re.compile(r"(turn:{0}(\?transport=(udp|tcp))?|turns:{0}(\?transport=tcp)?)".replace("{0}", _PLACE))


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class SiteSection(_Section, frozen=True):
    """The place the doctors work at."""

    name: str = "Teleconsult"
    time_zone: str = "UTC"  # as in "Africa/Nairobi": the clock that "back at hh:mm" is read by


class StoreSection(_Section, frozen=True):
    data_dir: str = "~/.local/share/teleconsult-hub"  # files, keys, and the database unless named below
    database_url: Secret = ""  # of SQLAlchemy; empty: SQLite in the data directory
    max_file_bytes: Bytes = 64 * 1024 * 1024  # a larger one is refused at its manifest
    max_reply_bytes: Bytes = 8 * 1024 * 1024  # a doctor's voice reply


class ListenSection(_Section, frozen=True):
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8443  # 0: any free one
    names: tuple[str, ...] = ()  # host names and addresses by which browsers and kiosks reach the hub
    tls_cert: str = ""  # PEM with its chain; empty: the hub's own CA signs one where one is needed
    tls_key: str = ""


class BrokerSection(_Section, frozen=True):
    """How the hub's process reaches the broker, and what the broker's generated configuration says."""

    host: str = "127.0.0.1"
    port: Port = 1883
    ca_file: str = ""  # PEM; empty: plain TCP, which is refused beyond loopback
    username: str = "_hub"  # not a valid kiosk id, so that no kiosk can have it
    password_file: str = ""  # empty: `<data dir>/broker/hub.password`, made at first start
    config_dir: str = ""  # where mosquitto's configuration is written; empty: `<data dir>/broker`
    listen_host: Annotated[str, msgspec.Meta(min_length=1)] = "127.0.0.1"  # where kiosks connect, with TLS
    listen_port: Port = 8883
    kiosk_host: str = ""  # what a joining kiosk is told; empty: the first of `listen.names`, else `listen_host`
    process: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,20}$")] = "1"  # one name a hub process


class AuthoritySection(_Section, frozen=True):
    """The hub's own CA. Its key wants a passphrase, see `hub.keys`."""

    plain_key: bool = False  # true: without one, where nobody can take the disk


class DoctorsSection(_Section, frozen=True):
    session_s: Annotated[float, msgspec.Meta(gt=0, le=30 * 86400)] = 12 * 3600.0  # then everybody signs in again
    idle_s: Annotated[float, msgspec.Meta(ge=120, le=86400)] = 3600.0  # without use; an open doctor's page is use
    first_account: str = "doctor"  # made at first start, its password printed once
    audio_processing: bool = True  # the browser's echo cancellation, noise suppression and gain


class RingSection(_Section, frozen=True):
    everyone_after_s: Seconds = 30.0  # an emergency nobody has taken rings every doctor
    give_up_s: Seconds = 300.0  # a call nobody took and whose kiosk says nothing is over
    kiosk_ring_s: Seconds = 60.0  # a doctor rings a kiosk for this long
    gone_s: Seconds = 60.0  # a doctor's page or a kiosk may be away for this long in a call


class IceSection(_Section, frozen=True):
    """None are needed on a LAN. TURN credentials are made for each call and expire (draft-uberti-behave-turn-rest).
    UDP is tried first, then TCP, then TLS, which wants a certificate that browsers and kiosks trust."""

    stun_urls: tuple[str, ...] = ()
    turn_urls: tuple[str, ...] = ()
    turn_secret: Secret = ""  # coturn's `static-auth-secret`
    turn_ttl_s: Seconds = 6 * 3600.0


class LogSection(_Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"


class HubSettings(_Section, frozen=True):
    site: SiteSection = SiteSection()
    store: StoreSection = StoreSection()
    listen: ListenSection = ListenSection()
    broker: BrokerSection = BrokerSection()
    authority: AuthoritySection = AuthoritySection()
    doctors: DoctorsSection = DoctorsSection()
    ring: RingSection = RingSection()
    ice: IceSection = IceSection()
    log: LogSection = LogSection()

    @property
    def data_dir(self) -> Path:
        return Path(self.store.data_dir).expanduser()

    @property
    def database_url(self) -> str:
        return self.store.database_url or f"sqlite:///{self.data_dir / 'hub.db'}"

    @property
    def broker_dir(self) -> Path:
        return Path(self.broker.config_dir).expanduser() if self.broker.config_dir else self.data_dir / "broker"

    @property
    def broker_password_path(self) -> Path:
        given = self.broker.password_file
        return Path(given).expanduser() if given else self.data_dir / "broker" / "hub.password"

    @property
    def time_zone(self) -> ZoneInfo:
        return ZoneInfo(self.site.time_zone)

    @property
    def serves_https(self) -> bool:
        return bool(self.listen.tls_cert) or not is_loopback(self.listen.host)

    @property
    def serves_own_certificate(self) -> bool:
        """One of the hub's own CA."""
        return self.serves_https and not self.listen.tls_cert

    @property
    def invites_to(self) -> tuple[str, int]:
        """`(host, port)` that an invitation names. No host where it listens on every address and has no name: then a
        kiosk finds it on its network."""
        names, host = self.listen.names, self.listen.host
        return names[0] if names else host if host not in ("0.0.0.0", "::") else "", self.listen.port  # noqa: S104

    @property
    def kiosk_broker(self) -> tuple[str, int]:
        """`(host, port)` that a joining kiosk is told."""
        names = self.listen.names
        host = self.broker.kiosk_host or (names[0] if names else self.broker.listen_host)
        return host, self.broker.listen_port


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_hub_settings(path: Path | None) -> HubSettings:
    """Defaults where there is no path. Raises SettingsError."""
    if path is None:
        return HubSettings()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from None
    settings = load(text, str(path), HubSettings)
    _check(settings, str(path))
    return settings


def _check(settings: HubSettings, source: str) -> None:
    """What types alone do not say."""
    try:
        settings.time_zone  # noqa: B018
    except (KeyError, ValueError, OSError):
        raise SettingsError(
            f"{source}: site.time_zone: found {settings.site.time_zone!r}; expected a name of the time zone database, "
            'such as "Africa/Nairobi"'
        ) from None
    if bool(settings.listen.tls_cert) != bool(settings.listen.tls_key):
        raise SettingsError(f"{source}: listen: tls_cert and tls_key go together; only one of them is given")
    if not is_loopback(settings.broker.host) and not settings.broker.ca_file:
        raise SettingsError(
            f"{source}: broker.host: {settings.broker.host!r} is beyond this machine, where only TLS is spoken; "
            "give broker.ca_file"
        )
    for key, urls, pattern, wanted in (
        ("stun_urls", settings.ice.stun_urls, _STUN_URL, '"stun:turn.example.org:3478"'),
        ("turn_urls", settings.ice.turn_urls, _TURN_URL,
         '"turn:turn.example.org:3478?transport=udp", or with tcp, or "turns:turn.example.org:443?transport=tcp"'),
    ):  # fmt: skip
        for url in urls:
            if pattern.fullmatch(url) is None:
                raise SettingsError(f"{source}: ice.{key}: found {url!r}; expected {wanted}")
    if settings.ice.turn_urls and not settings.ice.turn_secret:
        raise SettingsError(f"{source}: ice.turn_urls: TURN needs ice.turn_secret, the TURN server's shared secret")
