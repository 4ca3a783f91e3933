import pytest

from tests.adapters.agent.rig import Broker, Hub, Kiosk


@pytest.fixture
async def broker(tmp_path):
    broker = Broker(tmp_path / "broker")
    await broker.start()
    yield broker
    await broker.stop()


@pytest.fixture
async def hub(broker):
    hub = Hub(broker)
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
async def kiosk(tmp_path, broker):
    kiosk = Kiosk(tmp_path / "kiosk", broker)
    await kiosk.start()
    yield kiosk
    await kiosk.stop()
