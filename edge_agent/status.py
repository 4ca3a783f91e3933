"""How a kiosk stands, for whoever is at its shell: asked of the running agent, or read from its card without one.

Reads only. What is here names no patient.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from pathlib import Path

import msgspec

from edge_agent.config import KioskSettings
from edge_agent.core import wire
from edge_agent.core.metered import Spent
from edge_agent.core.outbox import Priority, file_priority, is_emergency, priority_of
from edge_agent.door import AgentAway, AgentStatus, Asks, Visit, WaitingItems, door_path
from edge_agent.storage import StoreError
from edge_agent.storage.peek import peek


class KioskStatus(msgspec.Struct, frozen=True):
    agent: AgentStatus | None  # None: it does not run
    waiting: tuple[WaitingItems, ...]
    set_aside: int
    spent: Spent
    last_receipt_ms: int  # 0: none yet
    key_is_protected: bool | None  # None: it cannot be told here
    trouble: str = ""  # why the card could not be read


def waiting_items(waiting: Iterable[wire.Message], emergencies: Collection[bytes]) -> tuple[WaitingItems, ...]:
    """By urgency, the most urgent first."""
    waiting = list(waiting)
    urgent = {message.consult for message in waiting if is_emergency(message.body)} | set(emergencies)
    found: dict[Priority, list[wire.Message]] = {}
    for message in waiting:
        body = message.body
        own = file_priority(body) if isinstance(body, wire.Manifest) else priority_of(body)
        found.setdefault(Priority.EMERGENCY if message.consult in urgent else own, []).append(message)
    return tuple(
        WaitingItems(
            what=priority.name.lower(),
            consults=len({message.consult for message in messages}),
            items=len(messages),
            bytes=sum(message.body.size for message in messages if isinstance(message.body, wire.Manifest)),
            since_ms=min(message.sent_at_ms for message in messages),
        )
        for priority, messages in sorted(found.items())
    )


def kiosk_status(settings: KioskSettings) -> KioskStatus:
    """Raises nothing that a card or an agent may be guilty of: that is `trouble`."""
    with contextlib.suppress(AgentAway), Visit(door_path(settings.state_dir)) as visit:
        agent = visit.ask(Asks("status")).status
        if agent is None:
            raise AgentAway("the agent is of an older release")
        return KioskStatus(
            agent, agent.waiting, agent.set_aside, agent.spent, agent.last_receipt_ms, agent.key_is_protected
        )
    return _from_card(settings.state_dir)


def _from_card(state_dir: Path) -> KioskStatus:
    try:
        found = peek(state_dir)
    except (StoreError, OSError) as error:
        return KioskStatus(None, (), 0, Spent(), 0, None, trouble=str(error))
    spent = Spent()
    with contextlib.suppress(msgspec.DecodeError):
        spent = msgspec.msgpack.decode(found.values["spent"], type=Spent) if "spent" in found.values else spent
    last = found.values.get("last_receipt", b"0")
    return KioskStatus(
        None, waiting_items(found.waiting, found.emergencies), found.set_aside, spent, int(last), found.key_is_protected
    )
