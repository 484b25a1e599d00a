"""What a sweep costs beside its trials: 50 trivial ones, and the shipped GPT sweep, against plain Ray Tune and plain Optuna.

All times are of whole processes' work from the call to the best trial, Ray's start included, as a sweep in a lease pays for it;
Ray's start alone is told as well. Trials are the same in all: the same points, no early stop.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measurement import Baseline, Measurement, NotHere

TRIALS = 50
GPT_TRIALS, GPT_STEPS = 4, 40
GPT_SPACE = {"learning_rate": {"loguniform": [1e-3, 1e-2]}, "width": {"choice": [64, 96]}}
SPACE = {"x": {"uniform": [0, 1]}}


def trivial(parameters: dict[str, float]) -> Any:
    """One step that takes no time."""
    yield {"step": 1, "loss": parameters["x"]}


def run() -> list[Measurement]:
    """Measure each way in a process of its own."""
    if importlib.util.find_spec("ray") is None:
        raise NotHere("ray is not installed: pip install 'spillway[ray]'")
    with tempfile.TemporaryDirectory() as folder:
        dataset = made_dataset(Path(folder))
        start = measured("start", dataset)
        trials = f"{TRIALS} trivial trials"
        ours, tune = measured("ours", dataset), measured("tune", dataset)
        gpt, gpt_tune = measured("ours_gpt", dataset), measured("tune_gpt", dataset)
        return [
            Measurement(name="start of Ray", value=start, unit="s"),
            compared(f"sweep, {trials}", ours, "Ray Tune, reuse_actors", tune),
            compared(f"sweep, {trials}", ours, "Optuna, one process", measured("optuna", dataset)),
            compared("sweep, shipped GPT", gpt, "Ray Tune, reuse_actors", gpt_tune),
            compared(
                "sweep, shipped GPT", gpt, "Optuna, one process", measured("optuna_gpt", dataset)
            ),
        ]


def compared(name: str, value: float, than: str, baseline: float) -> Measurement:
    return Measurement(
        name=name, value=value, unit="s", baseline=Baseline(name=than, value=baseline)
    )


def made_dataset(folder: Path) -> str:
    from spillway.runtime import Session
    from spillway.workloads import preprocess

    session, output = Session.local(folder / "preparing"), str(folder / "dataset")
    shards = preprocess.plan(session, output=output, size="tiny", shards=2, seed=0)
    encoded = [preprocess.encode(session, output=output, shard=shard) for shard in shards]
    preprocess.merge(session, output=output, shards=encoded)
    return output


def measured(way: str, dataset: str) -> float:
    """Return the seconds that a run of this file as a program printed."""
    done = subprocess.run(
        [sys.executable, __file__, way, dataset], check=True, capture_output=True, text=True
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def start(dataset: str) -> None:
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.shutdown()


def ours(dataset: str) -> None:
    here = str(Path(__file__).parent)
    sys.path.insert(0, here)
    os.environ["PYTHONPATH"] = here  # for the processes that import the trial
    sweep_with(dataset, "bench_sweep:trivial", SPACE, TRIALS, 1, "loss")


def ours_gpt(dataset: str) -> None:
    trainable = "spillway.workloads.train:trial"
    sweep_with(dataset, trainable, GPT_SPACE, GPT_TRIALS, GPT_STEPS, "validation_loss")


def sweep_with(
    dataset: str, trainable: str, space: Any, trials: int, steps: int, metric: str
) -> None:
    from spillway.runtime import Session
    from spillway.workloads.sweep import sweep

    with tempfile.TemporaryDirectory() as folder:
        sweep(
            Session.local(folder),
            dataset=dataset,
            space=space,
            num_samples=trials,
            max_steps=steps,
            metric=metric,
            scheduler="none",
            trainable=trainable,
            cpus=2,
        )


def points(space: Any, trials: int) -> list[dict[str, Any]]:
    from spillway.workloads.space import draw, parse_space

    return [draw(parse_space(space), seed=0, trial=trial) for trial in range(trials)]


def tune(dataset: str) -> None:
    tune_with(trivial, points(SPACE, TRIALS), "loss")


def tune_gpt(dataset: str) -> None:
    tune_with(gpt_reports(dataset), points(GPT_SPACE, GPT_TRIALS), "validation_loss")


def gpt_reports(dataset: str) -> Any:
    def reports(parameters: dict[str, Any]) -> Any:
        from spillway.workloads.train import trial

        return trial(parameters, dataset=dataset, max_steps=GPT_STEPS, seed=0)

    return reports


def tune_with(reports: Any, configs: list[dict[str, Any]], metric: str) -> None:
    import ray
    from ray import tune

    def trainable(config: dict[str, Any]) -> None:
        for report in reports(config["point"]):
            tune.report(report)

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={"point": tune.grid_search(configs)},
            tune_config=tune.TuneConfig(metric=metric, mode="min", reuse_actors=True),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
    ray.shutdown()


def optuna(dataset: str) -> None:
    optuna_with(trivial, points(SPACE, TRIALS), "loss")


def optuna_gpt(dataset: str) -> None:
    optuna_with(gpt_reports(dataset), points(GPT_SPACE, GPT_TRIALS), "validation_loss")


def optuna_with(reports: Any, configs: list[dict[str, Any]], metric: str) -> None:
    import optuna as package

    package.logging.set_verbosity(package.logging.WARNING)
    study = package.create_study()
    study.optimize(
        lambda trial: list(reports(configs[trial.number]))[-1][metric], n_trials=len(configs)
    )


if __name__ == "__main__":
    began = time.perf_counter()
    globals()[sys.argv[1]](sys.argv[2])
    sys.stdout.write(json.dumps(time.perf_counter() - began) + "\n")
