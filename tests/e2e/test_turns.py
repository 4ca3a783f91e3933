"""The link gets too thin to talk live in a call: both ends speak in turns, are understood, and are live again by
themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.turns import allowed_s, prove
from tests.linklab.lab import unavailable_reason

REASON = unavailable_reason()
KBPS, RTT_S = 12.0, 0.3


@pytest.mark.e2e
@pytest.mark.skipif(REASON is not None, reason=f"no link lab here: {REASON}")
async def test_a_call_goes_on_in_turns_and_live_again(tmp_path: Path) -> None:
    proof = await prove(kbps=KBPS, rtt_s=RTT_S, loss=0.0, folder=tmp_path, said=print)
    assert proof.turns_at_kiosk_s < 20
    assert proof.turns_at_doctor_s < 25
    for turn in proof.turns:
        assert turn.delivered_s <= allowed_s(turn, RTT_S), turn
        assert turn.understood.share >= 0.9, turn
        assert turn.understood.pesq >= 2.5, turn
    assert proof.live_again_s < 30
