"""What the hub sends to be kept: advice, progress, and the files of voice replies.

Each durable message is answered with a `Receipt` after its commit, and taken as often as it comes: advice is known by
its id, progress overwrites itself, a file by its digest. Files arrive as chunks in any order, and last in steps.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from typing import Protocol

from edge_agent.core import trust, wire
from edge_agent.core.ranges import ByteRanges
from edge_agent.records import Records, manifest_of
from edge_agent.storage import AdviceCame, Change, FileAsked, ProgressCame, ReplyFile, StoreError, StoreThread

log = logging.getLogger(__name__)

MAX_REPLY_BYTES = 32 * 1024 * 1024
SYNC_EVERY_CHUNKS = 16
MAX_WAITING = 256  # of chunks not yet written; the hub fills what is dropped beyond


class DownlinkOwner(Protocol):
    def commit(self, changes: list[Change], after: Callable[[], None]) -> None: ...

    def publish(self, consult: bytes, body: wire.Body) -> None:
        """A message that nobody keeps."""

    def file_waits(self, consult: bytes, digest: bytes) -> bool:
        """Whether it is on its way to the hub."""

    def advice_came(self, advice: bytes) -> None: ...

    def records_changed(self) -> None: ...


class Downlink:
    def __init__(self, store: StoreThread, records: Records, owner: DownlinkOwner) -> None:
        self._store, self._records, self._owner = store, records, owner
        self._chunks: asyncio.Queue[tuple[bytes, wire.Chunk]] = asyncio.Queue(MAX_WAITING)
        self._unsynced = 0
        self._looking: set[asyncio.Task[None]] = set()

    def take(self, message: wire.Message, wall_ms: int) -> None:
        """Advice, Progress, Manifest, FileWanted or Chunk."""
        consult, body = message.consult, message.body
        if not consult:
            log.warning("message without a consult kind=%d", body.KIND)
            return
        if isinstance(body, wire.Chunk):
            if not self._chunks.full():
                self._chunks.put_nowait((consult, body))
            return
        if isinstance(body, wire.FileWanted):
            task = asyncio.get_running_loop().create_task(self._give_original(message, wall_ms))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)
            return
        changes = self._records.ensure(consult, wall_ms, "")
        match body:
            case wire.Advice():
                changes.append(AdviceCame(consult, body))
            case wire.Progress():
                changes.append(ProgressCame(consult, body.step, body.at_ms))
            case wire.Manifest() if body.size > MAX_REPLY_BYTES:
                log.warning("reply not taken bytes=%d consult=%s: too large", body.size, consult.hex())
            case wire.Manifest():
                changes.append(self._reply(consult, body))
        self._owner.commit(changes, lambda: self._took(message))

    def _took(self, message: wire.Message) -> None:
        """It is on the disk: now it may be shown, and the hub may let go of it."""
        consult, body = message.consult, message.body
        self._owner.publish(consult, wire.Receipt((message.id,)))
        match body:
            case wire.Advice() if body.advice not in self._records.advice:
                self._records.take_advice(consult, body)
                log.info("advice came consult=%s advice=%s", consult.hex(), body.advice.hex())
                self._owner.advice_came(body.advice)
            case wire.Progress():
                self._records.progress(consult, body.step, body.at_ms)
            case wire.Manifest() if body.size <= MAX_REPLY_BYTES:
                self._records.reply(self._reply(consult, body))
                self._tell(consult, body.digest)
        self._owner.records_changed()

    async def _give_original(self, message: wire.Message, wall_ms: int) -> None:
        """The photo's original goes out, or the word that it is gone."""
        assert isinstance(message.body, wire.FileWanted)  # noqa: S101
        consult, photo = message.consult, message.body.digest
        original = await self._store.run(self._store.store.original_of, consult, photo)
        changes = self._records.ensure(consult, wall_ms, "")
        if original is None:
            log.info("original wanted and gone consult=%s file=%s", consult.hex(), photo.hex()[:16])
            changes.append(self._records.queue(consult, wire.FileGone(photo), wall_ms))
        elif not self._owner.file_waits(consult, original.digest):
            log.info("original wanted consult=%s file=%s", consult.hex(), photo.hex()[:16])
            changes.append(FileAsked(consult, original.digest))
            changes.append(self._records.queue(consult, manifest_of(original), wall_ms))
        self._owner.commit(changes, lambda: self._took(message))

    def _reply(self, consult: bytes, manifest: wire.Manifest) -> ReplyFile:
        """As far as it has come, under the key that its next chunks are sealed with."""
        reply = self._records.replies.get((consult, manifest.digest))
        if reply is None:
            reply = ReplyFile(consult, manifest.digest, manifest.mime, manifest.size)
        return dataclasses.replace(reply, key=manifest.key)

    def key_named(self, name: bytes) -> tuple[bytes, bytes, bytes] | None:
        """Consult, digest and key of a file that is on its way."""
        for reply in self._records.replies.values():
            if not reply.complete and trust.name_of_key(reply.key) == name:
                return reply.consult, reply.digest, reply.key
        return None

    def reached(self) -> None:
        """The hub is back: it is told what is still missing."""
        for (consult, digest), reply in self._records.replies.items():
            if not reply.complete:
                self._tell(consult, digest)

    async def run(self) -> None:
        """Writes chunks until cancelled."""
        while True:
            consult, chunk = await self._chunks.get()
            try:
                await self._take_chunk(consult, chunk)
            finally:
                self._chunks.task_done()

    async def settled(self) -> None:
        """Returns when no chunk waits to be written."""
        await self._chunks.join()

    async def _take_chunk(self, consult: bytes, chunk: wire.Chunk) -> None:
        reply = self._records.replies.get((consult, chunk.digest))
        if reply is None or reply.complete or chunk.offset + len(chunk.data) > reply.size:
            return
        try:
            await self._write(reply, chunk)
        except StoreError as error:
            log.warning("reply not written digest=%s reason=%s", chunk.digest.hex()[:16], error)

    async def _write(self, reply: ReplyFile, chunk: wire.Chunk) -> None:
        store = self._store.store
        await self._store.run(store.write_arriving, chunk.digest, chunk.offset, chunk.data)
        ranges = ByteRanges(reply.ranges)
        ranges.add(chunk.offset, chunk.offset + len(chunk.data))
        complete = ranges.covers(0, reply.size)
        if complete and not await self._store.run(store.finish_arriving, chunk.digest):
            log.warning("reply damaged digest=%s: it is asked for again", chunk.digest.hex()[:16])
            ranges, complete = ByteRanges(), False
        self._unsynced += 1
        now = dataclasses.replace(reply, ranges=ranges.as_tuple(), complete=complete)
        change = self._records.reply(now)
        if complete or not ranges or self._unsynced >= SYNC_EVERY_CHUNKS:
            self._unsynced = 0
            if not complete and ranges:
                await self._store.run(store.sync_arriving, chunk.digest)
            self._owner.commit([change], lambda: self._committed(now))

    def _committed(self, reply: ReplyFile) -> None:
        if reply.complete or not reply.ranges:
            self._tell(reply.consult, reply.digest)
            self._owner.records_changed()

    def _tell(self, consult: bytes, digest: bytes) -> None:
        reply = self._records.replies.get((consult, digest))
        if reply is not None:
            self._owner.publish(consult, wire.Have(digest, reply.ranges, reply.complete))
