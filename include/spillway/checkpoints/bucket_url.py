"""From the URL of a bucket to a client for it; credentials are taken from the environment and never from the URL.

```
s3://bucket/folder?endpoint=https://minio.example:9000&region=eu-west-1
gs://bucket/folder
az://container/folder?account=name
```

`endpoint`, `region` and `account` stand for what obstore reads from `AWS_ENDPOINT_URL`, `AWS_REGION`,
`AZURE_STORAGE_ACCOUNT_NAME` and their like, and win over those. `fencing=off` takes a store that cannot fence, at one's
own risk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from spillway.checkpoints.bucket_errors import CREDENTIALS, explain
from spillway.errors import StoreAccessError, StoreUrlError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig
    from obstore.store import ObjectStore as Client

_REQUEST_TIMEOUT: Final = timedelta(minutes=10)
_STALL_TIMEOUT: Final = timedelta(minutes=2)
"""After so long without an answer a request is sent again; a part of 16 MiB gets through at 140 KB/s."""

_SETTINGS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "s3": {"endpoint": "endpoint", "region": "region"},
        "gs": {"endpoint": "base_url"},
        "az": {"endpoint": "endpoint", "account": "account_name"},
    }
)
"""What a URL's query may set, and obstore's name for it."""

_ENDPOINTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
        "gs": ("GOOGLE_BASE_URL",),
        "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    }
)

SCHEMES: Final = tuple(sorted(_SETTINGS))


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketUrl:
    """The parts of a bucket's URL.

    Attributes:
        folder: What stands before every path; empty for the whole bucket.
        settings: What the query sets, by obstore's names.
        is_fenced: Whether a store that ignores create-only writes is refused.
    """

    scheme: str
    bucket: str
    folder: str
    settings: Mapping[str, str]
    is_fenced: bool

    @property
    def place(self) -> str:
        """The URL without its query."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.folder}" if self.folder else "")

    @classmethod
    def parse(cls, url: str) -> BucketUrl:
        """Return the parts of `url`.

        Raises:
            StoreUrlError: It names no bucket, holds credentials, or sets what cannot be set.
        """
        parts = urlsplit(url)
        known = _SETTINGS[parts.scheme]
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        fencing = query.pop("fencing", "on")
        unknown = sorted(query.keys() - known.keys())
        if "@" in parts.netloc:
            raise StoreUrlError(
                f"the URL of bucket {parts.hostname!r} has a user or password in it, which ends up in logs: "
                f"{CREDENTIALS[parts.scheme]}"
            )
        if not parts.netloc or parts.fragment:
            raise StoreUrlError(f"{url!r} names no bucket: write {parts.scheme}://bucket/folder")
        if unknown or fencing not in ("on", "off"):
            said = ", ".join(unknown) or f"fencing={fencing}"
            allowed = ", ".join([*sorted(known), "fencing=on", "fencing=off"])
            raise StoreUrlError(
                f"the URL of bucket {parts.netloc!r} sets {said}; it may set {allowed}"
            )
        return cls(
            scheme=parts.scheme,
            bucket=parts.netloc,
            folder=unquote(parts.path).strip("/"),
            settings=MappingProxyType({known[name]: query[name] for name in query}),
            is_fenced=fencing == "on",
        )


def connect(url: BucketUrl, *, patience: timedelta) -> Client:
    """Return a client for the bucket; nothing is asked of it yet.

    Args:
        url: The bucket.
        patience: For how long to repeat a request that fails as if by chance.

    Raises:
        StoreError: obstore is not installed, or does not take what the URL or the environment says.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import AzureStore, GCSStore, S3Store
    except ImportError as error:
        raise StoreUrlError(
            f"{url.place} needs obstore, which is not installed: pip install 'spillway[stores]'"
        ) from error
    kind: Any = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[url.scheme]
    try:
        client: Client = kind(
            url.bucket,
            prefix=url.folder or None,
            config=dict(url.settings),
            client_options=client_options(url, patience),
            retry_config=retries(patience),
        )
    except (BaseError, ValueError) as error:
        if url.scheme == "az" and "account" in str(error).lower():
            raise StoreAccessError(
                f"cannot open {url.place}: no account is named; add ?account=... to the URL, or "
                f"{CREDENTIALS['az']}"
            ) from error
        raise explain(error, action=f"open {url.place}", scheme=url.scheme) from error
    return client


def client_options(url: BucketUrl, patience: timedelta) -> ClientConfig:
    """Return what a client waits for, and whether it may go without encryption."""
    options: ClientConfig = {
        "timeout": _REQUEST_TIMEOUT,
        "read_timeout": min(_STALL_TIMEOUT, patience),
    }
    in_environment = next(
        (os.environ[name] for name in _ENDPOINTS[url.scheme] if name in os.environ), ""
    )
    endpoint = url.settings.get(_SETTINGS[url.scheme]["endpoint"], in_environment)
    if endpoint.startswith("http://"):  # who writes that has decided to go without encryption
        options["allow_http"] = True
    return options


def retries(patience: timedelta) -> RetryConfig:
    """Return how a request that fails as if by chance is repeated."""
    backoff = {"max_backoff": min(timedelta(seconds=15), patience / 4)}
    return {"retry_timeout": patience, "backoff": backoff}  # type: ignore[typeddict-item] # obstore fills in the rest
