"""Connecting when the network is there, when it is not, and when it comes while somebody waits."""

from __future__ import annotations

import contextlib
import errno
import inspect
import socket
import sys
import time
from collections.abc import Iterator

import paho.mqtt.client
import pytest

from edge_agent import dial
from edge_agent.dial import Dialler

SND_WND = 228  # in struct tcp_info, linux/tcp.h


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        yield server


def address(server: socket.socket) -> dial.Address:
    return socket.AF_INET, server.getsockname()


def port_of_nobody() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return int(closed.getsockname()[1])


def test_paho_makes_its_sockets_where_the_kit_puts_its_own_in() -> None:
    source = inspect.getsource(paho.mqtt.client.Client)
    assert "sock = self._create_socket_connection()" in source
    assert "MQTT_ERR_NO_CONN, None" in inspect.getsource(paho.mqtt.client.Client.subscribe)  # asks for no CONNACK


@pytest.mark.parametrize("hurried", [True, False])
def test_a_connection_is_made_and_carries(server: socket.socket, hurried: bool) -> None:
    with Dialler(lambda: hurried).dial("localhost", server.getsockname()[1], 5.0) as sock:
        far, _ = server.accept()
        with far:
            sock.sendall(b"hello")
            assert far.recv(10) == b"hello"
        assert sock.gettimeout() == 5.0


@pytest.mark.parametrize("hurried", [True, False])
def test_a_refusal_is_told_at_once(hurried: bool) -> None:
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        Dialler(lambda: hurried).dial("127.0.0.1", port_of_nobody(), 5.0)
    assert time.monotonic() - began < 1.0


def test_a_name_that_nobody_knows_is_told() -> None:
    with pytest.raises(socket.gaierror):
        Dialler(lambda: False).dial("no-such-host.invalid", 1, 5.0)


def test_the_known_address_is_tried_while_the_name_is_looked_up(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialler = Dialler(lambda: False)
    port = server.getsockname()[1]
    dialler.dial("localhost", port, 5.0).close()

    def no_answer(*_: object, **__: object) -> list[object]:
        time.sleep(2.0)  # a resolver without a network
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_answer)
    began = time.monotonic()
    dialler.dial("localhost", port, 5.0).close()
    assert time.monotonic() - began < 1.0


def test_an_address_that_has_changed_is_found_behind_the_known_one(server: socket.socket) -> None:
    dialler = Dialler(lambda: False)
    port = server.getsockname()[1]
    dialler._known = ("127.0.0.1", port, [(socket.AF_INET, ("127.0.0.1", port_of_nobody()))])
    dialler.dial("127.0.0.1", port, 5.0).close()
    assert dialler._known[2] == [address(server)]


class NoRoute:
    """The kernel's answers to `connect` while a network is away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, codes: list[int]) -> None:
        self.asked = 0
        real = socket.socket.connect_ex

        def connect_ex(sock: socket.socket, far: object) -> int:
            self.asked += 1
            return codes.pop(0) if codes else real(sock, far)  # type: ignore[arg-type]

        monkeypatch.setattr(dial.socket.socket, "connect_ex", connect_ex)


def test_in_a_hurry_it_waits_for_a_route(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    network = NoRoute(monkeypatch, [errno.ENETUNREACH] * 3)
    began = time.monotonic()
    Dialler(lambda: True).dial("127.0.0.1", server.getsockname()[1], 5.0).close()
    assert network.asked == 4
    assert 2 * dial.UNREACHABLE_AGAIN_S < time.monotonic() - began < 6 * dial.UNREACHABLE_AGAIN_S


def test_without_a_hurry_no_route_is_told_at_once(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    NoRoute(monkeypatch, [errno.ENETUNREACH] * 3)
    with pytest.raises(OSError, match="unreachable"):
        Dialler(lambda: False).dial("127.0.0.1", server.getsockname()[1], 5.0)


@pytest.fixture
def swallowing() -> Iterator[dial.Address]:
    """A port that takes connections in and says nothing, as a dead link does: its queue is full."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        stack.enter_context(socket.create_connection(server.getsockname()))
        yield socket.AF_INET, server.getsockname()


def test_in_a_hurry_attempts_overlap_and_the_first_that_connects_wins(
    server: socket.socket, swallowing: dial.Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial, "AGAIN_S", 0.05)
    real, targets, most = dial._Attempts.start, [], 0

    def start(self: dial._Attempts, _: dial.Address) -> OSError | None:
        """The link comes back after nine attempts."""
        nonlocal most
        targets.append(address(server) if len(targets) >= 9 else swallowing)
        error = real(self, targets[-1])
        most = max(most, len(self.open))
        return error

    monkeypatch.setattr(dial._Attempts, "start", start)
    began = time.monotonic()
    with Dialler(lambda: True).dial("127.0.0.1", server.getsockname()[1], 5.0) as sock:
        assert sock.getpeername() == server.getsockname()
    assert time.monotonic() - began < 9 * (0.05 + dial._LOOK_S) + 1.0
    assert (len(targets), most) == (10, dial.MOST_ATTEMPTS)


def test_it_ends_in_time_where_nothing_answers(swallowing: dial.Address) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        Dialler(lambda: True).dial(*swallowing[1], 0.5)  # type: ignore[arg-type]
    assert 0.5 <= time.monotonic() - began < 1.0


@pytest.mark.parametrize("segment_bytes", [210, 536])
def test_both_ends_keep_to_short_segments(server: socket.socket, segment_bytes: int) -> None:
    with Dialler(lambda: False, segment_bytes).dial("127.0.0.1", server.getsockname()[1], 5.0) as sock:
        far, _ = server.accept()
        with far:
            for end in (sock, far):
                assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= segment_bytes


def test_the_far_end_may_have_no_more_under_way_than_the_window(server: socket.socket) -> None:
    with Dialler(lambda: False, 536, 4096).dial("127.0.0.1", server.getsockname()[1], 5.0) as sock:
        far, _ = server.accept()
        with far:
            sock.settimeout(5.0)

            def window_bytes() -> int:
                """What the far end takes for it, once it has sent what it was allowed before."""
                for _ in range(4):
                    far.sendall(bytes(1500))
                    sock.recv(1500, socket.MSG_WAITALL)
                info = far.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                return int.from_bytes(info[SND_WND : SND_WND + 4], sys.byteorder)

            assert window_bytes() <= 4096
            dial.bound_window(sock, 1800)
            assert window_bytes() <= 1800
            dial.bound_window(sock, 4096)
            assert 1800 < window_bytes() <= 4096


def test_timeouts_are_bounded_where_the_kernel_can(server: socket.socket) -> None:
    with Dialler(lambda: True).dial("127.0.0.1", server.getsockname()[1], 5.0) as sock:
        try:
            usual_ms = sock.getsockopt(socket.IPPROTO_TCP, dial._TCP_RTO_MAX_MS)
        except OSError:
            dial.limit_timeouts(sock, 1.5)  # says nothing
            pytest.skip("Linux before 6.15 cannot")
        dial.limit_timeouts(sock, 1.5)
        assert sock.getsockopt(socket.IPPROTO_TCP, dial._TCP_RTO_MAX_MS) == 1500
        dial.limit_timeouts(sock, None)
        assert sock.getsockopt(socket.IPPROTO_TCP, dial._TCP_RTO_MAX_MS) == usual_ms


def test_a_burst_is_stretched(server: socket.socket) -> None:
    with Dialler(lambda: False, 536).dial("127.0.0.1", server.getsockname()[1], 5.0) as sock:
        far, _ = server.accept()
        with far:
            far.settimeout(5.0)

            def takes_s() -> float:
                began, missing = time.monotonic(), 40_000
                sock.sendall(bytes(missing))
                while missing:
                    missing -= len(far.recv(missing))
                return time.monotonic() - began

            dial.pace(sock, 400_000)
            paced_s = takes_s()
            assert 0.5 < paced_s < 3.0  # 0.8 s; the first ten segments go unpaced
            dial.pace(sock, None)
            assert takes_s() < paced_s / 2
