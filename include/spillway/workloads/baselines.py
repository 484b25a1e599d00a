"""What a model has to beat: how well counts of the training tokens predict the validation tokens, in nats a token."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spillway.workloads.batches import Tokens

Counts: TypeAlias = NDArray[np.int64]

_PRIOR_TOKENS = 100.0


def count_pairs(streams: Iterable[Tokens], vocabulary: int) -> Counts:
    """Return how often each token follows each, (before, after); pairs do not reach from one stream to the next."""
    counts = np.zeros(vocabulary * vocabulary, dtype=np.int64)
    for stream in streams:
        pairs = stream[:-1].astype(np.int64) * vocabulary + stream[1:]
        counts += np.bincount(pairs, minlength=vocabulary * vocabulary)
    return counts.reshape(vocabulary, vocabulary)


def unigram_loss(train: Counts, validation: Counts) -> float:
    """Return the cross-entropy of a model that knows only how frequent each token is; both are pair counts.

    One is added to each count, so a token that training never saw costs much and not infinitely much.
    """
    return float(-(validation.sum(axis=0) * np.log(_frequencies(train))).sum() / validation.sum())


def bigram_loss(train: Counts, validation: Counts) -> float:
    """Return the cross-entropy of a model that knows which token follows which; both are pair counts.

    Each row of counts starts with 100 tokens spread by the unigram distribution. Source: MacKay and Peto, A Hierarchical
    Dirichlet Language Model, 1995.
    """
    before, after = np.nonzero(validation)
    prior = _PRIOR_TOKENS * _frequencies(train)
    share = (train[before, after] + prior[after]) / (train.sum(axis=1)[before] + _PRIOR_TOKENS)
    return float(-(validation[before, after] * np.log(share)).sum() / validation.sum())


def _frequencies(pairs: Counts) -> NDArray[np.float64]:
    counts = pairs.sum(axis=0) + 1.0
    share: NDArray[np.float64] = counts / counts.sum()
    return share
