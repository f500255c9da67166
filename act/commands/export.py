"""``act export``: the ledger into a file, from its database or from a running ACT."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer
from sqlalchemy.exc import SQLAlchemyError

from act.config import Settings
from act.console import Progress, give_up, progress_bar
from hmskit.database import CannotOpenError
from hmskit.settings import SettingsError, read_settings

if TYPE_CHECKING:
    import httpx

Query = dict[str, str]

STDOUT = Path("-")
FORMATS = "cloudevents, ocel2, csv or parquet"
TIMEOUT_SEC = 60.0


class ExportError(Exception):
    """The export cannot be made; the message says why."""


def export_ledger(
    *,
    name: Annotated[str, typer.Option("--format", help=f"How it is written: {FORMATS}.")] = "cloudevents",
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="A running ACT (http://...) or a database URL; by default the database of the settings "
            "[ACT_DATABASE_URL].",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file; - for standard output.")] = STDOUT,
    job: Annotated[str | None, typer.Option(help="One job's events only.", show_default=False)] = None,
    since: Annotated[str | None, typer.Option(help="From this time on (RFC 3339).", show_default=False)] = None,
    until: Annotated[str | None, typer.Option(help="Before this time (RFC 3339).", show_default=False)] = None,
) -> None:
    """Write the ledger into a file that others read. What is not complete is not kept.

    A CSV file has no place for what an export says of itself: it stands beside it, in FILE.header.json.
    """
    query = {
        key: value
        for key, value in {"format": name, "job": job, "since": since, "until": until}.items()
        if value is not None
    }
    try:
        with _opened(output) as file, progress_bar() as move:
            if source is not None and source.startswith(("http://", "https://")):
                header = _from_service(source, query, file, move)
            else:
                database_url = read_settings(Settings, database_url=source).database_url
                header = _from_database(database_url, query, file, move)
        if name == "csv" and output != STDOUT:
            output.with_name(f"{output.name}.header.json").write_bytes(header + b"\n")
    except SettingsError as error:
        give_up(error, code=2)
    except CannotOpenError as error:
        give_up(ExportError(f"{error}; or name the running service: --from http://127.0.0.1:8002"))
    except ExportError as error:
        give_up(error)
    except OSError as error:
        give_up(ExportError(f"{output}: {error.strerror}"))


@contextmanager
def _opened(output: Path) -> Iterator[BinaryIO]:
    """Open a file beside the one that is wanted, and put it in its place at the end, once it is whole and on disk."""
    if output == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)


def _from_database(database_url: str, query: Query, file: BinaryIO, move: Progress) -> bytes:
    """Raises: ExportError, CannotOpenError."""
    from starlette.datastructures import QueryParams  # noqa: PLC0415 - `act --help` answers at once

    from act.api.query import read_export_query  # noqa: PLC0415
    from act.domain.errors import ActError  # noqa: PLC0415
    from act.export.formats import Export  # noqa: PLC0415
    from act.storage.store import open_store  # noqa: PLC0415

    with closing(open_store(database_url, migrate=False)) as store:
        try:
            name, filters = read_export_query(QueryParams(query))
            with store.reader.begin() as tx:
                export = Export(tx, name, filters)
            total = None if filters.one_stream is not None else export.header.size
            with closing(export):
                file.write(export.begin())
                while not export.is_last:
                    with store.reader.begin() as tx:
                        chunk = export.page(tx)
                    file.write(chunk)
                    move("events", export.done, total)
                for chunk in export.end():
                    file.write(chunk)
        except ActError as error:
            raise ExportError(error.detail) from error
        except SQLAlchemyError as error:
            raise ExportError(f"{store.name}: {store.why_unavailable(error) or error}") from error
        return export.header.json()


def _from_service(url: str, query: Query, file: BinaryIO, move: Progress) -> bytes:
    """Raises: ExportError."""
    import httpx  # noqa: PLC0415 - `act --help` answers at once

    timeout = httpx.Timeout(TIMEOUT_SEC, connect=5.0)
    where = f"{url.rstrip('/')}/export"
    done = 0
    try:
        with (
            httpx.Client(timeout=timeout, trust_env=False) as http,
            http.stream("GET", where, params=query) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise ExportError(f"{where} answered {answer.status_code}: {_detail(answer)}")
            for chunk in answer.iter_bytes():
                file.write(chunk)
                done += len(chunk)
                move("bytes", done, None)
            header: str = answer.headers.get("act-export", "")
            return header.encode()
    except httpx.HTTPError as error:
        broken = f"broke off after {done:,} bytes" if done else "gave no answer"
        raise ExportError(f"{where} {broken}: {error or type(error).__name__}") from error


def _detail(answer: httpx.Response) -> str:
    try:
        return str(json.loads(answer.read())["detail"])
    except (ValueError, KeyError, TypeError):
        return "is this the address of ACT?"
