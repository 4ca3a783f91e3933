"""A call's trace: small, bounded, read back as it was, and replayed into the estimator as the call told it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.allocator import Allocator
from edge_agent.core.estimator import Estimator
from edge_agent.core.trace import FIRST, LAST, MAGIC, Story, Trace, TraceError, svg, told
from edge_agent.core.transport_cc import Fate
from edge_agent.core.voice import Direction
from kiosk import cli

LINK_BPS = 200_000.0


def call(seconds: float) -> tuple[Trace, Estimator]:
    """One that is heard over a link of 200 kbit/s and 100 ms, with a report each 100 ms."""
    trace, estimator, allocator = Trace(100.0, None), Estimator(100.0), Allocator()
    waiting: list[Fate] = []
    free_at = 0.0
    trace.answered(0.2, 216, 100.0)
    estimator.take_rtt(0.2, 100.0, 216)
    for tick in range(round(seconds * 50)):
        now = 100.0 + tick * 0.02
        size = max(100, round(estimator.rate_bps * 0.02 / 8))
        trace.left(size, now)
        estimator.sent(size, now)
        free_at = max(free_at, now) + 8 * size / LINK_BPS
        waiting.append(Fate(tick, size, now, None if tick % 50 == 0 else free_at + 7.1))
        if tick % 5 == 4:
            came = [fate for fate in waiting if fate.sent_at + 0.2 <= now]
            waiting = waiting[len(came) :]
            trace.told(came, now)
            estimator.take_fates(came, now)
            estimator.tick(now)
            way = Direction(estimator.rate_bps)
            trace.decided(allocator.share(way, way, now), estimator.queue_s, now)
        if tick % 50 == 49:
            trace.reported(0.02, 0.21, now)
            estimator.take_receiver_report(0.02, 0.21, now)
    return trace, estimator


def test_what_was_kept_is_replayed_as_it_was() -> None:
    trace, estimator = call(20.0)
    data = trace.pack()
    story = Story(data)

    assert len(data) < 20_000
    assert story.seconds == pytest.approx(20.0, abs=0.1)
    assert story.replayed()[-1][1] == pytest.approx(estimator.rate_bps, rel=0.1)
    assert [share for _, share in story.lost()] == pytest.approx([0.02] * 20, abs=0.004)
    assert max(bps for _, bps in story.sent_bps()) > 50_000
    assert story.decisions[0].voice_bps > 0
    assert "pictures 120 lines at 7.50/s" in told(story)
    assert svg(story).count("<polyline") == 5


def test_a_long_call_keeps_its_beginning_and_its_end() -> None:
    trace, _ = call(240.0)
    story = Story(trace.pack())
    assert len(trace.pack()) < 100_000
    assert len(story.events) == FIRST + LAST
    assert story.events[0][1] == 0.0
    assert story.seconds == pytest.approx(240.0, abs=0.1)


@pytest.mark.parametrize("data", [b"", b"TCT2", MAGIC, MAGIC + b"x", call(1.0)[0].pack()[:-20]])
def test_what_is_no_trace_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(TraceError, match="trace of a call"):
        Story(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_trace_or_none(data: bytes) -> None:
    with pytest.raises(TraceError):
        Story(MAGIC + data)


def test_the_command_tells_it_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "call.trace"
    file.write_bytes(call(5.0)[0].pack())
    assert cli.main(["trace", str(file), "--svg", str(tmp_path / "call.svg")]) == 0
    assert "kbit/s  voice" in capsys.readouterr().out
    assert (tmp_path / "call.svg").read_text().startswith("<svg")

    file.write_bytes(b"not one")
    assert cli.main(["trace", str(file)]) == 2
    assert "no trace of a call" in capsys.readouterr().err
    assert cli.main(["trace", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err
