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
from edge_agent.tls import BrokerTls
from hub import app, broker
from hub.config import AuthoritySection, BrokerSection, HubSettings, ListenSection, StoreSection
from tests.adapters.hub.rig import Broker, Hub
from tests.adapters.identities import new_authority, new_identity
from tests.e2e.program import free_port

V5 = aiomqtt.ProtocolVersion.V5


def hubs_client(hub: Hub, name: str | None = "_hub", password: str | None = None) -> aiomqtt.Client:
    given = hub.settings.broker_password_path.read_text().strip() if password is None else password
    return aiomqtt.Client(
        "127.0.0.1", hub.settings.broker.port, username=name, password=given if name else None, protocol=V5
    )


def kiosks_client(hub: Hub, kiosk: str, identifier: str | None = None) -> aiomqtt.Client:
    return aiomqtt.Client(
        "127.0.0.1", hub.settings.broker.listen_port, identifier=identifier, protocol=V5,
        tls_context=BrokerTls.of(hub.identity(kiosk)),
    )  # fmt: skip


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
    async with (
        hubs_client(bare) as hub,
        kiosks_client(bare, "hill-1") as hill,
        kiosks_client(bare, "river-2") as river,
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
    refused = [line for line in bare.broker.log.read_text().splitlines() if "Denied PUBLISH from hill-1" in line]
    assert any("tc1/river-2/u/e" in line for line in refused), "the broker's log does not tell of it"


async def test_a_kiosk_cannot_take_over_another_ones_session(bare: Hub):
    async with kiosks_client(bare, "hill-1", "hill-1") as hill, hubs_client(bare) as hub:
        async with kiosks_client(bare, "river-2", "hill-1") as river:
            await river.publish("tc1/river-2/u/e", b"x", qos=1)
        await hub.subscribe("tc1/#", qos=1)
        await hill.publish("tc1/hill-1/u/e", b"still here", qos=1)
        assert await everything_until(hub, "tc1/hill-1/u/e") == ["tc1/hill-1/u/e"]


@pytest.mark.parametrize(("name", "password"), [(None, ""), ("hill-1", "wrong"), ("nobody", "x"), ("_hub", "")])
async def test_nobody_else_gets_in_at_the_hubs_door(bare: Hub, name: str | None, password: str):
    with pytest.raises(aiomqtt.MqttError, match="Not authorized"):
        async with hubs_client(bare, name, password):
            pass


def no_certificate(bare: Hub) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=app.open_authority(bare.settings).pem)


def of_another_hub(bare: Hub) -> ssl.SSLContext:
    folder = bare.settings.data_dir.parent / "another"
    own = app.open_authority(bare.settings)
    return BrokerTls.of(new_identity(folder / "kiosk", new_authority(folder / "ca"), "hill-1", trusts=own))


def expired(bare: Hub) -> ssl.SSLContext:
    own = app.open_authority(bare.settings)
    return BrokerTls.of(new_identity(bare.settings.data_dir.parent / "expired", own, "hill-1", days=-1))


def the_hubs_own(bare: Hub) -> ssl.SSLContext:
    """A certificate that is made for something else."""
    own = app.open_authority(bare.settings)
    context = ssl.create_default_context(cadata=own.pem)
    context.load_cert_chain(own.cert_path, own.key_path)
    return context


@pytest.mark.parametrize("presents", [no_certificate, of_another_hub, expired, the_hubs_own])
async def test_nobody_else_gets_in_at_the_kiosks_door(bare: Hub, presents):
    port = bare.settings.broker.listen_port
    with pytest.raises((aiomqtt.MqttError, ssl.SSLError)):
        async with aiomqtt.Client("127.0.0.1", port, protocol=V5, tls_context=presents(bare), timeout=5) as client:
            await client.publish("tc1/hill-1/u/e", b"x", qos=1)
    with pytest.raises(aiomqtt.MqttError):  # in the clear
        async with aiomqtt.Client("127.0.0.1", port, username="hill-1", protocol=V5, timeout=3):
            pass


def test_our_password_hash_is_mosquittos(tmp_path):
    path = tmp_path / "passwords"
    path.write_text("kiosk:secret words\n")
    subprocess.run(["mosquitto_passwd", "-U", path], check=True, capture_output=True)
    theirs = path.read_text().strip().partition(":")[2]
    kind, rounds, salt, _ = theirs.split("$")[1:]
    assert (kind, rounds) == ("7", "101")
    assert broker.password_hash("secret words", base64.b64decode(salt)) == theirs


def test_files_that_another_owner_reads_stay_his(stopped_hub: Hub):
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    crl = stopped_hub.settings.broker_dir / "crl.pem"
    os.chown(crl, 4321, 4321)
    authority = app.open_authority(stopped_hub.settings)
    assert authority.revoke([17])
    assert broker.copy_certificates(stopped_hub.settings.broker_dir, authority)
    assert crl.stat().st_uid == 4321
    assert crl.read_text() == authority.crl_path.read_text()


async def test_kiosks_beyond_this_machine_are_told_its_address(tmp_path):
    """127.0.0.2 stands for the LAN."""
    settings = HubSettings(
        store=StoreSection(data_dir=str(tmp_path / "hub")),
        listen=ListenSection(names=("127.0.0.2",)),
        broker=BrokerSection(port=free_port(), listen_host="127.0.0.2", listen_port=free_port()),
        authority=AuthoritySection(plain_key=True),
    )
    server = Broker(settings)
    server.start()
    host, port = settings.kiosk_broker
    identity = new_identity(tmp_path / "kiosk", app.open_authority(settings), "hill-1")
    try:
        async with aiomqtt.Client(host, port, protocol=V5, tls_context=BrokerTls.of(identity)) as kiosk:
            await kiosk.publish(wire.up_topic("hill-1", "e"), b"x", qos=1)
    finally:
        server.kill()
