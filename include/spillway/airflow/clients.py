"""Clients that the providers' own Airflow hooks make of a connection, so that backends need no credentials of their own kind."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.auth.credentials import Credentials


def client_of(conn_type: str, conn_id: str) -> object:
    """Return what the provider's hook makes of the connection; None for kinds of connection that have no such hook.

    Raises:
        SpecError: The provider's package is not installed; says which.
    """
    make = _MAKERS.get(conn_type)
    if make is None:
        return None
    try:
        return make(conn_id)
    except ModuleNotFoundError as error:
        raise SpecError(
            f"connection {conn_id!r} is of the type {conn_type!r}, which needs {error.name}: "
            f"pip install 'spillway[{_EXTRAS[conn_type]}]'"
        ) from error


def _aws(conn_id: str) -> object:
    """Return a `boto3.Session`, in the connection's region, with the role it assumes."""
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    return AwsBaseHook(aws_conn_id=conn_id, client_type="sts").get_session()


def _google(conn_id: str) -> tuple[Credentials, str | None]:
    """Return Google credentials and the project they belong to."""
    from airflow.providers.google.common.hooks.base_google import GoogleBaseHook

    credentials, project = GoogleBaseHook(gcp_conn_id=conn_id).get_credentials_and_project_id()
    return credentials, project


def _kubernetes(conn_id: str) -> object:
    """Return a `kubernetes.client.ApiClient`."""
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

    return KubernetesHook(conn_id=conn_id).get_conn()


_MAKERS: Final[Mapping[str, Callable[[str], object]]] = MappingProxyType(
    {"aws": _aws, "google_cloud_platform": _google, "kubernetes": _kubernetes}
)
_EXTRAS: Final = MappingProxyType(
    {"aws": "aws", "google_cloud_platform": "google", "kubernetes": "kubernetes"}
)
