from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.ranges import ByteRanges

SIZE = 64
a_range = st.integers(0, SIZE - 1).flatmap(lambda start: st.tuples(st.just(start), st.integers(start + 1, SIZE)))
some_ranges = st.lists(a_range, max_size=20)


def bytes_of(ranges):
    return {byte for start, end in ranges for byte in range(start, end)}


@given(some_ranges)
def test_holds_exactly_the_bytes_added(ranges):
    held = ByteRanges(ranges)
    assert bytes_of(held) == bytes_of(ranges)
    assert held.total_bytes == len(bytes_of(ranges))


@given(some_ranges)
def test_has_one_form(ranges):
    held = ByteRanges(ranges)
    assert all(end < start for (_, end), (start, _) in pairwise(held)), "sorted, disjoint and not adjacent"
    assert held == ByteRanges(reversed(ranges)) == ByteRanges(held.as_tuple())


@given(some_ranges, st.integers(0, SIZE + 5))
def test_missing_is_the_complement(ranges, size):
    held = ByteRanges(ranges)
    gaps = list(held.missing(size))
    assert bytes_of(gaps) == set(range(size)) - bytes_of(ranges)
    assert all(start < end for start, end in gaps)
    for start, end in gaps:
        held.add(start, end)
    assert held.covers(0, size)
    assert not list(held.missing(size))


@given(some_ranges, a_range)
def test_covers(ranges, asked):
    assert ByteRanges(ranges).covers(*asked) == (bytes_of([asked]) <= bytes_of(ranges))


@pytest.mark.parametrize(("start", "end"), [(3, 3), (4, 3), (-1, 3)])
def test_refuses_what_is_no_range(start, end):
    with pytest.raises(ValueError, match="not a byte range"):
        ByteRanges().add(start, end)


def test_adjacent_ranges_become_one():
    assert ByteRanges([(0, 4), (8, 12), (4, 8)]).as_tuple() == ((0, 12),)
