"""``/ledger``: an auditor's pages. They are readable without JavaScript, and load nothing from elsewhere."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import RedirectResponse, Response

from act.api.query import refuse_unknown
from act.contract import format_time_ms
from act.domain.encoding import read_decimal, write_base64
from act.domain.errors import ActError, Fault, InvalidInputError, NotFoundError
from act.ledger import Ledger
from act.signer import Signer
from act.web import view

router = APIRouter(include_in_schema=False)

# Nothing inline, nothing from elsewhere: an event's text that got past the escaping would still not run.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}
_PAGE = {
    **_NO_SNIFFING,
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def _exact(text: str) -> Markup:
    """Return HTML whose text is this one to the character: a parser would make a newline of a carriage return."""
    return Markup(str(escape(text)).replace("\r", "&#13;"))  # noqa: S704 - it has just been escaped


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("act.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(exact=_exact, time=format_time_ms, base64=write_base64)
    return environment


def _static() -> dict[str, tuple[bytes, str, str]]:
    """Return each static file's bytes, media type and ETag, by its name."""
    return {
        file.name: (data, kind, f'"{hashlib.sha256(data).hexdigest()[:32]}"')
        for file in files("act.web").joinpath("static").iterdir()
        for ending, kind in _KINDS.items()
        if file.name.endswith(ending)
        for data in (file.read_bytes(),)
    }


_TEMPLATES = _environment()
_STATIC = _static()


@router.get("/ledger")
async def get_ledger(request: Request) -> Response:
    """Show where the ledger stands, and its newest entries, or a job's (``?job=``); go to an entry (``?index=``)."""
    try:
        refuse_unknown(request.query_params, ("job", "after", "index"))
        index, after = _number(request, "index"), _number(request, "after")
    except InvalidInputError as error:
        return _failure(request, error)
    if index is not None:
        return RedirectResponse(f"{_root(request)}/ledger/entries/{index}", status_code=303)
    job = request.query_params.get("job", "").strip()
    ledger = _ledger(request)
    rows, problem, status = view.Rows(()), "", 200
    try:
        head = await ledger.read(view.head)
        if job:
            rows = await ledger.read(view.job_rows, job, after_seq=after or 0)
        else:
            rows = await ledger.read(view.newest_rows)
    except NotFoundError as error:  # the job: the rest of the page is there all the same
        problem, status = error.detail, error.status
    except ActError as error:
        return _failure(request, error)
    return _page(request, "ledger.html", status, head=head, rows=rows, job=job, problem=problem, signing=_sign(request))


@router.get("/ledger/entries/{index}")
async def get_entry(request: Request, index: str) -> Response:
    """Show one entry, as its own bytes tell it, and its proof."""
    try:
        refuse_unknown(request.query_params, ())
        shown = await _ledger(request).read(view.entry, _index(index))
    except ActError as error:
        return _failure(request, error)
    return _page(request, "entry.html", 200, entry=shown, signing=_sign(request))


@router.get("/ledger/static/{name}")
async def get_static(request: Request, name: str) -> Response:
    """Return a style sheet or a script of these pages."""
    if name not in _STATIC:
        raise NotFoundError(f"The ledger's pages have no file {name[:80]!r}.")
    data, kind, etag = _STATIC[name]
    headers = {**_NO_SNIFFING, "Cache-Control": "no-cache", "ETag": etag}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=kind, headers=headers)


def _page(request: Request, name: str, status: int, **context: Any) -> Response:  # noqa: ANN401 - a template's values
    html = _TEMPLATES.get_template(name).render(root=_root(request), **context)
    return Response(html, status, headers=_PAGE, media_type="text/html")


def _failure(request: Request, error: ActError) -> Response:
    return _page(request, "failure.html", error.status, title=error.title, detail=error.detail)


def _sign(request: Request) -> dict[str, Any]:
    """Return how the signing goes; empty where this process does not sign."""
    signer: Signer | None = request.app.state.signer
    return {} if signer is None else signer.health


def _root(request: Request) -> str:
    """Return the path under which a proxy shows ACT; empty without one."""
    root: str = request.scope.get("root_path", "")
    return root.rstrip("/")


def _ledger(request: Request) -> Ledger:
    ledger: Ledger = request.app.state.ledger
    return ledger


def _number(request: Request, name: str) -> int | None:
    """Return a parameter; None where it is not given, or left empty in its form.

    Raises:
        InvalidInputError: it is no index.
    """
    text = request.query_params.get(name, "").strip()
    try:
        return read_decimal(text) if text else None
    except ValueError as error:
        raise InvalidInputError(f"{name}: {error}.", faults=(Fault(("query", name), str(error)),)) from None


def _index(text: str) -> int:
    try:
        return read_decimal(text)
    except ValueError:
        raise NotFoundError(f"{text[:80]!r} is no index: entries are numbered from 0 up.") from None
