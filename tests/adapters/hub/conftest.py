from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.hub.rig import Broker, Hub

KIOSKS = ("hill-1", "river-2")
DOCTORS = ("anna", "ben")


@pytest.fixture(scope="session", autouse=True)
def _mosquitto() -> None:
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed (apt install mosquitto)")


@pytest.fixture
def settings_of_hub() -> str:
    """What a test adds to the hub's TOML: override it."""
    return ""


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data of a CA, two kiosks and two doctors, made once: it takes a while."""
    folder = tmp_path_factory.mktemp("template")
    hub = Hub(folder)
    for doctor in DOCTORS:
        hub.add_doctor(doctor)
    Broker(hub.settings)
    for kiosk in KIOSKS:
        hub.add_kiosk(kiosk)
    return folder


@pytest.fixture
def stopped_hub(tmp_path: Path, template: Path, settings_of_hub: str) -> Iterator[Hub]:
    """With two kiosks and two doctors; broker not started, nor the hub."""
    for made in ("data", *KIOSKS):
        shutil.copytree(template / made, tmp_path / made)
    hub = Hub(tmp_path, settings_of_hub)
    hub.broker = Broker(hub.settings)
    yield hub
    hub.kill()
    hub.broker.kill()


@pytest.fixture
def hub(stopped_hub: Hub) -> Hub:
    stopped_hub.broker.start()
    stopped_hub.start()
    return stopped_hub
