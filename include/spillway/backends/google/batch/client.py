"""The calls to Google Cloud Batch that the backend makes; the only place that talks to it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from google.api_core.exceptions import AlreadyExists, BadRequest, Conflict, NotFound
from google.cloud import batch_v1
from google.cloud.batch_v1.services.batch_service.transports.rest import BatchServiceRestInterceptor

from spillway.backends.google import naming
from spillway.backends.google.access import TIMEOUT_SECONDS, Access, ahead_of_us, make_client
from spillway.backends.google.batch import parse
from spillway.backends.google.batch.render import NAME, create_request
from spillway.backends.google.failures import translated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spillway.backends.google.batch.options import BatchOptions
    from spillway.backends.google.batch.parse import JobRow
    from spillway.model import Submission

_SERVICE: Final = "Google Cloud Batch"
_PAGE: Final = 500
# Repeating is up to whoever calls: a backend blocks for a few seconds at most.
_ONCE: Final[dict[str, Any]] = {"timeout": TIMEOUT_SECONDS, "retry": None}


class _Dates(BatchServiceRestInterceptor):
    """Keeps how lists are dated."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def post_list_jobs_with_metadata(self, response: Any, metadata: Any) -> Any:
        """See an answer, with its headers."""
        self.ahead = ahead_of_us(metadata)
        return response, metadata


class BatchClient:
    """Jobs of one project and region. Failures are `BackendError`."""

    def __init__(self, access: Access, options: BatchOptions) -> None:
        self._options = options
        self._dates = _Dates()
        self._parent = f"projects/{access.project}/locations/{options.region}"
        self._api = make_client(
            batch_v1.BatchServiceClient,
            access,
            endpoint=options.endpoint,
            transport=options.transport,
            interceptor=self._dates,
        )

    @property
    def ahead(self) -> timedelta:
        """How far Google's clock is ahead of ours, as its last list over REST had it; gRPC does not show it."""
        return self._dates.ahead

    def create(self, submission: Submission) -> JobRow | None:
        """Start the job, and return it; None when a job of that name is there already."""
        request = create_request(submission, self._options, self._parent)
        with translated(NAME, _SERVICE, submission.key):
            try:
                return parse.job_row(self._api.create_job(request=request, **_ONCE))
            except AlreadyExists:
                return None
            except Conflict as error:  # what REST makes of it
                if type(error) is not Conflict:
                    raise
                return None

    def jobs(self, pool: str) -> Iterator[JobRow]:
        """Yield the jobs of the pool, newest first; asks for a page when it comes to it."""
        request = batch_v1.ListJobsRequest(
            parent=self._parent,
            filter=f'labels.{naming.POOL_LABEL}="{naming.pool_value(pool)}"',
            order_by="create_time desc",
            page_size=_PAGE,
        )
        with translated(NAME, _SERVICE):
            for job in self._api.list_jobs(request=request, **_ONCE):
                yield parse.job_row(job)

    def get(self, name: str) -> JobRow | None:
        """Return the job; None when there is none of this name."""
        with translated(NAME, _SERVICE):
            try:
                return parse.job_row(
                    self._api.get_job(request={"name": f"{self._parent}/jobs/{name}"}, **_ONCE)
                )
            except NotFound:
                return None

    def task_exit_codes(self, name: str) -> tuple[int, ...]:
        """Return the exit codes other than 0 of the job's tasks, in the order in which they ended."""
        request = {"parent": f"{self._parent}/jobs/{name}/taskGroups/group0"}
        with translated(NAME, _SERVICE):
            tasks = list(self._api.list_tasks(request=request, **_ONCE))
        events = [event for task in tasks for event in task.status.status_events]
        return parse.exit_codes(sorted(events, key=lambda event: event.event_time))

    def cancel(self, name: str, request_id: str) -> None:
        """Ask for the job's end; one that is over, or not there, is no error."""
        request = {"name": f"{self._parent}/jobs/{name}", "request_id": request_id}
        with translated(NAME, _SERVICE):
            try:
                self._api.cancel_job(request=request, **_ONCE)
            except NotFound:
                return
            except BadRequest:  # it is a FailedPrecondition over gRPC only
                row = self.get(name)
                if row is not None and row.is_live and not row.is_ending:
                    raise
