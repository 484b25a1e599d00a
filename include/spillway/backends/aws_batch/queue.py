"""Calls to AWS Batch about one queue, with its pages and batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from spillway.backends.aws_batch import parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from spillway.backends.aws.session import Aws
    from spillway.backends.aws_batch.parse import JobRow

DESCRIBED_AT_ONCE: Final = 100
"""Source: AWS Batch, `DescribeJobs`, docs.aws.amazon.com/batch/latest/APIReference/API_DescribeJobs.html."""

LISTED_AT_ONCE: Final = 100


class Queue:
    """One job queue."""

    def __init__(self, aws: Aws, name: str) -> None:
        self._aws = aws
        self._name = name

    def submit(self, request: Mapping[str, Any]) -> str:
        """Start the job, whether or not there is one of its name, and return its id."""
        return str(self._aws.call("batch", "SubmitJob", **request)["jobId"])

    def terminate(self, job_ids: Iterable[str], reason: str) -> None:
        """Stop the jobs, whatever they are doing; no error where they have ended."""
        for job_id in job_ids:
            self._aws.call("batch", "TerminateJob", jobId=job_id, reason=reason)

    def named(self, name: str) -> list[JobRow]:
        """Return every job of this name that Batch remembers: those that ended, for some days."""
        rows = self._list(filters=[{"name": "JOB_NAME", "values": [name]}])
        return [row for row in rows if row.name == name]  # the filter ignores case

    def live(self, prefix: str) -> list[JobRow]:
        """Return the jobs, with names that begin so, that run or wait and were not asked to stop."""
        rows = {
            row.job_id: row for status in parse.LIVE for row in self._list(jobStatus=status)
        }  # one that moves on between two lists is in both
        return [row for row in rows.values() if row.is_live and row.name.startswith(prefix)]

    def describe(self, job_ids: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        """Return what Batch says of the jobs, by id; nothing of those that it forgot."""
        ids = sorted(set(job_ids))
        found: dict[str, Mapping[str, Any]] = {}
        for start in range(0, len(ids), DESCRIBED_AT_ONCE):
            part = ids[start : start + DESCRIBED_AT_ONCE]
            answer = self._aws.call("batch", "DescribeJobs", jobs=part)
            found |= {str(one["jobId"]): one for one in _items(answer, "jobs")}
        return found

    def definition(self, request: Mapping[str, Any]) -> str:
        """Return the ARN of the job definition of this name, registered now if there is none.

        The name is a digest of the content. Two that register it at once make two equal revisions; either will do.
        """
        name = request["jobDefinitionName"]
        answer = self._aws.call(
            "batch", "DescribeJobDefinitions", jobDefinitionName=name, status="ACTIVE"
        )
        known = sorted(_items(answer, "jobDefinitions"), key=lambda one: int(one["revision"]))
        if known:
            return str(known[0]["jobDefinitionArn"])
        made = self._aws.call("batch", "RegisterJobDefinition", **request)
        return str(made["jobDefinitionArn"])

    def _list(self, **which: Any) -> list[JobRow]:
        rows: list[JobRow] = []
        more: dict[str, str] = {}
        while True:
            answer = self._aws.call(
                "batch",
                "ListJobs",
                jobQueue=self._name,
                maxResults=LISTED_AT_ONCE,
                **which,
                **more,
            )
            rows += map(parse.job_row, _items(answer, "jobSummaryList"))
            if not answer.get("nextToken"):
                return rows
            more = {"nextToken": str(answer["nextToken"])}


def _items(answer: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    return cast("Sequence[Mapping[str, Any]]", answer.get(name, ()))
