"""Many who write at once on PostgreSQL: every task goes to one, every job's events count on, and no event is lost.

Beside each rule stands the way that it is there to replace, and that loses on the same database.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from sqlalchemy import bindparam, select

from act.contract import Receipt
from oms.domain.errors import OmsError
from oms.sequencer.command import Command
from oms.sequencer.complete import Complete, complete
from oms.sequencer.deliver import Delivered, deliver
from oms.sequencer.fail import Fail, fail
from oms.sequencer.neighbours import unstick_for_ever
from oms.sequencer.pull import LeasedTask, Pull, pull
from oms.sequencer.release import Release, release
from oms.sequencer.reroute import Reroute, reroute
from oms.sequencer.retry import Retry, retry
from oms.sequencer.start import Start, Started, start
from oms.sequencer.writer import Verb
from oms.storage import postgres
from oms.storage.outbox import pending_events
from oms.storage.store import Store, open_store
from oms.storage.tables import jobs, outbox
from tests.database import Database, connect
from tests.databases import postgres_only
from tests.oms.crew import LIMIT_SEC, CrashError, Hand, check_each_once, hand, hands, together
from tests.oms.fold import check_agrees, check_attempts, check_places, fold
from tests.oms.support import RENEWAL, SINGLE, Clock, Tower, event_rows, in_loop, until, working

pytestmark = postgres_only

THREADS = 8
WRITERS = 12
MAX_ROUNDS = 20
"""How often a wrong way is tried until it loses: it needs an unlucky moment."""


@pytest.fixture
def store(oms_database: Database) -> Iterator[Store]:
    """A store of many writers, with the common plans in force."""
    opened = open_store(oms_database.url, writers=WRITERS + 1)
    tower = Tower(opened, Clock())
    for document in (RENEWAL, SINGLE):
        tower.put_plan(document)
    yield opened
    opened.close()


@pytest.fixture
def handfuls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take numbers in handfuls, as a service does."""
    monkeypatch.setattr(postgres, "MAX_NUMBERS_AT_ONCE", 256)


def begin(store: Store, count: int, *, prefix: str = "T") -> None:
    Tower(store, Clock()).run(start, *(Start("single", f"{prefix}-{number}", {}, 0) for number in range(count)))


# Claims.


@dataclass(frozen=True)
class Look:
    """A pull: when it was asked and answered, what it got, and whether others held ready tasks."""

    asked: float
    answered: float
    leased: list[tuple[str, str]]
    is_contended: bool


def pull_until_empty(one: Hand) -> list[Look]:
    """Pull until nothing is there; one transaction of five is lost after its claim."""
    chance = random.Random(one.number)
    looks: list[Look] = []
    ends = time.monotonic() + LIMIT_SEC
    while time.monotonic() < ends:
        asked = time.monotonic()
        try:
            with one.transaction() as tx:
                (leased,) = pull(tx, [Pull("only", limit=1 + one.number % 3)])
                is_contended = "only" in tx.contended
                if leased and chance.random() < 0.2:
                    raise CrashError
        except CrashError:
            continue
        looks.append(Look(asked, time.monotonic(), [(task.task_id, task.token) for task in leased], is_contended))
        if not leased and not is_contended:
            return looks
    raise AssertionError("there is no end to it")


@pytest.mark.parametrize("count", [100, 1_000])
def test_every_task_is_leased_once_and_an_empty_answer_is_true(store: Store, count: int) -> None:
    begin(store, count)
    looks = [look for of_one in hands(THREADS, store, pull_until_empty) for look in of_one]
    leased = [lease for look in looks for lease in look.leased]
    check_each_once([task_id for task_id, _ in leased], [f"TASK-{number}" for number in range(1, count + 1)])
    assert len({token for _, token in leased}) == count
    first_empty = min(look.answered for look in looks if not look.leased and not look.is_contended)
    late = [look for look in looks if look.leased and look.asked > first_empty]
    assert not late, "somebody was told that nothing is there, and others still got some"
    check_lanes(store)


def test_nothing_found_while_another_has_it_in_hand_is_said_apart(store: Store) -> None:
    """The other may yet lose it: who then believes that nothing is there, leaves a task to nobody."""
    begin(store, 3)
    with hand(store, 0) as one, hand(store, 1) as other:

        def look() -> tuple[int, bool]:
            with other.transaction() as tx:
                (leased,) = pull(tx, [Pull("only", limit=3)])
                return len(leased), "only" in tx.contended

        with suppress(CrashError), one.transaction() as tx:
            pull(tx, [Pull("only", limit=2)])
            assert look() == (1, True)
            assert look() == (0, True)
            raise CrashError
        assert look()[0] == 2
        assert look() == (0, False)


@in_loop
async def test_what_another_has_in_hand_is_asked_for_again_before_it_is_answered(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pull is not answered with nothing, nor a completion with a refusal, while another transaction may be lost."""
    begin(store, 2)
    tower = Tower(store, Clock())
    leased = tower.pull_one("only")
    async with working(tower) as writer:
        tried: list[Command] = []
        try_again = writer._try_again

        def note_and_try(command: Command) -> None:
            tried.append(command)
            try_again(command)

        monkeypatch.setattr(writer, "_try_again", note_and_try)
        with hand(store, WRITERS) as other, suppress(CrashError), other.transaction() as tx:
            pull(tx, [Pull("only", limit=1)])
            release(tx, [Release(leased.task_id, leased.token)])
            wishes: list[Coroutine[Any, Any, Any]] = [
                writer.pull(Pull("only", limit=1)),
                writer.run(complete, Complete(leased.task_id, {}, token=leased.token)),
            ]
            asked = [asyncio.ensure_future(wish) for wish in wishes]
            await until(lambda: len({id(command) for command in tried}) == 2, what="both come again")
            raise CrashError
        pulled, completed = await asyncio.gather(*asked)
    assert [task.task_id for task in pulled] == ["TASK-2"]
    assert completed.status == "done"


TAKE = "UPDATE tasks SET status = 'running', attempt = attempt + 1 WHERE task_id"
READY = "SELECT task_id FROM tasks WHERE lane = 'only' AND status = 'queued' AND ready ORDER BY task_id LIMIT 1"


def take_in_two_statements(session: psycopg.Connection[Any]) -> list[int]:
    with session.transaction():
        found = session.execute(READY).fetchall()
        for (task_id,) in found:
            session.execute(f"{TAKE} = {task_id}".encode())
    return [task_id for (task_id,) in found]


def take_without_a_lock(session: psycopg.Connection[Any]) -> list[int]:
    return [task_id for (task_id,) in session.execute(f"{TAKE} IN ({READY}) RETURNING task_id".encode()).fetchall()]


@pytest.mark.parametrize("take", [take_in_two_statements, take_without_a_lock])
def test_a_naive_claim_hands_tasks_out_twice(
    store: Store, oms_database: Database, take: Callable[[psycopg.Connection[Any]], list[int]]
) -> None:
    """The negative control."""
    begin(store, 100)

    def take_all(_number: int) -> list[int]:
        taken: list[int] = []
        with connect(store.url) as session:
            while found := take(session):
                taken += found
        return taken

    for _ in range(MAX_ROUNDS):
        oms_database.rows("UPDATE tasks SET status = 'queued'")
        given = [task_id for of_one in together(THREADS, take_all) for task_id in of_one]
        if len(given) > len(set(given)):
            with pytest.raises(AssertionError, match="given twice"):
                check_each_once(given, range(1, 101))
            return
    pytest.fail("it never handed a task out twice: this test would not see it either")


# The order in a job.


def work_on_everything(one: Hand) -> Counter[str]:
    """Ask for all that can be asked about a few jobs; return what was done and what was refused."""
    chance = random.Random(one.number)
    done: Counter[str] = Counter()
    tokens: dict[str, str] = {}
    for _ in range(60):
        task_id = f"TASK-{chance.randint(1, 12)}"
        token = tokens.get(task_id, "0" * 32)
        lane = chance.choice(["extract", "verify", "print"])
        wishes: list[tuple[Verb[Any, Any], Any]] = [
            (start, Start("renewal", f"T-{chance.randint(1, 4)}", {}, 0)),
            (pull, Pull(lane, limit=2)),
            (pull, Pull(lane, limit=1)),
            (complete, Complete(task_id, {})),
            (complete, Complete(task_id, {}, token=token)),
            (fail, Fail(task_id, "error", "no luck", token=token)),
            (fail, Fail(task_id, "error", "no luck", retryable=False)),
            (release, Release(task_id, token)),
            (reroute, Reroute(task_id, lane)),
            (retry, Retry(task_id)),
        ]
        verb, wish = chance.choice(wishes)
        (answer,) = one.run(verb, wish)
        if isinstance(answer, list):
            tokens |= {task.task_id: task.token for task in answer}
        done["refused" if isinstance(answer, OmsError) else verb.__name__] += 1
    return done


def test_each_job_counts_its_events_without_a_gap_whoever_works_on_it(store: Store, oms_database: Database) -> None:
    # Without the key that would refuse a second event of one place, the job's lock alone must see to it.
    oms_database.rows("ALTER TABLE outbox DROP CONSTRAINT ux_outbox_place")
    done: Counter[str] = sum(hands(THREADS, store, work_on_everything), Counter())
    assert min(done[verb] for verb in ("start", "pull", "complete", "fail", "reroute")) > 0, done
    rows = event_rows(store)
    check_places(rows)
    told = fold(row.body for row in rows)
    check_attempts(told)
    tower = Tower(store, Clock())
    check_agrees(told, {name: tower.job(name) for name in told})
    with store.reading() as connection:
        kept = {f"JOB-{row.job_id}": row.seq for row in connection.execute(select(jobs.c.job_id, jobs.c.seq))}
    assert kept == {name: job.seq for name, job in told.items()}
    check_lanes(store)


def check_lanes(store: Store) -> None:
    """Check that the kept counts are those of the lists."""
    database = Database("postgres", store.url.render_as_string(hide_password=False))
    counted = database.rows(
        "SELECT lane, count(*) FILTER (WHERE status = 'queued'), count(*) FILTER (WHERE status = 'running')"
        " FROM tasks WHERE status IN ('queued', 'running') GROUP BY lane"
    )
    kept = database.rows("SELECT lane, sum(queued), sum(running) FROM lane_counts GROUP BY lane")
    assert sorted(counted) == sorted((lane, *counts) for lane, *counts in kept if any(counts))


def test_a_place_that_is_taken_without_the_jobs_lock_is_taken_twice(store: Store, oms_database: Database) -> None:
    """The negative control: the tables refuse it, and without their key two events would have one place."""
    begin(store, 1)
    with connect(store.url) as one, connect(store.url) as other:
        places = [session.execute("SELECT seq + 1 FROM jobs").fetchone() for session in (one, other)]
        assert places == [(3,), (3,)]
        record = "INSERT INTO outbox (stream, seq, body, created_at, delivered) VALUES ('JOB-1', 3, '', 0, false)"
        one.execute(record)
        with pytest.raises(psycopg.errors.UniqueViolation):
            other.execute(record)


# The outbox.


def run_jobs(one: Hand, prefix: str, count: int) -> None:
    """Start jobs and work through whatever is there: five events each."""
    for number in range(count):
        one.run(start, Start("single", f"{prefix}-{one.number}-{number}", {}, 0))
        leased: list[LeasedTask] = []
        while not leased:  # others may have it in hand at this moment
            (leased,) = one.run(pull, Pull("only", limit=1))
        one.run(complete, Complete(leased[0].task_id, {}, token=leased[0].token))


_AFTER = select(outbox.c.id, outbox.c.stream, outbox.c.seq).where(outbox.c.id > bindparam("cursor"))


@dataclass
class Reader:
    """Reads the outbox while others write, until they have ended and it sees nothing more."""

    store: Store
    has_ended: threading.Event
    seen: list[tuple[str, int]]

    def follow(self, read: Callable[[], list[tuple[str, int]]]) -> None:
        ends = time.monotonic() + LIMIT_SEC
        while time.monotonic() < ends:
            is_last = self.has_ended.is_set()
            found = read()
            self.seen += found
            if is_last and not found:
                return
        raise AssertionError("there is no end to it")

    def as_the_relay(self) -> None:
        """Read what is not delivered, and mark it."""
        with hand(self.store, WRITERS) as one:

            def read() -> list[tuple[str, int]]:
                with self.store.reading() as connection:
                    pending = pending_events(connection, limit=100)
                receipts = [(event, Receipt("", event.id, "appended", "ab")) for event in pending]
                one.run(deliver, Delivered(receipts))
                return [(event.stream, event.seq) for event in pending]

            self.follow(read)

    def with_a_cursor(self) -> None:
        """Read what has a larger id than the last one seen."""
        cursor = 0

        def read() -> list[tuple[str, int]]:
            nonlocal cursor
            with self.store.reading() as connection:
                rows = connection.execute(_AFTER.order_by(outbox.c.id).limit(100), {"cursor": cursor}).all()
            cursor = rows[-1].id if rows else cursor
            return [(row.stream, row.seq) for row in rows]

        self.follow(read)


def test_a_reader_of_what_is_undelivered_loses_nothing_and_a_cursor_does(store: Store) -> None:
    """Ids are given before the commit: a cursor that has seen a larger one passes over those that come later."""
    relayed: list[tuple[str, int]] = []
    for number in range(MAX_ROUNDS):
        has_ended = threading.Event()
        relay, cursor = Reader(store, has_ended, relayed), Reader(store, has_ended, [])
        with ThreadPoolExecutor(2) as readers:
            reading = [readers.submit(relay.as_the_relay), readers.submit(cursor.with_a_cursor)]
            try:
                hands(WRITERS, store, lambda one, number=number: run_jobs(one, f"R{number}", 8))  # type: ignore[misc]
            finally:
                has_ended.set()
            for each in reading:
                each.result(LIMIT_SEC)
        written = [(row.stream, row.seq) for row in event_rows(store)]
        check_each_once(relayed, written)
        assert in_order(relayed)
        if set(written) - set(cursor.seen):
            return
    pytest.fail("the cursor lost nothing: this test would not see it in the relay either")


def in_order(sent: list[tuple[str, int]]) -> bool:
    """Whether each stream's events were sent as they count."""
    streams: dict[str, list[int]] = defaultdict(list)
    for stream, seq in sent:
        streams[stream].append(seq)
    return all(seqs == list(range(1, len(seqs) + 1)) for seqs in streams.values())


def test_two_relays_that_skip_what_is_locked_send_a_job_s_events_out_of_order(store: Store) -> None:
    """The negative control: the second one is through while the first still has the earlier events in hand."""
    begin(store, 1)
    pending = "SELECT stream, seq FROM outbox WHERE NOT delivered ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
    sent: list[tuple[str, int]] = []
    with connect(store.url) as one, connect(store.url) as other, one.transaction():
        in_hand = one.execute(pending).fetchall()
        with other.transaction():
            sent += other.execute(pending).fetchall()
        sent += in_hand
    assert Counter(sent) == {("JOB-1", 1): 1, ("JOB-1", 2): 1}
    assert not in_order(sent)


# Numbers.


@pytest.mark.usefixtures("handfuls")
def test_no_number_is_given_twice_by_towers_that_start_at_once(store: Store, oms_database: Database) -> None:
    """Also those that a lost transaction took are not given again."""
    other = open_store(oms_database.url, writers=THREADS)

    def start_some(one: Hand) -> list[str]:
        names: list[str] = []
        for batch in range(6):
            wishes = [Start("single", f"{id(one)}-{batch}-{number}", {}, 0) for number in range(1 + 7 * batch)]
            if batch == 3:
                names += names_of(one.lose(start, *wishes))
            names += names_of(one.run(start, *wishes))
        return names

    def tower(which: int) -> list[str]:
        return [name for names in hands(4, (store, other)[which], start_some) for name in names]

    given = [name for names in together(2, tower) for name in names]
    other.close()
    assert len(given) == len(set(given)) == 8 * (sum(1 + 7 * batch for batch in range(6)) + 22)
    assert oms_database.count("jobs") == oms_database.count("tasks") == len(given) - 8 * 22


def names_of(answers: Sequence[Started | OmsError]) -> list[str]:
    return [answer.job_id for answer in answers if isinstance(answer, Started)]


def test_a_start_of_one_reference_by_many_at_once_gives_one_job(store: Store) -> None:
    wishes = [Start("single", f"T-{number}", {}, 0) for number in range(10)]
    started = hands(THREADS, store, lambda one: [answer for wish in wishes for answer in one.run(start, wish)])
    assert {tuple(names_of(answers)) for answers in started} == {tuple(names_of(started[0]))}
    assert len(set(names_of(started[0]))) == len(wishes)
    assert sum(answer.created for answers in started for answer in answers if isinstance(answer, Started)) == 10


# Towers that stand still.


@in_loop
async def test_a_frozen_tower_s_jobs_are_free_again_once_another_has_ended_its_session(
    store: Store, oms_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last statements went out as a pipeline, after which the server itself has no timer."""
    begin(store, 1)
    frozen = open_store(oms_database.url)
    monkeypatch.setattr("hmskit.postgres.IDLE_IN_TRANSACTION_MS", 200)
    try:
        with frozen.connect_writer() as connection, suppress(OmsError), frozen.begin(connection) as tx:
            ((taken,),) = pull(tx, [Pull(lane="only", limit=1)])
            tx.flush()
            ending = asyncio.ensure_future(unstick_for_ever(store, interval_sec=0.05))
            async with working(Tower(store, Clock())) as writer:
                leased: list[LeasedTask] = []
                async with asyncio.timeout(LIMIT_SEC):
                    while not leased:
                        leased = await writer.pull(Pull(lane="only", limit=1), wait_sec=1)
            ending.cancel()
            assert (leased[0].task_id, leased[0].attempt) == (taken.task_id, 1), "what the frozen one did is gone"
    finally:
        frozen.close()
