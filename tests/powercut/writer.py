"""Saves one thing after the other into a store, and says each when it is saved: `python -m tests.powercut.writer
STATE_DIR SAID SEED CASES`. What it says goes into the file SAID, one line at a time.

The words that start with PLANTED are what nobody who searches the card may find."""

from __future__ import annotations

import hashlib
import os
import random
import sys
from pathlib import Path

from edge_agent.core import wire
from edge_agent.storage import (
    CaseKept,
    Change,
    ConsultOpened,
    DraftGone,
    DraftKept,
    FileDelivered,
    FileForgotten,
    FileKept,
    MessageQueued,
    MessagesFreed,
    ReplyFile,
    Store,
    ValueKept,
)

NAME, NOTE, PICTURE = "PLANTED NAME", "PLANTED NOTE", b"PLANTED PICTURE "
PLANTED = (NAME.encode(), NOTE.encode(), PICTURE)
FILE_BYTES = 150_000  # at most: two frames and some


class Writer:
    def __init__(self, store: Store, said: int, choose: random.Random) -> None:
        self._store, self._said, self._choose = store, said, choose
        self._first = choose.random() < 0.5  # whether replies are made durable on their way

    def say(self, *words: object) -> None:
        os.write(self._said, (" ".join(map(str, words)) + "\n").encode())

    def commit(self, *changes: Change) -> None:
        self._store.commit(changes)

    def case(self) -> None:
        choose = self._choose
        consult = choose.randbytes(16)
        self.commit(ConsultOpened(consult, 1, "patient"), ValueKept("call", consult))
        self.say("consult", consult.hex())
        files = [self._file(consult, number) for number in range(choose.randint(0, 2))]
        if files and choose.random() < 0.3:
            self.say("forgetting", consult.hex(), files[-1].hex())
            self.commit(FileForgotten(consult, files.pop()))
        note = wire.CaseNote("patient", 1, text=NOTE, patient=NAME)
        bodies: list[wire.Body] = [note, wire.CaseSaved(1, tuple(files))]
        messages = [wire.Message(body, consult, seq=number) for number, body in enumerate(bodies, 1)]
        ids = [message.id.hex() for message in messages]
        kept = CaseKept(consult, 1, NAME, ("fever",), "urgent")
        self.commit(*map(MessageQueued, messages), kept, DraftGone(consult))
        self.say("case", consult.hex(), *ids)
        if choose.random() < 0.4:
            self.say("freeing", *ids)
            delivered = [FileDelivered(consult, digest) for digest in files]
            self.commit(MessagesFreed(tuple(message.id for message in messages), 1), *delivered)
            self.say("freed", *ids)
        if choose.random() < 0.4:
            self._reply(consult)
        if choose.random() < 0.15:
            query = self._store._db.execute
            there = query("SELECT consult, digest FROM file WHERE delivered").fetchall()
            self.say("making-room", *(f"{consult.hex()}:{digest.hex()}" for consult, digest in there))
            self._store.free_bytes = lambda: 0  # type: ignore[method-assign]
            self._store.make_room(1)
            del self._store.free_bytes

    def _data(self) -> bytes:
        return PICTURE * 4 + self._choose.randbytes(self._choose.randint(1, FILE_BYTES))

    def _file(self, consult: bytes, number: int) -> bytes:
        capture = self._store.new_capture(".ogg")
        capture.write_bytes(self._data())
        digest, size = self._store.keep_file(capture)
        file = FileKept(consult, digest, "voice", "audio/ogg", size, 1, "patient", 5)
        self.commit(file, DraftKept(consult, f"{NOTE} {number}".encode()))
        self.say("file", consult.hex(), digest.hex())
        return digest

    def _reply(self, consult: bytes) -> None:
        data = self._data()
        digest, piece = hashlib.sha256(data).digest(), len(data) // 3 + 1
        reply = ReplyFile(consult, digest, "audio/ogg", len(data), key=b"k" * 32)
        self.commit(reply)
        for offset in range(0, len(data), piece):
            self._store.write_arriving(digest, offset, data[offset : offset + piece])
            if self._first:
                self._store.sync_arriving(digest)
                end = min(offset + piece, len(data))
                self.commit(ReplyFile(consult, digest, "audio/ogg", len(data), ((0, end),), key=b"k" * 32))
                self.say("arrived", consult.hex(), digest.hex(), offset, end)
        if not self._store.finish_arriving(digest):
            raise AssertionError("a reply that arrived whole is not right")
        whole = ((0, len(data)),)
        self.commit(ReplyFile(consult, digest, "audio/ogg", len(data), whole, complete=True, key=b"k" * 32))
        self.say("reply", consult.hex(), digest.hex())


def run(state_dir: Path, said: int, seed: int, cases: int) -> None:
    store = Store(state_dir / "store")
    writer = Writer(store, said, random.Random(seed))
    writer.say("open")
    for _ in range(cases):
        writer.case()
    store.close()


if __name__ == "__main__":
    where = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    run(Path(sys.argv[1]), where, int(sys.argv[3]), int(sys.argv[4]))
