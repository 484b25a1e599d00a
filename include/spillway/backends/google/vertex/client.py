"""The calls to Vertex AI that the backend makes; the only place that talks to it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from google.api_core.exceptions import BadRequest, NotFound
from google.cloud import aiplatform_v1
from google.cloud.aiplatform_v1.services.job_service.transports.rest import (
    JobServiceRestInterceptor,
)

from spillway.backends.google import naming
from spillway.backends.google.access import TIMEOUT_SECONDS, Access, ahead_of_us, make_client
from spillway.backends.google.failures import translated
from spillway.backends.google.vertex import parse
from spillway.backends.google.vertex.render import NAME, custom_job

if TYPE_CHECKING:
    from spillway.backends.google.vertex.options import VertexOptions
    from spillway.backends.google.vertex.parse import VertexRow
    from spillway.model import Submission

_SERVICE: Final = "Vertex AI"
_PAGE: Final = 100
# Repeating is up to whoever calls: a backend blocks for a few seconds at most.
_ONCE: Final[dict[str, Any]] = {"timeout": TIMEOUT_SECONDS, "retry": None}
_LIVE: Final = " AND ".join(f'state!="{state}"' for state in parse.ENDS)


class _Dates(JobServiceRestInterceptor):
    """Keeps how lists are dated."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def post_list_custom_jobs_with_metadata(self, response: Any, metadata: Any) -> Any:
        """See an answer, with its headers."""
        self.ahead = ahead_of_us(metadata)
        return response, metadata


class VertexClient:
    """Custom jobs of one project and region. Failures are `BackendError`."""

    def __init__(self, access: Access, options: VertexOptions) -> None:
        self._options = options
        self._dates = _Dates()
        self._parent = f"projects/{access.project}/locations/{options.region}"
        self._api = make_client(
            aiplatform_v1.JobServiceClient,
            access,
            endpoint=options.endpoint or f"{options.region}-aiplatform.googleapis.com",
            transport=options.transport,
            interceptor=self._dates,
        )

    @property
    def ahead(self) -> timedelta:
        """How far Google's clock is ahead of ours, as its last list over REST had it; gRPC does not show it."""
        return self._dates.ahead

    def create(self, submission: Submission) -> VertexRow:
        """Start a job, whether there is one of this key or not: Vertex AI does not ask."""
        request = {"parent": self._parent, "custom_job": custom_job(submission, self._options)}
        with translated(NAME, _SERVICE, submission.key):
            job = self._api.create_custom_job(request=request, **_ONCE)
            return parse.vertex_row(job, key_label=naming.KEY_LABEL)

    def live(self, pool: str) -> list[VertexRow]:
        """Return the jobs of the pool that have not ended."""
        return self._list(f"labels.{naming.POOL_LABEL}={naming.pool_value(pool)} AND {_LIVE}")

    def of_key(self, pool: str, key: str) -> list[VertexRow]:
        """Return the jobs of the key, oldest first: one, but for those that two who knew nothing of each other started."""
        found = self._list(
            f"labels.{naming.POOL_LABEL}={naming.pool_value(pool)}"
            f" AND labels.{naming.KEY_LABEL}={naming.key_value(key)}"
        )
        return sorted(found, key=lambda row: (row.created_at, row.name))

    def name_of(self, number: str) -> str:
        """Return the whole name of a job that Vertex AI calls by `number`."""
        return f"{self._parent}/customJobs/{number}"

    def cancel(self, name: str) -> None:
        """Ask for the job's end; one that is over, or not there, is no error."""
        with translated(NAME, _SERVICE):
            try:
                self._api.cancel_custom_job(request={"name": name}, **_ONCE)
            except (
                NotFound,
                BadRequest,
            ):  # over gRPC a FailedPrecondition; whoever asked looks whether it is gone
                return

    def _list(self, wanted: str) -> list[VertexRow]:
        request = {"parent": self._parent, "filter": wanted, "page_size": _PAGE}
        with translated(NAME, _SERVICE):
            return [
                parse.vertex_row(job, key_label=naming.KEY_LABEL)
                for job in self._api.list_custom_jobs(request=request, **_ONCE)
            ]
