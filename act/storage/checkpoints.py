"""The checkpoints that were signed, and who signs now. Functions that take an open transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Connection, and_, bindparam, exists, insert, literal, or_, select, update

from act.storage.clock import now_ms
from act.storage.tables import SIGNING_ID, checkpoints, events, signing
from hmskit.prepared import Prepared

_THIS = signing.c.id == SIGNING_ID
_UNTIL = now_ms() + bindparam("lease_ms", type_=BigInteger)
_CLAIM = (
    update(signing)
    .where(_THIS, or_(signing.c.holder == bindparam("me"), signing.c.lease_until_ms <= now_ms()))
    .values(holder=bindparam("me"), lease_until_ms=_UNTIL)
)
_LEAVE = update(signing).where(_THIS, signing.c.holder == bindparam("me")).values(lease_until_ms=0)
_NEWEST_FIRST = select(checkpoints).order_by(checkpoints.c.size.desc(), checkpoints.c.signed_ms.desc())
_LAST = _NEWEST_FIRST.limit(literal(1))
_RECENT = _NEWEST_FIRST.limit(bindparam("count", type_=BigInteger))
_OF_SIZE = _NEWEST_FIRST.where(checkpoints.c.size == bindparam("of_size")).limit(literal(1))
_SIGNED_BY = select(checkpoints.c.size).where(
    checkpoints.c.size == bindparam("of_size"), checkpoints.c.key == bindparam("of_key")
)
_COLUMNS = ("size", "key", "root", "signed_ms", "note")
_NEW = {name: bindparam(f"new_{name}", type_=checkpoints.c[name].type) for name in _COLUMNS}
_ADD = (
    insert(checkpoints)
    .from_select(
        list(_COLUMNS),
        select(*_NEW.values()).where(
            ~exists(
                select(checkpoints.c.size).where(
                    or_(
                        checkpoints.c.size > _NEW["size"],
                        and_(checkpoints.c.size == _NEW["size"], checkpoints.c.key == _NEW["key"]),
                    )
                )
            )
        ),
    )
    .returning(checkpoints.c.size)
)
_ROWS = Prepared(
    select(events.c.idx, events.c.leaf_hash, events.c.entry)
    .where(events.c.idx >= bindparam("first"), events.c.idx < bindparam("end"))
    .order_by(events.c.idx),
    ["first", "end"],
)


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint that was signed.

    Attributes:
        size: how many entries it covers.
        key: the verifier key's text.
        root: over them.
        signed_ms: when, milliseconds since the epoch.
        note: the signed note's bytes.
    """

    size: int
    key: str
    root: bytes
    signed_ms: int
    note: bytes


def last_signed(tx: Connection) -> Signed | None:
    """Return the newest checkpoint; None where none has been signed yet."""
    return _signed(tx.execute(_LAST).mappings().first())


def recent_signed(tx: Connection, count: int) -> list[Signed]:
    """Return the newest ``count`` checkpoints, newest first; fewer where there are no more."""
    return [signed for row in tx.execute(_RECENT, {"count": count}).mappings() if (signed := _signed(row)) is not None]


def signed_at(tx: Connection, size: int) -> Signed | None:
    """Return the checkpoint of exactly this size; None where none was signed."""
    return _signed(tx.execute(_OF_SIZE, {"of_size": size}).mappings().first())


def is_signed(tx: Connection, size: int, *, key: str) -> bool:
    """Tell whether the key has signed a checkpoint of this size."""
    return tx.execute(_SIGNED_BY, {"of_size": size, "of_key": key}).first() is not None


def add_signed(tx: Connection, signed: Signed, *, holder: str, lease_ms: int) -> bool:
    """Keep a checkpoint, and stay the signer; False, and it is not kept, where a larger one was signed meanwhile."""
    values = {f"new_{name}": getattr(signed, name) for name in _COLUMNS}
    is_added = tx.execute(_ADD, values).first() is not None
    tx.execute(_CLAIM, {"me": holder, "lease_ms": lease_ms})
    return is_added


def claim_signing(tx: Connection, *, holder: str, lease_ms: int) -> bool:
    """Become the signer, or stay it; False while another process is.

    The lease only saves work: two that sign at once sign the same tree.

    Args:
        tx: a writer's transaction.
        holder: this process, unlike every other one.
        lease_ms: how long the others leave it alone, milliseconds.
    """
    return tx.execute(_CLAIM, {"me": holder, "lease_ms": lease_ms}).rowcount == 1


def leave_signing(tx: Connection, *, holder: str) -> None:
    """Let another process sign at once."""
    tx.execute(_LEAVE, {"me": holder})


def stored_entries(tx: Connection, first: int, end: int) -> Sequence[tuple[Any, Any, Any]]:
    """Return index, stored leaf hash and bytes of the entries ``[first, end)`` that are there, as they are there."""
    return _ROWS.rows(tx, first, end)


def _signed(row: Any) -> Signed | None:  # noqa: ANN401 - SQLAlchemy's RowMapping or None
    return (
        None
        if row is None
        else Signed(row["size"], row["key"], bytes(row["root"]), row["signed_ms"], bytes(row["note"]))
    )
