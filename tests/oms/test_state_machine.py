"""OMS does what its model does, whatever is asked of it and in whatever order; over HTTP and verb by verb."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

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

from oms.sequencer.complete import Complete
from oms.sequencer.fail import Fail
from oms.sequencer.heartbeat import Heartbeat
from oms.sequencer.pull import Pull
from oms.sequencer.release import Release
from oms.sequencer.reroute import Reroute
from oms.sequencer.retry import Retry
from oms.sequencer.start import Start
from tests.database import Kind
from tests.databases import Databases
from tests.oms.drivers import Driver, HttpDriver, VerbDriver, Wish, in_turn
from tests.oms.fold import check_agrees, check_attempts, check_places, fold
from tests.oms.model import LANES, PLANS, Model
from tests.oms.support import Clock, Site

NONSENSE = "0" * 32
OUTPUTS: list[dict[str, Any]] = [{}, {"score": 1}, {"score": 9}, {"score": "high"}]
ERRORS = [("error", "no luck"), ("error", "other luck"), ("timeout", "no answer")]
LANES_AND_OTHERS = [*LANES, "backup"]

EXAMPLES = {"sqlite": 44, "postgres": 12}

GOOD_OUTPUTS: list[dict[str, Any]] = [{"score": 1}, {"score": 9}]

starts = st.builds(
    Start,
    plan=st.sampled_from([*(plan["id"] for plan in PLANS), "nobody_knows"]),
    reference=st.sampled_from(["T-1", "T-2", "T-3"]),
    input=st.sampled_from([{"go": True}, {"go": True}, {"go": False}, {"go": "later"}, {}]),
    priority=st.sampled_from([0, 0, 0, 5, -5]),
)


class Machine(RuleBasedStateMachine):
    """What may happen to OMS, and what must be true after every step of it."""

    def __init__(self, make_driver: type[VerbDriver | HttpDriver], databases: Databases, kind: Kind) -> None:
        super().__init__()
        self.lent = ExitStack()
        folder = Path(self.lent.enter_context(tempfile.TemporaryDirectory()))
        site = Site(folder, self.lent.enter_context(databases.lend(kind, "oms")))
        self.clock = Clock()
        self.model = Model()
        self.model.now_ms = self.clock()
        self.driver: Driver = make_driver(site, self.clock)

    def teardown(self) -> None:
        self.driver.close()
        self.lent.close()

    # What happens.

    @initialize(wishes=st.lists(starts, min_size=3, max_size=6))
    def begin(self, wishes: list[Start]) -> None:
        self.both(wishes)

    @rule(wishes=st.lists(starts, min_size=1, max_size=3))
    def start(self, wishes: list[Start]) -> None:
        self.both(wishes)

    @rule(data=st.data())
    def pull(self, data: st.DataObject) -> None:
        self.both([self.poll(data)])

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data())
    def work_well(self, data: st.DataObject) -> None:
        """A worker pulls what is ready in a lane and completes all of it."""
        self.both([self.poll(data, limit=4)])
        running = [task for task in self.model.tasks if task.status == "running"]
        self.both([Complete(task.name, data.draw(st.sampled_from(GOOD_OUTPUTS)), task.tokens[-1]) for task in running])

    @precondition(lambda self: any(task.status == "running" for task in self.model.tasks))
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """A worker says that there is no use in trying again."""
        task = data.draw(st.sampled_from([task for task in self.model.tasks if task.status == "running"]))
        self.both([Fail(task.name, "hopeless", "", retryable=False, token=task.tokens[-1])])

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data(), count=st.integers(1, 3))
    def complete(self, data: st.DataObject, count: int) -> None:
        self.both([self.completion(data) for _ in range(count)])

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data(), count=st.integers(1, 3))
    def fail(self, data: st.DataObject, count: int) -> None:
        self.both([self.failure(data) for _ in range(count)])

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data())
    def heartbeat(self, data: st.DataObject) -> None:
        self.both([self.sign_of_life(data)])

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.both([self.return_(data)])

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data())
    def reroute(self, data: st.DataObject) -> None:
        self.both([self.move(data)])

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        self.both([self.another_try(data)])

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data(), count=st.integers(2, 6))
    def all_at_once(self, data: st.DataObject, count: int) -> None:
        """Requests of all kinds arrive together, and share a transaction."""
        kinds: list[Callable[[], Wish]] = [
            lambda: data.draw(starts),
            lambda: self.poll(data),
            lambda: self.completion(data),
            lambda: self.failure(data),
            lambda: self.move(data),
            lambda: self.sign_of_life(data),
            lambda: self.return_(data),
            lambda: self.another_try(data),
        ]
        self.both([kinds[data.draw(st.integers(0, len(kinds) - 1))]() for _ in range(count)])

    @rule(sec=st.sampled_from([0.001, 1, 10, 30, 60, 300, 1000]), then=st.sampled_from(["", "", "sweep", "restart"]))
    def time_goes_by(self, sec: float, then: str) -> None:
        """Time passes; the sweeper looks, or the service stops and starts again, which sweeps too."""
        self.clock.advance(sec)
        self.model.now_ms = self.clock()
        if then == "restart":
            self.driver.restart()
        if then:
            self.driver.sweep()
            self.model.sweep()
        else:
            self.both([Pull(lane="nowhere", limit=1)])  # whoever polls wakes what is due, in every lane

    # What is asked for.

    def any_task(self) -> st.SearchStrategy[str]:
        return st.sampled_from([*(task.name for task in self.model.tasks), "TASK-999"])

    def task_and_token(self, data: st.DataObject) -> tuple[str, str | None]:
        """Draw a task, most often one that runs, and a token: the right one, none, an earlier one, or nonsense."""
        running = [task.name for task in self.model.tasks if task.status == "running"]
        task_id = data.draw(st.one_of(st.sampled_from(running), self.any_task()) if running else self.any_task())
        task = next((task for task in self.model.tasks if task.name == task_id), None)
        tokens = [NONSENSE, *(task.tokens if task else [])]
        which = data.draw(st.sampled_from(["right", "right", "none", "earlier", "nonsense"]))
        match which:
            case "right":
                return task_id, tokens[-1]
            case "none":
                return task_id, None
            case "earlier":
                return task_id, tokens[-2] if len(tokens) > 1 else NONSENSE
            case _:
                return task_id, NONSENSE

    def poll(self, data: st.DataObject, *, limit: int | None = None) -> Pull:
        """Draw a pull, most often from a lane that has something."""
        ready = sorted({task.lane for task in self.model.tasks if task.status == "queued"})
        lanes = st.sampled_from(LANES_AND_OTHERS)
        return Pull(
            lane=data.draw(st.one_of(st.sampled_from(ready), st.sampled_from(ready), lanes) if ready else lanes),
            limit=limit or data.draw(st.integers(1, 4)),
            worker=data.draw(st.sampled_from([None, "w-1", "w-2"])),
        )

    def completion(self, data: st.DataObject) -> Complete:
        task_id, token = self.task_and_token(data)
        return Complete(task_id=task_id, output=data.draw(st.sampled_from(OUTPUTS)), token=token)

    def failure(self, data: st.DataObject) -> Fail:
        task_id, token = self.task_and_token(data)
        kind, message = data.draw(st.sampled_from(ERRORS))
        retryable = data.draw(st.sampled_from([True, True, False]))
        return Fail(task_id=task_id, error_type=kind, message=message, retryable=retryable, token=token)

    def sign_of_life(self, data: st.DataObject) -> Heartbeat:
        task_id, token = self.task_and_token(data)
        return Heartbeat(task_id=task_id, token=token or NONSENSE, progress=0.5)

    def return_(self, data: st.DataObject) -> Release:
        task_id, token = self.task_and_token(data)
        return Release(task_id=task_id, token=token or NONSENSE)

    def another_try(self, data: st.DataObject) -> Retry:
        failed = [task.name for task in self.model.tasks if task.status == "failed"]
        return Retry(task_id=data.draw(st.sampled_from(failed) if failed else self.any_task()))

    def move(self, data: st.DataObject) -> Reroute:
        return Reroute(
            task_id=data.draw(self.any_task()),
            new_lane=data.draw(st.sampled_from(LANES_AND_OTHERS)),
            priority=data.draw(st.sampled_from([None, None, 9])),
        )

    def both(self, wishes: Sequence[Wish]) -> None:
        """Ask the service and the model the same, and compare what they answer."""
        ordered = in_turn(wishes)
        answers = self.driver.do(ordered)
        # Pulls of one transaction are served together, so the model's are noted only after all of them.
        expected = [self.ask_model(wish) for wish in ordered]
        for answer in answers:
            if isinstance(answer, list):
                for task in answer:
                    self.model.handed_out(task["task_id"], task.pop("token"))
            elif isinstance(answer, dict) and "warning" in answer:
                assert isinstance(answer["warning"], str)
                answer["warning"] = True
        assert answers == expected

    def ask_model(self, wish: Wish) -> Any:  # noqa: PLR0911 - one for each kind
        match wish:
            case Start():
                return self.model.start(wish.plan, wish.reference, wish.input, wish.priority)
            case Pull():
                return self.model.pull(wish.lane, wish.limit, wish.worker, is_noted=self.driver.notes_workers)
            case Complete():
                return self.model.complete(wish.task_id, wish.output, wish.token)
            case Fail():
                error = {"type": wish.error_type, "message": wish.message}
                return self.model.fail(wish.task_id, error, wish.token, retryable=wish.retryable)
            case Heartbeat():
                return self.model.heartbeat(wish.task_id, wish.token)
            case Release():
                return self.model.release(wish.task_id, wish.token)
            case Reroute():
                return self.model.reroute(wish.task_id, wish.new_lane, wish.priority)
            case Retry():
                return self.model.retry(wish.task_id)

    # What is always true.

    @invariant()
    def jobs_are_as_the_model_has_them(self) -> None:
        expected = self.model.views()
        views = self.driver.views(list(expected))
        for name, view in views.items():
            assert (view["error"] is not None) == (view["state"] == "failed"), name
            shown = {key: view[key] for key in expected[name]}
            shown["tasks"] = [{key: task[key] for key in expected[name]["tasks"][0]} for task in view["tasks"]]
            assert shown == expected[name]

    @invariant()
    def lanes_count_what_is_in_them(self) -> None:
        shown = {
            lane["lane"]: (lane["queued"], lane["running"], lane["oldest_queued_sec"]) for lane in self.driver.lanes()
        }
        expected = self.model.lanes()
        assert {lane: counts for lane, counts in shown.items() if lane in expected} == expected
        assert all(counts == (0, 0, None) for lane, counts in shown.items() if lane not in expected)

    @invariant()
    def events_tell_the_same_story(self) -> None:
        rows = self.driver.rows()
        check_places(rows)
        jobs = fold(row.body for row in rows)
        check_attempts(jobs)
        check_agrees(jobs, self.model.views())


BOUNDED = settings(
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def machine(make_driver: type[VerbDriver | HttpDriver], databases: Databases, kind: Kind) -> type[Machine]:
    """Return the machine that drives a service on a kind of database."""

    class Here(Machine):
        def __init__(self) -> None:
            super().__init__(make_driver, databases, kind)

    return Here


def test_the_verbs_do_what_the_model_does(databases: Databases, database_kind: Kind) -> None:
    """Fast, and with several wishes in a transaction."""
    run_state_machine_as_test(
        machine(VerbDriver, databases, database_kind),
        settings=settings(BOUNDED, max_examples=EXAMPLES[database_kind], stateful_step_count=40),
    )


def test_the_application_does_what_the_model_does(databases: Databases, database_kind: Kind) -> None:
    """All of it, with a ledger that takes everything."""
    run_state_machine_as_test(
        machine(HttpDriver, databases, database_kind),
        settings=settings(BOUNDED, max_examples=EXAMPLES[database_kind] // 4, stateful_step_count=30),
    )
