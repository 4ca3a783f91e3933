"""A kiosk's identity on disk, interrupted anywhere."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from edge_agent.core.csr import read_request
from edge_agent.core.joining import IdentityReply
from edge_agent.identity import Identity, IdentityDamaged, NewIdentity, NotJoined
from hub.authority import Authority
from tests.adapters.identities import new_authority, new_identity

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return new_authority(tmp_path_factory.mktemp("ca"))


def reply_for(authority: Authority, request: str, kiosk: str) -> IdentityReply:
    certificate = authority.issue(read_request(request).signing, kiosk)
    sealing = authority.seal_key.public_key().public_bytes_raw().hex()
    return IdentityReply(
        kiosk, "Clinic", certificate.public_bytes(Encoding.PEM).decode(), authority.pem, authority.signer_pem, sealing,
        "127.0.0.1", 8883,
    )  # fmt: skip


def test_who_has_not_joined_is_told_how(tmp_path: Path) -> None:
    with pytest.raises(NotJoined, match="teleconsult join CODE"):
        Identity.load(tmp_path / "identity")


def test_the_keys_are_private_and_found_again(tmp_path: Path) -> None:
    first, second = NewIdentity(tmp_path / "s" / "identity"), NewIdentity(tmp_path / "s" / "identity")
    assert read_request(first.request).signing_der == read_request(second.request).signing_der
    assert read_request(first.request).sealing_raw == read_request(second.request).sealing_raw
    made = tmp_path / "s" / "identity.new"
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()} == {0o600}
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_a_key_that_was_half_written_is_made_anew(tmp_path: Path) -> None:
    NewIdentity(tmp_path / "identity")
    (tmp_path / "identity.new" / "sign.key").write_text("-----BEGIN PRIV")
    assert read_request(NewIdentity(tmp_path / "identity").request)


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
from edge_agent.core.joining import IdentityReply
from edge_agent.identity import NewIdentity
import msgspec

left = int(sys.argv[2])

def counted(function):
    def call(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call

new = NewIdentity(Path(sys.argv[1]))
for name in ("rename", "replace", "fsync", "unlink", "rmdir"):
    setattr(os, name, counted(getattr(os, name)))
new.take("http://hub", msgspec.json.decode(Path(sys.argv[3]).read_bytes(), type=IdentityReply))
print("done")
"""


def test_a_kill_at_any_step_leaves_one_identity_or_the_other(tmp_path: Path, authority: Authority) -> None:
    """A kiosk that joins anew: until the change it is who it was, after it whom the hub says; the join can go on."""
    seen = set()
    for step in range(40):
        folder = tmp_path / str(step) / "identity"
        new_identity(folder, authority, "old-1")
        new = NewIdentity(folder)
        answer = tmp_path / "reply.json"
        answer.write_bytes(msgspec.json.encode(reply_for(authority, new.request, "new-2")))
        done = subprocess.run(
            [sys.executable, "-c", KILLED, folder, str(step), answer],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        kiosk = Identity.load(folder).kiosk
        seen.add(kiosk)
        if kiosk == "old-1":
            assert NewIdentity(folder).request.count("\n") == new.request.count("\n")
            assert read_request(NewIdentity(folder).request).signing_der == read_request(new.request).signing_der
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    else:
        pytest.fail("it never came to its end")
    assert seen == {"old-1", "new-2"}
    assert step > 6, "too few steps were looked at"


@pytest.mark.parametrize("wrong", ["key", "kiosk", "certificate", "signer", "seal_key", "ca"])
def test_an_answer_that_does_not_fit_changes_nothing(tmp_path: Path, authority: Authority, wrong: str) -> None:
    other = new_authority(tmp_path / "other")
    before = new_identity(tmp_path / "identity", authority, "hill-1")
    new = NewIdentity(tmp_path / "identity")
    good = reply_for(authority, new.request, "hill-1")
    bad = {
        "key": {"certificate": before.certificate_pem},
        "kiosk": {"kiosk": "river-2"},
        "certificate": {"certificate": "-----BEGIN CERTIFICATE-----\n"},
        "signer": {"signer": authority.cert_path.read_text()},  # the server's: made for something else
        "seal_key": {"seal_key": "00"},
        "ca": {"ca": other.pem},
    }[wrong]
    with pytest.raises(IdentityDamaged, match="join the hub anew"):
        new.take("http://hub", msgspec.structs.replace(good, **bad))
    assert Identity.load(tmp_path / "identity").certificate == before.certificate
    assert new.take("http://hub", good).signing_key.public_key() != before.signing_key.public_key()


def test_damage_on_disk_is_called_so(tmp_path: Path, authority: Authority) -> None:
    identity = new_identity(tmp_path / "identity", authority, "hill-1")
    (identity.folder / "hub.json").write_text("{")
    with pytest.raises(IdentityDamaged, match="join the hub anew"):
        Identity.load(identity.folder)
    new_identity(tmp_path / "identity", authority, "hill-1")
    os.unlink(identity.folder / "seal.key")
    with pytest.raises(IdentityDamaged, match=r"seal\.key"):
        Identity.load(identity.folder)
