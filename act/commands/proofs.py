"""``act verify``, ``act verify-proof`` and ``act witness``: what an auditor runs. Exit codes are the truth.

0: it is as it must be. 1: it is not. 2: it could not be checked, and nothing is known.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from act.console import give_up, progress_bar
from hmskit.database import CannotOpenError

if TYPE_CHECKING:
    from act.domain.note import VerifierKey

NOT_CHECKED = 2

KEY = typer.Option(
    "--key",
    help="The log's verifier key, or a file that holds it; repeatable, after a rotation [ACT_VERIFIER_KEY].",
    envvar="ACT_VERIFIER_KEY",
    show_default=False,
)
Keys = Annotated[list[str] | None, KEY]


def read_keys(given: list[str] | None) -> tuple[VerifierKey, ...]:
    """Return the verifier keys that were named; end the command where one cannot be read."""
    from act.keys import KeyFileError, read_verifiers  # noqa: PLC0415

    try:
        return read_verifiers(given or ())
    except KeyFileError as error:
        give_up(error, code=NOT_CHECKED)


def _bad(why: object) -> NoReturn:
    typer.echo(f"BAD: {why}", err=True)
    raise typer.Exit(1) from None


def verify_ledger(
    *,
    database: Annotated[str, typer.Argument(metavar="DB", help="The ledger: an SQLite file, or a database URL.")],
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", help="A checkpoint that you kept; repeatable.", show_default=False),
    ] = None,
    key: Keys = None,
    processes: Annotated[
        int | None,
        typer.Option("--processes", min=1, help="How many at once for a large ledger.", show_default="one a core"),
    ] = None,
) -> None:
    """Check every entry, its order, the tree, the signatures, and every column that dashboards read.

    Reads only, also while ACT runs. Exit code 1 and the first bad index on any difference; 2: it could not be checked.
    """
    from act.checking import cores, pages_on_cores  # noqa: PLC0415
    from act.domain.checkpoint import CheckpointError  # noqa: PLC0415
    from act.domain.note import NoteError  # noqa: PLC0415
    from act.storage.readonly import reading  # noqa: PLC0415
    from act.verify import BadLedgerError, verify  # noqa: PLC0415

    keys = read_keys(key)
    try:
        held = [path.read_bytes() for path in checkpoint or ()]
        with (
            reading(database) as tx,
            progress_bar() as on_progress,
            closing(pages_on_cores(tx, database, processes=processes or cores())) as pages,
        ):
            report = verify(tx, keys=keys, held=held, pages=pages, on_progress=on_progress)
    except BadLedgerError as error:
        _bad(error)
    except (CannotOpenError, OSError) as error:
        give_up(error, code=NOT_CHECKED)
    except (NoteError, CheckpointError) as error:
        give_up(f"--checkpoint: {error}", code=NOT_CHECKED)
    signed = report.signed_size or 0
    if not keys:
        typer.echo(
            "warning: no --key: signatures were checked with the keys that the database itself names, so that somebody "
            "who had the database and made a new key would not be seen",
            err=True,
        )
    if signed < report.size:
        typer.echo(f"warning: {report.size - signed} of the events are in no checkpoint yet", err=True)
    typer.echo(f"size {report.size}\nroot {report.root.hex()}")
    if report.log is not None:
        typer.echo(f"log {report.log}, {report.checkpoints} checkpoints, the newest of {signed} events")
    typer.echo("OK")


def verify_proof_file(
    *,
    file: Annotated[Path, typer.Argument(help="A .tlog-proof file, as GET /proof/inclusion gives it.")],
    key: Keys = None,
) -> None:
    """Check offline that one event is in the ledger, and print it.

    Exit code 1 where it is not proven; 2 where it cannot be checked.
    """
    from act.contract import event_bytes  # noqa: PLC0415
    from act.domain.audit import EntryError, derive  # noqa: PLC0415
    from act.domain.checkpoint import CheckpointError  # noqa: PLC0415
    from act.domain.note import NoteError  # noqa: PLC0415
    from act.domain.tlog_proof import ProofFileError, TlogProof, verify_proof  # noqa: PLC0415
    from act.domain.tree import ProofError  # noqa: PLC0415

    keys = read_keys(key)
    if not keys:
        give_up("the log's verifier key is needed: --key, or ACT_VERIFIER_KEY", code=NOT_CHECKED)
    try:
        data = file.read_bytes()
    except OSError as error:
        give_up(error, code=NOT_CHECKED)
    try:
        proof = TlogProof.parse(data)
        if proof.extra is None:
            _bad("the file does not hold its entry")
        verified = verify_proof(proof, proof.extra, keys, origin=keys[0].name)
        derive(proof.extra)
    except (ProofFileError, NoteError, CheckpointError, ProofError, EntryError) as error:
        _bad(error)
    checkpoint = verified.checkpoint
    typer.echo(event_bytes(proof.extra).decode())
    typer.echo(f"index {proof.index} of {checkpoint.size} in the log {checkpoint.origin}\nOK")


def watch_log(
    *,
    url: Annotated[str, typer.Argument(metavar="URL", help="ACT's, such as https://act.example.gov.")],
    state: Annotated[
        Path, typer.Option("--state", help="The file that keeps the last checkpoint that was good.")
    ] = Path("act-witness.checkpoint"),
    key: Keys = None,
) -> None:
    """Look once whether the ledger goes on from what it was at the last look, and keep its checkpoint. For cron.

    Exit code 1 where it was rewritten: the checkpoint that says so is kept beside the good one. 2 where ACT could not
    be asked.
    """
    from act.watch import CannotWatchError, RewrittenError, look  # noqa: PLC0415

    keys = read_keys(key)
    if not keys:
        typer.echo("warning: no --key: who signed the checkpoint is not checked", err=True)
    try:
        seen = look(url, state=state, keys=keys)
    except RewrittenError as error:
        _bad(error)
    except CannotWatchError as error:
        give_up(error, code=NOT_CHECKED)
    typer.echo(f"{seen.step}: {seen.checkpoint.size} events, root {seen.checkpoint.root.hex()}\nOK")


def add_to(main: typer.Typer) -> None:
    """Make them commands of ``act``."""
    main.command("verify")(verify_ledger)
    main.command("verify-proof")(verify_proof_file)
    main.command("witness")(watch_log)
