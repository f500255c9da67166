"""Bring a database's schema up to date with Alembic, and tell cheaply whether it is."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, select, text
from sqlalchemy.exc import DBAPIError

from hmskit.database import why_unavailable

_LOCK = 7_238_511_904
"""The advisory lock that a migration holds: any number, but always this one. It is one database's own."""

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


def works_with(revision: str | None, *, own: str) -> bool:
    """Tell whether code that was written for the revision ``own`` runs on a database at ``revision``.

    It does on its own, and on the next: a release has one migration at most, which only adds what the release before
    can go without. So a site goes from release to release while processes of both run.

    Args:
        revision: of `schema_revision`.
        own: ends with the four digits of its number.
    """
    return revision in (own, following(own))


def following(revision: str) -> str:
    """Return the revision after this one: ``act_0002`` after ``act_0001``."""
    return f"{revision[:-4]}{int(revision[-4:]) + 1:04}"


def upgrade(engine: Engine, migrations: Path, *, to: str = "head") -> None:
    """Run the migrations in the folder ``migrations`` up to revision ``to``, in one transaction.

    Several processes may do so at once: one does it, and the others find it done.

    Alembic is imported here: a start that finds the schema current must not pay for it.
    """
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        _lock(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, to)


def _lock(connection: Connection) -> None:
    """Wait until no other process migrates, and keep it so until the transaction ends."""
    if connection.dialect.name == "postgresql":  # SQLite's has the file's write lock already
        connection.execute(text("SET LOCAL statement_timeout = 0"))  # for the wait, and for large tables
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))


def run_migrations(metadata: MetaData) -> None:
    """Do what an Alembic ``env.py`` does, on the connection that `upgrade` passed."""
    from alembic import context  # noqa: PLC0415

    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=False)
    context.run_migrations()
