"""One frozen settings object per service, read once: from flags, else from the environment, else the defaults."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings
from rich.console import Console
from rich.table import Table

S = TypeVar("S", bound=BaseSettings)

# Up to the last @: a password may hold one that should have been written as %40.
_PASSWORD = re.compile(r"(?<=://)([^:/?#@]*:).*@")
_PASSWORD_PARAMETER = re.compile(r"([?&]\w*password=)[^&]*")


class SettingsError(Exception):
    """Settings that cannot be used; the message names each, its bound, and where it came from."""


def environment_name(settings: type[BaseSettings], field: str) -> str:
    """Return the environment variable of a field: ``OMS_DATABASE_URL``."""
    return f"{settings.model_config.get('env_prefix', '')}{field}".upper()


def read_settings(settings: type[S], **flags: Any) -> S:  # noqa: ANN401 - each flag has its field's type
    """Return the settings; flags that are None were not given.

    Raises:
        SettingsError: a value is out of its bounds.
    """
    try:
        return settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        lines = [
            f"{environment_name(settings, str(fault['loc'][0])) if fault['loc'] else 'settings'}: "
            f"{fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        ]
        raise SettingsError("; ".join(lines)) from None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _help(settings: type[BaseSettings], name: str, field: FieldInfo) -> str:
    return f"{field.description} [{environment_name(settings, name)}, default: {shown_default(field)}]"


def shown_default(field: FieldInfo) -> str:
    """Return a default as people type it."""
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, tuple):
        return ",".join(default) or "none"
    if default is None:
        return "none"
    return str(int(default) if isinstance(default, bool) else default)


def takes_settings(settings: type[S]) -> Callable[[Callable[[S], None]], Callable[..., None]]:
    """Make ``command(settings)`` a command with one flag per field; a flag beats the environment.

    A setting that cannot be used is printed, and the command exits 2.
    """

    def decorate(command: Callable[[S], None]) -> Callable[..., None]:
        def run(**flags: Any) -> None:  # noqa: ANN401
            try:
                read = read_settings(settings, **flags)
            except SettingsError as error:
                typer.echo(f"error: {error}", err=True)
                raise typer.Exit(2) from None
            command(read)

        run.__doc__ = command.__doc__
        run.__name__ = command.__name__
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=None,
                    # Every flag is text here; pydantic reads it as it reads the environment.
                    annotation=Annotated[
                        str | None,
                        typer.Option(_flag(name), help=_help(settings, name, field), show_default=False),
                    ],
                )
                for name, field in settings.model_fields.items()
            ]
        )
        run.__annotations__ = {}
        return run

    return decorate


def without_password(value: str) -> str:
    """Return a setting as it may be shown: the password of a URL is ``***``."""
    return _PASSWORD_PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1***@", value))


def print_settings(settings: type[BaseSettings]) -> None:
    """Print each setting: its variable, its value now, its default and what it is."""
    try:
        now: BaseSettings | None = settings()
    except ValidationError:
        now = None
    table = Table(box=None, pad_edge=False)
    for title in ("variable", "now", "default", "what it is"):
        table.add_column(title, overflow="fold")
    for name, field in settings.model_fields.items():
        value = "cannot be used" if now is None else getattr(now, name)
        if isinstance(value, tuple):
            value = ",".join(value) or "none"
        table.add_row(
            environment_name(settings, name),
            "none" if value is None else without_password(str(int(value) if isinstance(value, bool) else value)),
            shown_default(field),
            field.description or "",
        )
    Console(soft_wrap=False).print(table)
