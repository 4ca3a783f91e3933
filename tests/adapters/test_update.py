"""Updates of a kiosk: from a hub over HTTP and from a folder, onto a disk. What runs is a stand-in here;
`scripts/prove-update` has it under systemd."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge_agent.core.release import Keys, Machine, ReleaseError
from edge_agent.core.updating import TRIAL_S, Agent
from edge_agent.identity import Identity
from edge_agent.update import run as update_run
from edge_agent.update.installed import FALLBACK, Installed
from edge_agent.update.run import Update
from edge_agent.update.sources import HEADERS_BYTES, Folder, HubSource
from hub.releases import Releases, Stage
from kiosk.cli import main
from tests.adapters.hub.conftest import *  # noqa: F403 -- the fixture `hub`
from tests.adapters.hub.rig import Hub
from tests.adapters.identities import new_authority, new_identity
from tests.releases import KEYS, NEXT, RECOVERY, SIGNING, public, write_release

PI = Machine("x86_64", "3.11")
OLD = {"kit/kiosk/a.py": b"a = 1\n" * 900, "kit/kiosk/same.py": b"same\n" * 9000, "kit/requirements/base.txt": b"\n"}
NEW = {**OLD, "kit/kiosk/a.py": b"a = 2\n" * 900}
DAY_BYTES = 10**7
EVERYBODY = Stage(share=100)


class Kiosk:
    """What a restart would start, and how it is then."""

    def __init__(self, root: Path) -> None:
        self.installed = Installed(root)
        self.healthy, self.quiet, self.restarts = {"1.0", "1.1", "1.2"}, True, 0
        self.wall, self.mono, self.said = 1e9, 0.0, list[str]()
        self.running = self.installed.current

    def ask(self) -> Agent | None:
        if self.running not in self.healthy:
            return None
        return Agent(self.quiet, broker_up=True, media_up=True, version=self.running)

    def systemctl(self, word: str, unit: str) -> None:
        if word == "restart":
            self.restarts += 1
            self.running = self.installed.current

    def pause(self, seconds: float) -> None:
        self.mono += seconds

    def update(self, source, day_bytes: int = DAY_BYTES) -> Update:
        return Update(
            self.installed, source, self.ask, day_bytes, self.said.append, self.systemctl, build,
            lambda: self.wall, lambda: self.mono, self.pause,
        )  # fmt: skip


def build(release: Path, base: Path, wheels: list[Path]) -> None:
    (release / ".venv").mkdir()


@pytest.fixture
def kiosk(tmp_path: Path) -> Kiosk:
    bundle = write_release(tmp_path / "first", "1.0", OLD)
    shutil.copytree(bundle / "kit", tmp_path / "opt/releases/1.0")
    (tmp_path / "opt/releases/1.0/.venv").mkdir()
    (tmp_path / "opt/releases/1.0/.venv/.complete").touch()
    (tmp_path / "opt/current").symlink_to("releases/1.0")
    return Kiosk(tmp_path / "opt")


def folder(tmp_path: Path, version: str = "1.1", files=NEW, **more) -> Folder:
    return Folder(write_release(tmp_path / f"bundle-{version}", version, files, **more), PI)


def test_a_release_from_a_folder_takes_over(kiosk: Kiosk, tmp_path: Path) -> None:
    source = folder(tmp_path, files={**NEW, "kit/scripts/x": b"#!/bin/sh\n"})
    assert kiosk.update(source).run(KEYS)
    assert (kiosk.running, kiosk.installed.good, kiosk.restarts) == ("1.1", "1.1", 1)
    assert (kiosk.installed.path("1.1") / "kiosk/a.py").read_bytes() == NEW["kit/kiosk/a.py"]
    modes = [(kiosk.installed.path("1.1") / name).stat().st_mode & 0o111 for name in ("kiosk/a.py", "scripts/x")]
    assert modes == [0, 0o111]
    assert kiosk.installed.keys() == KEYS
    assert kiosk.update(source).run(None)  # again: nothing
    assert kiosk.restarts == 1


def test_one_that_does_not_get_well_is_left_and_tried_three_times(kiosk: Kiosk, tmp_path: Path) -> None:
    kiosk.healthy.remove("1.1")
    source = folder(tmp_path)
    source.by_hand = False  # as if from the hub
    for _ in range(5):
        assert not kiosk.update(source).run(KEYS)
        assert (kiosk.running, kiosk.installed.current, kiosk.installed.good) == ("1.0", "1.0", "1.0")
        kiosk.wall += 86_400
    assert kiosk.restarts == 2 * 3
    assert kiosk.mono == pytest.approx(3 * TRIAL_S)
    assert "not tried again" in kiosk.said[-1]


def test_a_run_that_was_killed_on_trial_is_settled_by_the_next(kiosk: Kiosk, tmp_path: Path) -> None:
    def dies(*_: str) -> None:
        raise KeyboardInterrupt

    update = kiosk.update(folder(tmp_path))
    update._systemctl = dies
    with pytest.raises(KeyboardInterrupt):
        update.run(KEYS)
    assert (kiosk.installed.current, kiosk.installed.good) == ("1.1", "1.0")
    kiosk.running = "1.1"  # the next start
    assert kiosk.update(folder(tmp_path)).run(KEYS)
    assert kiosk.installed.good == "1.1"


def test_and_where_nobody_settles_it_its_starts_are_counted(kiosk: Kiosk, tmp_path: Path) -> None:
    kiosk.update(folder(tmp_path)).run(KEYS)
    kiosk.installed._link("good", "1.0")  # on trial again
    shutil.copytree(tmp_path / "opt/releases/1.1", tmp_path / "opt/releases/1.0", dirs_exist_ok=True)
    started = []
    for _ in range(6):
        done = subprocess.run(["sh", FALLBACK, tmp_path / "opt"], capture_output=True, text=True, check=True)
        started.append(kiosk.installed.current)
    assert started == ["1.1"] * 4 + ["1.0"] * 2
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda at: (at / "kit/kiosk/a.py").write_bytes(b"evil"), "not what the manifest says"),
        (lambda at: (at / "manifest.sig").write_bytes(bytes(64)), "not by this kiosk's release key"),
        (lambda at: (at / "manifest.sig").unlink(), "has no manifest.sig"),
        (lambda at: (at / "kit/kiosk/a.py").unlink(), "has no kit/kiosk/a.py"),
        (lambda at: write_release(at, "1.1", NEW, NEXT), "not by this kiosk's release key"),
        (lambda at: write_release(at, "0.9", NEW), "older than what runs"),
    ],
)
def test_what_is_not_right_is_one_line_and_changes_nothing(kiosk: Kiosk, tmp_path: Path, spoil, says: str) -> None:
    source = folder(tmp_path)
    spoil(tmp_path / "bundle-1.1")
    with pytest.raises(ReleaseError, match=says):
        kiosk.update(source).run(KEYS)
    assert (kiosk.installed.current, kiosk.restarts) == ("1.0", 0)


def test_the_command_says_it_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_release(tmp_path / "bundle", "1.1", NEW)
    (tmp_path / "kiosk.toml").write_text(f'[kiosk]\nstate_dir = "{tmp_path / "state"}"\n')
    words = ["update", str(tmp_path / "bundle"), "--config", str(tmp_path / "kiosk.toml"), "--root", str(tmp_path)]
    assert main(words) == 1
    assert "teleconsult: no release is installed in" in capsys.readouterr().err
    (tmp_path / "keys.json").write_bytes(msgspec.json.encode(KEYS))
    assert main([*words, "--check"]) == 0
    assert "release 1.1 is for this kiosk; 3 of 3 files" in capsys.readouterr().out


def test_no_room_is_said_before_anything_is_fetched(kiosk, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("edge_agent.update.installed.SPARE_BYTES", 10**15)
    with pytest.raises(ReleaseError, match=r"the card has \d+ MB left"):
        kiosk.update(folder(tmp_path)).run(KEYS)


# --- from the hub


class Offering:
    def __init__(self, hub: Hub, tmp_path: Path) -> None:
        self.hub, self._folder = hub, tmp_path
        (tmp_path / "keys.json").write_bytes(msgspec.json.encode(KEYS))
        self.releases = Releases(hub.settings.data_dir)
        self.releases.trust(tmp_path / "keys.json")
        self.identity = hub.add_kiosk("hill-7")

    def add(self, version: str, files=NEW, stage: Stage | None = EVERYBODY, **more) -> None:
        self.releases.add(write_release(self._folder / f"release-{version}", version, files, **more))
        if stage is not None:
            self.releases.stage(version, stage)

    def source(self, identity: Identity | None = None) -> HubSource:
        return HubSource(identity or self.identity, self.hub.url, PI, lambda: None)


@pytest.fixture
def offering(hub: Hub, tmp_path: Path) -> Iterator[Offering]:
    return Offering(hub, tmp_path)


def test_a_kiosk_learns_at_joining_whom_to_believe(offering: Offering) -> None:
    assert offering.identity.release_keys == KEYS
    assert Identity.load(offering.identity.folder).release_keys == KEYS


def test_it_fetches_what_it_lacks_and_no_more(offering: Offering, kiosk: Kiosk) -> None:
    offering.add("1.1")
    assert kiosk.update(offering.source()).run(offering.identity.release_keys)
    assert (kiosk.running, kiosk.installed.good) == ("1.1", "1.1")
    spent = kiosk.installed.state().spent_bytes - update_run.QUESTION_BYTES
    packed = offering.releases.path(next(iter(digests(NEW) - digests(OLD)))).stat().st_size
    assert spent == packed + HEADERS_BYTES
    assert kiosk.update(offering.source()).run(None)
    assert kiosk.restarts == 1


def digests(files: dict[str, bytes]) -> set[str]:
    return {hashlib.sha256(data).hexdigest() for data in files.values()}


def test_only_the_kiosks_that_may(offering: Offering, kiosk: Kiosk) -> None:
    for stage in (None, Stage(), Stage(("other-1",), ("Elsewhere",))):
        offering.add("1.1", stage=stage)
        assert kiosk.update(offering.source()).run(KEYS)
        assert kiosk.running == "1.0"
    for stage in (Stage(("hill-7",)), Stage(sites=("Clinic hill-7",))):
        offering.releases.stage("1.1", stage)
        assert offering.source().look(KEYS, "1.0") is not None
    with pytest.raises(ReleaseError, match="is not here"):
        offering.releases.stage("9.9", Stage())


def test_shares_grow() -> None:
    kiosks = [f"kiosk-{number}" for number in range(1000)]
    inside = [{kiosk for kiosk in kiosks if Stage(share=share).takes(kiosk, "", "1.1")} for share in (0, 10, 50, 100)]
    assert [len(each) for each in inside][::3] == [0, 1000]
    assert 60 < len(inside[1]) < 140
    assert inside[1] < inside[2] < inside[3]


def test_a_stranger_is_offered_nothing(offering: Offering, tmp_path: Path) -> None:
    offering.add("1.1")
    stranger = new_identity(tmp_path / "stranger", new_authority(tmp_path / "ca"), "hill-7")
    with pytest.raises(ReleaseError, match="answered 403"):
        offering.source(stranger).look(KEYS, "1.0")


def test_a_call_or_an_empty_budget_stops_it_and_it_goes_on_where_it_was(offering: Offering, kiosk: Kiosk) -> None:
    big = {**NEW, "kit/big.bin": random.Random(1).randbytes(160_000)}
    offering.add("1.1", big)
    asked = kiosk.ask
    left = iter([True] * 4 + [False] * 1000)

    def busy_soon() -> Agent | None:
        kiosk.quiet = next(left)
        return asked()

    kiosk.ask = busy_soon  # type: ignore[method-assign]
    update = kiosk.update(offering.source())
    assert update.run(KEYS)
    part = [path.stat().st_size for path in kiosk.installed.incoming.glob("*.xz")]
    assert len(part) == 1
    assert part[0] >= 8192
    kiosk.ask, kiosk.quiet = asked, True  # type: ignore[method-assign]
    spent = kiosk.installed.state().spent_bytes
    assert kiosk.update(offering.source(), day_bytes=spent + 20_000).run(KEYS)
    assert kiosk.said[-2:] == ["today's bytes for updates are used up", "it goes on at the next run"]
    assert kiosk.running == "1.0"
    kiosk.wall += 86_400
    assert kiosk.update(offering.source()).run(KEYS)
    assert kiosk.running == "1.1"
    assert (kiosk.installed.path("1.1") / "big.bin").read_bytes() == big["kit/big.bin"]
    packed = sum(offering.releases.path(digest).stat().st_size for digest in digests(big) - digests(OLD))
    assert kiosk.installed.state().spent_bytes + spent + 20_000 < packed * 1.6 + 3 * update_run.QUESTION_BYTES


def test_a_kiosk_that_missed_a_change_of_keys_catches_up(offering: Offering, kiosk: Kiosk) -> None:
    offering.add("1.1", keys=Keys(2, public(NEXT), public(RECOVERY)), stage=None)
    offering.add("1.2", {**NEW, "kit/kiosk/b.py": b"b\n"}, key=NEXT)
    assert kiosk.update(offering.source()).run(KEYS)
    assert kiosk.running == "1.2"
    assert kiosk.installed.keys() == Keys(2, public(NEXT), public(RECOVERY))
    assert offering.hub.add_kiosk("hill-8").release_keys == kiosk.installed.keys()
    with pytest.raises(ReleaseError, match="not by"):
        offering.add("1.3", key=SIGNING)


def test_what_the_hub_does_not_believe_it_does_not_take(offering: Offering, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="not by this kiosk's release key"):
        offering.add("1.1", key=NEXT)
    with pytest.raises(ReleaseError, match="has release keys"):
        offering.releases.trust(tmp_path / "keys.json")
    assert list(offering.releases.all()) == []


def test_a_hub_that_was_taken_over_cannot_make_a_release(offering: Offering, kiosk: Kiosk) -> None:
    """Its files are its own to change; the kiosk looks at what it pinned."""
    offering.add("1.1")
    evil = write_release(offering._folder / "evil", "1.1", {**NEW, "kit/kiosk/a.py": b"evil\n"}, NEXT)
    shutil.copy(evil / "manifest.json", offering.hub.settings.data_dir / "releases/1.1/manifest.json")
    assert offering.source().look(KEYS, "1.0") is None  # the hub itself finds no way to it
    offering.add("1.2", {**NEW, "kit/kiosk/c.py": b"c" * 50_000})
    for path in (offering.hub.settings.data_dir / "releases/files").iterdir():
        path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ReleaseError, match=r"cannot be unpacked|not what the manifest"):
        kiosk.update(offering.source()).run(KEYS)
    assert kiosk.running == "1.0"


def test_the_hubs_commands(offering: Offering, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def say(*words: str) -> str:
        assert main(["hub", "release", *words, "--config", str(offering.hub.config)]) == 0
        return capsys.readouterr().out

    assert "Release 1.1 is here" in say("add", str(write_release(tmp_path / "new", "1.1", NEW)))
    assert "0 of 3 kiosks may take it, 0 run it" in say("list")
    assert "1 of 3 kiosks may take release 1.1" in say("stage", "1.1", "--kiosk", "hill-7")
    assert main(["hub", "release", "stage", "1.1", "--site", "Nowhere", "--config", str(offering.hub.config)]) == 1
    assert "there is no site 'Nowhere'" in capsys.readouterr().err
    assert main(["hub", "audit", "show", "--config", str(offering.hub.config)]) == 0
    assert "release_staged" in capsys.readouterr().out


def test_one_that_cannot_be_made_ready_is_not_tried_for_ever(kiosk: Kiosk, tmp_path: Path) -> None:
    def breaks(release: Path, base: Path, wheels: list[Path]) -> None:
        raise ReleaseError("cannot compile this release")

    source = folder(tmp_path)
    source.by_hand = False  # as if from the hub
    for _ in range(3):
        update = kiosk.update(source)
        update._build = breaks
        with pytest.raises(ReleaseError, match="cannot compile"):
            update.run(KEYS)
        kiosk.wall += 86_400
    assert not kiosk.update(source).run(None)
    assert "not tried again" in kiosk.said[-1]
    assert kiosk.restarts == 0
