"""Migrations run in one transaction, and telling whether they are needed is cheap."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, make_url
from sqlalchemy.exc import DBAPIError

from hmskit.migrate import schema_revision, upgrade
from hmskit.sqlite import writer_engine
from tests.act.support import failing_reads

ENV = "from sqlalchemy import MetaData\nfrom hmskit.migrate import run_migrations\nrun_migrations(MetaData())\n"
STEP = """from alembic import op
revision = "{this}"
down_revision = {before!r}
def upgrade():
    op.execute("{sql}")
"""


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "100% odd folder" / "migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(ENV)
    steps = [("one", None, "CREATE TABLE a (n INTEGER)"), ("two", "one", "CREATE TABLE b (n INTEGER)")]
    for this, before, sql in steps:
        (folder / "versions" / f"{this}.py").write_text(STEP.format(this=this, before=before, sql=sql))
    return folder


def test_an_empty_database_is_brought_up_step_by_step(migrations: Path, tmp_path: Path) -> None:
    engine = writer_engine(make_url(f"sqlite:///{tmp_path / 'x.db'}"))

    def state() -> tuple[str | None, set[str]]:
        with engine.connect() as connection:
            revision = schema_revision(connection)
        return revision, set(inspect(engine).get_table_names()) - {"alembic_version"}

    assert state() == (None, set())
    upgrade(engine, migrations, to="one")
    assert state() == ("one", {"a"})
    upgrade(engine, migrations)
    upgrade(engine, migrations)
    assert state() == ("two", {"a", "b"})
    engine.dispose()


def test_a_migration_that_fails_leaves_nothing_of_any(migrations: Path, tmp_path: Path) -> None:
    step = STEP.format(this="three", before="two", sql="CREATE TABLE a (twice INTEGER)")
    (migrations / "versions" / "three.py").write_text(step)
    engine = writer_engine(make_url(f"sqlite:///{tmp_path / 'x.db'}"))
    with pytest.raises(DBAPIError, match="already exists"):
        upgrade(engine, migrations)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


def test_a_database_that_cannot_answer_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with failing_reads(engine), engine.connect() as connection, pytest.raises(DBAPIError):
        schema_revision(connection)
    engine.dispose()


def test_a_revision_can_be_asked_for_on_any_database(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    with engine.connect() as connection:
        assert schema_revision(connection) is None
    engine.dispose()
