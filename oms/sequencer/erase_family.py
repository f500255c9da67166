"""`/jobs/{id}/erase` for a job and the jobs that are its steps, and theirs: values are handed down to them.

A job may have ten thousand such steps, so that it is done in parts, each a transaction, the deepest first. Who is cut
off in between asks again: the job itself is erased last, and what is erased already stays so.
"""

from __future__ import annotations

from dataclasses import replace

from oms.domain.errors import OmsError
from oms.domain.task import FINISHED
from oms.sequencer.erase import Erase, erase, not_finished
from oms.sequencer.service import Service
from oms.sequencer.wishes import JobAnswer, number_of
from oms.storage.erasure import Relative, family_of

BATCH = 100
"""So many jobs are erased in one transaction."""


async def erase_family(service: Service, wish: Erase) -> JobAnswer:
    """Erase a job and all jobs below it, each once, each with its event; again, it is the same answer.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: it, or one below it, is not finished. Then nothing was erased.
        UnavailableError: the database cannot take it now; some of it may be erased.
    """
    answer: JobAnswer | None = None
    while True:
        below = await _to_erase_below(service, wish)
        for first in range(0, len(below), BATCH):
            part = [replace(wish, job_id=one.name) for one in below[first : first + BATCH]]
            for result in await service.writer.run_each(erase, part):
                if isinstance(result, OmsError):
                    raise result
        # Another look after the job itself is erased: until then it could be restarted, and make further ones.
        if answer is not None and not below:
            return answer
        answer = await service.writer.run(erase, wish)


async def _to_erase_below(service: Service, wish: Erase) -> list[Relative]:
    number = number_of(wish.job_id, "JOB-")
    family = [] if number is None else await service.read(lambda connection: family_of(connection, number))
    left = [one for one in family if not one.is_erased]
    for one in reversed(left):
        if one.state not in FINISHED:
            name = one.name if one.job_id == number else f"{one.name}, a step below {wish.job_id},"
            raise not_finished(name, one.state)
    return [one for one in left if one.job_id != number]
