"""Tests that keep real time on a machine that others use too."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")

ATTEMPTS = 5


def in_real_time(test: Callable[P, None]) -> Callable[P, None]:
    """Tries a test of timing again when it fails: another process may have had the processor. What is wrong in the
    code is wrong every time."""

    @functools.wraps(test)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> None:
        for _ in range(ATTEMPTS - 1):
            try:
                return test(*args, **kwargs)
            except (AssertionError, OSError):
                continue
        return test(*args, **kwargs)

    return attempt
