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
from typing import Any

import pytest
import segno
import tomli_w
from cryptography.hazmat.primitives.hashes import SHA256

from edge_agent.core.joining import HUB_NAME, CodeError, JoinCode, encode_code, join_link, parse_code
from edge_agent.core.settings import SettingsError
from edge_agent.discovery import HubAddress, find_hubs
from edge_agent.identity import Identity
from edge_agent.join import JoinError, NoHub, Refused, WrongHub, join, parse_address, renew
from edge_agent.join_qr import read_code
from hub.advertise import advertised
from hub.authority import Authority
from hub.keys import PASSPHRASE_FILE
from tests.adapters.identities import new_authority
from tests.e2e.program import Program, free_port

ROOT = Path(__file__).resolve().parents[2]
CLI = [sys.executable, "-m", "kiosk.cli"]


class Hub:
    def __init__(self, folder: Path, tls: str) -> None:
        self.address = HubAddress("127.0.0.1", free_port())
        self.toml = folder / "hub.toml"
        passphrase = folder / "passphrase"
        passphrase.write_text("the tests' own passphrase\n")
        self._env = {"PYTHONPATH": str(ROOT), PASSPHRASE_FILE: str(passphrase)}
        self.authority = Authority(folder / "data" / "ca", lambda: b"the tests' own passphrase")
        self.authority.ensure([HUB_NAME])  # not its address: the code says whom to trust, not where it is
        listen: dict[str, Any] = {"port": self.address.port}
        if tls == "own":
            listen |= {"tls_cert": str(self.authority.cert_path), "tls_key": str(self.authority.key_path)}
        elif tls == "of the web":  # what browsers know; kiosks are shown the hub's own
            web = new_authority(folder / "web")
            listen |= {"tls_cert": str(web.cert_path), "tls_key": str(web.key_path)}
        settings = {
            "store": {"data_dir": str(folder / "data")},
            "listen": listen,
            "broker": {"port": free_port(), "listen_port": free_port(), "kiosk_host": "hub.example"},
        }
        self.toml.write_text(tomli_w.dumps(settings))
        self.program = Program(
            "hub", [*CLI, "hub", "run", "--config", str(self.toml)], folder / "hub.log", self._env
        )  # fmt: skip
        self._folder = folder

    async def command(self, *words: str) -> list[str]:
        command = [*CLI, "hub", *words, "--config", str(self.toml)]
        program = Program("command", command, self._folder / "command.log", self._env)
        await program.start()
        assert await program.ended(30) == 0, program.tail()
        return [line.text.rstrip() for line in program.lines]

    async def invite(self, site: str = "Hill clinic", count: int = 1) -> str:
        lines = await self.command("invite", "--site", site, "--no-qr", "--count", str(count))
        return lines[0].strip()


@pytest.fixture(
    params=["own", pytest.param("of the web", marks=pytest.mark.long), ""],
    ids=["https", "https of the web", "plain on loopback"],
)
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
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "identity"


async def test_a_kiosk_gets_its_identity_once(hub: Hub, folder: Path) -> None:
    code = await hub.invite()
    identity = await asyncio.to_thread(join, code.lower().replace("-", " "), folder, hub.address)
    assert (identity.kiosk, identity.site, identity.broker[0]) == ("hill-clinic-1", "Hill clinic", "hub.example")
    assert identity.hub.endswith(f"://127.0.0.1:{hub.address.port}")
    assert [ca.fingerprint(SHA256()) for ca in identity.cas] == [hub.authority.fingerprint]
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert {path.name for path in folder.iterdir()} == {"sign.key", "seal.key", "kiosk.pem", "hub.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert [path.name for path in folder.parent.iterdir()] == ["identity"]

    with pytest.raises(JoinError, match="joined already, as hill-clinic-1"):
        join(code, folder, hub.address)
    with pytest.raises(Refused, match="used already, for kiosk hill-clinic-1"):
        await asyncio.to_thread(join, code, folder, hub.address, again=True)
    assert Identity.load(folder).certificate == identity.certificate

    same = await asyncio.to_thread(renew, identity)  # whichever certificate the hub shows to browsers
    assert isinstance(same, Identity)
    assert same.certificate == identity.certificate


async def test_a_kiosk_may_wish_for_its_name(hub: Hub, tmp_path: Path) -> None:
    first = await asyncio.to_thread(join, await hub.invite(), tmp_path / "a", hub.address, "river")
    assert first.kiosk == "river"
    code = await hub.invite()
    with pytest.raises(JoinError, match="There is a kiosk river already"):
        await asyncio.to_thread(join, code, tmp_path / "b", hub.address, "river")
    second = await asyncio.to_thread(join, code, tmp_path / "b", hub.address, "lake")
    assert second.kiosk == "lake"


async def test_another_hub_than_the_codes_is_told_nothing(hub: Hub, folder: Path) -> None:
    code = await hub.invite()
    foreign = encode_code(parse_code(code)._replace(fingerprint=bytes(10)))
    with pytest.raises(WrongHub, match=r"not the one that the code is from .* nothing was sent"):
        await asyncio.to_thread(join, foreign, folder, hub.address)
    assert not folder.exists()
    await asyncio.to_thread(join, code, folder, hub.address)  # the token was not used up


async def test_a_folder_that_cannot_be_written_costs_no_token(hub: Hub, folder: Path) -> None:
    code = await hub.invite()
    (folder.parent.parent / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be written"):
        await asyncio.to_thread(join, code, folder.parent.parent / "file" / "identity", hub.address)
    await asyncio.to_thread(join, code, folder, hub.address)


async def test_a_printed_code_is_read_by_the_camera(hub: Hub, folder: Path, tmp_path: Path) -> None:
    """Of ten on a sheet, as the command is typed."""
    sheet = tmp_path / "sheet.pdf"
    await hub.command("invite", "--site", "Hill clinic", "--count", "10", "--pdf", str(sheet))
    assert sheet.read_bytes().startswith(b"%PDF")
    listed = await hub.command("invite", "--list")
    assert len(listed) == 10
    await hub.command("invite", "--revoke", listed[0].split()[0])
    assert "withdrawn" in (await hub.command("invite", "--list"))[0]

    link = join_link("127.0.0.1", hub.address.port, await hub.invite())
    segno.make(link, error="m").save(str(tmp_path / "code.png"), scale=8, border=8)
    (tmp_path / "kiosk.toml").write_text(f'[kiosk]\nstate_dir = "{folder.parent}"\n')
    argv = [*CLI, "join", "--qr", "--camera", f"file:{tmp_path / 'code.png'}", "--config", str(tmp_path / "kiosk.toml")]
    program = Program("join", argv, tmp_path / "join.log", {"PYTHONPATH": str(ROOT)})
    await program.start()
    assert await program.ended(60) == 0, program.tail()
    assert "This kiosk is now hill-clinic-1 (Hill clinic)" in program.tail()
    assert Identity.load(folder).kiosk == "hill-clinic-1"


async def test_the_hub_is_found_on_the_network(hub: Hub, folder: Path) -> None:
    code = await hub.invite()
    async with advertised("127.0.0.1", hub.address.port, ["127.0.0.1"], loopback_too=True):
        found = await asyncio.to_thread(find_hubs, 10.0, ["127.0.0.1"])
        assert hub.address in found
        nobody = HubAddress("127.0.0.1", free_port())
        joined = await asyncio.to_thread(join, code, folder, find=lambda: [nobody, *found])
    assert joined.hub.endswith(f":{hub.address.port}")
    assert hub.address not in await asyncio.to_thread(find_hubs, 0.3, ["127.0.0.1"])  # others may run beside this test


async def test_a_hub_on_loopback_does_not_advertise() -> None:
    port = free_port()
    async with advertised("127.0.0.1", port, ["127.0.0.1"]):
        found = await asyncio.to_thread(find_hubs, 0.3, ["127.0.0.1"])
    assert port not in [each.port for each in found]


def test_a_picture_without_a_code_is_given_up(tmp_path: Path) -> None:
    segno.make("https://example.org", error="m").save(str(tmp_path / "other.png"), scale=8, border=8)
    said: list[str] = []
    with pytest.raises(CodeError, match="it is no join code"):
        read_code(f"file:{tmp_path / 'other.png'}", said.append, timeout_s=1.0)
    with pytest.raises(CodeError, match="nothing that looks like a QR code"):
        read_code("synthetic", said.append, timeout_s=1.0)


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


def tls_of(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.cert_path, authority.key_path)
    return context


async def test_who_shows_the_hubs_ca_and_is_not_the_hub_gets_no_token(hub: Hub, folder: Path, tmp_path: Path) -> None:
    """Between kiosk and hub, passing on what anybody may read."""
    code = await hub.invite()
    other = new_authority(tmp_path / "other")
    with (
        pretending(hub.authority.pem.encode(), tls_of(other)) as (address, sent),
        pytest.raises(WrongHub, match=r"has no certificate of it .* the token was not sent"),
    ):
        await asyncio.to_thread(join, code, folder, address)
    assert sent == []


@pytest.mark.parametrize("shown", [b"", b"<html>a router's page</html>"])
def test_what_is_no_hub_is_called_so(folder: Path, shown: bytes) -> None:
    with pretending(shown) as (address, sent), pytest.raises(NoHub, match="no teleconsult hub; check the address"):
        join(CODE, folder, address)
    assert sent == []


def test_nobody_at_the_address_says_how_to_give_another(folder: Path) -> None:
    with pytest.raises(NoHub, match=r"no hub answers at 127\.0\.0\.1:\d+ .*See --hub"):
        join(CODE, folder, HubAddress("127.0.0.1", free_port()))


def test_nobody_on_the_network_says_how_to_give_an_address(folder: Path) -> None:
    with pytest.raises(NoHub, match=r"no hub was found on this network; give its address: .*--hub HOST:PORT"):
        join(CODE, folder, find=lambda: [])


def test_no_network_says_how_to_give_an_address(folder: Path) -> None:
    def find() -> list[HubAddress]:
        raise OSError(101, "Network is unreachable")

    with pytest.raises(NoHub, match=r"Network is unreachable.*--hub HOST:PORT"):
        join(CODE, folder, find=find)


@pytest.mark.parametrize("text", ["", "hub", "hub:", "hub:0", "hub:70000", ":8443", "hub:port"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="HOST:PORT"):
        parse_address(text)


def test_addresses_of_both_kinds_are_read() -> None:
    assert parse_address("hub.local:8443") == ("hub.local", 8443)
    assert parse_address("[fe80::1]:8443") == ("fe80::1", 8443)
