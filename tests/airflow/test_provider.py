"""What Airflow finds of Spillway: the provider, the plugin, the connection type, the link."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import jsonschema
import pytest
from airflow.plugins_manager import get_import_errors, get_plugin_info
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

import airflow
from spillway.airflow.provider import get_provider_info


def test_the_provider_info_is_what_airflow_expects() -> None:
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_every_module_and_class_of_the_provider_info_exists() -> None:
    info = get_provider_info()
    for kind in ("operators", "triggers", "hooks"):
        for row in info[kind]:
            for module in row["python-modules"]:
                import_module(module)
    classes = [row["hook-class-name"] for row in info["connection-types"]] + info["extra-links"]
    for dotted in classes:
        module, _, name = dotted.rpartition(".")
        assert getattr(import_module(module), name)


def test_airflow_discovers_the_provider_and_its_connection_type() -> None:
    hook = ProvidersManagerTaskRuntime().hooks["spillway"]
    assert hook is not None
    assert hook.hook_class_name == "spillway.airflow.hook.SpillwayHook"


@pytest.mark.usefixtures("project")
def test_the_plugin_is_registered_once() -> None:
    assert get_import_errors() == {}
    names = [plugin["name"] for plugin in get_plugin_info()]
    assert names.count("spillway") == 1


def test_reading_the_provider_info_imports_no_operator() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from spillway.airflow.provider import get_provider_info; get_provider_info(); "
        "print([m for m in sys.modules if m.startswith(('airflow', 'sqlalchemy', 'torch', 'ray'))])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
