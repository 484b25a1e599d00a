"""Which of our errors an error of SkyPilot is, by what the caller can do about it."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from spillway.backends.skypilot.render import NAME
from spillway.errors import (
    AccessError,
    BackendError,
    CapacityError,
    RejectedError,
    TransientError,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from datetime import timedelta

LATER: Final = "the same request may succeed later"


class Kind(StrEnum):
    """What can be done about an error."""

    LATER = "later"
    NO_ROOM = "no room"
    QUOTA = "quota"
    """There may be room, but not for us until something of ours ends, or somebody raises the quota."""
    ACCESS = "access"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    GONE = "gone"
    """The cluster is not there, or not up."""


def _table(groups: Mapping[Kind, str]) -> Mapping[str, Kind]:
    return MappingProxyType(
        {name: kind for kind, names in groups.items() for name in names.split()}
    )


# Source: SkyPilot 0.14, sky/exceptions.py, github.com/skypilot-org/skypilot. The names that Python itself has are what its
# checks of a task raise. A type that is not here is told with its text, and ends the attempt.
ERRORS: Final[Mapping[str, Kind]] = _table(
    {
        Kind.NO_ROOM: "ResourcesUnavailableError",
        Kind.ACCESS: """
            NoCloudAccessError InvalidCloudCredentials InvalidCloudConfigs CloudUserIdentityError
            ClusterOwnerIdentityMismatchError PermissionDeniedError NoWorkspaceAccessError WorkspaceAmbiguousError
            ApiServerAuthenticationError ImportError ModuleNotFoundError
            """,
        Kind.LATER: """
            KubeAPIUnreachableError CloudError AWSAzFetchingError NetworkError FetchClusterInfoError
            ClusterStatusFetchingError ExecutionRetryableError ExecutionPausedError ExecutionPoolFullError
            RequestAlreadyExistsError ServerTemporarilyUnavailableError RequestInterruptedError RestfulPolicyError
            SkyletInternalError SkyletUnavailableError ConcurrentWorkerExhaustedError ApiServerConnectionError
            ClientError CommandError CommandFailureException ClusterSetUpError TimeoutError ConnectionError OSError
            """,
        Kind.GONE: """
            ClusterDoesNotExist ClusterNotUpError CachedClusterUnavailable SkyletMethodNotImplementedError
            NoClusterLaunchedError
            """,
        Kind.CANCELLED: "RequestCancelled ManagedJobUserCancelledError ServeUserTerminatedError",
        Kind.REFUSED: """
            InvalidSkyPilotConfigError KubernetesValidationError InconsistentHighAvailabilityError
            ProvisionPrechecksError ManagedJobReachedMaxRetriesError ManagedJobStatusError ResourcesMismatchError
            ProvisionUnsupportedError SkyPilotExcludeArgsBaseException NotSupportedError StorageError StorageSpecError
            StorageInitError StorageBucketCreateError StorageBucketGetError StorageBucketDeleteError StorageUploadError
            StorageSourceError StorageNameError StorageModeError StorageExternalDeletionError
            NonExistentStorageAccountError InvalidClusterNameError InvalidRecipeNameError InvalidWorkspaceNameError
            RecipeAlreadyExistsError PortDoesNotExistError PoolDoesNotExistError UserRequestRejectedByPolicy
            APIVersionMismatchError APINotSupportedError VolumeNotReadyError VolumeNotFoundError
            VolumeTopologyConflictError GitError ValueError TypeError KeyError ParserError ScannerError AssertionError
            """,
    }
)

# What SkyPilot calls a lack of resources though more of them would not help. Source: SkyPilot 0.14, sky/optimizer.py and
# sky/backends/cloud_vm_ray_backend.py.
_NO_ACCESS: Final = re.compile(
    r"invalid cloud credentials|invalid cloud config|not enabled|enable access|sky check|no quota",
    re.IGNORECASE,
)
_NO_SUCH_MACHINE: Final = re.compile(
    r"does not contain any instances|no launchable resource|No resource satisfying|does not satisfy",
    re.IGNORECASE,
)
# What Kubernetes says where a right is missing, or the namespace's quota is used up. SkyPilot calls that a lack of resources as
# well, and tells the rest in the request's log only. Source of the quota's words: Kubernetes, "Resource Quotas".
_EXCEEDED: Final = "exceeded quota"
_FORBIDDEN: Final = re.compile(
    r'\w+(?: "[^"]*")? is forbidden: '
    r'(?:User "[^"]*" cannot \w+ resource "[^"]*" in API group "[^"]*"'
    r' (?:in the namespace "[^"]*"|at the cluster scope)'
    rf'|{_EXCEEDED}: [^"\n]*)'
)
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a request of ours failed, as the API server says.

    Attributes:
        type: Name of SkyPilot's exception.
        forbidden: What the log says Kubernetes does not permit, by a right or a quota; empty when it says nothing of that.
    """

    type: str
    message: str
    forbidden: str = ""

    @property
    def is_vague(self) -> bool:
        """Whether SkyPilot's log may know better."""
        return ERRORS.get(self.type) is Kind.NO_ROOM

    @property
    def kind(self) -> Kind | None:
        """What can be done about it; None where SkyPilot raises what it does not document."""
        kind = ERRORS.get(self.type)
        if self.forbidden:
            return Kind.QUOTA if _EXCEEDED in self.forbidden else Kind.ACCESS
        if kind is Kind.NO_ROOM and _NO_SUCH_MACHINE.search(self.message):
            return Kind.REFUSED
        if kind is Kind.NO_ROOM and _NO_ACCESS.search(self.message):
            return Kind.ACCESS
        return kind

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return _REMEDIES[self.kind]

    def __str__(self) -> str:
        return f"{self.type}: {self.forbidden or self.message}; {self.remedy}"


_REMEDIES: Final[Mapping[Kind | None, str]] = MappingProxyType(
    {
        Kind.LATER: LATER,
        Kind.NO_ROOM: "another pool may have room",
        Kind.QUOTA: "the namespace's ResourceQuota is used up; raise it, or let another pool do",
        Kind.ACCESS: "correct the cloud's credentials, permissions, quota or client on the machine of SkyPilot's API server; "
        "`sky check` there tells what is missing",
        Kind.REFUSED: "correct what it names in the pool's options",
        Kind.CANCELLED: "somebody cancelled it",
        Kind.GONE: "the cluster is not there any more",
        None: "SkyPilot does not say what to do about it",
    }
)


def failure(detail: Mapping[str, Any]) -> Failure:
    """Return the failure in a request that has one; the pickled object beside it is never opened.

    Raises:
        ValueError, LookupError, TypeError: There is none.
    """
    error = cast("Mapping[str, Any]", json.loads(detail["error"]))
    message = _COLOUR.sub("", str(error["message"])).strip()
    return Failure(type=str(error["type"]), message=message[:_LONGEST])


def forbidden(log: str) -> str:
    """Return what the log of a request says Kubernetes does not permit; empty when it says nothing of that."""
    found = _FORBIDDEN.search(log.replace("\\", ""))
    return found[0] if found else ""


def exception(reason: Failure) -> BackendError:
    """Return our exception for a failed request."""
    said = f"SkyPilot says {reason}"
    match reason.kind:
        case Kind.NO_ROOM | Kind.QUOTA:
            return CapacityError(said, backend=NAME)
        case Kind.ACCESS:
            return AccessError(said, backend=NAME)
        case Kind.REFUSED:
            return RejectedError(said, backend=NAME)
        case _:  # nothing is known to have started, and nothing to be wrong
            return TransientError(said, backend=NAME)


def by_status(status: int, text: str, where: str, *, retry_after: timedelta | None) -> BackendError:
    """Return the exception for an answer of HTTP that is none of those asked for."""
    said = _COLOUR.sub("", text).strip()[:_LONGEST]
    match status:
        case 401 | 403:
            return AccessError(
                f"SkyPilot at {where} does not accept the credentials ({status} {said}); set the connection's password to a"
                " service account's token, or login and password to those of its proxy",
                backend=NAME,
            )
        case 400 if "version_mismatch" in said:
            return RejectedError(
                f"SkyPilot at {where} is of a version that this backend does not speak: {said}",
                backend=NAME,
            )
        case 400 | 413 | 422:
            return RejectedError(f"SkyPilot refused the request: {status} {said}", backend=NAME)
        case 404:
            return TransientError(
                f"what answers at {where} does not offer SkyPilot's API ({said}); correct the connection's host and port",
                backend=NAME,
            )
        case _:
            return TransientError(
                f"SkyPilot at {where} answers {status}: {said}; {LATER}",
                backend=NAME,
                retry_after=retry_after,
            )


@contextmanager
def readable(where: str) -> Generator[None]:
    """Make of an answer that is not what was asked for a `TransientError`: it says nothing of any job."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise TransientError(
            f"the answer of {where} cannot be read ({error!r}); is it SkyPilot's API server that answers there?",
            backend=NAME,
        ) from error
