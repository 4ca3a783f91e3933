"""The lab's link carries, dies silently, and comes back."""

import socket
import subprocess
import sys

import pytest

from tests.e2e.lab import Lab, LabUnavailable, open_lab

ECHO = """
import socket
server = socket.create_server(("0.0.0.0", 0))
print(server.getsockname()[1], flush=True)
while True:
    connection, _ = server.accept()
    while data := connection.recv(100):
        connection.sendall(data)
"""


@pytest.fixture
def lab():
    try:
        with open_lab() as lab:
            yield lab
    except LabUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def echo(lab: Lab):
    with subprocess.Popen(lab.command(sys.executable, "-c", ECHO), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


def test_the_kiosk_is_reached_over_the_road_and_on_its_own_loopback(lab: Lab, echo: int):
    with socket.create_connection((lab.village_address, echo), 2) as over_the_road:
        over_the_road.sendall(b"far")
        assert over_the_road.recv(10) == b"far"
    with lab.connect("127.0.0.1", echo) as inside:
        inside.sendall(b"near")
        assert inside.recv(10) == b"near"


@pytest.mark.parametrize(("take", "give"), [(Lab.cut, Lab.mend), (Lab.unplug, Lab.plug)])
def test_a_connection_lives_through_a_dead_link(lab: Lab, echo: int, take, give):
    with socket.create_connection((lab.village_address, echo), 2) as connection:
        take(lab)
        connection.settimeout(0.5)
        connection.sendall(b"lost?")
        with pytest.raises(TimeoutError):
            connection.recv(10)
        give(lab)
        connection.settimeout(10)
        assert connection.recv(10) == b"lost?"
