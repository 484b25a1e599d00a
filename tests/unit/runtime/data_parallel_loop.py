"""One rank of a data-parallel training: `data_parallel_loop.py FOLDER RANK STOP...`.

It trains to the end; then begins anew, trains to the first STOP and saves; then begins anew once more, in another process
group, goes on from there to the next STOP, and so on to the end. What it did is in `FOLDER/RANK.json`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from spillway.runtime import Session, randomness
from spillway.runtime.training_state import TrainingState
from spillway.workloads.gpt import GPT, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

RANKS = 2
STEPS = 10
PER_EPOCH = 4
BATCH = 2
ACCUMULATE = 3
SHAPE = Shape(vocabulary=16, context=8, width=16, layers=1, heads=2, dropout=0.2)


class Loop:
    def __init__(self, rank: int) -> None:
        randomness.seed_all(rank)
        data = torch.arange(RANKS * PER_EPOCH * BATCH * 9).reshape(-1, 9) * 7 % 16
        self.sampler = DistributedSampler(data, RANKS, rank, seed=5)
        self.loader = StatefulDataLoader(data, batch_size=BATCH, sampler=self.sampler)
        self.model = DistributedDataParallel(GPT(SHAPE))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.state = TrainingState(model=self.model, loader=self.loader, optimizer=self.optimizer)
        self.losses: dict[int, float] = {}

    def run(self, until: int) -> None:
        while self.state.steps_done < until:
            self.sampler.set_epoch(self.state.steps_done // PER_EPOCH)
            for batch in self.state.batches():
                self.micro_step(batch)
                if self.state.steps_done >= until:
                    return

    def micro_step(self, batch: torch.Tensor) -> None:
        is_last = (self.state.steps_done + 1) % ACCUMULATE == 0
        with nullcontext() if is_last else self.model.no_sync():
            logits = self.model(batch[:, :-1])
            loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            loss.backward()
        self.state.steps_done += 1
        self.losses[self.state.steps_done] = loss.item()
        if is_last:
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def done(self) -> dict[str, Any]:
        weights = b"".join(each.detach().numpy().tobytes() for each in self.model.parameters())
        return {"losses": self.losses, "weights": hashlib.sha256(weights).hexdigest()}


def main(folder: Path, rank: int, stops: list[int]) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    # Each loop is gone before its process group, or torch may wait for itself while the group ends.
    with group(folder / "meeting", rank):
        whole = train(rank, STEPS, None)
    stopped: dict[str, Any] = {}
    losses: dict[int, float] = {}
    for attempt, stop in enumerate([*stops, STEPS]):
        with group(folder / f"meeting-{attempt}", rank):
            restored = restore(folder, rank) if attempt else None
            stopped = train(rank, stop, restored, folder / "session")
            losses |= stopped["losses"]
    done = {"whole": whole, "stopped": {**stopped, "losses": losses}}
    (folder / f"{rank}.json").write_text(json.dumps(done))


def train(
    rank: int, until: int, restored: dict[str, Any] | None, folder: Path | None = None
) -> dict[str, Any]:
    """Train a new loop from where another was, to a step, and save it in `folder`; return what it did."""
    loop = Loop(rank)
    if restored is not None:
        assert loop.state.load_state_dict(restored) == ()
    loop.run(until)
    state = loop.state.state_dict()
    if folder is not None and rank == 0:  # it speaks for all
        Session.local(folder).checkpoint(until, state)
    return loop.done()


@contextmanager
def group(meeting: Path, rank: int) -> Iterator[None]:
    distributed.init_process_group(
        "gloo", init_method=meeting.as_uri(), rank=rank, world_size=RANKS
    )
    yield
    distributed.destroy_process_group()


def restore(folder: Path, rank: int) -> Any:
    """Return what rank 0 read from the store."""
    restored: list[Any] = [None]
    if rank == 0:
        checkpoint = Session.local(folder / "session").restore()
        assert checkpoint is not None
        restored = [checkpoint.state]
    distributed.broadcast_object_list(restored)
    return restored[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), [int(stop) for stop in sys.argv[3:]])
