"""Budgets in the simulation: a job's leases share one, as in production."""

from __future__ import annotations

from decimal import Decimal

import pytest

from sim.sim_worlds import HOUR, START, gone, job, pool, scenario
from spillway.model import Market
from spillway.sim.engine import simulate
from spillway.sim.production import Spillway


@pytest.mark.parametrize(("budget", "attempts"), [("18", 2), ("17", 1), ("9", 0)])
def test_a_job_that_was_lost_has_spent_of_its_budget(budget: str, attempts: int) -> None:
    """Eight of ten hours are lost, at a dollar an hour; all ten are to be done again."""
    steady = pool("steady", Market.ON_DEMAND, "1")
    ten = job("ten", 10, max_cost_usd=Decimal(budget))
    outcome = simulate(scenario(steady, jobs=[ten], outages=gone("steady", 8, 9)), Spillway())
    assert len(outcome.attempts) == attempts
    (found,) = outcome.jobs
    assert found.finished_at == (START + 19 * HOUR if attempts == 2 else None)
