"""What obstore's exceptions mean to us, and what to do about each.

Told apart by the names of their classes, so that nothing has to be imported to read the table.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from spillway.errors import (
    StoreAccessError,
    StoreError,
    StoreFullError,
    StoreMissingError,
    StoreUnavailableError,
    UnfencedStoreError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

CREDENTIALS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role",
        "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or give the machine a service account",
        "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or give the machine an identity",
    }
)
"""How each kind of store is given credentials, by the scheme of its URL."""

_PERMISSIONS = "check that the credentials are the right ones and may list, read, write and delete"
_BUCKET = "create the bucket, or correct its name in the URL"
_LATER = "check the endpoint and the network, and try again"

ERRORS: Final[Mapping[str, tuple[type[StoreError], str]]] = MappingProxyType(
    {
        "PermissionDeniedError": (StoreAccessError, _PERMISSIONS),
        "UnauthenticatedError": (StoreAccessError, _PERMISSIONS),
        "FileNotFoundError": (StoreMissingError, _BUCKET),
        "NotFoundError": (StoreMissingError, _BUCKET),
        "GenericError": (StoreUnavailableError, _LATER),
        "JoinError": (StoreUnavailableError, "the client stopped in the middle of it; try again"),
        "AlreadyExistsError": (StoreError, "somebody else writes there; use a prefix of your own"),
        "PreconditionError": (StoreUnavailableError, "it changed meanwhile; try again"),
        "NotModifiedError": (StoreUnavailableError, "it changed meanwhile; try again"),
        "InvalidPathError": (StoreError, "write the path as a/b/c, without control characters"),
        "ValueError": (StoreError, "write the path as a/b/c, and the URL as documented"),
        "NotSupportedError": (UnfencedStoreError, "use a store that offers conditional writes"),
        "NotImplementedError": (UnfencedStoreError, "use a store that offers conditional writes"),
        "UnknownConfigurationKeyError": (StoreError, "install a newer obstore"),
        "BaseError": (StoreError, "see the error before this one"),
        "OSError": (StoreUnavailableError, _LATER),
    }
)
"""What is raised instead of each, and the remedy; a class that is not here counts as the base it has."""

# Source: the vendors' lists of error codes for S3, Cloud Storage (XML) and Blob Storage.
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "bucket does not exist")
_ROLE = re.compile(
    r"169\.254\.169\.254|metadata\.google\.internal|/api/token|computeMetadata|metadata/identity|"
    r"OAuth",
)
_DENIED = re.compile(
    r"status code: 40[13]\b"
)  # of a listing obstore tells no more than that it failed
_REGION = "incorrectly configured region"

# Source: Ceph, "Quota management" (403); MinIO, "Error codes" (507); Azure Storage, "Common REST API error codes".
_FULL = re.compile(r"QuotaExceeded|StorageFull|status code: 507\b|InsufficientStorage")


def is_bucket_missing(error: Exception) -> bool:
    """Return whether an error about an object that is not there is about its bucket in truth."""
    return any(code in str(error) for code in _NO_BUCKET)


def is_range_refused(error: Exception) -> bool:
    """Return whether an error says that the object has no byte of the range that was asked for."""
    return "status code: 416" in str(error)


def explain(error: Exception, *, action: str, scheme: str) -> StoreError:
    """Return what to raise in place of `error`.

    Args:
        error: What obstore raised.
        action: What was tried, such as `write s3://bucket/a`.
        scheme: Kind of the store, as in its URL.
    """
    kind, remedy = next(
        (ERRORS[base.__name__] for base in type(error).__mro__ if base.__name__ in ERRORS),
        (StoreError, "see the error before this one"),
    )
    text = str(error)
    if is_bucket_missing(error):
        kind, remedy = StoreMissingError, _BUCKET
    elif _FULL.search(text):
        kind, remedy = StoreFullError, "free space there, or raise the quota"
    elif kind is StoreUnavailableError and _DENIED.search(text) and not _ROLE.search(text):
        kind, remedy = StoreAccessError, _PERMISSIONS
    elif kind is StoreUnavailableError and _ROLE.search(text):
        kind, remedy = StoreAccessError, f"no credentials were found: {CREDENTIALS[scheme]}"
    elif _REGION in text:
        kind, remedy = StoreError, "name the bucket's region: add ?region=... to the URL"
    return kind(f"cannot {action}: {_reason(text)}; {remedy}")


def _reason(text: str) -> str:
    """Return what the store said, in a line and without the query of a URL, where signatures are."""
    said = re.search(r"<Code>(.*?)</Code>\s*<Message>(.*?)</Message>", text, re.DOTALL)
    line = f"{said[1]}: {said[2]}" if said else text.partition("\n\nDebug source")[0]
    return re.sub(r"\?\S+", "?...", " ".join(line.split()))[:400].rstrip(".")
