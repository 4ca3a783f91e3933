"""Power cuts between any two operations of a store's life, and kills at any instant: `scripts/prove-store`.

A chain of lives begins with no store, one of before encryption, one that is damaged, or one whose key changes. In each
life a program saves things, recorded, and says what is saved. Then the card is made up as cuts at random operations
would leave it: a store that is opened on it must have all that was said before the cut, nothing twice and every digest
right, and nothing planted may be found on the card. The next life goes on with what one of the cuts left.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from edge_agent.storage import Store, store_key
from tests.kiosk_store import make_plain_store
from tests.powercut import writer
from tests.powercut.claims import Claims
from tests.powercut.disk import Disk, Keeps, Operation, clear, environment, read_log

ROOT = Path(__file__).resolve().parents[2]
KEEPS: tuple[Keeps, ...] = ("nothing", "some", "some", "all")
SCENES = ("new", "plain", "damaged", "key")
LIVES = 3
KILLS_A_STORE = 20
LONGEST_LIFE_S = 0.08


@dataclass
class Proof:
    done: int = 0
    operations: int = 0
    failures: list[str] = field(default_factory=list)


def chain(folder: Path, recorder: Path, seed: int, number: int, cuts: int, without: str = "", scene: str = "") -> Proof:
    """About `cuts` cuts, spread over the lives of one chain. `without`: which fsync is left out."""
    choose = random.Random(f"{seed} {number}")
    scene = scene or SCENES[number % len(SCENES)]
    card, image, log, proof = folder / "card", folder / "image", folder / "log", Proof()
    clear(card)
    (card / "state").mkdir(parents=True)
    with _environment(folder, given=False):
        claims = _begin(card / "state", scene, choose)
    for life in range(LIVES):
        with _environment(folder, given=scene == "key" and life > 0):
            log.unlink(missing_ok=True)
            (card / "said").unlink(missing_ok=True)
            start = Disk(card)
            # After an upgrade or rescue, which is what those scenes are for, a case or two.
            cases = choose.randint(1, 4) if life or scene == "new" else choose.randint(0, 1)
            live(card, recorder, log, choose.randrange(1 << 30), cases, without)
            operations = read_log(log)
            proof.operations += len(operations)
            proof.failures += _planted(operations, f"chain {number} life {life}")
            at = sorted(choose.choices(range(len(operations) + 1), k=max(1, cuts // LIVES)))
            said, done = b"", 0
            voice: set[int] = set()
            for cut in at:
                for operation in operations[done:cut]:
                    start.apply(operation)
                    if operation.path == str(card / "said"):
                        voice.add(operation.handle)
                    if operation.what == "W" and operation.handle in voice:
                        said += operation.data
                done = cut
                keeps = choose.choice(KEEPS)
                clear(image)
                start.cut(image, keeps, choose)
                so_far = claims.and_then(said.decode().splitlines())
                try:
                    wrong = so_far.failures(image / "state")
                except Exception as error:  # whatever keeps the kiosk from starting
                    wrong = [f"the store does not open: {error!r}"]
                where = f"chain {number} ({scene}) life {life} operation {cut} of {len(operations)} keeps {keeps}"
                proof.failures += [f"{where}: {each}" for each in wrong]
                proof.done += 1
                if wrong:
                    return proof  # what comes after would tell of the same
            clear(card)
            shutil.move(image, card)
            claims = so_far
            claims.was_plain = False
    return proof


def kills(folder: Path, seed: int, number: int, count: int = KILLS_A_STORE) -> Proof:
    """One store, killed again and again while it opens and saves."""
    choose = random.Random(f"{seed} kills {number}")
    state = folder / "killed"
    clear(state)
    state.mkdir()
    claims, proof = Claims(), Proof()
    for _ in range(count):
        lines = _killed(state, choose.randrange(1 << 30), choose.uniform(0, LONGEST_LIFE_S))
        claims = claims.and_then(lines)
        proof.failures += [f"kills {number}: {each}" for each in claims.failures(state)]
        proof.done += 1
        proof.operations += len(lines)
    return proof


def _begin(state: Path, scene: str, choose: random.Random) -> Claims:
    """What is there before the first recorded life."""
    if scene == "new":
        return Claims()
    if scene == "plain":
        note, digests = make_plain_store(state / "store", writer.NAME, writer.NOTE, writer.PICTURE * 3000)
        consult = note.consult.hex()
        files = {(consult, digest.hex()) for digest in digests}
        return Claims(consults={consult}, messages={note.id.hex()}, files=files, was_plain=True)
    said = state.parent / "said"
    handle = os.open(said, os.O_WRONLY | os.O_CREAT, 0o600)
    writer.run(state, handle, choose.randrange(1 << 30), 6)
    os.close(handle)
    claims = Claims().and_then(said.read_text().splitlines())
    if scene == "damaged":
        path = state / "store" / "kiosk.db"
        data = bytearray(path.read_bytes())
        page = choose.randrange(2, len(data) // 4096)
        data[page * 4096 : page * 4096 + 100] = choose.randbytes(100)
        path.write_bytes(data)
        return _what_is_rescued(state)
    return claims


def _what_is_rescued(state: Path) -> Claims:
    copy = state.with_name("copy")
    shutil.copytree(state, copy)
    store = Store(copy / "store")
    query = store._db.execute
    claims = Claims(
        consults={row[0].hex() for row in query("SELECT id FROM consult")},
        messages={message.id.hex() for message in store.load().waiting},
        may_set_aside=store.damaged,
    )
    store.close()
    shutil.rmtree(copy)
    return claims


@contextlib.contextmanager
def _environment(folder: Path, given: bool) -> Iterator[None]:
    """The store's key from systemd, or none."""
    credentials = folder / "credentials"
    credentials.mkdir(exist_ok=True)
    (credentials / store_key.CREDENTIAL).write_bytes(bytes(range(32)))
    with mock.patch.dict(os.environ):
        os.environ.pop("CREDENTIALS_DIRECTORY", None)
        if given:
            os.environ["CREDENTIALS_DIRECTORY"] = str(credentials)
        yield


def live(card: Path, recorder: Path, log: Path, seed: int, cases: int, without: str = "") -> None:
    command = [
        sys.executable, "-m", "tests.powercut.writer", card / "state", card / "said", str(seed), str(cases),
    ]  # fmt: skip
    recorded = {**os.environ, **environment(recorder, card, log, without)}
    ended = subprocess.run(command, cwd=ROOT, env=recorded, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def _planted(operations: list[Operation], where: str) -> list[str]:
    """In anything that was ever written to the card."""
    return [
        f"{where}: {word!r} was written to the card"
        for word in writer.PLANTED
        if any(word in operation.data for operation in operations if operation.what == "W")
    ]


def _killed(state: Path, seed: int, seconds: float) -> list[str]:
    """What a writer said until it was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            writer.run(state, writing, seed, 1_000_000)
        finally:
            os._exit(1)
    os.close(writing)
    time.sleep(seconds)  # the instant is the point
    os.kill(child, signal.SIGKILL)
    with open(reading, "rb") as said:
        lines = said.read().decode()
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise AssertionError("the writer ended before it was killed")
    return lines.split("\n")[:-1]
