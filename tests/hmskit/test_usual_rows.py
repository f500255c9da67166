"""Tests for rows of which most columns have the same value nearly always."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Boolean, Column, Connection, Integer, MetaData, String, Table, create_engine, select

from hmskit import prepared
from hmskit.usual_rows import Usual, insert_usual, update_usual

NOTES = Table(
    "notes",
    MetaData(),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", String, nullable=False),
    Column("is_new", Boolean, nullable=False),
    Column("count", Integer, nullable=False),
    Column("text", String),
    Column("where", String, nullable=False),
)
COLUMNS = ("number", "name", "is_new", "count", "text", "where")
USUAL: Usual = {"is_new": True, "count": 0, "text": None, "where": ""}
INSERT = insert_usual(NOTES, COLUMNS, USUAL)
UPDATE = update_usual(NOTES, ["name", "text", "where"], {"text": None, "where": "here"}, key="number")

rests = st.sampled_from([(True, 0, None, ""), (False, 0, None, ""), (True, 0, "", ""), (1, False, None, "x")])
changes = st.tuples(st.text("ab"), st.sampled_from([(None, "here"), (None, ""), ("here", "here")]))


@given(new=st.lists(st.tuples(st.text("ab"), rests)), data=st.data())
def test_every_row_is_written_as_it_was_given(new: list[tuple[str, tuple[Any, ...]]], data: st.DataObject) -> None:
    engine = create_engine("sqlite://")
    expected = {number: (number, name, *rest) for number, (name, rest) in enumerate(new)}
    with engine.begin() as connection:
        NOTES.create(connection)
        INSERT.many(connection, list(expected.values()))
        assert {row[0]: tuple(row) for row in connection.execute(select(NOTES))} == expected
        changed = data.draw(st.dictionaries(st.sampled_from(list(expected)), changes)) if expected else {}
        UPDATE.many(connection, [(name, number, *rest) for number, (name, rest) in changed.items()])
        for number, (name, rest) in changed.items():
            expected[number] = (number, name, *expected[number][2:4], *rest)
        assert {row[0]: tuple(row) for row in connection.execute(select(NOTES))} == expected


def test_what_is_usual_is_not_given() -> None:
    engine = create_engine("sqlite://")
    given: dict[str, int] = {}
    with engine.begin() as connection:
        NOTES.create(connection)
        with pytest.MonkeyPatch.context() as patch:
            run = prepared._run

            def look(connection: Connection, sql: str, rows: Any, *, how: str) -> Any:
                given[sql.partition(" ")[0]] = len(rows[0])
                return run(connection, sql, rows, how=how)

            patch.setattr(prepared, "_run", look)
            INSERT.many(connection, [(1, "a", True, 0, None, ""), (2, "b", True, 0, None, "")])
            UPDATE.many(connection, [("c", 1, None, "here")])
    assert given == {"INSERT": 2, "UPDATE": 2}


def test_an_unknown_column_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="no columns"):
        insert_usual(NOTES, COLUMNS, {"other": None})
