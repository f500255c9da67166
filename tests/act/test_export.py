"""Exports: every event, exactly, in formats that others read; streamed, and never half of one that looks whole."""

from __future__ import annotations

import csv
import io
import json
import socket
import sqlite3
import sys
import threading
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from typer.testing import CliRunner

from act.cli import main
from act.contract import entry_bytes, format_time_ms, leaf_hash
from act.domain.filters import Filters
from act.export import covering
from act.export.formats import FORMATS, PAGE, Export
from act.export.spreadsheet import FORMULA, cell
from act.storage.store import Store, open_store
from tests.act.conftest import LendUrl
from tests.act.support import NOW_MS, Act, batches, event, plain_job, run, running, sqlite_file
from tests.act.test_storage import put
from tests.databases import sqlite_only

SCHEMA = json.loads(Path(__file__).with_name("ocel.schema.json").read_text())


async def fill(act: Act, raws: list[bytes]) -> list[dict[str, Any]]:
    """Append events; return ACT's receipts."""
    found: list[dict[str, Any]] = []
    for batch in batches(raws, 500):
        found += (await act.append(*batch))["results"]
    return found


async def exported(act: Act, name: str, **query: str) -> bytes:
    answer = await act.http.get("/export", params={"format": name, **query})
    assert answer.status_code == 200, answer.text
    return answer.content


def lines_of(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.decode().splitlines()]


def ours() -> list[bytes]:
    """Return events of two jobs and a lane, with whatever text may hold."""
    odd = event("JOB-2", 1, entity="job", status="queued", detail={"x": 'é "\\\u2028\U0001f600', "n": 1.0})
    return [
        *plain_job("JOB-1"),
        odd.replace("é".encode(), rb"\u00e9").replace(b'"detail":{', b'"detail" : {  '),
        event("JOB-2", 2, status="queued", lane="=1+1", task="TASK-9", time_ms=NOW_MS + 60_000),
        event(
            "JOB-2", 3, status="started", lane="=1+1", task="TASK-9", attempt=1, worker="@w", time_ms=NOW_MS + 61_000
        ),
        event("LANE-human", 1, entity="lane", status="paused", lane="human", time_ms=NOW_MS + 62_000),
    ]


# CloudEvents lines.


def test_every_line_is_an_event_as_it_was_posted(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            raws = ours()
            receipts = await fill(act, raws)
            answer = await act.http.get("/export?format=cloudevents")
            assert answer.headers["content-type"] == "application/x-ndjson"
            header, *lines = lines_of(answer.content)
            assert header == {
                "act_export": 1,
                "origin": "act",
                "checkpoint": None,
                "format": "cloudevents",
                "size": len(raws),
            }
            assert json.loads(answer.headers["act-export"]) == header
            assert [line["event"].encode() for line in lines] == raws
            assert [line["index"] for line in lines] == list(range(len(raws)))
            for line, receipt in zip(lines, receipts, strict=True):
                assert line.keys() == {"index", "received_us", "leaf_hash", "event"}
                entry = entry_bytes(line["received_us"], line["event"].encode())
                assert line["leaf_hash"] == leaf_hash(entry).hex()
                assert leaf_hash(entry).hex() == receipt["leaf_hash"]

    run(scenario())


def test_filters_narrow_it(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            raws = ours()
            await fill(act, raws)

            async def indexes(**query: str) -> list[int]:
                header, *lines = lines_of(await exported(act, "cloudevents", **query))
                assert header["size"] == len(raws)
                return [line["index"] for line in lines]

            later = format_time_ms(NOW_MS + 60_000)
            assert await indexes(job="JOB-2") == [5, 6, 7]
            assert await indexes(since=later) == [6, 7, 8]
            assert await indexes(until=format_time_ms(NOW_MS + 2000)) == [0, 1, 5]
            assert await indexes(job="JOB-2", since=later, until=format_time_ms(NOW_MS + 61_000)) == [6]

    run(scenario())


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("", 422, "format"),
        ("format=cloudevent", 422, "did you mean 'cloudevents'?"),
        ("format=csv&lane=x", 422, "lane"),
        ("format=csv&since=yesterday", 422, "since"),
        ("format=csv&format=csv", 422, "once"),
        ("format=csv&job=JOB-9", 404, "JOB-9"),
        ("format=csv&job=LANE-human", 404, "LANE-human"),
    ],
)
def test_what_cannot_be_exported_is_refused(url: str, query: str, status: int, says: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await fill(act, ours())
            answer = await act.http.get(f"/export?{query}")
            assert answer.status_code == status
            assert says in answer.json()["detail"]

    run(scenario())


def whole(store: Store, name: str, filters: Filters | None = None) -> bytes:
    """Return an export, read as the service reads it."""
    with store.reader.begin() as tx:
        export = Export(tx, name, filters or Filters())
    with closing(export):
        content = export.begin()
        while not export.is_last:
            with store.reader.begin() as tx:
                content += export.page(tx)
        return content + b"".join(export.end())


def test_it_ends_where_the_ledger_ended_when_it_began(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await fill(act, [raw for n in range(1, 202) for raw in plain_job(f"JOB-{n}")])
            for filters in (Filters(), Filters(job="JOB-201")):
                export = await act.ledger.read(Export, "cloudevents", filters)
                first = export.header.size
                await fill(act, [event("JOB-201", first - 999, entity="job", status="signalled")])
                content = export.begin()
                while not export.is_last:
                    content += await act.ledger.read(export.page)
                indexes = [line["index"] for line in lines_of(content)[1:]]
                assert indexes[-1] == first - 1
                assert len(indexes) == (first if filters.job is None else first - 1000)

    run(scenario())


@pytest.mark.parametrize("events_there", [0, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
def test_no_row_is_lost_between_pages(url: str, events_there: int) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            raws = [event(f"JOB-{n}", 1, entity="job", status="queued") for n in range(1, events_there + 1)]
            if raws:
                await fill(act, raws)
            assert [line["event"].encode() for line in lines_of(await exported(act, "cloudevents"))[1:]] == raws
            assert len(list(csv.reader(io.StringIO((await exported(act, "csv")).decode())))) == events_there + 1
            assert len(json.loads(await exported(act, "ocel2"))["events"]) == events_there

    run(scenario())


@pytest.mark.parametrize("name", FORMATS)
def test_its_memory_does_not_grow_with_the_ledger(
    lend_url: LendUrl, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("act.export.parquet.GROUP_ROWS", 500)  # what Parquet holds until it is written
    arrow = pytest.importorskip("pyarrow") if name == "parquet" else None

    def peak(jobs: int) -> int:
        with lend_url() as url:
            store = open_store(url, migrate=False)
            put(store, [raw for n in range(jobs) for raw in plain_job(f"JOB-{n + 1}")])
            with store.reader.begin() as tx:
                export = Export(tx, name, Filters())
            outside = 0
            tracemalloc.start()
            while not export.is_last:
                with store.reader.begin() as tx:
                    export.page(tx)
                outside = max(outside, arrow.total_allocated_bytes() if arrow else 0)
            for _ in export.end():
                pass
            most = tracemalloc.get_traced_memory()[1] + outside
            tracemalloc.stop()
            export.close()
            store.close()
            return most

    peak(40)  # whatever is made once
    assert peak(800) < peak(200) * 1.5


# The checkpoint that covers it.

NOTE = "act.example/log\n3\nROOT=\n\n— act.example/log sig=\n"


def test_it_ends_where_its_checkpoint_ends(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covering, "current_checkpoint", lambda _tx: NOTE)

    async def scenario() -> None:
        async with running(url) as act:
            await fill(act, ours())
            header, *lines = lines_of(await exported(act, "cloudevents"))
            expected = {"act_export": 1, "origin": "act.example/log", "checkpoint": NOTE, "size": 3}
            assert header == {**expected, "format": "cloudevents"}
            assert [line["index"] for line in lines] == [0, 1, 2]
            document = json.loads(await exported(act, "ocel2", job="JOB-1"))
            assert document["act_export"] == {**expected, "format": "ocel2"}
            assert len(document["events"]) == 3
            answer = await act.http.get("/export?format=csv")
            assert json.loads(answer.headers["act-export"]) == {**expected, "format": "csv"}

    run(scenario())


# CSV.


def test_the_csv_has_a_line_for_each_event(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            receipts = await fill(act, ours())
            rows = list(csv.DictReader(io.StringIO((await exported(act, "csv")).decode(), newline="")))
            assert [row["event_id"] for row in rows] == [receipt["id"] for receipt in receipts]
            assert [row["leaf_hash"] for row in rows] == [receipt["leaf_hash"] for receipt in receipts]
            shown = await act.rows()
            for row, there in zip(rows, shown, strict=True):
                assert (row["index"], row["ts"], row["received_at"]) == (
                    str(there["id"]),
                    there["ts"],
                    there["received_at"],
                )
                assert json.loads(row["detail"]) == there["detail"]
                for name in ("status", "job_id", "seq", "plan", "task_id", "attempt", "type"):
                    assert row[name] == ("" if there[name] is None else str(there[name]))
            assert (rows[6]["lane"], rows[7]["worker"]) == ("'=1+1", "'@w")

    run(scenario())


TEXTS = st.text(alphabet=st.one_of(st.sampled_from("=+-@\t\r\n'\",; \uff1d\uff20a1"), st.characters(codec="utf-8")))


@given(st.lists(TEXTS))
def test_no_cell_is_taken_for_a_formula(texts: list[str]) -> None:
    line = ",".join(map(cell, texts)) + "\r\n"
    (row,) = csv.reader(io.StringIO(line, newline="")) if texts else ([],)
    for text, read in zip(texts, row, strict=True):
        assert read in (text, f"'{text}")
        assert not read.startswith(FORMULA)
        assert not read.lstrip().startswith(FORMULA)


@pytest.mark.parametrize("text", [f"{sign}1+1" for sign in FORMULA] + ["  =1", "\u00a0@a"])
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(text: str) -> None:
    assert cell(text) == f'"\'{text}"'


# OCEL 2.0.


def test_the_ocel_document_is_valid_and_agrees_with_itself(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            raws = ours()
            await fill(act, raws)
            answer = await act.http.get("/export?format=ocel2")
            assert answer.headers["content-type"] == "application/json"
            document = answer.json()
            validator = Draft202012Validator(SCHEMA, validate_formats=True)
            assert [str(error) for error in validator.iter_errors(document)] == []
            assert not validator.is_valid({**document, "events": [{**document["events"][0], "time": "yesterday"}]})
            check_references(document)
            shown = await act.rows()
            assert [row["event_id"] for row in shown] == [found["id"] for found in document["events"]]
            objects = {found["id"]: found for found in document["objects"]}
            assert objects.keys() == {
                "JOB-1", "JOB-2", "TASK-1", "TASK-9", "lane:ai_extract", "lane:=1+1", "lane:human", "worker:w-1",
                "worker:@w",
            }  # fmt: skip
            assert objects["TASK-9"]["relationships"] == [{"objectId": "JOB-2", "qualifier": "of"}]
            assert {"name": "reference", "value": "ticket-of-JOB-2", "time": "1970-01-01T00:00:00Z"} in objects[
                "JOB-2"
            ]["attributes"]
            assert document["events"][3]["type"] == "ai_extract done"
            assert document["events"][4]["type"] == "job done"

    run(scenario())


def check_references(document: dict[str, Any]) -> None:
    """Check what the specification asks for and a schema cannot say."""
    ids = [found["id"] for found in document["objects"]]
    assert len(ids) == len(set(ids))
    assert len({found["id"] for found in document["events"]}) == len(document["events"])
    for things, types in (("events", "eventTypes"), ("objects", "objectTypes")):
        declared = {
            kind["name"]: {each["name"]: each["type"] for each in kind["attributes"]} for kind in document[types]
        }
        assert len(declared) == len(document[types])
        for thing in document[things]:
            for attribute in thing["attributes"]:
                kind = declared[thing["type"]][attribute["name"]]
                assert kind != "integer" or str(int(attribute["value"])) == attribute["value"]
            assert {each["objectId"] for each in thing["relationships"]} <= set(ids)


def test_a_lane_called_like_a_job_is_another_object(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await fill(act, plain_job("JOB-1", lane="JOB-1", task="TASK-1"))
            document = json.loads(await exported(act, "ocel2"))
            check_references(document)
            assert {"JOB-1", "lane:JOB-1"} <= {found["id"] for found in document["objects"]}

    run(scenario())


def test_an_empty_ledger_is_a_valid_document(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            document = json.loads(await exported(act, "ocel2"))
            assert Draft202012Validator(SCHEMA).is_valid(document)
            assert document["events"] == document["objects"] == document["eventTypes"] == []

    run(scenario())


# Parquet.


def test_the_parquet_file_has_every_column_exact(url: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")

    async def scenario() -> None:
        async with running(url) as act:
            raws = ours()
            receipts = await fill(act, raws)
            content = await exported(act, "parquet")
            file = parquet.ParquetFile(io.BytesIO(content))
            header = json.loads(file.schema_arrow.metadata[b"act_export"])
            assert header == {"act_export": 1, "origin": "act", "checkpoint": None, "format": "parquet", "size": 9}
            rows = file.read().to_pylist()
            assert [row["event"].encode() for row in rows] == raws
            assert [row["leaf_hash"].hex() for row in rows] == [receipt["leaf_hash"] for receipt in receipts]
            assert [row["lane"] for row in rows][6:8] == ["=1+1", "=1+1"]
            assert int(rows[0]["ts_ms"].timestamp() * 1000) == NOW_MS
            assert {row["attempt"] for row in rows} == {None, 1}

    run(scenario())


def test_parquet_comes_in_groups(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("act.export.parquet.GROUP_ROWS", 1000)

    async def scenario() -> None:
        async with running(url) as act:
            await fill(act, [event(f"JOB-{n}", 1, entity="job", status="queued") for n in range(1, 2400)])
            file = parquet.ParquetFile(io.BytesIO(await exported(act, "parquet")))
            assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [1000, 1000, 399]
            assert file.read().column("index").to_pylist() == list(range(2399))

    run(scenario())


def test_without_its_package_parquet_says_what_to_install(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    async def scenario() -> None:
        async with running(url) as act:
            answer = await act.http.get("/export?format=parquet")
            assert answer.status_code == 422
            assert "pip install 'hms-orchestration[parquet]'" in answer.json()["detail"]

    run(scenario())


# What is exported is what was hashed, and what is not whole is not kept.


@sqlite_only
def test_the_receive_time_is_the_one_that_was_hashed(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            receipts = await fill(act, ours())
            with sqlite3.connect(sqlite_file(act.store.writer)) as other:
                for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                    other.execute(f'DROP TRIGGER "{name}"')
                other.execute("UPDATE events SET received_us = received_us + 1")
            other.close()
            for line, receipt in zip(lines_of(await exported(act, "cloudevents"))[1:], receipts, strict=True):
                entry = entry_bytes(line["received_us"], line["event"].encode())
                assert leaf_hash(entry).hex() == receipt["leaf_hash"]

    run(scenario())


HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nact-export: {}\r\n\r\n"


@pytest.mark.parametrize(("rest", "is_whole"), [(b"0\r\n\r\n", True), (b"", False), (b"5\r\nab", False)])
def test_what_breaks_off_is_not_kept(tmp_path: Path, rest: bytes, is_whole: bool) -> None:
    target = tmp_path / "ledger.jsonl"
    target.write_text("the old one")

    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(HEAD + b"4\r\nline\r\n" + rest)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        done = CliRunner().invoke(main, ["export", "--from", address, "-o", str(target)])
        thread.join()
    assert done.exit_code == (0 if is_whole else 1), done.output
    assert target.read_text() == ("line" if is_whole else "the old one")
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.jsonl"]
    assert is_whole or "broke off after" in done.stderr
