"""The telephone code: it carries what it is to carry, and no slip of tongue or ear passes."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core import findings as f
from edge_agent.core.findings import CAUSES, GROUP_NAMES, Group, Verdict
from edge_agent.core.phonecode import DIGITS, Heard, MisheardCode, decode, encode, of_findings

ROOT = Path(__file__).resolve().parents[2]

heards = st.builds(
    Heard,
    st.fixed_dictionaries({group: st.sampled_from(Verdict) for group in Group}),
    st.integers(0, f.MAX_CAUSE),
)


def digits_of(heard: Heard) -> str:
    return encode(heard).replace(" ", "")


@given(heards)
def test_what_is_read_out_is_what_was_found(heard: Heard) -> None:
    code = encode(heard)
    assert len(code.replace(" ", "")) == DIGITS
    assert decode(code) == heard
    assert decode(code.replace(" ", "-")) == heard


@given(heards)
def test_every_single_wrong_digit_is_found(heard: Heard) -> None:
    digits = digits_of(heard)
    for place in range(DIGITS):
        for wrong in "0123456789".replace(digits[place], ""):
            with pytest.raises(MisheardCode):
                decode(digits[:place] + wrong + digits[place + 1 :])


@given(heards)
def test_every_swap_of_neighbours_is_found(heard: Heard) -> None:
    digits = digits_of(heard)
    for place in range(DIGITS - 1):
        first, second = digits[place], digits[place + 1]
        if first != second:
            with pytest.raises(MisheardCode):
                decode(digits[:place] + second + first + digits[place + 2 :])


@given(st.text(max_size=14))
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    try:
        heard = decode(text)
    except MisheardCode as error:
        said = str(error)
    else:
        said = encode(heard)
        assert decode(said) == heard
    assert "\n" not in said


def test_the_worst_code_there_can_be_has_ten_digits() -> None:
    assert len(digits_of(Heard(dict.fromkeys(Group, Verdict.UNTESTED), f.MAX_CAUSE, version=14))) == DIGITS


def test_a_code_of_another_release_says_so() -> None:
    newer = digits_of(Heard(dict.fromkeys(Group, Verdict.PASS), 0, version=2))
    with pytest.raises(MisheardCode, match="another release"):
        decode(newer)


def test_numbers_are_told_apart_and_every_cause_says_what_to_do() -> None:
    assert len({cause.number for cause in CAUSES}) == len(CAUSES) == len({cause.name for cause in CAUSES})
    for cause in CAUSES:
        assert 1 <= cause.number <= f.MAX_CAUSE
        assert cause.what.endswith(".")
        assert cause.do.endswith((".", "?"))
    assert set(GROUP_NAMES) == set(Group)


def test_numbers_that_were_given_out_keep_their_meaning() -> None:
    """A kiosk in the field goes on saying them. Add, never change."""
    assert {cause.number: cause.name for cause in CAUSES}.items() >= {
        1: "under_voltage", 2: "too_hot", 3: "memory_short", 4: "under_voltage_once", 5: "warm", 6: "card_read_only",
        7: "store_damaged", 8: "disk_full", 9: "disk_low", 10: "card_worn", 11: "card_wearing", 12: "card_slow",
        13: "button_stuck", 14: "board_missing", 15: "button_not_felt", 16: "lamp_not_seen", 17: "camera_missing",
        18: "camera_frozen", 19: "camera_black", 20: "camera_blurred", 21: "microphone_missing",
        22: "microphone_muted", 24: "microphone_overloaded", 25: "speaker_missing", 26: "speaker_unheard",
        27: "speaker_faint", 28: "sound_late", 29: "room_echoes", 30: "clock_wrong", 31: "clock_untrusted",
        32: "no_address", 33: "no_dns", 34: "captive_portal", 35: "hub_unreachable", 36: "line_thin",
        37: "line_lossy", 38: "line_far", 40: "not_joined", 41: "identity_damaged", 42: "broker_down",
        43: "certificate_expired", 44: "certificate_ending", 45: "certificate_refused", 46: "not_our_hub",
        47: "turn_blocked", 48: "hub_certificate_old", 49: "broker_blocked", 50: "unsent_long", 51: "turn_refused",
        52: "agent_down", 53: "media_down", 54: "unit_failed", 55: "screen_down", 56: "configuration_wrong",
        57: "probe_failed",
    }.items()  # fmt: skip


def test_failures_come_before_warnings_and_roots_before_what_they_bring_about() -> None:
    found = [
        f.warned("power", "under_voltage_once"),
        f.failed("broker", "broker_down"),
        f.failed("names", "no_dns"),
        f.untested("turn", Group.HUB, "no line"),
    ]
    heard = of_findings(found)
    assert heard.cause is not None
    assert heard.cause.name == "no_dns"
    assert heard.verdicts[Group.POWER] is Verdict.WARN
    assert heard.verdicts[Group.HUB] is Verdict.FAIL
    assert heard.verdicts[Group.CAMERA] is Verdict.UNTESTED


def test_the_technicians_page_is_of_this_table() -> None:
    script = runpy.run_path(str(ROOT / "scripts/write-fault-tree"))
    assert (ROOT / "docs/fault-tree.md").read_text() == script["text"](), "run scripts/write-fault-tree"
