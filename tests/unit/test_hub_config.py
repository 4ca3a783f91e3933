from __future__ import annotations

import pytest

from edge_agent.core.settings import SettingsError, effective
from hub.config import read_hub_settings


def read(tmp_path, text: str):
    path = tmp_path / "hub.toml"
    path.write_text(text)
    return read_hub_settings(path)


def test_works_without_a_file(tmp_path):
    settings = read_hub_settings(None)
    assert settings.database_url.startswith("sqlite:///")
    assert not settings.serves_https
    assert settings.kiosk_broker == ("127.0.0.1", 8883)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[sote]\n", ["sote", "unknown key", "store"]),
        ("[listen]\nhots = '::'\n", ["listen.hots", "unknown key", "host"]),
        ("[listen]\nport = 70000\n", ["listen.port", "70000", "65535"]),
        ("[site]\ntime_zone = 'Mars/Olympus'\n", ["site.time_zone", "Mars/Olympus", "Africa/Nairobi"]),
        ("[site]\ntime_zone = '../../etc/passwd'\n", ["site.time_zone"]),
        ("[listen]\ntls_cert = 'x.pem'\n", ["tls_cert and tls_key go together"]),
        ("[broker]\nhost = '192.168.1.5'\n", ["broker.host", "only TLS", "broker.ca_file"]),
        ("[ice]\nturn_urls = ['turn:x']\n", ["ice.turn_urls", "turn_secret"]),
        (
            "[ice]\nturn_urls = ['turns:x?transport=udp']\nturn_secret = 's'\n",
            ["ice.turn_urls", "turns:x?transport=udp"],
        ),
        ("[ice]\nstun_urls = ['http://x']\n", ["ice.stun_urls", "http://x", "stun:turn.example.org"]),
        ("[broker]\nprocess = 'a/b'\n", ["broker.process", "a/b"]),
        ("[listen\n", ["not valid TOML"]),
    ],
)
def test_says_file_and_key_and_what_is_allowed(tmp_path, text, words):
    with pytest.raises(SettingsError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(str(tmp_path / "hub.toml"))
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_every_way_to_a_turn_server(tmp_path):
    urls = ("turn:a.example", "turn:a.example:99?transport=udp", "turn:a.example?transport=tcp", "turns:a.example:443")
    settings = read(tmp_path, f"[ice]\nturn_urls = {list(urls)}\nturn_secret = 's'\n")
    assert settings.ice.turn_urls == urls


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        read_hub_settings(tmp_path / "none.toml")


def test_prints_no_secrets(tmp_path):
    settings = read(
        tmp_path,
        "[store]\ndatabase_url = 'postgresql://u:pw@db/hub'\n[ice]\nturn_urls = ['turn:x']\nturn_secret = 'hush'\n",
    )
    printed = effective(settings)
    assert "pw" not in printed
    assert "hush" not in printed


def test_kiosks_are_told_where_the_tls_listener_is(tmp_path):
    settings = read(tmp_path, "[listen]\nhost = '0.0.0.0'\nnames = ['hub.lan']\n[broker]\nlisten_host = '0.0.0.0'\n")
    assert settings.serves_https
    assert settings.kiosk_broker == ("hub.lan", 8883)
