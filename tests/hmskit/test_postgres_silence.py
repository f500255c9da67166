"""A connection to PostgreSQL notices in seconds that nobody answers any more."""

from __future__ import annotations

from sqlalchemy import make_url

from hmskit.postgres import SILENCE, engine_of
from tests.database import Database
from tests.databases import postgres_only


def parameters(url: str, *, writes: bool) -> dict[str, str]:
    """Return what the driver was told, of what it is not told by itself."""
    engine = engine_of(make_url(url), connections=1, application="test", writes=writes)
    try:
        with engine.connect() as connection:
            told: dict[str, str] = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]
            return told
    finally:
        engine.dispose()


@postgres_only
def test_writers_and_readers_bound_how_long_the_network_may_be_silent(database: Database) -> None:
    expected = {name: str(value) for name, value in SILENCE.items()}
    for writes in (True, False):
        assert expected.items() <= parameters(database.url, writes=writes).items()


@postgres_only
def test_an_operator_who_knows_the_network_better_says_so_in_the_url(database: Database) -> None:
    separator = "&" if "?" in database.url else "?"
    told = parameters(f"{database.url}{separator}tcp_user_timeout=60000", writes=True)
    assert told["tcp_user_timeout"] == "60000"
    assert told["keepalives_idle"] == str(SILENCE["keepalives_idle"])
