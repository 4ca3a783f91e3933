"""The hub's CA on disk: encrypted keys, short certificates, revocation lists that only grow, one CA after another."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge_agent.core.csr import SIGNS_FOR_THE_HUB
from edge_agent.core.joining import HUB_NAME
from hub.authority import Authority
from hub.keys import CREDENTIAL, PASSPHRASE_FILE, AuthorityError, passphrase_of_operator
from tests.adapters.identities import PASSPHRASE, new_authority

NAMES = [HUB_NAME, "localhost", "127.0.0.1"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return new_authority(tmp_path / "ca")


def a_key() -> ec.EllipticCurvePublicKey:
    return ec.generate_private_key(ec.SECP256R1()).public_key()


def test_secret_keys_are_encrypted_and_private(authority: Authority, tmp_path: Path) -> None:
    for name in ("ca-1.key", "signer.key", "seal.key"):
        path = tmp_path / "ca" / name
        assert path.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        assert path.stat().st_mode & 0o777 == 0o600
        assert serialization.load_pem_private_key(path.read_bytes(), PASSPHRASE)
    assert not authority.ensure(NAMES), "a second time it changes nothing"


def test_a_wrong_passphrase_and_none_are_told_apart(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match="the passphrase is another"):
        Authority(tmp_path / "ca", lambda: b"something else").issue(a_key(), "hill-1")
    with pytest.raises(AuthorityError, match=f"is encrypted; put a passphrase .* {PASSPHRASE_FILE}"):
        Authority(tmp_path / "ca", lambda: None).issue(a_key(), "hill-1")
    assert Authority(tmp_path / "ca", lambda: 1 / 0).fingerprint, "what is public needs none"  # type: ignore[arg-type]


def test_a_plain_key_is_encrypted_once_there_is_a_passphrase(tmp_path: Path) -> None:
    Authority(tmp_path, lambda: None).ensure(NAMES)
    assert (tmp_path / "ca-1.key").read_text().startswith("-----BEGIN PRIVATE KEY-----")
    Authority(tmp_path, lambda: PASSPHRASE).issue(a_key(), "hill-1")
    assert (tmp_path / "ca-1.key").read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")


def test_the_passphrase_is_the_operators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(PASSPHRASE_FILE, raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(AuthorityError, match="wants a passphrase"):
        passphrase_of_operator(plain_key=False)()
    assert passphrase_of_operator(plain_key=True)() is None
    assert "in the clear" in caplog.text
    (tmp_path / CREDENTIAL).write_text("from the service\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert passphrase_of_operator(plain_key=True)() == b"from the service"
    (tmp_path / "file").write_text("from the file \n")
    monkeypatch.setenv(PASSPHRASE_FILE, str(tmp_path / "file"))
    assert passphrase_of_operator(plain_key=False)() == b"from the file"
    (tmp_path / "file").write_text("short")
    with pytest.raises(AuthorityError, match="shorter than 12"):
        passphrase_of_operator(plain_key=False)()
    (tmp_path / "file").unlink()
    with pytest.raises(AuthorityError, match="cannot be read"):
        passphrase_of_operator(plain_key=False)()


def test_a_kiosks_certificate_is_short_and_good_for_one_thing(authority: Authority) -> None:
    certificate = authority.issue(a_key(), "hill-1")
    assert certificate.subject.rfc4514_string() == "CN=hill-1"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert abs(certificate.not_valid_after_utc - datetime.now(UTC) - timedelta(days=90)) < timedelta(hours=1)
    assert len(certificate.public_bytes(serialization.Encoding.DER)) < 400  # a handshake carries it
    assert len(authority.cert_path.read_text()) < 1000
    signer = x509.load_pem_x509_certificate(authority.signer_pem.encode())
    assert list(signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [SIGNS_FOR_THE_HUB]
    assert signer.public_key() == authority.signing_key.public_key()


def test_the_servers_certificate_is_renewed_by_itself(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    before = authority.cert_path.read_text()
    assert authority.ensure([*NAMES, "hub.example"]), "a name was added"
    named = authority.cert_path.read_text()
    assert named != before
    later = datetime.now(UTC) + timedelta(days=2 * 365 - 59)
    monkeypatch.setattr("hub.authority._today", lambda: later)
    assert authority.ensure([*NAMES, "hub.example"]), "it runs out"
    renewed = x509.load_pem_x509_certificate(authority.cert_path.read_bytes())
    assert renewed.not_valid_after_utc > later + timedelta(days=700)
    assert renewed.public_key() == x509.load_pem_x509_certificate(named.encode()).public_key()


def test_a_revocation_list_only_grows_and_counts_up(authority: Authority) -> None:
    def dates() -> list[datetime]:
        return [each.last_update_utc for each in authority._crls]

    first = dates()
    assert authority.revoke([17])
    assert authority.revoke([18])
    assert not authority.revoke([17])
    assert authority.revoked == {17, 18}
    assert dates()[0] > first[0]
    authority.rotate()
    assert authority.revoked == {17, 18}
    assert len(dates()) == 2


def test_a_hub_at_1970_makes_certificates_that_hold(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = authority.issue(a_key(), "hill-1")
    assert certificate.not_valid_before_utc < datetime(1970, 1, 3, tzinfo=UTC)
    assert certificate.not_valid_after_utc > datetime(2026, 1, 1, tzinfo=UTC)
    assert all(each.last_update_utc < datetime(1970, 1, 3, tzinfo=UTC) for each in authority._crls)


def test_the_old_key_is_gone_when_the_change_is_finished(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match="one CA only"):
        authority.finish_rotation(NAMES)
    old = authority.issue(a_key(), "hill-1")
    authority.rotate()
    assert authority.issued(old)
    assert authority.is_due(old)
    assert [ca.number for ca in authority.cas] == [1, 2]
    new = authority.finish_rotation(NAMES)
    assert new.number == 2
    assert sorted(path.name for path in (tmp_path / "ca").glob("ca-*")) == ["ca-2.key", "ca-2.pem"]
    assert not authority.issued(old)
    assert x509.load_pem_x509_certificate(authority.cert_path.read_bytes()).issuer == new.certificate.subject
    assert x509.load_pem_x509_certificate(authority.signer_pem.encode()).issuer == new.certificate.subject


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """In a child that is killed before its `step`th change on disk; whether it came to its end first."""
    child = os.fork()
    if child == 0:
        left = step

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **named)

            return call

        for name in ("rename", "replace", "fsync", "unlink", "open"):
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("what", ["first start", "rotate", "finish"])
def test_a_kill_at_any_step_leaves_a_ca_that_goes_on(tmp_path: Path, what: str) -> None:
    """And the same command can be given again."""
    made = tmp_path / "made"
    kiosk = a_key()
    before = None
    if what != "first start":
        authority = new_authority(made)
        authority.revoke([17])
        if what == "finish":
            authority.rotate()
        before = authority.issue(kiosk, "hill-1")
    for step in range(60):
        folder = tmp_path / str(step)
        if made.exists():
            shutil.copytree(made, folder)
        authority = Authority(folder, lambda: PASSPHRASE)
        work = {
            "first start": lambda at=authority: at.ensure(NAMES),
            "rotate": lambda at=authority: at.rotate(),
            "finish": lambda at=authority: at.finish_rotation(NAMES),
        }[what]
        ended = killed_at(step, work)
        authority.ensure(NAMES)  # as every command and every start of the hub does
        assert len(authority.cas) in ((1, 2) if before else (1,))
        if before is not None:
            assert authority.issued(before)
            assert authority.revoked == {17}
            authority.issue(kiosk, "hill-1").verify_directly_issued_by(authority.cas[-1].certificate)
            assert {each.issuer for each in authority._crls} == {ca.certificate.subject for ca in authority.cas}
            for pem in (authority.cert_path.read_text(), authority.signer_pem):
                assert authority.issued(x509.load_pem_x509_certificate(pem.encode()))
        if what == "rotate" and len(authority.cas) == 1:
            authority.rotate()
        if what != "first start" and len(authority.cas) == 2:
            authority.finish_rotation(NAMES)
        assert len(authority.cas) == 1
        if ended:
            break
    else:
        pytest.fail("it never came to its end")
    assert step > 8, "too few steps were looked at"
