"""The writer owns the write connection, and runs the verbs.

All commands that arrive while the last commit is on its way to disk share the next transaction (group commit): one
read for all, one write per table, one sync. A reply exists only after its transaction is on disk. A batch that
fails unexpectedly is rolled back and run again one command at a time, so that a bad command fails alone.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection

from oms.domain.errors import OmsError, UnavailableError
from oms.sequencer.command import Command
from oms.sequencer.pull import LeasedTask, Pull, pull
from oms.sequencer.release import Release, release
from oms.sequencer.waiting import Waiting
from oms.storage.store import Store
from oms.storage.tasks import see_workers, wake_due
from oms.storage.transaction import Transaction

log = structlog.get_logger(__name__)

W = TypeVar("W")
R = TypeVar("R")
Verb = Callable[[Transaction, Sequence[W]], Sequence[R]]
Answers = list[tuple[Command, list[Any] | Exception]]

MAX_COMMANDS = 256
"""How many commands one transaction takes at most: beyond, a larger batch is no cheaper per command."""
MAX_QUEUED_COMMANDS = 10_000
"""How many may wait for the disk before new ones are refused with 503: at that depth they would wait for seconds."""
LINGER_STEPS = 6
LINGER_STEP_SEC = 0.0002
"""Under load a transaction waits for more commands while they arrive: a fifth of a millisecond at a time."""
SEEN_EVERY_MS = 10_000
"""How often at most a worker's poll is noted: an idle poll must not cost a write."""
MAX_SEEN = 100_000


class Writer:
    """Runs verbs, one transaction at a time, in a thread of its own.

    Args:
        store: the database.
        now_ms: the clock.
        on_recorded: called in the loop after a commit that recorded events.
    """

    def __init__(self, store: Store, *, now_ms: Callable[[], int], on_recorded: Callable[[], None]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._on_recorded = on_recorded
        self._queue: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._waiting = Waiting()
        self._seen: dict[tuple[str, str], int] = {}
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to work; call it in the loop that will await the answers."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def parked(self) -> int:
        """How many pulls wait."""
        return len(self._waiting)

    async def run_each(self, verb: Verb[W, R], wishes: Sequence[W]) -> list[R]:
        """Run ``verb`` on ``wishes`` in one transaction; return each answer or refusal in its place, once on disk.

        Raises:
            UnavailableError: the database cannot take it now; nothing was changed.
        """
        return await self._submit(Command(verb, wishes, self._future()))

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
        command = Command(pull, [wish], self._future(), may_wait=wait_sec > 0)
        if not command.may_wait:
            (leased,) = await self._submit(command)
            return leased  # type: ignore[no-any-return]
        timer = asyncio.get_running_loop().call_later(wait_sec, self._end_wait, command)
        try:
            (leased,) = await self._submit(command)
        except asyncio.CancelledError:
            self._waiting.end(command)
            if command.future.done() and not command.future.cancelled() and command.future.exception() is None:
                self._hand_back(command.future.result())  # it was served, and gone before it could wake up
            raise
        finally:
            timer.cancel()
        return leased  # type: ignore[no-any-return]

    def end_waits(self) -> None:
        """Answer every waiting pull with nothing, and let none wait from now on."""
        for command in self._waiting.close():
            command.answer([[]])

    async def stop(self) -> None:
        """End the thread after everything that was submitted is on disk."""
        self.end_waits()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _future(self) -> asyncio.Future[list[Any]]:
        return asyncio.get_running_loop().create_future()

    async def _submit(self, command: Command) -> list[Any]:
        if self._queue.qsize() > MAX_QUEUED_COMMANDS or not self._thread.is_alive():
            raise UnavailableError("Too many requests wait for the disk; try again in a moment.")
        self._queue.put(command)
        return await command.future

    def _end_wait(self, command: Command) -> None:
        if self._waiting.end(command):
            command.answer([[]])

    def _work(self) -> None:
        with self._store.connect_writer() as connection:
            commands: list[Command] = []
            ends = False
            while not ends:
                commands, ends = self._collect(busy=len(commands) > 1)
                if commands:
                    self._tell(*self._run(connection, commands))

    def _linger(self) -> None:
        """Let the loop's thread read the requests that are there: a larger transaction costs less for each."""
        arrived = -1
        for _ in range(LINGER_STEPS):
            if arrived == (arrived := self._queue.qsize()):
                return
            time.sleep(LINGER_STEP_SEC)

    def _collect(self, *, busy: bool) -> tuple[list[Command], bool]:
        """Wait for a command, and take with it all that have come by now; True when the end has come.

        ``busy``: others shared the last transaction, so that more are on their way: linger while they arrive.
        """
        commands: list[Command] = []
        command = self._queue.get()
        if busy:
            self._linger()
        while command is not None and len(commands) < MAX_COMMANDS - 1:
            commands.append(command)
            try:
                command = self._queue.get_nowait()
            except queue.Empty:
                return commands, False
        if command is None:
            return commands, True
        return [*commands, command], False

    def _run(self, connection: Connection, commands: list[Command]) -> tuple[Answers, int]:
        """Run commands as one transaction; return their answers and how many events were recorded."""
        try:
            return self._transact(connection, commands)
        except UnavailableError as error:
            log.warning("database_unavailable", detail=error.detail, commands=len(commands))
            return [(command, error) for command in commands], 0
        except Exception as error:
            if len(commands) == 1:
                log.exception("command_failed", verb=commands[0].verb.__name__)
                return [(commands[0], error)], 0
            log.exception("batch_failed", commands=len(commands))
        answers: Answers = []
        recorded = 0
        for command in commands:
            its_answers, its_recorded = self._run(connection, [command])
            answers += its_answers
            recorded += its_recorded
        return answers, recorded

    def _transact(self, connection: Connection, commands: list[Command]) -> tuple[Answers, int]:
        waited: list[Command] = []
        try:
            with self._store.begin(connection, now_ms=self._now_ms()) as tx:
                answers = _run_verbs(tx, [command for command in commands if command.verb is not pull])
                wake_due(tx)
                waited = self._waiting.take(tx.woken)
                pulls = [command for command in commands if command.verb is pull]
                # Those that have waited were there first.
                answers += _run_verbs(tx, waited + pulls)
                seen = self._note_workers(tx, pulls)
        except BaseException:
            self._tell(self._park([(command, [[]]) for command in waited], waited), 0)
            raise
        self._seen.update(dict.fromkeys(seen, tx.now_ms))
        return self._park(answers, waited), tx.recorded

    def _park(self, answers: Answers, waited: list[Command]) -> Answers:
        """Let the pulls that got nothing wait, those that have waited at their old place; return all other answers."""
        unserved = [command for command, result in answers if command.may_wait and result == [[]]]
        old = set(map(id, waited))
        parked = {id(command) for command in unserved if id(command) not in old and self._waiting.park(command)}
        for command in reversed(unserved):
            if id(command) in old and self._waiting.park(command, first=True):
                parked.add(id(command))
        return [(command, result) for command, result in answers if id(command) not in parked]

    def _note_workers(self, tx: Transaction, pulls: list[Command]) -> list[tuple[str, str]]:
        """Note which named workers poll which lanes, each at most every `SEEN_EVERY_MS`; return those noted."""
        polled = {(wish.lane, wish.worker) for command in pulls for wish in command.wishes if wish.worker is not None}
        # The clock may have been set back.
        news = sorted(key for key in polled if abs(tx.now_ms - self._seen.get(key, 0)) >= SEEN_EVERY_MS)
        if len(self._seen) + len(news) > MAX_SEEN:
            self._seen.clear()
        see_workers(tx, news)
        return news

    def _tell(self, answers: Answers, recorded: int) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._told, answers, recorded)

    def _told(self, answers: Answers, recorded: int) -> None:
        for command, result in answers:
            if not command.answer(result) and command.verb is pull and not isinstance(result, Exception):
                self._hand_back(result)
        if recorded:
            self._on_recorded()

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
            self._queue.put(Command(release, wishes, nobody_waits))


def _run_verbs(tx: Transaction, commands: list[Command]) -> Answers:
    """Run each verb once, on the wishes of all its commands; give each command its share of the answers.

    The commands of a batch wait at the same time, so any order among them is a right one.
    """
    by_verb: dict[Any, list[Command]] = {}
    for command in commands:
        by_verb.setdefault(command.verb, []).append(command)
    answers: Answers = []
    for verb, group in by_verb.items():
        results = iter(verb(tx, [wish for command in group for wish in command.wishes]))
        answers += [(command, [next(results) for _ in command.wishes]) for command in group]
    return answers
