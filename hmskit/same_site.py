"""Refuse a browser's cross-site requests that change state: no page elsewhere may act through a user's browser."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from hmskit.problems import Problem

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class SameSiteOnly:
    """ASGI middleware: answers 403 to a changing request that a browser sends from another site.

    Only browsers send ``Sec-Fetch-Site`` and ``Origin``; a worker, a portal or curl sends neither and passes.

    Args:
        app: what is guarded.
        allowed_origins: origins that may, such as ``https://portal.example``.
        changes_state: tells whether a request (method, path) changes state.
    """

    def __init__(
        self, app: ASGIApp, *, allowed_origins: Iterable[str], changes_state: Callable[[str, str], bool]
    ) -> None:
        self._app = app
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in allowed_origins)
        self._changes_state = changes_state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and self._changes_state(scope["method"], scope["path"]):
            headers = Headers(scope=scope)
            if self._is_foreign(headers):
                problem = Problem(
                    403,
                    "cross-site",
                    "Not from another site",
                    "A page of another site sent this through a browser. If that page may, add its origin to "
                    "the allowed origins in the settings.",
                )
                await problem.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_foreign(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is not None:
            if origin.lower() in self._allowed:
                return False
            if not _is_own(origin, headers.get("host", "")):
                return True
        return headers.get("sec-fetch-site", "").lower() == "cross-site"


def _is_own(origin: str, host: str) -> bool:
    """Tell whether ``origin`` names the host that the request was sent to; default ports may be left out."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    port = _DEFAULT_PORTS.get(parts.scheme)
    if port is None or not parts.netloc:
        return False
    return parts.netloc.lower().removesuffix(port) == host.lower().removesuffix(port)
