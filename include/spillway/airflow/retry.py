"""Which failures Airflow should try again.

Preemptions are not here: they make new attempts inside one try, since a retry policy cannot go past `retries`.
"""

from __future__ import annotations

from airflow.sdk.definitions.retry_policy import ExceptionRetryPolicy, RetryAction, RetryRule

from spillway.errors import (
    AccessError,
    BudgetError,
    NoOfferError,
    RejectedError,
    SpecError,
    StoreMissingError,
    StoreUrlError,
    UnfencedStoreError,
)

RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception=[
                SpecError,
                NoOfferError,
                BudgetError,
                AccessError,
                RejectedError,
                StoreUrlError,
                StoreMissingError,
                UnfencedStoreError,
            ],
            action=RetryAction.FAIL,
            reason="trying again cannot help; the message says what to change",
        ),
    ]
)
"""Fails at once what no retry can cure; the rest is left to `retries`."""
