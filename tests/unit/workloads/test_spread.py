from __future__ import annotations

import json
import pickle
from contextlib import nullcontext
from dataclasses import replace
from decimal import Decimal
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from spillway.checkpoints import FolderStore, open_store
from spillway.errors import CorruptCheckpointError, SpecError, TaskFailedError
from spillway.runtime import Preempted, Session
from spillway.runtime.signals import Notice
from spillway.workloads import spread, spread_trial
from spillway.workloads.shared_study import SharedStudy
from spillway.workloads.space import draw, parse_space
from spillway.workloads.spread_search import make_search

if TYPE_CHECKING:
    from spillway.workloads.sweeping.rows import TrialStatus

SPACE = {"x": {"uniform": [0, 1]}}


class NoticedSession(Session):
    """A session that gets its notice at a step."""

    notice_at = 0

    def progress(self, step: int, total: int | None = None, **metrics: float) -> None:
        super().progress(step, total, **metrics)
        if step >= self.notice_at:
            self._notice.receive()


def search(folder: Path, **changes: Any) -> dict[str, Any]:
    asked = {
        "dataset": str(folder),
        "space": SPACE,
        "num_samples": 6,
        "max_steps": 4,
        "metric": "loss",
        "trainable": "trial_samples:falling",
        "seed": 3,
        "scheduler": "none",
    }
    return {**asked, **changes}


def run(folder: Path, number: int, session: Session | None = None, **changes: Any) -> Any:
    session = session or Session.local(folder / f"session{number}")
    return spread.trial(
        session, output=str(folder / "sweep"), trial=number, **search(folder, **changes)
    )


def study_of(folder: Path, **changes: Any) -> SharedStudy:
    return SharedStudy(FolderStore(folder / "sweep"), make_search(search(folder, **changes)))


def table_of(folder: Path) -> Any:
    search, rows = spread.read_rows(str(folder / "sweep"))
    return spread.table(str(folder / "sweep"), rows, search)


def ended(folder: Path, **changes: Any) -> dict[int, TrialStatus]:
    rows = study_of(folder, **changes).rows()
    return {number: row.status for number, row in rows.items() if row.has_ended}


def starts(folder: Path) -> list[float]:
    return [float(line) for line in (folder / "starts").read_text().split()]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 2, 4]])
def test_a_trials_parameters_depend_on_nothing_but_seed_and_number(
    folder: Path, order: list[int]
) -> None:
    rows = {number: run(folder, number) for number in order}
    drawn = {number: draw(parse_space(SPACE), seed=3, trial=number) for number in range(6)}
    assert {number: row["params"] for number, row in rows.items()} == drawn


def test_the_table_has_every_trial_once_and_the_best_of_them(folder: Path) -> None:
    rows = [run(folder, number) for number in (2, 0, 1, 5, 4, 3)]
    table = table_of(folder)
    without = [
        {name: row[name] for name in row if name not in ("curve", "checkpoint_step")}
        for row in sorted(rows, key=lambda row: row["trial"])
    ]
    assert table["trials"] == without
    assert json.loads((folder / "sweep" / "trials.json").read_text())[0]["curve"]
    assert all(Path(path).is_file() for path in table["artefacts"].values())
    assert all(row["status"] == "finished" for row in rows)
    assert table["best"]["metric"] == min(row["metric"] for row in rows)
    assert table_of(folder) == table


def test_a_cleared_task_adds_no_trial_and_runs_none_again(folder: Path) -> None:
    row = run(folder, 1)
    assert run(folder, 1, Session.local(folder / "session1", fresh_start=True)) == row
    assert len(starts(folder)) == 1
    assert ended(folder) == {1: "finished"}


class Malicious:
    """Whoever unpickles one makes a file."""

    def __init__(self, trap: Path) -> None:
        self._trap = trap

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._trap,)


def test_a_pickle_in_the_store_is_never_run_by_the_shipped_trial(
    folder: Path, tiny_dataset: str
) -> None:
    evil, trap = folder / "evil", folder / "trap"
    evil.mkdir()
    for name in ("trainer.pt", "state.json", "torch.safetensors", "numpy.safetensors"):
        (evil / name).write_bytes(pickle.dumps(Malicious(trap)))
    Session.local(folder / "session0").checkpoint(1, files=evil)
    with pytest.raises(CorruptCheckpointError):
        run(
            folder,
            0,
            trainable="spillway.workloads.train:trial",
            dataset=tiny_dataset,
            space={"width": 16, "layers": 1, "heads": 2, "context": 16, "batch": 4},
        )
    assert not trap.exists()


def test_a_preempted_trial_goes_on_from_its_checkpoint_under_its_number(folder: Path) -> None:
    trainable = "spread_samples:counting_on"
    session = NoticedSession.local(folder / "session2", notice=Notice())
    session.notice_at = 2
    with pytest.raises(Preempted):
        run(folder, 2, session, trainable=trainable)
    assert ended(folder, trainable=trainable) == {}

    row = run(folder, 2, trainable=trainable)
    # The notice came with the report of step 2, and step 3 is saved after it.
    assert (folder / "steps").read_text().split("\n")[:-1] == ["2 1", "2 2", "2 3", "2 4"]
    assert row["steps"] == 4
    assert len(study_of(folder, trainable=trainable)._study.trials) == 1


def test_a_trials_checkpoints_are_gone_once_saved_and_its_own_folders_are_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = folder / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    for notice_at, ending in ((3, pytest.raises(Preempted)), (9, nullcontext())):
        session = NoticedSession.local(folder / "session", notice=Notice())
        session.notice_at = notice_at
        with ending:
            run(folder, 0, session, trainable="spread_samples:keeping")
        assert [*temporary.iterdir(), *session.scratch.glob("trial-*")] == []
    assert (folder / "own" / "step").read_text() == "4"


def test_a_preempted_trial_without_checkpoints_reports_nothing_twice(folder: Path) -> None:
    session = NoticedSession.local(folder / "session0", notice=Notice())
    session.notice_at = 3
    with pytest.raises(Preempted):
        run(folder, 0, session)
    interrupted = run(folder, 0)
    undisturbed = run(folder / "sweep", 0, dataset=str(folder))
    assert {**interrupted, "seconds": 0} == {**undisturbed, "seconds": 0}
    (trial,) = study_of(folder)._study.trials
    assert sorted(trial.intermediate_values) == [1, 2, 3, 4]


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_scheduler_sees_what_trials_elsewhere_reported(folder: Path, scheduler: str) -> None:
    """Each trial opens the study anew, as on a machine of its own; the worse of two is stopped at the first rung."""
    changes = {"scheduler": scheduler, "grace_steps": 2, "num_samples": 12}
    space = parse_space(SPACE)
    x = {number: draw(space, seed=3, trial=number)["x"] for number in range(12)}
    best_first = sorted(x, key=lambda number: -x[number])
    rows = [run(folder, number, **changes) for number in best_first]
    assert rows[0]["status"] == "finished"
    assert rows[-1]["status"] == "stopped"
    assert 2 <= rows[-1]["steps"] < 4
    assert table_of(folder)["best"]["trial"] == best_first[0]


def test_optunas_own_search_learns_from_all_and_goes_on_with_the_same_parameters(
    folder: Path,
) -> None:
    changes = {
        "search": "optuna",
        "num_samples": 14,
        "max_steps": 1,
        "space": {
            "x": {"uniform": [0, 1]},
            "rate": {"loguniform": [0.001, 0.1]},
            "layers": {"randint": [1, 4]},
            "shape": {"choice": [[1, 2], None, "wide"]},
        },
    }
    rows = [run(folder, number, **changes) for number in range(14)]
    assert all(row["params"]["shape"] in ([1, 2], None, "wide") for row in rows)
    assert all(1 <= row["params"]["layers"] < 4 for row in rows)
    assert len({row["params"]["x"] for row in rows}) == 14
    assert study_of(folder, **changes).begin(3).row.params == rows[3]["params"]


def test_two_attempts_that_made_the_trial_at_once_count_as_one(folder: Path) -> None:
    study = study_of(folder)
    study.begin(4)
    study._find = lambda _: []
    with pytest.raises(
        ValueError, match="unpack"
    ):  # it does not see the other's trial, and makes one
        study.begin(4)
    row = run(folder, 4)
    assert row["status"] == "finished"
    assert ended(folder) == {4: "finished"}
    assert study.rows()[4].metric == row["metric"]


def test_trials_that_all_fail_are_not_all_tried(folder: Path) -> None:
    rows = [run(folder, number, trainable="trial_samples:breaking") for number in range(5)]
    assert rows.pop() is None  # the sweep had ended before
    assert {row["status"] for row in rows} == {"failed"}
    assert "ArithmeticError: cannot take" in rows[0]["error"]
    assert "ArithmeticError" in rows[3]["error"]
    assert "not tried: every trial that ended before has failed" in rows[3]["error"]
    assert rows[3]["steps"] == 0
    assert "ArithmeticError" in spread.why_ended(str(folder / "sweep"))
    with pytest.raises(TaskFailedError, match=r"(?s)no trial gave a number.*ArithmeticError"):
        table_of(folder)


def leased_at(folder: Path, number: int, usd_per_hour: str) -> Session:
    session = Session.local(folder / f"session{number}")
    price = Decimal(usd_per_hour)
    session._submission = replace(
        session.submission, marginal_usd_per_hour=price, effective_usd_per_hour=2 * price
    )
    return session


def test_what_a_trial_took_is_in_its_row(folder: Path) -> None:
    space = {**SPACE, "seconds": 0.01}
    row = run(folder, 0, leased_at(folder, 0, "3600"), space=space)
    assert row["seconds"] >= 4 * 0.01
    assert row["marginal_usd"] == pytest.approx(row["seconds"])
    assert row["effective_usd"] == pytest.approx(2 * row["seconds"])
    assert row["pools"] == ["local"]


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ({"max_usd": 12}, "max_usd"),
        ({"max_seconds": 12}, "max_seconds"),
        ({"stop_when": {"usd_per_improvement": 1e-9}}, "usd_per_improvement"),
    ],
)
def test_a_limit_ends_the_sweep_for_all_with_the_best_so_far(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: dict[str, Any], why: str
) -> None:
    ticks = count()  # a second each time a trial looks, at one USD a second
    monkeypatch.setattr(spread_trial, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    asked = {"num_samples": 9, **limit}
    rows = [run(folder, number, leased_at(folder, number, "3600"), **asked) for number in range(9)]
    ran = [row for row in rows if row is not None]
    assert rows == [*ran, *[None] * (9 - len(ran))]
    assert 1 < len(ran) < 9
    assert {row["status"] for row in ran} == {"finished", "cut"}
    assert ran[-1]["status"] == "cut"
    table = table_of(folder)
    assert table["stopped_by"].startswith(why)
    assert [row["trial"] for row in table["trials"]] == list(range(len(ran)))
    assert table["best"]["metric"] == min(
        row["metric"] for row in ran if row["status"] == "finished"
    )
    assert table["spent"]["marginal_usd"] == pytest.approx(sum(row["seconds"] for row in ran))
    assert run(folder, 0, **asked) == rows[0]


@pytest.mark.parametrize(("limits", "most"), [({}, 5), ({"max_seconds": 1e6}, 10)])
def test_a_report_takes_few_requests(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, float], most: int
) -> None:
    asked: list[str] = []

    def counting(name: str) -> Any:
        usual = getattr(FolderStore, name)

        def call(store: FolderStore, path: str, *rest: Any) -> Any:
            if path.startswith(("study", "ended")):
                asked.append(path)
            return usual(store, path, *rest)

        return call

    for name in ("get", "put", "create", "list"):
        monkeypatch.setattr(FolderStore, name, counting(name))
    run(folder, 0, max_steps=20, **limits)
    few = len(asked)
    asked.clear()
    run(folder / "other", 0, max_steps=60, dataset=str(folder), **limits)
    assert (len(asked) - few) / 40 <= most


def test_a_trial_whose_task_comes_back_after_the_end_is_cut(folder: Path) -> None:
    session = NoticedSession.local(folder / "session0", notice=Notice())
    session.notice_at = 2
    with pytest.raises(Preempted):
        run(folder, 0, session, max_seconds=100)
    run(folder, 1, max_seconds=1e-6)
    assert table_of(folder)["trials"][0]["status"] == "cut"
    row = run(folder, 0, max_seconds=100)
    assert (row["status"], row["steps"]) == ("cut", 2)
    assert len(starts(folder)) == 2


def test_one_trial_that_fails_or_is_lost_is_a_row(folder: Path) -> None:
    for number in range(4):
        run(folder, number)
    study_of(folder).begin(4)  # and its task is never heard of again
    table = table_of(folder)
    assert [row["status"] for row in table["trials"]] == ["finished"] * 4 + ["failed"] * 2
    assert table["trials"][4]["params"] == draw(parse_space(SPACE), seed=3, trial=4)
    assert "the task's log says why" in table["trials"][5]["error"]


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"num_samples": 0}, "num_samples is 0: give 1 or more"),
        ({"grace_steps": 5}, "give 4 or less"),
        ({"mode": "least"}, "give min or max"),
        ({"scheduler": "hope"}, "give one of asha, median, pbt, none"),
        ({"scheduler": "pbt"}, "give another scheduler, or the mode one_lease"),
        ({"search": "luck"}, "give one of random, optuna"),
        ({"max_usd": 0}, "max_usd is 0: give a number above 0"),
        ({"stop_when": {"patience": 3}}, "stop_when has patience"),
        ({"space": {}}, "the space is empty"),
        ({"samples": 3}, "has no samples: it takes dataset, "),
    ],
)
def test_bad_arguments_are_refused_before_a_trial_is_placed(
    folder: Path, change: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(SpecError, match=remedy):
        spread.plan(**search(folder, **change))


def test_a_plan_has_the_arguments_of_each_trial(folder: Path) -> None:
    planned = spread.plan(**search(folder))
    assert [each["trial"] for each in planned] == list(range(6))
    assert {**planned[5], "trial": 0} == planned[0]


@pytest.mark.parametrize(
    ("trainable", "remedy"),
    [
        ("nowhere.at_all:f", "give package.module:function of something installed"),
        ("trial_samples:missing", "give package.module:function of something installed"),
        ("trial_samples", "is no function"),
        ("pathlib:Path", "a class is for a sweep in one lease"),
    ],
)
def test_an_unknown_trainable_is_refused(folder: Path, trainable: str, remedy: str) -> None:
    with pytest.raises(SpecError, match=remedy):
        run(folder, 0, trainable=trainable)


def test_a_folder_of_another_sweep_is_refused(folder: Path) -> None:
    run(folder, 0)
    with pytest.raises(SpecError, match="with another seed: give what it was begun with"):
        run(folder, 1, seed=4)


def test_a_metric_that_is_never_reported_fails_with_those_there_are(folder: Path) -> None:
    row = run(folder, 0, metric="accuracy")
    assert "reports no accuracy: let it, or give as metric one of loss" in row["error"]


def test_a_folder_without_a_sweep_says_so(folder: Path) -> None:
    with pytest.raises(SpecError, match="run its trials first"):
        spread.read_rows((folder / "nothing").as_uri())
    assert open_store((folder / "nothing").as_uri()).get(spread.SEARCH) is None
