"""Sweeps of all kinds, on one Ray that is there already; `test_sweep` and `test_sweep_resume` have Rays of their own."""

from __future__ import annotations

import pickle
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow.fs import LocalFileSystem
from ray import tune

from spillway.errors import CorruptCheckpointError, SpecError, TaskFailedError
from spillway.model import Launcher
from spillway.runtime import Preempted, Session
from spillway.testing.ray_cluster import RayCluster, ray_cluster
from spillway.testing.servers import LOOPBACK
from spillway.workloads.ray_schedulers import Retention
from spillway.workloads.ray_trials import without_pickle
from spillway.workloads.space import draw, parse_space
from spillway.workloads.sweep import sweep

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = str(Path(__file__).parent)


@pytest.fixture(scope="module")
def ray() -> Iterator[RayCluster]:
    """A Ray whose workers can import the sample trainables.

    One CPU, so one trial at a time unless a test says less for each: every process of a trial takes seconds to import Ray Tune.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", HERE)
        with ray_cluster(cpus=1, takes_jobs=False) as cluster:
            yield cluster


@pytest.fixture
def folder(tmp_path: Path, ray: RayCluster, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the sample trainables leave their marks; the sweep finds `ray` as that of its lease."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", HERE)
    for name, value in ray.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_ADDRESS", f"{LOOPBACK}:{ray.gcs_port}")
    return tmp_path


class NoticedSession(Session):
    """A session that gets its notice once a trial has given a checkpoint."""

    def progress(self, step: int, total: int | None = None, **metrics: float) -> None:
        super().progress(step, total, **metrics)
        if any(self.scratch.glob("sweep-*/kept/*")):
            self._notice.receive()


def run(
    folder: Path, *, usd_per_hour: str = "0", kind: type[Session] = Session, **changes: Any
) -> dict[str, Any]:
    session = kind.local(folder / "session")
    price = Decimal(usd_per_hour)
    session._submission = replace(
        session.submission,
        launcher=Launcher.RAY,
        marginal_usd_per_hour=price,
        effective_usd_per_hour=2 * price,
    )
    arguments = {
        "dataset": str(folder),
        "space": {"x": {"uniform": [0, 1]}},
        "num_samples": 6,
        "max_steps": 4,
        "metric": "loss",
        "trainable": "trial_samples:kept",
        "cpus": 2,
        "seed": 3,
    }
    return sweep(session, **{**arguments, **changes})


def test_optuna_proposes_what_ray_runs_and_what_it_cost_is_written_down(folder: Path) -> None:
    result = run(
        folder,
        search="optuna",
        scheduler="none",
        usd_per_hour="3.6",
        cpus_per_trial=0.5,
        output=str(folder / "out"),
    )
    rows = result["trials"]
    assert [row["status"] for row in rows] == ["finished"] * 6
    assert len({row["params"]["x"] for row in rows}) == 6
    for row in rows:
        # A quarter of the lease at a tenth of a cent a second.
        assert row["seconds"] >= 4 * 0.05
        assert row["marginal_usd"] == pytest.approx(row["seconds"] * 0.00025)
        assert row["effective_usd"] == pytest.approx(2 * row["marginal_usd"])
        assert row["pools"] == ["local"]
    assert result["spent"]["marginal_usd"] == pytest.approx(result["spent"]["seconds"] * 0.001)
    assert all(Path(path).stat().st_size for path in result["artefacts"].values())


def test_rays_own_kind_of_trainable_runs_with_its_iterations_as_steps(folder: Path) -> None:
    result = run(folder, trainable="trial_samples:Counting", scheduler="none")
    assert [(row["status"], row["steps"]) for row in result["trials"]] == [("finished", 4)] * 6
    best = result["best"]
    assert best["metric"] == (1 - best["params"]["x"]) / 4


def test_what_rays_own_kind_saves_as_a_dict_comes_back_without_pickle(folder: Path) -> None:
    asked: dict[str, Any] = {
        "trainable": "trial_samples:Remembering",
        "space": {"x": {"uniform": [0, 1]}, "folder": str(folder)},
        "scheduler": "none",
    }
    with pytest.raises(Preempted):
        run(folder, kind=NoticedSession, **asked)
    (folder / "go").touch()
    result = run(folder, **asked)
    assert [(row["status"], row["steps"]) for row in result["trials"]] == [("finished", 4)] * 6
    assert any(folder.glob("went-on-from-*"))
    kept = {file.name for file in folder.rglob("*") if file.suffix == ".pkl"}
    assert not kept


class Malicious:
    """Whoever unpickles one makes a file."""

    def __init__(self, trap: Path) -> None:
        self._trap = trap

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._trap,)


def test_a_pickle_in_a_checkpoint_of_rays_own_kind_is_never_run(tmp_path: Path) -> None:
    class Counter(tune.Trainable):
        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Save nothing."""

    evil = tmp_path / "_dict_checkpoint.pkl"
    trial = without_pickle(Counter)({})
    saved = trial.save(str(tmp_path))
    evil.write_bytes(pickle.dumps(Malicious(tmp_path / "trap")))
    with pytest.raises(CorruptCheckpointError, match="ask for a fresh start"):
        trial.restore(saved)
    assert not (tmp_path / "trap").exists()


def test_a_population_leaves_bad_parameters_for_changed_good_ones(folder: Path) -> None:
    space = {
        "x": {"loguniform": [0.0001, 1]}
    }  # orders of magnitude: the worst is last wherever the others are
    drawn = [draw(parse_space(space), seed=4, trial=trial)["x"] for trial in range(4)]
    worst = min(range(4), key=drawn.__getitem__)
    (folder / "last").write_text(str(worst))
    result = run(
        folder,
        space=space,
        seed=4,
        trainable="trial_samples:climbing",
        scheduler="pbt",
        metric="height",
        mode="max",
        num_samples=4,
        max_steps=20,
        grace_steps=4,
        cpus_per_trial=0.25,
    )
    rows = result["trials"]
    assert [row["trial"] for row in rows] == list(range(4))
    assert {(row["status"], row["steps"]) for row in rows} == {("finished", 20)}
    assert rows[worst]["params"]["x"] != drawn[worst]
    assert 0.0001 <= rows[worst]["params"]["x"] <= 1
    assert rows[worst]["metric"] > 100 * 20 * drawn[worst]  # it goes on from a better one's state


def test_trials_below_the_median_are_stopped(folder: Path) -> None:
    result = run(folder, scheduler="median", num_samples=14, grace_steps=2)
    statuses = [row["status"] for row in result["trials"]]
    assert set(statuses) == {"finished", "stopped"}
    assert all(row["steps"] >= 2 for row in result["trials"])
    assert result["best"]["metric"] == min(
        row["metric"] for row in result["trials"] if row["status"] == "finished"
    )


def test_a_class_that_is_none_of_rays_is_told_and_not_tried_again(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"is a class and no ray\.tune\.Trainable"):
        run(folder, trainable="trial_samples:Nothing")


def test_trials_that_always_fail_end_the_sweep_with_their_own_error(folder: Path) -> None:
    with pytest.raises(
        TaskFailedError, match=r"(?s)first 3 trials failed.*ArithmeticError: cannot"
    ):
        run(folder, trainable="trial_samples:breaking", num_samples=50)


@pytest.mark.parametrize(
    ("trainable", "said"),
    [
        ("silent", "it ended without a report of loss"),
        ("other", "the trial reports no loss: let it, or give as metric one of accuracy"),
    ],
)
def test_a_metric_that_is_never_reported_is_said(folder: Path, trainable: str, said: str) -> None:
    with pytest.raises(TaskFailedError, match=said):
        run(folder, trainable=f"trial_samples:{trainable}", num_samples=1)


def test_a_sweep_that_no_longer_pays_ends_with_the_best_so_far_and_stays_ended(
    folder: Path,
) -> None:
    changes = {
        "num_samples": 200,
        "scheduler": "none",
        "stop_when": {"usd_per_improvement": 1e-9},
        "usd_per_hour": "3.6",
    }
    result = run(folder, **changes)
    assert result["stopped_by"].startswith("usd_per_improvement")
    assert 5 <= result["trials_in_all"] < 200
    assert {row["status"] for row in result["trials"]} <= {"finished", "cut"}
    assert result["best"]["metric"] is not None
    again = run(folder, **changes)
    assert (again["best"], again["stopped_by"]) == (result["best"], result["stopped_by"])


def test_a_populations_checkpoints_stay_while_a_trial_may_begin_from_them(tmp_path: Path) -> None:
    in_use: set[str] = set()
    scheduler: Any = SimpleNamespace(in_use=lambda: in_use)
    retention = Retention(scheduler)
    for number in range(5):
        path = tmp_path / str(number)
        path.mkdir()
        if number in {1, 3}:
            in_use.add(str(path))
        checkpoint = tune.Checkpoint(str(path), LocalFileSystem())
        retention.on_checkpoint(number, [], None, checkpoint)
    assert {path.name for path in tmp_path.iterdir()} == {"1", "3", "4"}
    in_use.clear()
    retention.on_checkpoint(5, [], None, tune.Checkpoint(str(tmp_path / "4"), LocalFileSystem()))
    assert {path.name for path in tmp_path.iterdir()} == {"4"}
