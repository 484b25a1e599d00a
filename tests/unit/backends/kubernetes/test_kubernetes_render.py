from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes import client

from spillway.backends.kubernetes import naming
from spillway.backends.kubernetes.render import render, render_service
from spillway.errors import RejectedError
from spillway.model import Launcher, Resources, Submission
from spillway.model.codec import decode_json
from spillway.testing.kubernetes_objects import unknown_fields
from unit.backends.kubernetes.kubernetes_samples import options, submission

EVERYTHING: dict[str, Any] = {
    "service_account": "trainer",
    "queue": "ml",
    "node_selector": {"pool": "spot"},
    "tolerations": [
        {"key": "spot", "operator": "Equal", "value": "true", "effect": "NoExecute", "seconds": 60}
    ],
    "priority_class": "low",
    "runtime_class": "nvidia",
    "volumes": [
        {"path": "/shared", "claim": "shared", "read_only": True},
        {"path": "/data", "nfs_server": "nfs.example", "nfs_path": "/export"},
    ],
    "scratch_gib": 100,
    "shared_memory_gib": 8,
    "environment": {"AWS_REGION": "eu-west-1"},
    "secret_environment": {"AWS_SECRET_ACCESS_KEY": {"secret": "store", "key": "secret"}},
    "secrets": ["wandb"],
    "image_pull_secrets": ["registry"],
    "image_pull_policy": "Always",
    "labels": {"team": "vision"},
    "annotations": {"owner": "vision@example"},
}


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return found


def variables(pod: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in pod["containers"][0]["env"]}


@given(key=st.text(min_size=1, max_size=300), pool=st.text(min_size=1, max_size=80))
def test_any_key_makes_names_and_labels_that_kubernetes_takes(key: str, pool: str) -> None:
    assert re.fullmatch(r"sw-[a-z0-9]([-a-z0-9]{0,36}[a-z0-9])?", naming.object_name(pool, key))
    for value in naming.labels(pool, key).values():
        assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value)


def test_names_are_told_apart_by_pool_and_key() -> None:
    keys = ["a/b c/\u00fc/0/1", "a/b-c/\u00fc/0/1", "a/b c/\u00fc/0/2"]
    names = {naming.object_name(pool, key) for pool in ("one", "two") for key in keys}
    assert len(names) == 6
    assert naming.pool_label("my pool") != naming.pool_label("my-pool")


def test_a_job_runs_once_and_fails_with_its_pod() -> None:
    made = render(submission(), options())
    spec = made["spec"]
    assert (made["kind"], made["metadata"]["namespace"]) == ("Job", "ml")
    assert (spec["backoffLimit"], spec["completions"], spec["parallelism"]) == (0, 1, 1)
    assert [rule["action"] for rule in spec["podFailurePolicy"]["rules"]] == ["FailJob", "FailJob"]
    assert "suspend" not in spec
    pod = pod_of(made)
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 25)
    assert pod["containers"][0]["command"] == ["python3", "-m", "spillway.runtime"]
    assert made["metadata"]["annotations"]["spillway/key"] == "dag/run/task/-1/1"
    assert made["metadata"]["labels"]["spillway/dag"] == "dag"


@pytest.mark.parametrize("nodes", [1, 3])
def test_every_option_is_in_the_schema_of_the_client(nodes: int) -> None:
    wanted = submission(nodes=nodes, resources=Resources(accelerator="H100", accelerator_count=8))
    made = render(wanted, options(**EVERYTHING))
    assert unknown_fields(made, "V1Job") == []
    service = render_service(wanted, options(), "a-uid")
    assert unknown_fields(service, "V1Service") == []

    class Answer:
        data = json.dumps(made)

    model = client.ApiClient().deserialize(Answer(), "V1Job")
    assert model.spec.suspend is True
    assert model.metadata.labels["kueue.x-k8s.io/queue-name"] == "ml"
    assert model.metadata.labels["team"] == "vision"
    pod = model.spec.template.spec
    assert pod.containers[0].resources.limits["nvidia.com/gpu"] == "8"
    assert pod.tolerations[0].toleration_seconds == 60
    assert pod.service_account_name == "trainer"
    assert pod.priority_class_name == "low"
    assert pod.automount_service_account_token is False


def test_no_secret_is_written_down_but_its_place() -> None:
    pod = pod_of(render(submission(), options(**EVERYTHING)))
    container = pod["containers"][0]
    assert container["envFrom"] == [{"secretRef": {"name": "wandb"}}]
    assert {
        "name": "AWS_SECRET_ACCESS_KEY",
        "valueFrom": {"secretKeyRef": {"name": "store", "key": "secret"}},
    } in container["env"]


@pytest.mark.parametrize(
    ("accelerator", "resource", "labels"),
    [
        ("H100", "nvidia.com/gpu", {}),
        ("TPU-v5p", "google.com/tpu", {"cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice"}),
        ("Trainium2", "aws.amazon.com/neuron", {}),
        ("A100-MIG", "nvidia.com/mig-1g.5gb", {"gpu": "a100"}),
    ],
)
def test_an_accelerator_is_what_the_cluster_calls_it(
    accelerator: str, resource: str, labels: dict[str, str]
) -> None:
    own = {"A100-MIG": {"resource": "nvidia.com/mig-1g.5gb", "node_selector": {"gpu": "a100"}}}
    shape = Resources(accelerator=accelerator, accelerator_count=4)
    pod = pod_of(render(submission(resources=shape), options(accelerators=own)))
    asked = pod["containers"][0]["resources"]
    assert asked["requests"][resource] == asked["limits"][resource] == "4"
    assert pod.get("nodeSelector", {}) == labels


def test_a_gang_meets_through_names() -> None:
    made = render(submission(nodes=3), options())
    name = made["metadata"]["name"]
    assert (made["spec"]["completionMode"], made["spec"]["completions"]) == ("Indexed", 3)
    told = variables(pod_of(made))
    assert (told["SPILLWAY_GANG_JOB"], told["SPILLWAY_GANG_SERVICE"]) == (name, name)
    assert told["SPILLWAY_GANG_NODES"] == "3"
    assert pod_of(made)["subdomain"] == name
    service = render_service(submission(nodes=3), options(), "a-uid")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"spillway/job": name}
    assert service["metadata"]["ownerReferences"][0]["uid"] == "a-uid"


def test_a_jobset_is_one_job_that_its_controller_names() -> None:
    made = render(submission(nodes=3), options(kind="jobset", queue="ml"))
    name, (replicated,) = made["metadata"]["name"], made["spec"]["replicatedJobs"]
    assert made["spec"]["network"] == {"enableDNSHostnames": True, "subdomain": name}
    assert made["spec"]["failurePolicy"] == {"maxRestarts": 0}
    assert made["spec"]["suspend"] is True
    assert unknown_fields({**replicated["template"], "kind": "Job"}, "V1Job") == []
    told = variables(replicated["template"]["spec"]["template"]["spec"])
    assert told["SPILLWAY_GANG_JOB"] == f"{name}-w-0"


def test_a_rayjob_runs_the_task_as_the_driver_of_a_cluster_of_its_own() -> None:
    gang = submission(nodes=3, launcher=Launcher.RAY)
    spec = render(gang, options(kind="rayjob"))["spec"]
    assert (spec["entrypoint"], spec["backoffLimit"]) == ("python3 -m spillway.runtime", 0)
    assert spec["shutdownAfterJobFinishes"] is True
    (workers,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (2, 2, 2)
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]
    assert "command" not in head["spec"]["containers"][0]
    assert unknown_fields(head, "V1PodTemplateSpec") == []
    assert unknown_fields(spec["submitterPodTemplate"], "V1PodTemplateSpec") == []
    told = json.loads(spec["runtimeEnvYAML"])["env_vars"]["SPILLWAY_SUBMISSION"]
    driver = decode_json(told, Submission)
    assert driver == replace(gang, nodes=1, launcher=Launcher.PLAIN)


def test_a_rayjob_on_a_cluster_that_is_there_brings_none() -> None:
    spec = render(submission(), options(kind="rayjob", ray_cluster="shared"))["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": "shared"}
    assert "rayClusterSpec" not in spec
    assert "shutdownAfterJobFinishes" not in spec


@given(text=st.text(max_size=200))
def test_the_submission_arrives_whatever_is_in_it(text: str) -> None:
    wanted = submission(arguments={"text": text})
    told = variables(pod_of(render(wanted, options())))["SPILLWAY_SUBMISSION"]
    assert "$" not in told  # Kubernetes would replace what follows
    assert decode_json(told, Submission) == wanted


def test_a_submission_that_is_too_large_is_refused() -> None:
    with pytest.raises(RejectedError, match="put large arguments into the store") as refusal:
        render(submission(arguments={"text": "x" * 100_000}), options())
    assert refusal.value.key == "dag/run/task/-1/1"


def test_the_grace_period_is_never_less_than_was_promised() -> None:
    made = render(submission(grace_period=timedelta(seconds=1.2)), options())
    assert pod_of(made)["terminationGracePeriodSeconds"] == 2
