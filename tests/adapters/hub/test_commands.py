"""The technician's commands, as they are typed, and what each leaves in the audit log."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

from edge_agent.core.joining import JoinRequest, parse_code
from edge_agent.identity import NewIdentity
from hub import app, audit, enrol
from tests.adapters.hub.rig import ROOT, Hub, now_ms
from tests.adapters.hub.test_audit import log
from tests.adapters.hub.test_identities import invite


def command(hub: Hub, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kiosk.cli", "hub", *words, "--config", str(hub.config)],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def said(hub: Hub, *words: str) -> str:
    done = command(hub, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def asks(hub: Hub, code: str, folder: Path) -> str:
    """A device with a code for new hardware; the key that it shows."""
    database = hub.database()
    try:
        enrolment = enrol.Enrolment(hub.settings, database, app.open_authority(hub.settings), now_ms)
        request = JoinRequest(parse_code(code).token.hex(), NewIdentity(folder).request)
        return repr(await enrolment.join(request)).partition("with key ")[2][:8]
    finally:
        database.close()


async def test_kiosks_are_listed_approved_refused_and_revoked(stopped_hub: Hub, tmp_path: Path):
    hub = stopped_hub
    keys = [await asks(hub, invite(hub, for_kiosk="hill-1"), tmp_path / name) for name in ("one", "two")]
    listed = said(hub, "kiosks", "list")
    for key in keys:
        assert f"    waits for approval (replaced, key {key})" in listed
    many = command(hub, "kiosks", "approve", "hill-1")
    assert many.returncode == 1
    assert "several devices ask to be hill-1" in many.stderr
    assert "Traceback" not in many.stderr
    said(hub, "kiosks", "refuse", "hill-1", "--key", keys[1])
    assert f"    was refused (replaced, key {keys[1]})" in said(hub, "kiosks", "list")
    assert "goes over to the new hardware" in said(hub, "kiosks", "approve", "hill-1")
    assert "river-2 is revoked (1 certificates)" in said(hub, "kiosks", "revoke", "river-2")
    what = [(what, about) for who, what, about in log(hub) if who.startswith("command:")]
    assert what[-3:] == [
        ("refused", f"kiosk:hill-1 key:{keys[1]}"), ("approved", f"kiosk:hill-1 key:{keys[0]}"),
        ("revoked", "kiosk:river-2"),
    ]  # fmt: skip


async def test_a_change_of_ca_from_beginning_to_end(stopped_hub: Hub, tmp_path: Path):
    hub = stopped_hub
    assert "CA 1  signs the hub's certificate and kiosks" in said(hub, "ca", "show")
    assert "CA 2 signs kiosks from now on" in said(hub, "ca", "rotate")
    assert "2 kiosks do not know CA 2 yet: hill-1, river-2" in said(hub, "ca", "show")
    before = hub.do(audit.head)
    for words, why in ((["rotate"], "still under way"), (["rotate", "--finish"], "would have to join anew")):
        refused = command(hub, "ca", *words)
        assert refused.returncode == 1
        assert why in refused.stderr
    assert hub.do(audit.head) == before, "nothing happened, so nothing is written"
    assert "CA 2 alone is trusted now" in said(hub, "ca", "rotate", "--finish", "--force")
    assert [what for who, what, _ in log(hub) if what.startswith("ca_")] == ["ca_rotated", "ca_rotation_finished"]
    assert said(hub, "audit", "verify").startswith("intact")


async def test_a_sheet_of_codes_is_for_its_owner_alone(stopped_hub: Hub, tmp_path: Path):
    sheet = tmp_path / "sheet.pdf"
    sheet.touch(0o644)
    said(stopped_hub, "invite", "--site", "Clinic by the River", "--count", "10", "--pdf", str(sheet))
    assert sheet.read_bytes().startswith(b"%PDF")
    assert stat.S_IMODE(sheet.stat().st_mode) == 0o600
    nameless = command(stopped_hub, "invite", "--site", " ")
    assert nameless.returncode == 1
    assert "Write the clinic's name" in nameless.stderr
