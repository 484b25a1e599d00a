"""Budgets in the simulation: a job's leases share one, as in production."""

from __future__ import annotations

from decimal import Decimal

import pytest

from sim.sim_worlds import HOUR, START, gone, job, pool, scenario
from spillway.model import Market
from spillway.sim.engine import simulate
from spillway.sim.production import Spillway
from spillway.sim.scenario import PriceChange


@pytest.mark.parametrize(("budget", "attempts"), [("18", 2), ("17", 1), ("9", 0)])
def test_a_job_that_was_lost_has_spent_of_its_budget(budget: str, attempts: int) -> None:
    """Eight of ten hours are lost, at a dollar an hour; all ten are to be done again."""
    steady = pool("steady", Market.ON_DEMAND, "1")
    ten = job("ten", 10, max_cost_usd=Decimal(budget))
    outcome = simulate(scenario(steady, jobs=[ten], outages=gone("steady", 8, 9)), Spillway())
    assert len(outcome.attempts) == attempts
    (found,) = outcome.jobs
    assert found.finished_at == (START + 19 * HOUR if attempts == 2 else None)


@pytest.mark.parametrize("budget", ["7.7", "5.7"])
def test_what_a_lease_has_cost_so_far_is_spent_when_it_might_be_left(budget: str) -> None:
    """Half is done for 2.50 $ when spot becomes dear; the other half takes 5 $ on demand, if that is left."""
    spot = pool("spot", Market.SPOT, "0.5", preemptions_per_hour=0.01)
    steady = pool("steady", Market.ON_DEMAND, "1")
    ten = job("ten", 10, due=20, checkpoints=True, max_cost_usd=Decimal(budget))
    dear = PriceChange(at=START + 5 * HOUR, pool="spot", usd_per_hour=Decimal(2))
    outcome = simulate(scenario(steady, spot, jobs=[ten], prices=[dear]), Spillway())
    spent = sum(
        one.marginal_usd_per_hour * Decimal((one.ended_at - one.granted_at) / HOUR)
        for one in outcome.attempts
    )
    assert outcome.jobs[0].finished_at is not None
    assert spent <= Decimal(budget)
