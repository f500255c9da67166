"""Golden events: what was ever written is taken for ever, byte for byte.

A file here is never changed and never removed. A new version of the events gets a folder of its own beside ``v1``.
"""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path

import pytest

from act.contract import EVENT, STATUSES, Entity, encode_event, entry_bytes, leaf_hash, parse_time_ms
from act.storage.store import open_store
from tests.act.support import check_ledger, running

GOLDEN = Path(__file__).with_name("golden")
FILES = sorted((GOLDEN / "v1").glob("*.json"))
RECEIVED_US = 1_763_820_400_000_000
"""The time of receipt that the leaf hashes are made with."""


def kept_hashes() -> dict[str, str]:
    """Return the leaf hash of each golden file, by its name."""
    lines = (GOLDEN / "v1.leaf_hashes").read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_no_file_is_missing_added_silently_or_changed() -> None:
    """The hash covers the entry's format too: a different one would orphan every proof ever handed out."""
    assert {path.name: leaf_hash(entry_bytes(RECEIVED_US, path.read_bytes())).hex() for path in FILES} == kept_hashes()
    assert len(FILES) == 38


def test_every_status_and_every_kind_of_thing_is_here() -> None:
    events = [EVENT.validate_json(path.read_bytes()) for path in FILES]
    assert {event.data.status for event in events} == set(STATUSES)
    assert {event.type.split(".")[1] for event in events} == {"job", "task", "step", "lane"}
    assert len({event.source for event in events}) == 5


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_contract_reads_it(path: Path) -> None:
    raw = path.read_bytes()
    event = EVENT.validate_json(raw)
    assert path.stem.split("-")[1:] == [event.type.split(".")[1], event.data.status]
    assert event.id == f"{event.stream}.{event.seq}"


@pytest.mark.parametrize("path", FILES[:37], ids=lambda path: path.stem)
def test_what_is_written_today_is_the_same_bytes(path: Path) -> None:
    """All but the last are written as `encode_event` writes them: its format is part of the contract."""
    raw = path.read_bytes()
    value = json.loads(raw)
    entity: Entity = value["type"].split(".")[1]
    stream, _, seq = value["id"].rpartition(".")
    assert raw == encode_event(
        stream=stream,
        seq=int(seq),
        entity=entity,
        subject=value["subject"],
        time_ms=parse_time_ms(value["time"]),
        data=value["data"],
        traceparent=value.get("traceparent"),
    )


def test_act_takes_them_all_byte_for_byte(tmp_path: Path) -> None:
    raws = [path.read_bytes() for path in FILES]
    url = f"sqlite:///{tmp_path / 'act.db'}"

    async def scenario() -> None:
        async with running(url, clock=lambda: RECEIVED_US) as act:
            body = await act.append(*raws)
            assert body["accepted"] == len(raws)
            assert {
                path.name: result["leaf_hash"] for path, result in zip(FILES, body["results"], strict=True)
            } == kept_hashes()
            again = await act.append(*reversed(raws))
            assert again["duplicates"] == len(raws)
            rows = await act.rows()
            for raw, row in zip(raws, rows, strict=True):
                value = json.loads(raw)
                assert (row["event_id"], row["type"], row["ts"]) == (value["id"], value["type"], value["time"])
                assert {name: row[name] for name in value["data"]} == value["data"]
            states = {job: (await act.http.get(f"/jobs/{job}")).json() for job in ("JOB-123", "JOB-124", "JOB-125")}
            assert [state["state"] for state in states.values()] == ["done", "cancelled", "queued"]
            assert [(task["task_id"], task["status"], task["lane"]) for task in states["JOB-123"]["tasks"]] == [
                ("TASK-55", "done", "human_verify"),
                ("TASK-56", "done", "external_print"),
            ]

    asyncio.run(scenario())
    store = open_store(url, migrate=True)
    assert check_ledger(store) == raws
    store.close()


def test_the_files_are_in_the_order_in_which_they_are_posted() -> None:
    events = [EVENT.validate_json(path.read_bytes()) for path in FILES]
    for one, other in pairwise(events):
        assert one.time < other.time
    seqs: dict[str, list[int]] = {}
    for event in events:
        seqs.setdefault(event.stream, []).append(event.seq)
    assert all(found == list(range(1, len(found) + 1)) for found in seqs.values())
