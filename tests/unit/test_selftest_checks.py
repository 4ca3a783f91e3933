"""A self-test's judgements, from figures: each cause where it belongs, and none where all is well."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.core import checks, chirp, line_checks
from edge_agent.core.checks import Card, Hand, Programs
from edge_agent.core.findings import BY_NAME, Finding, Group, Verdict, worst
from edge_agent.core.line_checks import Door, Line, Membership
from hardware.api import SAMPLE_RATE_HZ
from hardware.camera import SyntheticCamera

MB = 2**20


def causes(found: Finding | list[Finding]) -> list[str]:
    found = found if isinstance(found, list) else [found]
    for each in found:
        assert (each.cause == "") == (each.verdict in (Verdict.PASS, Verdict.UNTESTED))
        assert not each.cause or BY_NAME[each.cause].group is each.group
    return [each.cause for each in found if each.cause]


@pytest.mark.parametrize(
    ("bits", "celsius", "wanted"),
    [
        (0, 50, []), (0x1, 50, ["under_voltage"]), (0x50005, 50, ["under_voltage"]),
        (0x10000, 50, ["under_voltage_once"]),
        (0, 76, ["warm"]), (0, 86, ["too_hot"]), (0x8, 70, ["too_hot"]), (None, None, []), (None, 90, ["too_hot"]),
        (0x80000, 50, []),  # it was hot once
    ],
)  # fmt: skip
def test_power_and_heat(bits: int | None, celsius: float | None, wanted: list[str]) -> None:
    assert causes([checks.judge_power(bits), checks.judge_heat(celsius, bits)]) == wanted


@pytest.mark.parametrize(
    ("card", "wanted"),
    [
        (Card(900 * MB, fsyncs_ms=[5.0] * 40), []),
        (Card(100 * MB, fsyncs_ms=[5.0]), ["disk_low"]),
        (Card(3 * MB, fsyncs_ms=[5.0]), ["disk_full"]),
        (Card(0, write_error="No space left on device"), ["disk_full", "disk_full"]),
        (Card(900 * MB, read_only=True), ["card_read_only"]),
        (Card(900 * MB, write_error="Input/output error"), ["card_read_only"]),
        (Card(900 * MB, fsyncs_ms=[5.0] * 38 + [2000.0, 2100.0]), ["card_slow"]),
        (Card(900 * MB, fsyncs_ms=[5.0], life_tenths=(2, 0xB), pre_eol=1), ["card_worn"]),
        (Card(900 * MB, fsyncs_ms=[5.0], life_tenths=(1, 9), pre_eol=1), ["card_wearing"]),
        (Card(900 * MB, fsyncs_ms=[5.0], life_tenths=(1, 1), pre_eol=3), ["card_worn"]),
        (Card(900 * MB, fsyncs_ms=[5.0], life_tenths=(1, 1), pre_eol=1), []),
    ],
)
def test_the_card(card: Card, wanted: list[str]) -> None:
    assert causes(checks.judge_card(card)) == wanted


# --- camera


def photos(count: int = 4) -> list[NDArray[np.uint8]]:
    camera = SyntheticCamera(640, 480, 60)
    try:
        return [camera.read().pixels for _ in range(count)]
    finally:
        camera.close()


def grainy(picture: NDArray[np.uint8], seed: int, noise: float = 2.0) -> NDArray[np.uint8]:
    noisy = picture + np.random.default_rng(seed).normal(0, noise, picture.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def test_a_camera_that_sees() -> None:
    assert causes(checks.judge_camera(photos())) == []
    still = photos(1)[0]  # of a room in which nothing moves
    assert causes(checks.judge_camera([grainy(still, seed) for seed in range(4)])) == []


def test_a_camera_that_is_covered_frozen_or_out_of_focus() -> None:
    dark = np.full((480, 640, 3), 3, np.uint8)
    assert causes(checks.judge_camera([grainy(dark, seed) for seed in range(4)])) == ["camera_black"]
    assert causes(checks.judge_camera([photos(1)[0]] * 4)) == ["camera_frozen"]
    soft = cv2.GaussianBlur(photos(1)[0], (0, 0), 12)
    assert causes(checks.judge_camera([grainy(np.asarray(soft), seed) for seed in range(4)])) == ["camera_blurred"]


# --- sound

PLAYED_AT = round(0.4 * SAMPLE_RATE_HZ)


def heard(
    gain_db: float = -10, delay_ms: float = 120, noise_dbfs: float = -60, room: float = 0.0, seed: int = 0
) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    sound = rng.normal(0, 10 ** (noise_dbfs / 20), round(2.5 * SAMPLE_RATE_HZ))
    played = chirp.chirp() / 32768 * 10 ** (gain_db / 20)
    start = PLAYED_AT + round(delay_ms / 1000 * SAMPLE_RATE_HZ)
    sound[start : start + len(played)] += played
    if room:
        tail = rng.normal(0, 1, round(0.6 * SAMPLE_RATE_HZ)) * np.exp(
            -np.arange(round(0.6 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ / 0.4
        )
        echo = np.convolve(played, tail / np.sqrt(np.sum(tail**2)) * room)[: len(sound) - start]
        sound[start : start + len(echo)] += echo
    return np.clip(sound * 32767, -32768, 32767).astype(np.int16)


def judged(sound: NDArray[np.int16], microphone: str = "", speaker: str = "", played: bool = True) -> list[str]:
    return causes(chirp.judge_sound(chirp.listen(sound, PLAYED_AT), microphone, speaker, played))


@pytest.mark.parametrize("seed", range(10))
def test_a_chirp_is_found_at_its_level_and_delay_also_below_the_noise(seed: int) -> None:
    for gain_db, noise_dbfs in ((-10, -60), (-25, -45), (-40, -48)):  # the chirp itself is at -12 dBFS
        found = chirp.listen(heard(gain_db, 120, noise_dbfs, seed=seed), PLAYED_AT)
        assert abs(found.delay_ms - 120) < 1
        assert abs(found.level_dbfs - (gain_db - 12.4)) < 1.5


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_is_no_chirp(seed: int) -> None:
    sound = heard(gain_db=-200, noise_dbfs=-40, seed=seed)
    assert judged(sound) == ["speaker_unheard"]


def test_what_is_wrong_with_the_sound() -> None:
    assert judged(heard()) == []
    assert judged(np.zeros(2 * SAMPLE_RATE_HZ, np.int16)) == ["microphone_muted"]
    assert judged(np.clip(heard(gain_db=25).astype(np.int32) * 3, -32768, 32767).astype(np.int16)) == [
        "microphone_overloaded"
    ]
    assert judged(heard(gain_db=-46, noise_dbfs=-70)) == ["speaker_faint"]
    assert judged(heard(delay_ms=900)) == ["sound_late"]
    assert judged(heard(room=0.8)) == ["room_echoes"]
    assert judged(heard(), speaker="none there") == ["speaker_missing"]
    assert causes(chirp.judge_sound(None, "none there", "")) == ["microphone_missing"]
    assert judged(heard(gain_db=-200), played=False) == []


# --- clock, board, programs


def clock(off_by_ms: int | None = None, trusted: bool | None = None, **other: bool) -> list[str]:
    given = {"synchronised": False, "contradicted": False} | other
    return causes(checks.judge_clock(off_by_ms=off_by_ms, trusted=trusted, not_before_ms=1000, now_ms=2000, **given))


def test_the_clock() -> None:
    assert clock(off_by_ms=900) == []
    assert clock(off_by_ms=-3 * 86_400_000) == ["clock_wrong"]
    assert clock(contradicted=True) == ["clock_wrong"]
    assert clock() == ["clock_untrusted"]
    assert clock(synchronised=True) == clock(trusted=True) == []
    early = checks.judge_clock(synchronised=False, trusted=None, contradicted=False, off_by_ms=None,
                               not_before_ms=1000, now_ms=1)  # fmt: skip
    assert causes(early) == ["clock_wrong"]
    goes_by_the_hub = checks.judge_clock(synchronised=False, trusted=True, contradicted=False, off_by_ms=10**9,
                                         not_before_ms=1000, now_ms=2000)  # fmt: skip
    assert goes_by_the_hub.verdict is Verdict.WARN


def test_button_and_lamp() -> None:
    assert causes(checks.judge_board("", 0, True, True, Hand())) == []
    assert causes(checks.judge_board("no pins", 0, True, True, Hand())) == ["board_missing"]
    assert causes(checks.judge_board("", 30, True, True, Hand())) == ["button_stuck"]
    assert causes(checks.judge_board("", 0, True, True, Hand(False, False))) == ["button_not_felt", "lamp_not_seen"]
    assert causes(checks.judge_board("", 0, True, True, Hand(True, True))) == []


def test_programs() -> None:
    assert causes(checks.judge_programs(Programs(True, True, units=(("teleconsult-agent.service", "active"),)))) == []
    assert causes(checks.judge_programs(Programs(False))) == ["agent_down"]
    assert causes(checks.judge_programs(Programs(True, False))) == ["media_down"]
    assert causes(checks.judge_programs(Programs(True, True, "line 3"))) == ["configuration_wrong"]
    down = (("teleconsult-hub.service", "failed"), ("teleconsult-screen.service", "failed"))
    assert causes(checks.judge_programs(Programs(True, True, units=down))) == ["unit_failed", "screen_down"]


# --- line and hub

WELL = Line(
    addresses=("10.0.0.2",), names=True, hub=Door("hub:8443", "open", "open"), broker=Door("hub:8883", "open", "open"),
    rtt_ms=300, loss=0.0, up_bps=128e3, down_bps=256e3, used_bytes=130_000, turn={"turn:hub": "allocated"},
)  # fmt: skip
MEMBER = Membership(kiosk="hill-1", days_left=60, oldest_unsent_ms=0)


def over(line: Line, member: Membership = MEMBER) -> list[str]:
    return causes([*line_checks.judge_line(line), *line_checks.judge_hub(line, member)])


def but(**changes: object) -> Line:
    return Line(**({name: getattr(WELL, name) for name in WELL.__dataclass_fields__} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (WELL, []),
        (Line(), ["no_address"]),
        (but(names=False, hub=Door("hub:8443"), broker=Door("hub:8883")), ["no_dns"]),
        (but(hub=Door("h", "open", "plain"), broker=Door("h", "open", "plain"), portal="sent on"), ["captive_portal"]),
        (but(hub=Door("h", "silent"), broker=Door("h", "silent"), turn={}), ["hub_unreachable"]),
        (but(hub=Door("h", "open", "alien", "self-signed"), broker=Door("h", "open", "alien")), ["not_our_hub"]),
        (but(broker=Door("h", "refused")), ["broker_down"]),
        (but(broker=Door("h", "silent")), ["broker_blocked"]),
        (but(broker=Door("h", "open", "refused", "revoked")), ["certificate_refused"]),
        (but(broker=Door("h", "open", "expired", "ran out")), ["certificate_expired"]),
        (but(hub=Door("h", "open", "old", "until 2020")), ["hub_certificate_old"]),
        (but(turn={"turn:a": "silent", "turns:a": "silent"}), ["turn_blocked"]),
        (but(turn={"turn:a": "silent", "turns:a": "refused"}), ["turn_refused"]),
        (but(turn={"turn:a": "silent", "turns:a": "allocated"}), []),
        (but(up_bps=9e3), ["line_thin"]),
        (but(loss=0.2), ["line_lossy"]),
        (but(rtt_ms=2500), ["line_far"]),
    ],
)
def test_the_line_and_the_hub(line: Line, wanted: list[str]) -> None:
    assert over(line) == wanted


@pytest.mark.parametrize(
    ("member", "wanted"),
    [
        (Membership("none"), ["not_joined"]),
        (Membership("hub.json cannot be read"), ["identity_damaged"]),
        (Membership(days_left=-2, oldest_unsent_ms=0), ["certificate_expired"]),
        (Membership(days_left=5, oldest_unsent_ms=0), ["certificate_ending"]),
        (Membership(days_left=None, oldest_unsent_ms=0), []),
        (Membership(days_left=60, oldest_unsent_ms=30 * 3_600_000), ["unsent_long"]),
    ],
)
def test_membership(member: Membership, wanted: list[str]) -> None:
    assert over(WELL, member) == wanted


def test_without_a_line_the_hub_is_not_blamed() -> None:
    line = Line()
    found = [*line_checks.judge_line(line), *line_checks.judge_hub(line, MEMBER)]
    assert worst(found) is BY_NAME["no_address"]
    assert all(each.verdict is not Verdict.FAIL for each in found if each.group is Group.HUB)
