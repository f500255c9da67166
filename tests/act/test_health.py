"""``/healthz`` and ``/readyz``."""

from __future__ import annotations

from sqlalchemy import text

from act.storage.tables import SCHEMA_REVISION
from hmskit.migrate import following
from tests.act.support import LiveClient, event, failing_reads, plain_job, run, running, until


def test_ready_says_what_an_operator_looks_for(url: str) -> None:
    async def scenario() -> None:
        async with running(url, max_followers=7) as act:
            await act.append(*plain_job("JOB-1"))
            async with LiveClient(act.app, "/stream") as client:
                await until(lambda: bool(client.chunks), what="a stream")
                await act.post(event("JOB-1", 1))
                answer = await act.http.get("/readyz")
                assert answer.status_code == 200
                assert answer.json() == {
                    "status": "ready",
                    "size": 5,
                    "schema": SCHEMA_REVISION,
                    "followers": 1,
                    "max_followers": 7,
                    "forks_refused": 1,
                    "forks_recorded": 1,
                }
            assert (await act.http.get("/healthz")).json() == {"status": "ok"}

    run(scenario())


def test_not_ready_while_the_database_does_not_answer(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            with failing_reads(act.store.reader):
                answer = await act.http.get("/readyz")
                assert answer.status_code == 503
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["forks_refused"] == 0
                assert "disk answers with errors" in answer.json()["detail"]
                assert (await act.http.get("/healthz")).status_code == 200
            assert (await act.http.get("/readyz")).status_code == 200

    run(scenario())


def test_not_ready_when_the_schema_is_another(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            for revision, status in (("act_0000", 503), (following(SCHEMA_REVISION), 200), ("act_9999", 503)):
                with act.store.writer.begin() as tx:
                    tx.execute(text(f"UPDATE alembic_version SET version_num = '{revision}'"))
                answer = await act.http.get("/readyz")
                assert answer.status_code == status, "the next release's schema, and no other, will do"
                assert status == 200 or revision in answer.json()["detail"]

    run(scenario())


def test_not_ready_when_nothing_can_be_written_any_more(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await act.ledger._writer.stop()
            assert (await act.http.get("/readyz")).status_code == 503
            assert (await act.post(event())).status_code == 503

    run(scenario())
