"""Training over several processes, for the tests of launchers."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spillway.runtime import Session

BATCH = 2
PER_EPOCH = 5


def train_gpt(session: Session, steps: int, stop_after: int | None = None) -> dict[str, Any]:
    """Train the GPT of the workloads, the data split over the ranks; return the losses of this rank and its weights.

    Everything that draws random numbers or has a position is in it: dropout, a shuffling sampler, a loader with a worker.
    """
    import torch.distributed as dist

    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    assert (session.gang.rank, session.gang.nodes) == (rank, ranks)
    # The model is gone before its process group, or torch may wait for itself while the group ends.
    done = _train_gpt(session, steps, stop_after)
    dist.destroy_process_group()
    return done


def _train_gpt(session: Session, steps: int, stop_after: int | None) -> dict[str, Any]:
    import hashlib

    import torch
    from torch.nn import functional
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DistributedSampler
    from torchdata.stateful_dataloader import StatefulDataLoader

    from spillway.runtime import randomness
    from spillway.runtime.training_state import TrainingState
    from spillway.workloads.gpt import GPT, Shape

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    rank, ranks = session.gang.rank, session.gang.nodes
    randomness.seed_all(rank)
    shape = Shape(vocabulary=16, context=8, width=16, layers=1, heads=2, dropout=0.2)
    model = DistributedDataParallel(GPT(shape))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    data = torch.arange(ranks * PER_EPOCH * BATCH * 9).reshape(-1, 9) * 7 % 16
    sampler = DistributedSampler(data, ranks, rank, seed=5)
    loader = StatefulDataLoader(data, batch_size=BATCH, sampler=sampler, num_workers=1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    state = TrainingState(model=model, loader=loader, optimizer=optimizer, scheduler=scheduler)
    begun = 0
    if restored := session.restore():
        assert state.load_state_dict(restored.state) == ()
        begun = restored.step
    losses: dict[str, float] = {}
    while state.steps_done < steps:
        sampler.set_epoch(state.steps_done // PER_EPOCH)
        for batch in state.batches():
            logits = model(batch[:, :-1])
            loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            scheduler.step()
            state.steps_done += 1
            losses[str(state.steps_done)] = loss.item()
            session.progress(state.steps_done, steps)
            if state.steps_done == stop_after:
                lose_the_last(session)
            if session.should_checkpoint(state.steps_done):
                session.checkpoint(state.steps_done, state.state_dict())
            if state.steps_done >= steps:
                break
    weights = b"".join(each.detach().numpy().tobytes() for each in model.parameters())
    return {
        "losses": losses,
        "weights": hashlib.sha256(weights).hexdigest(),
        "ranks": ranks,
        "begun": begun,
    }


def lose_the_last(session: Session) -> None:
    """Give notice to the last member, as the platform does to the machine that it takes back; wait until all know."""
    step = session.heartbeat.step
    if session.gang.rank == session.gang.nodes - 1:
        os.kill(os.getpid(), signal.SIGTERM)
    while not session.preempted:
        session.should_checkpoint(step)
