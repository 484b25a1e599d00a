"""What placement is told of the pools: learned from the books, priced from the place of the store."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from spillway.catalog.store_place import StorePlace
from spillway.dispatch import Finished, Waiting
from spillway.model import HourlyCommitment, Lease, Market, Placement, Quota, Resources, Unplaced
from spillway.placement.transfer import Place
from spillway.testing.fake_backend import FakeBackend
from spillway.testing.fake_deployment import ON_DEMAND, SPEC, SPOT, FakeDeployment, running

if TYPE_CHECKING:
    from pathlib import Path

    from spillway.dispatch import TaskRequest
    from spillway.model import Pool

HOUR = timedelta(hours=1)


def placed(world: FakeDeployment, **changes: object) -> Placement:
    decision = world.dispatcher.place(replace(SPEC, **changes))  # type: ignore[arg-type]  # fields by name
    assert isinstance(decision, Placement)
    return decision


def lose(world: FakeDeployment, request: TaskRequest, lease: Lease) -> None:
    """Let the provider take the lease back after a minute in which it was seen to run, and settle it."""
    world.dispatcher.observe(lease.pool, [lease])
    world.clock.advance(60)
    world.providers[lease.pool].preempt(lease.key)
    world.dispatcher.observe(lease.pool, [lease])
    world.dispatcher.settle(world.ledger.lease(lease.key))


def test_a_pool_that_keeps_taking_capacity_back_is_expected_to_go_on(tmp_path: Path) -> None:
    world = FakeDeployment(tmp_path, pools=(SPOT, ON_DEMAND))
    before = placed(world).offer
    assert before.pool == "spot"
    for number in range(6):
        request = world.request(f"task{number}")
        lose(world, request, running(world.dispatcher.begin(request)))
        world.clock.advance(120)  # cools down
    world.clock.advance(600)  # what was asked a moment ago is not asked again
    after = next(
        offer
        for offer in world.dispatcher.quotes.offers(SPEC, world.clock())
        if offer.pool == "spot"
    )
    assert before.preemptions_per_hour is not None
    assert after.preemptions_per_hour is not None
    assert after.preemptions_per_hour > 10 * before.preemptions_per_hour


def test_an_offer_says_when_the_provider_was_asked_for_room(tmp_path: Path) -> None:
    world = FakeDeployment(tmp_path, pools=(ON_DEMAND,))
    asked_at = world.clock()
    (fresh,) = world.dispatcher.quotes.offers(SPEC, asked_at)
    world.clock.advance(40)
    minute = timedelta(minutes=1)
    (kept,) = world.dispatcher.quotes.offers(SPEC, world.clock(), max_age=minute)
    world.clock.advance(40)
    (anew,) = world.dispatcher.quotes.offers(SPEC, world.clock(), max_age=minute)
    assert (fresh.room_at, kept.room_at, anew.room_at) == (asked_at, asked_at, world.clock())


class Cached(FakeBackend):
    """A backend that asks its provider rarely, and says when it did."""

    said_at: datetime | None = None

    def room_said_at(self) -> datetime:
        self.said_at = self.said_at or super().room_said_at()
        return self.said_at


class CachedDeployment(FakeDeployment):
    """Providers that are asked rarely."""

    def _backend_of(self, pool: Pool) -> Cached:
        return Cached(self.providers[pool.name])


def test_an_offer_is_as_old_as_what_the_provider_said(tmp_path: Path) -> None:
    world = CachedDeployment(tmp_path, pools=(ON_DEMAND,))
    said_at = world.clock()
    world.dispatcher.quotes.offers(SPEC, said_at)
    world.clock.advance(12 * 60)
    (offer,) = world.dispatcher.quotes.offers(SPEC, world.clock())
    assert offer.room_at == said_at


def test_a_refusal_since_the_provider_said_that_there_is_room_counts_more(tmp_path: Path) -> None:
    world = CachedDeployment(tmp_path, pools=(ON_DEMAND,))
    world.dispatcher.quotes.offers(SPEC, world.clock())
    world.clock.advance(10)
    world.ledger.note_refusal("on_demand", now=world.clock())
    world.clock.advance(10)
    (offer,) = world.dispatcher.quotes.offers(SPEC, world.clock())
    assert offer.cooling_down
    (offer,) = world.new_process().quotes.offers(SPEC, world.clock())  # it asks anew
    assert not offer.cooling_down


def test_a_job_stays_off_capacity_that_its_provider_ends_too_early(tmp_path: Path) -> None:
    owed = HourlyCommitment(usd_per_slot_hour=Decimal(1))
    block = replace(ON_DEMAND, name="block", market=Market.RESERVED, commitment=owed)
    world = FakeDeployment(tmp_path, pools=(block, ON_DEMAND))
    fixed = {"work": 4 * HOUR, "checkpoints": False}
    assert placed(world, **fixed).offer.pool == "block"
    asked_at = world.clock()
    world.providers["block"].ends_at = asked_at + 3 * HOUR
    (said, _) = world.dispatcher.quotes.offers(SPEC, asked_at)
    assert (said.ends_at, said.end_said_at) == (asked_at + 3 * HOUR, asked_at)
    decision = placed(world, **fixed)
    assert decision.offer.pool == "on_demand"
    assert "said 0 s ago, in 3.0 h; the task takes" in decision.passed_over[0].reason
    short = placed(world, work=2 * HOUR, checkpoints=False)
    assert (short.offer.pool, short.estimate.cost_usd) == ("block", 0)
    ends = f"it ends on {asked_at + 3 * HOUR:%Y-%m-%d %H:%M} UTC as {block.backend} said 0 s ago"
    assert ends in short.reason
    world.clock.advance(3 * 3600)
    decision = world.dispatcher.place(replace(SPEC, markets=frozenset({Market.RESERVED})))
    assert isinstance(decision, Unplaced)
    assert {one.offer.pool: one.reason for one in decision.passed_over}[
        "block"
    ] == "has no free slot"


def test_room_is_foreseen_until_the_provider_ends_it(tmp_path: Path) -> None:
    owed = HourlyCommitment(usd_per_slot_hour=Decimal(1))
    block = replace(ON_DEMAND, name="block", market=Market.RESERVED, slots=2, commitment=owed)
    world = FakeDeployment(tmp_path, pools=(block,))
    now = world.clock()
    world.providers["block"].ends_at = now + 2 * HOUR
    world.dispatcher.quotes.offers(SPEC, now)
    (ahead,) = world.dispatcher.quotes.room_ahead(now, now + 5 * HOUR)
    assert ahead.free[1] == 2
    assert ahead.free[-1] == 0


def test_a_job_that_reports_progress_teaches_its_speed(tmp_path: Path) -> None:
    h100 = Resources(cpus=2, memory_gib=4, accelerator="H100", accelerator_count=1)
    pool = replace(ON_DEMAND, shape=h100)
    world = FakeDeployment(tmp_path, pools=(pool,))
    spec = replace(SPEC, resources=replace(h100, cpus=1), work=4 * HOUR)
    request = world.request(spec=spec)
    expected = placed(world, resources=spec.resources, work=spec.work).offer.speed
    lease = running(world.dispatcher.begin(request))
    began = world.clock()
    world.clock.advance(3600)
    world.say(lease, step=100, total_steps=100, first_step=0, first_progress_at=began)
    world.succeed(lease)
    assert isinstance(world.dispatcher.advance(request, lease.key), Finished)
    learned = placed(world, resources=spec.resources, work=spec.work).offer.speed
    assert learned > expected


def test_egress_from_a_far_store_is_part_of_the_price(tmp_path: Path) -> None:
    near = replace(ON_DEMAND, name="near", provider="aws", region="us-east-1")
    far = replace(near, name="far", region="ap-southeast-1", list_usd_per_hour=Decimal("0.99"))
    store = StorePlace(place=Place(provider="aws", region="us-east-1"), jurisdiction="US")
    world = FakeDeployment(tmp_path, pools=(near, far), store_place=store)
    assert placed(world).offer.pool == "far"  # nothing to move
    decision = placed(world, state_gib=10.0)
    assert decision.offer.pool == "near"
    (other,) = decision.passed_over
    assert other.estimate is not None
    assert other.estimate.transfer_usd > decision.estimate.transfer_usd


def test_a_task_that_must_stay_needs_a_store_that_stays(tmp_path: Path) -> None:
    pool = replace(ON_DEMAND, jurisdiction="EU", market=Market.ON_DEMAND)
    inside = FakeDeployment(tmp_path, pools=(pool,), store_place=StorePlace(jurisdiction="EU"))
    evidence = placed(inside, residency=frozenset({"EU"})).residency
    assert evidence is not None
    assert evidence.stores_in == "EU"
    outside = FakeDeployment(tmp_path / "other", pools=(pool,), ledger=inside.ledger)
    assert not isinstance(
        outside.dispatcher.place(replace(SPEC, residency=frozenset({"EU"}))), Placement
    )


def test_pools_of_one_quota_use_it_up_together(tmp_path: Path) -> None:
    quota = Quota(name="aws-g", slots=1)
    pools = (replace(SPOT, quota=quota), replace(ON_DEMAND, quota=quota))
    world = FakeDeployment(tmp_path, pools=pools)
    assert running(world.dispatcher.begin(world.request("first"))).pool == "spot"
    step = world.dispatcher.begin(world.request("second"))
    assert isinstance(step, Waiting)
    reasons = {p.offer.pool: p.reason for p in step.unplaced.passed_over}
    assert "used up to the provider's quota" in reasons["on_demand"]
    assert "used up to the provider's quota" in reasons["spot"]


def test_a_doubtful_price_wins_once_a_launch_has_proved_it(tmp_path: Path) -> None:
    doubtful = replace(SPOT, price_doubts=("it is far below the same machine elsewhere",))
    world = FakeDeployment(tmp_path, pools=(doubtful, ON_DEMAND))
    decision = placed(world)
    assert decision.offer.pool == "on_demand"
    assert "its price is not trusted" in decision.passed_over[0].reason
    trusted = FakeDeployment(tmp_path / "trusted", pools=(SPOT, ON_DEMAND), ledger=world.ledger)
    lease = running(trusted.dispatcher.begin(trusted.request()))
    trusted.dispatcher.observe(lease.pool, [lease])
    assert placed(world).offer.pool == "spot"
    for usd in ("0", "0.03", "0.40"):  # another price was not launched at
        other = replace(doubtful, list_usd_per_hour=Decimal(usd))
        changed = FakeDeployment(tmp_path / usd, pools=(other, ON_DEMAND), ledger=world.ledger)
        assert placed(changed).offer.pool == "on_demand"


def test_what_a_lease_stores_is_charged_beyond_its_end(tmp_path: Path) -> None:
    store = StorePlace(place=Place(provider="aws", region="us-east-1"))
    world = FakeDeployment(tmp_path, pools=(ON_DEMAND,), store_place=store)
    request = world.request()
    lease = running(world.dispatcher.begin(request))
    began = world.clock()
    world.clock.advance(3600)
    world.say(lease, stored_gib=10.0, stored_since=began, stored_from=began)
    world.succeed(lease)
    world.dispatcher.advance(request, lease.key)
    world.clock.advance(729 * 3600)
    (charge,) = world.ledger.storage_charges(now=world.clock())
    assert charge.cost == Decimal("0.23")  # 10 GiB for a month
