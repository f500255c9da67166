"""Everybody at the same jobs at the same moment, on PostgreSQL: nothing is lost, doubled, or waited for in a circle."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Column, select, text

from oms.domain.errors import OmsError
from oms.domain.task import FINISHED
from oms.sequencer.cancel import Cancel, cancel
from oms.sequencer.complete import Complete, complete
from oms.sequencer.fail import Fail, fail
from oms.sequencer.pause import Pause, Resume, pause, resume
from oms.sequencer.pull import Pull, pull
from oms.sequencer.restart import Restart, restart
from oms.sequencer.retry import Retry, retry
from oms.sequencer.signal import Signal, signal
from oms.sequencer.skip import Skip, skip
from oms.sequencer.start import Start, start
from oms.sequencer.sweep import Sweep, sweep
from oms.storage import postgres
from oms.storage.jobs import job_of_row
from oms.storage.store import Store, open_store
from oms.storage.tables import jobs, tasks
from tests.database import Database
from tests.databases import postgres_only
from tests.oms.crew import Hand, hands
from tests.oms.flow_rows import check_jobs
from tests.oms.support import Clock, Tower, events
from tests.oms.walk import act, plan

pytestmark = postgres_only

WORKERS, MANAGERS, SWEEPERS = 4, 3, 2
ROUNDS = 50
JOBS = 4
TIMES = int(os.environ.get("FLOW_TIMES", "1"))
SEED = int(os.environ.get("FLOW_SEED", "0"))
PAGES = {"pages": ["x", "y", "z"]}

CHILD = plan(act("write"), act("post", "b"), id="send_letter")
EVERYTHING = plan(
    act("charge", undo=[act("refund", "b")]),
    {
        "parallel": {
            "pages": [
                {
                    "id": "pages",
                    "for_each": "input.pages",
                    "as": "page",
                    "max_parallel": 2,
                    "do": [act("scan", input={"page": "page"}), {"id": "letter", "plan": "send_letter"}],
                }
            ],
            "answer": [{"id": "answer", "wait": {"signal": "answered"}}, act("read", "b", on_failure="pause")],
            "rounds": [{"repeat": [act("draft"), act("review", "b")], "until": "has(outputs.review.ok)"}],
        },
        "join": 2,
    },
    act("end", "b"),
    id="everything",
    retry_policy={"attempts": 2, "backoff_sec": 0},
)


@pytest.fixture
def store(oms_database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store of many writers that take numbers in handfuls, as a service does, with jobs that stand everywhere."""
    monkeypatch.setattr(postgres, "MAX_NUMBERS_AT_ONCE", 256)
    opened = open_store(oms_database.url, writers=WORKERS + MANAGERS + SWEEPERS + 1)
    tower = Tower(opened, Clock())
    tower.put_plan(CHILD)
    tower.put_plan(EVERYTHING)
    tower.run(start, *(Start("everything", f"T-{number}", PAGES, 0) for number in range(JOBS)))
    yield opened
    opened.close()


class Crew:
    """What each of them does, and what they were told."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.done: list[str] = []
        self.tokens: list[tuple[str, int, str]] = []

    def __call__(self, one: Hand) -> None:
        chance = random.Random(f"{self.seed} {one.number}")
        for _ in range(ROUNDS):
            if one.number < WORKERS:
                self.work(one, chance)
            elif one.number < WORKERS + MANAGERS:
                self.manage(one, chance)
            else:
                one.run(sweep, Sweep())

    def work(self, one: Hand, chance: random.Random) -> None:
        (leased,) = one.run(pull, Pull(chance.choice("ab"), 3))
        self.tokens += [(task.task_id, task.attempt, task.token) for task in leased]
        if not leased:  # now and then for a reference that a step of a job wants, too
            reference = f"T-{chance.randint(0, 40)}"
            wishes = [Start("everything", reference, PAGES, 0)] * 3 + [
                Start("send_letter", f"{reference}/letter/1", {}, 0)
            ]
            one.run(start, chance.choice(wishes))
        for task in leased:
            wish = chance.choice(["complete", "complete", "complete", "fail", "give up", "lose"])
            done = Complete(task.task_id, chance.choice([{}, {"ok": True}]), task.token)
            if wish == "lose":
                one.lose(complete, done)
            if wish in ("complete", "lose"):
                (answer,) = one.run(complete, done)
                if not isinstance(answer, OmsError):
                    self.done.append(task.task_id)
            else:
                one.run(fail, Fail(task.task_id, "error", "no luck", retryable=wish == "fail", token=task.token))

    def manage(self, one: Hand, chance: random.Random) -> None:
        name = f"JOB-{chance.choice(numbers_of(one.store, jobs.c.job_id))}"
        task = f"TASK-{chance.choice(numbers_of(one.store, tasks.c.task_id))}"
        choices: list[tuple[Any, Any]] = [
            (signal, Signal(name, "answered", {})),
            (signal, Signal(name, "answered", {}, f"S-{chance.randint(1, 3)}")),
            (pause, Pause(name)),
            (resume, Resume(name)),
            (resume, Resume(name)),
            (retry, Retry(task)),
            (skip, Skip(task, {}, "seen on paper")),
        ]
        if chance.random() < 0.1:
            choices = [(cancel, Cancel(name)), (restart, Restart(name, chance.choice(["charge", "scan", "end"])))]
        verb, wish = chance.choice(choices)
        one.run(verb, wish)


def deadlocks(store: Store) -> int:
    with store.reading() as connection:
        return int(
            connection.execute(
                text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            ).scalar_one()
        )


@pytest.mark.parametrize("seed", range(SEED, SEED + 2 * TIMES))
def test_all_at_once(store: Store, seed: int) -> None:
    crew = Crew(seed)
    before = deadlocks(store)
    hands(WORKERS + MANAGERS + SWEEPERS, store, crew)
    assert deadlocks(store) == before
    check_jobs(store)
    given = Counter((task, attempt) for task, attempt, _ in crew.tokens)
    assert not [lease for lease, times in given.items() if times > 1], "an attempt was handed out twice"
    told = Counter(
        event["data"]["task_id"]
        for event in events(store)
        if event["type"] == "hms.task.done.v1" and "stood_in" not in event["data"]["detail"]
    )
    assert told == Counter(crew.done), "what workers were told is not what was kept"
    bring_to_an_end(store)
    check_jobs(store)


def bring_to_an_end(store: Store) -> None:
    """Cancel all that is left, and undo what is to be undone; nothing may stand in the way of that."""
    tower = Tower(store, Clock())
    for _ in range(50):
        with store.reading() as connection:
            left = [job for job in map(job_of_row, connection.execute(select(jobs))) if job.state not in FINISHED]
            live = connection.execute(
                select(tasks.c.task_id).where(tasks.c.status.in_(("queued", "running", "failed")))
            )
            names = [f"TASK-{number}" for number in live.scalars()]
        if not left:
            return
        tower.run(cancel, *(Cancel(job.name) for job in left))
        tower.run(resume, *(Resume(job.name) for job in left))
        tower.run(skip, *(Skip(name, {}, "at the end") for name in names))
        while tower.sweep().fired:
            pass
    raise AssertionError(
        f"there is no end to {[(job.name, job.state, json.loads(job.ending or '{}')) for job in left]}"
    )


def numbers_of(store: Store, column: Column[int]) -> list[int]:
    with store.reading() as connection:
        return list(connection.execute(select(column).order_by(column)).scalars())
