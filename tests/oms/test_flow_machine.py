"""Everything that workers, managers, the clock and crashes can do to jobs with blocks, in any order, on each database.

There is no model of what must come of it: `tests.oms.flow_rows` checks what must be true after every step, and at the
end every job can be brought to an end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select

from oms.domain.errors import ConflictError, OmsError
from oms.domain.plan import steps_in
from oms.domain.run import RunState
from oms.domain.task import FINISHED, JobState, TaskStatus
from oms.sequencer.cancel import Cancel, cancel
from oms.sequencer.complete import Complete, complete
from oms.sequencer.erase import Erase, erase
from oms.sequencer.fail import Fail, fail
from oms.sequencer.heartbeat import Heartbeat, heartbeat
from oms.sequencer.pause import Pause, Resume, pause, resume
from oms.sequencer.pull import LeasedTask, Pull, pull
from oms.sequencer.release import Release, release
from oms.sequencer.reroute import Reroute, reroute
from oms.sequencer.restart import Restart, restart
from oms.sequencer.retry import Retry, retry
from oms.sequencer.signal import Signal, signal
from oms.sequencer.skip import Skip, skip
from oms.sequencer.standing import in_the_way
from oms.sequencer.start import Start, start
from oms.sequencer.sweep import Sweep, sweep
from oms.storage.jobs import job_of_row, lock_named_jobs
from oms.storage.runs import block_of_row
from oms.storage.store import open_store
from oms.storage.tables import blocks, jobs, outbox, tasks
from oms.storage.tasks import task_of_row
from tests.database import Kind
from tests.databases import Databases
from tests.oms.crew import CrashError
from tests.oms.flow_rows import check_jobs
from tests.oms.random_plans import CHILD, INPUT, SIGNALS, random_plans
from tests.oms.support import Clock, Tower

T = TypeVar("T")

EXAMPLES = {"sqlite": 40, "postgres": 12}
MORE = int(os.environ.get("FLOW_TIMES", "1"))
"""So many times as many examples; with ``--hypothesis-seed`` such a campaign can be run again."""
STEPS = 25
LANES = ("a", "b")
OTHER_LANE = "backup"
MOST_ROUNDS = 200
GOOD = {"good": True}

VERBS: dict[type[Any], Callable[..., Any]] = {
    Start: start,
    Complete: complete,
    Fail: fail,
    Heartbeat: heartbeat,
    Release: release,
    Reroute: reroute,
    Retry: retry,
    Skip: skip,
    Cancel: cancel,
    Pause: pause,
    Resume: resume,
    Signal: signal,
    Restart: restart,
    Erase: erase,
    Sweep: sweep,
    Pull: pull,
}
AGAIN_IS_THE_SAME = (Complete, Fail, Release, Skip, Cancel, Pause, Resume, Signal, Erase)
"""Verbs of which the same again gets the same answer, and does nothing more. `Start` says ``created: false``."""


class Machine(RuleBasedStateMachine):
    """OMS without HTTP, and what may happen to it."""

    def __init__(self, databases: Databases, kind: Kind) -> None:
        super().__init__()
        self.lent = ExitStack()
        self.url = self.lent.enter_context(databases.lend(kind, "oms")).url
        self.clock = Clock()
        self.tower = Tower(open_store(self.url, writers=1), self.clock)
        self.leases: dict[str, list[str]] = {}
        self.signals_sent = 0

    def teardown(self) -> None:
        try:
            if self.leases:
                self.bring_all_to_an_end()
        finally:
            self.tower.store.close()
            self.lent.close()

    # How something is done.

    def do(self, data: st.DataObject, *wishes: Any) -> None:
        """Do wishes in one transaction; or lose it, or its answer, and do them again."""
        crash = data.draw(st.sampled_from(["none", "none", "none", "before", "after"]), label="crash")
        if crash == "before":
            self.lose(wishes)
        answers = self.run(wishes)
        if crash == "after":
            self.repeat(wishes, answers)
        for answer in answers:
            if isinstance(answer, list):
                self.handed_out(answer)

    def run(self, wishes: Sequence[Any]) -> list[Any]:
        """Run wishes as the writer does: each verb once, pulls last. What is refused must record nothing."""
        before = self.recorded()
        answers: dict[int, Any] = {}
        with self.tower.transaction() as tx:
            for kind in sorted({type(wish) for wish in wishes}, key=list(VERBS).index):
                places = [place for place, wish in enumerate(wishes) if type(wish) is kind]
                found = VERBS[kind](tx, [wishes[place] for place in places])
                answers |= dict(zip(places, found, strict=True))
        in_order = [answers[place] for place in range(len(wishes))]
        if all(isinstance(answer, OmsError) for answer in in_order):
            assert self.recorded() == before, "refused, and something was recorded"
        return in_order

    def lose(self, wishes: Sequence[Any]) -> None:
        """Let the tower die after all was written and before it was committed; nothing of it is left."""
        before = self.everything()
        with suppress(CrashError), self.tower.transaction() as tx:
            for wish in wishes:
                VERBS[type(wish)](tx, [wish])
            tx.flush()
            raise CrashError
        assert self.everything() == before

    def repeat(self, wishes: Sequence[Any], answers: Sequence[Any]) -> None:
        """Ask again, as one does whose answer was lost."""
        for wish, answer in zip(wishes, answers, strict=True):
            if isinstance(answer, OmsError) or len(wishes) > 1:
                continue
            if isinstance(wish, AGAIN_IS_THE_SAME):
                before = self.recorded()
                assert self.run([wish]) == [answer]
                assert self.recorded() == before, f"{wish} again recorded something"
            elif isinstance(wish, Start):
                (again,) = self.run([wish])
                assert (again.job_id, again.created) == (answer.job_id, False)

    def recorded(self) -> int:
        with self.tower.store.reading() as connection:
            return connection.execute(select(func.count()).select_from(outbox)).scalar_one()

    def everything(self) -> list[Any]:
        with self.tower.store.reading() as connection:
            return [
                connection.execute(select(table).order_by(*table.primary_key)).all() for table in (jobs, tasks, blocks)
            ]

    def handed_out(self, leased: list[LeasedTask]) -> None:
        with self.tower.store.reading() as connection:
            states = dict(map(tuple, connection.execute(select(jobs.c.job_id, jobs.c.state))))
        for task in leased:
            state = states[int(task.job_id.removeprefix("JOB-"))]
            assert state == JobState.RUNNING, f"{task.task_id} was handed out of a job that is {state}"
            tokens = self.leases.setdefault(task.task_id, [])
            assert task.token not in tokens
            tokens.append(task.token)

    # What happens.

    @initialize(document=random_plans(most_depth=3, attempts=2), count=st.integers(1, 2))
    def begin(self, document: dict[str, Any], count: int) -> None:
        self.tower.put_plan({**CHILD, "sequence": [{"activity": "a"}, {"activity": "last", "lane": "a"}]})
        self.tower.put_plan(document)
        for number in range(count):
            self.run([Start("random", f"T-{number}", INPUT, 0)])
        self.leases = {"TASK-0": ["0" * 32]}

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self.do(data, Start("random", data.draw(st.sampled_from(["T-0", "T-1", "T-2"])), INPUT, 0))

    @rule(data=st.data(), lane=st.sampled_from(LANES), limit=st.integers(1, 4))
    def pull(self, data: st.DataObject, lane: str, limit: int) -> None:
        self.do(data, Pull(lane, limit, worker="w-1"))

    @rule(data=st.data(), output=st.sampled_from([{}, GOOD]))
    def work(self, data: st.DataObject, output: dict[str, Any]) -> None:
        """A worker takes all that there is, and is done with it."""
        for lane in (*LANES, OTHER_LANE):
            self.do(data, Pull(lane, 10))
        running = self.tasks_that_are("running")
        if running:
            self.do(data, *(Complete(name, output, self.leases[name][-1]) for name in running))

    @rule(data=st.data())
    def worker_does(self, data: st.DataObject) -> None:
        self.do(data, self.workers_wish(data))

    @rule(data=st.data())
    def manager_does(self, data: st.DataObject) -> None:
        self.do(data, self.managers_wish(data))

    @rule(data=st.data())
    def manager_sees_to_a_failure(self, data: st.DataObject) -> None:
        failed = self.tasks_that_are("failed")
        if failed:
            name = data.draw(st.sampled_from(failed))
            wishes = [Retry(name), Skip(name, GOOD, "seen on paper"), Reroute(name, OTHER_LANE)]
            self.do(data, data.draw(st.sampled_from(wishes)))

    @rule(data=st.data())
    def signal(self, data: st.DataObject) -> None:
        self.do(data, self.signals_wish(data))

    @rule(data=st.data(), count=st.integers(2, 5))
    def all_at_once(self, data: st.DataObject, count: int) -> None:
        """Requests of all kinds share a transaction."""
        kinds = [self.workers_wish, self.workers_wish, self.managers_wish, self.signals_wish]
        self.do(data, *(data.draw(st.sampled_from(kinds))(data) for _ in range(count)), Pull("a", 2), Sweep())

    @rule(data=st.data(), sec=st.sampled_from([0, 0, 1, 30, 60, 400]))
    def time_goes_by(self, data: st.DataObject, sec: float) -> None:
        self.clock.advance(sec)
        self.do(data, Sweep())

    @precondition(lambda self: self.leases)
    @rule()
    def tower_is_started_again(self) -> None:
        self.tower.store.close()
        self.tower.store = open_store(self.url, writers=1)

    # What is asked for.

    def workers_wish(self, data: st.DataObject) -> Any:
        running = self.tasks_that_are("running")
        names = st.sampled_from(running) if running else st.sampled_from([*self.leases, "TASK-999"])
        name = data.draw(names | st.sampled_from([*self.leases]))
        tokens = self.leases.get(name, ["0" * 32])
        token = data.draw(st.sampled_from([tokens[-1], tokens[-1], tokens[-1], tokens[0]]))
        return data.draw(
            st.sampled_from(
                [
                    Complete(name, {}, token),
                    Complete(name, GOOD, token),
                    Complete(name, {}),
                    Fail(name, "error", "no luck \\u0000", retryable=True, token=token),
                    Fail(name, "error", "no luck \\u0000", retryable=False, token=token),
                    Fail(name, "error", "no luck \\u0000", retryable=False, token=token),
                    Release(name, token),
                    Heartbeat(name, token),
                ]
            )
        )

    def managers_wish(self, data: st.DataObject) -> Any:
        job = data.draw(st.sampled_from(self.job_names()))
        task = data.draw(st.sampled_from([*self.task_names(), "TASK-999"]))
        wishes = [
            Pause(job, actor="boss"),
            Resume(job, actor="boss"),
            Pause(job, actor="boss"),
            Resume(job, actor="boss"),
            Cancel(job, reason="no longer wanted"),
            Restart(job, data.draw(st.sampled_from(self.activities())), actor="boss"),
            Erase(job),
            Skip(task, GOOD, "seen on paper"),
            Skip(task, {}, "seen on paper"),
            Reroute(task, data.draw(st.sampled_from([*LANES, OTHER_LANE]))),
            Retry(task),
        ]
        return data.draw(st.sampled_from(wishes))

    def signals_wish(self, data: st.DataObject) -> Any:
        self.signals_sent += 1
        name = data.draw(st.sampled_from([*SIGNALS, "nobody_waits"]))
        return Signal(data.draw(st.sampled_from(self.job_names())), name, {}, f"S-{self.signals_sent}")

    def job_names(self) -> list[str]:
        with self.tower.store.reading() as connection:
            in_order = connection.execute(select(jobs.c.job_id).order_by(jobs.c.job_id))
            return [f"JOB-{number}" for number in in_order.scalars()]

    def task_names(self) -> list[str]:
        with self.tower.store.reading() as connection:
            in_order = connection.execute(select(tasks.c.task_id).order_by(tasks.c.task_id))
            return [f"TASK-{number}" for number in in_order.scalars()]

    def tasks_that_are(self, status: str) -> list[str]:
        statement = select(tasks.c.task_id).where(tasks.c.status == status).order_by(tasks.c.task_id)
        with self.tower.store.reading() as connection:
            return [f"TASK-{number}" for number in connection.execute(statement).scalars()]

    def activities(self) -> list[str]:
        with self.tower.store.reading() as connection:
            sequence = self.tower.store.plans.get(connection, "random", 1).sequence
        return [step.activity for step in steps_in(sequence)] or ["none"]

    # What is always true.

    @invariant()
    def all_fits_together(self) -> None:
        check_jobs(self.tower.store)

    def bring_all_to_an_end(self) -> None:
        """Answer everything that is open; then every job has ended, and legally."""
        for _ in range(MOST_ROUNDS):
            self.settle()
            with self.tower.store.reading() as connection:
                open_jobs = [
                    job
                    for job in map(job_of_row, connection.execute(select(jobs).order_by(jobs.c.job_id)))
                    if job.state not in FINISHED
                ]
            if not open_jobs:
                check_jobs(self.tower.store)
                return
            for job in open_jobs:
                self.help_on(job.job_id)
        raise AssertionError(f"there is no end to {[job.name for job in open_jobs]}")

    def settle(self) -> None:
        while self.tower.sweep().fired:
            pass

    def help_on(self, number: int) -> None:
        """Do for one job what is to be done next in it."""
        name = f"JOB-{number}"
        with self.tower.transaction() as tx:
            lock_named_jobs(tx, [number])
            stuck = in_the_way(tx, tx.jobs[number])
            rows = tx.connection.execute(select(tasks).where(tasks.c.job_id == number).order_by(tasks.c.task_id))
            live = [task for task in map(task_of_row, rows) if task.status in (TaskStatus.QUEUED, TaskStatus.RUNNING)]
            of_job = select(blocks).where(blocks.c.job_id == number, blocks.c.state == RunState.RUNNING.value)
            waits = [block.signal for block in map(block_of_row, tx.connection.execute(of_job)) if block.signal]
            is_paused = tx.jobs[number].state is JobState.PAUSED
        if stuck or live:
            self.tower.one(skip, Skip((stuck or live)[0].name, GOOD, "at the end"))
        elif waits:
            self.tower.one(signal, Signal(name, waits[0], {}))
        else:
            self.clock.advance(60)
        if is_paused and not stuck:
            with suppress(ConflictError):  # what was done here may have been the last
                self.tower.one(resume, Resume(name))


BOUNDED = settings(
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    stateful_step_count=STEPS,
)


def test_nothing_is_lost_doubled_or_stuck(databases: Databases, database_kind: Kind) -> None:
    class Here(Machine):
        def __init__(self) -> None:
            super().__init__(databases, database_kind)

    run_state_machine_as_test(Here, settings=settings(BOUNDED, max_examples=EXAMPLES[database_kind] * MORE))
