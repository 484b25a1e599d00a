"""The code in the documentation runs."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from decimal import Decimal
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from spillway import backends
from spillway.backends import registry
from spillway.backends.protocol import (
    Connection,
    SupportsCapacity,
    SupportsListing,
    SupportsLogs,
)
from spillway.model import Market, Pool, Resources
from spillway.runtime import Session

if TYPE_CHECKING:
    from types import ModuleType

PROJECT = Path(__file__).parents[2]


def code_blocks(document: str) -> dict[str, str]:
    """Return the document's Python blocks by the path in their first line."""
    text = (PROJECT / document).read_text()
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == text.count("```python"), "each block begins with the path of its file"
    return dict(blocks)


def run_python(*arguments: str, environment: dict[str, str]) -> str:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def load(path: Path) -> ModuleType:
    spec = util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def acme(tmp_path: Path) -> Path:
    """Return a folder with the files of `docs/adding-a-backend.md`, at home in the package `spillway.backends`."""
    for path, code in code_blocks("docs/adding-a-backend.md").items():
        (tmp_path / Path(path).name).write_text(code)
    (tmp_path / "conftest.py").write_text(
        "from pathlib import Path\n\n"
        "import spillway.backends\n\n"
        "spillway.backends.__path__.append(str(Path(__file__).parent))\n"
    )
    return tmp_path


def test_the_backend_of_the_page_passes_the_contract(acme: Path) -> None:
    said = run_python(
        "-m",
        "pytest",
        "--quiet",
        "-p",
        "no:cacheprovider",
        f"--rootdir={acme}",
        str(acme),
        environment={},
    )
    assert re.search(r"\b\d{2} passed", said), said


def test_the_row_of_the_page_loads_its_backend(acme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row: dict[str, Any] = eval((acme / "registry.py").read_text(), {"Row": registry.Row})
    monkeypatch.setattr(backends, "__path__", [str(acme), *backends.__path__])
    monkeypatch.delitem(sys.modules, "spillway.backends.acme", raising=False)
    pool = Pool(
        name="mine",
        backend="acme",
        market=Market.SPOT,
        slots=1,
        shape=Resources(),
        list_usd_per_hour=Decimal(1),
    )
    backend = registry.load(pool, home=acme, connection=Connection(host="acme.example"), table=row)
    assert type(backend).__name__ == "AcmeBackend"
    del sys.modules["spillway.backends.acme"]


class InterruptionError(Exception):
    pass


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md"])
def test_every_backend_has_a_row_of_what_was_tested_and_of_what_it_may_do(page: str) -> None:
    cells = re.findall(r"^\| (`.*?) \|", (PROJECT / page).read_text(), re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert registry.TABLE.keys() - named == set()


ABILITIES = {"room": SupportsCapacity, "list": SupportsListing, "logs": SupportsLogs}


def test_the_readme_says_what_each_backend_cannot_do() -> None:
    """All can do what the line above the table says, except for what the table's third column takes back."""
    text = (PROJECT / "README.md").read_text()
    (promise,) = re.findall(r"^All take .*$", text, re.MULTILINE)
    assert all(word in promise for word in ABILITIES)
    seen = set()
    for first, exceptions in re.findall(r"^\| (`.+?) \|.*?\|(.*?)\|.*\|$", text, re.MULTILINE):
        named = set(re.findall(r"`(\w+)`", first)) & registry.TABLE.keys()
        only = set(re.findall(r"`(\w+)`", exceptions)) or named
        for name in named:
            module, _, kind = registry.TABLE[name].target.partition(":")
            backend = getattr(importlib.import_module(module), kind)
            said = {word for word in ABILITIES if word in exceptions and name in only}
            lacks = {word for word, one in ABILITIES.items() if not issubclass(backend, one)}
            assert said == lacks, name
        seen |= named
    assert seen == registry.TABLE.keys()


def test_the_readmes_entry_point_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "adding.py"
    path.write_text(code_blocks("README.md")["adding.py"])
    adding = load(path)
    steps_worked = 0

    def work(_: float) -> None:
        nonlocal steps_worked
        steps_worked += 1
        if steps_worked == 300:
            raise InterruptionError

    monkeypatch.setattr(adding, "time", SimpleNamespace(sleep=work))
    monkeypatch.setattr(Session, "should_checkpoint", lambda _: steps_worked % 100 == 99)
    with pytest.raises(InterruptionError):
        adding.add_up(Session.local(tmp_path / "run"), steps=600)
    assert adding.add_up(Session.local(tmp_path / "run"), steps=600) == 179700
    assert steps_worked == 601
    assert "undisturbed result, 179700" in (PROJECT / "README.md").read_text().replace("\n", " ")


def test_the_readmes_dag_is_one(tmp_path: Path) -> None:
    dag_file = tmp_path / "add_up.py"
    dag_file.write_text(code_blocks("README.md")["dags/add_up.py"])
    code = (
        "from airflow.dag_processing.dagbag import DagBag;"
        f"bag = DagBag({str(dag_file)!r});"
        "assert bag.import_errors == {}, bag.import_errors;"
        "print(bag.dags['add_up'].get_task('add_up').entry_point)"
    )
    said = run_python("-c", code, environment={"AIRFLOW_HOME": str(tmp_path)})
    assert said.split()[-1] == "adding:add_up"
