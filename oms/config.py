"""OMS's settings: one frozen object, read once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from hmskit.broker import read_amqp_url


class Settings(BaseSettings):
    """Each field is a flag of ``oms serve`` and, with the prefix ``OMS_``, a variable of the environment."""

    model_config = SettingsConfigDict(env_prefix="OMS_", frozen=True, extra="forbid")

    database_url: str = Field("sqlite:///oms.db", description="where jobs, tasks and the outbox are kept")
    plans: Path = Field(Path("plans"), description="the folder of plan files")
    act_url: str = Field("http://127.0.0.1:8002", description="the ACT service that keeps the events")
    amqp_url: str | None = Field(
        None,
        description="RabbitMQ, by which several OMS wake each other's long polls: amqp://user:password@host/vhost",
    )
    host: str = Field("127.0.0.1", description="the address to listen on; 0.0.0.0 for all")
    port: int = Field(8001, ge=0, le=65535, description="the port to listen on; 0 for a free one")
    max_body: int = Field(1024 * 1024, ge=1024, le=256 * 1024 * 1024, description="the largest request body, in bytes")
    strict_lanes: bool = Field(default=False, description="1: a reroute to a lane that nobody knows is refused")
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="origins whose pages may call OMS through a browser, with commas between them"
    )
    sweep_interval_sec: float = Field(
        0.2, ge=0.01, le=60, description="how often expired leases and due retries are looked for"
    )
    look_interval_sec: float = Field(
        0.1, ge=0.01, le=0.25, description="how often work that another tower made ready is looked for (PostgreSQL)"
    )
    writers: int = Field(1, ge=1, le=64, description="connections that write at once (PostgreSQL)")
    retention_days: float = Field(
        90.0, ge=0, le=36_500, description="how long a finished job stays in OMS once ACT has it in full; 0: for ever"
    )
    act_timeout_sec: float = Field(30.0, gt=0, le=600, description="how long one delivery to ACT may take")
    migrate: bool = Field(default=True, description="1: bring the schema up to date on start")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least severe record that is logged"
    )

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # noqa: ANN401 - whatever the source gives
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("amqp_url", mode="before")
    @classmethod
    def _names_a_broker(cls, value: object) -> object:
        return read_amqp_url(value)

    @field_validator("act_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} is no URL of a service; one reads http://127.0.0.1:8002")
        return value.rstrip("/")
