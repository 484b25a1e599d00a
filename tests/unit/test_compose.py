"""The Compose file, read as YAML: nothing here needs Docker."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from spillway.airflow.provider import get_provider_info

PROJECT = Path(__file__).parents[2]
COMPOSE_FILE = PROJECT / "docker-compose.yml"
IMAGE = PROJECT / ".ci" / "image"
REQUIRED = re.compile(r"\$\{(\w+):\?([^}]+)\}")
ANY_VARIABLE = re.compile(r"\$\{[^}]+\}")
PINNED = re.compile(r":\d+\.\d+(\.\d+)?(-\w+)*$")


@pytest.fixture(scope="module")
def text() -> str:
    return COMPOSE_FILE.read_text()


@pytest.fixture(scope="module")
def compose(text: str) -> dict[str, Any]:
    return yaml.safe_load(text)


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return compose["services"]


@pytest.fixture(scope="module")
def airflow_options() -> dict[str, dict[str, Any]]:
    """Return what Airflow and our provider document of each option, by its environment variable."""
    spec = find_spec("airflow")  # found, not imported: importing it would make it read settings
    assert spec is not None
    assert spec.origin is not None
    documented = yaml.safe_load(
        (Path(spec.origin).parent / "config_templates" / "config.yml").read_text()
    )
    sections = {**documented, **get_provider_info()["config"]}
    return {
        f"AIRFLOW__{section.upper()}__{option.upper()}": about or {}
        for section, content in sections.items()
        for option, about in content["options"].items()
    }


def settings_of(service: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service["environment"].items()}


def test_every_process_of_airflow_and_both_databases_are_there(services: dict[str, Any]) -> None:
    airflow = {"api-server", "scheduler", "dag-processor", "triggerer"}
    assert {"airflow-db", "ledger-db", "init", *airflow} == set(services)
    for name in airflow:
        assert services[name]["command"] == f"airflow {name}"


def test_what_stays_up_has_a_health_check_and_what_ends_is_waited_for(
    services: dict[str, Any],
) -> None:
    """A service that runs once has no health, only an end: `service_completed_successfully`."""
    for name, service in services.items():
        if service["restart"] == "no":
            waiting = [one for one in services.values() if name in one.get("depends_on", {})]
            conditions = {one["depends_on"][name]["condition"] for one in waiting}
            assert conditions == {"service_completed_successfully"}
        else:
            assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}, name


def test_airflow_starts_when_both_databases_are_migrated(services: dict[str, Any]) -> None:
    assert services["init"]["depends_on"] == {
        "airflow-db": {"condition": "service_healthy"},
        "ledger-db": {"condition": "service_healthy"},
    }
    script = (IMAGE / "spillway-init").read_text()
    assert "airflow db migrate" in script
    assert services["init"]["command"] == "spillway-init"


def test_images_are_pinned(services: dict[str, Any]) -> None:
    base = re.findall(r"^FROM (\S+)", (IMAGE / "Dockerfile").read_text(), re.MULTILINE)
    for image in [*base, *(service["image"] for service in services.values())]:
        assert PINNED.search(image), image


def test_what_the_image_is_made_of_is_there_and_sent_to_the_builder() -> None:
    dockerfile = (IMAGE / "Dockerfile").read_text()
    allowed = (IMAGE / "Dockerfile.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (.+)$", dockerfile, re.MULTILINE):
        sources = [word for word in line.split()[:-1] if not word.startswith("--")]
        for source in sources:
            assert (PROJECT / source).exists(), source
            assert f"!{source}" in allowed


def test_the_image_names_extras_that_exist() -> None:
    import tomllib

    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (named,) = re.findall(r"^ARG EXTRAS=(\S+)$", (IMAGE / "Dockerfile").read_text(), re.MULTILINE)
    assert set(named.split(",")) <= set(extras)


def test_every_setting_is_one_that_airflow_knows(
    services: dict[str, Any], airflow_options: dict[str, Any]
) -> None:
    in_image = re.findall(r"(AIRFLOW__\w+)=", (IMAGE / "Dockerfile").read_text())
    in_compose = [name for service in services.values() for name in service["environment"]]
    used = {name for name in [*in_image, *in_compose] if name.startswith("AIRFLOW__")}
    assert used
    assert used <= set(airflow_options)


def test_every_secret_comes_from_outside_and_is_asked_for_by_name(
    services: dict[str, Any], airflow_options: dict[str, Any]
) -> None:
    for service in services.values():
        for name, value in settings_of(service).items():
            is_secret = airflow_options.get(name, {}).get("sensitive") or re.search(
                r"PASSWORD$|SECRET|FERNET|AIRFLOW_CONN", name
            )
            if is_secret:
                assert REQUIRED.search(value), name


def test_nothing_but_variables_stands_where_passwords_do(text: str) -> None:
    without = ANY_VARIABLE.sub("", text)
    assert re.findall(r"://\w+:[^@\s]+@", without) == []
    assert set(re.findall(r'"password": "([^"]*)"', without)) == {""}


def test_a_missing_secret_names_where_it_is_explained(text: str) -> None:
    for _, message in REQUIRED.findall(text):
        assert message == "see docs/operations.md, Start"


def test_the_documented_command_writes_every_secret_and_no_other(text: str, tmp_path: Path) -> None:
    operations = (PROJECT / "docs" / "operations.md").read_text()
    (command,) = re.findall(r"```bash\n([^`]*> \.env\n[^`]*)```", operations)
    script = command.partition("make up")[0]
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, check=True)
    written = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines())
    assert set(written) == {name for name, _ in REQUIRED.findall(text)}
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    assert len(written["AIRFLOW_JWT_SECRET"]) >= 64
    for name in ("AIRFLOW_DB_PASSWORD", "LEDGER_DB_PASSWORD"):
        assert written[name].isalnum(), "it becomes part of a URL, and of JSON"


def test_git_ignores_the_secrets() -> None:
    assert ".env" in (PROJECT / ".gitignore").read_text().split()


def test_the_connection_names_the_ledger_as_the_hook_reads_it(services: dict[str, Any]) -> None:
    value = settings_of(services["scheduler"])["AIRFLOW_CONN_SPILLWAY_DEFAULT"]
    connection = json.loads(REQUIRED.sub("secret", value))
    database = services[connection["host"]]["environment"]
    assert connection == {
        "conn_type": "spillway",
        "host": "ledger-db",
        "login": database["POSTGRES_USER"],
        "schema": database["POSTGRES_DB"],
        "password": "secret",
    }
    (in_connection,) = REQUIRED.findall(value)
    (in_database,) = REQUIRED.findall(database["POSTGRES_PASSWORD"])
    assert in_connection == in_database


def test_every_process_of_airflow_has_the_same_settings(services: dict[str, Any]) -> None:
    """A JWT secret, a Fernet key or a ledger that differ would fail at the first task."""
    processes = [services[name] for name in services if not name.endswith("-db")]
    shared = settings_of(services["scheduler"])
    for process in processes:
        assert shared.items() <= settings_of(process).items()


def test_what_is_worth_keeping_is_on_named_volumes(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    mounted = {
        volume.split(":")[0] for service in services.values() for volume in service["volumes"]
    }
    mounted.remove("./include/pools.yaml")
    assert mounted == set(compose["volumes"])
    home = settings_of(services["scheduler"])["AIRFLOW__SPILLWAY__HOME"]
    for name in ("scheduler", "triggerer", "api-server"):
        assert f"spillway:{home}" in services[name]["volumes"]
