"""The auditor's pages as the server sends them: complete without JavaScript, escaped, and closed to foreign code."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from act import signer as signers
from act import web
from act.contract import entry_bytes, leaf_hash
from act.keys import Keys
from act.web.view import NEWEST, ROWS
from tests.act.support import NOW_MS, Act, event, plain_job, run, running, until
from tests.act.test_signer import damage
from tests.databases import NewDatabase

HOSTILE = '</pre><script>alert("x")</script><img src=x onerror=alert(1)>\'&amp;'


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign often, so that no test waits."""
    monkeypatch.setattr(signers, "EVERY_SEC", 0.01)


class Seen(HTMLParser):
    """What a browser makes of a page: its text, and what it would load or run."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self._texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


async def page_of(act: Act, path: str, status: int = 200) -> Seen:
    answer = await act.http.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Seen(answer.text)


def test_the_ledger_page_says_where_the_ledger_stands(url: str, keys: Keys) -> None:
    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            for number in range(4):
                await act.append(*plain_job(f"JOB-{number}"))
                await act.signed()
            seen = await page_of(act, "/ledger")
            note = (await act.http.get("/checkpoint")).text
            assert "Entries 20 Covered by the last checkpoint 20" in seen.text
            assert str(keys.verifiers[0]) in seen.text
            assert " ".join(note.split()) in seen.text, "the signed note, with its signature"
            links = [link["href"] for link in seen.all("a")]
            for size in (20, 15, 10, 5):
                assert f"/proof/consistency?from={size}" in links
            shown = [link for link in links if link and link.startswith("/ledger/entries/")]
            assert shown == [f"/ledger/entries/{index}" for index in range(19, 19 - NEWEST, -1)]

    run(scenario())


def test_a_fork_is_on_the_first_page(url: str, keys: Keys) -> None:
    refused = event("JOB-1", 1, entity="job", status="failed", actor=HOSTILE)

    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            await act.append(*plain_job("JOB-0"), *plain_job("JOB-1"))
            assert "Two histories" not in (await page_of(act, "/ledger")).text
            assert (await act.post(refused)).status_code == 409
            assert (await act.post(event("JOB-7", 1, actor="a"), event("JOB-7", 1, actor="b"))).status_code == 409
            seen = await page_of(act, "/ledger")
            assert "Two histories of one job were posted" in seen.text
            assert " ".join(refused.decode().split()) in seen.text
            assert not [one for one in seen.all("img") if "onerror" in one]
            assert "/ledger/entries/5" in [link["href"] for link in seen.all("a")][-8:]
            assert "JOB-7.1" in seen.text
            assert "another one of its batch" in seen.text

    run(scenario())


def test_a_jobs_events_are_found_page_by_page(url: str, keys: Keys) -> None:
    job = [event("JOB-1", 1, entity="job", status="queued")]
    job += [event("JOB-1", seq, status="queued", reference=f"ref-{seq}") for seq in range(2, ROWS + 4)]

    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            await act.append(*plain_job("JOB-0"), *job)
            seen = await page_of(act, "/ledger?job=JOB-1")
            links = [link["href"] or "" for link in seen.all("a")]
            entries = [link for link in links if "/entries/" in link]
            assert entries == [f"/ledger/entries/{index}" for index in range(5, 5 + ROWS)]
            assert "ticket-of-JOB-0" not in seen.text
            following = next(link for link in links if "after=" in link)
            rest = await page_of(act, following)
            assert [link["href"] for link in rest.all("a") if "/entries/" in (link["href"] or "")] == [
                f"/ledger/entries/{index}" for index in range(5 + ROWS, 5 + ROWS + 3)
            ]
            assert not [link for link in rest.all("a") if "after=" in (link["href"] or "")]

    run(scenario())


def test_an_entry_shows_its_own_bytes_and_its_proof(url: str, keys: Keys) -> None:
    raws = plain_job("JOB-7")

    async def scenario() -> None:
        async with running(url, keys=keys, clock=lambda: NOW_MS * 1000) as act:
            await act.append(*raws)
            await act.signed()
            seen = await page_of(act, "/ledger/entries/2")
            assert leaf_hash(entry_bytes(NOW_MS * 1000, raws[2])).hex() in seen.text
            assert raws[2].decode() in seen.text
            says = [attributes["data-says"] for attributes in seen.all("dd") if "data-says" in attributes]
            assert {"received", "time", "data.job_id", "data.worker", "data.attempt"} <= set(says)
            links = {link["href"] for link in seen.all("a")}
            assert {
                "/ledger/entries/1",
                "/ledger/entries/3",
                "/ledger?job=JOB-7",
                "/proof/inclusion?index=2",
            } <= links
            first, last = await page_of(act, "/ledger/entries/0"), await page_of(act, "/ledger/entries/4")
            assert not [link for link in first.all("a") if link.get("rel") == "prev"]
            assert not [link for link in last.all("a") if link.get("rel") == "next"]

    run(scenario())


def test_what_somebody_wrote_into_an_event_is_text_and_nothing_else(url: str, keys: Keys) -> None:
    raw = event(reference=HOSTILE, worker=HOSTILE, detail={"note": HOSTILE})

    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            await act.append(raw)
            await act.signed()
            for path, status in (
                ("/ledger", 200),
                ("/ledger?job=JOB-1", 200),
                ("/ledger/entries/0", 200),
                ("/ledger?job=%3C/title%3E%3Cscript%3Ealert(1)%3C/script%3E", 404),
                ("/ledger/entries/%3Cscript%3Ealert(1)", 404),
                ("/ledger?%3Cscript%3E=1", 422),
            ):
                answer = await act.http.get(path)
                assert answer.status_code == status, path
                assert answer.headers["content-type"].startswith("text/html"), path
                seen = Seen(answer.text)
                assert all(script.get("src") for script in seen.all("script")), path
                assert seen.all("img") == [], path
                assert not [name for _, attributes in seen.tags for name in attributes if name.startswith("on")], path
            shown = await act.http.get("/ledger/entries/0")
            assert html.escape(HOSTILE) in html.escape(html.unescape(shown.text)), "it is shown as it is"

    run(scenario())


def test_a_carriage_return_in_an_event_reaches_the_reader_as_one(url: str, keys: Keys) -> None:
    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            await act.append(event().replace(b'"data":', b'\r\n"data":', 1))
            answer = await act.http.get("/ledger/entries/0")
            assert "&#13;\n&#34;data&#34;:" in answer.text, "a bare one would be read as a newline"

    run(scenario())


def test_nothing_inline_and_nothing_from_elsewhere_may_run(url: str, keys: Keys) -> None:
    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            await act.append(event())
            await act.signed()
            for path in ("/ledger", "/ledger/entries/0", "/ledger/entries/9"):
                answer = await act.http.get(path)
                policy = dict(
                    part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
                )
                assert policy == {
                    "default-src": "'none'",
                    "script-src": "'self'",
                    "style-src": "'self'",
                    "img-src": "'self'",
                    "connect-src": "'self'",
                    "form-action": "'self'",
                    "base-uri": "'none'",
                    "frame-ancestors": "'none'",
                }
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert answer.headers["referrer-policy"] == "no-referrer"
                assert answer.headers["cache-control"] == "no-store"
                seen = Seen(answer.text)
                assert seen.all("style") == []
                assert not [attributes for _, attributes in seen.tags if "style" in attributes]
                loaded = [one["src"] for one in seen.all("script")] + [one["href"] for one in seen.all("link")]
                for source in loaded:
                    assert source is not None
                    assert source.startswith("/ledger/static/")
                    assert (await act.http.get(source)).status_code == 200

    run(scenario())


def test_the_static_files_are_ours_and_are_not_sent_twice(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            kinds = {"ledger.js": "text/javascript", "proofs.js": "text/javascript", "ledger.css": "text/css"}
            for name, kind in kinds.items():
                answer = await act.http.get(f"/ledger/static/{name}")
                assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
                assert re.search(r"https?://", answer.text) is None
                again = await act.http.get(f"/ledger/static/{name}", headers={"If-None-Match": answer.headers["etag"]})
                assert (again.status_code, again.content) == (304, b"")
            assert (await act.http.get("/ledger/static/pages.py")).status_code == 404
            assert (await act.http.get("/ledger/static/..%2Fpages.py")).status_code == 404
        assert web.__file__ is not None
        assert (Path(web.__file__).parent / "static" / "ledger.css").stat().st_size < 12_000

    run(scenario())


REFUSED = [
    ("/ledger/entries/5", 404, "has no entry 5: its last one is 4"),
    ("/ledger/entries/9223372036854775807", 404, "has no entry"),
    ("/ledger/entries/01", 404, "is no index"),
    ("/ledger/entries/-1", 404, "is no index"),
    ("/ledger/entries/1?x=1", 422, "no parameter of this call"),
    ("/ledger?job=JOB-404", 404, "no event of a job 'JOB-404'"),
    ("/ledger?index=x", 422, "no size or index"),
    ("/ledger?jobs=JOB-1", 422, "did you mean 'job'"),
]


@pytest.mark.parametrize(("path", "status", "says"), REFUSED)
def test_a_refusal_is_a_page_that_says_what_to_do(url: str, keys: Keys, path: str, status: int, says: str) -> None:
    async def scenario() -> None:
        async with running(url, keys=keys) as act:
            await act.append(*plain_job("JOB-1"))
            seen = await page_of(act, path, status)
            assert says in seen.text
            assert len(seen.all("h1")) == 1
            assert "/ledger" in [link["href"] for link in seen.all("a")]

    run(scenario())


def test_the_form_leads_to_the_entry(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            answer = await act.http.get("/ledger?index=3")
            assert (answer.status_code, answer.headers["location"]) == (303, "/ledger/entries/3")

    run(scenario())


def test_an_empty_ledger_and_one_that_nobody_signs_say_so(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            seen = await page_of(act, "/ledger")
            assert "The ledger is empty" in seen.text
            assert "No checkpoint has been signed yet" in seen.text
            assert "The ledger has no entry 0: it is empty" in (await page_of(act, "/ledger/entries/0", 404)).text
            await act.append(event())
            assert "No checkpoint has been signed yet" in (await page_of(act, "/ledger/entries/0")).text

    run(scenario())


def test_a_damaged_entry_is_shown_as_one(new_database: NewDatabase, keys: Keys) -> None:
    database = new_database("act")

    async def scenario() -> None:
        async with running(database.url, keys=keys) as act:
            await act.append(*plain_job("JOB-1"))
            await act.signed()
            damage(database, "UPDATE events SET entry = (SELECT entry FROM events WHERE idx = 2) WHERE idx = 3")
            seen = await page_of(act, "/ledger/entries/3")
            assert "This entry cannot be proven" in seen.text
            assert not [one for one in seen.all("form") if one.get("id") == "check"], "there is nothing to check"
            assert "This entry cannot be proven" not in (await page_of(act, "/ledger/entries/2")).text

    run(scenario())


def test_bytes_that_are_no_entry_are_shown_all_the_same(new_database: NewDatabase, keys: Keys) -> None:
    database = new_database("act")

    async def scenario() -> None:
        async with running(database.url, keys=keys) as act:
            await act.append(*plain_job("JOB-1"))
            await act.signed()
            damage(database, "UPDATE events SET entry = leaf_hash WHERE idx = 3")
            seen = await page_of(act, "/ledger/entries/3")
            assert "This entry cannot be proven" in seen.text
            assert [one for one in seen.all("dd") if "data-says" in one] == []

    run(scenario())


def test_a_signer_that_has_stopped_is_on_every_page(new_database: NewDatabase, keys: Keys) -> None:
    database = new_database("act")

    async def scenario() -> None:
        async with running(database.url, keys=keys) as act:
            await act.append(*plain_job("JOB-1"))
            await act.signed()
            assert "Signing has stopped" not in (await page_of(act, "/ledger")).text
            damage(database, "UPDATE tree SET size = 3")
            await act.append(event("JOB-2"))
            await until(lambda: act.signer.health["stopped"], what="the signer stops")
            for path in ("/ledger", "/ledger/entries/0"):
                seen = await page_of(act, path)
                assert "Signing has stopped" in seen.text
                assert act.signer.health["error"] in seen.text

    run(scenario())
