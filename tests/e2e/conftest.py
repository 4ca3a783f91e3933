"""One running kit a module, known voices, and a doctor in a real browser. What failed comes with the programs' last
lines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from hub import console
from tests.e2e.console_client import ConsoleClient
from tests.e2e.doctor import Doctor
from tests.e2e.kiosk import Kiosk
from tests.e2e.kit import DOCTOR, Kit
from tests.e2e.pictures import make_camera_file
from tests.e2e.speech import DOCTOR as DOCTORS_WORDS
from tests.e2e.speech import PATIENT as PATIENTS_WORDS
from tests.e2e.speech import Samples, speak
from tests.e2e.tap import open_browser


class Voices:
    """What patient and doctor say, as samples and as files, and the doctor's numbered camera."""

    def __init__(self, folder: Path) -> None:
        self.patient_wav, self.doctor_wav = folder / "patient.wav", folder / "doctor.wav"
        self.patient: Samples = speak(*PATIENTS_WORDS, self.patient_wav)
        self.doctor: Samples = speak(*DOCTORS_WORDS, self.doctor_wav)
        self.doctor_camera = folder / "doctor.y4m"
        make_camera_file(self.doctor_camera)


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Voices:
    return Voices(tmp_path_factory.mktemp("voices"))


@pytest.fixture(scope="module")
def hub_settings() -> dict[str, dict[str, object]]:
    """Laid over the hub's configuration; a module may have its own."""
    return {}


@pytest.fixture(scope="module")
def kiosk_settings() -> dict[str, dict[str, object]]:
    return {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kit(
    tmp_path_factory: pytest.TempPathFactory, voices: Voices, hub_settings: dict, kiosk_settings: dict
) -> AsyncIterator[Kit]:
    """Broker, hub and one kiosk that has joined."""
    kit = Kit(tmp_path_factory.mktemp("kit"))
    try:
        await kit.start(hub_settings)
        await kit.add_kiosk("kiosk-one", voices.patient_wav, kiosk_settings)
        yield kit
    finally:
        await kit.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def kiosk(kit: Kit) -> AsyncIterator[Kiosk]:
    """The kit's first kiosk, idle and online at the start of each test and afterwards."""
    kiosk = kit.kiosks[0]
    await kit.settle()
    yield kiosk
    await kit.settle()


@pytest_asyncio.fixture(loop_scope="module")
async def available(kit: Kit) -> AsyncIterator[ConsoleClient]:
    """A doctor without a browser, available during the test."""
    client = ConsoleClient(kit.url, DOCTOR, kit.password)
    await client.open(available=True)
    yield client
    await client.send(console.SetAvailable(available=False))
    await client.close()


@pytest_asyncio.fixture(loop_scope="module")
async def doctors(kit: Kit, available: ConsoleClient) -> AsyncIterator[list[ConsoleClient]]:
    """Two of them, both available."""
    if not kit.rows("SELECT 1 FROM doctor WHERE name = 'Second'"):
        await kit.add_account("Second", "second-password")
    second = ConsoleClient(kit.url, "Second", "second-password")
    await second.open(available=True)
    yield [available, second]
    await second.send(console.SetAvailable(available=False))
    await second.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doctor(kit: Kit, voices: Voices) -> AsyncIterator[Doctor]:
    """The first account in a real browser, available; its scripts must not have complained at the end."""
    async with open_browser(voices.doctor_wav, voices.doctor_camera) as browser:
        doctor = await Doctor.sit_down(browser, kit.url, DOCTOR, kit.password)
        yield doctor
        assert await doctor.tap.errors() == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    kit = getattr(item, "funcargs", {}).get("kit") or getattr(getattr(item, "funcargs", {}).get("kiosk"), "kit", None)
    if report.failed and isinstance(kit, Kit):
        for program in kit.programs:
            report.sections.append((f"last lines of {program.name}", program.tail()))
    return report
