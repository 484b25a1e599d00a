from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from spillway.backends.kubernetes import parse
from spillway.backends.kubernetes import pods as pods_of
from spillway.model import JobEvent
from unit.backends.kubernetes.kubernetes_samples import NAME, NOW, condition, ended, job, pod

POLICY = "PodFailurePolicy"
BY_CONDITION = f"Pod ml/{NAME}-0-x has condition DisruptionTarget matching FailJob rule at index 0"
BACK_OFF = condition(
    "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
)


def by_exit_code(code: int, index: int = 0) -> dict[str, Any]:
    said = f"Container main for pod ml/{NAME}-{index}-x failed with exit code {code} matching FailJob rule at index 1"
    return condition("Failed", POLICY, said)


def seen(workload: dict[str, Any] | None, *pods: dict[str, Any], **more: Any) -> Any:
    return parse.observation(workload, pods, NOW, **more)


def test_an_object_that_is_not_there_has_vanished() -> None:
    assert seen(None).event is JobEvent.VANISHED


@pytest.mark.parametrize(
    ("conditions", "event"),
    [
        (["SuccessCriteriaMet", "Complete"], JobEvent.SUCCEEDED),
        (["Completed"], JobEvent.SUCCEEDED),
        (["SuccessCriteriaMet"], None),
        (["FailureTarget"], None),
        (["Suspended"], JobEvent.SUBMITTED),
        ([], JobEvent.SUBMITTED),
        (["SomethingNew"], JobEvent.SUBMITTED),
    ],
    ids=str,
)
def test_the_conditions_of_an_object_say_how_it_is(
    conditions: list[str], event: JobEvent | None
) -> None:
    pods = [pod("Succeeded", state=ended(0))] if event is None else []
    assert seen(job(*map(condition, conditions)), *pods).event is event


@pytest.mark.parametrize("reason", sorted(pods_of.DISRUPTIONS))
def test_every_reason_of_a_disruption_is_told_apart(reason: str) -> None:
    taken = pod("Failed", condition("DisruptionTarget", reason, "as it says"), state=ended(143))
    found = seen(job(condition("Failed", POLICY, BY_CONDITION)), taken)
    assert found.event is pods_of.DISRUPTIONS[reason][0]
    assert reason in found.detail
    assert pods_of.DISRUPTIONS[reason][1] in found.detail


def test_a_disruption_counts_before_its_job_has_failed_and_after_its_pod_is_gone() -> None:
    told = condition("DisruptionTarget", "PreemptionByScheduler")
    assert seen(job(), pod("Running", told)).event is JobEvent.STARTED
    assert "told to stop" in seen(job(), pod("Running", told)).detail
    assert seen(job(), pod("Failed", told, state=ended(1))).event is JobEvent.PREEMPTED
    failed = job(condition("Failed", POLICY, BY_CONDITION))
    assert seen(failed).event is JobEvent.PREEMPTED
    last = pod("Failed", told, state=ended(75))
    found = seen(failed, departed=[last])
    assert (found.event, found.exit_code) == (JobEvent.PREEMPTED, 75)
    assert "PreemptionByScheduler" in found.detail


def test_a_pod_that_is_gone_was_deleted_whatever_was_last_seen_of_it() -> None:
    running = pod("Running")
    assert seen(job(by_exit_code(137)), departed=[running]).event is JobEvent.PREEMPTED
    assert seen(job(by_exit_code(3)), departed=[running]).event is JobEvent.FAILED


@pytest.mark.parametrize(
    ("stuck", "event", "words"),
    [
        ("no PriorityClass with name nope was found", JobEvent.FAILED, "option priority_class"),
        ('error looking up service account ml/nope: "nope"', JobEvent.FAILED, "service_account"),
        ('violates PodSecurity "restricted:latest"', JobEvent.FAILED, "policy"),
        ("exceeded quota: compute", JobEvent.SUBMITTED, "exceeded quota"),
    ],
)
def test_a_job_that_will_never_have_pods_fails_and_names_the_option(
    stuck: str, event: JobEvent, words: str
) -> None:
    found = seen(job(), stuck=f'Error creating: pods "x" is forbidden: {stuck}')
    assert found.event is event
    assert words in found.detail
    new = job(creationTimestamp="2026-11-20T11:59:00Z")
    assert seen(new, stuck=stuck).event is JobEvent.SUBMITTED


def test_a_pod_that_is_replaced_was_taken_away() -> None:
    leaving = pod(name="a", deletionTimestamp="2026-11-20T11:59:30Z")
    assert seen(job(), leaving).event is JobEvent.STARTED
    replaced = [seen(job(), leaving, pod("Pending", name="b"))]
    replaced.append(seen(job(), pod("Pending", name="b"), departed=[leaving]))
    assert {one.event for one in replaced} == {JobEvent.PREEMPTED}
    assert "begun another" in replaced[0].detail


@pytest.mark.parametrize(
    ("code", "state", "more", "event"),
    [
        (3, ended(3), {}, JobEvent.FAILED),
        (75, ended(75), {}, JobEvent.PREEMPTED),
        (137, ended(137, reason="OOMKilled"), {}, JobEvent.FAILED),
        (137, ended(137, reason="Error"), {}, JobEvent.FAILED),
        (143, ended(143), {"deletionTimestamp": "2026-11-20T11:59:30Z"}, JobEvent.PREEMPTED),
        (3, ended(3), {"deletionTimestamp": "2026-11-20T11:59:30Z"}, JobEvent.FAILED),
    ],
    ids=["failed", "preempted", "memory", "killed", "deleted", "failed_and_deleted"],
)
def test_an_exit_code_is_what_its_pod_says_it_is(
    code: int, state: dict[str, Any], more: dict[str, Any], event: JobEvent
) -> None:
    found = seen(job(by_exit_code(code)), pod("Failed", state=state, **more))
    assert (found.event, found.exit_code) == (event, code)


def test_a_failure_keeps_its_exit_code_when_its_pod_is_gone() -> None:
    found = seen(job(by_exit_code(3)))
    assert (found.event, found.exit_code) == (JobEvent.FAILED, 3)
    assert seen(job(by_exit_code(143))).event is JobEvent.PREEMPTED  # somebody deleted the pod
    assert seen(job(BACK_OFF)).event is JobEvent.VANISHED


def test_of_a_gang_the_pod_that_failed_first_tells_why() -> None:
    first = pod("Failed", state=ended(3, at="2026-11-20T11:58:00Z"), index=1)
    later = pod("Failed", state=ended(1, at="2026-11-20T11:59:00Z"))
    assert seen(job(BACK_OFF), later, first).exit_code == 3
    assert seen(job(by_exit_code(1)), later, first).exit_code == 1  # the cluster knows better
    taken = pod("Failed", condition("DisruptionTarget", "EvictionByEvictionAPI"), index=2)
    assert seen(job(BACK_OFF), later, first, taken).event is JobEvent.PREEMPTED
    assert seen(job(by_exit_code(3, index=1)), later, first, taken).event is JobEvent.FAILED


@pytest.mark.parametrize(
    ("reason", "event"),
    [
        ("Evicted", JobEvent.PREEMPTED),
        ("Terminated", JobEvent.PREEMPTED),
        ("OutOfcpu", JobEvent.PREEMPTED),
        ("UnexpectedAdmissionError", JobEvent.PREEMPTED),
        ("DeadlineExceeded", JobEvent.FAILED),
    ],
)
def test_a_cluster_without_the_condition_says_it_in_the_pods_reason(
    reason: str, event: JobEvent
) -> None:
    failed = pod("Failed", state=ended(1), status={"reason": reason})
    assert seen(job(BACK_OFF), failed).event is event


@pytest.mark.parametrize("reason", sorted(pods_of.BLOCKED))
def test_a_container_that_never_can_start_fails_the_lease(reason: str) -> None:
    stuck = pod("Pending", state={"waiting": {"reason": reason, "message": "no such thing"}})
    found = seen(job(), stuck)
    assert found.event is JobEvent.FAILED
    assert f"{reason}: no such thing; {pods_of.BLOCKED[reason]}" in found.detail


@pytest.mark.parametrize("reason", sorted(pods_of.PULLING))
def test_an_image_that_cannot_be_pulled_is_given_two_minutes(reason: str) -> None:
    state = {"waiting": {"reason": reason, "message": "Back-off pulling image"}}
    assert seen(job(), pod("Pending", state=state)).event is JobEvent.SUBMITTED
    old = pod("Pending", state=state, creationTimestamp="2026-11-20T11:57:59Z")
    assert seen(job(), old).event is JobEvent.FAILED


def test_what_waits_says_why_and_gives_way_when_it_is_too_long() -> None:
    unfit = condition("PodScheduled", "Unschedulable", "0/3 nodes are available", "False")
    waiting = pod("Pending", unfit)
    found = seen(job(), waiting)
    assert found.event is JobEvent.SUBMITTED
    assert "0/3 nodes are available" in found.detail
    assert seen(job(), waiting, start_within=timedelta(hours=2)).event is JobEvent.SUBMITTED
    assert seen(job(), waiting, start_within=timedelta(minutes=59)).event is JobEvent.PREEMPTED
    assert seen(job(), pod(), start_within=timedelta(0)).event is JobEvent.STARTED
    assert "exceeded quota" in seen(job(), stuck="exceeded quota").detail


def test_a_server_whose_clock_is_ahead_loses_nothing() -> None:
    early = job(creationTimestamp="2026-11-20T12:05:00Z")
    going = pod("Running", deletionTimestamp="2026-11-20T12:05:00Z")
    assert seen(early, start_within=timedelta(0)).event is JobEvent.SUBMITTED
    assert seen(early, going).event is JobEvent.STARTED


def test_a_pod_that_does_not_go_when_it_should_is_given_up() -> None:
    going = pod("Running", deletionTimestamp="2026-11-20T11:59:30Z")
    assert seen(job(), going).event is JobEvent.STARTED
    lost = pod("Running", deletionTimestamp="2026-11-20T11:58:59Z")
    assert seen(job(), lost).event is JobEvent.VANISHED


def test_a_phase_that_we_do_not_know_is_not_guessed() -> None:
    assert seen(job(), pod("Unknown")).event is None


def test_what_is_being_deleted_was_cancelled_unless_it_had_ended() -> None:
    gone = {"deletionTimestamp": "2026-11-20T11:59:30Z"}
    assert seen(job(**gone), pod()).event is JobEvent.CANCELLED
    assert seen(job(condition("Complete"), **gone)).event is JobEvent.SUCCEEDED


def test_what_kueue_takes_back_is_a_preemption() -> None:
    owners = [{"uid": "a"}]
    evicted = condition("Evicted", "Preempted", "to make room")
    again = condition("Evicted", "Preempted", "to make room", "False")
    workloads = [
        {"metadata": {"ownerReferences": owners}, "status": {"conditions": [evicted]}},
        {"metadata": {"ownerReferences": [{"uid": "b"}]}, "status": {"conditions": [again]}},
        {"metadata": {}, "status": {}},
    ]
    assert parse.evictions(workloads) == {"a": "Preempted: to make room"}
    found = seen(job(condition("Suspended")), evicted="Preempted: to make room")
    assert found.event is JobEvent.PREEMPTED


@pytest.mark.parametrize(
    ("status", "event", "code"),
    [
        ({}, JobEvent.SUBMITTED, None),
        ({"jobDeploymentStatus": "Initializing"}, JobEvent.SUBMITTED, None),
        ({"jobDeploymentStatus": "Suspended"}, JobEvent.SUBMITTED, None),
        ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, JobEvent.STARTED, None),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, JobEvent.SUCCEEDED, 0),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, JobEvent.CANCELLED, None),
        (
            {
                "jobDeploymentStatus": "Failed",
                "jobStatus": "FAILED",
                "message": "Job entrypoint command failed with exit code 75, last available logs",
            },
            JobEvent.PREEMPTED,
            75,
        ),
        (
            {
                "jobDeploymentStatus": "Failed",
                "jobStatus": "FAILED",
                "message": "Job entrypoint command failed with exit code 2, last available logs",
            },
            JobEvent.FAILED,
            2,
        ),
        ({"jobDeploymentStatus": "Failed", "reason": "SubmissionFailed"}, JobEvent.VANISHED, None),
    ],
    ids=str,
)
def test_a_rayjob_is_what_its_two_states_say(
    status: dict[str, str], event: JobEvent, code: int | None
) -> None:
    found = seen({**job(kind="RayJob"), "status": status})
    assert (found.event, found.exit_code) == (event, code)


def test_a_rayjob_whose_head_was_taken_is_preempted_whatever_its_driver_said() -> None:
    said = "Job entrypoint command failed with exit code -15, last available logs"
    status = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": said}
    taken = pod("Failed", condition("DisruptionTarget", "PreemptionByScheduler"), state=ended(143))
    found = seen({**job(kind="RayJob"), "status": status}, taken)
    assert found.event is JobEvent.PREEMPTED


def test_pods_are_sorted_by_rank_and_the_drivers_output_comes_first() -> None:
    names = [one["metadata"]["name"] for one in pods_of.by_job([pod(index=10), pod(index=2)])[NAME]]
    assert names == [f"{NAME}-2-x", f"{NAME}-10-x"]
    driver = pod(index=5)
    driver["metadata"]["labels"]["spillway/role"] = "submitter"
    assert pods_of.by_job([pod(), driver])[NAME][0] is driver
