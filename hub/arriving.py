"""Bytes of files on their way in.

A chunk is a row first, in the transaction of all that came with it: one fsync, of however many files they are. Once
`FILED_BYTES` of a file wait, or the file is whole, its rows go over into it, which is on the disk before the
transaction that removes them is. So what `Content.ranges` tells is held in one place or the other whenever the power
fails, and any process of the hub may take any chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from edge_agent.core import trust, wire
from edge_agent.core.ranges import ByteRanges
from hub.files import FileStore, ranges_of
from hub.records import CaseFile, Consult, Content, Piece
from hub.sealing import NOBODY, keys_of

FILED_BYTES = 64 * 1024

_content, _piece = Content.__table__, Piece.__table__
_keep_ranges = (
    _content.update()  # type: ignore[attr-defined]
    .where(_content.c.kiosk_id == bindparam("of_kiosk"), _content.c.digest == bindparam("of_digest"))
    .values(ranges=bindparam("held"), waiting_bytes=bindparam("waiting"))
)
_of_keys = (
    select(
        CaseFile.key_name, CaseFile.key, CaseFile.consult_id, Consult.kiosk_id, Content.digest, Content.size,
        Content.complete, Content.ranges, Content.waiting_bytes,
    )
    .join(Consult, Consult.id == CaseFile.consult_id)
    .join(Content, (Content.kiosk_id == Consult.kiosk_id) & (Content.digest == CaseFile.digest))
    .where(CaseFile.key_name.in_(bindparam("names", expanding=True)))
)  # fmt: skip


class ChunkTooEarly(trust.TrustError):
    """Sealed with a key that no manifest has brought."""


@dataclass(slots=True)
class _File:
    kiosk: str
    digest: str
    size: int
    complete: bool
    held: ByteRanges
    waiting_bytes: int
    lost: bool = False
    new: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return self.complete or self.held.covers(0, self.size)


@dataclass(frozen=True, slots=True)
class Touched:
    """A file that got chunks, in the consult whose key they were sealed with."""

    kiosk: str
    consult: str
    digest: str
    whole: bool
    lost: bool  # the disk has lost what it held of it


class Arriving:
    def __init__(self, files: FileStore) -> None:
        self._files = files

    def take(
        self, session: Session, chunks: list[tuple[str, bytes]], now_ms: int, refuse: Callable[[str, Exception], None]
    ) -> list[Touched]:
        """Topics and payloads. What is none, or has no place to go, is refused before it changes anything. What went
        into files is on the disk after `FileStore.sync`."""
        named: list[tuple[str, str, bytes, str]] = []
        for topic, payload in chunks:
            try:
                kiosk, _ = wire.parse_up_topic(topic)
                if keys_of(session, kiosk, now_ms) is None:
                    raise trust.Forged(NOBODY)
                named.append((topic, kiosk, payload, trust.named_key(payload).hex()))
            except (trust.TrustError, wire.WireError) as error:
                refuse(topic, error)
        if not named:
            return []
        contents: dict[tuple[str, str], _File] = {}
        by_key: dict[tuple[str, str], tuple[bytes, str, _File]] = {}
        found = session.execute(_of_keys, {"names": list({name for *_, name in named})}).tuples()
        for name, key, consult, kiosk, digest, size, complete, ranges, waiting in found:
            file = contents.get((kiosk, digest))
            if file is None:
                file = contents[kiosk, digest] = _File(kiosk, digest, size, complete, ranges_of(ranges), waiting)
            by_key[kiosk, name] = (key, consult, file)
        touched: dict[tuple[str, str, str], _File] = {}
        for topic, kiosk, payload, name in named:
            try:
                if (kiosk, name) not in by_key:
                    raise ChunkTooEarly("it is sent again once its manifest is here")
                key, consult, file = by_key[kiosk, name]
                _add(file, *wire.split_chunk(trust.unwrap_chunk(payload, topic, key)))
                touched[kiosk, consult, file.digest] = file
            except (trust.TrustError, wire.WireError) as error:
                refuse(topic, error)
        self._keep(session, [file for file in contents.values() if file.new])
        return [Touched(*where, file.whole, file.lost) for where, file in sorted(touched.items(), key=lambda i: i[0])]

    def _keep(self, session: Session, files: list[_File]) -> None:
        if not files:
            return
        connection = session.connection()
        rows = []
        for file in files:
            new_bytes = sum(len(data) for _, data in file.new)
            if file.whole or file.waiting_bytes + new_bytes >= FILED_BYTES:
                self._file(session, file)
                file.waiting_bytes = 0
            else:
                file.waiting_bytes += new_bytes
                rows += [
                    {"kiosk_id": file.kiosk, "digest": file.digest, "start": start, "data": data}
                    for start, data in file.new
                ]
        if rows:
            connection.execute(_piece.insert(), rows)  # type: ignore[attr-defined]
        ranges = [
            {
                "of_kiosk": file.kiosk, "of_digest": file.digest, "waiting": file.waiting_bytes,
                "held": [list(span) for span in file.held],
            }
            for file in files
        ]  # fmt: skip
        connection.execute(_keep_ranges, ranges)

    def _file(self, session: Session, file: _File) -> None:
        """All that waits, into its place."""
        pieces = file.new
        if file.waiting_bytes:
            of_file = (_piece.c.kiosk_id == file.kiosk, _piece.c.digest == file.digest)
            kept = session.execute(select(_piece.c.start, _piece.c.data).where(*of_file).order_by(_piece.c.id)).tuples()
            pieces = [*kept, *file.new]
            session.connection().execute(_piece.delete().where(*of_file))  # type: ignore[attr-defined]
        ours = ByteRanges((start, start + len(data)) for start, data in pieces)
        if self._files.was_moved(file.kiosk, file.digest):  # and then the commit did not come
            file.held = ByteRanges([(0, file.size)])
            return
        if file.held != ours and not self._files.holds_partly(file.kiosk, file.digest):
            file.held, file.lost = ours, True
        for start, data in _joined(pieces):
            self._files.write(file.kiosk, file.digest, start, data)


def _joined(pieces: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """What follows one another, as one."""
    run: list[bytes] = []
    begin = end = 0
    for start, data in pieces:
        if run and start != end:
            yield begin, b"".join(run)
            run = []
        if not run:
            begin = start
        run.append(data)
        end = start + len(data)
    if run:
        yield begin, b"".join(run)


def _add(file: _File, start: int, data: bytes) -> None:
    if start + len(data) > file.size:
        raise wire.MalformedMessage("a chunk beyond the end of its file")
    if not file.complete and not file.held.covers(start, start + len(data)):
        file.new.append((start, data))
        file.held.add(start, start + len(data))
