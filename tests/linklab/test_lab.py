"""Real packets through real namespaces: rate, delay, loss and queue as asked, within 5 %."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from tests.linklab.lab import LinkLab, unavailable_reason
from tests.linklab.path import Loss, PathSpec, Rate

REASON = unavailable_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no link lab here: {REASON}")

# Each sends numbered, time-stamped datagrams at a rate for a while; the sink prints what it got and when.
SOURCE = """
import socket, sys, time
address, size, rate_bps, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
gap, start, n = size * 8 / rate_bps, time.monotonic(), 0
while (now := time.monotonic()) < start + seconds:
    if now < start + n * gap:
        time.sleep(start + n * gap - now)
    out.sendto(f"{n} {time.monotonic()} ".encode().ljust(size - 28, b"."), (address, 9000))
    n += 1
print(n)
"""
SINK = """
import json, socket, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sock.bind(("0.0.0.0", 9000)); sock.settimeout(1.5)
print("ready", flush=True)
got = []
try:
    while True:
        data = sock.recv(2048).split(b" ")
        got.append((int(data[0]), float(data[1]), time.monotonic()))
except TimeoutError:
    print(json.dumps(got))
"""


def send(spec: PathSpec, size: int, rate_bps: float, seconds: float):
    with LinkLab(up=spec, down=PathSpec(Rate.constant(1e6))) as lab:
        sink = lab.far.popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True)
        assert sink.stdout.readline() == "ready\n"
        source = lab.near.run(
            [sys.executable, "-c", SOURCE, lab.far.address, str(size), str(rate_bps), str(seconds)],
            capture_output=True, text=True,
        )  # fmt: skip
        got = json.loads(sink.communicate()[0])
        return int(source.stdout), got, lab.up_counts


def test_rate_and_queue():
    _, got, counts = send(PathSpec(Rate.constant(64_000), queue_s=0.5), 250, 96_000, 8)
    # steady state: from the third second on the queue is full
    steady = [arrived for _, sent, arrived in got if sent > got[0][1] + 3]
    rate = (len(steady) - 1) * 250 * 8 / (steady[-1] - steady[0])
    assert rate == pytest.approx(64_000, rel=0.05)
    waits = sorted(arrived - sent for _, sent, arrived in got)
    assert waits[-1] == pytest.approx(0.5 + 250 * 8 / 64_000, rel=0.05)
    assert counts.overflowed


def test_delay():
    _, got, _ = send(PathSpec(Rate.constant(1e6), delay_s=0.3), 100, 8_000, 4)
    delays = sorted(arrived - sent for _, sent, arrived in got)
    assert delays[len(delays) // 2] == pytest.approx(0.3, rel=0.05)


def test_loss():
    sent, got, counts = send(PathSpec(Rate.constant(4e6), loss=Loss(0.2)), 100, 400_000, 4)
    assert sent == counts.offered
    assert 1 - len(got) / sent == pytest.approx(counts.lost / sent, abs=0.002)
    assert [n for n, _, _ in got] == sorted(n for n, _, _ in got)


def test_nothing_is_left_behind():
    with LinkLab(up=PathSpec(Rate.constant(1e6)), down=PathSpec(Rate.constant(1e6))) as lab:
        pids = (lab.near.pid, lab.far.pid)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert b"ll" not in subprocess.run(["ip", "-br", "link"], capture_output=True, check=True).stdout.split()


FAR = """
import socket
with socket.create_server(("10.77.0.2", 9001)) as server:
    print("waiting", flush=True)
    server.accept()[0].sendall(b"hello from afar")
"""
NEAR = """
import socket, sys, time
while True:
    try:
        print(socket.create_connection(("10.77.0.2", 9001)).recv(100).decode())
        sys.exit(7)
    except ConnectionRefusedError:
        time.sleep(0.05)
"""


def test_a_command_at_the_near_end():
    far = shlex.join([sys.executable, "-c", FAR])
    argv = ["-m", "tests.linklab", "--rate", "64:128", "--delay", "20", "--loss", "0:2", "--queue", "0.5", "--far", far]
    done = subprocess.run(
        [sys.executable, *argv, "--", sys.executable, "-c", NEAR], capture_output=True, text=True, check=False
    )
    assert done.returncode == 7, done.stderr
    assert "hello from afar" in done.stdout
    assert "link: 64 up 128 down, 20 ms, 0.5 s" in done.stderr
    assert "0 dropped by a full queue" in done.stderr
