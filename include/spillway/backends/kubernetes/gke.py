"""Clusters of GKE, by a connection to Google Cloud."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from google.api_core.exceptions import NotFound
from google.auth.transport import requests
from google.cloud.container_v1 import ClusterManagerClient

from spillway.backends.google.access import TIMEOUT_SECONDS, Access, access, make_client
from spillway.backends.google.failures import translated
from spillway.backends.kubernetes.failures import LATER, NAME
from spillway.backends.kubernetes.managed import ApiServer, ManagedCluster
from spillway.errors import RejectedError, TransientError

if TYPE_CHECKING:
    from spillway.backends.kubernetes.options import Gke
    from spillway.backends.protocol import Connection

_SERVICE = "Google Kubernetes Engine"


def gke_cluster(pool: str, options: Gke, connection: Connection | None) -> ManagedCluster:
    """Return the cluster, as the connection's account reaches it.

    Raises:
        SpecError: The connection is none to Google, or nothing says in which project the cluster is.
    """
    who = access(pool, options.project, connection)
    clusters = make_client(ClusterManagerClient, who, endpoint=options.service_endpoint)
    return ManagedCluster(partial(_locate, clusters, who, options), partial(_token, who))


def _locate(clusters: Any, who: Access, options: Gke) -> ApiServer:
    name = f"projects/{who.project}/locations/{options.location}/clusters/{options.cluster}"
    with translated(NAME, _SERVICE):
        try:
            found = clusters.get_cluster(name=name, timeout=TIMEOUT_SECONDS, retry=None)
        except NotFound as error:
            said = f"{_SERVICE} knows no cluster {name}; correct the option gke"
            raise RejectedError(said, backend=NAME) from error
    authority: str | None = found.master_auth.cluster_ca_certificate
    match options.endpoint:
        case "public":
            address = found.endpoint
        case "private":
            own = found.control_plane_endpoints_config.ip_endpoints_config.private_endpoint
            address = own or found.private_cluster_config.private_endpoint  # where old ones have it
        case "dns":
            address = found.control_plane_endpoints_config.dns_endpoint_config.endpoint
            authority = None  # its certificate is one that everybody trusts
    if not address:
        said = (
            f"the GKE cluster {name} is {found.status.name} and has no {options.endpoint} endpoint"
        )
        if found.status.name == "PROVISIONING":
            raise TransientError(f"{said} yet; {LATER}", backend=NAME)
        raise RejectedError(f"{said}; correct the option gke.endpoint", backend=NAME)
    return ApiServer(url=f"https://{address}", authority=authority)


def _token(who: Access) -> str:
    """Return the account's token, a new one where it is about to expire."""
    credentials: Any = who.credentials  # its methods have no types
    with translated(NAME, _SERVICE):
        if not credentials.valid:
            library: Any = requests
            credentials.refresh(partial(library.Request(), timeout=TIMEOUT_SECONDS))
        return str(credentials.token)
