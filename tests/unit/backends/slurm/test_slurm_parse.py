"""What Slurm printed on a real cluster (22.05.8), and what its page of states says of the rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spillway.backends.slurm import parse
from spillway.backends.slurm.capacity import gres_counts, jobs_that_fit, rest_nodes, sinfo_nodes
from spillway.backends.slurm.parse import (
    CANNOT_OPEN_OUTPUT,
    ENDS,
    EVENTS,
    KILLED,
    JobRow,
    observation,
)
from spillway.backends.slurm.render import NO_FOLDER
from spillway.model import JobEvent, Resources

NOW = datetime(2026, 11, 21, 1, tzinfo=UTC)

SQUEUE = """\
1           |sw-abc    |FAILED              |768         |NonZeroExitCode   |1     |2026-11-21T00:57:01 |
2           |sw-abc    |PENDING             |0           |Dependency        |1-1   |2026-11-21T00:57:01 |
3           |sw-s      |RUNNING             |0           |None              |2     |2026-11-21T00:57:01 |
4           |sw-t      |CANCELLED           |15          |None              |1     |Unknown             |
"""
SACCT = """\
4|sw-a|PREEMPTED|0:0|None|1|2026-11-20T18:51:50
5|sw-b|CANCELLED by 1000|0:0|None|2|2026-11-20T18:51:50
6|sw-c|OUT_OF_MEMORY|0:125|OutOfMemory|1|2026-11-20T18:51:50
7|sw-d|FAILED|75:0|NonZeroExitCode|1|2026-11-20T18:51:50
"""
SINFO = """\
pn1    |mixed     |1/7/0/8   |16000  |15000 |gpu:h100:8(S:0-1)   |gpu:h100:2(IDX:0-1)  |
pn2    |idle      |0/8/0/8   |16000  |0     |gpu:h100:8          |gpu:h100:0(IDX:N/A)  |
pn2    |idle      |0/8/0/8   |16000  |0     |gpu:h100:8          |gpu:h100:0(IDX:N/A)  |
pn3    |idle*     |0/8/0/8   |16000  |0     |(null)              |                     |
pn4    |drained   |0/0/8/8   |16000  |0     |(null)              |                     |
pn5    |idle~     |0/8/0/8   |16000  |0     |(null)              |                     |
pn6    |reserved  |0/8/0/8   |16000  |0     |(null)              |                     |
"""


def row(state: str, **facts: Any) -> JobRow:
    return JobRow(**{"job_id": 1, "name": "sw-a", "state": state, **facts})


def seen(job: JobRow, start_within: timedelta | None = None) -> tuple[JobEvent | None, int | None]:
    found = observation(job, NOW, start_within=start_within)
    return found.event, found.exit_code


def test_every_state_of_slurms_page_is_in_the_table() -> None:
    page = [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "CONFIGURING",
        "COMPLETING",
        "DEADLINE",
        "FAILED",
        "LAUNCH_FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PENDING",
        "POWER_UP_NODE",
        "PREEMPTED",
        "RECONFIG_FAIL",
        "RUNNING",
        "RESV_DEL_HOLD",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "REQUEUED",
        "RESIZING",
        "REVOKED",
        "SIGNALING",
        "SPECIAL_EXIT",
        "STAGE_OUT",
        "STOPPED",
        "SUSPENDED",
        "TIMEOUT",
    ]
    assert set(EVENTS) == set(page)
    assert set(page) >= ENDS


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (row("COMPLETED", exit_code=0), (JobEvent.SUCCEEDED, 0)),
        (row("FAILED", exit_code=3), (JobEvent.FAILED, 3)),
        (row("FAILED", exit_code=75), (JobEvent.PREEMPTED, 75)),
        (row("PREEMPTED", exit_code=-15), (JobEvent.PREEMPTED, -15)),
        (row("TIMEOUT", exit_code=0), (JobEvent.PREEMPTED, 0)),
        (row("OUT_OF_MEMORY", exit_code=-125), (JobEvent.FAILED, -125)),
        (row("NODE_FAIL", exit_code=0), (JobEvent.VANISHED, 0)),
        (row("CANCELLED", exit_code=-9), (JobEvent.CANCELLED, -9)),
        (row("COMPLETING"), (None, None)),
        (row("HIBERNATING"), (None, None)),
    ],
    ids=lambda value: f"{value.state}_{value.exit_code}" if isinstance(value, JobRow) else "",
)
def test_each_end_is_told_from_the_others(
    job: JobRow, expected: tuple[JobEvent | None, int | None]
) -> None:
    assert seen(job) == expected


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (row("OUT_OF_MEMORY", exit_code=-125), "raise memory_gib"),
        (row("FAILED", exit_code=KILLED), "raise memory_gib"),
        (row("FAILED", exit_code=NO_FOLDER), "option folder"),
        (row("FAILED", exit_code=CANNOT_OPEN_OUTPUT), "option folder"),
        (row("PENDING", reason="QOSMaxGRESPerUser"), "QOSMaxGRESPerUser"),
    ],
    ids=["memory", "killed", "marks", "output", "reason"],
)
def test_an_observation_says_what_to_do(job: JobRow, words: str) -> None:
    assert words in observation(job, NOW, start_within=None).detail


def test_waiting_too_long_is_a_preemption() -> None:
    job = row("PENDING", submitted_at=NOW - timedelta(minutes=10))
    assert seen(job, timedelta(minutes=9))[0] is JobEvent.PREEMPTED
    assert seen(job, timedelta(minutes=11))[0] is JobEvent.SUBMITTED
    assert seen(job)[0] is JobEvent.SUBMITTED


def test_squeue_is_read() -> None:
    failed, pending, running, cancelled = parse.queue_rows(SQUEUE)
    assert (failed.job_id, failed.name, failed.exit_code) == (1, "sw-abc", 3)
    assert (pending.nodes, pending.exit_code, pending.reason) == (1, None, "Dependency")
    assert running.submitted_at == datetime(2026, 11, 21, 0, 57, 1, tzinfo=UTC)
    assert (running.nodes, running.is_live) == (2, True)
    assert (cancelled.exit_code, cancelled.submitted_at, cancelled.is_live) == (-15, None, False)
    assert parse.queue_comments("1|spillway pool=a key=b\n2|a|b\n") == {
        1: "spillway pool=a key=b",
        2: "a|b",
    }


@pytest.mark.parametrize(
    ("printed", "expected"),
    [("768", 3), ("3:0", 3), ("15", -15), ("0:15", -15), ("0", 0), ("0:0", 0)],
    ids=["old", "new", "old_signal", "new_signal", "old_zero", "new_zero"],
)
def test_squeue_prints_exit_codes_in_two_ways(printed: str, expected: int) -> None:
    (job,) = parse.queue_rows(f"1|sw-a|FAILED|{printed}|None|1|2026-11-21T00:57:01|\n")
    assert job.exit_code == expected


def test_the_first_of_a_name_counts() -> None:
    assert parse.earliest_by_name(parse.queue_rows(SQUEUE))["sw-abc"].job_id == 1


def test_accounting_is_read() -> None:
    rows = parse.account_rows(SACCT)
    assert [(one.state, one.exit_code) for one in rows] == [
        ("PREEMPTED", 0),
        ("CANCELLED", 0),
        ("OUT_OF_MEMORY", -125),
        ("FAILED", 75),
    ]


def test_the_rest_api_is_read_in_its_old_and_its_new_form() -> None:
    old = {
        "job_id": 4,
        "name": "sw-a",
        "job_state": "FAILED",
        "exit_code": 768,
        "state_reason": "NonZeroExitCode",
        "node_count": 1,
        "submit_time": 1795222621,
        "comment": "c",
    }
    new = {
        **old,
        "job_state": ["FAILED"],
        "exit_code": {
            "status": ["ERROR"],
            "return_code": {"set": True, "infinite": False, "number": 3},
            "signal": {"id": {"set": False, "infinite": False, "number": 0}, "name": ""},
        },
        "node_count": {"set": True, "infinite": False, "number": 1},
        "submit_time": {"set": True, "infinite": False, "number": 1795222621},
    }
    (from_old,) = parse.rest_rows({"jobs": [old]})
    (from_new,) = parse.rest_rows({"jobs": [new]})
    assert from_old == from_new
    assert from_old.exit_code == 3
    assert parse.rest_comments({"jobs": [old]}) == {4: "c"}


def test_a_flag_of_the_rest_api_says_that_it_is_not_over() -> None:
    job = {"job_id": 1, "name": "a", "job_state": ["CANCELLED", "COMPLETING"]}
    assert parse.rest_rows({"jobs": [job]})[0].is_live


def test_accounting_over_rest_is_read() -> None:
    job = {
        "job_id": 6,
        "name": "sw-a",
        "state": {"current": "OUT_OF_MEMORY", "reason": "OutOfMemory"},
        "exit_code": {"status": "SIGNALED", "return_code": 0, "signal": {"signal_id": 125}},
        "allocation_nodes": 2,
    }
    (read,) = parse.rest_account_rows({"jobs": [job]})
    assert (read.state, read.exit_code, read.nodes) == ("OUT_OF_MEMORY", -125, 2)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", {}),
        ("(null)", {}),
        ("gpu:8", {"gpu": 8}),
        ("gpu:h100:8(S:0-1),gpu:a100:4", {"gpu": 12, "gpu:h100": 8, "gpu:a100": 4}),
        ("gpu:h100:2(IDX:0-1),nvme:1", {"gpu": 2, "gpu:h100": 2, "nvme": 1}),
    ],
    ids=["none", "null", "untyped", "typed", "used"],
)
def test_generic_resources_are_counted(text: str, counts: dict[str, int]) -> None:
    assert gres_counts(text) == counts


@pytest.mark.parametrize(
    ("shape", "gres", "reserved", "free"),
    [
        (Resources(), None, False, 16),  # no memory on the first, the fifth is only asleep
        (Resources(cpus=8), None, False, 2),
        (Resources(cpus=8), None, True, 3),
        (Resources(memory_gib=0.5), "gpu:h100:2", False, 1 + 4),
        (Resources(memory_gib=0.5), "gpu:8", False, 1),
        (Resources(), "gpu:a100:1", False, 0),
    ],
    ids=["one_cpu", "whole", "reservation", "typed", "untyped", "not_there"],
)
def test_room_is_counted_node_by_node(
    shape: Resources, gres: str | None, reserved: bool, free: int
) -> None:
    assert jobs_that_fit(sinfo_nodes(SINFO), shape, gres, reserved=reserved) == free


def test_the_rest_api_tells_the_same_room() -> None:
    node = {
        "name": "pn1",
        "state": "mixed",
        "state_flags": [],
        "cpus": 8,
        "alloc_cpus": 1,
        "real_memory": 16000,
        "alloc_memory": 1000,
        "gres": "gpu:h100:8",
        "gres_used": "gpu:h100:2(IDX:0-1)",
        "partitions": ["scavenge"],
    }
    drained = {**node, "name": "pn2", "state": ["IDLE", "DRAIN"]}
    answer = {"nodes": [node, drained]}
    assert jobs_that_fit(rest_nodes(answer, "scavenge"), Resources(), "gpu:h100:3") == 2
    assert rest_nodes(answer, "another") == []
