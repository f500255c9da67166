"""What Alembic runs: the migrations, on the connection that `hmskit.migrate.upgrade` opened."""

from act.storage.tables import metadata
from hmskit.migrate import run_migrations

run_migrations(metadata)
