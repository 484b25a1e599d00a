"""Errors of Google's clients: each class has its own row, and none is lost."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from requests import Response

from spillway.backends.google.failures import KINDS, classify, question, translated
from spillway.errors import AccessError, CapacityError, RejectedError, TransientError

# Of uploads and downloads, which no backend makes.
NOT_OURS = {
    "MissingStatusHeaderError",
    "ResumableTransferError",
    "TransferStalledError",
    "UnseekableStreamError",
    "UploadCancelledError",
}


def test_every_class_of_the_library_has_its_row() -> None:
    theirs = {
        one
        for one in vars(api).values()
        if isinstance(one, type)
        and issubclass(one, api.GoogleAPIError)
        and one.__name__ not in NOT_OURS
    }
    assert {one.__name__ for one in theirs - KINDS.keys()} == set()


@pytest.mark.parametrize("kind", sorted(KINDS, key=lambda one: one.__name__))
def test_every_class_becomes_one_of_ours(kind: type[api.GoogleAPIError]) -> None:
    error = kind("what happened", Exception()) if kind is api.RetryError else kind("what happened")
    with pytest.raises(KINDS[kind][0], match="the service says") as caught:
        _raise(error)
    assert caught.value.__cause__ is error
    assert caught.value.backend == "google_batch"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (auth.RefreshError("invalid_grant: Token has been revoked"), AccessError),
        (auth.DefaultCredentialsError("none"), AccessError),
        (auth.RefreshError("busy", retryable=True), TransientError),
        (auth.TransportError("no route"), TransientError),
        (ConnectionError("refused"), TransientError),
        (api.ServiceUnavailable("Getting metadata from plugin failed: RefreshError"), AccessError),
        (api.ServiceUnavailable("The zone does not have enough resources"), CapacityError),
        (api.ResourceExhausted("Quota exceeded for 'requests per minute'"), TransientError),
    ],
)
def test_what_is_behind_an_error_counts(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        _raise(error)


AUTH_ERRORS = sorted(
    (one for one in vars(auth).values() if isinstance(one, type) and issubclass(one, Exception)),
    key=lambda one: one.__name__,
)


@pytest.mark.parametrize("kind", AUTH_ERRORS)
@pytest.mark.parametrize("retryable", [False, True])
def test_every_class_of_credentials_becomes_one_of_ours(kind: Any, retryable: bool) -> None:
    error = kind("what happened", retryable=retryable)
    passes = error.retryable or issubclass(kind, auth.TransportError)
    with pytest.raises(TransientError if passes else AccessError, match="no token") as caught:
        _raise(error)
    assert caught.value.__cause__ is error


def test_a_question_that_is_refused_is_no_answer() -> None:
    with pytest.raises(TransientError), question():
        raise RejectedError("no such region", backend="google_batch")
    with pytest.raises(AccessError), question():
        raise AccessError("not you", backend="google_batch")


DELAY = RetryInfo(retry_delay=Duration(seconds=3, nanos=500_000_000))


@pytest.mark.parametrize(
    ("header", "details", "seconds"),
    [
        ("7", [], 7),
        ("7", [DELAY], 7),
        (None, [DELAY], 3.5),
        (None, [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"}], 3.5),
        (None, [{"retryDelay": "soon"}, ErrorInfo(reason="BUSY"), "words"], None),
    ],
)
@pytest.mark.parametrize("kind", [api.TooManyRequests, api.ServiceUnavailable])
def test_what_google_says_of_waiting_is_read(
    kind: type[api.GoogleAPICallError], header: str | None, details: list[Any], seconds: float
) -> None:
    answer = Response()
    answer.headers.update({"Retry-After": header} if header else {})
    with pytest.raises(TransientError) as caught, question():
        _raise(kind("too fast", details=details, response=answer))
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert caught.value.retry_after == expected


def test_an_unknown_class_of_a_later_library_goes_by_its_parent() -> None:
    later = type("TooPolite", (api.ClientError,), {})
    assert classify(later("please"))[0] is RejectedError


def _raise(error: Exception) -> None:
    with translated("google_batch", "the service"):
        raise error


def test_a_clock_that_is_wrong_is_told() -> None:
    said = (
        "invalid_grant: Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
        " Check your iat and exp values in the JWT claim."
    )
    with pytest.raises(AccessError, match="clock"), translated("google_batch", "Batch"):
        raise auth.RefreshError(said)
