"""docker-compose.yml and the image: what they name exists, and they are as safe as they say."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import tomllib
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

import act.config
import oms.config
from hmskit.settings import environment_name
from tests.e2e.conftest import ROOT

COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
SETTINGS: dict[str, type[BaseSettings]] = {"oms": oms.config.Settings, "act": act.config.Settings}


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


def test_compose_itself_takes_the_file() -> None:
    if shutil.which("docker") is None:
        pytest.skip("there is no docker")
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("this docker has no compose")
    command = ["docker", "compose", "-f", str(COMPOSE), "config", "--quiet"]
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
    extras = re.findall(r"'\.\[(\w+)\]'", " ".join(instructions("RUN")))
    assert set(extras) <= set(project["project"]["optional-dependencies"])
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
