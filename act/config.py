"""ACT's settings: one frozen object, read once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from hmskit.broker import read_amqp_url


class Settings(BaseSettings):
    """What can be set, each from a flag of ``act serve`` or from the environment."""

    model_config = SettingsConfigDict(env_prefix="ACT_", frozen=True, extra="forbid")

    database_url: str = Field(
        "sqlite:///act.db", description="where the ledger is kept; postgresql+psycopg://... for several processes"
    )
    amqp_url: str | None = Field(
        None, description="RabbitMQ, to which events are published once ACT has them: amqp://user:password@host/vhost"
    )
    amqp_exchange: str = Field(
        "act.events", min_length=1, max_length=127, description="the topic exchange that events are published to"
    )
    signing_key: str | None = Field(
        None,
        description="file of the key that signs checkpoints, made on first start; without it, one beside an SQLite "
        "database, or in the working folder; none: this process signs nothing",
    )
    log_name: str | None = Field(
        None, min_length=1, max_length=200, description="name of the log in its checkpoints, for a key made on start"
    )
    signer_state: str | None = Field(
        None, description="file that keeps the last checkpoint; without it, one beside the signing key"
    )
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every interface")
    port: int = Field(8002, ge=0, le=65_535, description="port to listen on; 0 takes a free one and prints it")
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="origins whose pages may post events through a browser, separated by commas"
    )
    max_followers: int = Field(
        500, ge=0, le=100_000, description="how many live streams may be open at once; one more is told 503"
    )
    ping_sec: float = Field(
        15.0, ge=0.05, le=3600, description="seconds after which a silent live stream gets a comment, for proxies"
    )
    poll_sec: float = Field(
        0.1, ge=0.05, le=60, description="seconds between looks for events that another process appended"
    )
    migrate: bool = Field(
        default=True, description="bring the database's schema up to date on start; 0: refuse to start"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least severe log lines that are written"
    )

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("amqp_url", mode="before")
    @classmethod
    def _names_a_broker(cls, value: object) -> object:
        return read_amqp_url(value)

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value
