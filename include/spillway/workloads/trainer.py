"""One model being trained: a step, an evaluation, its whole state."""

from __future__ import annotations

import hashlib
import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spillway.runtime import randomness
from spillway.workloads.batches import Windows
from spillway.workloads.gpt import GPT, Shape
from spillway.workloads.prefetch import Prefetch

if TYPE_CHECKING:
    from spillway.workloads.dataset import Dataset
    from spillway.workloads.recipe import Recipe

_VALIDATION_WINDOWS = 128
_EVALUATION_BATCH = 64
_WEIGHT_DECAY = 0.1
_LARGEST_GRADIENT = 1.0


def be_repeatable(threads: int) -> None:
    """Make torch give the same bits each time, on this kind of machine and with this many threads; for the whole process."""
    # What cuBLAS needs for it, read when an accelerator is first used: docs.nvidia.com/cuda/cublas, "Results reproducibility".
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(threads)


def best_device() -> torch.device:
    """Return the accelerator that torch finds here, or else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


class Trainer:
    """A model, its optimizer, and how far they are.

    What a step does depends on the recipe, the data and the state alone, so a trainer that loads the state of another goes
    on exactly as that one would have.

    Attributes:
        steps_done: Optimizer steps so far.
    """

    def __init__(
        self,
        data: Dataset,
        recipe: Recipe,
        *,
        prefetch: int = 0,
        recompute: bool = False,
        device: torch.device | None = None,
    ) -> None:
        """Begin a training.

        Args:
            data: What it learns.
            recipe: The numbers of it.
            prefetch: Batches that are read ahead; does not change a bit.
            recompute: As in `GPT`; does not change a bit.
            device: What it runs on; `best_device()` unless given. Weights begin as they would on the CPU.
        """
        self.recipe = recipe
        self.device = device or best_device()
        self.steps_done = 0
        self._train = Windows(data.train, recipe.context + 1)
        self._batches = Prefetch(self._draw, ahead=prefetch, stop=recipe.steps)
        validation = Windows(data.validation, recipe.context + 1).spread(_VALIDATION_WINDOWS)
        tokens = torch.from_numpy(validation).to(self.device)
        self._validation = torch.split(tokens, _EVALUATION_BATCH)
        randomness.seed_all(recipe.seed)
        self.model = GPT(
            Shape(
                vocabulary=data.manifest.vocabulary,
                context=recipe.context,
                width=recipe.width,
                layers=recipe.layers,
                heads=recipe.heads,
                dropout=recipe.dropout,
            )
        )
        self.model.recompute = recompute
        self.model.to(self.device)
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(self.model), lr=recipe.learning_rate, betas=(0.9, 0.95)
        )

    @property
    def is_done(self) -> bool:
        """Whether all steps of the recipe are done."""
        return self.steps_done >= self.recipe.steps

    def step(self) -> float:
        """Do one optimizer step and return its loss, in nats a token."""
        return self.learn(self.next_batch())

    def next_batch(self) -> Tensor:
        """Return the tokens of the next step, (batch, context + 1), waiting for them where they are not there yet."""
        return self._batches.take(self.steps_done)

    def learn(self, batch: Tensor) -> float:
        """Do one optimizer step on `batch` and return its loss, in nats a token."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate_at(self.steps_done)
        self.model.train()
        self.optimizer.zero_grad()
        parts = batch.to(self.device).chunk(self.recipe.accumulation)
        loss = sum(self._add_gradients(part) for part in parts)
        nn.utils.clip_grad_norm_(self.model.parameters(), _LARGEST_GRADIENT)
        self.optimizer.step()
        self.steps_done += 1
        return loss

    def _add_gradients(self, part: Tensor) -> float:
        """Add the gradients of one part of a batch, and return what it adds to the batch's loss."""
        with self._precision():
            loss = self.model.loss(part) / self.recipe.accumulation
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        return loss.item()

    def _precision(self) -> AbstractContextManager[object]:
        if self.recipe.precision != "bfloat16":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _draw(self, step: int) -> Tensor:
        recipe = self.recipe
        batch = self._train.draw(seed=recipe.seed, step=step, size=recipe.batch)
        return torch.from_numpy(batch)

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the mean loss, in nats a token, over the same validation windows each time."""
        self.model.eval()
        with self._precision():
            total = sum(float(self.model.loss(batch)) * len(batch) for batch in self._validation)
        return total / sum(map(len, self._validation))

    def state(self) -> dict[str, Any]:
        """Return all that `load` needs to go on exactly from here."""
        return {
            "steps_done": self.steps_done,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "randomness": randomness.capture(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from where another trainer of the same recipe and data was when `state` was taken."""
        self.steps_done = state["steps_done"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        randomness.restore(state["randomness"])

    def weights_checksum(self) -> str:
        """Return `sha256:` and a digest that is equal for bit-equal weights and no others."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return f"sha256:{digest.hexdigest()}"


def _parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Decay matrices only; a norm's gains and offsets have nothing to gain from being small."""
    matrices: list[Tensor] = [each for each in model.parameters() if each.dim() > 1]
    vectors: list[Tensor] = [each for each in model.parameters() if each.dim() <= 1]
    return [
        {"params": matrices, "weight_decay": _WEIGHT_DECAY},
        {"params": vectors, "weight_decay": 0.0},
    ]
