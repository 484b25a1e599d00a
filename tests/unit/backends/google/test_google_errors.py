"""Errors of Google's clients: each class has its own row, and none is lost."""

from __future__ import annotations

import pytest
from google.api_core import exceptions as api
from google.auth import exceptions as auth

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


def test_a_question_that_is_refused_is_no_answer() -> None:
    with pytest.raises(TransientError), question():
        raise RejectedError("no such region", backend="google_batch")
    with pytest.raises(AccessError), question():
        raise AccessError("not you", backend="google_batch")


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
