"""`scripts/build-bundle`, and `scripts/provision` on the root of a card that is prepared: what is taken from a bundle
and what is refused, and that a start that was killed is gone on with. `scripts/prove-field` has whole machines."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest

from edge_agent.core import release

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("openssl", "systemd-sysusers", "systemd-tmpfiles", "systemctl", "unshare")
MISSING = [name for name in NEEDED if shutil.which(name) is None]
CODE = "5DYH4-X6J0Z-S1FP2-7CEJV-JZG3B-8KYPK-M6TJK-S20G7"
ZONE = "Africa/Nairobi"

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not on this machine: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="what is installed belongs to root, and only root may give it"),
]


class Bundle:
    def __init__(self, folder: Path, version: str = "1.2") -> None:
        self.key = folder / "release.key"
        if not self.key.exists():
            subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", self.key], check=True)
        built = subprocess.run(
            [ROOT / "scripts/build-bundle", "--only-kit", "--key", self.key, "--to", folder, "--version", version],
            capture_output=True, text=True,
        )  # fmt: skip
        assert built.returncode == 0, built.stderr
        self.folder = folder / f"teleconsult-{version}"
        found = re.search(r"--key (\S+)", built.stdout)
        assert found
        self.fingerprint = found[1]

    def copy(self, to: Path) -> Path:
        shutil.copytree(self.folder, to)
        return to


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """As bare as can be: a folder that is to become the root of a system."""
    (tmp_path / "card/etc").mkdir(parents=True)
    return tmp_path / "card"


def command(bundle: Path, card: Path, *options: str) -> list[str]:
    return ["bash", str(bundle / "provision"), "--root", str(card), "--time-zone", ZONE, *options]


def provision(bundle: Path, card: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(bundle, card, *options), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
    )


def tree(card: Path) -> dict[str, str]:
    """Every file and link, but for what tells the time."""
    found = {}
    for path in sorted(card.rglob("*")):
        name = str(path.relative_to(card))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file() and "teleconsult-provision" not in name:
            found[name] = f"{path.stat().st_mode:o} {path.stat().st_uid} {path.read_bytes().hex()[:4000]}"
    return found


def refused(done: subprocess.CompletedProcess[str], card: Path, code: int = 1) -> str:
    """The one line; nothing of the bundle was installed."""
    assert done.returncode == code, done.stdout + done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("provision: ")]
    assert len(said) == 1, done.stderr
    assert not (card / "opt/teleconsult/current").is_symlink()
    assert not list((card / "opt").glob("teleconsult/releases/*"))
    return said[0]


def test_a_card_is_prepared_from_a_signed_bundle(bundle: Bundle, card: Path) -> None:
    done = provision(bundle.folder, card, "--key", bundle.fingerprint, CODE)
    assert done.returncode == 0, done.stdout + done.stderr
    installed = card / "opt/teleconsult/releases/1.2"
    assert os.readlink(card / "opt/teleconsult/current") == "releases/1.2"
    for name in ("kiosk/cli.py", "hub/migrations/env.py", "kiosk/static/app.js", "requirements/base.txt"):
        assert (installed / name).read_bytes() == (ROOT / name).read_bytes()
    assert os.access(installed / "scripts/apt-install", os.X_OK)
    assert os.readlink(card / "etc/localtime").endswith(ZONE)
    assert "teleconsult:" in (card / "etc/passwd").read_text()
    assert (card / "etc/systemd/system/multi-user.target.wants/teleconsult.target").is_symlink()
    assert (card / "etc/systemd/system/teleconsult.target.wants/teleconsult-agent.service").is_symlink()
    assert (card / "etc/teleconsult").stat().st_mode & 0o777 == 0o750
    state = card / "var/lib/teleconsult-provision/state"
    assert state.stat().st_mode & 0o777 == 0o600
    assert f"code={CODE}" in state.read_text()  # it has not been used
    before = tree(card)
    again = provision(bundle.folder, card)  # what was asked for is known, and so is whom the bundle is from
    assert again.returncode == 0, again.stderr
    assert tree(card) == before


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        ("a file of the kit", "kit/kiosk/cli.py of the bundle is damaged or was changed"),
        ("a file and its sum", "SHA256SUMS is not the one that the manifest names"),
        ("all but the signature", "the signature of this bundle is wrong"),
        ("another key", "signed by another key than"),
        ("no key", "whom is this bundle from? give --key"),
        ("not all of it", "has no SHA256SUMS: it is no bundle, or not all of it was copied"),
    ],
)
def test_a_bundle_that_was_changed_is_refused(bundle: Bundle, card: Path, tmp_path: Path, harm: str, says: str) -> None:
    folder, key = bundle.copy(tmp_path / "stick"), ["--key", bundle.fingerprint]
    victim, sums, manifest = folder / "kit/kiosk/cli.py", folder / "SHA256SUMS", folder / "manifest.json"
    if harm == "another key":
        key = ["--key", "0000-" * 5 + "0000"]
    elif harm == "no key":
        key = []
    elif harm == "not all of it":
        sums.unlink()
    else:
        victim.write_text(victim.read_text() + "\nprint('not ours')\n")
    if harm in ("a file and its sum", "all but the signature"):
        sums.write_text(re.sub(r"\S+(?=  kit/kiosk/cli.py\n)", digest(victim), sums.read_text()))
    if harm == "all but the signature":
        listed = json.loads(manifest.read_text())
        listed["files"]["SHA256SUMS"]["sha256"] = digest(sums)
        manifest.write_text(json.dumps(listed))
    assert says in refused(provision(folder, card, *key, CODE), card)


def digest(path: Path) -> str:
    return subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout[:64]


def test_what_the_manifest_does_not_name_is_not_taken(bundle: Bundle, card: Path, tmp_path: Path) -> None:
    folder = bundle.copy(tmp_path / "my stick")
    (folder / "kit/kiosk/extra.py").write_text("print('not ours')\n")
    assert provision(folder, card, "--key", str(folder / "release.pem"), CODE).returncode == 0
    assert not (card / "opt/teleconsult/releases/1.2/kiosk/extra.py").exists()


def test_a_script_that_is_known_looks_at_a_strangers_stick(bundle: Bundle, card: Path, tmp_path: Path) -> None:
    folder = bundle.copy(tmp_path / "stick")
    (folder / "provision").write_text("#!/bin/sh\necho all is well\n")
    known = ["bash", str(ROOT / "scripts/provision"), "--bundle", str(folder), "--root", str(card)]
    done = subprocess.run(
        [*known, "--key", bundle.fingerprint], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
    )
    assert "provision of the bundle is damaged or was changed" in refused(done, card)


def test_an_unsigned_bundle_is_taken_only_where_that_is_said(bundle: Bundle, card: Path, tmp_path: Path) -> None:
    folder = bundle.copy(tmp_path / "stick")
    (folder / "manifest.sig").unlink()
    assert "this bundle is not signed" in refused(provision(folder, card, "--key", bundle.fingerprint), card)
    done = provision(folder, card, "--unsigned", CODE)
    assert done.returncode == 0
    assert "NOT signed" in done.stdout


def test_it_is_a_release_as_the_updater_takes_it(bundle: Bundle) -> None:
    public = subprocess.run(
        ["openssl", "pkey", "-in", bundle.key, "-pubout", "-outform", "DER"], capture_output=True, check=True
    ).stdout[-32:]
    raw, signature = ((bundle.folder / name).read_bytes() for name in (release.MANIFEST, release.SIGNATURE))
    manifest, _ = release.verify(raw, signature, release.Keys(1, public.hex(), "00" * 32))
    release.check_fits(manifest, release.Machine("aarch64", "3.11"))
    assert (manifest.version, manifest.platform) == ("1.2", release.PLATFORM)
    assert "kit/kiosk/cli.py" in manifest.wanted(release.Machine("aarch64", "3.11"))


def test_a_kiosk_takes_bundles_by_the_keys_of_its_hub(bundle: Bundle, card: Path, tmp_path: Path) -> None:
    public = subprocess.run(
        ["openssl", "pkey", "-in", bundle.key, "-pubout", "-outform", "DER"], capture_output=True, check=True
    ).stdout[-32:]
    keys = card / "opt/teleconsult/keys.json"
    keys.parent.mkdir(parents=True)
    keys.write_bytes(msgspec.json.encode(release.Keys(1, "11" * 32, "22" * 32)))
    assert "by a key that this kiosk's hub did not tell it" in refused(provision(bundle.folder, card), card)
    keys.write_bytes(msgspec.json.encode(release.Keys(2, public.hex(), "22" * 32)))
    assert provision(bundle.folder, card).returncode == 0
    older = Bundle(bundle.folder.parent, "1.1.9").folder
    done = provision(older, card)
    assert "provision: release 1.1.9 is older than what runs here, 1.2" in done.stderr
    assert os.readlink(card / "opt/teleconsult/current") == "releases/1.2"


def test_killed_at_any_step_it_goes_on_there(bundle: Bundle, card: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    (whole / "etc").mkdir(parents=True)
    said = provision(bundle.folder, whole, "--key", bundle.fingerprint, CODE)
    # The others are left for the machine.
    steps = re.findall(r"✓ \[(\d+)/\d+\] .* \(\d+ s\)$", said.stdout, re.MULTILINE)
    assert len(steps) >= 5
    for number in steps:
        kiosk = subprocess.Popen(
            command(bundle.folder, card, "--key", bundle.fingerprint, CODE),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert kiosk.stdout is not None
        for line in kiosk.stdout:
            if f"… [{number}/" in line:
                break
        kill_with_children(kiosk.pid)
        kiosk.wait()
    done = provision(bundle.folder, card, "--key", bundle.fingerprint, CODE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tree(card) == tree(whole)


def kill_with_children(pid: int) -> None:
    """As when the power goes: nobody is asked."""
    victims = [pid]
    for each in victims:
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(each)], capture_output=True, text=True)
        victims += [int(word) for word in listed.stdout.split()]
    for each in victims:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["5DYH4-X6J0Z"], "is no code: eight groups of five"),
        (["--hub", CODE], "a code is for a kiosk"),
        (["--language", "tlh", CODE], "--language tlh: the kit speaks en fr sw"),
        (["--wifi", "Clinic", CODE], "--wifi-password-file"),
        (["--site"], "--site wants a value"),
        (["--frobnicate"], "--frobnicate is not an option"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(bundle: Bundle, card: Path, options: list[str], says: str) -> None:
    assert says in refused(provision(bundle.folder, card, *options), card, code=2)


def test_a_card_without_room_is_told_before_anything_is_done(bundle: Bundle, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    line = " ".join(command(bundle.folder, small, "--key", bundle.fingerprint, CODE))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs -o size=4m tmpfs {small} && mkdir {small}/etc && {line}"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert re.search(r"^provision: \d MB are free on .* and it takes \d+ MB", refused(done, small))


def test_a_wifi_is_kept_for_root_alone(bundle: Bundle, card: Path, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("correct horse\n")
    options = ("--wifi", "Clinic net", "--wifi-password-file", str(secret), "--apn", "internet")
    done = provision(bundle.folder, card, "--key", bundle.fingerprint, *options, CODE)
    assert done.returncode == 0, done.stderr
    connections = card / "etc/NetworkManager/system-connections"
    wifi = connections / "teleconsult-wifi.nmconnection"
    assert "ssid=Clinic net\n" in wifi.read_text()
    assert "psk=correct horse\n" in wifi.read_text()
    assert wifi.stat().st_mode & 0o777 == 0o600
    assert "apn=internet\n" in (connections / "teleconsult-modem.nmconnection").read_text()
    kept = (card / "var/lib/teleconsult-provision").rglob("*")
    assert "correct horse" not in done.stdout + "".join(path.read_text() for path in kept if path.is_file())
