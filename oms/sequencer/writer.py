"""The writer owns the write connections, and runs the verbs.

All commands that arrive while the last commit is on its way to disk share the next transaction (group commit): one
read for all, one write per table, one sync. A reply exists only after its transaction is on disk. A batch that
fails unexpectedly is rolled back and run again one command at a time, so that a bad command fails alone.

A SQLite file has one writing connection, and one thread here. A server has several, and other processes write there
too: a transaction that was in another's way runs again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection

from oms.domain.errors import BusyError, OmsError, UnavailableError
from oms.sequencer.batch import Answers, run_verbs
from oms.sequencer.command import Command
from oms.sequencer.complete import complete
from oms.sequencer.held_back import HeldBack
from oms.sequencer.intake import Intake, linger_of
from oms.sequencer.open_batches import open_polled
from oms.sequencer.pull import LeasedTask, Pull, pull
from oms.sequencer.release import Release, release
from oms.sequencer.waiting import Parked, Waiting
from oms.sequencer.wishes import TaskAnswer, is_about_job, is_about_task, is_busy, lock_wished, lock_wished_jobs
from oms.storage.store import RunAgainError, Store
from oms.storage.tasks import see_workers, wake_due
from oms.storage.transaction import Transaction

log = structlog.get_logger(__name__)

W = TypeVar("W")
R = TypeVar("R")
Verb = Callable[[Transaction, Sequence[W]], Sequence[R]]

MAX_QUEUED_COMMANDS = 10_000
"""How many may wait for the disk before new ones are refused with 503: at that depth they would wait for seconds."""
SEEN_EVERY_MS = 10_000
"""How often at most a worker's poll is noted: an idle poll must not cost a write."""
MAX_SEEN = 100_000
MAX_RUNS = 3
"""How often a transaction runs that others are in the way of."""
TRY_AGAIN_SEC = 0.004
MAX_TRIES = 15
"""A command that finds its job, or its lane's tasks, in another transaction's hands comes again, each time a little
later: half a second in all."""


class Writer:
    """Runs verbs in threads of its own, each one transaction at a time.

    Args:
        store: the database; it says how many threads there are.
        now_ms: the clock; None: the one that all who use the database share.
        on_recorded: called in the loop after a commit that recorded events.
        on_ready: called in the loop after a commit that left more tasks ready, with how many in which lanes.
        on_completed: called in the loop with what `complete` answered to one request.
    """

    def __init__(
        self,
        store: Store,
        *,
        now_ms: Callable[[], int] | None = None,
        on_recorded: Callable[[], None],
        on_ready: Callable[[Mapping[str, int]], None] | None = None,
        on_due: Callable[[], None] | None = None,
        on_completed: Callable[[Sequence[TaskAnswer | OmsError]], None] | None = None,
    ) -> None:
        self._store = store
        self._now_ms = now_ms
        self._on_recorded = on_recorded
        self._on_ready = on_ready
        self._on_due = on_due
        self._on_completed = on_completed
        self._intake = Intake()
        self._waiting = Waiting()
        self._held_back = HeldBack(self.wake)
        self._seen: dict[tuple[str, str], int] = {}
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"writer-{number}", daemon=True)
            for number in range(store.writers)
        ]
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to work; call it in the loop that will await the answers."""
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether every thread runs."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def parked(self) -> int:
        """How many pulls wait."""
        return len(self._waiting)

    @property
    def waited_for(self) -> list[str]:
        """The lanes in which pulls wait."""
        return self._waiting.lanes

    async def run_each(self, verb: Verb[W, R], wishes: Sequence[W], *, is_logged: bool = True) -> list[R]:
        """Run ``verb`` on ``wishes`` in one transaction; return each answer or refusal in its place, once on disk.

        ``is_logged``: False where the caller logs what is raised by a fault of ours.

        Raises:
            UnavailableError: the database cannot take it now; nothing was changed.
        """
        future = self._future()
        self.submit(Command(verb, wishes, future, is_logged=is_logged))
        return await future

    async def run(self, verb: Verb[W, R | OmsError], wish: W) -> R:
        """Run ``verb`` on one wish; return its answer, once on disk.

        Raises:
            OmsError: it was refused.
        """
        (result,) = await self.run_each(verb, [wish])
        if isinstance(result, OmsError):
            raise result
        return result

    async def pull(self, wish: Pull, *, wait_sec: float = 0.0) -> list[LeasedTask]:
        """Lease tasks; where there are none, wait up to ``wait_sec`` for some.

        A caller that is cancelled (its client went away) leaves nothing behind: it stops waiting, and what was
        leased to it in the same moment goes back to its place.
        """
        future = self._future()
        command = Command(pull, [wish], future, may_wait=wait_sec > 0)
        self.submit(command)
        if not command.may_wait:
            (leased,) = await future
            return leased  # type: ignore[no-any-return]
        timer = asyncio.get_running_loop().call_later(wait_sec, self._end_wait, command)
        try:
            (leased,) = await future
        except asyncio.CancelledError:
            self._waiting.end(command)
            if future.done() and not future.cancelled() and future.exception() is None:
                self._hand_back(future.result())  # it was served, and gone before it could wake up
            raise
        finally:
            timer.cancel()
        return leased  # type: ignore[no-any-return]

    def submit(self, command: Command) -> None:
        """Let a command run; it is answered once its transaction is on disk.

        Raises:
            UnavailableError: too many wait already; it will not run.
        """
        if len(self._intake) > MAX_QUEUED_COMMANDS or not self.is_alive:
            raise UnavailableError("Too many requests wait for the disk; try again in a moment.")
        self._intake.put(command)

    def wake(self, ready: Mapping[str, int]) -> None:
        """Let the pulls that wait in these lanes look again: somebody made so many tasks ready there."""
        for command in self._waiting.wake(ready):
            self._intake.put(command)

    def end_waits(self) -> None:
        """Answer every waiting pull with nothing, and let none wait from now on."""
        self._held_back.close()
        for command in self._waiting.close():
            command.answer([[]])

    async def stop(self) -> None:
        """End the threads after everything that was submitted is on disk."""
        self._stopping = True
        self.end_waits()
        for _ in self._threads:
            self._intake.end()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _future(self) -> asyncio.Future[list[Any]]:
        return asyncio.get_running_loop().create_future()

    def _end_wait(self, command: Command) -> None:
        if self._waiting.end(command):
            command.answer([[]])

    def _work(self, number: int) -> None:
        linger_sec = 0.0
        ends = False
        while not ends:
            commands, ends = self._intake.take(linger_sec)
            began = time.perf_counter()
            if commands:
                self._run(number, commands)
            linger_sec = linger_of(len(commands), time.perf_counter() - began)

    def _run(self, number: int, commands: list[Command]) -> None:
        """Run commands as one transaction, and answer them."""
        for runs_left in reversed(range(MAX_RUNS)):
            try:
                with self._store.connect_writer() as connection:
                    self._transact(connection, number, commands)
            except RunAgainError as error:
                if runs_left:
                    continue
                self._refuse(commands, error)
            except UnavailableError as error:
                self._refuse(commands, error)
            except Exception as error:
                if len(commands) > 1:
                    log.exception("batch_failed", commands=len(commands))
                    for command in commands:
                        self._run(number, [command])
                else:
                    if commands[0].is_logged:
                        log.exception("command_failed", verb=commands[0].verb.__name__)
                    self._tell([(commands[0], error)])
            return

    def _refuse(self, commands: list[Command], error: UnavailableError) -> None:
        log.warning("database_unavailable", detail=error.detail, commands=len(commands))
        self._tell([(command, error) for command in commands])

    def _transact(self, connection: Connection, number: int, commands: list[Command]) -> None:
        turn = self._waiting.turn
        waited: list[Command] = []
        try:
            now_ms = None if self._now_ms is None else self._now_ms()
            with self._store.begin(connection, now_ms=now_ms, writer=number) as tx:
                lock_wished(tx, [wish for command in commands for wish in command.wishes if is_about_task(wish)])
                lock_wished_jobs(tx, [wish for command in commands for wish in command.wishes if is_about_job(wish)])
                again = [command for command in commands if is_busy(tx, command.wishes) and self._may_try(command)]
                commands = [command for command in commands if command not in again] if again else commands
                answers = run_verbs(tx, [command for command in commands if command.verb is not pull])
                if tx.has_found_busy:
                    again += (
                        busy := [command for command, result in answers if self._is_to_come_again(command, result)]
                    )
                    answers = [(command, result) for command, result in answers if command not in busy]
                wake_due(tx)
                self._held_back.wake_freed(tx)
                pulls = [command for command in commands if command.verb is pull]
                open_polled(tx, [wish.lane for command in pulls for wish in command.wishes])
                waited = self._waiting.take(tx.woken)
                # Those that have waited were there first.
                answers += run_verbs(tx, waited + sorted(pulls, key=_is_new))
                opens_in = self._held_back.note(tx)
                seen = self._note_workers(tx, pulls)
        except BaseException:
            self._tell(self._park([(command, [[]]) for command in waited], turn=turn, contended=set()))
            raise
        self._seen.update(dict.fromkeys(seen, tx.now_ms))
        for command in again:
            self._try_again(command)
        if opens_in:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._held_back.open_in, opens_in)
        left_ready = tx.woken - tx.claimed
        if left_ready and self._store.is_shared:
            self.wake(left_ready)  # who parked since `waited` was taken, saw nothing of this transaction
        self._tell(self._park(answers, turn=turn, contended=tx.contended), recorded=tx.recorded, left_ready=left_ready)
        if tx.due_now and self._on_due is not None:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._on_due)

    def _park(self, answers: Answers, *, turn: int, contended: set[str]) -> Answers:
        """Let the pulls that got nothing wait, those that have waited at their old place; return all other answers.

        A pull whose lane has had news since ``turn``, or is ``contended``, looks again.
        """
        unserved = [command for command, result in answers if command.verb is pull and result == [[]]]
        not_answered: set[int] = set()
        # Who has waited goes to the front, one after the other: the last of them first.
        old = [command for command in reversed(unserved) if command.has_waited]
        for command in [command for command in unserved if not command.has_waited] + old:
            if command.wishes[0].lane in contended and self._may_try(command):
                self._try_again(command)
                not_answered.add(id(command))
            elif command.may_wait:
                parked = self._waiting.park(command, since=turn)
                if parked is Parked.NEWS:
                    self._intake.put(command)
                if parked is not Parked.OVER:
                    not_answered.add(id(command))
        return [(command, result) for command, result in answers if id(command) not in not_answered]

    def _may_try(self, command: Command) -> bool:
        """Whether a command may come again; False where it has done so often enough."""
        command.tries += 1
        if command.tries <= MAX_TRIES and not command.over:
            return True
        command.tries = 0
        return False

    def _is_to_come_again(self, command: Command, result: list[Any] | Exception) -> bool:
        """Whether a command found what it is about in others' hands, did nothing, and may come again."""
        is_busy = isinstance(result, list) and bool(result) and all(isinstance(it, BusyError) for it in result)
        return is_busy and self._may_try(command)

    def _try_again(self, command: Command) -> None:
        """Let a command come again a little later."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(
            self._loop.call_later, TRY_AGAIN_SEC * command.tries, self._submit_again, command
        )

    def _submit_again(self, command: Command) -> None:
        if self._stopping:
            command.answer([[]] if command.verb is pull else UnavailableError("The service is stopping; try again."))
        else:
            self._intake.put(command)

    def _note_workers(self, tx: Transaction, pulls: list[Command]) -> list[tuple[str, str]]:
        """Note which named workers poll which lanes, each at most every `SEEN_EVERY_MS`; return those noted."""
        polled = {(wish.lane, wish.worker) for command in pulls for wish in command.wishes if wish.worker is not None}
        # The clock may have been set back.
        news = sorted(key for key in polled if abs(tx.now_ms - self._seen.get(key, 0)) >= SEEN_EVERY_MS)
        if len(self._seen) + len(news) > MAX_SEEN:
            self._seen.clear()
        see_workers(tx, news)
        return news

    def _tell(
        self, answers: Answers, *, recorded: int = 0, left_ready: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._told, answers, recorded, left_ready)

    def _told(self, answers: Answers, recorded: int, left_ready: Mapping[str, int]) -> None:
        for command, result in answers:
            if not command.answer(result) and command.verb is pull and not isinstance(result, Exception):
                self._hand_back(result)
            if command.verb is complete and self._on_completed is not None and not isinstance(result, Exception):
                self._on_completed(result)
        if recorded:
            self._on_recorded()
        if left_ready and self._on_ready is not None:
            self._on_ready(left_ready)

    def _hand_back(self, leased: list[list[LeasedTask]]) -> None:
        """Release what was leased to a client that is gone, instead of leaving it to its lease."""
        wishes = [
            Release(task_id=task.task_id, token=task.token, reason="the worker's connection was gone")
            for tasks in leased
            for task in tasks
        ]
        if wishes:
            nobody_waits = self._future()
            # Where it cannot be given back either, its lease will run out: no reason for a traceback.
            nobody_waits.add_done_callback(asyncio.Future.exception)
            self._intake.put(Command(release, wishes, nobody_waits))


def _is_new(command: Command) -> bool:
    return not command.has_waited
