"""Pictures wait for their sound, by the far end's own clock."""

from __future__ import annotations

import pytest
from aiortc.rtp import RtcpRrPacket, RtcpSenderInfo, RtcpSrPacket
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.lipsync import MOST_HOLD_S, STALE_S, LipSync, Report, reports_in
from edge_agent.media.pictures import EncodedPicture, HeldPictures

VOICE, PICTURES = 7, 8
FAR_S = 3.9e9  # what the far end's clock says at 0 here
VOICE_AT, PICTURE_AT = 2**32 - 24_000, 2**32 - 9_000  # RTP times then; both begin anew within a second


def voice(at: float) -> int:
    """The RTP time of the voice that was said at `at`."""
    return (VOICE_AT + round(at * 48_000)) % 2**32


def picture(at: float) -> int:
    return (PICTURE_AT + round(at * 90_000)) % 2**32


def synced(voice_delay_s: float, until: float = 5.0) -> LipSync:
    """The reports come once a second, the voice is played `voice_delay_s` after it was said."""
    sync = LipSync(48_000, 90_000)
    for tick in range(round(until * 50)):
        now = tick / 50
        if tick % 50 == 10:
            sync.report(Report(VOICE, FAR_S + now, voice(now)))
            sync.report(Report(PICTURES, FAR_S + now + 0.1, picture(now + 0.1)))
        sync.voice_plays(VOICE, voice(now - voice_delay_s), now)
    return sync


def test_a_picture_waits_until_its_sound_is_played() -> None:
    sync = synced(0.3)
    assert sync.hold_s(PICTURES, picture(4.9), 5.0) == pytest.approx(0.2, abs=0.001)
    assert sync.hold_s(PICTURES, picture(4.75), 5.0) == pytest.approx(0.05, abs=0.001)
    assert sync.hold_s(PICTURES, picture(4.6), 5.0) == 0  # late already


def test_never_for_long() -> None:
    assert synced(0.6).hold_s(PICTURES, picture(5.0), 5.0) == MOST_HOLD_S
    assert synced(2.0).hold_s(PICTURES, picture(5.0), 5.0) == 0  # this cannot be lips and voice


def test_what_is_not_known_holds_nothing() -> None:
    sync = LipSync(48_000, 90_000)
    assert sync.hold_s(PICTURES, 0, 1.0) == 0
    sync.report(Report(PICTURES, FAR_S, picture(0)))
    sync.voice_plays(VOICE, voice(0), 0.2)
    assert sync.hold_s(PICTURES, picture(0), 0.2) == 0
    late = synced(0.3)
    assert late.hold_s(PICTURES, picture(5 + STALE_S), 5.1 + STALE_S) == 0


def test_a_delay_that_changes_is_followed_and_one_that_trembles_is_not() -> None:
    sync = synced(0.2)
    for tick in range(50):
        now = 5 + tick / 50
        sync.voice_plays(VOICE, voice(now - 0.2 - 0.03 * (tick % 2)), now)
    steady = sync.hold_s(PICTURES, picture(5.9), 6.0)
    assert steady == pytest.approx(0.115, abs=0.01)
    sync.voice_plays(VOICE, voice(6.0 - 0.6), 6.0)
    assert sync.hold_s(PICTURES, picture(5.7), 6.0) == pytest.approx(0.3, abs=0.001)


def test_reports_are_read_off_compound_packets() -> None:
    def sender_report(ssrc: int, ntp: int) -> RtcpSrPacket:
        info = RtcpSenderInfo(ntp_timestamp=ntp, rtp_timestamp=123, packet_count=1, octet_count=2)
        return RtcpSrPacket(ssrc=ssrc, sender_info=info)

    data = bytes(RtcpRrPacket(ssrc=1)) + bytes(sender_report(5, (77 << 32) + 2**31)) + bytes(sender_report(6, 0))
    assert list(reports_in(data)) == [Report(5, 77.5, 123)]


@given(st.binary(max_size=200))
def test_garbage_is_no_report_and_no_trouble(data: bytes) -> None:
    assert all(report.far_s > 0 for report in reports_in(data))


def test_held_pictures_keep_their_order() -> None:
    held = HeldPictures()
    first, second = EncodedPicture(True, 0, b"1"), EncodedPicture(False, 66, b"2")
    held.add(first, 1.2)
    held.add(second, 1.1)
    assert held.take(1.15) is None
    assert held.next_time() == 1.2
    assert [held.take(1.2), held.take(1.2), held.take(1.2)] == [first, second, None]
    held.add(first, 2.0)
    held.drop()
    assert held.next_time() is None
