from __future__ import annotations

import re
import shlex
import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.backends.slurm import naming
from spillway.backends.slurm.options import SlurmOptions
from spillway.backends.slurm.render import render, rest_request, sbatch_arguments
from spillway.errors import RejectedError
from spillway.model import Launcher, Resources, Submission
from spillway.model.codec import decode_json

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


def submission(**changes: Any) -> Submission:
    facts: dict[str, Any] = {
        "key": "dag/run/task/-1/1",
        "pool": "colossus",
        "token": 7,
        "entry_point": "training:train",
        "arguments": {},
        "resources": Resources(cpus=1.5, memory_gib=2),
        "store": "s3://bucket/checkpoints",
        "prefix": "dag/task",
        "grace_period": timedelta(seconds=30),
    }
    return Submission(**{**facts, **changes})


@given(TEXTS, TEXTS, st.dictionaries(TEXTS, TEXTS, max_size=2))
def test_a_key_comes_back_from_the_comment(pool: str, key: str, labels: dict[str, str]) -> None:
    comment = naming.comment(pool, key, labels)
    assert naming.key_of(comment) == key
    assert comment.isascii()
    assert "|" not in comment


@given(TEXTS, TEXTS)
def test_a_name_is_safe_and_of_its_pool(pool: str, key: str) -> None:
    name = naming.job_name(pool, key)
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{,79}", name)
    assert name.startswith(naming.pool_prefix(pool))


def test_different_keys_and_pools_have_different_names() -> None:
    names = {naming.job_name(pool, key) for pool in "ab" for key in ("a b/1", "a-b/1", "A-b/1")}
    assert len(names) == 6


@pytest.mark.parametrize("comment", ["", "(null)", "spillway", "spillway pool=a key=", "x key=a"])
def test_a_comment_of_others_has_no_key(comment: str) -> None:
    assert naming.key_of(comment) is None


@given(st.dictionaries(st.text(st.characters(codec="ascii")), TEXTS, max_size=4))
def test_a_shell_reads_the_submission_as_it_was(arguments: dict[str, str]) -> None:
    sent = submission(arguments=arguments)
    script = render(sent, SlurmOptions(folder="/shared")).script
    (line,) = re.findall(
        r"^export SPILLWAY_SUBMISSION=.*?(?=\nexport SPILLWAY_FIRST)",
        script,
        re.MULTILINE | re.DOTALL,
    )
    (_, assignment) = shlex.split(line)
    assert decode_json(assignment.partition("=")[2], Submission) == sent


@pytest.mark.parametrize(
    "options",
    [
        SlurmOptions(folder="/shared"),
        SlurmOptions(
            folder="/a folder/with 'quotes'",
            setup=("module load cuda", 'for x in 1 2; do echo "{$x}"; done'),
            environment={"A": "it's $HOME"},
            container_image="docker://x",
            srun=("--container-mounts=/data dir:/data",),
        ),
    ],
    ids=["plain", "odd"],
)
def test_the_script_is_a_script(options: SlurmOptions) -> None:
    script = render(submission(arguments={"text": "'; exit 9 #"}), options).script
    checked = subprocess.run(
        ["bash", "-n"], input=script, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_resources_are_rounded_up() -> None:
    request = render(submission(), SlurmOptions(folder="/shared"))
    assert (request.cpus, request.memory_mib) == (2, 2048)


def test_both_ways_ask_for_the_same() -> None:
    options = SlurmOptions(
        folder="/shared",
        partition="p",
        qos="q",
        account="a",
        reservation="r",
        constraint="c",
        gres="gpu:h100:8",
        time_limit=timedelta(hours=2),
        labels={"team": "vision"},
    )
    request = render(submission(nodes=2), options)
    assert request.comment == "spillway pool=colossus key=dag/run/task/-1/1 team=vision"
    flags = dict(
        flag.removeprefix("--").partition("=")[::2] for flag in sbatch_arguments(request)[3:]
    )
    body = rest_request(request, version=38)["job"]
    assert isinstance(body, dict)
    same = {
        "job-name": "name",
        "comment": "comment",
        "output": "standard_output",
        "nodes": "nodes",
        "ntasks": "tasks",
        "cpus-per-task": "cpus_per_task",
        "signal": "signal",
        "dependency": "dependency",
        "partition": "partition",
        "qos": "qos",
        "account": "account",
        "reservation": "reservation",
        "constraint": "constraints",
        "gres": "gres",
        "time": "time_limit",
    }
    for flag, field in same.items():
        assert flags[flag] == str(body[field]), flag
    assert body["no_requeue"] is True
    assert "--no-requeue" in sbatch_arguments(request)


def test_a_newer_api_is_asked_in_its_own_words() -> None:
    options = SlurmOptions(
        folder="/shared", gres="gpu:h100:8,nvme:1", time_limit=timedelta(hours=2)
    )
    body = rest_request(render(submission(nodes=2), options), version=42)
    job = body["job"]
    assert isinstance(job, dict)
    assert job["tres_per_node"] == "gres/gpu:h100:8,gres/nvme:1"
    assert job["memory_per_node"] == {"set": True, "infinite": False, "number": 2048}
    assert (job["nodes"], job["open_mode"]) == ("2", ["APPEND"])
    assert job["script"].startswith("#!/bin/bash")
    assert not {"gres", "signal"} & set(job)


def test_what_was_not_given_is_not_asked_for() -> None:
    request = render(submission(), SlurmOptions(folder="/shared"))
    assert not {"--qos", "--gres", "--time"} & {
        flag.partition("=")[0] for flag in sbatch_arguments(request)
    }
    body = rest_request(request, version=38)["job"]
    assert isinstance(body, dict)
    assert None not in body.values()


def test_arguments_that_are_too_large_are_refused_before_they_are_sent() -> None:
    with pytest.raises(RejectedError, match="write them to a file"):
        render(submission(arguments={"text": "x" * 200_000}), SlurmOptions(folder="/shared"))


def test_a_worker_of_ray_that_ends_takes_nobody_with_it() -> None:
    job = submission(launcher=Launcher.RAY, nodes=2)
    script = render(job, SlurmOptions(folder="/shared")).script
    assert "--wait=0" in script


@pytest.mark.parametrize(("codes", "told"), [({1: 137, 0: 0}, "0"), ({1: 0, 0: 75}, "75")])
def test_the_head_of_ray_tells_how_the_work_ended(
    tmp_path: Path, codes: dict[int, int], told: str
) -> None:
    job = submission(launcher=Launcher.RAY, nodes=2)
    script = render(job, SlurmOptions(folder="/shared")).script
    rank = shlex.split(script.partition("/bin/bash -c ")[2])[0]
    first = tmp_path / "first"
    for number, code in codes.items():
        variables = {"SLURM_PROCID": str(number), "SPILLWAY_FIRST_EXIT": str(first)}
        command = ["/bin/bash", "-c", rank, "spillway", "/bin/sh", "-c", f"exit {code}"]
        assert subprocess.run(command, env=variables, check=False).returncode == code
    assert first.read_text().strip() == told


@pytest.mark.parametrize("launcher", [Launcher.PLAIN, Launcher.RAY])
@pytest.mark.parametrize(
    ("does", "ends"), [("kill -TERM $PPID $$", 75), ("kill -TERM $PPID; exit 0", 0), ("exit 3", 3)]
)
def test_a_notice_before_the_runtime_listens_is_a_preemption(
    tmp_path: Path, launcher: Launcher, does: str, ends: int
) -> None:
    script = render(submission(launcher=launcher), SlurmOptions(folder="/shared")).script
    rank = shlex.split(script.partition("/bin/bash -c ")[2])[0]
    first = tmp_path / "first"
    variables = {"SLURM_PROCID": "0", "SPILLWAY_FIRST_EXIT": str(first)}
    command = ["/bin/bash", "-c", rank, "spillway", "/bin/sh", "-c", does]
    assert subprocess.run(command, env=variables, check=False).returncode == ends
    assert (int(first.read_text()) if first.exists() else 0) == ends
