"""What the kernel says of a connection is what a meter of the link would count, on one that loses packets too."""

import subprocess
import sys

import pytest

from tests.linklab.lab import LinkLab, unavailable_reason
from tests.linklab.path import Loss, PathSpec, Rate

REASON = unavailable_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no link lab here: {REASON}")

SENT_BYTES = 150_000
ECHO = """
import socket
server = socket.create_server(("0.0.0.0", 9000)); print("ready", flush=True)
conn, _ = server.accept()
while data := conn.recv(65536):
    conn.sendall(data[: len(data) // 10])
"""
SOURCE = """
import pathlib, socket, sys
from edge_agent.tcp_info import tcp_info
sock = socket.create_connection((sys.argv[1], 9000))
twin = sock.dup()
sock.sendall(bytes(int(sys.argv[2]))); sock.shutdown(socket.SHUT_WR)
while sock.recv(65536): pass
sock.close()
lines = pathlib.Path("/proc/net/dev").read_text().splitlines()[2:]
(counts,) = [line.split(":")[1].split() for line in lines if not line.strip().startswith("lo:")]
carried = int(counts[0]) + int(counts[8])
print(tcp_info(twin).used_bytes, carried)
"""


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_the_kernel_counts_what_the_link_carries(loss: float):
    path = PathSpec(Rate.constant(512_000), delay_s=0.05, queue_s=0.3, loss=Loss(loss))
    with LinkLab(up=path, down=path) as lab:
        echo = lab.far.popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True)
        assert echo.stdout.readline() == "ready\n"
        done = lab.near.run(
            [sys.executable, "-c", SOURCE, lab.far.address, str(SENT_BYTES)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        counted, carried = map(int, done.stdout.split())
        print(f"loss {loss:.0%}: counted {counted}, the link carried {carried}: {100 * (counted / carried - 1):+.2f} %")
        assert counted == pytest.approx(carried, rel=0.02)
