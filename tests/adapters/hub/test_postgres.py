"""The same on PostgreSQL, and with two hub processes on one database and one broker."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from edge_agent.core import sdp, wire
from hub import audit, console
from tests.adapters.hub.conftest import DOCTORS, KIOSKS
from tests.adapters.hub.rig import Broker, Hub
from tests.adapters.hub.test_audit import test_a_day_at_the_hub
from tests.adapters.hub.test_calls import (
    ANSWER,
    OFFER,
    test_a_call_from_press_to_hang_up,
    test_the_first_of_two_claims_wins,
)
from tests.adapters.hub.test_identities import (
    test_an_open_connection_ends_with_its_certificate,
    test_new_hardware_takes_over_by_approval_and_the_old_one_is_out,
)
from tests.adapters.hub.test_identity_races import (
    test_a_hub_that_is_killed_while_it_answers_has_given_all_or_nothing,
    test_a_renewal_does_not_outrun_a_revocation,
    test_one_approval_lets_one_device_in,
    test_one_code_lets_one_device_in_whichever_process_is_asked,
)
from tests.adapters.hub.test_intake import (
    test_a_case_arrives_and_its_files_are_equal,
    test_a_kiosk_cannot_touch_anothers_consult,
    test_every_message_twice_and_in_any_order,
    test_garbage_is_counted_and_the_hub_goes_on,
)
from tests.e2e.program import free_port

__all__ = [
    "test_a_call_from_press_to_hang_up",
    "test_a_case_arrives_and_its_files_are_equal",
    "test_a_day_at_the_hub",
    "test_a_hub_that_is_killed_while_it_answers_has_given_all_or_nothing",
    "test_a_kiosk_cannot_touch_anothers_consult",
    "test_a_renewal_does_not_outrun_a_revocation",
    "test_an_open_connection_ends_with_its_certificate",
    "test_every_message_twice_and_in_any_order",
    "test_garbage_is_counted_and_the_hub_goes_on",
    "test_new_hardware_takes_over_by_approval_and_the_old_one_is_out",
    "test_one_approval_lets_one_device_in",
    "test_one_code_lets_one_device_in_whichever_process_is_asked",
    "test_the_first_of_two_claims_wins",
]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The port of a cluster of its own, run by a user that is not root."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (pip install teleconsult-kit[postgres])")
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not on the path")
    user = pwd.getpwuid(os.geteuid()).pw_name
    if user == "root":
        try:
            user = pwd.getpwnam("postgres").pw_name
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/hub-postgres-XXXXXX"], text=True, user=user).strip())
    port = free_port()
    try:
        run = {"check": True, "user": user, "stdout": subprocess.DEVNULL, "cwd": "/"}
        subprocess.run(["initdb", "-A", "trust", "-U", "hub", "-N", folder / "data"], **run)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        subprocess.run(["pg_ctl", "-D", folder / "data", "-o", options, "-l", folder / "log", "-w", "start"], **run)
        yield str(port)
        subprocess.run(["pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"], **run)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def database_url(postgres: str, request: pytest.FixtureRequest) -> str:
    import psycopg

    name = f"t{abs(hash(request.node.name))}"
    with psycopg.connect(f"host=127.0.0.1 port={postgres} user=hub dbname=postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql+psycopg://hub@127.0.0.1:{postgres}/{name}"


@pytest.fixture
def stopped_hub(tmp_path: Path, template: Path, database_url: str) -> Iterator[Hub]:
    shutil.copytree(template / "data", tmp_path / "data")
    hub = Hub(tmp_path)
    hub.set("store", f'database_url = "{database_url}"')
    hub.broker = Broker(hub.settings)
    for kiosk in KIOSKS:
        hub.add_kiosk(kiosk)
    for doctor in DOCTORS:
        hub.add_doctor(doctor)
    yield hub
    hub.kill()
    hub.broker.kill()


@pytest.mark.parametrize("statement", ["UPDATE audit SET at = 0", "DELETE FROM audit", "TRUNCATE audit"])
def test_the_database_refuses_changes_of_the_audit_log(stopped_hub: Hub, statement: str):
    with pytest.raises(DBAPIError, match="append-only"):
        stopped_hub.do(lambda session: session.execute(text(statement)) and None)
    assert stopped_hub.do(audit.verify).seq > 0


async def test_two_processes_are_one_hub(hub: Hub, tmp_path: Path):
    """The doctor's page is at one process; what the kiosk sends comes in at either."""
    second = Hub(tmp_path, like=hub, process="2")
    second.start()
    try:
        async with hub.kiosk("hill-1") as kiosk, hub.doctor("anna") as anna, second.doctor("ben") as ben:
            await kiosk.online()
            for round_ in range(4):
                consult, call = await kiosk.press()
                await anna.rings(call)
                await ben.rings(call)
                taker, other = (anna, ben) if round_ % 2 else (ben, anna)
                await taker.send(console.Claim(call=call.hex()))
                await kiosk.phase(call, "claimed")
                await other.rings(call, rings_me=False)
                for leg in (1, 2):
                    await kiosk.say(wire.Offer(call, leg, sdp.compress(OFFER)), consult)
                    await taker.until("offer", lambda f, at=(call, leg): (bytes.fromhex(f["call"]), f["leg"]) == at)
                await taker.send(console.SdpAnswer(call=call.hex(), leg=2, sdp=ANSWER))
                await kiosk.until(wire.Answer, lambda answer, call=call: answer.call == call)
                await taker.send(console.Talk(call=call.hex()))
                await kiosk.phase(call, "answered")
                await taker.send(console.HangUp(call=call.hex()))
                await kiosk.phase(call, "ended")
            # each answered to something: the broker shares the uplink out
            assert not [frame for frame in (*anna.got, *ben.got) if frame["type"] == "refused"]
        assert hub.do(audit.verify).seq > 20, "one chain, whoever was first"
    finally:
        second.kill()
