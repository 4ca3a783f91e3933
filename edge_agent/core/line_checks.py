"""A self-test's judgements on the line and on the hub at its end. Pure; `edge_agent.selftest.line` measures.

What cannot be asked because something before it is broken is untested, not failed: the root is named, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edge_agent.core.findings import Finding, Group, failed, passed, untested, warned

THIN_BPS = 18_000  # below it a call goes in turns at best
LOSSY = 0.08
FAR_MS = 1600.0  # by a satellite and a radio behind it
ENDING_DAYS = 21.0  # it renews itself with 30 days left
UNSENT_MS = 24 * 3_600_000

Tcp = Literal["", "open", "refused", "silent", "unreachable"]
# open: our hub's; alien: somebody else's; plain: no TLS; old: its dates; refused, expired: our own certificate
Tls = Literal["", "open", "alien", "plain", "old", "refused", "expired", "broken"]
Turn = Literal["allocated", "answers", "refused", "silent"]  # answers: it asked for credentials that we do not have


@dataclass(frozen=True, slots=True)
class Door:
    """One of the hub's addresses, as it was knocked at."""

    where: str
    tcp: Tcp = ""
    tls: Tls = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """What was measured on the way to the hub; empty and None where it was not asked."""

    addresses: Sequence[str] = ()
    names: bool | None = None  # whether the hub's name was found; None: it is a number
    hub: Door = Door("")
    broker: Door = Door("")
    portal: str = ""  # how a page for signing in showed itself
    rtt_ms: float | None = None
    loss: float | None = None
    up_bps: float | None = None
    down_bps: float | None = None
    used_bytes: int = 0
    nat: str = ""
    turn: Mapping[str, Turn] = field(default_factory=dict)  # by URL


def judge_line(line: Line) -> list[Finding]:
    if not line.addresses:
        return [failed("network", "no_address", "no address, or no way out")]
    found = [passed("network", Group.LINE, ", ".join(line.addresses))]
    if line.names is False:
        if line.portal:
            found.append(failed("sign-in page", "captive_portal", line.portal))
        found.append(failed("names", "no_dns", f"{line.hub.where} is not found"))
        return found
    if line.names:
        found.append(passed("names", Group.LINE, f"{line.hub.where} is found"))
    reached = "open" in (line.hub.tcp, line.broker.tcp)
    ours = "open" in (line.hub.tls, line.broker.tls) or {"refused", "expired", "old"} & {line.hub.tls, line.broker.tls}
    if line.portal and not ours:
        found.append(failed("sign-in page", "captive_portal", line.portal))
    elif not reached and line.hub.where:
        found.append(failed("hub's machine", "hub_unreachable", f"{line.hub.where}: {_tcp(line.hub)}"))
    elif reached:
        found.append(passed("hub's machine", Group.LINE, "answers"))
    found += _quality(line)
    if line.nat:
        found.append(passed("NAT", Group.LINE, line.nat))
    return found


def _quality(line: Line) -> list[Finding]:
    found = []
    if line.up_bps is not None and line.down_bps is not None:
        says = (
            f"up {line.up_bps / 1000:.0f}, down {line.down_bps / 1000:.0f} kbit/s, by {line.used_bytes / 1000:.0f} kB"
        )
        thin = min(line.up_bps, line.down_bps) < THIN_BPS
        found.append(warned("rate", "line_thin", says) if thin else passed("rate", Group.LINE, says))
    if line.rtt_ms is not None:
        says = f"{line.rtt_ms:.0f} ms there and back"
        found.append(warned("delay", "line_far", says) if line.rtt_ms > FAR_MS else passed("delay", Group.LINE, says))
    if line.loss is not None:
        says = f"{line.loss:.0%} of the packets"
        found.append(warned("loss", "line_lossy", says) if line.loss > LOSSY else passed("loss", Group.LINE, says))
    return found


@dataclass(frozen=True, slots=True)
class Membership:
    """Of this kiosk at its hub. `problem` is "" where there is an identity, else "none" or what is wrong with it."""

    problem: str = ""
    kiosk: str = ""
    days_left: float | None = None  # None: the clock is not to be trusted
    oldest_unsent_ms: int | None = None  # for how long; None: the agent does not run
    broker_up: bool | None = None  # the agent's own connection


def judge_hub(line: Line, member: Membership) -> list[Finding]:
    if member.problem:
        cause = "not_joined" if member.problem == "none" else "identity_damaged"
        return [failed("identity", cause, "" if member.problem == "none" else member.problem)]
    found = [passed("identity", Group.HUB, member.kiosk), _certificate(line, member)]
    if line.portal and line.hub.tls != "open":
        found.append(untested("broker", Group.HUB, "not asked: the network wants somebody to sign in first"))
    elif "alien" in (line.hub.tls, line.broker.tls):
        door = line.hub if line.hub.tls == "alien" else line.broker
        found.append(failed("hub", "not_our_hub", f"{door.where}: {door.why}"))
    elif "old" in (line.hub.tls, line.broker.tls):
        found.append(failed("hub", "hub_certificate_old", line.hub.why or line.broker.why))
    elif "open" in (line.hub.tcp, line.broker.tcp):
        found.append(_broker(line))
    else:
        found.append(untested("broker", Group.HUB, "not asked: the hub was not reached"))
    found += _turn(line)
    if member.oldest_unsent_ms is None:
        found.append(untested("receipts", Group.HUB, "the agent knows, and does not run"))
    elif member.oldest_unsent_ms > UNSENT_MS:
        found.append(
            failed("receipts", "unsent_long", f"the oldest has waited {member.oldest_unsent_ms / 3.6e6:.0f} h")
        )
    else:
        waits = member.oldest_unsent_ms / 60_000
        found.append(passed("receipts", Group.HUB, f"the oldest waits {waits:.0f} min" if waits else "nothing waits"))
    return found


def _certificate(line: Line, member: Membership) -> Finding:
    if line.broker.tls in ("refused", "expired"):
        return failed("certificate", f"certificate_{line.broker.tls}", line.broker.why)
    if member.days_left is None:
        return untested("certificate", Group.HUB, "its days cannot be counted: the clock is not to be trusted")
    says = f"{member.days_left:.0f} days left"
    if member.days_left <= 0:
        return failed("certificate", "certificate_expired", f"it ran out {-member.days_left:.0f} days ago")
    if member.days_left < ENDING_DAYS:
        return warned("certificate", "certificate_ending", says)
    return passed("certificate", Group.HUB, says)


def _broker(line: Line) -> Finding:
    door = line.broker
    if door.tls == "open":
        return passed("broker", Group.HUB, f"{door.where} takes this kiosk")
    if door.tls in ("refused", "expired"):
        return untested("broker", Group.HUB, "it answers, and refuses the certificate")
    if door.tcp == "refused":
        return failed("broker", "broker_down", f"{door.where}: {_tcp(door)}")
    return failed("broker", "broker_blocked", f"{door.where}: {door.why or _tcp(door)}")


def _turn(line: Line) -> list[Finding]:
    if not line.turn:
        return [untested("TURN", Group.HUB, "no server is known: none is set up, or the hub was not reached")]
    says = ", ".join(f"{url} {how}" for url, how in line.turn.items())
    if any(how in ("allocated", "answers") for how in line.turn.values()):
        return [passed("TURN", Group.HUB, says)]
    return [failed("TURN", "turn_refused" if "refused" in line.turn.values() else "turn_blocked", says)]


def _tcp(door: Door) -> str:
    said = {"refused": "nobody listens there", "silent": "no answer", "unreachable": "no way there", "": "not asked"}
    return door.why or said.get(door.tcp, door.tcp)
