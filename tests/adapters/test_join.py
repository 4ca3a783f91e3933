"""Joining a real hub over TLS, and those who only say that they are one."""

from __future__ import annotations

import asyncio
import ssl
import stat
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import tomli_w

from edge_agent.config import read_kiosk_settings
from edge_agent.core.joining import JoinCode, encode_code, parse_code
from edge_agent.core.settings import SettingsError
from edge_agent.discovery import HubAddress, find_hubs
from edge_agent.join import JoinError, NoHub, WrongHub, join, parse_address
from hub.advertise import advertised
from hub.authority import Authority
from tests.e2e.program import Program, free_port

ROOT = Path(__file__).resolve().parents[2]
CLI = [sys.executable, "-m", "kiosk.cli"]


class Hub:
    def __init__(self, folder: Path, tls: bool) -> None:
        self.address = HubAddress("127.0.0.1", free_port())
        self.toml = folder / "hub.toml"
        self.authority = Authority(folder / "data" / "ca")
        self.authority.ensure(["localhost"])  # not its address: the code says whom to trust, not the name
        listen = {"port": self.address.port}
        if tls:
            listen |= {"tls_cert": str(self.authority.cert_path), "tls_key": str(self.authority.key_path)}
        settings = {
            "store": {"data_dir": str(folder / "data")},
            "listen": listen,
            "broker": {
                "port": free_port(),
                "listen_host": "127.0.0.1",
                "listen_port": 8883,
                "kiosk_host": "hub.example",
            },
        }
        self.toml.write_text(tomli_w.dumps(settings))
        self.program = Program(
            "hub", [*CLI, "hub", "run", "--config", str(self.toml)], folder / "hub.log", {"PYTHONPATH": str(ROOT)}
        )
        self._folder = folder

    async def invite(self, site: str = "Hill clinic") -> str:
        command = [*CLI, "hub", "invite", "--site", site, "--no-qr", "--config", str(self.toml)]
        invited = Program("invite", command, self._folder / "invite.log", {"PYTHONPATH": str(ROOT)})
        await invited.start()
        assert await invited.ended(30) == 0, invited.tail()
        return invited.lines[0].text.strip()


@pytest.fixture(params=[True, False], ids=["https", "plain on loopback"])
async def hub(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Hub]:
    folder = tmp_path / "hub"
    folder.mkdir()
    hub = Hub(folder, tls=request.param)
    await hub.program.start()
    try:
        await hub.program.until_line("hub ready", 30)
        yield hub
    finally:
        await hub.program.stop()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "kiosk" / "kiosk.toml"
    file.parent.mkdir()
    file.write_text('# by the river\n[kiosk]\nlanguage = "sw"\n')
    return file


async def test_a_kiosk_gets_its_identity_once(hub: Hub, config: Path) -> None:
    code = await hub.invite()
    joined = await asyncio.to_thread(join, code.lower().replace("-", " "), config, hub.address)
    assert (joined.kiosk, joined.site, joined.hub) == ("hill-clinic-1", "Hill clinic", hub.address)

    settings = read_kiosk_settings(config)
    assert config.read_text().startswith('# by the river\n[kiosk]\nlanguage = "sw"\nid = "hill-clinic-1"\n')
    broker = settings.broker
    assert (broker.host, broker.port, broker.username) == ("hub.example", 8883, "hill-clinic-1")
    assert Path(broker.ca_file).read_text() == hub.authority.pem
    assert len(Path(broker.password_file).read_text().strip()) >= 24
    for kept in (config, Path(broker.ca_file), Path(broker.password_file)):
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    with pytest.raises(JoinError, match="joined already, as hill-clinic-1"):
        join(code, config, hub.address)
    before = config.read_text()
    with pytest.raises(JoinError, match="used already, for kiosk hill-clinic-1"):
        await asyncio.to_thread(join, code, config, hub.address, again=True)
    assert config.read_text() == before


async def test_a_kiosk_may_wish_for_its_name(hub: Hub, tmp_path: Path) -> None:
    first = await asyncio.to_thread(join, await hub.invite(), tmp_path / "a" / "k.toml", hub.address, "river")
    assert first.kiosk == "river"
    code = await hub.invite()
    with pytest.raises(JoinError, match="There is a kiosk river already"):
        await asyncio.to_thread(join, code, tmp_path / "b" / "k.toml", hub.address, "river")
    second = await asyncio.to_thread(join, code, tmp_path / "b" / "k.toml", hub.address, "lake")
    assert second.kiosk == "lake"


async def test_another_hub_than_the_codes_is_told_nothing(hub: Hub, config: Path) -> None:
    code = await hub.invite()
    foreign = encode_code(parse_code(code)._replace(fingerprint=bytes(10)))
    before = config.read_text()
    with pytest.raises(WrongHub, match=r"not the one that the code is from .* nothing was sent"):
        await asyncio.to_thread(join, foreign, config, hub.address)
    assert config.read_text() == before
    await asyncio.to_thread(join, code, config, hub.address)  # the token was not used up


async def test_a_configuration_that_cannot_be_written_costs_no_token(hub: Hub, config: Path) -> None:
    code = await hub.invite()
    config.write_text("kiosk.language = 'sw'\n")
    with pytest.raises(SettingsError, match=r"set kiosk\.id by hand"):
        await asyncio.to_thread(join, code, config, hub.address)
    (config.parent / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be written"):
        await asyncio.to_thread(join, code, config.parent / "file" / "kiosk.toml", hub.address)
    await asyncio.to_thread(join, code, config.parent / "other.toml", hub.address)


async def test_the_hub_is_found_on_the_network(hub: Hub, config: Path) -> None:
    code = await hub.invite()
    async with advertised("127.0.0.1", hub.address.port, ["127.0.0.1"], loopback_too=True):
        found = await asyncio.to_thread(find_hubs, 10.0, ["127.0.0.1"])
        assert hub.address in found
        nobody = HubAddress("127.0.0.1", free_port())
        joined = await asyncio.to_thread(join, code, config, find=lambda: [nobody, *found])
    assert joined.hub == hub.address
    assert await asyncio.to_thread(find_hubs, 0.3, ["127.0.0.1"]) == []


async def test_a_hub_on_loopback_does_not_advertise() -> None:
    async with advertised("127.0.0.1", 8443, ["127.0.0.1"]):
        assert await asyncio.to_thread(find_hubs, 0.3, ["127.0.0.1"]) == []


CODE = encode_code(JoinCode(bytes(10), bytes(10)))


class Pretender(BaseHTTPRequestHandler):
    """Shows `ca_pem` to whoever asks, and writes down what it is sent."""

    ca_pem = b""
    sent: list[bytes]

    def do_GET(self) -> None:
        self.send_response(200 if self.ca_pem else 404)
        self.end_headers()
        self.wfile.write(self.ca_pem)

    def do_POST(self) -> None:
        self.sent.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(500)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def pretending(ca_pem: bytes, context: ssl.SSLContext | None = None) -> Iterator[tuple[HubAddress, list[bytes]]]:
    sent: list[bytes] = []
    handler = type("Handler", (Pretender,), {"ca_pem": ca_pem, "sent": sent})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield HubAddress("127.0.0.1", server.server_address[1]), sent
        finally:
            server.shutdown()
            thread.join()


async def test_who_shows_the_hubs_ca_and_is_not_the_hub_gets_no_token(hub: Hub, config: Path, tmp_path: Path) -> None:
    """Between kiosk and hub, passing on what anybody may read."""
    code = await hub.invite()
    other = Authority(tmp_path / "other")
    other.ensure(["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(other.cert_path, other.key_path)
    with (
        pretending(hub.authority.pem.encode(), context) as (address, sent),
        pytest.raises(WrongHub, match=r"has no certificate of it .* the token was not sent"),
    ):
        await asyncio.to_thread(join, code, config, address)
    assert sent == []


@pytest.mark.parametrize("shown", [b"", b"<html>a router's page</html>"])
def test_what_is_no_hub_is_called_so(config: Path, shown: bytes) -> None:
    with pretending(shown) as (address, sent), pytest.raises(NoHub, match="no teleconsult hub; check the address"):
        join(CODE, config, address)
    assert sent == []


def test_nobody_at_the_address_says_how_to_give_another(config: Path) -> None:
    with pytest.raises(NoHub, match=r"no hub answers at 127\.0\.0\.1:\d+ .*See --hub"):
        join(CODE, config, HubAddress("127.0.0.1", free_port()))


def test_nobody_on_the_network_says_how_to_give_an_address(config: Path) -> None:
    with pytest.raises(NoHub, match=r"no hub was found on this network; give its address: .*--hub HOST:PORT"):
        join(CODE, config, find=lambda: [])


def test_no_network_says_how_to_give_an_address(config: Path) -> None:
    def find() -> list[HubAddress]:
        raise OSError(101, "Network is unreachable")

    with pytest.raises(NoHub, match=r"Network is unreachable.*--hub HOST:PORT"):
        join(CODE, config, find=find)


@pytest.mark.parametrize("text", ["", "hub", "hub:", "hub:0", "hub:70000", ":8443", "hub:port"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="HOST:PORT"):
        parse_address(text)


def test_addresses_of_both_kinds_are_read() -> None:
    assert parse_address("hub.local:8443") == ("hub.local", 8443)
    assert parse_address("[fe80::1]:8443") == ("fe80::1", 8443)
