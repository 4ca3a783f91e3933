"""For all tests: Hypothesis' profiles, and what needs the machine to itself.

Hypothesis has no deadlines, since a busy machine is not a failure; `long` is for `scripts/fuzz`.

What judges sound and pictures in real time comes last with `pytest -n 4`, one after the other, when the other workers
have nothing left to do.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("kit", deadline=None)
settings.register_profile("long", deadline=None, max_examples=5000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kit")

REAL_TIME = (
    "tests/e2e/test_advice.py::test_the_doctor_rings_back",
    "tests/e2e/test_call.py::test_a_minute",
    "tests/e2e/test_call.py::test_the_patient_ends",
    "tests/e2e/test_call.py::test_an_emergency_stands_first",
    "tests/e2e/test_demo_link.py",
    "tests/e2e/test_link.py::test_the_call_comes_back",
    "tests/e2e/test_link.py::test_another_address",
    "tests/e2e/test_restarts.py::test_a_live_call",
    "tests/e2e/test_restarts.py::test_a_killed_media",
    "tests/e2e/test_pictures.py",
    "tests/e2e/test_tap.py",
    "tests/linklab/test_lab.py",
    "tests/adapters/test_egress.py",
    "tests/adapters/test_media_",
    "tests/adapters/test_sound_cards.py",
    "tests/adapters/test_turn",
    "tests/adapters/test_voice_in_chromium.py",
    "tests/bench/test_behind_nat.py",
    "tests/bench/test_call.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.nodeid.startswith(REAL_TIME))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return "real time" if nodeid.startswith(REAL_TIME) else nodeid.split("::", 1)[0]

    config.option.loadscopereorder = False  # as sorted above, not the largest first
    return ByFile(config, log)
