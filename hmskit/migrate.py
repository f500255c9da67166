"""Bring a database's schema up to date with Alembic, and tell cheaply whether it is."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, select
from sqlalchemy.exc import DBAPIError

from hmskit.database import why_unavailable

_VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32)))


def schema_revision(connection: Connection) -> str | None:
    """Return the revision that the database is at; None for an empty one.

    Raises:
        DBAPIError: the database cannot answer now; to take that for an empty one would be a mistake.
    """
    try:
        return connection.execute(select(_VERSION.c.version_num)).scalar_one_or_none()
    except DBAPIError as error:
        if why_unavailable(error) is not None:
            raise
        connection.rollback()
        return None  # the table is not there yet


def upgrade(engine: Engine, migrations: Path, *, to: str = "head") -> None:
    """Run the migrations in the folder ``migrations`` up to revision ``to``, in one transaction.

    Alembic is imported here: a start that finds the schema current must not pay for it.
    """
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, to)


def run_migrations(metadata: MetaData) -> None:
    """Do what an Alembic ``env.py`` does, on the connection that `upgrade` passed."""
    from alembic import context  # noqa: PLC0415

    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=False)
    context.run_migrations()
