"""Saves one thing after the other into a store, and says each when it is saved, until it is killed."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from edge_agent.core import wire
from edge_agent.storage import (
    CaseKept,
    ConsultOpened,
    DraftGone,
    DraftKept,
    FileKept,
    MessageQueued,
    MessagesFreed,
    Store,
    ValueKept,
)


def say(*words: object) -> None:
    print(*words, flush=True)


def main(folder: Path, seed: int) -> None:
    choose = random.Random(seed)
    store = Store(folder)
    say("open", store.damaged)
    while True:
        consult = choose.randbytes(16)
        store.commit([ConsultOpened(consult, 1, "patient"), ValueKept("call", consult)])
        say("consult", consult.hex())
        files = []
        for number in range(choose.randint(0, 2)):
            capture = store.new_capture(".ogg")
            capture.write_bytes(choose.randbytes(choose.randint(1, 60_000)))
            digest, size = store.keep_file(capture)
            store.commit(
                [
                    FileKept(consult, digest, "voice", "audio/ogg", size, 1, "patient", 5),
                    DraftKept(consult, f"draft {number}".encode()),
                ]
            )
            files.append(digest)
            say("file", consult.hex(), digest.hex())
        bodies: list[wire.Body] = [wire.CaseNote("patient", 1), wire.CaseSaved(1, tuple(files))]
        messages = [wire.Message(body, consult, seq=number) for number, body in enumerate(bodies, 1)]
        store.commit(
            [
                *map(MessageQueued, messages),
                CaseKept(consult, 1, "", ("fever",), "urgent"),
                DraftGone(consult),
            ]
        )
        say("case", consult.hex(), *(message.id.hex() for message in messages))
        if choose.random() < 0.3:
            say("freeing", *(message.id.hex() for message in messages))
            store.commit([MessagesFreed(tuple(message.id for message in messages))])
            say("freed", *(message.id.hex() for message in messages))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
