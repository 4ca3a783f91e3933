from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hub.database import Database, DatabaseError
from hub.records import Call, Record


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'hub.db'}", tmp_path)
    yield database
    database.close()


def test_the_migrations_make_what_the_models_say(database: Database):
    def differences(session: Session) -> list[object]:
        return compare_metadata(MigrationContext.configure(session.connection()), Record.metadata)

    assert database.do(differences) == []


def test_what_is_promised_is_on_disk(database: Database):
    def pragmas(session: Session) -> list[object]:
        return [session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")]

    assert database.do(pragmas) == ["wal", 2, 1]


async def test_work_that_fails_changes_nothing_and_shows_no_values(database: Database):
    def orphan(session: Session) -> None:
        session.add(Call(id="c", consult_id="none", kiosk_id="a patient's name", phase="ringing", requested_at=1))

    with pytest.raises(IntegrityError) as error:
        await database.run(orphan)
    assert "a patient's name" not in str(error.value), "no data in what is logged"
    assert database.do(lambda session: session.get(Call, "c")) is None


@pytest.mark.parametrize("url", ["sqlite:////proc/none/hub.db", "nothing://", "mysql://x/y"])
def test_one_that_cannot_be_opened(tmp_path, url: str):
    with pytest.raises(DatabaseError, match="the database cannot be opened: ") as error:
        Database(url, tmp_path)
    assert "\n" not in str(error.value)
