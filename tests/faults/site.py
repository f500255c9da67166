"""A site: any number of towers and ledgers on their databases."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.database import Database, Kind
from tests.faults.postgres_server import PostgresServer, own_server
from tests.faults.services import Served


@dataclass(frozen=True)
class Shape:
    """What a site is made of.

    Attributes:
        kind: of its databases; SQLite has one process for each.
        towers: how many OMS.
        ledgers: how many ACT.
        amqp_url: the broker that they use.
        exchange: the one on it that is theirs.
    """

    kind: Kind = "sqlite"
    towers: int = 1
    ledgers: int = 1
    amqp_url: str | None = None
    exchange: str = "act.events"

    def __post_init__(self) -> None:
        assert self.kind == "postgres" or self.towers == self.ledgers == 1, "an SQLite file has one process"


@dataclass(frozen=True)
class Site:
    """The services of a site, and what they run on.

    Attributes:
        towers: every OMS.
        ledgers: every ACT; the towers post to them in turn.
        server: PostgreSQL, where the databases are on it.
        oms: the towers' database.
        act: the ledgers' database.
    """

    towers: list[Served]
    ledgers: list[Served]
    server: PostgresServer | None
    oms: Database
    act: Database

    @property
    def services(self) -> list[Served]:
        """All of them."""
        return [*self.ledgers, *self.towers]

    def begin(self) -> None:
        """Start every service; return when all are ready."""
        with ThreadPoolExecutor() as threads:
            list(threads.map(Served.begin, self.services))

    def stop(self) -> None:
        """Stop every service, the towers first.

        Raises:
            AssertionError: one did not stop well.
        """
        for served in reversed(self.services):
            assert served.stop() == 0, f"{served.label} did not stop well: {served.last_words()}"

    def check_logs(self) -> None:
        """Check that no service met anything that nobody foresaw: it logs that as an error, with a traceback.

        Raises:
            AssertionError: one did.
        """
        for served in self.services:
            for line in served.log.read_text().splitlines():
                record = json.loads(line) if line.startswith("{") else {}
                assert record.get("level") != "error" or "exception" not in record, f"{served.label}: {line}"
                assert not line.startswith("Traceback"), f"{served.label}: {served.last_words()}"


@contextmanager
def new_site(
    folder: Path, shape: Shape, *, act_urls: Sequence[str] | None = None, **tower_settings: Any
) -> Iterator[Site]:
    """Make a site in a folder, and start none of its services; whatever runs at the end of the block is ended.

    Args:
        folder: for files and logs.
        shape: what it is made of.
        act_urls: where the towers find the ledgers; default: the ledgers themselves.
        tower_settings: more of the towers' settings.
    """
    with ExitStack() as ends:
        server: PostgresServer | None = None
        if shape.kind == "postgres":
            server = ends.enter_context(own_server(folder / "postgres.log"))
            oms, act = (Database("postgres", server.create(name), server.url("postgres")) for name in ("oms", "act"))
        else:
            oms, act = (Database("sqlite", f"sqlite:///{folder / name}.db") for name in ("oms", "act"))
        broker = {} if shape.amqp_url is None else {"amqp_url": shape.amqp_url}
        exchange = {} if shape.amqp_url is None else {"amqp_exchange": shape.exchange}
        ledgers = [
            Served("act", folder, label=f"act{number}", database_url=act.url, ping_sec=1, **broker, **exchange)
            for number in range(1, shape.ledgers + 1)
        ]
        urls = act_urls or [ledger.url for ledger in ledgers]
        towers = [
            Served(
                "oms",
                folder,
                label=f"oms{number}",
                database_url=oms.url,
                act_url=urls[(number - 1) % len(urls)],
                **broker,
                **tower_settings,
            )
            for number in range(1, shape.towers + 1)
        ]
        site = Site(towers, ledgers, server, oms, act)
        for served in site.services:
            ends.callback(served.leave)
        yield site
