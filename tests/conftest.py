"""For all tests: Hypothesis' profiles, and what needs the machine to itself.

Hypothesis has no deadlines, since a busy machine is not a failure; `long` is for `scripts/fuzz`.

What judges sound and pictures in real time comes last with `pytest -n 4`, two at a time, whole kits in one row and
parts in the other, when the other workers have nothing left to do.

What is marked `long` shows once more what another test shows, and runs with `--long` alone.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("kit", deadline=None)
settings.register_profile("long", deadline=None, max_examples=5000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kit")

REAL_TIME = (
    "tests/adapters/test_echo_of_sound_cards.py",
    "tests/e2e/test_advice.py::test_the_doctor_rings_back",
    "tests/e2e/test_call.py::test_sound_and_picture",
    "tests/e2e/test_call.py::test_the_patient_ends",
    "tests/e2e/test_call.py::test_an_emergency_stands_first",
    "tests/e2e/test_demo_link.py",
    "tests/e2e/test_firefox.py",
    "tests/e2e/test_link.py::test_the_call_comes_back",
    "tests/e2e/test_link.py::test_another_address",
    "tests/e2e/test_restarts.py::test_a_live_call",
    "tests/e2e/test_restarts.py::test_a_killed_media",
    "tests/e2e/test_pictures.py",
    "tests/e2e/test_tap.py",
    "tests/e2e/test_turns.py",
    "tests/linklab/test_lab.py",
    "tests/adapters/test_echo_of_sound_cards.py",
    "tests/adapters/test_egress.py",
    "tests/adapters/test_media_",
    "tests/adapters/test_sound_cards.py",
    "tests/adapters/test_turn",
    "tests/adapters/test_voice_in_chromium.py",
    "tests/bench/test_behind_nat.py",
    "tests/bench/test_call.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also what is marked `long`")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    items.sort(key=lambda item: item.nodeid.startswith(REAL_TIME))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith(REAL_TIME):
                return "kits in real time" if nodeid.startswith("tests/e2e/") else "parts in real time"
            return nodeid.split("::", 1)[0]

    config.option.loadscopereorder = False  # as sorted above, not the largest first
    return ByFile(config, log)
