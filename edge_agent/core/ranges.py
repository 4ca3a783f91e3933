"""A set of byte ranges: what the receiver of a file holds, and what the sender must still send.

Pure. Ranges are half-open `(start, end)`, and always sorted, disjoint and not adjacent, so that one set has one form:
the form that `wire.Have` carries and that both stores keep.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]


class ByteRanges:
    """Bytes held, as the union of the ranges added."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Add the bytes from `start` up to, not including, `end`. Raises ValueError on a range that is none."""
        if not 0 <= start < end:
            raise ValueError(f"not a byte range: {start}-{end}")
        first = bisect_left(self._ends, start)  # the first range that touches or follows
        last = bisect_right(self._starts, end)  # one past the last range that touches or precedes
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def missing(self, size: int) -> Iterator[Range]:
        """The gaps in a file of `size` bytes, in order."""
        at = 0
        for start, end in self:
            if start >= size:
                break
            if at < start:
                yield at, start
            at = end
        if at < size:
            yield at, size

    def covers(self, start: int, end: int) -> bool:
        """Whether every byte from `start` up to `end` is held; an empty range always is."""
        if start >= end:
            return True
        at = bisect_right(self._starts, start) - 1
        return at >= 0 and end <= self._ends[at]

    @property
    def total_bytes(self) -> int:
        return sum(self._ends) - sum(self._starts)

    def as_tuple(self) -> tuple[Range, ...]:
        return tuple(self)

    def __iter__(self) -> Iterator[Range]:
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByteRanges) and self._starts == other._starts and self._ends == other._ends

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"ByteRanges({list(self)!r})"
