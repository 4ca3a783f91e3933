"""Which ports a demo takes, and that no other demo takes them too."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from kiosk.demo import USUAL_PORTS, claim_ports


def test_the_usual_ones_where_they_are_free_and_the_last_ones_again(tmp_path: Path) -> None:
    with contextlib.ExitStack() as claims, socket.create_server(("127.0.0.1", 0)) as busy:
        first = claim_ports(tmp_path, claims, any_ports=False)
        for port, usual in zip(first, USUAL_PORTS, strict=True):
            assert port == usual or not usual or is_busy(usual)
        assert busy.getsockname()[1] not in first
    with contextlib.ExitStack() as claims:
        assert claim_ports(tmp_path, claims, any_ports=True) == first


def test_another_demo_that_starts_at_the_same_moment_gets_others(tmp_path: Path) -> None:
    """Neither listens yet."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with contextlib.ExitStack() as claims:
        one = claim_ports(tmp_path / "one", claims, any_ports=False)
        two = claim_ports(tmp_path / "two", claims, any_ports=False)
        assert len({*one, *two}) == 8


def test_a_port_that_somebody_has_meanwhile_is_left_to_them(tmp_path: Path) -> None:
    with contextlib.ExitStack() as claims:
        first = claim_ports(tmp_path, claims, any_ports=True)
    with contextlib.ExitStack() as claims, socket.create_server(("127.0.0.1", first.hub)):
        again = claim_ports(tmp_path, claims, any_ports=True)
        assert again.hub != first.hub
        assert (again.broker, again.screen) == (first.broker, first.screen)


def test_a_torn_file_of_ports_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text("[84")
    with contextlib.ExitStack() as claims:
        assert all(claim_ports(tmp_path, claims, any_ports=True))


def is_busy(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False
