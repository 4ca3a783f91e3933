"""The bill of materials says what is locked, and who needs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def bill(*words: str) -> dict:
    done = subprocess.run([sys.executable, ROOT / "scripts/sbom", *words], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(("words", "lock"), [((), "base"), (("--test",), "test")])
def test_all_that_is_locked_is_in_it_with_its_hashes_and_the_graph_is_whole(words, lock) -> None:
    text, made = (ROOT / f"requirements/{lock}.txt").read_text(), bill(*words)
    locked = {f"{name}=={version}" for name, version in re.findall(r"^([a-z0-9.-]+)==([^\s\\;]+)", text, re.MULTILINE)}
    assert {f"{each['name']}=={each['version']}" for each in made["components"]} == locked
    hashes = [one["hashes"][0]["content"] for each in made["components"] for one in each["externalReferences"]]
    assert sorted(hashes) == sorted(re.findall(r"sha256:([0-9a-f]{64})", text))
    kit = made["metadata"]["component"]["bom-ref"]
    needs = {each["ref"]: each["dependsOn"] for each in made["dependencies"]}
    assert set(needs) == {each["bom-ref"] for each in made["components"]} | {kit}
    reached, waiting = set(), [kit]
    while waiting:
        if (one := waiting.pop()) not in reached:
            reached.add(one)
            waiting += needs[one]
    assert reached == set(needs)


def test_the_same_lock_makes_the_same_file() -> None:
    assert bill() == bill()


def test_it_is_cyclonedx() -> None:
    """By the schema itself where the library that has it is installed (pip install cyclonedx-python-lib)."""
    pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed, which has the schema")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill())) is None
