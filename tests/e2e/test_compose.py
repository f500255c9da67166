"""The compose files and the image: what they name exists, and they are as safe as they say."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings
from sqlalchemy import make_url

import act.config
import oms.config
from hmskit.settings import environment_name
from tests.e2e.conftest import ROOT

COMPOSE = ROOT / "docker-compose.yml"
SCALE = ROOT / "deploy" / "compose.scale.yml"
BALANCER = ROOT / "deploy" / "haproxy.cfg"
ROLES = ROOT / "deploy" / "postgres" / "10-roles.sh"
README = ROOT / "deploy" / "README.md"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
SETTINGS: dict[str, type[BaseSettings]] = {"oms": oms.config.Settings, "act": act.config.Settings}


LONG_POLL_SEC = 60
STOP_SEC = 10
"""The contract's: the longest wait of a pull, and the longest stop of a service."""


@pytest.fixture(scope="module")
def scale() -> dict[str, Any]:
    document = yaml.safe_load(SCALE.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def towers_of(scale: dict[str, Any]) -> dict[str, Any]:
    return {name: scale["services"][f"{name}-tower"] for name in SETTINGS}


def filled_in(value: str) -> str:
    """Return a value with its variables' defaults, as compose has it where nobody set them."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def seconds(value: str) -> int:
    assert value.endswith("s")
    return int(value[:-1])


def balancer_timeout_sec(name: str) -> int:
    (value,) = re.findall(rf"^ +timeout {name} +(\d+)s", BALANCER.read_text(encoding="utf-8"), re.MULTILINE)
    return int(value)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    assert isinstance(services, dict)
    return services


def known_names() -> set[str]:
    return {environment_name(model, field) for model in SETTINGS.values() for field in model.model_fields}


def instructions(name: str) -> list[str]:
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.removeprefix(name).strip() for line in text.splitlines() if line.startswith(f"{name} ")]


@pytest.mark.parametrize("file", [COMPOSE, SCALE], ids=lambda file: file.name)
def test_compose_itself_takes_the_file(file: Path) -> None:
    if shutil.which("docker") is None:
        pytest.skip("there is no docker")
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("this docker has no compose")
    command = ["docker", "compose", "-f", str(file), "config", "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_services_are_named_and_listen_as_the_contract_says(services: dict[str, Any]) -> None:
    assert set(services) == {"oms", "act"}
    for name, service in services.items():
        assert service["environment"][f"{name.upper()}_PORT"] == "80"
        assert all(port.endswith(":80") and port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["command"] == [name, "serve"]
    assert services["oms"]["environment"]["OMS_ACT_URL"] == "http://act"


def test_every_variable_is_a_setting_and_its_value_is_taken(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, service in services.items():
        own = {environment_name(SETTINGS[name], field) for field in SETTINGS[name].model_fields}
        for variable, value in service["environment"].items():
            assert variable in own
            monkeypatch.setenv(variable, value)
        SETTINGS[name]()
    in_image = set(re.findall(r"\b((?:OMS|ACT)_[A-Z_]+)=", " ".join(instructions("ENV"))))
    assert in_image
    assert in_image <= known_names()


def test_what_is_built_and_mounted_exists(services: dict[str, Any]) -> None:
    declared = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["volumes"]
    for service in services.values():
        context = ROOT / service["build"]["context"]
        assert (context / service["build"]["dockerfile"]).is_file()
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (ROOT / source).is_dir() if source.startswith(".") else source in declared
    ignored = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"]
    for copied in instructions("COPY"):
        if copied.startswith("--from"):
            continue
        for source in copied.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(fnmatch.fnmatch(source, pattern[1:]) for pattern in ignored), f"{source} is not in the context"


def test_the_image_has_what_the_wheel_is_built_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    copied = " ".join(instructions("COPY")).split()
    for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert package in copied
    assert project["project"]["readme"] in copied
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", " ".join(instructions("RUN")))
    assert set(extras.split(",")) == {"postgres", "rabbitmq"}
    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])
    assert all("alpine" not in image for image in instructions("FROM"))


def test_nothing_runs_as_root(services: dict[str, Any]) -> None:
    (user,) = instructions("USER")
    assert user == "10001:10001"
    for service in services.values():
        assert service["user"] == user
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        # How port 80 is listened on all the same.
        assert service["sysctls"] == {"net.ipv4.ip_unprivileged_port_start": "0"}


def test_health_is_asked_without_curl_and_oms_does_not_wait_for_a_healthy_act(services: dict[str, Any]) -> None:
    for service in services.values():
        kind, program, flag, code = service["healthcheck"]["test"]
        assert (kind, program, flag) == ("CMD", "python", "-c")
        compile(code, "healthcheck", "exec")
        assert "/readyz" in code
    assert any("/readyz" in line for line in instructions("HEALTHCHECK")) or "/readyz" in DOCKERFILE.read_text()
    assert services["oms"]["depends_on"] == {"act": {"condition": "service_started"}}
    assert "depends_on" not in services["act"]


def test_the_addresses_are_the_same_before_several_towers(scale: dict[str, Any]) -> None:
    ports = {"oms": "127.0.0.1:8001:80", "act": "127.0.0.1:8002:80"}
    for name, tower in towers_of(scale).items():
        balancer = scale["services"][name]
        assert balancer["ports"] == [ports[name]]
        assert balancer["environment"] == {"TOWERS": f"{name}-tower"}
        assert balancer["volumes"] == ["./haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro"]
        assert set(balancer["networks"]) & set(tower["networks"])
        assert tower["command"] == [name, "serve"]
        assert "ports" not in tower
        assert tower["environment"][f"{name.upper()}_PORT"] == "80"
    assert {name: tower["deploy"]["replicas"] for name, tower in towers_of(scale).items()} == {"oms": 3, "act": 2}
    assert scale["services"]["oms-tower"]["environment"]["OMS_ACT_URL"] == "http://act"


def test_every_variable_of_a_tower_is_a_setting_and_its_value_is_taken(
    scale: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, tower in towers_of(scale).items():
        own = {environment_name(SETTINGS[name], field) for field in SETTINGS[name].model_fields}
        for variable, value in tower["environment"].items():
            assert variable in own
            monkeypatch.setenv(variable, filled_in(value))
        url = make_url(getattr(SETTINGS[name](), "database_url"))  # noqa: B009 - of either kind of settings
        assert (url.drivername, url.host, url.database, url.username) == ("postgresql+psycopg", "postgres", name, name)


def test_each_service_has_a_role_and_a_database_that_no_other_role_can_reach(scale: dict[str, Any]) -> None:
    script = ROLES.read_text(encoding="utf-8")
    assert ROLES.stat().st_mode & 0o111
    assert "./postgres:/docker-entrypoint-initdb.d:ro" in scale["services"]["postgres"]["volumes"]
    for name in SETTINGS:
        (role,) = re.findall(rf"^CREATE ROLE {name} .*$", script, re.MULTILINE)
        assert "NOSUPERUSER NOCREATEDB NOCREATEROLE" in role
        assert f"CREATE DATABASE {name} OWNER {name} " in script
        assert f"{name.upper()}_DB_PASSWORD" in scale["services"]["postgres"]["environment"]
    assert "REVOKE ALL ON DATABASE oms, act, postgres, template1 FROM PUBLIC;" in script


def test_the_scale_file_holds_no_secret_and_says_where_each_is_set(scale: dict[str, Any]) -> None:
    secrets = set()
    for service in scale["services"].values():
        for variable, value in service.get("environment", {}).items():
            credentials = re.findall(r"://[^/@:]*:(.+)@", value) or ([value] if "PASS" in variable else [])
            for credential in credentials:
                (secret,) = re.findall(r"^\$\{(\w+):-[\w-]+-for-trying\}$", credential)
                secrets.add(secret)
    assert secrets == {"OMS_DB_PASSWORD", "ACT_DB_PASSWORD", "POSTGRES_PASSWORD", "AMQP_PASSWORD"}
    assert all(secret in README.read_text(encoding="utf-8") for secret in secrets)


def test_no_service_of_several_towers_is_root_or_reached_from_outside(scale: dict[str, Any]) -> None:
    for name, service in scale["services"].items():
        assert service["user"].split(":")[0] not in {"", "0", "root"}, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        if ":" in service["image"]:
            assert service["image"].split(":")[1] != "latest", name
    for name in ("postgres", "rabbitmq"):
        assert scale["services"][name]["networks"] == ["store"]
    assert scale["networks"]["store"] == {"internal": True}


def test_what_several_towers_mount_and_build_exists(scale: dict[str, Any]) -> None:
    named = set()
    for service in scale["services"].values():
        if "build" in service:
            context = SCALE.parent / service["build"]["context"]
            assert (context / service["build"]["dockerfile"]).samefile(DOCKERFILE)
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (SCALE.parent / source).exists(), source
                assert volume.endswith(":ro")
            else:
                named.add(source)
    assert named == set(scale["volumes"])
    # What must outlive its container has a volume of its own.
    assert named == {"act-keys", "postgres-data", "rabbitmq-data"}


def test_every_service_of_several_towers_is_watched_and_has_time_to_stop(scale: dict[str, Any]) -> None:
    for name, service in scale["services"].items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert seconds(service["stop_grace_period"]) > STOP_SEC, name
        assert service["restart"] == "unless-stopped", name
    for tower in towers_of(scale).values():
        assert "/readyz" in tower["healthcheck"]["test"][-1]
        # The broker may be down: a lost wake-up costs a poll's wait.
        assert {name: wish["condition"] for name, wish in tower["depends_on"].items()} == {
            "postgres": "service_healthy",
            "rabbitmq": "service_started",
        }


def test_the_balancer_outwaits_a_long_poll_and_a_silent_stream() -> None:
    for name in ("client", "server"):
        assert balancer_timeout_sec(name) > LONG_POLL_SEC
        assert balancer_timeout_sec(name) > act.config.Settings.model_fields["ping_sec"].default
    text = BALANCER.read_text(encoding="utf-8")
    assert 'server-template tower 1-16 "${TOWERS}:80"' in text
    assert "/readyz" in text


def test_haproxy_itself_takes_the_balancers_file() -> None:
    if shutil.which("haproxy") is None:
        pytest.skip("there is no haproxy")
    command = ["haproxy", "-c", "-f", str(BALANCER)]
    result = subprocess.run(
        command, env=os.environ | {"TOWERS": "oms-tower"}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
