"""Requests that nobody should send: each is refused with what to do, none is a fault of ours, and nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.database import KINDS
from tests.databases import Databases
from tests.oms.api_client import Client, check_problem, serving
from tests.oms.support import Site

# What nobody should send.

RESTART = "/jobs/JOB-1/restart"
SIGNAL = "/jobs/JOB-4/signal"
POSTS = [
    *("/start", "/complete", "/fail", "/heartbeat", "/release", "/reroute", "/retry", "/skip"),
    *(RESTART, SIGNAL, "/plans"),
]
WAITS: dict[str, Any] = {"id": "waits", "lanes": ["only"], "sequence": [{"wait": {"signal": "answered"}}]}
LISTS = ["/start", "/complete", "/fail"]

BAD_BODIES: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \n\t ",
    "no JSON": b"hello",
    "half": b'{"plan":',
    "two values": b'{"plan":"single"}{}',
    "a comma too many": b'{"plan":"single",}',
    "no UTF-8": b'{"plan":"\xff\xfe"}',
    "UTF-16": '{"plan":"single"}'.encode("utf-16"),
    "NaN": b'{"plan":"single","reference":"T-1","input":{"a":NaN}}',
    "infinity": b'{"plan":"single","reference":"T-1","input":{"a":Infinity}}',
    "a half surrogate": b'{"plan":"single","reference":"T-1","input":{"a":"\\ud800"}}',
    "a half surrogate as a key": b'{"plan":"single","reference":"T-1","input":{"\\udfff":1}}',
    "a number too large": b'{"plan":"single","reference":"T-1","input":{"a":1e400}}',
    "a number too large, negative": b'{"plan":"single","reference":"T-1","input":{"a":[-1E+0400]}}',
    "a number too large, written out": b'{"plan":"single","reference":"T-1","input":{"a":' + b"1" * 400 + b".0}}",
    "a number too large, half written out": b'{"plan":"single","reference":"T-1","input":{"a":' + b"1" * 250 + b"e99}}",
    "an integer of 5,000 digits": b'{"plan":"single","reference":"T-1","input":{"a":' + b"1" * 5_000 + b"}}",
    "deep lists": b"[" * 9_000 + b"]" * 9_000,
    "deep objects": b'{"plan":"single","reference":"T-1","input":' + b'{"a":' * 3_000 + b"1" + b"}" * 3_001,
    "a number": b"1",
    "a text": b'"single"',
    "null": b"null",
    "true": b"true",
    "a list of numbers": b"[1,2]",
    "a list with null": b'[{"plan":"single","reference":"T-1"},null]',
    "a list of lists": b"[[]]",
    "too long a list": b"[" + b",".join([b"{}"] * 1_001) + b"]",
    "an unknown key": b'{"plan":"single","reference":"T-1","referense":"T-1"}',
    "nothing in it": b"{}",
}

LONG = "x" * 201
NOT_TEXT: list[Any] = [None, 1, True, [], {}]
BAD_NAMES: list[Any] = [*NOT_TEXT, "", LONG, "a\nb", "a\x00b", "\x1b[31m", "a\x7fb", "a\x85b"]
BAD_NUMBERS: list[Any] = ["1", 1.5, True, [], {}, 10**30, -(10**30), 1e300]
WRONG: dict[str, dict[str, list[Any]]] = {
    "/start": {
        "plan": [*BAD_NAMES, "nobody_knows"],
        "reference": BAD_NAMES,
        "input": [None, [], "x", 1],
        "priority": [*BAD_NUMBERS, None],
    },
    "/complete": {"output": [None, [], "x", 1], "token": [*BAD_NAMES[1:], "of nobody"], "worker": BAD_NAMES[1:]},
    "/fail": {
        "error": [None, 1, [], {}, "x" * 10_001, {"type": "no luck", "message": ""}, {"type": "a", "text": ""}],
        "retryable": [None, 1, "true", "no"],
        "token": ["", LONG, "of nobody"],
        "worker": BAD_NAMES[1:],
    },
    "/heartbeat": {
        "token": [*BAD_NAMES, "of nobody"],
        "progress": [-0.1, 1.1, "0.5", True, 10**30],
        "note": ["", "x" * 501, 1, "a\nb"],
    },
    "/release": {"token": [*BAD_NAMES, "of nobody"], "reason": ["", "x" * 501, 1]},
    "/reroute": {"new_lane": BAD_NAMES, "priority": BAD_NUMBERS, "reason": [1, ""], "actor": BAD_NAMES[1:]},
    "/retry": {"actor": BAD_NAMES[1:]},
    "/skip": {"output": [None, [], "x", 1], "reason": [*NOT_TEXT, "", "x" * 501, "a\nb"], "actor": BAD_NAMES[1:]},
    RESTART: {"from": [*BAD_NAMES, "nothing"], "reason": [1, ""], "actor": BAD_NAMES[1:]},
    SIGNAL: {
        "name": [*BAD_NAMES, "nothing"],
        "data": [None, [], "x", 1],
        "signal_id": BAD_NAMES[1:],
        "actor": BAD_NAMES[1:],
    },
}
BAD_IDS: list[Any] = [
    *NOT_TEXT,
    *("", "1", "TASK-", "TASK-0", "TASK--1", "TASK-+1", "TASK- 1", "TASK-1 ", "TASK-01", "TASK-1e3", "TASK-1.0"),
    *("TASK-0x1", "TASK-1_0", "task-1", "JOB-1", "TASK-TASK-1", "TASK-1\n", "TASK-1\x00", "TASK-99999"),
    *("TASK-" + "9" * 18, "TASK-" + "9" * 19, f"TASK-{10**30}", "TASK-" + "9" * 5_000),
    *("TASK-\u0661", "TASK-\uff11", "TASK-\u00b9", "TASK-\U0001d7cf"),
]


class Busy(Client):
    """A service in which TASK-1 runs, TASK-2 has failed and TASK-3 waits.

    Attributes:
        good: what each call would take.
    """

    good: dict[str, dict[str, Any]]


@contextmanager
def make_busy(site: Site) -> Iterator[Busy]:
    with serving(site, max_body=20_000, allowed_origins="https://portal.example") as client:
        busy = Busy(client.http, client.store, client.clock)
        busy.start("T-1")
        token = busy.get("/pull", lane="extract")["token"]
        busy.start("T-2", "single")
        busy.get("/pull", lane="only")
        busy.post("/fail", {"task_id": "TASK-2", "error": "", "retryable": False})
        busy.start("T-3", "single")
        busy.post("/plans", WAITS)
        busy.start("T-4", "waits")
        busy.good = {
            "/start": {"plan": "single", "reference": "T-9"},
            "/complete": {"task_id": "TASK-1"},
            "/fail": {"task_id": "TASK-1", "error": "x"},
            "/heartbeat": {"task_id": "TASK-1", "token": token},
            "/release": {"task_id": "TASK-1", "token": token},
            "/reroute": {"task_id": "TASK-1", "new_lane": "print"},
            "/retry": {"task_id": "TASK-2"},
            "/skip": {"task_id": "TASK-3", "output": {}, "reason": "seen on paper"},
            RESTART: {"from": "extract"},
            SIGNAL: {"name": "answered"},
        }
        yield busy


@pytest.fixture(scope="module", params=KINDS)
def busy(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Busy]:
    """One service for all tests here: none of them may change anything."""
    with (
        databases.lend(request.param, "oms") as database,
        make_busy(Site(tmp_path_factory.mktemp("busy"), database)) as made,
    ):
        yield made


@pytest.mark.parametrize("path", POSTS[:-1])
def test_what_the_wrong_requests_are_made_from_is_taken_itself(site: Site, path: str) -> None:
    """So that each of them is refused for what is wrong with it, and for nothing else; and so that a change shows."""
    with make_busy(site) as oms:
        before = oms.tables()
        oms.clock.advance(1)
        oms.post(path, oms.good[path])
        assert oms.tables() != before


@pytest.mark.parametrize("path", POSTS)
def test_a_bad_body_is_refused_and_changes_nothing(busy: Busy, path: str) -> None:
    before = busy.tables()
    for name, body in BAD_BODIES.items():
        answer = busy.http.post(path, content=body)
        assert 400 <= answer.status_code < 500, f"{name}: {answer.status_code} {answer.text[:300]}"
        check_problem(answer)
    assert busy.tables() == before


@pytest.mark.parametrize("path", WRONG)
def test_a_wrong_value_is_refused_and_changes_nothing(busy: Busy, path: str) -> None:
    before = busy.tables()
    wrong = {"task_id": BAD_IDS, **WRONG[path]} if "task_id" in busy.good[path] else WRONG[path]
    for key, values in wrong.items():
        for value in values:
            status, body = busy.refused(path, {**busy.good[path], key: value})
            assert status in (404, 409, 422), f"{key}={str(value)[:50]!r}: {status} {body}"
            if path in LISTS:
                (answer,) = busy.post(path, [{**busy.good[path], key: value}])
                assert answer["error"]["status"] == status, f"{key}={str(value)[:50]!r} in a list"
    assert busy.tables() == before


@pytest.mark.parametrize("path", [path for path in POSTS if path not in LISTS])
def test_a_list_where_one_object_is_expected_is_refused(busy: Busy, path: str) -> None:
    assert busy.refused(path, [])[0] == 422
    assert busy.refused(path, [{}])[0] == 422


@pytest.mark.parametrize("prefix", ["/jobs/JOB-", "/tasks/TASK-"])
@pytest.mark.parametrize(
    "digits",
    [
        *("0", "-1", "1e3", "01", "+1", "%201", "1%20", "9" * 18, "9" * 19, "1" + "0" * 30),
        *("%D9%A1", "%EF%BC%91", "1%00", "%ff", "x/y"),
    ],
)
def test_an_id_that_cannot_be_one_is_not_found(busy: Busy, prefix: str, digits: str) -> None:
    answer = busy.http.get(f"{prefix}{digits}")
    assert answer.status_code == 404, answer.text
    check_problem(answer)


@pytest.mark.parametrize(
    "path", ["/plans/%00", "/plans/" + "x" * 5_000, "/plans/%ff", "/plans/../jobs", "/nowhere", "/"]
)
def test_a_path_that_leads_nowhere_is_not_found(busy: Busy, path: str) -> None:
    answer = busy.http.get(path)
    if path != "/plans/../jobs":  # which is /jobs
        assert answer.status_code == 404, answer.text
        check_problem(answer)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "lane=",
        f"lane={'x' * 101}",
        "lane=a%00b",
        "lane=a%0Ab",
        "lane=extract&wait=-1",
        "lane=extract&wait=61",
        "lane=extract&wait=nan",
        "lane=extract&wait=inf",
        "lane=extract&wait=1e400",
        "lane=extract&wait=soon",
        "lane=extract&wait=",
        "lane=extract&max=0",
        "lane=extract&max=-1",
        "lane=extract&max=1001",
        "lane=extract&max=1.5",
        f"lane=extract&max={10**30}",
        "lane=extract&max=%D9%A1",
        "lane=extract&max=many",
        "lane=extract&worker=",
        f"lane=extract&worker={'x' * 201}",
        "lane=extract&worker=a%0Ab",
        "lane=extract&limit=1",
        "lane=extract&Max=1",
        "lnae=extract",
    ],
)
def test_a_wrong_pull_is_refused_and_changes_nothing(busy: Busy, query: str) -> None:
    before = busy.tables()
    answer = busy.http.get(f"/pull?{query}")
    assert answer.status_code == 422, answer.text
    assert check_problem(answer)["errors"]
    assert busy.tables() == before


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        f"limit={10**30}",
        "cursor=x",
        "cursor=-1",
        "cursor=0",
        "cursor=",
        f"cursor={'9' * 19}",
        f"cursor={'9' * 41}",
        "cursor=%D9%A1",
        "older_than_sec=-1",
        "older_than_sec=nan",
        "older_than_sec=inf",
        "older_than_sec=1e400",
        "older_than_sec=x",
        "plan=",
        "plan=a%00b",
        f"reference={'x' * 201}",
        "nonsense=1",
    ],
)
@pytest.mark.parametrize("path", ["/jobs", "/tasks"])
def test_a_wrong_list_query_is_refused(busy: Busy, path: str, query: str) -> None:
    answer = busy.http.get(f"{path}?{query}")
    assert answer.status_code == 422, answer.text
    check_problem(answer)


@pytest.mark.parametrize("query", ["/jobs?state=nope", "/jobs?status=done", "/tasks?status=nope", "/tasks?state=done"])
def test_a_status_that_does_not_exist_is_refused(busy: Busy, query: str) -> None:
    answer = busy.http.get(query)
    assert answer.status_code == 422
    check_problem(answer)


@pytest.mark.parametrize(
    "path", ["/lanes", "/plans", "/healthz", "/readyz", "/jobs/JOB-1", "/tasks/TASK-1", "/plans/single"]
)
def test_a_query_where_none_is_known_does_no_harm(busy: Busy, path: str) -> None:
    assert busy.http.get(f"{path}?nonsense=1").status_code in (200, 422)


@pytest.mark.parametrize("path", POSTS)
def test_a_body_that_is_too_large_is_refused_whatever_it_says_of_its_length(busy: Busy, path: str) -> None:
    large = b'{"plan":"single","reference":"T-9","input":{"a":"' + b"x" * 30_000 + b'"}}'
    before = busy.tables()
    told = busy.http.post(path, content=large)
    in_pieces = busy.http.post(path, content=iter([large[:9_000], large[9_000:18_000], large[18_000:]]))
    lied = busy.http.post(path, content=large, headers={"content-length": "10"})
    for answer in (told, in_pieces, lied):
        assert answer.status_code == 413, answer.text
        assert "20,000 bytes" in check_problem(answer)["detail"]
    assert busy.tables() == before


def test_a_length_that_is_no_number_is_no_fault_of_ours(busy: Busy) -> None:
    for length in ("9" * 5_000, "-1", "x", "\u00b2"):
        answer = busy.http.post("/start", content=b"{}", headers={b"content-length": length.encode("latin-1")})
        assert 400 <= answer.status_code < 500, answer.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in POSTS if path != "/plans"),
        *(
            (method, path)
            for path in ("/start", "/pull", "/jobs", "/jobs/JOB-1")
            for method in ("PUT", "DELETE", "PATCH")
        ),
        *(("POST", path) for path in ("/pull", "/jobs", "/jobs/JOB-1", "/tasks/TASK-1", "/lanes", "/healthz")),
        ("OPTIONS", "/start"),
        ("BREW", "/start"),
        ("HEAD", "/pull"),
    ],
)
def test_a_method_that_a_call_does_not_have_is_refused_and_changes_nothing(busy: Busy, method: str, path: str) -> None:
    before = busy.tables()
    answer = busy.http.request(method, path, params={"lane": "only"} if path == "/pull" else {})
    assert answer.status_code == 405, answer.text
    assert answer.headers["allow"]
    if method != "HEAD":
        check_problem(answer)
    assert busy.tables() == before


@pytest.mark.parametrize("host", ["[", "]", "a b", "oms:port", "\u00ff", ""])
@pytest.mark.parametrize("path", ["/nowhere", "/jobs/JOB-1", "/pull/", "/start"])
def test_a_host_that_is_no_host_is_no_fault_of_ours(busy: Busy, path: str, host: str) -> None:
    answer = busy.http.get(path, headers={b"host": host.encode("latin-1")}, follow_redirects=False)
    assert answer.status_code < 500, answer.text


# A browser that acts for another site.

CROSS_SITE: list[dict[str, str]] = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://oms.evil.example"},
    {"origin": "http://oms:8001"},
    {"origin": "http://"},
    {"origin": "oms"},
    {"origin": "http://["},
    {"origin": ""},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "Cross-Site"},
    {"sec-fetch-site": "cross-site", "origin": "http://oms"},
    {"sec-fetch-site": "same-origin", "origin": "https://evil.example"},
]
SAME_SITE: list[dict[str, str]] = [
    {},
    {"origin": "http://oms"},
    {"origin": "http://oms:80"},
    {"origin": "HTTP://OMS"},
    {"origin": "https://oms"},  # what a proxy that ends TLS passes on
    {"origin": "https://portal.example"},
    {"origin": "https://PORTAL.example"},
    {"origin": "https://portal.example", "sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-origin", "origin": "http://oms"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
]


@pytest.mark.parametrize("headers", CROSS_SITE)
def test_another_sites_page_changes_nothing_through_a_browser(busy: Busy, headers: dict[str, str]) -> None:
    before = busy.tables()
    for path in (*POSTS, "/plans/reload"):
        answer = busy.http.post(path, json=busy.good.get(path, {}), headers=headers)
        assert answer.status_code == 403, f"{path}: {answer.text}"
        check_problem(answer)
    for path in ("/pull?lane=only", "/pull?lane=only&max=5", "/pull/?lane=only"):
        answer = busy.http.get(path, headers=headers)
        assert answer.status_code == 403, answer.text
    assert busy.tables() == before


@pytest.mark.parametrize("headers", CROSS_SITE)
def test_another_sites_page_may_read(busy: Busy, headers: dict[str, str]) -> None:
    for path in ("/jobs/JOB-1", "/lanes", "/healthz"):
        assert busy.http.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize("headers", SAME_SITE)
def test_our_own_pages_allowed_ones_and_programs_may_work(busy: Busy, headers: dict[str, str]) -> None:
    """Seen by the answer to what must not be there: whoever may come so far is asked for an id that is."""
    assert busy.http.post("/retry", json={"task_id": "TASK-99"}, headers=headers).status_code == 404
    assert busy.http.get("/pull", params={"lane": "verify"}, headers=headers).status_code == 200
