"""The passport office of the demo: its workers, its manager, and its citizens' tickets."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oms.demo.crew import Crew
from oms.worker import OmsClient, OmsProblem, ReleaseTask, Task, Worker

PLAN = "passport_renewal"
AI, CLERK, PRINTER = "ai_extract", "human_verify", "external_print"
BACKUP = "human_verify_backup"
START_LIST = 1000
PRINT_RUN = 50
PRINT_SEC = 0.2
MOST_READ_SEC, MOST_CHECK_SEC = 0.06, 0.15
ALL_READ_SEC, ALL_CHECK_SEC = 2.0, 3.0
"""However many renewals there are, the pretended work takes no longer than about this in all."""
REROUTE_LIMIT_SEC = 15.0
POLL_SEC = 0.05


class OfficeError(Exception):
    """Something in the office did not go as it must."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A citizen's renewal: the reference, and the job that runs for it."""

    reference: str
    job_id: str


def start_renewals(oms: OmsClient, count: int) -> list[Ticket]:
    """Start ``count`` renewals, each for a fresh ticket.

    Raises:
        OfficeError: OMS refused one.
    """
    references = [str(uuid.uuid4()) for _ in range(count)]
    tickets = []
    for first in range(0, count, START_LIST):
        some = references[first : first + START_LIST]
        answers = oms.start_many([{"plan": PLAN, "reference": reference} for reference in some])
        for reference, answer in zip(some, answers, strict=True):
            if isinstance(answer, OmsProblem):
                raise OfficeError(f"a renewal was refused: {answer}")
            tickets.append(Ticket(reference, answer["job_id"]))
    return tickets


class Office:
    """The workers of the three lanes, and one in reserve.

    Args:
        oms: where the work comes from.
        crew: runs the workers.
        tickets: the renewals that are to be made.
    """

    def __init__(self, oms: OmsClient, crew: Crew, tickets: list[Ticket]) -> None:
        self._oms = oms
        self._crew = crew
        self._read_sec = min(MOST_READ_SEC, ALL_READ_SEC / len(tickets))
        self._check_sec = min(MOST_CHECK_SEC, ALL_CHECK_SEC / len(tickets))
        self._print_runs = 0
        # The second photo is hard to judge, the third one goes to the backup; with fewer there is no story.
        self._hard_to_judge = tickets[1].reference if len(tickets) > 1 else None
        self._for_backup = tickets[2] if len(tickets) > 2 else None  # noqa: PLR2004
        self.readers: list[Worker] = []
        self.clerks: list[Worker] = []
        self.printers: list[Worker] = []

    def open(self, check: Callable[[], None]) -> None:
        """Let everybody begin; the clerk comes last, so that the manager has a queue to move something out of.

        Args:
            check: called while waiting; raises where it makes no sense to go on.
        """
        self.readers.append(self._hire(AI, "ai-agent", self._read_form))
        self.clerks.append(self._hire(BACKUP, "clerk-backup", self._check_photo))
        # The plant looks into its lane now and then, and takes what has come together.
        plant = Worker(lane=PRINTER, worker="printing-plant", max=PRINT_RUN, wait_sec=0, idle_sec=0.5, client=self._oms)
        self.printers.append(self._crew.add(plant, self._print))
        if self._for_backup is not None:
            self._reroute(self._for_backup, check)
        self.clerks.append(self._hire(CLERK, "clerk", self._check_photo))

    def _hire(self, lane: str, name: str, handle: Callable[[Task], dict[str, Any]]) -> Worker:
        return self._crew.add(Worker(lane=lane, worker=name, wait_sec=1, client=self._oms), handle)

    def _read_form(self, task: Task) -> dict[str, Any]:
        """Read a form, as an AI agent would."""
        time.sleep(self._read_sec)
        return {"passport_no": f"{int(task.task_id.removeprefix('TASK-')):09}", "confidence": 0.97}

    def _check_photo(self, task: Task) -> dict[str, Any]:
        """Check a photo, as a clerk would."""
        time.sleep(self._check_sec)
        if task.reference == self._hard_to_judge and task.attempt == 1:
            raise ReleaseTask("to be seen in daylight")
        return {"photo_ok": True, "read_with": task.outputs[AI]["confidence"]}

    def _print(self, tasks: list[Task]) -> list[dict[str, Any]]:
        """Print a batch, as a plant would."""
        time.sleep(PRINT_SEC)
        self._print_runs += 1
        return [{"print_run": self._print_runs, "booklet": task.outputs[AI]["passport_no"]} for task in tasks]

    def _reroute(self, ticket: Ticket, check: Callable[[], None]) -> None:
        """Move a renewal's photo to the backup clerk, as a manager would."""
        give_up_at = time.monotonic() + REROUTE_LIMIT_SEC
        while True:
            check()
            waiting = [task for task in self._oms.job(ticket.job_id)["tasks"] if task["lane"] == CLERK]
            if waiting:
                break
            if time.monotonic() > give_up_at:
                raise OfficeError(f"{ticket.job_id}: its form was not read within {REROUTE_LIMIT_SEC:.0f} s")
            time.sleep(POLL_SEC)
        self._oms.reroute(waiting[0]["task_id"], BACKUP, reason="the clerk is overloaded", actor="manager")
