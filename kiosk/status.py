"""`teleconsult status`: one screen for whoever stands at the kiosk's shell."""

from __future__ import annotations

import json
import shutil
import time
from typing import Any

import msgspec

from edge_agent.config import KioskSettings
from edge_agent.core.metered import MB, Spent
from edge_agent.door import AgentAway, AgentStatus, Asks, Visit, WaitingItems, door_path
from edge_agent.identity import Identity, IdentityDamaged, NotJoined
from edge_agent.status import KioskStatus, kiosk_status

OK, FAILED = 0, 1
_WORDS = {
    "emergency": "emergencies", "call": "calls", "advice": "advice heard", "note": "notes", "voice": "voice notes",
    "thumbnail": "small pictures", "photo": "photos", "clip": "clips",
}  # fmt: skip
_HELD = {"cheap_hours": "until sending is cheap", "day": "until tomorrow", "month": "until next month"}


def run(settings: KioskSettings, release: str, *, as_json: bool) -> int:
    """Exit code 1 where nothing can be told of what waits."""
    status = kiosk_status(settings)
    free_bytes = shutil.disk_usage(settings.state_dir).free if settings.state_dir.exists() else 0
    who = _who(settings)
    if as_json:
        told: dict[str, Any] = msgspec.to_builtins(status)
        print(json.dumps(told | {"kiosk": who, "release": release, "free_bytes": free_bytes}, ensure_ascii=False))
    else:
        for name, text in _lines(settings, status, who, release, free_bytes):
            print(f"{name:12}{text}".rstrip())
    return FAILED if status.trouble else OK


def retry(settings: KioskSettings) -> int:
    """Raises AgentAway."""
    with Visit(door_path(settings.state_dir)) as visit:
        status = visit.ask(Asks("retry")).status
    if status is None:
        raise AgentAway("the agent is of an older release; restart it")
    print(f"{status.set_aside} set aside: {'being tried now' if status.set_aside else 'nothing to try again'}.")
    return OK


def _who(settings: KioskSettings) -> str:
    try:
        identity = Identity.load(settings.identity_dir)
    except NotJoined:
        return "has not joined a hub"
    except (IdentityDamaged, OSError) as error:
        return f"cannot tell who it is: {error}"
    return f"{identity.kiosk} ({identity.site})" if identity.site else identity.kiosk


def _lines(
    settings: KioskSettings, status: KioskStatus, who: str, release: str, free_bytes: int
) -> list[tuple[str, str]]:
    agent = status.agent
    lines = [
        ("Kiosk", who),
        ("Agent", f"runs, release {agent.release}" if agent else f"does not run; this release is {release}"),
        ("Hub", _hub(agent)),
        ("Receipt", f"the last {_when(status.last_receipt_ms)}" if status.last_receipt_ms else "none yet"),
    ]
    if status.trouble:
        lines.append(("Waiting", f"not known: {status.trouble}"))
    elif not status.waiting:
        lines.append(("Waiting", "nothing: the hub has everything"))
    for number, items in enumerate(status.waiting):
        lines.append(("Waiting" if number == 0 else "", _items(items)))
    if status.set_aside:
        lines.append(
            ("Set aside", f"{status.set_aside} of these; tried again by itself, or now: teleconsult status --retry")
        )
    lines.append(("Budget", _budget(settings, status.spent, agent)))
    lines.append(("Room", f"{free_bytes / 1e9:.1f} GB on the card"))
    lines.append(("Store's key", _KEY[status.key_is_protected]))
    if agent:
        lines.append(("Clock", "set" if agent.clock_trusted else "not set yet: nobody has told it the time"))
        lines.append(("Signs", ", ".join(code.replace("_", " ") for code in agent.conditions) or "none"))
    return lines


_KEY = {
    True: "protected: a credential of systemd, not a file beside the store",
    False: "NOT protected: it is a file on the same card, and whoever has the card can read the store",
    None: "not known without the agent",
}


def _hub(agent: AgentStatus | None) -> str:
    if agent is None:
        return "not connected"
    if agent.hub_reached:
        return "reached"
    return "the broker is connected, the hub does not answer" if agent.broker_up else "not connected"


def _items(items: WaitingItems) -> str:
    size = f", {items.bytes / MB:.2f} MB" if items.bytes else ""
    return (
        f"{_WORDS[items.what]}: {items.items} of {items.consults} consult{'s' if items.consults != 1 else ''}{size},"
        f" the oldest {_when(items.since_ms)}"
    )


def _budget(settings: KioskSettings, spent: Spent, agent: AgentStatus | None) -> str:
    plan = settings.budget.plan
    today = spent.day_bytes + spent.boot_bytes
    text = f"{_of(today, plan.day_bytes)} on {spent.day or 'this start'}, {_of(spent.month_bytes, plan.month_bytes)}"
    text += f" in {spent.month}" if spent.month else " in all"
    if spent.month_cost:
        text += f", {spent.month_cost:.2f} {settings.budget.currency}".rstrip()
    if not plan.is_set:
        text += "; no limit is set"
    if agent and agent.held:
        text += f"; photos wait {f'until {_when(agent.held_until_ms)}' if agent.held_until_ms else _HELD[agent.held]}"
    return text


def _of(used_bytes: int, limit_bytes: int) -> str:
    return f"{used_bytes / MB:.2f}{f' of {limit_bytes / MB:g}' if limit_bytes else ''} MB"


def _when(wall_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(wall_ms / 1000))
