"""The shipped DAGs, as Airflow's own DagBag reads them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from typing import TYPE_CHECKING

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import ParamValidationError

from spillway.airflow.operators import SpillwayOperator
from spillway.workloads.recipe import Recipe
from spillway.workloads.train import train

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = {"preprocess", "sweep", "train", "nightly", "reconcile"}


@pytest.fixture(scope="module")
def bag(project: Path) -> DagBag:
    return DagBag(str(project / "dags"))


def test_every_dag_file_imports(bag: DagBag) -> None:
    assert bag.import_errors == {}
    assert set(bag.dags) == SHIPPED


@pytest.mark.parametrize("dag_id", sorted(SHIPPED))
def test_every_dag_says_what_it_is_for(bag: DagBag, dag_id: str) -> None:
    assert bag.dags[dag_id].doc_md.startswith("### ")


@pytest.mark.parametrize("dag_id", sorted(SHIPPED - {"reconcile"}))
def test_every_param_has_a_title_and_a_section(bag: DagBag, dag_id: str) -> None:
    for name, param in (
        bag.dags[dag_id].params.items_schemas()
        if hasattr(bag.dags[dag_id].params, "items_schemas")
        else ((name, bag.dags[dag_id].params.get_param(name)) for name in bag.dags[dag_id].params)
    ):
        assert param.schema["title"], name
        assert param.schema["section"] in {"Workload", "Trials", "Placement"}, name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("markets", ["cheap"]),
        ("deadline_minutes", 0),
        ("max_usd_per_hour", -1),
        ("size", "gigantic"),
        ("fresh_start", "maybe"),
    ],
)
def test_a_value_out_of_range_is_refused_by_the_form(bag: DagBag, name: str, value: object) -> None:
    param = bag.dags["nightly"].params.get_param(name)
    with pytest.raises(ParamValidationError):
        param.resolve(value)


def test_nightly_runs_its_three_stages_in_order(bag: DagBag) -> None:
    nightly = bag.dags["nightly"]
    order = [task.task_id for task in nightly.topological_sort() if hasattr(task, "task_id")]
    assert order.index("preprocess.merge") < order.index("sweep") < order.index("train")


def test_training_and_sweep_keep_checkpoints(bag: DagBag) -> None:
    for task_id in ("sweep", "train"):
        task = bag.dags["nightly"].get_task(task_id)
        assert isinstance(task, SpillwayOperator)
        assert task.checkpoints


def test_every_param_of_training_is_one_that_training_takes(bag: DagBag) -> None:
    """What a person chooses arrives: each name is a number of the recipe or an option of the workload."""
    handed_over = bag.dags["train"].get_task("train").arguments["best"]
    options = inspect.signature(train).parameters
    numbers = {field.name for field in dataclasses.fields(Recipe)}
    for name, template in handed_over.items():
        assert template == f"{{{{ params.{name} }}}}"
        assert name in bag.dags["train"].params
        assert name in numbers or name in options


@pytest.mark.parametrize(
    ("name", "value"),
    [("accumulation", 3), ("precision", "float8"), ("prefetch", -1), ("width", 33)],
)
def test_a_training_that_cannot_be_is_refused_by_the_form(
    bag: DagBag, name: str, value: object
) -> None:
    param = bag.dags["train"].params.get_param(name)
    with pytest.raises(ParamValidationError):
        param.resolve(value)


def test_dag_files_only_declare(project: Path) -> None:
    """A DAG file is parsed again and again: it defines no function and loops over nothing."""
    for file in (project / "dags").glob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        assert not [
            n for n in nodes if isinstance(n, ast.FunctionDef | ast.For | ast.While | ast.If)
        ], file
