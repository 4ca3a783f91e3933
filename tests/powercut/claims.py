"""What was said to be saved, and whether a store still has it."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.storage import Store
from tests.kiosk_store import found_in
from tests.powercut.writer import PLANTED


@dataclass
class Claims:
    consults: set[str] = field(default_factory=set)
    files: set[tuple[str, str]] = field(default_factory=set)
    replies: set[tuple[str, str]] = field(default_factory=set)
    arrived: dict[str, tuple[str, int]] = field(default_factory=dict)  # digest: its consult, and how far it came
    cases: set[str] = field(default_factory=set)
    messages: set[str] = field(default_factory=set)
    freeing: set[str] = field(default_factory=set)
    freed: set[str] = field(default_factory=set)
    may_be_gone: set[tuple[str, str]] = field(default_factory=set)
    may_set_aside: bool = False  # the store was damaged before
    was_plain: bool = False  # of before encryption, when it was last seen

    def and_then(self, lines: Iterable[str]) -> Claims:
        """With what was said since."""
        new = copy.deepcopy(self)
        for line in lines:
            new._take(*line.split())
        return new

    def _take(self, word: str, *values: str) -> None:
        match word:
            case "consult":
                self.consults.add(values[0])
            case "file":
                self.files.add((values[0], values[1]))
            case "forgetting":
                self.may_be_gone.add((values[0], values[1]))
            case "case":
                self.cases.add(values[0])
                self.messages.update(values[1:])
            case "freeing":
                self.freeing.update(values)
            case "freed":
                self.freed.update(values)
            case "making-room":
                for file in values:
                    consult, _, digest = file.partition(":")
                    self.may_be_gone.add((consult, digest))
            case "arrived":
                self.arrived[values[1]] = (values[0], int(values[3]))
            case "reply":
                self.replies.add((values[0], values[1]))

    def failures(self, state_dir: Path) -> list[str]:
        """Opens the store, as the next start does. Empty where all is as it was said."""
        planted = [] if self.was_plain else found_in(state_dir, PLANTED)
        store = Store(state_dir / "store")
        try:
            return planted + self._failures(store) + found_in(state_dir, PLANTED)
        finally:
            store.close()

    def _failures(self, store: Store) -> list[str]:
        wrong: list[str] = []

        def must(holds: bool, what: str) -> None:
            if not holds:
                wrong.append(what)

        query = store._db.execute
        must(self.may_set_aside or not store.damaged, "the store is damaged")
        there = {row[0].hex(): row[1] for row in query("SELECT id, saved_at_ms FROM consult")}
        must(self.consults <= there.keys(), f"consults lost: {len(self.consults - there.keys())}")
        must(all(there.get(consult) for consult in self.cases), "a case is no longer saved")
        kept = {(row[0].hex(), row[1].hex()) for row in query("SELECT consult, digest FROM file")}
        lost = self.files - kept - self.may_be_gone
        must(not lost, f"files lost: {len(lost)}")
        replies = {(row[0].hex(), row[1].hex()) for row in query("SELECT consult, digest FROM reply WHERE complete")}
        must(self.replies <= replies, f"replies lost: {len(self.replies - replies)}")
        for digest in {digest for _, digest in kept | replies}:
            try:
                right = hashlib.sha256(store.read_file(bytes.fromhex(digest))).hexdigest() == digest
            except OSError as error:
                wrong.append(f"a file cannot be read: {error}")
            else:
                must(right, "a file is another")
        for digest, (consult, end) in self.arrived.items():
            if (consult, digest) not in replies:
                rows = query("SELECT offset, length(data) FROM arriving WHERE digest = ?", (bytes.fromhex(digest),))
                must(sum(length for _, length in rows) >= end, "what had arrived of a reply is lost")
        names = {row[0] for row in query("SELECT name FROM content")}
        must({path.name for path in store._media.iterdir()} == names, "files without rows, or rows without files")
        waiting = Counter(message.id.hex() for message in store.load().waiting)
        must(all(count == 1 for count in waiting.values()), "a message is doubled")
        must(self.messages - waiting.keys() <= self.freeing, "a message is lost")
        must(not self.freed & waiting.keys(), "a message is back that was freed")
        drafts = {row[0].hex() for row in query("SELECT consult FROM draft")}
        must(not drafts & self.cases, "a draft is back that was saved as a case")
        must(not list(store.plain_space.iterdir()), "something plain is left")
        return wrong
