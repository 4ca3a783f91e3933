"""`teleconsult update`: what is said on a terminal or in the journal, a line a step."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge_agent.clock import KioskClock
from edge_agent.config import KioskSettings
from edge_agent.core.release import Keys, ReleaseError, check_keys
from edge_agent.identity import Identity, IdentityDamaged, NotJoined
from edge_agent.join import origin_to_ask
from edge_agent.update.installed import Installed
from edge_agent.update.run import Update, ask_agent, this_machine
from edge_agent.update.sources import Folder, HubSource, Source

OK, FAILED = 0, 1


def run(settings: KioskSettings, root: Path, folder: Path | None, keys_file: Path | None, check: bool) -> int:
    """Raises ReleaseError, OSError, SettingsError."""
    installed, machine = Installed(root), this_machine()
    identity = _identity(settings)
    first_keys = _keys_of(keys_file) if keys_file else identity.release_keys if identity else None
    source: Source
    if folder is not None:
        source = Folder(folder, machine)
    elif identity is None:
        raise ReleaseError("this kiosk has not joined a hub, so nobody offers it a release; give the folder of one")
    elif not settings.update.from_hub:
        _say("update.from_hub is off in the configuration: a technician brings releases")
        return OK
    else:
        dates_ms = KioskClock(b"").dates_ms
        source = HubSource(identity, origin_to_ask(identity.hub, settings.hub.address), machine, dates_ms, _say)
    update = Update(installed, source, lambda: ask_agent(settings.state_dir), round(settings.update.day_mb * 1e6), _say)
    if check:
        return _check(installed, update, first_keys)
    return OK if update.run(first_keys) else FAILED


def _check(installed: Installed, update: Update, first_keys: Keys | None) -> int:
    _say(f"runs: {installed.current or 'nothing that was installed here'}; good: {installed.good or '-'}")
    keys = installed.keys() or first_keys
    if keys is None:
        raise ReleaseError("this kiosk knows no release key; give --keys FILE")
    offered = update.check(keys)
    if offered is None:
        _say("there is nothing newer for this kiosk")
        return OK
    wanted = offered.manifest.wanted(this_machine())
    missing = installed.missing(wanted)
    size = sum(content.size for content in missing.values())
    _say(
        f"release {offered.manifest.version} is for this kiosk; {len(missing)} of {len(wanted)} files, {size:,} bytes "
        "before packing, are not here yet"
    )
    return OK


def _identity(settings: KioskSettings) -> Identity | None:
    try:
        return Identity.load(settings.identity_dir)
    except (NotJoined, IdentityDamaged):
        return None


def _keys_of(file: Path) -> Keys:
    try:
        return check_keys(msgspec.json.decode(file.read_bytes(), type=Keys))
    except msgspec.DecodeError as error:
        raise ReleaseError(f"{file} is no file of release keys ({error})") from None


def _say(line: str) -> None:
    print(line, flush=True)
