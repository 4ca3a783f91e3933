"""Whose word makes a release, and what an update does next."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.release import (
    PLATFORM,
    Keys,
    Machine,
    ReleaseError,
    SignedManifest,
    check_fits,
    distribution_of,
    follow,
    read_manifest,
    version_key,
)
from edge_agent.core.updating import (
    AGAIN_S,
    LEAST_CHUNK_BYTES,
    MOST_TRIES,
    TRIAL_S,
    Agent,
    Known,
    allowance,
    next_chunk,
    next_step,
)
from tests.releases import KEYS, NEXT, RECOVERY, SIGNING, make_manifest, public, write_release

SIGN = Path(__file__).resolve().parents[2] / "scripts/sign-release"
PI = Machine("aarch64", "3.11")
FILES = {"kit/kiosk/cli.py": b"print()\n"}


def signed(key, version="1.1", **more) -> SignedManifest:
    raw = make_manifest(version, FILES, **more)
    return SignedManifest(raw, key.sign(raw))


# --- signatures and keys


@pytest.mark.parametrize("key", [SIGNING, RECOVERY])
def test_either_key_makes_a_release(key) -> None:
    manifest, keys = follow([signed(key)], KEYS)
    assert (manifest.version, keys) == ("1.1", KEYS)


def test_no_other_does_and_no_byte_may_change() -> None:
    for each in (signed(NEXT), SignedManifest(signed(SIGNING).manifest + b" ", signed(SIGNING).signature)):
        with pytest.raises(ReleaseError, match="not by this kiosk's release key"):
            follow([each], KEYS)


def test_a_new_signing_key_is_announced_by_the_old_one() -> None:
    after = Keys(2, public(NEXT), public(RECOVERY))
    announced = signed(SIGNING, keys=after)
    assert follow([announced], KEYS)[1] == after
    assert follow([announced, signed(NEXT, "1.2")], KEYS)[0].version == "1.2"
    with pytest.raises(ReleaseError, match="not by"):
        follow([announced, signed(SIGNING, "1.2")], KEYS)  # the old one is over
    with pytest.raises(ReleaseError, match="not by"):
        follow([signed(NEXT, "1.2")], KEYS)  # a kiosk that missed the announcement needs it


def test_a_lost_signing_key_is_survived_by_the_recovery_key() -> None:
    after = Keys(2, public(NEXT), public(RECOVERY))
    assert follow([signed(RECOVERY, keys=after)], KEYS)[1] == after


def test_a_stolen_signing_key_does_not_take_the_recovery_keys_place() -> None:
    thief = Keys(2, public(NEXT), "ab" * 32)
    with pytest.raises(ReleaseError, match="recovery key alone"):
        follow([signed(SIGNING, keys=thief)], KEYS)
    assert follow([signed(RECOVERY, keys=thief)], KEYS)[1] == thief


def test_an_announcement_said_again_moves_nobody_back() -> None:
    now = Keys(3, public(NEXT), public(RECOVERY))
    assert follow([signed(RECOVERY, keys=Keys(2, public(SIGNING), public(RECOVERY)))], now)[1] == now


# --- manifests


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"version": "../1"}, "no version"),
        ({"files": {}}, "names 0 files"),
        ({"files": {"kit/../../etc/passwd": {"sha256": "0" * 64, "size": 1}}}, "where none may be"),
        ({"files": {"/etc/passwd": {"sha256": "0" * 64, "size": 1}}}, "where none may be"),
        ({"files": {"kit/.venv/bin/python": {"sha256": "0" * 64, "size": 1}}}, "where none may be"),
        ({"files": {"kit/a\nb": {"sha256": "0" * 64, "size": 1}}}, "where none may be"),
        ({"files": {"kit/a": {"sha256": "x", "size": 1}}}, "no SHA-256"),
        ({"files": {"kit/a": {"sha256": "0" * 64, "size": -1}}}, "no SHA-256"),
        ({"keys": {"number": 0, "signing": "0" * 64, "recovery": "1" * 64}}, "no release keys"),
        ({"keys": {"number": 1, "signing": "0" * 64, "recovery": "0" * 64}}, "the same"),
    ],
)
def test_a_wrong_manifest_is_one_line(wrong, says) -> None:
    raw = json.dumps({**json.loads(make_manifest("1.0", FILES)), **wrong}).encode()
    with pytest.raises(ReleaseError, match=says) as caught:
        read_manifest(raw)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_manifest_or_refused(raw) -> None:
    with pytest.raises(ReleaseError):
        read_manifest(raw)


def test_a_later_release_may_say_more() -> None:
    raw = json.dumps({**json.loads(make_manifest("1.0", FILES)), "colour": "red"}).encode()
    assert read_manifest(raw).version == "1.0"


def test_what_needs_newer_units_is_refused() -> None:
    with pytest.raises(ReleaseError, match="newer units"):
        check_fits(read_manifest(make_manifest("1.0", FILES, platform=PLATFORM + 1)), PI)


WHEELS = {
    "wheels/numpy-2.2.1-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl": True,
    "wheels/numpy-2.2.1-cp313-cp313-manylinux_2_17_aarch64.manylinux2014_aarch64.whl": False,
    "wheels/numpy-2.2.1-cp311-cp311-manylinux_2_17_x86_64.whl": False,
    "wheels/cryptography-46.0.1-cp39-abi3-manylinux_2_28_aarch64.whl": True,
    "wheels/cryptography-46.0.1-cp314-abi3-manylinux_2_28_aarch64.whl": False,
    "wheels/six-1.17.0-py2.py3-none-any.whl": True,
    "wheels/sounddevice-0.5.1-py3-none-any.whl": True,
    "wheels/README": False,
}


@pytest.mark.parametrize("wheel", WHEELS)
def test_a_wheel_is_for_this_machine(wheel) -> None:
    assert PI.takes(wheel) == WHEELS[wheel]


def test_a_kiosk_wants_the_kit_and_its_own_wheels() -> None:
    files = {**FILES, "debs/bookworm-arm64/a_1%3a2.deb": b"", "provision": b"", **dict.fromkeys(WHEELS, b"w")}
    manifest = read_manifest(make_manifest("1.0", files))
    assert set(manifest.wanted(PI)) == {*FILES, *(wheel for wheel, ours in WHEELS.items() if ours)}
    with pytest.raises(ReleaseError, match="not for armv7l"):
        manifest.wanted(Machine("armv7l", "3.11"))
    assert distribution_of("wheels/six-1.17.0-py2.py3-none-any.whl") == "six-1.17.0"


def test_versions_count() -> None:
    ordered = ["0.9", "0.10", "1.0", "1.0.1", "1.0.10", "2.0"]
    assert sorted(ordered, key=version_key) == ordered
    assert version_key("1.0+a0b1c2d3") == version_key("1.0")


# --- what an update does next

WELL = Agent(quiet=True, broker_up=True, media_up=True, version="1.0")
OLD = Known("1.0", "1.0", WELL, may_fetch_bytes=10**6)
OFFERED = dataclasses.replace(OLD, wanted="1.1")
READY = dataclasses.replace(OFFERED, has_files=True, prepared=True)
TRIAL = Known("1.1", "1.0", dataclasses.replace(WELL, version="1.1"))


@pytest.mark.parametrize(
    ("known", "do"),
    [
        (OLD, "nothing"),
        (OFFERED, "fetch"),
        (dataclasses.replace(OFFERED, agent=dataclasses.replace(WELL, quiet=False)), "nothing"),
        (dataclasses.replace(OFFERED, may_fetch_bytes=LEAST_CHUNK_BYTES - 1), "nothing"),
        (dataclasses.replace(OFFERED, has_files=True), "prepare"),
        (dataclasses.replace(OFFERED, has_files=True, tries=1), "nothing"),  # it could not be made ready
        (READY, "switch"),
        (dataclasses.replace(READY, agent=dataclasses.replace(WELL, quiet=False)), "nothing"),
        (dataclasses.replace(READY, agent=dataclasses.replace(WELL, broker_up=False)), "nothing"),
        (dataclasses.replace(READY, agent=dataclasses.replace(WELL, broker_up=False), by_hand=True), "switch"),
        (dataclasses.replace(READY, agent=None), "switch"),  # it is down: worse it cannot get
        (dataclasses.replace(READY, tries=1, since_try_s=AGAIN_S[1] - 1), "nothing"),
        (dataclasses.replace(READY, tries=1, since_try_s=AGAIN_S[1]), "switch"),
        (dataclasses.replace(READY, tries=1, since_try_s=-5), "switch"),  # the clock was put back
        (dataclasses.replace(READY, tries=MOST_TRIES, since_try_s=10**9), "nothing"),
        (TRIAL, "confirm"),
        (dataclasses.replace(TRIAL, agent=None), "watch"),
        (dataclasses.replace(TRIAL, agent=WELL), "watch"),  # the old one still answers
        (dataclasses.replace(TRIAL, agent=dataclasses.replace(WELL, version="1.1", broker_up=False)), "watch"),
        (dataclasses.replace(TRIAL, agent=dataclasses.replace(WELL, version="1.1", media_up=False)), "watch"),
        (dataclasses.replace(TRIAL, agent=None, trial_s=TRIAL_S), "go_back"),
        (dataclasses.replace(TRIAL, agent=None, trial_s=TRIAL_S, wanted="1.2"), "go_back"),
    ],
)
def test_the_next_step(known, do) -> None:
    step = next_step(known)
    assert step.do == do
    assert bool(step.why) == (do in ("nothing", "go_back"))


def test_chunks_follow_the_line() -> None:
    assert next_chunk(8192, 3.0) == 4096
    assert next_chunk(4096, 9.0) == LEAST_CHUNK_BYTES
    assert next_chunk(8192, 0.1) == 16384
    assert next_chunk(8192, 0.7) == 8192


def test_a_day_has_its_bytes() -> None:
    assert allowance(1000, spent_on=5, spent_bytes=400, today=5) == 600
    assert allowance(1000, spent_on=5, spent_bytes=4000, today=5) == 0
    assert allowance(1000, spent_on=5, spent_bytes=4000, today=6) == 1000


def test_keys_of_openssl_sign_a_release_and_their_successors(tmp_path) -> None:
    def script(*words: object) -> str:
        done = subprocess.run([SIGN, *map(str, words)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def read(folder) -> SignedManifest:
        return SignedManifest((folder / "manifest.json").read_bytes(), (folder / "manifest.sig").read_bytes())

    script("keys", tmp_path / "a")
    script("keys", tmp_path / "b", "--from", tmp_path / "a/keys.json")
    old, new = (Keys(**json.loads((tmp_path / each / "keys.json").read_text())) for each in "ab")
    assert (old.number, new.number, new.recovery) == (1, 2, old.recovery)
    release = write_release(tmp_path / "release", "1.1", FILES)
    script("sign", release, "--key", tmp_path / "a/signing.key")
    assert follow([read(release)], old)[1] == old
    script("sign", release, "--key", tmp_path / "a/signing.key", "--announce", tmp_path / "b/keys.json")
    assert follow([read(release)], old)[1] == new
    lost = write_release(tmp_path / "lost", "1.2", FILES)
    script("sign", lost, "--key", tmp_path / "a/recovery.key", "--announce", tmp_path / "b/keys.json")
    assert follow([read(lost)], old)[1] == new
    again = subprocess.run([SIGN, "keys", tmp_path / "a"], capture_output=True, text=True, check=False)
    assert (again.returncode, "never written over" in again.stderr) == (1, True)
