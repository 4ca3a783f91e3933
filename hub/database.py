"""The hub's database: opened, brought up to date, and worked on in one thread of its own.

The event loop never waits for a disk: `await database.run(work, …)` runs `work(session, …)` there in one transaction,
committed and on disk when it returns. `work` may run twice where another process was first (PostgreSQL), so it must
have no effect but on the session, or one that can be repeated.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

P = ParamSpec("P")
R = TypeVar("R")

_MIGRATIONS = Path(__file__).parent / "migrations"
_SQLITE_BUSY_TIMEOUT_MS = 10_000
_OTHER_WAS_FIRST = {"40001", "40P01"}  # PostgreSQL: serialization failure, deadlock
_ATTEMPTS = 6


class DatabaseError(OSError):
    """The database cannot be opened or written: one line that says what to do."""


class Database:
    def __init__(self, url: str, data_dir: Path) -> None:
        """Opens the database and brings its tables up to date. Raises DatabaseError."""
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._engine = _open(url)
            self._migrate(data_dir)
        except (SQLAlchemyError, OSError, ImportError) as error:
            raise DatabaseError(f"the database cannot be opened: {explain(error)}") from None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")

    async def run(self, work: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: self.do(work, *args, **kwargs))

    def do(self, work: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The same in the calling thread, for commands and for the start."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with Session(self._engine, expire_on_commit=False) as session, session.begin():
                    return work(session, *args, **kwargs)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in _OTHER_WAS_FIRST or attempt == _ATTEMPTS:
                    raise
        raise AssertionError("not reached")

    def close(self) -> None:
        self._thread.shutdown(wait=True)
        self._engine.dispose()

    def _migrate(self, data_dir: Path) -> None:
        """Under a lock, so that of several processes starting at once one does it."""
        with (data_dir / "migration.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of each start
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            with self._engine.connect() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")


def is_full(error: BaseException) -> bool:
    """Whether the disk (or quota) is what failed, which passes when somebody makes room."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    original = getattr(error, "orig", None)
    return isinstance(original, sqlite3.Error) and any(
        sign in str(original) for sign in ("disk is full", "disk I/O error", "readonly database")
    )


def explain(error: BaseException) -> str:
    """One line of a database's or a disk's complaint."""
    if is_full(error):
        return "the hub's disk is full or cannot be written; make room in its data directory"
    original = getattr(error, "orig", None) or error
    return (str(original).strip().splitlines() or [type(error).__name__])[0]


def _open(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, isolation_level="SERIALIZABLE", pool_pre_ping=True, hide_parameters=True)
    engine = create_engine(url, connect_args={"check_same_thread": False}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say, see below
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # a receipt is a promise: the commit must be on disk
            "foreign_keys=ON",
            f"busy_timeout={_SQLITE_BUSY_TIMEOUT_MS}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # a read that turns into a write can't be refused half-way

    return engine
