"""The kernel's word on a change of addresses, in a network namespace of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from edge_agent.addresses import source_address

# Says "ready", then a line for each change; its own commands change the namespace that it is in.
WATCH = """
import asyncio, subprocess
from edge_agent import addresses

async def main():
    changes = asyncio.Queue()
    watch = addresses.AddressWatch(lambda: changes.put_nowait(addresses.source_address(("192.0.2.9", 9))))
    for command in (
        "ip link set lo up", "ip link add kit type veth peer name far", "ip address add 192.0.2.1/24 dev kit",
        "ip link set far up", "ip link set kit up",
    ):
        subprocess.run(command.split(), check=True)
    print(await asyncio.wait_for(changes.get(), 5), changes.empty(), flush=True)
    subprocess.run("ip address add 192.0.2.2/24 dev kit".split(), check=True)
    subprocess.run("ip address del 192.0.2.1/24 dev kit".split(), check=True)
    while (source := await asyncio.wait_for(changes.get(), 5)) == "192.0.2.1":
        pass
    print(source or "none", flush=True)
    subprocess.run("ip link set kit down".split(), check=True)
    while source := await asyncio.wait_for(changes.get(), 5):
        pass
    print("none", flush=True)
    watch.close()
    subprocess.run("ip link set kit up".split(), check=True)
    await asyncio.sleep(2 * addresses.SETTLE_S)
    print(changes.empty(), flush=True)

asyncio.run(main())
"""


def test_a_change_is_announced_once_it_has_settled() -> None:
    unshare = [shutil.which("unshare") or "", "-Urn"]
    if not unshare[0] or subprocess.run([*unshare, "ip", "link"], capture_output=True).returncode:
        pytest.skip("no network namespace can be made here")
    made = subprocess.run([*unshare, sys.executable, "-c", WATCH], capture_output=True, text=True, timeout=30)
    assert made.returncode == 0, made.stderr
    first, second, gone, closed = made.stdout.splitlines()
    assert first == "192.0.2.1 True"
    assert second in ("192.0.2.2", "none")  # deleting the first may take its whole net along, by the kernel's setting
    assert (gone, closed) == ("none", "True")


def test_the_address_that_packets_leave_from() -> None:
    assert source_address(("127.0.0.1", 9)) == "127.0.0.1"
    assert source_address(("::1", 9)) in ("::1", "")
