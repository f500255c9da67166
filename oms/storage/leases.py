"""Which tower does what only one needs to do. An efficiency: two that do it at once do no harm."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from oms.storage.tables import leases
from oms.storage.transaction import Transaction

_THIS = leases.c.name == bindparam("this_name")
# Nothing is waited for: a tower that stands still in the middle of this must not hold up the others' verbs.
_MAY_TAKE = (
    select(leases.c.name)
    .where(_THIS, or_(leases.c.holder == bindparam("this_holder"), leases.c.expires_at <= bindparam("now")))
    .with_for_update(skip_locked=True)
)
_IS_THERE = select(leases.c.name).where(_THIS)
_TAKE = update(leases).where(_THIS).values(holder=bindparam("this_holder"), expires_at=bindparam("until"))
_ADD = insert(leases)
_LET_GO = delete(leases).where(_THIS, leases.c.holder == bindparam("this_holder"))


def hold(tx: Transaction, name: str, *, holder: str, for_ms: int) -> bool:
    """Take the lease, or hold it longer; False where another has it. Its time is that of ``tx``."""
    until = tx.now_ms + for_ms
    this = {"this_name": name, "this_holder": holder}
    if tx.connection.execute(_MAY_TAKE, {**this, "now": tx.now_ms}).first() is not None:
        tx.connection.execute(_TAKE, {**this, "until": until})
        return True
    if tx.connection.execute(_IS_THERE, {"this_name": name}).first() is not None:
        return False
    try:
        with tx.connection.begin_nested():
            tx.connection.execute(_ADD, {"name": name, "holder": holder, "expires_at": until})
    except IntegrityError:
        return False  # another took it in this moment
    return True


def let_go(tx: Transaction, name: str, *, holder: str) -> None:
    """Give the lease back, so that another need not wait for its end."""
    tx.connection.execute(_LET_GO, {"this_name": name, "this_holder": holder})
