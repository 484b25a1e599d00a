"""The process that `search` starts: trials on a Ray of its own. The only module that imports Ray.

It reads a `Request` from its standard input and writes a `Report` a line to what was its standard output.
"""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from typing_extensions import override

from spillway.errors import SpecError
from spillway.model import codec
from spillway.workloads.search import Report, Request

if TYPE_CHECKING:
    from collections.abc import Callable

_OBJECT_STORE_BYTES = 100_000_000


def main() -> None:
    """Do what the request says."""
    request = codec.decode_json(sys.stdin.buffer.read(), Request)
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0) as reports:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what Ray prints is not a report
        ray.init(
            address="local",
            num_cpus=request.cpus,
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=request.folder,
        )
        try:
            run_trials(request, _Reporter(request, reports))
        finally:
            ray.shutdown()
            shutil.rmtree(
                request.folder, ignore_errors=True
            )  # nobody else does when the asking process is gone


def run_trials(request: Request, reporter: tune.Callback) -> None:
    """Run each trial until it ends or ASHA stops it; Ray is there already.

    Actors are used again: a new one for each trial would import torch each time, which takes longer than a short trial.
    """
    search = request.search
    # The reports are kept by whoever reads them; that Tune finds no log files of its own is no error.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    tune.Tuner(
        tune.with_resources(_trainable(request), {"cpu": search.cpus_per_trial}),
        param_space={"trial": tune.grid_search(list(request.trials))},
        tune_config=tune.TuneConfig(
            metric=search.metric,
            mode=search.mode,
            reuse_actors=True,
            scheduler=ASHAScheduler(
                time_attr="step",
                max_t=search.max_steps,
                grace_period=search.grace_steps,
                reduction_factor=search.reduction_factor,
            ),
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(Path(request.folder) / "results"),
            callbacks=[reporter],
            verbose=0,
        ),
    ).fit()


def _trainable(request: Request) -> Callable[[dict[str, Any]], None]:
    search, trials = request.search, request.trials

    def run(config: dict[str, Any]) -> None:
        module, _, name = search.trainable.partition(":")
        function = getattr(importlib.import_module(module), name)
        reports = function(
            trials[config["trial"]],
            dataset=search.dataset,
            max_steps=search.max_steps,
            seed=search.seed,
        )
        for report in reports:
            missing = {"step", search.metric} - set(report)
            if missing:
                raise SpecError(
                    f"{search.trainable} reports no {' and no '.join(sorted(missing))}: "
                    f"let it, or give as metric one of {', '.join(sorted(report))}"
                )
            tune.report(report)

    return run


class _Reporter(tune.Callback):
    """Writes down what Tune tells its callbacks."""

    def __init__(self, request: Request, reports: BinaryIO) -> None:
        self._request = request
        self._reports = reports

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the open file behind: Tune pickles its callbacks, to restore searches in its own way."""
        return (tune.Callback, ())

    @override
    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._write(trial, result)

    @override
    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._write(trial, trial.last_result, is_last=True)

    @override
    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = Path(trial.error_file).read_text(encoding="utf-8")
        self._write(trial, trial.last_result, is_last=True, error=error)

    @override
    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if os.getppid() != self._request.parent:
            sys.exit("whoever asked for the search is gone")

    def _write(
        self, trial: Any, result: dict[str, Any], *, is_last: bool = False, error: str | None = None
    ) -> None:
        report = Report(
            trial=trial.config["trial"],
            step=result.get("step", 0),
            value=result.get(self._request.search.metric),
            is_last=is_last,
            error=error,
        )
        self._reports.write(codec.encode_json(report) + b"\n")
