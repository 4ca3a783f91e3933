"""Mosquitto, as installed here, on the configuration that the hub writes."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import subprocess

import aiomqtt
import pytest

from edge_agent.core import wire
from hub import app, broker
from hub.config import BrokerSection, HubSettings, ListenSection, StoreSection
from tests.adapters.hub.rig import Broker, Hub, free_port

V5 = aiomqtt.ProtocolVersion.V5


def client(hub: Hub, name: str | None, password: str | None = None) -> aiomqtt.Client:
    return aiomqtt.Client("127.0.0.1", hub.settings.broker.port, username=name, password=password, protocol=V5)


async def everything_until(client: aiomqtt.Client, last: str) -> list[str]:
    topics = []
    async with asyncio.timeout(10):
        async for message in client.messages:
            topics.append(str(message.topic))
            if topics[-1] == last:
                return topics
    raise AssertionError("not reached")


@pytest.fixture
def bare(stopped_hub: Hub) -> Hub:
    """A broker without a hub."""
    stopped_hub.broker.start()
    return stopped_hub


async def test_a_kiosk_is_held_to_its_own_topics(bare: Hub):
    password = bare.settings.broker_password_path.read_text().strip()
    async with (
        client(bare, "_hub", password) as hub,
        client(bare, "hill-1", "hill-1-password") as hill,
        client(bare, "river-2", "river-2-password") as river,
    ):
        await hub.subscribe([("tc1/#", 1), ("tc1h/#", 1)])
        for topic in (
            "tc1/river-2/u/e", "tc1/river-2/d/e", "tc1/hill-1/d/e", "tc1/_/d/h/1", "tc1h/n", "tc1/_hub/u/c", "other",
        ):  # fmt: skip
            await hill.publish(topic, b"!", qos=0)
        await hill.publish("tc1/hill-1/u/e", b"mine", qos=1)
        assert await everything_until(hub, "tc1/hill-1/u/e") == ["tc1/hill-1/u/e"]

        await hill.subscribe([("#", 1), ("tc1/+/u/#", 1), ("tc1/river-2/d/#", 1), ("$share/hub/tc1/+/u/e", 1)])
        await river.publish("tc1/river-2/u/e", b"private", qos=1)
        await hub.publish("tc1/river-2/d/e", b"private", qos=1)
        await hub.publish("tc1h/n", b"private", qos=1)
        await hub.publish("tc1/_/d/h/1", b"for all", qos=1)
        await hub.publish("tc1/hill-1/d/e", b"mine", qos=1)
        heard = await everything_until(hill, "tc1/hill-1/d/e")
        assert set(heard) == {"tc1/_/d/h/1", "tc1/hill-1/d/e"}


@pytest.mark.parametrize(("name", "password"), [(None, None), ("hill-1", "wrong"), ("nobody", "x"), ("_hub", "")])
async def test_nobody_else_gets_in(bare: Hub, name: str | None, password: str | None):
    with pytest.raises(aiomqtt.MqttError, match="Not authorized"):
        async with client(bare, name, password):
            pass


async def test_a_kiosk_that_joins_needs_no_restart(bare: Hub):
    async with client(bare, "hill-1", "hill-1-password") as before:
        broker.set_password(bare.settings.broker_dir, "new-3", "fresh")
        broker.reload(bare.settings.broker_dir)
        async with asyncio.timeout(5):
            while True:
                try:
                    async with client(bare, "new-3", "fresh"):
                        break
                except aiomqtt.MqttError:
                    continue
        await before.publish("tc1/hill-1/u/e", b"still here", qos=1)
        broker.remove_user(bare.settings.broker_dir, "new-3")
        assert "new-3" not in (bare.settings.broker_dir / "passwords").read_text()


def test_our_password_hash_is_mosquittos(tmp_path):
    path = tmp_path / "passwords"
    path.write_text("kiosk:secret words\n")
    subprocess.run(["mosquitto_passwd", "-U", path], check=True, capture_output=True)
    theirs = path.read_text().strip().partition(":")[2]
    kind, rounds, salt, _ = theirs.split("$")[1:]
    assert (kind, rounds) == ("7", "101")
    assert broker.password_hash("secret words", base64.b64decode(salt)) == theirs


def test_a_file_that_another_owner_reads_stays_his(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    (tmp_path / "passwords").write_text("a:b\n")
    os.chown(tmp_path / "passwords", 4321, 4321)
    broker.set_password(tmp_path, "kiosk", "x")
    assert (tmp_path / "passwords").stat().st_uid == 4321


async def test_kiosks_beyond_this_machine_speak_tls(tmp_path):
    """127.0.0.2 stands for the LAN."""
    settings = HubSettings(
        store=StoreSection(data_dir=str(tmp_path)),
        listen=ListenSection(names=("127.0.0.2",)),
        broker=BrokerSection(port=free_port(), listen_host="127.0.0.2", listen_port=free_port()),
    )
    server = Broker(settings)
    broker.set_password(settings.broker_dir, "hill-1", "pw")
    server.start()
    host, port, tls = settings.kiosk_broker
    assert tls
    trusting = ssl.create_default_context(cadata=app.open_authority(settings).pem)
    try:
        async with aiomqtt.Client(
            host, port, username="hill-1", password="pw", protocol=V5, tls_context=trusting
        ) as kiosk:
            await kiosk.publish(wire.up_topic("hill-1", "e"), b"x", qos=1)
        with pytest.raises((aiomqtt.MqttError, ssl.SSLError)):
            async with aiomqtt.Client(
                host, port, username="hill-1", password="pw", tls_context=ssl.create_default_context()
            ):
                pass
        with pytest.raises(aiomqtt.MqttError):
            async with aiomqtt.Client(host, port, username="hill-1", password="pw", protocol=V5, timeout=3):
                pass
    finally:
        server.kill()
