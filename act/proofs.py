"""The verbs of an auditor: a proof for one entry, a proof between two checkpoints, a tile. Each reads one moment.

Nothing is shown that no checkpoint covers, and no proof is given that does not hold: a damaged tree gives an error.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from act.contract import leaf_hash
from act.domain.errors import ActError, NotFoundError, UnavailableError
from act.domain.tiles import ENTRIES, Tile, TileError, TileHashes, perfect_root, read_hashes, tile_at, write_bundle
from act.domain.tlog_proof import TlogProof
from act.domain.tree import (
    Hashes,
    ProofError,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
)
from act.domain.witness import AddCheckpoint
from act.storage.checkpoints import Signed, last_signed, signed_at
from act.storage.tree import entries, full_tile, tile_bytes


class DamagedError(ActError):
    """The ledger is damaged: what was asked for cannot be proven any more."""

    code = "damaged"
    status = 500
    title = "The ledger is damaged"


def checkpoint(tx: Connection) -> Signed:
    """Return the newest checkpoint.

    Raises:
        UnavailableError: none has been signed yet.
    """
    signed = last_signed(tx)
    if signed is None:
        raise UnavailableError("No checkpoint has been signed yet: /readyz says why, if it does not come.")
    return signed


def inclusion(tx: Connection, index: int) -> TlogProof:
    """Return the proof that the entry is in the ledger, with the entry.

    Raises:
        NotFoundError: no checkpoint covers such an entry.
        UnavailableError: nothing has been signed yet.
        DamagedError: it cannot be proven.
    """
    signed = checkpoint(tx)
    if index >= signed.size:
        raise NotFoundError(
            f"The last checkpoint covers {signed.size} entries, from 0 up, and {index} is none of them. An event that "
            "was just taken is covered within a second.",
            members={"size": signed.size},
        )
    try:
        path = inclusion_proof(index, signed.size, _hashes(tx, signed))
        found = entries(tx, index, index + 1)
        if not found:
            raise ProofError(f"the entry {index} is missing")
        check_inclusion(leaf_hash(found[0]), index, signed.size, signed.root, path)
    except (ProofError, TileError) as error:
        raise _damaged(error) from None
    return TlogProof(index, tuple(path), signed.note, found[0])


def consistency(tx: Connection, from_size: int, to_size: int | None) -> AddCheckpoint:
    """Return the proof that the tree of ``from_size`` is how a later checkpoint's tree begins, with that checkpoint.

    Args:
        tx: a reader's transaction.
        from_size: of any earlier tree; 0: of none.
        to_size: of the checkpoint; None: the newest.

    Raises:
        NotFoundError: there is no checkpoint of ``to_size``, or it is smaller than ``from_size``.
        UnavailableError: nothing has been signed yet.
        DamagedError: it cannot be proven.
    """
    last = checkpoint(tx)
    signed = last if to_size is None else signed_at(tx, to_size)
    if signed is None:
        raise NotFoundError(
            f"No checkpoint of {to_size} entries was signed; the last one is of {last.size}.",
            members={"size": last.size},
        )
    if from_size > signed.size:
        raise NotFoundError(
            f"The checkpoint is of {signed.size} entries, and does not go on from {from_size}.",
            members={"size": signed.size},
        )
    old = signed_at(tx, from_size)
    try:
        proof: Sequence[bytes] = consistency_proof(from_size, signed.size, _hashes(tx, signed))
        if old is not None:
            check_consistency(from_size, old.root, signed.size, signed.root, proof)
    except (ProofError, TileError) as error:
        raise _damaged(error) from None
    return AddCheckpoint(from_size, tuple(proof), signed.note)


def tile(tx: Connection, wanted: Tile) -> bytes:
    """Return a tile's bytes, or an entry bundle's.

    Raises:
        NotFoundError: the newest checkpoint's tree does not have it.
        UnavailableError: nothing has been signed yet.
        DamagedError: it cannot be read.
    """
    signed = checkpoint(tx)
    there = tile_at(wanted.level, wanted.index, signed.size)
    if there is None or there.width < wanted.width:
        has = "does not have it" if there is None else f"has {there.width} of its hashes: ask for /{there.path}"
        raise NotFoundError(
            f"The tree of the last checkpoint, of {signed.size} entries, {has}.", members={"size": signed.size}
        )
    try:
        if wanted.level != ENTRIES:
            return _sound(tx, wanted)
        found = entries(tx, wanted.first, wanted.first + wanted.width)
        if len(found) != wanted.width:
            raise TileError("entries are missing")
        return write_bundle(found)
    except TileError as error:
        raise _damaged(error) from None


def _sound(tx: Connection, wanted: Tile) -> bytes:
    """Return a tile's bytes; of a full one, which caches keep for a year, only such as give the root beside them."""
    stored = None if wanted.is_partial else full_tile(tx, wanted.level, wanted.index)
    if stored is not None and perfect_root(read_hashes(stored[0], wanted.width)) != stored[1]:
        raise TileError(f"{wanted.path} is damaged")
    return tile_bytes(tx, wanted)


def _hashes(tx: Connection, signed: Signed) -> Hashes:
    return TileHashes(signed.size, lambda wanted: tile_bytes(tx, wanted))


def _damaged(error: ProofError | TileError) -> DamagedError:
    return DamagedError(f"This cannot be proven: {error}. Run `act verify`, and read docs/incident.md.")
