"""`make demo` as a stranger types it: the nightly pipeline on real Airflow, preempted twice, and nothing left behind."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from e2e.books import check_books
from e2e.conftest import open_dispatcher
from e2e.demo import press_ctrl_c, processes_below, result_of, start_demo, wait_until
from e2e.deployment import PROJECT
from spillway.model import LeaseState
from spillway.workloads.sizes import SIZES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

POOLS_FILE = PROJECT / "include" / "spillway" / "demo" / "pools.yaml"


def test_the_nightly_pipeline_survives_two_preemptions_in_one_try(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    demo = start_demo(home)
    output, _ = demo.communicate(timeout=840)
    assert demo.returncode == 0, output
    assert processes_below(home) == []

    ledger = open_dispatcher(home / "spillway", POOLS_FILE).ledger
    leases = [r.lease for r in ledger.runs(dag_id="nightly", now=datetime.now(UTC), limit=1000)]
    training = sorted((le for le in leases if le.task.task_id == "train"), key=lambda le: le.token)
    states = [lease.state for lease in training]
    assert states.count(LeaseState.PREEMPTED) == 2
    assert states[-1] is LeaseState.SUCCEEDED
    assert len(training) >= 3
    assert len({lease.pool for lease in training}) >= 2
    assert {lease.owner_try for lease in leases} == {1}
    assert check_books(home / "spillway" / "ledger.db", "nightly") == len(leases)
    assert "2 preemptions survived" in output
    assert "saved" in output

    # That it ends bit for bit like one that was not interrupted is shown on the wide demo, which is shorter.
    trained = result_of(training[-1])
    assert trained["steps"] == SIZES["small"].train_steps
    assert trained["validation_loss"] < trained["unigram_loss"]


def test_ctrl_c_while_airflow_starts_stops_everything(tmp_path: Path) -> None:
    """That it stops jobs as well is shown on the wide demo."""
    home = tmp_path / "demo"
    with start_demo(home) as demo:
        assert demo.stdout is not None
        # The last of Airflow's processes:
        wait_until(lambda: any("triggerer" in line for line in processes_below(home)), demo)
        press_ctrl_c(demo)
        rest = demo.stdout.read()
        assert demo.wait(timeout=60) == 130, rest
    assert processes_below(home) == []


def test_a_folder_that_is_not_a_demos_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with start_demo(tmp_path) as demo:
        output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "give --home an empty folder" in output
    assert (tmp_path / "thesis.tex").exists()
