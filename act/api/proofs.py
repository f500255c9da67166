"""The proofs, in C2SP's formats: checkpoint, tiles, a proof for one entry, a proof between two checkpoints."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from act.api import schemas_proofs as schemas
from act.api.query import refuse_unknown
from act.domain.encoding import read_decimal
from act.domain.errors import Fault, InvalidInputError, NotFoundError
from act.domain.tiles import TileError, read_tile_path
from act.domain.tlog_proof import FILE_EXTENSION
from act.ledger import Ledger
from act.proofs import checkpoint, consistency, inclusion, tile

router = APIRouter()

TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
_NOT_STORED = {"Cache-Control": "no-store"}
# What a path names never changes. A partial tile is soon of no use, and caches need not keep it.
_FULL = {"Cache-Control": "public, max-age=31536000, immutable"}
_PARTIAL = {"Cache-Control": "public, max-age=300"}


@router.get("/checkpoint", **schemas.GET_CHECKPOINT)
async def get_checkpoint(request: Request) -> Response:
    """Return the newest checkpoint: how many entries the ledger has and the root over them, signed.

    A signed note (C2SP signed-note, tlog-checkpoint). A new one is there within a second of growth.
    """
    refuse_unknown(request.query_params, ())
    signed = await _ledger(request).read(checkpoint)
    return Response(signed.note, media_type=TEXT, headers=_NOT_STORED)


@router.get("/tile/{level}/{index:path}", **schemas.GET_TILE)
async def get_tile(
    request: Request,
    level: Annotated[str, Path(description="0 to 63, or `entries`.", examples=["0"])],
    index: Annotated[
        str,
        Path(
            description="Three digits; more in groups, as in `x001/234`. A partial one ends in `.p/<width>`.",
            examples=["000.p/5"],
        ),
    ],
) -> Response:
    """Return a tile of the tree, or a bundle of entries (C2SP tlog-tiles).

    `tile/<level>/<index>` is full: 256 hashes; with `.p/<width>` it is partial. `tile/entries/<index>` holds the
    entries of a tile of level 0, each behind its length. Only what the newest checkpoint covers is there.
    """
    refuse_unknown(request.query_params, ())
    try:
        wanted = read_tile_path(f"tile/{level}/{index}")
    except TileError as error:
        raise NotFoundError(f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
    data = await _ledger(request).read(tile, wanted)
    return Response(data, media_type=BYTES, headers=_PARTIAL if wanted.is_partial else _FULL)


@router.get("/proof/inclusion", **schemas.GET_INCLUSION)
async def get_inclusion(request: Request) -> Response:
    """Return a proof file for one entry (C2SP tlog-proof), which shows no other.

    It holds the entry, the path to the root, and the checkpoint: `act verify-proof` needs the verifier key beside it.
    """
    refuse_unknown(request.query_params, ("index",))
    index = _number(request, "index")
    proof = await _ledger(request).read(inclusion, index)
    name = {"Content-Disposition": f'attachment; filename="{index}{FILE_EXTENSION}"'}
    return Response(proof.encoded(), media_type=TEXT, headers={**_NOT_STORED, **name})


@router.get("/proof/consistency", **schemas.GET_CONSISTENCY)
async def get_consistency(request: Request) -> Response:
    """Return the proof that a checkpoint's tree goes on from an earlier one: the body of a witness's `add-checkpoint`.

    `from` is the size that the witness has, 0 for none; `to` that of the checkpoint, the newest where it is not given.
    """
    refuse_unknown(request.query_params, ("from", "to"))
    from_size = _number(request, "from")
    to_size = _number(request, "to") if "to" in request.query_params else None
    if to_size is not None and from_size > to_size:
        raise InvalidInputError(
            f"from: {from_size} is above to, {to_size}.", faults=(Fault(("query", "from"), "is above to"),)
        )
    proof = await _ledger(request).read(consistency, from_size, to_size)
    return Response(proof.encoded(), media_type=TEXT, headers=_NOT_STORED)


def _ledger(request: Request) -> Ledger:
    ledger: Ledger = request.app.state.ledger
    return ledger


def _number(request: Request, name: str) -> int:
    """Return a parameter that must be given, a size or an index.

    Raises:
        InvalidInputError: it is none.
    """
    text = request.query_params.get(name)
    try:
        if text is None:
            raise ValueError("must be given")
        return read_decimal(text)
    except ValueError as error:
        raise InvalidInputError(f"{name}: {error}.", faults=(Fault(("query", name), str(error)),)) from None
