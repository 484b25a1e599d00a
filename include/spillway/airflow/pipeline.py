"""The tasks of the shipped DAGs, each defined once: preprocessing, the sweep, training."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import Param, TaskGroup, task

from spillway.airflow.operators import SpillwayOperator
from spillway.airflow.trials import CollectTrialsOperator, SweepOperator, TrialOperator
from spillway.workloads import pipeline
from spillway.workloads.sizes import SIZES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import XComArg


def lease_shape(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a sweep in one lease asks for, by the params of its run."""
    accelerators = max(params["accelerators"], math.ceil(params["accelerators_per_trial"]))
    return {
        "cpus": params["cpus"],
        "memory_gib": params["memory_gib"],
        "accelerator": params["accelerator"] if accelerators else None,
        "accelerator_count": accelerators,
    }


def trial_shape(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what each trial of a spread sweep asks for, by the params of its run."""
    accelerators = params["accelerators_per_trial"]
    return {
        "cpus": params["cpus_per_trial"],
        "memory_gib": params["memory_gib"],
        "accelerator": params["accelerator"] if accelerators else None,
        "accelerator_count": math.ceil(accelerators),
        "accelerator_fraction": accelerators if 0 < accelerators < 1 else 1.0,
    }


MACROS: Final[dict[str, Any]] = {
    "sizes": SIZES,
    "lease_shape": lease_shape,
    "trial_shape": trial_shape,
}
"""What the templates below need; give it to the DAG as `user_defined_macros`."""

DATA_KEY: Final = (
    "{{ (dag_run.data_interval_start or dag_run.run_after).strftime('%Y-%m-%dT%H%M%S') }}"
)
"""Names a run's outputs: a run of the same data interval writes the same place, whatever its run id."""

ONE_LEASE: Final = "one_lease"
SPREAD: Final = "spread"

TRIALS_AT_ONCE: Final = 32
"""Tasks of one run's trials that workers place at once; those that run on their pools are deferred, and do not count."""

DEFAULT_ARGS: Final = {"retries": 2, "retry_delay": timedelta(seconds=30)}
"""For failures of code and machines; a preemption is no failure and uses no retry."""


def size_params() -> dict[str, Param]:
    """Return the param of the trigger form that says how much work a run is."""
    return {
        "size": Param(
            "small",
            type="string",
            enum=list(SIZES),
            values_display={name: f"{name}: {size.summary}" for name, size in SIZES.items()},
            title="Workload size",
            description="How much text, how many trials, how long the training.",
            section="Workload",
        ),
        "seed": Param(
            0,
            type="integer",
            minimum=0,
            maximum=2**31 - 1,
            title="Seed",
            description="Equal seeds give equal data order, random numbers and losses.",
            section="Workload",
        ),
    }


def training_params() -> dict[str, Param]:
    """Return the params of the trigger form that say what a training trades; see `docs/training.md` for what each is worth."""
    return {
        "gradient_checkpointing": Param(
            default=False,
            type="boolean",
            title="Gradient checkpointing",
            description="Keep less in memory and compute it again: the same bits in a third to a half more time.",
            section="Workload",
        ),
        "accumulation": Param(
            1,
            type="integer",
            enum=[1, 2, 4, 8, 16],
            title="Gradient accumulation",
            description="Parts that a batch is computed in, one after the other, where memory is short.",
            section="Workload",
        ),
        "precision": Param(
            "float32",
            type="string",
            enum=["float32", "bfloat16"],
            title="Precision",
            description="Of matrix products. bfloat16 takes less memory, and is faster where the hardware has it.",
            section="Workload",
        ),
        "prefetch": Param(
            0,
            type="integer",
            minimum=0,
            maximum=64,
            title="Prefetch",
            description="Batches read ahead while a step is at work. Helps where the result says it waited for data.",
            section="Workload",
        ),
    }


TRAINING_ARGUMENTS: Final = {
    name: f"{{{{ params.{name} }}}}" for name in ("learning_rate", "width", *training_params())
}
"""What the `train` DAG hands over of its params."""


def dataset_param() -> dict[str, Param]:
    """Return the param of the trigger form that says which dataset to work on."""
    return {
        "dataset": Param(
            type="string",
            minLength=1,
            title="Dataset",
            description="Folder of the dataset: `dataset` in the result of the `preprocess` DAG's `merge` task.",
            section="Workload",
        )
    }


def engine_param() -> dict[str, Param]:
    """Return the param of the trigger form that says what encodes the text."""
    return {
        "engine": Param(
            "embedded",
            type="string",
            enum=["embedded", "ray"],
            values_display={
                "embedded": "embedded: the faster one on one machine",
                "ray": "ray: Ray Data, over the cluster of a Ray pool or of the lease",
            },
            title="Engine",
            description="What turns the text into tokens. Both write the same bytes.",
            section="Workload",
        )
    }


def preprocess_tasks(folder: str, *, engine: str = "embedded") -> XComArg:
    """Add the preprocessing tasks: plan, one encoding task a shard, merge. Return the dataset's summary, a key for each fact.

    Args:
        folder: Where the dataset goes, relative to the deployment's data. Templated.
        engine: `embedded`, or `ray` for Ray Data on the cluster of a Ray pool, or on one that is started over the lease.
            Templated.
    """
    with TaskGroup("preprocess"):
        plan = SpillwayOperator(
            task_id="plan",
            entry_point="spillway.workloads.pipeline:plan",
            arguments={
                "size": "{{ params.size }}",
                "seed": "{{ params.seed }}",
                "engine": engine,
            },
            output_folder=folder,
            work="{{ sizes[params.size].plan_seconds }}",
        )
        encode = SpillwayOperator.partial(
            task_id="encode",
            entry_point="spillway.workloads.preprocess:encode",
            output_folder=folder,
            work="{{ sizes[params.size].encode_seconds }}",
            launcher="{{ 'ray' if params.get('engine') == 'ray' else 'plain' }}",
        ).expand(arguments=plan.output)
        return SpillwayOperator(
            task_id="merge",
            entry_point="spillway.workloads.preprocess:merge",
            arguments={"shards": encode.output},
            output_folder=folder,
            work="{{ sizes[params.size].merge_seconds }}",
            multiple_outputs=True,
        ).output


def search_params() -> dict[str, Param]:
    """Return the params of the trigger form that say what a sweep searches, how, and what it may take; see `docs/sweeps.md`."""
    return {
        "space": Param(
            pipeline.SPACE,
            type="object",
            minProperties=1,
            title="Search space",
            description="A value, or a distribution for each parameter: loguniform, uniform, quniform, randint, choice.",
            section="Workload",
        ),
        "num_samples": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Trials",
            description="How many; by default as many as the workload size says.",
            section="Workload",
        ),
        "search": Param(
            "random",
            type="string",
            enum=["random", "optuna"],
            values_display={"random": "random", "optuna": "optuna: learn from the trials before"},
            title="Search",
            description="Where the parameters of a trial come from.",
            section="Workload",
        ),
        "scheduler": Param(
            "asha",
            type="string",
            enum=["asha", "median", "pbt", "none"],
            values_display={
                "asha": "asha: stop those that are behind",
                "median": "median: stop those worse than half of the others",
                "pbt": "pbt: bad ones go on as changed copies of good ones; in one lease",
                "none": "none: run all",
            },
            title="Scheduler",
            description="What happens to trials while they run.",
            section="Workload",
        ),
        **_trial_params(),
        "max_seconds": _limit("Time limit", "Leased seconds after which the sweep ends."),
        "max_usd": _limit("Budget", "USD, by marginal price, after which the sweep ends."),
        "usd_per_improvement": _limit(
            "USD for an improvement by 1",
            "The sweep ends once making the best metric better by 1 is expected to cost more.",
        ),
    }


def _limit(title: str, description: str) -> Param:
    return Param(
        None,
        type=["null", "number"],
        exclusiveMinimum=0,
        title=title,
        description=f"{description} With the best so far.",
        section="Workload",
    )


def _trial_params() -> dict[str, Param]:
    """Return the params that say what a trial is, and what it needs."""
    return {
        "trainable": Param(
            "spillway.workloads.train:trial",
            type="string",
            pattern=r"^[\w.]+:\w+$",
            title="Trainable",
            description="What a trial runs: package.module:function of something installed where it runs.",
            section="Trials",
        ),
        "metric": Param(
            "validation_loss",
            type="string",
            minLength=1,
            title="Metric",
            description="Name of the reported number that counts.",
            section="Trials",
        ),
        "goal": Param(
            "min",
            type="string",
            enum=["min", "max"],
            title="Goal",
            description="Which metric is better.",
            section="Trials",
        ),
        "max_steps": _need("Steps", "Of a trial that is not stopped early.", kind="integer"),
        "cpus_per_trial": Param(
            1,
            type="number",
            exclusiveMinimum=0,
            title="CPUs per trial",
            description="May be a part of one where the trials share a lease.",
            section="Trials",
        ),
        "accelerators_per_trial": Param(
            0,
            type="number",
            minimum=0,
            title="Accelerators per trial",
            description="0.25 puts four trials on one.",
            section="Trials",
        ),
        "accelerator": Param(
            None,
            type=["null", "string"],
            title="Accelerator",
            description="Its model, such as H100; any if there is none here.",
            section="Trials",
        ),
        "cpus": _need("CPUs of the lease", "Of a sweep in one lease; 2 by default."),
        "accelerators": Param(
            0,
            type="integer",
            minimum=0,
            title="Accelerators of the lease",
            description="Of a sweep in one lease; by default as many as one trial needs.",
            section="Trials",
        ),
        "memory_gib": _need("Memory, GiB", "Of the lease, or of each trial that has its own."),
    }


def _need(title: str, description: str, *, kind: str = "number") -> Param:
    return Param(
        None,
        type=["null", kind],
        exclusiveMinimum=0,
        title=title,
        description=description,
        section="Trials",
    )


SEARCH_OPTIONS: Final = {
    **{
        name: f"{{{{ params.{name} }}}}"
        for name in (
            "space",
            "num_samples",
            "search",
            "scheduler",
            "trainable",
            "metric",
            "max_steps",
        )
    },
    "mode": "{{ params.goal }}",
}
"""What the `sweep` DAG hands over of its params."""

SHARES: Final = {
    name: f"{{{{ params.{name} }}}}" for name in ("cpus_per_trial", "accelerators_per_trial")
}
"""The same, where the trials share a lease."""

SEARCH_LIMITS: Final = {
    "max_seconds": "{{ params.max_seconds }}",
    "max_usd": "{{ params.max_usd }}",
    "stop_when": (
        "{{ {'usd_per_improvement': params.usd_per_improvement} if params.usd_per_improvement else None }}"
    ),
}
"""When the sweep ends, with the best so far."""


def sweep_task(
    dataset: Any,
    *,
    folder: str,
    options: Mapping[str, str] | None = None,
    limits: Mapping[str, str] | None = None,
    shape: str | None = None,
) -> XComArg:
    """Add the sweep, over learning rate and width unless `options` says otherwise; its table and plots go to `folder`.

    `shape` is a template of what the lease has to have. Return its `best` trial and the table of `trials`.
    """
    return SweepOperator(
        task_id="sweep",
        entry_point="spillway.workloads.pipeline:sweep",
        arguments={
            "dataset": dataset,
            "size": "{{ params.size }}",
            "seed": "{{ params.seed }}",
            "options": dict(options or {}),
            "limits": dict(limits or {}),
        },
        output_folder=folder,
        work="{{ sizes[params.size].sweep_seconds }}",
        multiple_outputs=True,
        cpus=2,
        memory_gib=4,
        shape=shape,
        checkpoints=True,
    ).output


def sweep_mode_param() -> dict[str, Param]:
    """Return the param of the trigger form that says where the trials of a sweep run."""
    return {
        "mode": Param(
            ONE_LEASE,
            type="string",
            enum=[ONE_LEASE, SPREAD],
            values_display={
                ONE_LEASE: "one lease: all trials on one machine, with Ray",
                SPREAD: "spread: each trial placed on its own, on any pool",
            },
            title="Mode",
            description="Where the trials run. They are the same trials.",
            section="Workload",
        )
    }


def sweep_tasks(dataset: Any) -> None:
    """Add the sweep in one lease, the sweep spread over pools, and the choice between them by the param `mode`."""
    folder = "sweep/{{ run_id }}"
    one_lease = sweep_task(
        dataset,
        folder=folder,
        options={**SEARCH_OPTIONS, **SHARES},
        limits=SEARCH_LIMITS,
        shape="{{ lease_shape(params) }}",
    )
    with TaskGroup("spread"):
        plan: Any = task(task_id="plan")(pipeline.trials)
        planned = plan(
            dataset=dataset,
            size="{{ params.size }}",
            seed="{{ params.seed }}",
            options=SEARCH_OPTIONS,
            limits=SEARCH_LIMITS,
        )
        trials = TrialOperator.partial(
            task_id="trial",
            entry_point="spillway.workloads.pipeline:trial",
            output_folder=folder,
            work="{{ sizes[params.size].sweep_seconds / sizes[params.size].trials }}",
            memory_gib=2,
            shape="{{ trial_shape(params) }}",
            checkpoints=True,
            max_active_tis_per_dagrun=TRIALS_AT_ONCE,
        ).expand(arguments=planned)
        table = CollectTrialsOperator(
            task_id="table",
            output_folder=folder,
            trials="spread.trial",
            trigger_rule="all_done",
            multiple_outputs=True,
        )
    trials >> table
    # The choice skips the table itself: it waits for trials however they end, which skipped ones do as well.
    task.branch(task_id="choose")(_choose)("{{ params.mode }}") >> [one_lease, planned, table]


def _choose(mode: str) -> str:
    return {ONE_LEASE: "sweep", SPREAD: "spread.plan"}[mode]


def train_task(dataset: Any, best: Any) -> XComArg:
    """Add the training. Return its losses, beside the entropies of the data."""
    return SpillwayOperator(
        task_id="train",
        entry_point="spillway.workloads.pipeline:train",
        arguments={
            "dataset": dataset,
            "best": best,
            "size": "{{ params.size }}",
            "seed": "{{ params.seed }}",
        },
        work="{{ sizes[params.size].train_seconds }}",
        cpus=2,
        memory_gib=2,
        checkpoints=True,
    ).output
