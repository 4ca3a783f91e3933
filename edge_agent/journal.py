"""Commits the agent's changes, one action after the other, off the event loop.

A disk that is full or fails loses nothing that is here: the oldest action is tried again until it is written, and the
rest waits behind it. What must not wait, a call for help, is handed on unwritten.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable

from edge_agent.storage import Change, StoreError, StoreThread

log = logging.getLogger(__name__)

RETRY_S = 2.0


class Journal:
    """`failing` is told of an action that cannot be written now, once; `trouble` of the store's condition as it
    changes (None: it writes)."""

    def __init__(
        self,
        store: StoreThread,
        trouble: Callable[[StoreError | None], None],
        failing: Callable[[list[Change]], None],
    ) -> None:
        self._store, self._trouble, self._failing = store, trouble, failing
        self._actions: deque[tuple[list[Change], Callable[[], None]]] = deque()
        self._wake = asyncio.Event()
        self._failed = 0  # of the actions at the head, told to `failing`

    @property
    def fails(self) -> bool:
        return self._failed > 0

    def commit(self, changes: list[Change], after: Callable[[], None]) -> None:
        """`after` runs on the event loop once they are on the disk."""
        self._actions.append((changes, after))
        if self._failed:
            self._failed += 1
            self._failing(changes)
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._actions:
                await self._write_first()

    async def _write_first(self) -> None:
        changes, after = self._actions[0]
        try:
            await self._store.run(self._store.store.commit, changes)
        except StoreError as error:
            if not self._failed:
                log.error("store not written reason=%s waiting=%d", error, len(self._actions))
                self._failed = len(self._actions)
                self._trouble(error)
                for waiting, _ in self._actions:
                    self._failing(waiting)
            await asyncio.sleep(RETRY_S)
            return
        self._actions.popleft()
        if self._failed:
            self._failed = 0
            log.info("store written again")
            self._trouble(None)
        after()

    async def flush(self, seconds: float) -> None:
        """Before the end: waits until everything is written, at most so long."""
        written = asyncio.Event()
        if self._actions:
            self.commit([], written.set)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(written.wait(), seconds)
