"""`teleconsult agent` whose cases are handed in by lines on its standard input, for `tests.bench.sync`.

A line is JSON: {"consult": hex, "note": text or null, "urgency": …, "files": [[role, path], …]}. It is answered with a
line once it is saved, {"saved": hex}. A line {"sent": true} is answered with the file bytes that were given out so far.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

from edge_agent.store import Change, FileKept

from edge_agent.agent import Agent
from edge_agent.config import read_kiosk_settings
from edge_agent.core import wire
from edge_agent.core.outbox import Item, SendChunk
from kiosk import agent_process


class HandedAgent(Agent):
    def start(self) -> None:
        super().start()
        self.chunks_given = self.chunk_bytes_given = 0
        given = self.delivery.outbox.next

        def counted(now: float) -> Item | None:
            item = given(now)
            if isinstance(item, SendChunk):
                self.chunks_given += 1
                self.chunk_bytes_given += item.length
            return item

        self.delivery.outbox.next = counted  # type: ignore[method-assign]
        self._spawn(self._read(), "hand")

    async def _read(self) -> None:
        reader = asyncio.StreamReader(limit=2**20)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            said = json.loads(line)
            if "sent" in said:
                window = self.delivery.outbox.window
                print(json.dumps({
                    "chunks": self.chunks_given, "bytes": self.chunk_bytes_given, "chunk_bytes": window.chunk_bytes,
                    "round_trip_s": window.round_trip_s, "rate_bytes_per_s": window.rate_bytes_per_s,
                }), flush=True)  # fmt: skip
            else:
                await self._hand_in(said)
        await asyncio.Event().wait()

    async def _hand_in(self, said: dict[str, Any]) -> None:
        consult, wall = bytes.fromhex(said["consult"]), self.wall_ms()
        bodies: list[wire.Body] = []
        changes: list[Change] = []
        if said["note"] is not None:
            bodies.append(wire.CaseNote("worker-1", wall, said["urgency"], ("fever",), said["note"], "P. 12"))
        for role, path in said["files"]:
            taken = await self.store.run(self.store.store.new_capture, ".bin")
            await asyncio.to_thread(shutil.copyfile, path, taken)
            digest, size = await self.store.run(self.store.store.keep_file, taken)
            mime = "audio/ogg" if role == "voice" else "image/jpeg"
            changes.append(FileKept(consult, digest, role, mime, size, wall, "worker-1"))
            bodies.append(wire.Manifest(digest, role, mime, size, wall, "worker-1"))
        first = self.records.ensure(consult, wall, "worker-1")
        if first:
            bodies.insert(0, wire.ConsultOpened(wall, "worker-1"))
        queued = [self.records.queue(consult, body, wall) for body in bodies]
        self.commit([*first, *changes, *queued], lambda: print(json.dumps({"saved": consult.hex()}), flush=True))


if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")
    path = Path(sys.argv[1])
    agent_process.Agent = HandedAgent  # type: ignore[misc]
    media = [sys.executable, "-m", "tests.adapters.agent.media_peer", "{socket}"]
    sys.exit(agent_process.run(read_kiosk_settings(path), path, media))
