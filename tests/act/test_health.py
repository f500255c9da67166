"""``/healthz`` and ``/readyz``."""

from __future__ import annotations

from sqlalchemy import text

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
                    "schema": "act_0001",
                    "followers": 1,
                    "max_followers": 7,
                    "forks_refused": 1,
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
            with act.store.writer.begin() as tx:
                tx.execute(text("UPDATE alembic_version SET version_num = 'act_0000'"))
            answer = await act.http.get("/readyz")
            assert answer.status_code == 503
            assert "act_0000" in answer.json()["detail"]

    run(scenario())


def test_not_ready_when_nothing_can_be_written_any_more(url: str) -> None:
    async def scenario() -> None:
        async with running(url) as act:
            await act.ledger._writer.stop()
            assert (await act.http.get("/readyz")).status_code == 503
            assert (await act.post(event())).status_code == 503

    run(scenario())
