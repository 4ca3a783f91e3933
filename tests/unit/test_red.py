"""RED (RFC 2198): what is built is read back, and nothing that arrives breaks the reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.red import MOST_BLOCK_BYTES, MOST_BLOCKS, MOST_OFFSET, Older, Red, RedError, build, parse

BLOCKS = st.lists(
    st.builds(Older, st.integers(0, MOST_OFFSET), st.binary(min_size=1, max_size=MOST_BLOCK_BYTES)), max_size=6
)


@given(st.integers(0, 127), st.binary(max_size=1500), BLOCKS)
def test_what_is_built_is_parsed(payload_type: int, payload: bytes, older: list[Older]) -> None:
    assert parse(build(payload_type, payload, older)) == Red(payload_type, payload, tuple(older))


@given(st.binary(max_size=200))
def test_nothing_but_its_own_error_comes_of_garbage(data: bytes) -> None:
    try:
        found = parse(data)
    except RedError:
        return
    assert len(found.older) <= MOST_BLOCKS
    assert len(found.payload) + sum(len(each.payload) for each in found.older) < len(data)


def test_the_bytes_are_the_rfcs() -> None:
    assert build(111, b"new", [Older(960, b"old")]).hex() == "ef0f0003" + "6f" + b"oldnew".hex()


def test_what_cannot_be_told_is_left_out() -> None:
    too_far, too_long = Older(MOST_OFFSET + 1, b"x"), Older(960, bytes(MOST_BLOCK_BYTES + 1))
    assert parse(build(111, b"new", [too_far, too_long])).older == ()


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_packet_cut_short_is_refused(cut: int) -> None:
    whole = build(111, b"", [Older(960, b"abc")])
    with pytest.raises(RedError):
        parse(whole[:-cut])
