"""The process that `search` starts: trials on Ray. With `ray_schedulers`, the only module of the workloads that imports Ray.

It reads a `Request` from its standard input and writes a `Report` a line to what was its standard output.
"""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, BinaryIO

import psutil
import pyarrow.fs
import ray
from ray import cloudpickle, tune
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.trainable.trainable import _DICT_CHECKPOINT_FILE_NAME
from typing_extensions import override

from spillway.checkpoints.arrow_files import arrow_folder
from spillway.errors import CorruptCheckpointError, SpecError
from spillway.model import codec
from spillway.workloads import own_ray
from spillway.workloads.ray_schedulers import (
    TRIAL,
    Pbt,
    Retention,
    make_scheduler,
    make_searcher,
    parameters_of,
)
from spillway.workloads.search import Report, Request
from spillway.workloads.sweeping.choices import Schedule, SearchBy
from spillway.workloads.sweeping.trial import Trial, read_state, run_function, write_state

if TYPE_CHECKING:
    from collections.abc import Callable

_OBJECT_STORE_BYTES = 100_000_000
_PATIENCE = timedelta(minutes=3)
_LOOK_SECONDS = 0.5
_HEAD = {"gcs_server", "raylet"}
_LOST_HEAD = 70
_STATE = "spillway-state"


def main() -> None:
    """Do what the request says."""
    request = codec.decode_json(sys.stdin.buffer.read(), Request)
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0) as reports:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what Ray prints is not a report
        _connect(request)
        try:
            run_trials(request, _Reporter(request, reports))
            if request.shared:
                _storage(request)  # empties it
        except SpecError as error:
            _write(reports, Report(refused=str(error)))
        finally:
            ray.shutdown()
            shutil.rmtree(
                request.folder, ignore_errors=True
            )  # nobody else does when the asking process is gone


def run_trials(request: Request, reporter: tune.Callback) -> None:
    """Run each trial until it ends or is stopped; Ray is there already.

    Actors are used again: a new one for each trial would import torch each time, which takes longer than a short trial.
    """
    search = request.search
    remaining = [
        number
        for number in range(request.num_samples)
        if number not in {row.trial for row in request.rows if row.has_ended}
    ]
    # The reports are kept by whoever reads them; that Tune finds no log files of its own is no error.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    trainable, reuse = _trainable(request)
    learns = search.search is SearchBy.OPTUNA
    step = "training_iteration" if search.is_class else "step"
    files, folder = _storage(request)
    scheduler = make_scheduler(request, step=step, files=files, folder=folder)
    retention = [Retention(scheduler)] if isinstance(scheduler, Pbt) else []
    tune.Tuner(
        tune.with_resources(
            trainable, {"cpu": search.cpus_per_trial, "gpu": search.accelerators_per_trial}
        ),
        param_space={} if learns else {TRIAL: tune.grid_search(remaining)},
        tune_config=tune.TuneConfig(
            metric=search.metric,
            mode=search.mode,
            reuse_actors=reuse,
            num_samples=len(remaining) if learns else 1,
            search_alg=make_searcher(request, remaining) if learns else None,
            scheduler=scheduler,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=f"{folder}/results",
            storage_filesystem=files,
            callbacks=[reporter, *retention],
            stop=None if search.scheduler is Schedule.ASHA else {step: search.max_steps},
            checkpoint_config=_checkpoints(request),
            verbose=0,
        ),
    ).fit()


def _storage(request: Request) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return where trials leave their checkpoints: where all machines of the lease reach it, empty at first."""
    if request.shared is None:
        return pyarrow.fs.LocalFileSystem(), request.folder
    store, folder = request.shared
    files, path = arrow_folder(store, folder, patience=_PATIENCE)
    _empty(files, path)
    return files, path


def _empty(files: pyarrow.fs.FileSystem, folder: str) -> None:
    if files.get_file_info(folder).type is not pyarrow.fs.FileType.NotFound:
        files.delete_dir(folder)


def _connect(request: Request) -> None:
    """Start Ray for this search alone, or use the one that spans the lease's machines."""
    if request.shared:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
        return
    own_ray.start(
        num_cpus=request.cpus,
        num_gpus=request.accelerators,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=request.folder,
    )
    Thread(target=_end_with_head, daemon=True).start()


def _end_with_head() -> None:
    """End this process once Ray's own are gone: it would wait a minute for their return, and nobody brings them back."""
    head = [each for each in psutil.Process().children() if each.name() in _HEAD]
    while all(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in head):
        time.sleep(_LOOK_SECONDS)
    os._exit(_LOST_HEAD)


def _checkpoints(request: Request) -> tune.CheckpointConfig:
    search = request.search
    every = max(1, search.grace_steps // 2) if search.is_class else 0
    kept = None if search.scheduler is Schedule.PBT else 1  # see `Retention`
    return tune.CheckpointConfig(num_to_keep=kept, checkpoint_frequency=every)


def _load(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _trainable(request: Request) -> tuple[Any, bool]:
    """Return what Tune runs, and whether its actors can be used again."""
    if not request.search.is_class:
        return _function(request), True
    try:
        kind = _load(request.search.trainable)
    except (ImportError, AttributeError) as error:
        raise SpecError(
            f"trainable {request.search.trainable} cannot be imported ({error}): correct it, or install what it needs"
        ) from error
    if not issubclass(kind, tune.Trainable):
        raise SpecError(
            f"trainable {request.search.trainable} is a class and no ray.tune.Trainable: give a function, or derive it"
        )
    return without_pickle(kind), kind.reset_config is not tune.Trainable.reset_config


def without_pickle(kind: type[tune.Trainable]) -> type[tune.Trainable]:
    """Return `kind` with the dicts that it saves kept as our checkpoints are: Tune keeps pickles, and runs what it finds."""

    class Kept(kind):  # type: ignore[misc,valid-type]  # the class is the user's
        def save_checkpoint(self, checkpoint_dir: str) -> Any:
            saved = super().save_checkpoint(checkpoint_dir)
            if not isinstance(saved, dict):
                return saved
            write_state(saved, Path(checkpoint_dir) / _STATE)
            return checkpoint_dir

        def load_checkpoint(self, checkpoint: Any) -> None:
            kept = Path(checkpoint) / _STATE
            super().load_checkpoint(read_state(kept) if kept.exists() else checkpoint)

        def restore(self, checkpoint_path: Any) -> None:
            """Refuse the pickle that Tune would run first."""
            there = checkpoint_path.checkpoint
            file = f"{there.path}/{_DICT_CHECKPOINT_FILE_NAME}"
            if there.filesystem.get_file_info(file).type is not pyarrow.fs.FileType.NotFound:
                raise CorruptCheckpointError(
                    f"the trial's checkpoint has a pickle in it, {file}, which is not loaded: ask for a fresh start"
                )
            super().restore(checkpoint_path)

    Kept.__name__ = kind.__name__  # what Ray shows
    return Kept


def _function(request: Request) -> Callable[[dict[str, Any]], None]:
    search, seconds = request.search, request.checkpoint_seconds
    ours = None if request.shared else request.folder  # which other machines have not

    def run(config: dict[str, Any]) -> None:
        before = tune.get_checkpoint()
        with tempfile.TemporaryDirectory(
            prefix="trial-", dir=ours, ignore_cleanup_errors=True
        ) as folder:
            trial = Trial(
                number=config[TRIAL],
                dataset=search.dataset,
                max_steps=search.max_steps,
                seed=search.seed,
                metric=search.metric,
                send=_send,
                restored=Path(before.to_directory(folder)) if before else None,
                checkpoint_seconds=0.0 if search.scheduler is Schedule.PBT else seconds,
                folder=ours,
            )
            run_function(_load(search.trainable), parameters_of(config), trial)

    return run


def _send(metrics: dict[str, Any], folder: Path | None) -> None:
    if folder is None:
        tune.report(metrics)
    else:
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(str(folder)))


def _has_lost_its_process(trial: Any) -> bool:
    """Return whether the trial ended without saying why: its machine is gone, or what it does ends its own process."""
    if trial.pickled_error_file is None:
        return False
    error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())  # Tune wrote it just now
    if isinstance(error, RayTaskError):
        error = error.as_instanceof_cause()  # type: ignore[no-untyped-call]
    return isinstance(error, RayActorError)


def _write(reports: BinaryIO, report: Report) -> None:
    reports.write(codec.encode_json(report) + b"\n")


class _Reporter(tune.Callback):
    """Writes down what Tune tells its callbacks."""

    def __init__(self, request: Request, reports: BinaryIO) -> None:
        self._request = request
        self._reports = reports
        self._told: dict[int, dict[str, Any]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the open file behind: Tune pickles its callbacks, to restore searches in its own way."""
        return (tune.Callback, ())

    @override
    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._write(trial, {})

    @override
    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._write(trial, result, seconds=result.get("time_this_iter_s", 0.0))

    @override
    def on_checkpoint(
        self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any
    ) -> None:
        step = self._step(trial.last_result)
        folder = Path(self._request.arrivals) / f"{trial.config[TRIAL]}-{step}-{time.time_ns()}"
        checkpoint.to_directory(str(folder))
        self._write(trial, trial.last_result, checkpoint=str(folder))

    @override
    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._write(trial, trial.last_result, is_last=True)

    @override
    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = Path(trial.error_file).read_text(encoding="utf-8")
        is_lost = self._request.shared is not None and _has_lost_its_process(trial)
        self._write(trial, trial.last_result, is_last=not is_lost, is_lost=is_lost, error=error)

    @override
    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if os.getppid() != self._request.parent:
            sys.exit("whoever asked for the search is gone")

    def _step(self, result: dict[str, Any]) -> int:
        return int(result.get("training_iteration" if self._request.search.is_class else "step", 0))

    def _write(self, trial: Any, result: dict[str, Any], **facts: Any) -> None:
        number, parameters = trial.config[TRIAL], parameters_of(trial.config)
        if self._told.get(number) != parameters:
            self._told[number] = facts["params"] = parameters
        report = Report(
            trial=number,
            step=self._step(result),
            value=result.get(self._request.search.metric),
            **facts,
        )
        _write(self._reports, report)
