"""Settings: a flag beats the environment, the environment beats the default, and a wrong one is named."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
import typer
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from typer.testing import CliRunner

from hmskit.settings import (
    SettingsError,
    environment_name,
    print_settings,
    read_settings,
    takes_settings,
    without_password,
)


class Some(BaseSettings):
    """A setting of each type."""

    model_config = SettingsConfigDict(env_prefix="XYZ_", frozen=True, extra="forbid")

    port: int = Field(8001, ge=0, le=65535, description="the port")
    eager: bool = Field(default=True, description="whether")
    names: Annotated[tuple[str, ...], NoDecode] = Field((), description="some names")
    mode: Literal["a", "b"] = Field("a", description="the mode")
    note: str | None = Field(None, description="a note")

    @field_validator("names", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.split(",")) if isinstance(value, str) else value


def run_command(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run a command that prints its settings; return exit code, output and errors."""
    app = typer.Typer()

    @app.command()
    @takes_settings(Some)
    def show(settings: Some) -> None:
        """Show them."""
        typer.echo(repr(settings))

    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", **(env or {})})
    return result.exit_code, result.stdout, result.stderr


def test_flags_beat_the_environment_beats_the_default() -> None:
    env = {"XYZ_PORT": "5", "XYZ_MODE": "b", "XYZ_NAMES": "x,y", "XYZ_UNKNOWN": "z"}
    code, out, _ = run_command("--port", "6", "--eager", "0", env=env)
    assert code == 0
    assert "port=6, eager=False, names=('x', 'y'), mode='b', note=None" in out
    assert "port=8001" in run_command()[1]


@pytest.mark.parametrize(
    ("arguments", "env", "says"),
    [
        (["--port", "70000"], {}, "XYZ_PORT: Input should be less than or equal to 65535"),
        (["--port", "x"], {}, "XYZ_PORT"),
        ([], {"XYZ_PORT": "-1"}, "XYZ_PORT"),
        ([], {"XYZ_MODE": "c"}, "XYZ_MODE: Input should be 'a' or 'b'"),
        (["--eager", "maybe"], {}, "XYZ_EAGER"),
    ],
)
def test_a_wrong_one_is_named_and_ends_with_2(arguments: list[str], env: dict[str, str], says: str) -> None:
    code, out, err = run_command(*arguments, env=env)
    assert (code, out) == (2, "")
    assert says in err


def test_help_shows_each_with_its_variable_and_default() -> None:
    out = " ".join(run_command("--help")[1].split())
    assert "Show them." in out
    for word in ("--port", "the port", "XYZ_PORT, default: 8001", "XYZ_EAGER, default: 1", "XYZ_NAMES, default: none"):
        assert word in out


def test_settings_are_printed_with_their_values_now(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XYZ_NAMES", "x,y")
    print_settings(Some)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["variable", "now", "default", "what", "it", "is"]
    assert [line.split()[:3] for line in lines[1:]] == [
        ["XYZ_PORT", "8001", "8001"],
        ["XYZ_EAGER", "1", "1"],
        ["XYZ_NAMES", "x,y", "none"],
        ["XYZ_MODE", "a", "a"],
        ["XYZ_NOTE", "none", "none"],
    ]


def test_settings_that_cannot_be_used_are_still_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XYZ_PORT", "x")
    print_settings(Some)
    assert "cannot be used" in capsys.readouterr().out


def test_reading_them_without_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XYZ_PORT", "9")
    assert read_settings(Some, mode=None).port == 9
    assert read_settings(Some, port="3").port == 3
    with pytest.raises(SettingsError, match="XYZ_MODE"):
        read_settings(Some, mode="z")
    assert environment_name(Some, "port") == "XYZ_PORT"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("amqp://guest:secret@host:5672/vhost", "amqp://guest:***@host:5672/vhost"),
        ("postgresql+psycopg://user:sec@ret@host/db", "postgresql+psycopg://user:***@host/db"),
        (
            "postgresql://user@host/db?sslmode=require&password=secret",
            "postgresql://user@host/db?sslmode=require&password=***",
        ),
        ("http://127.0.0.1:8002", "http://127.0.0.1:8002"),
        ("sqlite:///oms.db", "sqlite:///oms.db"),
    ],
)
def test_passwords_are_not_shown(value: str, shown: str) -> None:
    assert without_password(value) == shown


def test_printed_settings_show_no_password(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XYZ_NOTE", "amqp://guest:secret@host/")
    print_settings(Some)
    out = capsys.readouterr().out
    assert "amqp://guest:***@host/" in out
    assert "secret" not in out
