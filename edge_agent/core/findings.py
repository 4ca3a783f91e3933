"""What a self-test can find: ten groups, and every cause by number with what happened and what to do.

The numbers of groups and causes are read out over the telephone (`edge_agent.core.phonecode`) and counted off the lamp:
they never change their meaning; new causes get new numbers, up to 63. The order of `CAUSES` says which of several is
the root: without an address there is no broker either, so the address comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

MAX_CAUSE = 63


class Group(IntEnum):
    """As many blinks of the lamp, a long one for five."""

    POWER = 1  # and heat, and memory
    STORAGE = 2
    BUTTON = 3  # and lamp
    CAMERA = 4
    MICROPHONE = 5
    SPEAKER = 6
    CLOCK = 7
    LINE = 8  # as far as the hub's door
    HUB = 9  # broker, certificate, TURN, receipts
    SOFTWARE = 10


GROUP_NAMES = {
    Group.POWER: "power, heat and memory",
    Group.STORAGE: "memory card",
    Group.BUTTON: "button and lamp",
    Group.CAMERA: "camera",
    Group.MICROPHONE: "microphone",
    Group.SPEAKER: "speaker",
    Group.CLOCK: "clock",
    Group.LINE: "line",
    Group.HUB: "hub",
    Group.SOFTWARE: "software",
}


class Verdict(IntEnum):
    PASS = 0
    WARN = 1
    FAIL = 2
    UNTESTED = 3


@dataclass(frozen=True, slots=True)
class Cause:
    number: int
    name: str
    group: Group
    what: str  # happened
    do: str  # about it


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `says` has the figures; `cause` is empty where all is well or nothing was tested."""

    check: str
    group: Group
    verdict: Verdict
    says: str
    cause: str = ""

    @property
    def do(self) -> str:
        return BY_NAME[self.cause].do if self.cause else ""


CAUSES: tuple[Cause, ...] = (
    # Root causes first: what stands above explains what stands below.
    Cause(1, "under_voltage", Group.POWER, "The power supply is too weak: its voltage drops now.",
          "Use the kit's own supply and a short, thick cable; unplug what hangs on USB."),
    Cause(2, "too_hot", Group.POWER, "The machine is too hot and slows itself down.",
          "Out of the sun; free the openings; look whether the fan turns."),
    Cause(3, "memory_short", Group.POWER, "There is hardly any memory left.",
          "Restart the kiosk. If it comes back, send the report to whoever looks after the kit."),
    Cause(6, "card_read_only", Group.STORAGE, "The memory card takes nothing any more (read-only).",
          "Replace the card, and keep the old one: what waits on it may still be read."),
    Cause(7, "store_damaged", Group.STORAGE, "The kiosk's store is damaged.",
          "Restart the kiosk: it sets the damaged store aside and begins a new one. Then replace the card."),
    Cause(8, "disk_full", Group.STORAGE, "The memory card is full.",
          "Let it send: bring the line up. Remove files that are not the kit's."),
    Cause(10, "card_worn", Group.STORAGE, "The memory card has reached the end of its life.", "Replace the card now."),
    Cause(56, "configuration_wrong", Group.SOFTWARE, "The kiosk's configuration file is wrong.",
          "teleconsult config --check says which line."),
    Cause(52, "agent_down", Group.SOFTWARE, "The kiosk's program does not run.",
          "sudo systemctl restart teleconsult-agent; journalctl -u teleconsult-agent says why it ended."),
    Cause(13, "button_stuck", Group.BUTTON, "The button is held down, or its cable has a short.",
          "Free the button; unplug its cable: if that helps, replace the button."),
    Cause(14, "board_missing", Group.BUTTON, "The pins of button and lamp cannot be used.",
          "Look at the plug on the pins, and at the numbers under [devices] in kiosk.toml."),
    Cause(15, "button_not_felt", Group.BUTTON, "The button was not felt when it was to be pressed.",
          "Press again, firmly. Then look at its two wires."),
    Cause(16, "lamp_not_seen", Group.BUTTON, "The lamp was not seen to light.",
          "Look at the lamp's wires, and their order."),
    Cause(17, "camera_missing", Group.CAMERA, "There is no camera.", "Plug it in again, or into another socket."),
    Cause(18, "camera_frozen", Group.CAMERA, "The camera gives the same picture again and again.",
          "Unplug the camera, wait five seconds, plug it in again."),
    Cause(19, "camera_black", Group.CAMERA, "The camera's picture is black.",
          "Take off the lens cap, open the shutter, make light. Then replace the camera."),
    Cause(21, "microphone_missing", Group.MICROPHONE, "There is no microphone.",
          "Plug it in again, or into another socket."),
    Cause(22, "microphone_muted", Group.MICROPHONE, "The microphone gives nothing but silence: it is muted or broken.",
          "Look for its switch; turn it up with alsamixer (F4). Then replace it."),
    Cause(25, "speaker_missing", Group.SPEAKER, "There is no speaker.", "Plug it in again, or into another socket."),
    Cause(26, "speaker_unheard", Group.SPEAKER, "The speaker is not heard, though the microphone hears the room.",
          "Turn it up; look at its plug and its own power. Is it the right one in kiosk.toml?"),
    Cause(40, "not_joined", Group.HUB, "This kiosk has not joined a hub.",
          "Get a code at the hub, then: teleconsult join CODE."),
    Cause(41, "identity_damaged", Group.HUB, "The kiosk's keys on the card are damaged.",
          "Get a code for new hardware of this kiosk (hub invite --for ID), then teleconsult join CODE --again."),
    Cause(30, "clock_wrong", Group.CLOCK, "The kiosk's clock and the hub's do not agree.",
          "Let it reach the hub for a minute. If it stays, look at the time servers, and at the hub's own clock."),
    Cause(32, "no_address", Group.LINE, "There is no network: no address, or no way out.",
          "Look at the cable, the Wi-Fi's password (nmtui), the modem's lights and its credit."),
    Cause(33, "no_dns", Group.LINE, "There is a network, but names are not found (DNS).",
          "Restart the modem. Set another name server (nmtui), or give the hub's address as a number."),
    Cause(34, "captive_portal", Group.LINE, "The network wants somebody to sign in on a page first.",
          "Sign in with a phone's or laptop's browser in the same network, or use a network without such a page."),
    Cause(46, "not_our_hub", Group.HUB, "Somebody else answers in the hub's place (another certificate).",
          "Is the hub's address right (hub.address)? Use another network: this one may look into TLS."),
    Cause(35, "hub_unreachable", Group.LINE, "The network is there, but the hub does not answer.",
          "Ask whether the hub runs. If other kiosks reach it, this network blocks it: ask whoever runs it."),
    Cause(43, "certificate_expired", Group.HUB, "The kiosk's certificate has run out.",
          "At the hub: teleconsult hub kiosks approve ID. The kiosk asks by itself every ten minutes."),
    Cause(45, "certificate_refused", Group.HUB, "The hub refuses this kiosk's certificate.",
          "Ask at the hub why. To let it in again: hub invite --for ID, then teleconsult join CODE --again."),
    Cause(48, "hub_certificate_old", Group.HUB, "The hub's own certificate has run out.",
          "Restart the hub: it renews it by itself."),
    Cause(42, "broker_down", Group.HUB, "The hub answers, but its broker does not run.",
          "At the hub: systemctl restart teleconsult-broker; journalctl -u teleconsult-broker."),
    Cause(49, "broker_blocked", Group.HUB, "The hub answers, but the way to its broker is blocked.",
          "The network or a firewall lets port 8883 not through: ask whoever runs it, at the clinic and at the hub."),
    Cause(47, "turn_blocked", Group.HUB, "No TURN server can be reached, by UDP, TCP or TLS.",
          "Calls may have no sound. Ask whoever runs network and hub; messages still go."),
    Cause(51, "turn_refused", Group.HUB, "The TURN server refuses what the hub gives out.",
          "At the hub: is ice.turn_secret the same as coturn's static-auth-secret, and are both clocks right?"),
    Cause(50, "unsent_long", Group.HUB, "A message has waited for more than a day to be sent.",
          "Bring the line up. If it is up, look at the hub's log for this kiosk."),
    Cause(53, "media_down", Group.SOFTWARE, "The kiosk's sound and picture program does not run.",
          "Restart the kiosk; journalctl -u teleconsult-agent says why it ended."),
    Cause(54, "unit_failed", Group.SOFTWARE, "One of the kiosk's services does not run.",
          "systemctl status teleconsult.target names it; restart it, and read its journal."),
    Cause(57, "probe_failed", Group.SOFTWARE, "A part of the self-test itself failed.",
          "Run it again. If it stays, send the report (teleconsult selftest --json)."),
    # What is not yet broken.
    Cause(4, "under_voltage_once", Group.POWER, "The voltage has dropped since the start.",
          "The supply or its cable is at its limit: replace it before it fails."),
    Cause(5, "warm", Group.POWER, "The machine is warm.", "Out of the sun; free the openings."),
    Cause(9, "disk_low", Group.STORAGE, "Little space is left on the memory card.", "Let it send: bring the line up."),
    Cause(11, "card_wearing", Group.STORAGE, "The memory card nears the end of its life.",
          "Bring a new card with the next visit."),
    Cause(12, "card_slow", Group.STORAGE, "The memory card is slow to write.",
          "It may be worn or of a poor kind: replace it with one that is made for endurance."),
    Cause(20, "camera_blurred", Group.CAMERA, "The camera's picture is not sharp.",
          "Wipe the lens; turn its ring until print at an arm's length is sharp."),
    Cause(24, "microphone_overloaded", Group.MICROPHONE, "The microphone is set too loud: it clips.",
          "Turn it down with alsamixer (F4)."),
    Cause(27, "speaker_faint", Group.SPEAKER, "The speaker is faint.", "Turn it up, or nearer to the people."),
    Cause(28, "sound_late", Group.SPEAKER, "Sound takes long from speaker to microphone.",
          "Use USB sound rather than Bluetooth."),
    Cause(29, "room_echoes", Group.SPEAKER, "The room echoes for long.",
          "Cloth on walls or table, or the kiosk out of the corner."),
    Cause(31, "clock_untrusted", Group.CLOCK, "Nobody has told the kiosk the time yet.",
          "It sets itself when the hub is reached."),
    Cause(36, "line_thin", Group.LINE, "The line carries less than a voice call needs.",
          "A better place for the antenna, another network, another time of day. Messages still go."),
    Cause(37, "line_lossy", Group.LINE, "The line loses many packets.",
          "A better place for the antenna; cables; another channel for the Wi-Fi."),
    Cause(38, "line_far", Group.LINE, "Answers take long over this line.",
          "Ordinary by satellite. Else the line is full: what else uses it?"),
    Cause(44, "certificate_ending", Group.HUB, "The kiosk's certificate ends soon and was not renewed.",
          "It renews itself when it reaches the hub's page: is its port 8443 let through?"),
    Cause(55, "screen_down", Group.SOFTWARE, "The screen does not run; button, lamp and voice do.",
          "sudo systemctl restart teleconsult-screen; then look at the screen's cable."),
)  # fmt: skip

BY_NAME = {cause.name: cause for cause in CAUSES}
BY_NUMBER = {cause.number: cause for cause in CAUSES}
_RANK = {cause.name: rank for rank, cause in enumerate(CAUSES)}


def passed(check: str, group: Group, says: str) -> Finding:
    return Finding(check, group, Verdict.PASS, says)


def untested(check: str, group: Group, why: str) -> Finding:
    return Finding(check, group, Verdict.UNTESTED, why)


def warned(check: str, cause: str, says: str = "") -> Finding:
    return Finding(check, BY_NAME[cause].group, Verdict.WARN, says or BY_NAME[cause].what, cause)


def failed(check: str, cause: str, says: str = "") -> Finding:
    return Finding(check, BY_NAME[cause].group, Verdict.FAIL, says or BY_NAME[cause].what, cause)


def verdict_of(group: Group, findings: Iterable[Finding]) -> Verdict:
    """The worst of what was tested; UNTESTED where nothing was."""
    tested = [each.verdict for each in findings if each.group is group and each.verdict is not Verdict.UNTESTED]
    return max(tested, default=Verdict.UNTESTED)


def worst(findings: Sequence[Finding]) -> Cause | None:
    """The root of what is wrong: failures before warnings, and of those the one that explains the others."""
    found = [each for each in findings if each.cause]
    first = min(found, key=lambda each: (-each.verdict, _RANK[each.cause]), default=None)
    return None if first is None else BY_NAME[first.cause]
