"""Clients of Google's services, by a connection's credentials. The credentials go nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from google.auth.credentials import AnonymousCredentials, Credentials

from spillway.backends.skew import clock_ahead
from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spillway.backends.protocol import Connection

TIMEOUT_SECONDS: Final = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who we are at Google, and in which project."""

    project: str
    credentials: Credentials = field(repr=False)


def access(pool: str, project: str | None, connection: Connection | None) -> Access:
    """Return what the pool's connection gives access to, in `project` or that of its credentials.

    Raises:
        SpecError: The pool has no connection of Google's type, or nothing says which project it is.
    """
    client = connection.client if connection is not None else None
    if not isinstance(client, tuple):
        raise SpecError(
            f"pool {pool!r} needs `connection:`, an Airflow connection of the type google_cloud_platform"
        )
    credentials, own_project = cast("tuple[Credentials, str | None]", client)
    project = project or own_project
    if not project:
        raise SpecError(
            f"pool {pool!r} needs the option project: its connection's credentials belong to none"
        )
    return Access(project=project, credentials=credentials)


def make_client(
    kind: Any,
    access: Access,
    *,
    endpoint: str | None,
    transport: str = "grpc",
    interceptor: object = None,
) -> Any:
    """Return a client of `kind`, one of the client libraries' classes; over REST `interceptor` sees its answers.

    An `http://` endpoint, which only emulators have, is asked without credentials: they never travel in the clear.
    """
    transport_class = kind.get_transport_class(transport)
    if transport == "rest" and interceptor is not None:
        transport_class = partial(transport_class, interceptor=interceptor)
    if endpoint is None or not endpoint.startswith("http://"):
        where = {"api_endpoint": endpoint.removeprefix("https://")} if endpoint else None
        return kind(credentials=access.credentials, transport=transport_class, client_options=where)
    host = urlsplit(endpoint).netloc
    if transport == "rest":
        return kind(
            transport=transport_class(
                host=host,
                url_scheme="http",
                credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]  # theirs
            )
        )
    import grpc

    return kind(transport=transport_class(channel=grpc.insecure_channel(host)))


def ahead_of_us(headers: Iterable[tuple[str, Any]]) -> timedelta:
    """Return how far ahead of ours the clock is that dated an answer over REST; zero where nothing is said of it."""
    return clock_ahead(dict(headers).get("Date"), datetime.now(UTC))
