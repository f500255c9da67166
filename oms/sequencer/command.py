"""A request on its way through the writer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from oms.storage.transaction import Transaction


class Reply(Protocol):
    """Where the answers go, such as an `asyncio.Future`. All of it is called in the loop's thread."""

    def done(self) -> bool:
        """Whether nobody waits for them any more."""

    def set_result(self, results: list[Any], /) -> None:
        """Take the answers."""

    def set_exception(self, error: Exception, /) -> None:
        """Take why there are none."""


@dataclass(eq=False, slots=True)
class Command:
    """A verb and the wishes of one request.

    Attributes:
        verb: what to run.
        wishes: what it is run on; their answers have the same order.
        reply: where the answers go.
        may_wait: a pull that waits when its lane has nothing.
        over: it must not wait (any more): its time is up, its client is gone, or the service ends.
        has_waited: it waited before, and goes on at its old place.
        is_logged: a fault of ours in it is logged here; else whoever asked for it does that.
        tries: how often it found what it is about in another transaction's hands and came again.
    """

    verb: Callable[[Transaction, Sequence[Any]], Sequence[Any]]
    wishes: Sequence[Any]
    reply: Reply
    may_wait: bool = False
    over: bool = False
    has_waited: bool = False
    is_logged: bool = True
    tries: int = 0

    def answer(self, result: list[Any] | Exception) -> bool:
        """Answer the request, in the loop's thread; False where nobody waits for it any more."""
        if self.reply.done():
            return False
        if isinstance(result, Exception):
            self.reply.set_exception(result)
        else:
            self.reply.set_result(result)
        return True
