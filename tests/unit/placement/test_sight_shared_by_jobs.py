"""What is believed of pools at a look is worked out once, and is the same as worked out afresh."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.placement.availability import chain_of
from spillway.placement.availability_prior import prior
from spillway.placement.policy_values import PolicyState
from spillway.placement.sight import see, sight

NOW = datetime(2026, 10, 1, tzinfo=UTC)
MODEL = prior(2)
SEEN = st.tuples(*(st.tuples(st.just(name), st.sampled_from([True, False, None])) for name in "ab"))


def test_jobs_that_look_at_one_instant_have_one_sight() -> None:
    seen = (("a", True), ("b", None))
    first, second = (sight(seen, NOW, PolicyState(), market_pools=2, model=MODEL) for _ in "12")
    assert first is second


@given(looks=st.lists(st.tuples(st.floats(1.0, 9e4), SEEN), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_what_was_kept_is_what_would_be_worked_out(looks: list[tuple[float, object]]) -> None:
    state, now = PolicyState(), NOW
    for seconds, seen in looks:
        now += timedelta(seconds=seconds)
        kept = sight(seen, now, state, market_pools=2, model=MODEL)  # type: ignore[arg-type]
        hours = 0.0 if state.seen_at is None else (now - state.seen_at) / timedelta(hours=1)
        afresh = see.__wrapped__(seen, hours, state.beliefs, state.market, 2, MODEL)  # type: ignore[arg-type]
        assert (kept.pools, kept.beliefs, kept.chances) == (
            afresh.pools,
            afresh.beliefs,
            afresh.chances,
        )
        state = kept.remembered(now)
        assert sum(state.market) == pytest.approx(1.0, abs=1e-4)


def test_looks_in_quick_succession_still_let_time_pass() -> None:
    """A thousand looks a second apart leave what one look after their sum leaves."""
    unseen = (("a", None),)
    state = sight((("a", True),), NOW, PolicyState(), market_pools=1, model=MODEL).remembered(NOW)
    late = NOW + timedelta(seconds=300)
    once = sight(unseen, late, state, market_pools=1, model=MODEL)
    for second in range(1, 301):
        now = NOW + timedelta(seconds=second)
        state = sight(unseen, now, state, market_pools=1, model=MODEL).remembered(now)
    half = chain_of(MODEL).half
    assert sum(state.market[half:]) == pytest.approx(once.pools["a"].chance, abs=1e-3)
