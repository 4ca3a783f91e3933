"""The store after power cuts and kills, in short; `scripts/prove-store` has the long run."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.powercut import prove
from tests.powercut.disk import Disk, build, environment, read_log

SEED = 20_261_124
CUTS_A_CHAIN = 9

needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing, which builds the recorder")


@needs_compiler
@pytest.mark.parametrize("scene", prove.SCENES)
def test_what_was_said_to_be_saved_survives_power_cuts(memory, scene):
    proof = prove.chain(memory, build(memory), SEED, 0, CUTS_A_CHAIN, scene=scene)
    assert proof.failures == []
    assert (proof.done, proof.operations > 100) == (CUTS_A_CHAIN, True)


def test_and_kills(memory):
    proofs = [prove.kills(memory, SEED, number) for number in range(3)]
    assert [failure for proof in proofs for failure in proof.failures] == []
    assert sum(proof.done for proof in proofs) == 3 * prove.KILLS_A_STORE
    assert (
        sum(proof.operations for proof in proofs) > prove.KILLS_A_STORE
    )  # not all were killed before they did anything


@needs_compiler
@pytest.mark.parametrize("without", ["files", "folders", "all"])
def test_without_fsync_it_does_not(memory, without):
    """Or the proof would prove nothing."""
    recorder = build(memory)
    for number in range(12):
        if prove.chain(memory, recorder, SEED, number, CUTS_A_CHAIN, without, scene="new").failures:
            return
    pytest.fail(f"nothing was lost, though the fsync of {without} was left out")


@needs_compiler
def test_the_recorder_misses_nothing(memory):
    card, log = memory / "card", memory / "log"
    (card / "state").mkdir(parents=True)
    start = Disk(card)
    prove.live(card, build(memory), log, seed=1, cases=6)
    for operation in read_log(log):
        start.apply(operation)
    start.cut(memory / "image", "all", random.Random(1))
    assert contents(memory / "image") == contents(card)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@needs_compiler
def test_what_a_cut_leaves_of_files_and_folders(memory):
    """Of a program of a few lines, for which it can be told beforehand."""
    card, log = memory / "card", memory / "log"
    card.mkdir()
    (card / "old").write_bytes(b"o" * 3000)
    start = Disk(card)
    program = f"""
import os
def write(name, byte, sync):
    file = os.open({str(card)!r} + name, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(file, byte * 3000)
    sync and os.fsync(file)
    os.close(file)
write("/old", b"n", False)
write("/a", b"a", True)
write("/unsynced", b"u", False)
os.fsync(os.open({str(card)!r}, os.O_RDONLY))
write("/b", b"b", True)
os.rename({str(card)!r} + "/a", {str(card)!r} + "/c")
"""
    recorded = {**os.environ, **environment(build(memory), card, log)}
    subprocess.run([sys.executable, "-c", program], check=True, env=recorded)
    for operation in read_log(log):
        start.apply(operation)
    left = []
    for number in range(200):
        start.cut(memory / str(number), ("nothing", "some")[number > 0], random.Random(number))
        left.append(contents(memory / str(number)))
    assert left[0] == {"old": b"o" * 3000, "a": b"a" * 3000, "unsynced": b""}
    assert {("a" in each, "c" in each) for each in left} == {(True, False), (False, True)}
    assert {"b" in each for each in left} == {True, False}
    assert {each["b"] for each in left if "b" in each} == {b"b" * 3000}
    torn = {each["old"] for each in left}
    assert len(torn) > 10
    assert all(each[at : at + 512] in (b"o" * 512, b"n" * 512) for each in torn for at in range(0, 2560, 512))
