"""A loop that is stopped anywhere and started again, all of it new, does what the loop that was never stopped does."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.data import Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from spillway.checkpoints.formats import decode_state, encode_state
from spillway.errors import WrongCheckpointError
from spillway.runtime import randomness
from spillway.runtime.training_state import TrainingState
from spillway.workloads.gpt import GPT, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPE = Shape(vocabulary=32, context=8, width=16, layers=1, heads=2, dropout=0.2)
MICRO_STEPS = 18
PER_EPOCH = 6
ACCUMULATE = 4  # more than divides an epoch, so that gradients wait over its end
BATCH = 4
# torchdata calls what torch has deprecated since.
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.set_num_threads(threads)


class Sentences(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return PER_EPOCH * BATCH

    def __getitem__(self, index: int) -> torch.Tensor:
        generator = np.random.Generator(np.random.Philox(key=[7, index]))
        return torch.from_numpy(generator.integers(SHAPE.vocabulary, size=SHAPE.context + 1))


@dataclass(kw_only=True)
class Loop:
    """A training with everything in it that has a state."""

    workers: int = 0
    scaled: bool = True
    width: int = SHAPE.width
    losses: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        randomness.seed_all(3)
        self.model = GPT(
            Shape(vocabulary=32, context=8, width=self.width, layers=1, heads=2, dropout=0.2)
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=6)
        # It grows after two steps and overflows in between: its state matters.
        self.scaler = torch.amp.GradScaler(
            "cpu", init_scale=2.0**15, growth_interval=2, enabled=self.scaled
        )
        self.loader = StatefulDataLoader(
            Sentences(),
            batch_size=BATCH,
            shuffle=True,
            num_workers=self.workers,
            snapshot_every_n_steps=5,
        )
        self.state = TrainingState(
            model=self.model,
            loader=self.loader,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            scaler=self.scaler,
        )
        self.state.metrics["loss_sum"] = 0.0

    def run(self, until: int) -> None:
        while self.state.steps_done < until:
            for batch in self.state.batches():
                self.micro_step(batch)
                if self.state.steps_done >= until:
                    return

    def micro_step(self, batch: torch.Tensor) -> None:
        noisy = batch.roll(random.randrange(3) + np.random.randint(3), dims=1)  # noqa: NPY002
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.model(noisy[:, :-1])
        loss = functional.cross_entropy(logits.float().flatten(0, 1), noisy[:, 1:].flatten())
        self.scaler.scale(loss / ACCUMULATE).backward()
        self.state.steps_done += 1
        self.losses[self.state.steps_done] = loss.item()
        self.state.metrics["loss_sum"] += loss.item()
        if self.state.steps_done % ACCUMULATE == 0:
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            self.scheduler.step()

    def end(self) -> dict[str, Any]:
        return {
            "weights": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rate": self.scheduler.get_last_lr(),
            "scaler": self.scaler.state_dict(),
            "metrics": self.state.metrics,
        }


def through_a_checkpoint(state: dict[str, Any]) -> dict[str, Any]:
    parts = {name: bytes(memoryview(part)) for name, part in encode_state(state).items()}
    return decode_state(parts)


def interrupted(stops: list[int], **how: Any) -> Loop:
    losses: dict[int, float] = {}
    loop = Loop(losses=losses, **how)
    for stop in stops:
        loop.run(stop)
        saved = through_a_checkpoint(loop.state.state_dict())
        loop = Loop(losses=losses, **how)
        randomness.seed_all(999)
        assert loop.state.load_state_dict(saved) == ()
    loop.run(MICRO_STEPS)
    return loop


def assert_equal(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@pytest.fixture(scope="module")
def uninterrupted() -> dict[int, Loop]:
    return {}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_loop_stopped_anywhere_ends_bit_for_bit_like_one_that_was_not(
    uninterrupted: dict[int, Loop], seed: int, workers: int
) -> None:
    if workers not in uninterrupted:
        uninterrupted[workers] = interrupted([], workers=workers)
    expected = uninterrupted[workers]
    stops = sorted(random.Random(seed).sample(range(1, MICRO_STEPS), 2))
    loop = interrupted(stops, workers=workers)
    assert loop.losses == expected.losses, stops
    assert_equal(loop.end(), expected.end())


@pytest.mark.parametrize("stop", [PER_EPOCH, ACCUMULATE, ACCUMULATE + 1])
def test_it_does_so_at_the_end_of_an_epoch_and_within_an_accumulation(stop: int) -> None:
    expected, loop = interrupted([]), interrupted([stop])
    assert loop.losses == expected.losses
    assert_equal(loop.end(), expected.end())


def test_the_scaler_and_the_scheduler_have_moved_by_then() -> None:
    """Or the tests above would not show that their states are kept."""
    loop, fresh = interrupted([]), Loop()
    assert loop.scaler.get_scale() != fresh.scaler.get_scale()
    assert loop.scheduler.get_last_lr() != fresh.scheduler.get_last_lr()


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"workers": 1}, "data-loader workers 0 and this run has 1: give the same"),
        ({"width": 32}, "another model.*ask for a fresh start"),
    ],
)
def test_a_state_of_something_else_is_refused(change: dict[str, Any], remedy: str) -> None:
    loop = Loop()
    loop.run(3)
    with pytest.raises(WrongCheckpointError, match=remedy):
        Loop(**change).state.load_state_dict(loop.state.state_dict())


def test_a_state_with_other_parts_is_refused() -> None:
    loop = Loop()
    alone = TrainingState(model=loop.model, loader=loop.loader, optimizer=loop.optimizer)
    with pytest.raises(WrongCheckpointError, match="saved with parts"):
        alone.load_state_dict(loop.state.state_dict())


def test_another_number_of_threads_is_said() -> None:
    loop = Loop()
    saved = loop.state.state_dict()
    torch.set_num_threads(2)
    (difference,) = Loop().state.load_state_dict(saved)
    assert "1 threads" in difference
    assert "2 threads" in difference


def test_an_accelerator_s_random_numbers_are_kept_and_one_that_is_gone_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No accelerator can be had here; what torch says of one stands in for it, and the CPU's generator for its own."""
    drawn = torch.Generator()
    module = SimpleNamespace(get_rng_state=drawn.get_state, set_rng_state=drawn.set_state)
    with monkeypatch.context() as machine:
        machine.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
        machine.setattr(torch, "get_device_module", lambda _: module)
        saved = through_a_checkpoint(randomness.capture())
        first = torch.rand(3, generator=drawn)
        randomness.restore(saved)
        assert torch.equal(torch.rand(3, generator=drawn), first)
    randomness.restore(saved)
    assert "accelerator" not in randomness.capture()
