"""What ``GET /stream`` makes of a query."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers, QueryParams

from act.api.query import StreamQuery, read_stream_query
from act.domain.errors import InvalidInputError
from act.domain.filters import Filters

NOW_MS = 1_000_000_000_000


def read(query: str, **headers: str) -> StreamQuery:
    return read_stream_query(
        QueryParams(query), Headers({name.replace("_", "-"): value for name, value in headers.items()}), now_ms=NOW_MS
    )


def test_nothing_asked_is_the_first_page_of_all() -> None:
    assert read("") == StreamQuery(Filters(), after=-1, limit=1000, is_latest=False, is_followed=False)


def test_a_job_is_shown_whole() -> None:
    assert read("job=JOB-1").limit is None
    assert read("job=JOB-1&limit=5").limit == 5


def test_everything_at_once() -> None:
    query = read(
        "job=JOB-1&lane=a&lane=b&status=done&status=failed&since=2001-09-09T01:46:40Z"
        "&until=2001-09-09T01:46:41%2B00:00&after=7&limit=10&view=latest&follow=false"
    )
    assert query == StreamQuery(
        Filters("JOB-1", ("a", "b"), ("done", "failed"), NOW_MS, NOW_MS + 1000),
        after=7,
        limit=10,
        is_latest=True,
        is_followed=False,
    )


def test_age_counts_back_from_now_and_the_earlier_end_wins() -> None:
    assert read("older_than_sec=60").filters.until_ms == NOW_MS - 60_000
    assert read("older_than_sec=0.5").filters.until_ms == NOW_MS - 500
    assert read("older_than_sec=60&until=2001-09-09T01:46:40Z").filters.until_ms == NOW_MS - 60_000
    assert read("older_than_sec=60&until=1970-01-01T00:00:00Z").filters.until_ms == 0


@pytest.mark.parametrize(
    ("accept", "is_followed"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream; charset=utf-8", True),
        ("text/html, text/event-stream;q=0.9", True),
        ("application/json, text/event-stream", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_accept_asks_for_a_live_stream(accept: str, is_followed: bool) -> None:
    assert read("", accept=accept).is_followed is is_followed
    assert read("follow=true", accept=accept).is_followed
    assert not read("follow=0", accept=accept).is_followed


def test_the_last_id_seen_beats_the_url_and_matters_only_live() -> None:
    assert read("after=3&follow=1", last_event_id="9").after == 9
    assert read("after=3&follow=1", last_event_id="").after == 3
    assert read("after=3", last_event_id="nonsense").after == 3
    assert read("after=-1").after == -1


@pytest.mark.parametrize(
    ("query", "name", "says"),
    [
        ("jbo=JOB-1", "jbo", "did you mean 'job'?"),
        ("Lane=x", "Lane", "did you mean 'lane'?"),
        ("statsu=done", "statsu", "did you mean 'status'?"),
        ("older_then_sec=5", "older_then_sec", "did you mean 'older_than_sec'?"),
        ("zzz=1", "zzz", "known are job, lane"),
        ("job=", "job", "name"),
        ("job=A&job=B", "job", "once"),
        ("job=A%00", "job", "name"),
        ("lane=", "lane", "name"),
        ("status=dnoe", "status", "did you mean 'done'?"),
        ("status=DONE", "status", "did you mean 'done'?"),
        ("status=qqq", "status", "queued, started"),
        ("since=yesterday", "since", "RFC 3339"),
        ("since=2026-11-22T14:05:09+00:00", "since", "%2B"),
        ("until=1732284309", "until", "RFC 3339"),
        ("older_than_sec=-1", "older_than_sec", "seconds"),
        ("older_than_sec=nan", "older_than_sec", "seconds"),
        ("older_than_sec=1e9", "older_than_sec", "seconds"),
        ("older_than_sec=9999999999999", "older_than_sec", "seconds"),
        ("limit=0", "limit", "from 1 to 10000"),
        ("limit=10001", "limit", "from 1 to 10000"),
        ("limit=ten", "limit", "from 1 to 10000"),
        ("limit=-1", "limit", "from 1 to 10000"),
        ("limit=\u0663", "limit", "from 1 to 10000"),
        ("after=-2", "after", "from 0 up"),
        ("after=x", "after", "from 0 up"),
        ("after=" + "9" * 30, "after", "from 0 up"),
        ("view=all", "view", "latest"),
        ("follow=yes", "follow", "true or false"),
        ("follow=1&limit=5", "limit", "live"),
        ("follow=1&view=latest", "view", "live"),
        ("follow=1&older_than_sec=5", "older_than_sec", "live"),
        ("&".join(f"lane={number}" for number in range(51)), "lane", "50 times"),
    ],
)
def test_what_cannot_be_used_is_refused_and_named(query: str, name: str, says: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read(query)
    assert refused.value.faults[0].loc == ("query", name)
    assert says in refused.value.faults[0].msg
    assert name in refused.value.detail


def test_a_last_id_that_is_none_is_refused() -> None:
    for nonsense in ("abc", "-5", "1.5", "0x1", "9" * 40):
        with pytest.raises(InvalidInputError) as refused:
            read("follow=1", last_event_id=nonsense)
        assert refused.value.faults[0].loc == ("header", "last-event-id")


def test_all_faults_are_listed() -> None:
    with pytest.raises(InvalidInputError) as refused:
        read("limit=0&after=x&status=nope&since=y")
    assert {fault.loc[1] for fault in refused.value.faults} == {"limit", "after", "status", "since"}
