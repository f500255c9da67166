"""Alembic's entry into OMS's migrations; `hmskit.migrate.upgrade` runs it."""

from hmskit.migrate import run_migrations
from oms.storage.tables import metadata

run_migrations(metadata)
